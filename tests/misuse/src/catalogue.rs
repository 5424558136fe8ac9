//! The rows, and what byssal promises in each.

use crate::outcome::Stage;
use crate::promise::Expect;

/// Sizes of the block that is misused: small, a page, large (for mallocng and glibc, too, a mapping
/// of its own).
pub const SIZES: [(&str, usize); 3] = [("small", 8), ("page", 4096), ("large", 262_144)];
const PAGE: usize = 1;
const LARGE: usize = 2;
/// As long as slots of byssal less a byte: behind such a block stands a canary alone.
const FULL: [usize; 3] = [15, 4671, 262_143];

/// Faults by number, as `src/heap/base/fault.rs` defines them.
const FREED: &[u32] = &[1, 2];
const INVALID: &[u32] = &[2];
const OVERFLOW: &[u32] = &[3];
const WRITTEN: &[u32] = &[4];
const MISMATCH: &[u32] = &[5];
/// What a write outside of a block may be named where free memory is watched.
const DAMAGE: &[u32] = &[3, 4];
const CALL: Stage = Stage::Call;

/// How a cell is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// What ended the trials.
    Endings,
    /// Share of the most common value.
    Mode,
    /// Mean of the values.
    Mean,
}

/// One misuse.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub group: &'static str,
    pub what: &'static str,
    pub program: &'static str,
    pub variant: u64,
    /// Whether each trial may come out differently: then there are many.
    pub chance: bool,
    /// Which of `SIZES` it is tried with: from the first of these on, below the second.
    pub sizes: (usize, usize),
    /// Bytes of the block, for each of `SIZES`.
    pub bytes: [usize; 3],
    pub show: Show,
    /// What the presets promise, default and hardened, for each of `SIZES`.
    expect: [[Expect; 3]; 2],
}

impl Row {
    const fn new(
        group: &'static str,
        what: &'static str,
        program: &'static str,
        expect: Expect,
    ) -> Self {
        Row {
            group,
            what,
            program,
            variant: 0,
            chance: false,
            sizes: (0, SIZES.len()),
            bytes: [SIZES[0].1, SIZES[1].1, SIZES[2].1],
            show: Show::Endings,
            expect: [[expect; 3]; 2],
        }
    }

    const fn variant(self, variant: u64) -> Self {
        Row { variant, ..self }
    }

    const fn chance(self) -> Self {
        Row {
            chance: true,
            ..self
        }
    }

    /// The block plays no part.
    const fn any_size(self) -> Self {
        Row {
            sizes: (0, 1),
            ..self
        }
    }

    const fn not_small(self) -> Self {
        Row {
            sizes: (1, SIZES.len()),
            ..self
        }
    }

    const fn only_large(self) -> Self {
        Row {
            sizes: (LARGE, SIZES.len()),
            ..self
        }
    }

    const fn at_least(mut self, least: usize) -> Self {
        // What is longer than a small block is longer than these, too.
        if self.bytes[0] < least {
            self.bytes[0] = least;
        }
        self
    }

    const fn bytes(self, bytes: [usize; 3]) -> Self {
        Row { bytes, ..self }
    }

    const fn not_large(self) -> Self {
        Row {
            sizes: (0, LARGE),
            ..self
        }
    }

    /// The same promise for both presets and all sizes.
    pub const fn promise(self, expect: Expect) -> Self {
        Row {
            expect: [[expect; 3]; 2],
            ..self
        }
    }

    const fn default(mut self, expect: Expect) -> Self {
        self.expect[0] = [expect; 3];
        self
    }

    const fn hardened(mut self, expect: Expect) -> Self {
        self.expect[1] = [expect; 3];
        self
    }

    const fn small(mut self, default: Expect, hardened: Expect) -> Self {
        self.expect[0][0] = default;
        self.expect[1][0] = hardened;
        self
    }

    const fn page(mut self, default: Expect, hardened: Expect) -> Self {
        self.expect[0][PAGE] = default;
        self.expect[1][PAGE] = hardened;
        self
    }

    const fn large(mut self, default: Expect, hardened: Expect) -> Self {
        self.expect[0][LARGE] = default;
        self.expect[1][LARGE] = hardened;
        self
    }

    const fn show(self, show: Show) -> Self {
        Row { show, ..self }
    }

    /// What a preset promises for one of `SIZES`.
    pub fn expect(&self, hardened: bool, size: usize) -> Expect {
        self.expect[usize::from(hardened)][size]
    }
}

/// All rows.
pub fn rows() -> Vec<Row> {
    [
        double_free(),
        invalid_free(),
        replay(),
        overflow(),
        after_free(),
        contents(),
        zero_size(),
        other_calls(),
        placement(),
    ]
    .concat()
}

