//! Steps of the model, as text, as random values, and decoded from a fuzzer's bytes.

use crate::base::size_class::MAX_SMALL;
use arbitrary::{Result, Unstructured};

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident $weight:literal,)*) => {
        /// What a step does. `which` and `n` are its operands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Op { $($(#[$doc])* $name,)* }

        impl Op {
            /// Every operation and how often it comes in random sequences. Weight 0: it may end
            /// the sequence, as the process would stop; random sequences have it last if at all.
            pub const ALL: &'static [(Op, u32)] = &[$((Op::$name, $weight),)*];
        }
    };
}

ops! {
    /// malloc(n).
    Malloc 24,
    /// calloc(1, n).
    Zeroed 4,
    /// aligned_alloc(1 << (4 + which % 19), n).
    Aligned 3,
    /// `which % 64` mallocs of n bytes.
    Burst 3,
    /// A size beyond PTRDIFF_MAX, by malloc, aligned_alloc or realloc.
    TooMuch 1,
    /// Frees a block, whichever thread's it is.
    Free 16,
    /// Frees a block as a thread without a heap, which ends then.
    FreeElsewhere 5,
    /// free_sized or free_aligned_sized with the right size.
    FreeSized 2,
    /// Frees every `1 + which % 7`th block.
    FreeMany 2,
    /// realloc(block, n).
    Realloc 6,
    /// Goes on as thread `which % 4`.
    Thread 8,
    /// This thread ends; a new one is in its place.
    Exit 2,
    /// Gives back everything that is retained.
    Trim 1,
    /// Forks and goes on as the parent.
    ForkParent 1,
    /// Forks and goes on as the child: the other threads are gone.
    ForkChild 1,
    /// exit begins: what waits is verified; the process goes on in its handlers.
    ProcessExit 1,
    /// The system refuses after `which % 64` calls: one call if n is odd, else all.
    Shortage 2,
    /// The system has everything again.
    Plenty 3,
    /// Prints the heap.
    Dump 1,
    /// Frees a block twice in a row.
    DoubleFree 2,
    /// Frees, resizes or asks the size of a block freed some time ago.
    StaleFree 3,
    /// Frees a pointer n bytes into a block.
    Interior 2,
    /// Frees a pointer n bytes before a block.
    Before 1,
    /// Frees a pointer to somewhere else altogether.
    Wild 1,
    /// free_sized with a wrong size or alignment.
    WrongSize 1,
    /// Writes to a freed block. (hardened: ends the sequence)
    WriteAfterFree 1,
    /// Writes behind a block and frees it. Ends the sequence.
    Overflow 0,
}

impl Op {
    /// Whether the fault that this step provokes leaves a heap that no process would go on with.
    pub fn is_last(self) -> bool {
        Op::ALL.contains(&(self, 0))
    }
}

/// A step of a sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// With which block, or a small number.
    pub which: u16,
    /// With how many bytes.
    pub n: u32,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} {}", self.op, self.which, self.n)
    }
}

impl Step {
    /// A step from a fuzzer's bytes: one for the operation, one or two for each operand.
    pub fn decode(u: &mut Unstructured) -> Result<Step> {
        let op = Op::ALL[u.int_in_range(0..=Op::ALL.len() - 1)?].0;
        let which = u16::from(u.arbitrary::<u8>()?);
        let n = match u.int_in_range(0u8..=15)? {
            0..=6 => u.int_in_range(0..=255)?,
            7..=10 => u.int_in_range(0..=2047)?,
            11..=13 => u.int_in_range(0..=MAX_SMALL as u32)?,
            14 => u.int_in_range(MAX_SMALL as u32..=400_000)?,
            _ => u.int_in_range(100_000..=3_000_000)?,
        };
        Ok(Step { op, which, n })
    }
}

/// Steps of one input of the fuzzer at the most.
const INPUT_STEPS: usize = 400;

/// What a fuzzer's bytes say: whether there is a program break, and the steps.
pub fn decode(bytes: &[u8]) -> (bool, Vec<Step>) {
    let (&first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut u = Unstructured::new(rest);
    let mut steps = Vec::new();
    while !u.is_empty() && steps.len() < INPUT_STEPS {
        match Step::decode(&mut u) {
            Ok(step) => steps.push(step),
            Err(_) => break,
        }
    }
    (first & 1 == 0, steps)
}

/// A sequence as text, a step a line.
pub fn print(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step:?}\n")).collect()
}

/// A sequence from text; `#` begins a comment.
///
/// # Panics
/// On what is no step.
pub fn parse(text: &str) -> Vec<Step> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, which, n] = words[..] else {
                panic!("no step: {line}")
            };
            let op = Op::ALL.iter().find(|(op, _)| format!("{op:?}") == name);
            Step {
                op: op.unwrap_or_else(|| panic!("no operation: {name}")).0,
                which: which.parse().expect("a number"),
                n: n.parse().expect("a number"),
            }
        })
        .collect()
}

/// A number that tells texts apart (FNV-1a), for file names.
pub fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
