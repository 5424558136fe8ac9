//! The whole heap against a mock system, with `check` after the steps.

use crate::heap::heap::Heap;
use crate::mock::Mock;
use crate::model::{Boxed, Live};
use core::cell::Cell;

mod aside;
mod blocks;
mod broken;
mod closed;
mod decay;
mod faults;
mod footprint;
mod fork;
mod leaving;
mod misuse;
mod pages;
mod races;
mod random;
mod rare;
mod runs;
mod shortage;
mod stale;
mod stress;
mod threads;

/// A seed of a test's own, for this run (`BYSSAL_SEED`).
fn seeded(own: u64) -> u64 {
    own.wrapping_add(crate::mock::seed() << 16)
}

/// Of so many repetitions those that a test has time for: under Miri one in `part`.
const fn few(all: usize, part: usize) -> usize {
    if cfg!(miri) {
        all / part
    } else {
        all
    }
}

/// The state of a generator of choices, of a test's own, for this run.
fn generator(own: u64) -> Cell<u64> {
    Cell::new(seeded(own))
}

/// Goes on as another thread: one that has `heap`, or none yet. Gives the former heap, which may be
/// the empty one.
fn switch(process: &Boxed, heap: Option<&'static Heap>) -> &'static Heap {
    let former = process.mine().heap();
    process.heaps.set_mine(heap);
    former
}

/// Goes on in the child of a fork, as its only thread.
fn fork(process: &Boxed) {
    process.before_fork();
    // SAFETY: tests that fork have no other thread at work on this process.
    unsafe { process.after_fork_child() };
}

/// As many frees as it takes for a freed slot to leave its reuse queue.
fn churn(process: &Boxed, n: usize) {
    for _ in 0..=crate::base::config::REUSE_QUEUE {
        // SAFETY: live.
        unsafe { process.free(process.malloc(n)) };
    }
}

/// Whether the action stops with a fault of that name.
fn faults(name: &str, action: impl FnOnce()) -> bool {
    crate::mock::expecting(action).is_some_and(|text| text.contains(name))
}

/// In the child of a fork: a block of this thread's heap, and eight of `n` bytes in one whose
/// thread stayed behind in the parent.
fn blocks_of_an_orphaned_heap(process: &Boxed, n: usize) -> (*mut u8, Vec<*mut u8>) {
    let first = process.malloc(10);
    let own = switch(process, None);
    let blocks = (0..8).map(|_| process.malloc(n)).collect();
    switch(process, Some(own));
    fork(process);
    (first, blocks)
}