fn double_free() -> Vec<Row> {
    let row = |what, program| Row::new("double free", what, program, Expect::Caught(CALL, FREED));
    // No new block has the address of a large one.
    let ops = |what, n| {
        row(what, "double_free_ops")
            .variant(n)
            .chance()
            .promise(Expect::CaughtUnlessReused(FREED))
            .large(Expect::Caught(CALL, FREED), Expect::Caught(CALL, FREED))
    };
    // No trial may miss: whoever comes second is seen at once, or when the owner collects, at exit
    // at the latest. In hardened both may be clearing the block when one of them looks at its tail.
    // Without a number: a thread sends its deferred frees when it ends, with all signals blocked, so
    // that the program's handler, which would tell the fault, does not run (musl).
    let race = |what, variant| {
        row(what, "double_free_race")
            .variant(variant)
            .chance()
            .promise(Expect::Caught(Stage::Exit, &[0, 1, 2]))
            .hardened(Expect::Caught(Stage::Exit, &[0, 1, 2, 3]))
    };
    vec![
        row("at once", "double_free"),
        row("after other frees", "double_free_later"),
        ops("after 1 other operation", 1),
        ops("after 10", 10),
        ops("after 100", 100),
        ops("after 1000", 1000),
        row("by another thread, then the owner", "double_free_remote"),
        row("by the owner, then another thread", "double_free_by_other"),
        row("by two other threads", "double_free_two_threads"),
        race("by owner and other at the same time", 0),
        race("by two others at the same time", 1),
        row(
            "of the old pointer after realloc moved it",
            "double_free_realloc",
        ),
    ]
}

fn invalid_free() -> Vec<Row> {
    let row =
        |what, program| Row::new("invalid free", what, program, Expect::Caught(CALL, INVALID));
    vec![
        row("1 byte into a block", "free_odd"),
        row("8 bytes into a block", "free_misaligned").at_least(24),
        row("16 bytes into a block", "free_interior").at_least(24),
        row("a page into a block", "free_interior")
            .variant(1)
            .only_large(),
        row("the stack", "free_stack").any_size(),
        row("a global", "free_global").any_size(),
        row("never mapped", "free_unmapped").any_size(),
        row("the program's own mapping", "free_mapped").any_size(),
        row("address 4096", "free_wild").any_size(),
        row("non-canonical address", "free_wild")
            .variant(1)
            .any_size(),
        row("past the end of a chunk (4 MiB)", "free_chunk_end"),
        row("last 16 bytes of a chunk", "free_chunk_end").variant(1),
        row("the allocator's state (head)", "free_metadata"),
        row("the allocator's state (16 KiB on)", "free_metadata").variant(1),
        row("16 bytes before an aligned block", "free_aligned_raw"),
    ]
}

fn replay() -> Vec<Row> {
    let row = |what, program, expect| Row::new("forged state", what, program, expect);
    vec![
        row(
            "a neighbour's header copied into a block, free behind it",
            "replay_interior",
            Expect::Caught(CALL, INVALID),
        )
        .at_least(24),
        row(
            "double free, all bytes in and around restored",
            "replay_double",
            Expect::Caught(CALL, FREED),
        ),
        row(
            "overflow by 16 that copies a neighbour's end",
            "replay_tail",
            Expect::Nothing,
        )
        .chance()
        .hardened(Expect::Mostly(Stage::Later, DAMAGE, 9)),
    ]
}

fn overflow() -> Vec<Row> {
    let late = Expect::Caught(Stage::Later, DAMAGE);
    let free = Expect::Caught(Stage::Free, OVERFLOW);
    let row = |what, program| {
        Row::new("overflow", what, program, late)
            .hardened(free)
            .large(free, free)
    };
    // Of a canary there are 63 kinds, of a byte of a guard 128.
    let mostly = |stage| Expect::Mostly(stage, OVERFLOW, 9);
    vec![
        row("by 1 (text)", "overflow_byte"),
        // A NUL stands there. Behind whole pages hardened has no memory.
        row("by strcpy's NUL", "overflow_string")
            .promise(Expect::Harmless)
            .large(Expect::Harmless, Expect::Protected),
        row("by strcpy's NUL, 1 less than a slot", "overflow_string")
            .bytes(FULL)
            .not_large()
            .hardened(Expect::Harmless),
        row("by 1 (random other byte)", "overflow_random").chance(),
        row("by 1 (one of byssal's 63 canaries)", "overflow_guess").chance(),
        row("by 1 (one of them), 1 less than a slot", "overflow_guess")
            .chance()
            .bytes(FULL)
            .not_large()
            .promise(mostly(Stage::Later))
            .hardened(free),
        row("by 4", "overflow_tail").variant(4),
        row("by 8", "overflow_tail").variant(8),
        row("by 32", "overflow_tail").variant(32),
        row("by 4096", "overflow_tail").variant(4096),
        row("by 8192", "overflow_tail")
            .variant(8192)
            .only_large()
            .promise(Expect::Protected),
        row("by 1, freed last of all", "overflow_at_exit")
            .promise(Expect::Caught(Stage::Exit, OVERFLOW))
            .hardened(free)
            .large(free, free),
        row("by 1, freed by another thread", "overflow_remote").promise(free),
        row("by 1, then realloc", "realloc_overflowed"),
        row("as far as there is memory", "run_away").promise(Expect::Protected),
    ]
    .into_iter()
    .chain(overflow_to_the_end())
    .chain(jumps())
    .chain(underflow())
    .collect()
}

