//! Each misuse is named, at the latest where docs/guarantees.md says.

use super::*;
use crate::base::config::{KEEP, PRESET};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, MAX_SMALL};
use crate::layout::chunk::Chunk;
use crate::layout::group::{low_mask, CLASS_NO_BYTES};

#[test]
fn misuse_is_found_at_the_free() {
    for n in [
        0,
        1,
        24,
        100,
        500,
        600,
        4000,
        5000,
        100_000,
        MAX_SMALL,
        200_000,
        (1 << 20) + 100,
    ]
    .into_iter()
    .step_by(if cfg!(miri) { 4 } else { 1 })
    {
        for warm in [false, true] {
            let process = Boxed::new(true);
            let mut neighbours = Vec::new();
            if warm {
                for i in 0..20 {
                    neighbours.push(process.malloc(n));
                    if i % 3 == 0 {
                        // SAFETY: live.
                        unsafe { process.free(neighbours.pop().unwrap()) };
                    }
                }
            }
            let p = process.malloc(n);
            // SAFETY: the misuse under test; the heap stops before it does harm.
            unsafe {
                for d in [1, 8, 16, 4096].into_iter().filter(|&d| d < n) {
                    let bad = p.wrapping_add(d);
                    assert!(
                        faults("invalid", || process.free(bad)),
                        "{n} interior by {d}"
                    );
                }
                assert!(
                    faults("invalid", || process.free(p.wrapping_sub(8))),
                    "{n} before"
                );
                process.free(p);
                // Named while its group stays.
                let named = n <= MAX_SMALL && (warm || n < 4000);
                assert!(
                    faults(if named { "double" } else { "" }, || process.free(p)),
                    "{n} double free, warm {warm}"
                );
                assert!(
                    faults("", || _ = process.realloc(p, 10)),
                    "{n} realloc of freed"
                );
                assert!(
                    faults("", || _ = process.usable_size(p)),
                    "{n} size of freed"
                );
                if n == 0 {
                    continue;
                }
                let q = process.malloc(n);
                q.add(n).write(q.add(n).read() ^ 0x55);
                let found = faults("overflow", || {
                    process.free(q);
                    churn(&process, n);
                });
                assert!(found, "{n} overflow");
            }
            let mut local = 0u64;
            let stack = (&raw mut local).cast::<u8>();
            // SAFETY: as above.
            assert!(faults("invalid", || unsafe { process.free(stack) }));
        }
    }
}

/// Whether an overflow of a lone block of `n` bytes is found by its free or by `end`.
pub(super) fn overflow_is_found_by(n: usize, end: impl FnOnce(&Boxed)) -> bool {
    let process = Boxed::new(true);
    let p = process.malloc(n);
    // SAFETY: the misuse under test.
    unsafe {
        p.add(n).write(p.add(n).read() ^ 0x55);
        faults("overflow", || {
            process.free(p);
            end(&process);
        })
    }
}

#[test]
fn an_overflow_is_found_at_exit_at_the_latest() {
    for n in [10, 100, 1000, 5000, 100_000] {
        assert!(overflow_is_found_by(n, |process| process.process_exit()));
    }
}

#[test]
fn an_overflow_in_another_threads_queue_is_found_at_exit() {
    for n in [10, 100, 1000, 5000, 100_000] {
        let process = Boxed::new(true);
        let own = switch(&process, None);
        assert!(faults("overflow", || {
            for _ in 0..3 {
                // A thread that waits for something now.
                let p = process.malloc(n);
                // SAFETY: the misuse under test.
                unsafe {
                    p.add(n).write(p.add(n).read() ^ 0x55);
                    process.free(p);
                }
                switch(&process, None);
            }
            switch(&process, Some(own));
            process.process_exit();
        }));
    }
}

#[test]
fn an_exit_does_not_wait_for_a_lock_that_stays_taken() {
    let process = Boxed::new(true);
    process.malloc(1);
    let own = switch(&process, None);
    let block = process.malloc(40);
    // SAFETY: live.
    let free = |block| unsafe { process.free(block) };
    let _stays = process.malloc(40);
    let other = switch(&process, Some(own));
    // Sets what may be deferred.
    process.mine().flush();
    // Waits to be sent to a heap that its thread leaves, which takes the lock.
    free(block);
    switch(&process, Some(other));
    process.thread_exit();
    switch(&process, Some(own));
    // As if a handler of a signal called it, in the middle of a call that has the lock.
    let locked = process.heaps.memory.lock();
    process.process_exit();
    drop(locked);
}

