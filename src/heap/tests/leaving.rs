//! The memory of a long block goes back without the lock.

use super::*;
use crate::base::config::{LARGE_LONG, PRESET};
use crate::mock::{Call, Plan};
use crate::pages::large::{Freed, Leaving};
use std::sync::atomic::Ordering;

const LONG: usize = 3 * LARGE_LONG;

/// A process, a long block of it that was freed but for its memory, and the rest of that.
fn leaving() -> (Boxed, *mut u8, Leaving) {
    let process = Boxed::new(false);
    let block = process.malloc(LONG);
    // SAFETY: live.
    unsafe { block.write_bytes(1, LONG) };
    let freed = process.heaps.memory.lock().free_large(block);
    let Ok(Freed::But(leaving)) = freed else {
        panic!("a long block's memory goes at once, without the lock");
    };
    (process, block, leaving)
}

/// Nothing waits to be given back, and what was is not lost.
fn settled(process: &Boxed) {
    process.verify();
    let locked = process.heaps.memory.lock();
    let large = &locked.large;
    assert_eq!((large.live, large.leaving.count.get()), (0, 0));
    assert_eq!(
        large.cells(),
        large.kept.count.get() + large.refused.count.get()
    );
}

#[test]
fn the_lock_is_taken_anew_when_a_long_block_s_memory_went() {
    let process = Boxed::new(false);
    let locks_of_free = |n: usize| {
        let block = process.malloc(n);
        let before = process.platform().locks.load(Ordering::Relaxed);
        // SAFETY: live.
        unsafe { process.free(block) };
        process.platform().locks.load(Ordering::Relaxed) - before
    };
    assert_eq!(locks_of_free(LONG), 2);
    assert_eq!(locks_of_free(LARGE_LONG / 2), 1);
    process.platform().single.store(true, Ordering::Relaxed);
    assert_eq!(locks_of_free(4 * LONG), 1, "nobody waits for it");
    settled(&process);
}

#[test]
fn a_block_that_is_leaving_is_freed() {
    let (process, block, leaving) = leaving();
    process.verify();
    // Another one is freed meanwhile.
    // SAFETY: live, and the misuse under test.
    unsafe {
        process.free(process.malloc(200_000));
        assert!(faults("double free", || process.free(block)));
        assert!(faults("double free", || _ = process.realloc(block, 10)));
    }
    let others = [LONG, LONG, 200_000].map(|n| process.malloc(n));
    assert!(!others.contains(&block), "its addresses are taken");
    let left = leaving.give_back(process.platform());
    process.heaps.memory.lock().free_left(left);
    for other in others {
        // SAFETY: live.
        unsafe { process.free(other) };
    }
    settled(&process);
}

#[test]
fn a_long_block_that_the_system_does_not_take_back_is_remembered() {
    for call in [Call::Unmap, Call::Purge] {
        let (process, _, leaving) = leaving();
        let set = |plan| *process.platform().plan.lock().unwrap() = plan;
        set(Plan {
            only: 1 << call as u32,
            skip: 0,
            refuse: usize::MAX,
        });
        let left = leaving.give_back(process.platform());
        process.heaps.memory.lock().free_left(left);
        settled(&process);
        let refused = process.heaps.memory.lock().large.refused.count.get();
        let waits = call == Call::Unmap && !PRESET.seal_freed_large;
        assert_eq!(refused, waits as usize);
        set(Plan::NONE);
        let again = process.malloc(LONG);
        // SAFETY: a live block of so many bytes, just made.
        let bytes = unsafe { std::slice::from_raw_parts(again, LONG) };
        assert!(!process.is_zero(again) || bytes.iter().all(|&byte| byte == 0));
        // SAFETY: live.
        unsafe { process.free(again) };
        settled(&process);
    }
}

/// The thread that was giving it back is not in the child.
#[test]
fn the_child_of_a_fork_frees_what_was_leaving() {
    let (process, block, _in_the_parent) = leaving();
    let before = process.platform().mapped();
    fork(&process);
    settled(&process);
    assert!(PRESET.seal_freed_large || process.platform().mapped() + LONG <= before);
    // SAFETY: the misuse under test.
    assert!(faults("double free", || unsafe { process.free(block) }));
}