/// Overflows that no later call looks at.
fn overflow_to_the_end() -> Vec<Row> {
    let row = |what, variant| {
        Row::new("overflow", what, "exit_live", Expect::Nothing)
            .variant(variant)
            .chance()
    };
    let exit = Expect::Caught(Stage::Exit, OVERFLOW);
    vec![
        row("by 1, never freed", 0).large(Expect::Nothing, Expect::Protected),
        row("by 1, never freed, of another thread", 1).large(Expect::Nothing, Expect::Protected),
        row("by 1, freed by another thread that goes on", 2).promise(exit),
        // A thread of musl ends with all signals blocked: the handler does not tell the number.
        row("by 1, freed by another thread that ends", 3)
            .promise(Expect::Caught(Stage::Exit, &[0, 3])),
        row("by 1, freed; another thread calls exit", 4).promise(exit),
        Row::new(
            "overflow",
            "by 1, in a program without free",
            "no_free",
            Expect::Nothing,
        )
        .variant(2)
        .large(Expect::Nothing, Expect::Protected),
    ]
}

/// One byte, some way off.
fn jumps() -> Vec<Row> {
    let row = |what, variant| {
        Row::new("overflow", what, "overflow_at", Expect::Nothing)
            .variant(variant)
            .chance()
    };
    vec![
        // The tail of this size has 16 bytes or more.
        row("one byte, 8 behind the end", 8)
            .page(Expect::Nothing, Expect::Caught(Stage::Free, OVERFLOW))
            .large(Expect::Caught(Stage::Free, OVERFLOW), Expect::Protected),
        row("one byte, 12 behind", 12)
            .only_large()
            .large(Expect::Caught(Stage::Free, OVERFLOW), Expect::Protected),
        row("one byte, 64 behind", 64)
            .only_large()
            .large(Expect::Nothing, Expect::Protected),
    ]
}

fn underflow() -> Vec<Row> {
    let free = Expect::Caught(Stage::Free, OVERFLOW);
    let row = |what, program, variant| {
        Row::new("underflow", what, program, Expect::Nothing)
            .variant(variant)
            .chance()
            // All but the first slot of a group have a guard before them.
            .hardened(Expect::Mostly(Stage::Later, DAMAGE, 9))
            .large(Expect::Protected, Expect::Protected)
    };
    vec![
        row("by 1", "underflow", 1).page(free, free),
        row("by 8", "underflow", 8).page(free, free),
        row("by 32", "underflow", 32).page(free, free),
        row("one byte, 8 before the block", "underflow_at", 8).page(Expect::Nothing, free),
        // A small block's neighbour lies there.
        row("one byte, 32 before", "underflow_at", 32)
            .hardened(Expect::Nothing)
            .large(Expect::Protected, Expect::Protected)
            .page(Expect::Nothing, free),
        row("one byte, 1 MiB before", "underflow_at", 1 << 20).only_large(),
        row("as far as there is memory", "run_away", 1).promise(Expect::Protected),
    ]
}

fn after_free() -> Vec<Row> {
    let row = |what, program| {
        Row::new("after free", what, program, Expect::Nothing)
            .chance()
            .large(Expect::Protected, Expect::Protected)
    };
    let exit = Expect::Caught(Stage::Exit, WRITTEN);
    let shrunk = |what, variant, expect| {
        Row::new("after free", what, "shrunk", expect)
            .variant(variant)
            .chance()
            .not_small()
    };
    vec![
        row("write, then the memory is used again", "write_freed")
            .small(Expect::Nothing, exit)
            .page(Expect::Nothing, exit),
        row("write, then it is not used again", "write_idle")
            .page(Expect::Nothing, exit)
            .small(Expect::Nothing, exit),
        row("write when it is used again", "write_reused"),
        row("read", "read_freed")
            .small(Expect::Nothing, Expect::Zeros)
            .page(Expect::Nothing, Expect::Zeros),
        row("read when it is used again", "write_reused").variant(1),
        shrunk(
            "write behind a block that shrank",
            0,
            Expect::Caught(Stage::Free, OVERFLOW),
        ),
        shrunk("write at the end that it had", 1, Expect::Protected),
        shrunk("read behind a block that shrank", 2, Expect::Nothing),
        shrunk("read at the end that it had", 3, Expect::Protected),
    ]
}

