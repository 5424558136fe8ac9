//! What chance hardly ever reaches: races of two frees after both passed their checks, limits,
//! and refusals at one certain call.

use super::*;
use crate::config::PRESET;
use crate::fault::Fault;
use crate::free::Block;
use crate::meta::NOBODY;
use crate::pointer::Untrusted;
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
        assert!(faults(fault.name(), || crate::fault::stop(fault, 1)));
    }
}

#[test]
fn null_is_no_block() {
    let process = Boxed::new(true);
    let null = std::ptr::null_mut();
    // SAFETY: null.
    unsafe {
        process.free(null);
        process.free_sized(null, 1, 7);
        assert_eq!(process.usable_size(null), 0);
        let block = process.realloc(null, 20);
        assert!(!block.is_null());
        process.free(block);
    }
    process.verify();
}

/// The second of two frees at the same time finds the block gone when it gets the lock.
#[test]
fn racing_frees_of_large_and_run_blocks_are_found() {
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let _stays = (process.malloc(10), process.aligned_alloc(4096, 4096));
        let run = process.aligned_alloc(4096, 4096);
        let Block::Run(meta) = process.find(run) else {
            panic!("a run")
        };
        process.free(run);
        assert!(faults("double", || process.free_run(meta, run)));

        let large = process.malloc(300 << 10);
        process.free(large);
        assert!(matches!(process.find(large), Block::Outside));
        assert!(faults("double", || process.free_slow(large)));
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
    let find = |index: usize| Untrusted::new(keep[index]).find(&*process).expect("live");
    let (slot, another) = (find(3), find(4));
    let owner = process.heap();
    process.set_heap(process.empty_heap());
    process.malloc(1);
    let one = process.heap();
    process.set_heap(process.empty_heap());
    process.malloc(1);
    let two = process.heap();
    // What the second thread still knows, though the first cleared record and end.
    // SAFETY: the misuse under test.
    let replay = |slot: &crate::pointer::Slot| unsafe {
        if !PRESET.zero_on_free {
            return process.free_remote(slot);
        }
        // It would find a cleared end first.
        (*two).outgoing.start(slot.meta);
        (*two).outgoing.join(slot.meta, slot.bit());
        (*two).outgoing.count(slot.stride);
    };
    // SAFETY: live, then the misuse under test.
    unsafe {
        // Sets what they may hold.
        process.tell_all(one);
        process.tell_all(two);
        process.set_heap(one);
        process.free_remote(&slot);
        process.free_remote(&another);
        if !PRESET.zero_on_free {
            // The same thread, its own bit still in hand.
            assert!(faults("double", || process.free_remote(&slot)));
        }
        process.set_heap(two);
        replay(&slot);
        process.tell_all(one);
        // Still with the owner's mail: the second to tell finds it.
        assert!(faults("double", || process.tell_all(two)));
        process.set_heap(owner);
        process.collect(owner);
        // Nor may it come back once more, now that it stands in a mask.
        assert!(faults("double", || process.got_back(
            owner,
            slot.meta,
            slot.bit()
        )));
        // Collected before the second tells: the owner finds it.
        process.set_heap(two);
        replay(&another);
        process.tell_all(two);
        process.set_heap(owner);
        assert!(faults("double", || {
            process.collect(owner);
        }));
    }
}

#[test]
fn a_thread_too_many_gets_no_heap() {
    let process = Boxed::new(true);
    process.malloc(1);
    // As if so many threads lived.
    let heaps = std::mem::replace(&mut process.lock().provider.heaps, NOBODY as usize - 1);
    Mock::new_thread();
    assert!(process.malloc(10).is_null() && Mock::take_errno());
    process.lock().provider.heaps = heaps;
    assert!(!process.malloc(10).is_null());
    process.verify();
}

/// The ninth heap needs a table besides its own memory.
#[test]
fn a_table_of_heaps_may_be_refused() {
    for after in 0..8 {
        let process = Boxed::new(true);
        for _ in 0..7 {
            Mock::new_thread();
            assert!(!process.malloc(10).is_null());
        }
        // The pool that heaps come from is all but used up: the next ones ask the system.
        process.lock().metadata(1 << 20);
        Mock::new_thread();
        process.platform.calls_left.store(after, Relaxed);
        let block = process.malloc(10);
        assert!(!block.is_null() || Mock::take_errno());
        process.platform.calls_left.store(usize::MAX, Relaxed);
        process.verify();
        assert!(!process.malloc(10).is_null());
        process.verify();
    }
}

#[test]
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
    process.platform.single.store(true, Relaxed);
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

/// Records of large blocks take their cells from any chunk: its nests may get no group any more.
#[test]
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
