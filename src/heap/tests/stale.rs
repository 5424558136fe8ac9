//! Two threads free or resize the same block at once: the second one found it alive, and what it
//! found tells of another block by the time it goes on. That block must not be touched.

use super::*;
use crate::config::PRESET;
use crate::free::Block;
use crate::pointer::Untrusted;

/// Runs `action` on behalf of another thread, which tells at once what it freed.
fn elsewhere(process: &Boxed, action: impl FnOnce()) {
    let own = process.heap();
    process.set_heap(process.empty_heap());
    process.malloc(1);
    action();
    process.thread_exit();
    process.set_heap(own);
    // SAFETY: this thread's heap.
    unsafe { process.collect(own) };
}

#[test]
fn a_run_s_cell_tells_of_another_run() {
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let _stays = process.aligned_alloc(4096, 4000);
        let freed = process.aligned_alloc(4096, 4000);
        let _stays = process.aligned_alloc(4096, 4000);
        let Block::Run(meta) = process.find(freed) else {
            panic!("a run")
        };
        process.free(freed);
        // The cell is the one that was returned last; the hole is too small.
        let n = 12_000;
        let other = Live::new(process.aligned_alloc(4096, n), n, 7);
        assert_eq!(Untrusted::new(other.at).meta(&*process), meta);
        assert!(faults("double", || process.free_run(meta, freed)));
        assert!(faults("double", || _ = process.resize_run(meta, freed, n + 100)));
        assert_eq!(process.usable_size(other.at), n);
        other.verify();
        process.free(other.at);
    }
    process.verify();
}

#[test]
fn a_run_s_cell_tells_of_slots() {
    let process = Boxed::new(true);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let _stays = (process.malloc(100), process.aligned_alloc(4096, 4000));
        let freed = process.aligned_alloc(4096, 4000);
        let _stays = process.aligned_alloc(4096, 4000);
        let Block::Run(meta) = process.find(freed) else {
            panic!("a run")
        };
        process.free(freed);
        let slots: Vec<_> = (0..500)
            .map(|i| Live::new(process.malloc(100), 100, i as u8))
            .collect();
        let slots_of = |block: &&Live| Untrusted::new(block.at).meta(&*process) == meta;
        assert!(
            slots.iter().any(|block| slots_of(&block)),
            "the cell is used anew"
        );
        assert!(faults("double", || process.free_run(meta, freed)));
        assert!(faults("double", || _ = process.resize_run(meta, freed, 4001)));
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
        let n = crate::size_class::stride(class) - 2;
        let process = Boxed::new(true);
        let _stays: Vec<_> = (0..8).map(|_| process.malloc(n)).collect();
        let block = process.malloc(n);
        let slot = Untrusted::new(block).find(&*process).expect("live");
        let mut others = Vec::new();
        // SAFETY: live, then the misuse under test.
        let found = crate::mock::expecting(|| unsafe {
            _ = process.resize(block, 100_000, |n_new| {
                elsewhere(&process, || process.free(block));
                // Until that slot holds one of them, at another place.
                for round in 0..2000 {
                    let n = n - 40;
                    let other = Live::new(process.malloc(n), n, round as u8);
                    let here = Untrusted::new(other.at).find(&*process).expect("live");
                    let same = (here.meta, here.index) == (slot.meta, slot.index);
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
            let here = Untrusted::new(other.at).find(&*process).expect("live");
            (here.meta, here.index) == (slot.meta, slot.index)
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
        _ = process.resize(block, 9000, |n| {
            process.free(block);
            process.aligned_alloc(4096, n)
        });
    }));
    process.verify();
}

/// A group of a dead heap went, and a living heap has another in its place.
#[test]
fn a_dead_heap_s_group_is_a_living_one_s() {
    let n = 20_000;
    let process = Boxed::new(true);
    let (first, blocks) = blocks_of_a_dead_heap(&process, n);
    // SAFETY: live, then the misuse under test.
    unsafe {
        let slots = blocks
            .iter()
            .map(|&block| Untrusted::new(block).find(&*process));
        let slots: Vec<_> = slots.map(|slot| slot.expect("live")).collect();
        blocks.iter().for_each(|&block| process.free(block));
        let again: Vec<_> = (0..40)
            .map(|i| Live::new(process.malloc(n), n, i))
            .collect();
        let mut reused = 0;
        for slot in &slots {
            let block = slot.block();
            let found = Untrusted::new(block).find(&*process);
            reused += usize::from(found.is_some());
            assert!(faults("double", || process.free_abandoned(slot)));
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