fn contents() -> Vec<Row> {
    let row = |what, variant| {
        Row::new("old contents", what, "contents", Expect::Nothing)
            .variant(variant)
            .hardened(Expect::Zeros)
    };
    let string = |what, variant| {
        Row::new("string without end", what, "unterminated", Expect::Stops).variant(variant)
    };
    vec![
        row("in malloc's block", 0),
        row("in what realloc adds", 1),
        row("in calloc's block", 2).promise(Expect::Zeros),
        row("in aligned_alloc's block", 3),
        row("in a block of another size of the class", 4),
        row("another thread's, in malloc's block", 5),
        row("in calloc's block, after a stale write", 6)
            .chance()
            .promise(Expect::Zeros)
            .hardened(Expect::ZerosOr(WRITTEN)),
        string("as long as malloc_usable_size", 0),
        string("as long as was asked for", 1),
    ]
}

fn zero_size() -> Vec<Row> {
    let row = |what, program, variant| {
        Row::new("block of 0 bytes", what, program, Expect::Protected)
            .variant(variant)
            .any_size()
    };
    let malloc = |what, variant| row(what, "zero_size", variant);
    vec![
        malloc("write", 0),
        malloc("read", 1),
        malloc("write 8 behind", 2),
        malloc("read 8 behind", 3),
        malloc("write 1 before", 4),
        malloc("read 1 before", 5),
        malloc("calloc's, write", 10),
        malloc("calloc's, read", 11),
        malloc("realloc's, write", 20),
        malloc("realloc's, read", 21),
        malloc("aligned_alloc's, write", 30),
        malloc("aligned_alloc's, read", 31),
        // The library of C++ asks malloc for a byte.
        row("new[]'s, write", "cxx_zero", 0).default(Expect::Nothing),
        row("new[]'s, read", "cxx_zero", 1).default(Expect::Nothing),
        // Static ones get musl's bump allocator, unless hardened.
        row("write, in a program without free", "no_free", 0)
            .promise(Expect::Nothing)
            .hardened(Expect::Protected),
        row("read, in a program without free", "no_free", 1)
            .promise(Expect::Nothing)
            .hardened(Expect::Protected),
    ]
}

fn other_calls() -> Vec<Row> {
    let row = |what, program, faults| {
        Row::new("other calls", what, program, Expect::Caught(CALL, faults))
    };
    vec![
        row("realloc of a freed block", "realloc_freed", FREED),
        row(
            "realloc, 16 bytes into a block",
            "realloc_interior",
            INVALID,
        )
        .at_least(24),
        row("realloc of a global", "realloc_foreign", INVALID).any_size(),
        row(
            "malloc_usable_size of a freed block",
            "usable_size_freed",
            FREED,
        ),
        row(
            "malloc_usable_size of a global",
            "usable_size_foreign",
            INVALID,
        )
        .any_size(),
        row("free_sized with a wrong size", "free_sized_wrong", MISMATCH),
        row("free_sized of a freed block", "free_sized_freed", FREED),
        row("free_sized of a global", "free_sized_foreign", INVALID).any_size(),
    ]
    .into_iter()
    .chain(sized_delete())
    .collect()
}

/// C++.
fn sized_delete() -> Vec<Row> {
    let row = |what, variant| {
        Row::new("other calls", what, "cxx_delete", Expect::Nothing)
            .variant(variant)
            .at_least(64)
            .hardened(Expect::Caught(CALL, MISMATCH))
    };
    vec![
        row("C++ sized delete, larger", 0),
        row("C++ sized delete, half", 1),
        row("C++ sized delete[], larger", 2),
        row("C++ sized aligned delete, larger", 3),
    ]
}

fn placement() -> Vec<Row> {
    let row = |what, variant, show| {
        Row::new("placement", what, "place", Expect::Nothing)
            .variant(variant)
            .chance()
            .show(show)
    };
    vec![
        row("most common address of a block", 0, Show::Mode),
        row("most common distance to the next block", 1, Show::Mode),
        row("a freed block comes back at once", 2, Show::Mean).promise(Expect::Elsewhere),
        row("a freed block is among the next 8", 3, Show::Mean).promise(Expect::Elsewhere),
    ]
}
