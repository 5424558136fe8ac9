//! A reference model for tests: sequences of steps run against a heap on the mock system, beside
//! a plain list of what must be live. Property tests and the fuzzer share it.
//!
//! Threads are simulated by exchanging the word that a thread keeps for the allocator: a sequence
//! of steps always does the same, so that it can be shrunk and kept. (What only real threads can
//! show is for the stress tests and the models under loom.)

use crate::allocator::Allocator;
use crate::mock::{system, Mock};
use std::cell::Cell;
use std::ops::Deref;

mod check;
mod check_cells;
mod misuse;
mod run;
mod step;

pub use check::Summary;
pub use run::{run, Report};
pub use step::{decode, fingerprint, parse, print, Op, Step};

std::thread_local! {
    /// The process that this thread made last.
    static CURRENT: Cell<*const Allocator<Mock>> = const { Cell::new(std::ptr::null()) };
}

/// What a handler of the signal by which a process stops does in the worst case: it allocates,
/// frees, resizes, and forks. Only for the thread that made the process.
pub(crate) fn handle() {
    // SAFETY: null, or alive as long as its `Boxed`.
    let Some(process) = (unsafe { CURRENT.get().as_ref() }) else {
        return;
    };
    if cfg!(miri) {
        // A handler takes a second there: the first fault of each process has one.
        CURRENT.set(std::ptr::null());
    }
    let mut blocks = Vec::new();
    // Under Miri a few of them.
    let sizes = [
        0,
        1,
        40,
        100,
        300,
        600,
        1000,
        4000,
        10_000,
        60_000,
        200_000,
        1 << 20,
    ];
    let (step, aligns) = if cfg!(miri) { (5, 2) } else { (1, 4) };
    for n in sizes.into_iter().step_by(step) {
        for align in [1, 4096, 1, 64].into_iter().take(aligns) {
            blocks.push((process.aligned_alloc(align, n), n));
        }
    }
    process.before_fork();
    process.after_fork_parent();
    for (mut block, n) in blocks.into_iter().filter(|(block, _)| !block.is_null()) {
        // SAFETY: live.
        unsafe {
            block.write_bytes(1, n.min(5000));
            let moved = process.realloc(block, 2 * n);
            if !moved.is_null() {
                block = moved;
            }
            process.free(block);
        }
    }
}

/// A process in memory of its own (its pagemap is too large for a stack).
pub struct Boxed(*mut Allocator<Mock>);

impl Boxed {
    const BYTES: usize = size_of::<Allocator<Mock>>().next_multiple_of(4096);

    /// A process on a fresh mock system, this thread its first.
    pub fn new(has_break: bool) -> Self {
        Mock::new_thread();
        // Of a mapping's own: a malloc that kept the memory would have to clear all of it.
        let memory = system::map(0, Boxed::BYTES).expect("no memory for a process");
        let process = memory.as_ptr().cast::<Allocator<Mock>>();
        // SAFETY: all-zero bytes are a valid process but for its platform, which is written here.
        unsafe { Allocator::init_for_test(process, Mock::new(has_break)) };
        CURRENT.set(process);
        Boxed(process)
    }

    /// Panics, with a dump, unless every invariant of the heap holds.
    pub fn verify(&self) -> Summary {
        match self.check() {
            Ok(summary) => summary,
            Err(broken) => {
                let mut dump = String::new();
                let _ = self.dump(&mut dump);
                panic!("{broken}\n{dump}");
            }
        }
    }
}

impl Deref for Boxed {
    type Target = Allocator<Mock>;
    fn deref(&self) -> &Allocator<Mock> {
        // SAFETY: made in `new`, freed in `drop`.
        unsafe { &*self.0 }
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        Mock::new_thread();
        if CURRENT.get() == self.0 {
            CURRENT.set(std::ptr::null());
        }
        // SAFETY: the last use.
        unsafe {
            core::ptr::drop_in_place(&raw mut (*self.0).heaps.memory.system.platform);
            system::unmap(self.0 as usize, Boxed::BYTES);
        }
    }
}

// SAFETY: the allocator belongs to no thread: whichever drops it is the last one to use it.
unsafe impl Send for Boxed {}
// SAFETY: all that threads share of an allocator is synchronised by the code under test.
unsafe impl Sync for Boxed {}

/// A live block of the model, filled with its tag.
#[derive(Clone, Copy)]
pub(crate) struct Live {
    /// First byte.
    pub at: *mut u8,
    /// Bytes filled.
    pub n: usize,
    /// What they are filled with.
    pub tag: u8,
}

// SAFETY: tests hand blocks from thread to thread.
unsafe impl Send for Live {}
// SAFETY: a value is only read, and the block behind it is used by one thread at a time.
unsafe impl Sync for Live {}

impl Live {
    /// Fills a new block of `n` bytes.
    pub(crate) fn new(at: *mut u8, n: usize, tag: u8) -> Self {
        assert!(!at.is_null());
        assert_eq!(at as usize % 16, 0);
        // SAFETY: a block of n bytes.
        unsafe { at.write_bytes(tag, n) };
        Live { at, n, tag }
    }

    /// Panics unless the block holds what it was filled with.
    pub(crate) fn verify(&self) {
        self.verify_first(self.n);
    }

    /// Panics unless the first `n` bytes hold what the block was filled with.
    pub(crate) fn verify_first(&self, n: usize) {
        // SAFETY: a live block.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, n) };
        assert!(
            is_all(bytes, self.tag),
            "contents of a live block changed: {self:?}, first {n}"
        );
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:p} of {}", self.n, self.at, self.tag)
    }
}

/// Whether all bytes are `byte`: in chunks, as that is several times as fast. Miri compares a long
/// one as fast as a short one.
pub(crate) fn is_all(bytes: &[u8], byte: u8) -> bool {
    const CHUNK: usize = if cfg!(miri) { 16 << 10 } else { 256 };
    let pattern = [byte; CHUNK];
    bytes
        .chunks(CHUNK)
        .all(|chunk| *chunk == pattern[..chunk.len()])
}
