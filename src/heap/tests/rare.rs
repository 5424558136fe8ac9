//! What chance hardly ever reaches: races of two frees after both passed their checks, limits,
//! and refusals at one certain call.

use super::*;
#[cfg(small_constants)]
use crate::base::config::MOST_HEAPS;
use crate::base::fault::Fault;
#[cfg(small_constants)]
use crate::exchange::abandoned::Keeper;
use crate::heap::heap::MyHeap;
#[cfg(small_constants)]
use crate::layout::kind::Kind;
use crate::layout::slot::LiveSlot;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn every_fault_has_a_name_of_its_own() {
    use Fault::*;
    let all = [
        DoubleFree,
        InvalidPointer,
        Overflow,
        WriteAfterFree,
        SizeMismatch,
        Corruption,
    ];
    for (index, fault) in all.into_iter().enumerate() {
        assert_eq!(fault as usize, index + 1, "numbers are for ever");
        assert!(all[..index]
            .iter()
            .all(|other| other.name() != fault.name()));
        assert!(faults(fault.name(), || crate::base::fault::stop(fault, 1)));
    }
}

#[test]
fn null_is_no_block() {
    let process = Boxed::new(true);
    let null = std::ptr::null_mut();
    // SAFETY: null.
    unsafe {
        process.free(null);
        process.free_sized(null, 7);
        assert_eq!(process.usable_size(null), 0);
        let block = process.realloc(null, 20);
        assert!(!block.is_null());
        process.free(block);
    }
    process.verify();
}

/// The second of two frees at the same time finds the block gone when it gets the lock.
#[test]
fn racing_frees_of_large_blocks_are_found() {
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let _stays = (process.malloc(10), process.aligned_alloc(4096, 4096));
        let run = process.aligned_alloc(4096, 4096);
        process.free(run);
        assert!(process.find(run).is_none());
        assert!(faults("invalid", || process.free(run)));

        let large = process.malloc(300 << 10);
        process.free(large);
        assert!(process.find(large).is_none());
        assert!(faults("double", || process.free(large)));
        // What the handler of that fault allocated may have had the mapping.
        let large = process.malloc(300 << 10);
        process.free(large);
        assert!(faults("double", || _ = process.realloc(large, 1 << 21)));
        let large = process.malloc(300 << 10);
        process.free(large);
        assert!(faults("double", || _ = process.usable_size(large)));
    }
    process.verify();
}

/// Two threads, neither of them the owner, found the block before either freed it.
#[test]
fn racing_remote_frees_are_found() {
    let process = Boxed::new(true);
    let keep: Vec<_> = (0..8).map(|_| process.malloc(40)).collect();
    let find = |index: usize| process.find(keep[index]).expect("live");
    let (slot, another) = (find(3), find(4));
    let owner = switch(&process, None);
    process.malloc(1);
    let one = switch(&process, None);
    process.malloc(1);
    let two = process.mine().heap();
    let flush = |heap| MyHeap::peek(heap, &process.heaps).flush();
    // What the second thread does with a slot that it found before the first cleared its record.
    let go_on = |slot: &LiveSlot| {
        slot.clear_record();
        slot.clear_memory();
        process.mine().defer(slot);
    };
    // Sets what they may defer.
    flush(one);
    flush(two);
    switch(&process, Some(one));
    // SAFETY: live.
    unsafe {
        process.free(slot.block());
        process.free(another.block());
    }
    // The same thread, its own bit still in hand.
    assert!(faults("double", || go_on(&slot)));
    switch(&process, Some(two));
    go_on(&slot);
    flush(one);
    // Still in the owner's mail: the second to flush finds it.
    assert!(faults("double", || flush(two)));
    switch(&process, Some(owner));
    process.mine().collect();
    // Nor may it come back once more, now that it stands in a mask.
    process.heaps.send(slot.group, slot.bit());
    assert!(faults("double", || _ = process.mine().collect()));
    // Collected before the second flushes: the owner finds it.
    switch(&process, Some(two));
    go_on(&another);
    flush(two);
    switch(&process, Some(owner));
    assert!(faults("double", || _ = process.mine().collect()));
}

