//! Whatever fault is found, and wherever: no lock is held, and the heap is fit for use. The mock
//! sees to that at each fault (`mock::fault`); here are all places that find one. Afterwards the
//! process goes on and never comes upon the damage again.

// Each block is live, then comes the misuse under test.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::*;
use crate::base::config::PRESET;
use crate::base::fault::Fault;
use crate::base::size_class::MAX_SMALL;
use crate::heap::orphans;
use crate::mock::handling;

/// Damages what follows a block.
fn overflow(block: *mut u8, n: usize) {
    unsafe { block.add(n).write(!block.add(n).read()) };
}

/// Blocks of that size, and of all others, come and go without another fault.
fn goes_on(process: &Boxed, n: usize) {
    handling(Fault::Overflow, || {
        for round in 0..4 {
            let sizes = (0..300).map(|i| if i % 2 == 0 { n } else { (i * 97) % 9000 });
            let blocks: Vec<_> = sizes
                .map(|n| Live::new(process.malloc(n), n, round))
                .collect();
            blocks.iter().for_each(Live::verify);
            blocks
                .iter()
                .for_each(|block| unsafe { process.free(block.at) });
        }
        process.process_exit();
        process.thread_exit();
    });
}

/// By name, what comes upon the damage behind a block of so many bytes.
type Finder = (&'static str, fn(&Boxed, *mut u8, usize));

fn finders() -> Vec<Finder> {
    vec![
        ("free and churn", |process, block, n| unsafe {
            process.free(block);
            churn(process, n);
        }),
        ("free and exit", |process, block, _| unsafe {
            process.free(block);
            process.thread_exit();
        }),
        ("free and end", |process, block, _| unsafe {
            process.free(block);
            process.process_exit();
        }),
        ("free and trim", |process, block, _| unsafe {
            process.free(block);
            process.mine().trim();
        }),
        ("realloc in place", |process, block, n| unsafe {
            process.realloc(block, n - 1);
            process.free(block);
            process.process_exit();
        }),
        ("realloc elsewhere", |process, block, n| unsafe {
            process.realloc(block, 3 * n);
            process.process_exit();
        }),
        ("free by another", |process, block, n| unsafe {
            let own = switch(process, None);
            let _another = process.malloc(n);
            let freed = crate::mock::expecting(|| process.free(block));
            switch(process, Some(own));
            // Of large blocks nobody is the owner.
            assert!(freed.is_some_and(|text| text.contains("overflow")));
            process.free(block);
            process.process_exit();
        }),
    ]
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn an_overflow_behind_any_block_leaves_the_heap_fit_for_use() {
    let kinds = [
        (1, 40),
        (1, 600),
        (1, 1000),
        (1, 5000),
        (1, 60_000),
        (64, 127),
        (4096, 5000),
        (1, MAX_SMALL + 1),
        (1, (1 << 20) + 100),
        (1 << 20, 300_000),
    ];
    for (align, n) in kinds {
        for (how, find) in finders() {
            let process = Boxed::new(true);
            let _stays: Vec<_> = (0..4).map(|_| process.malloc(n)).collect();
            let block = process.aligned_alloc(align, n);
            // As much as may be used.
            let n = process.usable_size(block);
            overflow(block, n);
            let found = faults("overflow", || find(&process, block, n));
            assert!(found, "{n} bytes at {align}: {how}");
            goes_on(&process, n);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn an_overflow_in_an_orphaned_heap_leaves_the_heap_fit_for_use() {
    for n in [40, 1000, 20_000] {
        let process = Boxed::new(true);
        let (first, blocks) = blocks_of_an_orphaned_heap(&process, n);
        unsafe {
            overflow(blocks[3], n);
            assert!(faults("overflow", || process.free(blocks[3])));
            // Not the one behind it, whose free sees the damage once more.
            let damaged = process.find(blocks[3]).expect("live");
            let behind = damaged.start.wrapping_add(damaged.stride);
            let slots = blocks[4..]
                .iter()
                .map(|&at| process.find(at).expect("live"));
            let slot = { slots }.find(|slot| slot.start != behind).expect("some");
            process.free(slot.block());
            assert!(faults("double", || orphans::free(&process.heaps, &slot)));
            process.free(first);
        }
        goes_on(&process, n);
    }
}

#[test]
fn a_write_after_free_leaves_the_heap_fit_for_use() {
    if !PRESET.zero_on_free {
        return;
    }
    for n in [40, 600, 1000] {
        for trim in [false, true] {
            let process = Boxed::new(true);
            let blocks: Vec<_> = (0..300).map(|_| process.malloc(n)).collect();
            unsafe {
                blocks.iter().for_each(|&block| process.free(block));
                // The last ones: their groups are still there.
                for &block in blocks.iter().rev().take(1) {
                    block.write(1);
                }
            }
            let found = faults("write after free", || {
                if trim {
                    process.mine().trim();
                }
                for _ in 0..20 {
                    let again: Vec<_> = (0..300).map(|_| process.malloc(n)).collect();
                    again
                        .into_iter()
                        .for_each(|block| unsafe { process.free(block) });
                }
            });
            assert!(found, "{n}, trimmed: {trim}");
            goes_on(&process, n);
        }
    }
}
