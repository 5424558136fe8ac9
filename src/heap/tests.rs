//! The whole heap against a mock system, with `check` after the steps.

use crate::mock::Mock;
use crate::model::{Boxed, Live};

mod blocks;
mod broken;
mod closed;
mod faults;
mod footprint;
mod fork;
mod misuse;
mod races;
mod random;
mod rare;
mod settle;
mod shortage;
mod stale;
mod stress;
mod threads;

/// A seed of a test's own, for this run (`BYSSAL_SEED`).
fn seeded(own: u64) -> u64 {
    own.wrapping_add(crate::mock::seed() << 16)
}

/// As many frees as it takes for a freed slot to leave its ring.
fn churn(process: &Boxed, n: usize) {
    for _ in 0..=crate::config::RING {
        // SAFETY: live.
        unsafe { process.free(process.malloc(n)) };
    }
}

/// Whether the action stops with a fault of that name.
fn faults(name: &str, action: impl FnOnce()) -> bool {
    crate::mock::expecting(action).is_some_and(|text| text.contains(name))
}

/// In the child of a fork: a block of this thread's heap, and eight of `n` bytes in one whose thread
/// stayed behind in the parent.
fn blocks_of_a_dead_heap(process: &Boxed, n: usize) -> (*mut u8, Vec<*mut u8>) {
    let first = process.malloc(10);
    let own = process.heap();
    process.set_heap(process.empty_heap());
    let blocks = (0..8).map(|_| process.malloc(n)).collect();
    process.set_heap(own);
    process.before_fork();
    // SAFETY: the only thread.
    unsafe { process.after_fork_child() };
    (first, blocks)
}
