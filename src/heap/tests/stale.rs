//! Two threads free or resize the same block at once: the second one found it alive, and what it
//! found tells of another block by the time it goes on. That block must not be touched.

use super::*;
use crate::base::config::PRESET;
use crate::heap::orphans;
use crate::layout::group::Group;
use std::cell::RefCell;

/// Runs `action` on behalf of another thread, which sends at once what it freed.
fn elsewhere(process: &Boxed, action: impl FnOnce()) {
    let own = switch(process, None);
    process.malloc(1);
    action();
    process.thread_exit();
    switch(process, Some(own));
    process.mine().collect();
}

/// The free cells of the chunk of `block`.
fn free_cells(process: &Boxed, block: *mut u8) -> Vec<u16> {
    let locked = process.heaps.memory.lock();
    let chunk = locked.pages.system.pagemap.chunk(block.addr());
    let header = chunk.map(|chunk| locked.pages.header(chunk));
    header
        .iter()
        .flat_map(|header| header.free_cells())
        .collect()
}

/// Frees a block in a run; the cell that goes with it.
///
/// # Safety
/// The block is live.
unsafe fn free_with_cell(process: &Boxed, block: *mut u8) -> &'static Group {
    let before = free_cells(process, block);
    // SAFETY: the caller gives it.
    unsafe { process.free(block) };
    let freed = free_cells(process, block);
    let cell = freed.iter().find(|cell| !before.contains(cell));
    let chunk = process.heaps.memory.system.pagemap.chunk(block.addr());
    chunk
        .expect("its chunk")
        .cell(*cell.expect("the cell of that block"))
}

/// Whether both are the same cell.
fn same(a: Option<&Group>, b: &Group) -> bool {
    a.is_some_and(|a| std::ptr::eq(a, b))
}

/// A free and a realloc by a thread that found no slot there, and takes the lock only now.
fn use_again(process: &Boxed, freed: *mut u8, n: usize) {
    // SAFETY: the misuse under test.
    unsafe {
        assert!(faults("invalid", || process.free(freed)));
        assert!(faults("invalid", || _ = process.realloc(freed, n)));
    }
}

#[test]
fn a_run_s_cell_tells_of_another_run() {
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let _stays = process.aligned_alloc(4096, 4000);
        let freed = process.aligned_alloc(4096, 4000);
        let _stays = process.aligned_alloc(4096, 4000);
        let cell = free_with_cell(&process, freed);
        // The hole is too small.
        let n = 12_000;
        let other = Live::new(process.aligned_alloc(4096, n), n, 7);
        let number = crate::layout::chunk::Chunk::number_of(cell);
        assert!(
            !free_cells(&process, freed).contains(&number),
            "it is used anew"
        );
        use_again(&process, freed, n + 100);
        assert_eq!(process.usable_size(other.at), n);
        other.verify();
        process.free(other.at);
    }
    process.verify();
}

#[test]
fn a_run_s_cell_tells_of_slots() {
    if PRESET.classes_apart {
        println!("skipped: in the preset cells of runs and of slots lie in different chunks");
        return;
    }
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        // Groups of these lie in spans, none in the hole.
        let _stays = (process.malloc(40), process.aligned_alloc(4096, 4000));
        let freed = process.aligned_alloc(4096, 4000);
        let _stays = process.aligned_alloc(4096, 4000);
        let cell = free_with_cell(&process, freed);
        let slots: Vec<_> = (0..500)
            .map(|i| Live::new(process.malloc(40), 40, i as u8))
            .collect();
        let is_there = |block: &Live| {
            let slot = process.find(block.at);
            same(slot.map(|slot| slot.group), cell)
        };
        assert!(slots.iter().any(is_there), "the cell is used anew");
        use_again(&process, freed, 4001);
        slots.iter().for_each(Live::verify);
        process.verify();
        slots.iter().for_each(|block| process.free(block.at));
    }
    process.verify();
}

/// realloc found the block, and takes long for a new one.
#[test]
fn a_slot_holds_another_block_when_realloc_is_done() {
    for class in [16, 17, 20, 25] {
        let n = crate::base::size_class::stride(class) - PRESET.guard - 1;
        let process = Boxed::new(true);
        let _stays: Vec<_> = (0..8).map(|_| process.malloc(n)).collect();
        let block = process.malloc(n);
        let slot = process.find(block).expect("live");
        let mut others = Vec::new();
        let others_now = RefCell::new(&mut others);
        // SAFETY: live, then the misuse under test.
        let found = crate::mock::expecting(|| unsafe {
            _ = process.realloc_by(block, 100_000, |n_new| {
                let mut others = others_now.borrow_mut();
                elsewhere(&process, || process.free(block));
                // Until that slot holds one of them, at another place.
                for round in 0..2000 {
                    let n = n - 36;
                    let other = Live::new(process.malloc(n), n, round as u8);
                    let here = process.find(other.at).expect("live");
                    let same = same(Some(here.group), slot.group) && here.index == slot.index;
                    if same && other.at == block {
                        // That is no other block for anybody. Past the quarantine, too:
                        process.free(other.at);
                        (0..600).for_each(|_| process.free(process.malloc(20)));
                        continue;
                    }
                    others.push(other);
                    if same {
                        break;
                    }
                }
                process.malloc(n_new)
            });
        });
        let reused = others.last().is_some_and(|other| {
            let here = process.find(other.at).expect("live");
            same(Some(here.group), slot.group) && here.index == slot.index
        });
        assert!(reused, "{n}: the slot is used anew");
        assert!(found.is_some(), "{n}");
        others.iter().for_each(Live::verify);
        // SAFETY: live.
        others
            .iter()
            .for_each(|other| unsafe { process.free(other.at) });
        process.verify();
    }
}

/// The new block of a realloc is the old one, which another thread freed meanwhile.
#[test]
fn realloc_is_given_the_block_that_it_moves() {
    let process = Boxed::new(true);
    let _stays = process.aligned_alloc(4096, 4000);
    let block = process.aligned_alloc(4096, 4000);
    // SAFETY: live, then the misuse under test.
    assert!(faults("double", || unsafe {
        _ = process.realloc_by(block, 9000, |n| {
            process.free(block);
            process.aligned_alloc(4096, n)
        });
    }));
    process.verify();
}

/// A group of an orphaned heap went, and a living heap has another in its place.
#[test]
fn an_orphaned_heap_s_group_is_a_living_one_s() {
    let n = 20_000;
    let process = Boxed::new(true);
    let (first, blocks) = blocks_of_an_orphaned_heap(&process, n);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let slots = blocks.iter().map(|&block| process.find(block));
        let slots: Vec<_> = slots.map(|slot| slot.expect("live")).collect();
        blocks.iter().for_each(|&block| process.free(block));
        let again: Vec<_> = (0..40)
            .map(|i| Live::new(process.malloc(n), n, i))
            .collect();
        let mut reused = 0;
        for slot in &slots {
            let block = slot.block();
            let found = process.find(block);
            reused += usize::from(found.is_some());
            assert!(faults("double", || orphans::free(&process.heaps, slot)));
        }
        // At another offset there is no block.
        assert!(reused > 0 || PRESET.random_slots, "an address is used anew");
        again.iter().for_each(Live::verify);
        process.verify();
        again.iter().for_each(|block| process.free(block.at));
        process.free(first);
    }
    process.verify();
}