#[test]
fn what_waits_in_quarantine_is_verified_at_exit() {
    if PRESET.quarantine == 0 {
        return;
    }
    for n in [16, 1000, 100_000] {
        // One block waits in quarantine; of many, some have gone on to the queue.
        for count in [1, 2 * PRESET.quarantine] {
            let process = Boxed::new(true);
            let blocks: Vec<_> = (0..count).map(|_| process.malloc(n)).collect();
            // SAFETY: live, then the misuse under test.
            unsafe {
                blocks.iter().for_each(|&block| process.free(block));
                let still = |&&block: &&*mut u8| {
                    let slot = process.mine().class(class_of(n)).entries();
                    let waits = process.mine();
                    let mut waits = waits.quarantine.iter().map(Cell::get).chain(slot);
                    waits.any(|entry| {
                        (0..n).contains(&block.addr().wrapping_sub(entry.start.addr()))
                    })
                };
                let block = *blocks.iter().rev().find(still).expect("one waits");
                block.write(1);
            }
            assert!(faults("write after free", || process.process_exit()), "{n}");
            // What was damaged is out of reach.
            process.process_exit();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
#[cfg_attr(
    tsan,
    ignore = "canaries are bytes of the program's memory: looked at, and judged after"
)]
fn an_exit_while_threads_are_at_work_finds_nothing() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (process, done) = (Boxed::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (process, done) = (&process, &done);
            scope.spawn(move || {
                Mock::new_thread();
                let seed = generator(thread);
                let mut kept: [Option<Live>; 2] = [const { None }; 2];
                for _ in 0..100_000 {
                    let random = crate::base::random::next_random(&seed);
                    let n = random as usize % [16, 16, 16, 3000][(random >> 40) as usize % 4];
                    let block = Live::new(process.malloc(n), n, random as u8);
                    if let Some(old) = kept[(random >> 32) as usize % 2].replace(block) {
                        old.verify();
                        // SAFETY: live, ours.
                        unsafe { process.free(old.at) };
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        Mock::new_thread();
        process.malloc(1);
        while done.load(Ordering::Relaxed) < 3 {
            process.process_exit();
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn an_underflow_into_a_free_slot_is_found_at_its_reuse() {
    // Where pages of longer slots are given back, the damage goes with them.
    let most = match KEEP {
        0..0x8000 => 2,
        0x8000..0x10000 => 3,
        _ => 4,
    };
    for n in [15, 127, 1023, 4671].into_iter().take(most) {
        let process = Boxed::new(true);
        let blocks: Vec<_> = (0..64).map(|_| process.malloc(n)).collect();
        // Full slots: each block's first byte follows the canary of the slot before. Enough are
        // freed that most leave the queue for the masks; the others keep their groups.
        let freed: Vec<_> = blocks.iter().copied().step_by(2).collect();
        // SAFETY: live, then the misuse under test.
        unsafe {
            freed.iter().for_each(|&block| process.free(block));
            freed[3].add(n).write(b'A');
        }
        assert!(faults("", || {
            // Past the hardened preset's quarantine, too.
            // SAFETY: live.
            (0..3000).for_each(|_| unsafe { process.free(process.malloc(n)) });
            (0..64).for_each(|_| _ = process.malloc(n));
        }));
    }
}

/// The canary before a block of a wide class, where there is room for one.
#[test]
fn an_underflow_is_found_by_a_realloc_that_moves() {
    for n in [1000, 5000, 60_000] {
        let found = |_| {
            let process = Boxed::new(true);
            let mut blocks = (0..40).map(|_| process.malloc(n));
            let in_slot = |block: &*mut u8| process.find(*block).is_some_and(|s| s.offset > 0);
            let Some(block) = blocks.find(in_slot) else {
                return true;
            };
            // SAFETY: the block is live and its slot begins before it; the misuse under test.
            unsafe {
                block.sub(1).write(!block.sub(1).read());
                faults("overflow", || _ = process.realloc(block, 2 * n))
            }
        };
        assert!((0..4).all(found), "{n}");
    }
}

#[test]
fn a_string_terminator_one_past_the_end_of_a_slot_is_found() {
    if PRESET.has_guards() {
        return println!("skipped: no block ends where its slot does");
    }
    let process = Boxed::new(true);
    let p = process.malloc(63);
    // SAFETY: the misuse under test.
    unsafe {
        p.add(63).write(0);
        assert!(faults("overflow", || {
            process.free(p);
            churn(&process, 63);
        }));
    }
}

#[test]
fn a_string_without_an_end_shows_no_guard() {
    let process = Boxed::new(true);
    for n in [4, 8, 24, 64, 100, 700, 4096, 60_000] {
        let p = process.malloc(n);
        // SAFETY: the block is live, and its slot has a byte behind it.
        unsafe {
            p.write_bytes(b'a', n);
            assert_eq!(p.add(process.usable_size(p)).read(), 0, "{n}");
            let p = process.realloc(p, n - 2);
            assert_eq!(p.add(process.usable_size(p)).read(), 0, "{n}");
        }
    }
    process.verify();
}

#[test]
fn hardened_finds_writes_to_freed_memory() {
    if !PRESET.zero_on_free {
        return;
    }
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..200).map(|_| process.malloc(100)).collect();
    // Their neighbours stay, and so do their groups.
    for &block in blocks.iter().skip(1).step_by(2) {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // SAFETY: the misuse under test.
    unsafe { blocks[7].add(3).write(1) };
    assert!(faults("write after free", || {
        // Bursts larger than queue and quarantine together reach the masks.
        for _ in 0..50 {
            let burst: Vec<_> = (0..400).map(|_| process.malloc(100)).collect();
            for block in burst {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
        }
    }));
}

/// A program that freed some of its blocks, and wrote to one of them afterwards.
fn written_after_free(n: usize) -> Boxed {
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..600).map(|_| process.malloc(n)).collect();
    // Their neighbours stay, and so do their groups.
    for &block in blocks.iter().skip(1).step_by(2) {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // SAFETY: the misuse under test.
    unsafe { blocks[7].add(n / 2).write(1) };
    process
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn hardened_finds_a_write_to_freed_memory_that_nobody_uses_again() {
    if !PRESET.zero_on_free {
        return;
    }
    for n in [10, 100, 1000, 5000] {
        let process = written_after_free(n);
        assert!(
            faults("write after free", || process.process_exit()),
            "{n} at exit"
        );
        // Blocks of another size are all that the program wants any more.
        let process = written_after_free(n);
        let mut blocks = Vec::new();
        assert!(
            faults("write after free", || {
                // Until the slot is chosen: on average after a tenth of this.
                for _ in 0..2_000_000 {
                    blocks.push(process.malloc(20_000));
                    if blocks.len() > 100 {
                        // SAFETY: live.
                        blocks
                            .drain(..)
                            .for_each(|block| unsafe { process.free(block) });
                    }
                }
            }),
            "{n} now and then"
        );
    }
}

#[test]
fn hardened_keeps_every_16th_small_slot_as_a_guard() {
    if PRESET.guard_slot_every == 0 {
        return;
    }
    let process = Boxed::new(true);
    for n in [8, 100, 600] {
        let blocks: Vec<_> = (0..500).map(|_| process.malloc(n)).collect();
        let slot = |block: *mut u8| process.find(block).expect("a live block");
        let guarded = |&&block: &&*mut u8| slot(block).group.guard_slots() & slot(block).bit() != 0;
        assert_eq!(blocks.iter().find(guarded), None, "{n}");
        let group = slot(blocks[400]).group;
        let every_16th = (1 | 1 << 16) & low_mask(group.capacity());
        assert_eq!(group.guard_slots(), every_16th, "{n}");
        // SAFETY: the misuse under test, in a slot that nobody else has.
        unsafe { group.start().add(3).write(1) };
        // The group is full: it is looked at when that is not so any more.
        let of_group = |&block: &*mut u8| slot(block).group.is_same(group);
        for block in blocks.into_iter().filter(of_group).take(3) {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.mine().empty_quarantine();
        assert!(faults("write after free", || process.process_exit()), "{n}");
        // SAFETY: as above.
        unsafe { group.start().add(3).write(0) };
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn blocks_of_no_bytes_have_no_memory() {
    let process = Boxed::new(true);
    // More than the first run has addresses for.
    let mut blocks: Vec<_> = (0..40_000).map(|_| process.malloc(0)).collect();
    blocks.push(process.aligned_alloc(256, 0));
    assert_eq!(blocks[40_000] as usize % 256, 0);
    assert_eq!(process.heaps.memory.lock().no_bytes.live, 40_001);
    let at_edge = |block: &&*mut u8| {
        // SAFETY: memory of blocks of no bytes lies in chunks, 16 pages in a row at most.
        let chunk = unsafe { Chunk::around(block.addr()) };
        let beside = |at: usize| chunk.group_at(at).class() == CLASS_NO_BYTES;
        let page = process.platform().page_size();
        let in_page = block.addr() % page;
        (in_page == 0 && !beside(block.addr() - 16))
            || (in_page == page - 16 && !beside(block.addr() + 16))
    };
    assert_eq!(
        blocks.iter().find(at_edge),
        None,
        "what lies beside the address of a block without bytes is inaccessible, too"
    );
    let mut sorted = blocks.clone();
    sorted.sort_unstable();
    assert!(sorted
        .windows(2)
        .all(|pair| pair[1] as usize - pair[0] as usize >= 16));
    let victim = blocks[20_000];
    // SAFETY: live blocks, and the misuse under test.
    unsafe {
        assert_eq!(process.usable_size(victim), 0);
        assert!(faults("invalid", || process.free(victim.wrapping_add(8))));
        assert_eq!(process.realloc(victim, 0), victim);
        let grown = process.realloc(victim, 100);
        grown.write_bytes(1, 100);
        assert!(faults("double free", || process.free(victim)));
        let shrunk = process.realloc(grown, 0);
        assert_eq!(process.usable_size(shrunk), 0);
        assert!(faults("double free", || process.free(grown)));
        process.free(shrunk);
        assert!(faults("double free", || process.free(shrunk)));
        assert!(faults("", || _ = process.usable_size(shrunk)));
        for (index, &block) in blocks.iter().enumerate() {
            if index != 20_000 {
                process.free(block);
            }
        }
    }
    assert_eq!(process.heaps.memory.lock().no_bytes.live, 0);
    // Its addresses come back last.
    assert_ne!(process.malloc(0), victim);
    process.verify();
}

#[test]
fn hardened_finds_writes_before_a_block_at_its_own_free() {
    if !PRESET.has_guards() {
        return;
    }
    for n in [15, 24, 40, 127, 700, 4096, 100_000] {
        let process = Boxed::new(true);
        let blocks: Vec<_> = (0..40).map(|_| process.malloc(n)).collect();
        let mut found = 0;
        for &block in &blocks {
            // SAFETY: live, then the misuse under test. (Where no slot stands before it, the byte
            // may be inaccessible: those are not written.)
            unsafe {
                if block as usize % 4096 != 0 {
                    let before = block.sub(1).read();
                    block.sub(1).write(b'A');
                    found += usize::from(faults("overflow", || process.free(block)));
                    block.sub(1).write(before);
                }
            }
        }
        assert!(found >= 30, "{n}: {found} of {}", blocks.len());
    }
}

/// And by mallocs alone.
#[test]
fn an_overflow_is_found_by_mallocs_also_while_masks_have_slots() {
    if PRESET.check_at_free {
        return;
    }
    for n in [24, 700, 3000] {
        for out in (0..8).step_by(if cfg!(miri) { 7 } else { 1 }) {
            let process = Boxed::new(true);
            // Many free slots in masks, and a reuse queue of which malloc takes none.
            let blocks: Vec<_> = (0..200).map(|_| process.malloc(n)).collect();
            for &block in &blocks[..150] {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
            while process.mine().class(class_of(n)).has_ready() {
                process.malloc(n);
            }
            for _ in 0..out {
                process.malloc(n);
            }
            // SAFETY: live, with a tail of at least a byte.
            unsafe { blocks[199].add(n).write(b'A') };
            // SAFETY: live.
            unsafe { process.free(blocks[199]) };
            let found = (0..16).any(|_| {
                faults("overflow", || {
                    process.malloc(n);
                })
            });
            assert!(found, "{n} {out}");
        }
    }
}

/// An overflow is found by frees alone, as docs/guarantees.md says, whatever the reuse queue held
/// before.
#[test]
fn an_overflow_is_found_by_frees() {
    for n in [1, 10, 40, 100, 1000, 5000, 60_000] {
        for before in (0..40).step_by(if cfg!(miri) { 39 } else { 1 }) {
            let process = Boxed::new(true);
            // SAFETY: live; the overflow is the misuse under test.
            unsafe {
                let p = process.malloc(n);
                let held: Vec<_> = (0..before).map(|_| process.malloc(n)).collect();
                held.into_iter().for_each(|held| process.free(held));
                let further: Vec<_> = (0..16).map(|_| process.malloc(n)).collect();
                p.add(n).write(p.add(n).read() ^ 0x55);
                let mut frees = 0;
                let found = faults("overflow", || {
                    process.free(p);
                    for further in further {
                        frees += 1;
                        process.free(further);
                    }
                });
                assert!(found, "{n} bytes, {before} before: not after {frees} frees");
            }
        }
    }
}

/// An overflow is found by the 16th malloc or the 16th free of the class, as docs/guarantees.md
/// says, however they alternate and whatever went before.
#[test]
fn an_overflow_is_found_by_mallocs_and_frees_in_any_order() {
    if PRESET.check_at_free {
        return println!("skipped: the preset finds it at the free");
    }
    let seed = generator(1);
    let draw = |below: u64| (crate::base::random::next_random(&seed) >> 32) % below;
    for round in 0..few(600, 100) {
        let n = [40, 40, 200, 600, 1000, 5000][round % 6];
        let process = Boxed::new(true);
        let mut live = Vec::new();
        for _ in 0..draw(few(400, 10) as u64) {
            // In runs, so that queues and masks run full and dry.
            let free = draw(2) == 0;
            for _ in 0..draw(40) {
                if !free || live.is_empty() {
                    live.push(process.malloc(n));
                } else {
                    let which = draw(live.len() as u64) as usize;
                    // SAFETY: live.
                    unsafe { process.free(live.swap_remove(which)) };
                }
            }
        }
        // Enough to free, and none of them the last of its class.
        live.extend((0..40).map(|_| process.malloc(n)));
        let block = process.malloc(n);
        let bias = draw(9);
        let found = faults("overflow", || {
            // SAFETY: live; the overflow is the misuse under test.
            unsafe {
                block.add(n).write(!block.add(n).read());
                process.free(block);
            }
            let (mut mallocs, mut frees) = (0, 0);
            while mallocs < 16 && frees < 16 {
                if draw(8) < bias {
                    live.push(process.malloc(n));
                    mallocs += 1;
                } else {
                    let which = draw(live.len() as u64) as usize;
                    // SAFETY: live.
                    unsafe { process.free(live.swap_remove(which)) };
                    frees += 1;
                }
            }
        });
        assert!(found, "round {round}, {n} bytes, {bias} of 8 mallocs");
    }
}

/// A stale pointer to a block of no bytes meets no new one soon.
#[test]
fn addresses_of_blocks_without_bytes_come_again_late() {
    let process = Boxed::new(true);
    let mut last = std::collections::HashMap::new();
    for round in 0..few(20_000, 200) {
        let block = process.malloc(0);
        let before = last.insert(block as usize, round);
        assert!(
            before.is_none_or(|before| round - before > 1000),
            "{before:?} {round}"
        );
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    process.verify();
}

/// A slot that was never handed out is no block, and no freed one.
#[test]
fn a_slot_that_was_never_used_is_no_freed_block() {
    let process = Boxed::new(true);
    let block = process.malloc(100);
    let slot = process.find(block).unwrap();
    let mut slots = 0..slot.group.capacity();
    let unused = slots.find(|&index| process.is_unused(slot.group, index));
    let distance = unused.unwrap() * slot.stride;
    let wild = slot.group.start().wrapping_add(distance);
    // SAFETY: the misuse under test.
    assert!(faults("invalid pointer", || unsafe { process.free(wild) }));
    // SAFETY: live.
    unsafe { process.free(block) };
    process.verify();
}