/// Threads that live at the same time take all numbers: no heap is entered beyond the last.
#[cfg(small_constants)]
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn no_heap_is_entered_beyond_the_last_number() {
    let process = Boxed::new(true);
    for _ in 0..MOST_HEAPS - 1 {
        Mock::new_thread();
        assert!(!process.malloc(1).is_null());
    }
    assert!(!process.heaps.are_numbers_out());
    Mock::new_thread();
    assert!(!process.malloc(1).is_null());
    assert!(process.heaps.are_numbers_out());
    assert!(process.mine().is_empty(), "nobody keeps the last one");
    let mut locked = process.heaps.memory.lock();
    assert!(process.heaps.enter(&mut locked, |_| None).is_none());
    drop(locked);
    assert!(!process.malloc(10).is_null());
    assert_eq!(process.verify().heaps, MOST_HEAPS);
}

/// Who waits for another thread's heap asks again and again, and is not to give each time back what
/// the process keeps.
#[cfg(small_constants)]
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn waiting_for_a_heap_leaves_what_is_kept() {
    let process = Boxed::new(true);
    for _ in 0..MOST_HEAPS {
        Mock::new_thread();
        assert!(!process.malloc(1).is_null());
    }
    let mut locked = process.heaps.memory.lock();
    let run = locked.pages.take_run(Kind::COMMON, 1, 1).unwrap();
    locked.pages.return_run(run);
    drop(locked);
    let dirty = || process.heaps.memory.lock().pages.dirty.amount();
    let kept = dirty();
    assert!(kept > 0);
    // The last one, as a call of another thread has it.
    let lent = process
        .heaps
        .with_abandoned(|abandoned| abandoned.reclaim(true));
    Mock::new_thread();
    assert!(lent.is_some() && process.attach().is_none());
    assert_eq!(dirty(), kept);
}

/// The fourth heap needs a table besides its own memory.
#[test]
fn a_table_of_heaps_may_be_refused() {
    for after in 0..8 {
        let process = Boxed::new(true);
        for _ in 0..3 {
            Mock::new_thread();
            assert!(!process.malloc(10).is_null());
        }
        // The pool that heaps come from is all but used up: the next ones ask the system.
        let mut locked = process.heaps.memory.lock();
        locked.pages.metadata(1 << 20, 64);
        drop(locked);
        Mock::new_thread();
        process.platform().calls_left.store(after, Relaxed);
        let block = process.malloc(10);
        assert!(!block.is_null() || Mock::take_errno());
        process.platform().calls_left.store(usize::MAX, Relaxed);
        process.verify();
        assert!(!process.malloc(10).is_null());
        process.verify();
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn thousands_of_large_blocks_are_found_again() {
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..1200).map(|_| process.malloc(200_000)).collect();
    assert_eq!(process.verify().large, blocks.len());
    for &block in &blocks {
        assert_eq!(process.usable_size(block), 200_000);
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    assert_eq!(process.verify().large, 0);
}

/// The dynamic linker may move the first thread's state: its word is zero again.
#[test]
fn the_only_thread_finds_its_heap_again() {
    let process = Boxed::new(true);
    process.platform().single.store(true, Relaxed);
    let first = process.malloc(40);
    Mock::new_thread();
    let second = process.malloc(40);
    // SAFETY: live.
    unsafe {
        process.free(first);
        process.free(second);
    }
    assert_eq!(process.verify().heaps, 1);
}

/// Records of large blocks take their cells from any chunk: its spans may get no group any more.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn large_blocks_may_use_up_the_cells_of_a_chunk() {
    let process = Boxed::new(true);
    let first = process.malloc(10);
    let large: Vec<_> = (0..4000).map(|_| process.malloc(140_000)).collect();
    process.verify();
    let small: Vec<_> = (0..2000).map(|n| process.malloc(n)).collect();
    let runs: Vec<_> = (0..50).map(|_| process.aligned_alloc(4096, 4096)).collect();
    process.verify();
    for block in large.into_iter().chain(small).chain(runs) {
        assert!(!block.is_null());
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // SAFETY: live.
    unsafe { process.free(first) };
    assert_eq!(process.verify().live_bytes, 0);
}
