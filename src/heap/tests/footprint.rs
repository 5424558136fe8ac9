//! What is freed goes back.

use super::*;
use crate::base::config::{CHUNK, CLASSES, PRESET, RUN_PAGE};
use crate::base::platform::Platform;
use crate::layout::chunk::CELL_PAGES;
use crate::mock::Call;
use std::sync::atomic::Ordering;

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn memory_goes_back_after_a_peak() {
    let process = Boxed::new(true);
    // No more than there are addresses for behind the mock's break: chunks elsewhere keep theirs.
    let count = if usize::BITS == 64 { 200_000 } else { 80_000 };
    let live: Vec<_> = (0..count).map(|i| process.malloc(16 + i % 900)).collect();
    assert!(process.verify().used_bytes > 32 << 20);
    for block in live {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    let end = process.verify();
    assert!(end.used_bytes < 2 << 20, "{end:?}");
    assert!(end.dirty_bytes <= 2 << 20, "{end:?}");
    // Address space goes back too, but for a chunk or two and what can be read for ever.
    let mapped = process.platform().mapped();
    let kept = if PRESET.classes_apart { CLASSES } else { 1 };
    assert!(
        mapped <= kept * CHUNK.max(16 << 20),
        "{mapped} bytes stay mapped"
    );
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn pages_go_back_once_in_a_pause_only() {
    let process = Boxed::new(false);
    let burst = || {
        let live: Vec<_> = (0..5000).map(|i| process.malloc(16 + i % 900)).collect();
        for block in live {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.verify().dirty_bytes
    };
    let purged = || process.platform().asked[Call::Purge as usize].load(Ordering::Relaxed);
    process.platform().frozen.store(true, Ordering::Relaxed);
    // The clock stands: after so many purges that none is left.
    for _ in 0..64 {
        burst();
    }
    let before = purged();
    let most = if cfg!(small_constants) {
        128 << 10
    } else {
        1 << 20
    };
    for _ in 0..3 {
        assert!(burst() > most, "dirty pages wait");
    }
    assert_eq!(purged(), before);
    process.platform().frozen.store(false, Ordering::Relaxed);
    assert!(burst() <= 1 << 20, "time went on: they go");
    assert!(purged() > before);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn far_too_many_pages_go_back_without_a_pause() {
    let process = Boxed::new(false);
    process.platform().frozen.store(true, Ordering::Relaxed);
    let live: Vec<_> = (0..40_000).map(|i| process.malloc(16 + i % 900)).collect();
    for block in live {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    let dirty = process.verify().dirty_bytes;
    assert!(dirty <= 6 << 20, "{dirty} dirty bytes stay");
}

/// Pages of cells, whose groups went before all others of their chunk did, go back, too.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn cells_of_groups_that_went_go_back() {
    let process = Boxed::new(false);
    let each = process.platform().page_size() / RUN_PAGE;
    let purged = || process.platform().asked[Call::Purge as usize].load(Ordering::Relaxed);
    for _ in 0..3 {
        // Groups of a few slots each: many cells.
        let blocks: Vec<_> = (0..20_000).map(|i| process.malloc(60 + i % 3)).collect();
        for (i, &block) in blocks.iter().enumerate() {
            if i % 4000 != 0 {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
        }
        process.mine().trim();
        let before = purged();
        let mut locked = process.heaps.memory.lock();
        locked.pages.purge();
        let chunks: Vec<_> = locked.pages.each_chunk().collect();
        for chunk in &chunks {
            let header = locked.pages.header(chunk);
            // Nothing is left to give back.
            let mut pages = (0..CELL_PAGES).step_by(each);
            assert!(!pages.any(|page| header.take_free_pages(page, each)));
        }
        drop(locked);
        assert!(
            purged() <= before + 2 * chunks.len() + 2,
            "cells go in few calls"
        );
        process.verify();
        for block in blocks.into_iter().step_by(4000) {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
    }
}

/// A class that the program had much of, and let go of, is one as any other for the next block.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn a_lone_pair_after_a_teardown_needs_no_refills() {
    for n in [64, 500, 5000] {
        let process = Boxed::new(false);
        let live: Vec<_> = (0..600).map(|_| process.malloc(n)).collect();
        for block in live {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        let refills = process.mine().refills.get();
        for _ in 0..1000 {
            // SAFETY: just made.
            unsafe { process.free(process.malloc(n)) };
        }
        // Slots that wait in a quarantine come back late.
        let most = 2 + 2 * PRESET.quarantine as u32;
        let refilled = process.mine().refills.get() - refills;
        assert!(
            refilled <= most,
            "{refilled} refills for pairs of {n} bytes"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn free_slots_keep_their_pages_while_they_are_used_again_and_again() {
    let process = Boxed::new(false);
    process.platform().frozen.store(true, Ordering::Relaxed);
    // Two of three stay, so that groups do.
    let mut blocks: Vec<_> = (0..1800).map(|_| process.malloc(4000)).collect();
    let free_some = |blocks: &[*mut u8]| {
        for block in blocks.iter().step_by(3) {
            // SAFETY: live.
            unsafe { process.free(*block) };
        }
        process.platform().pass(100);
    };
    let purged = || process.platform().asked[Call::Purge as usize].load(Ordering::Relaxed);
    let mut before = 0;
    for round in 0..20 {
        if round == 2 {
            before = purged();
        }
        free_some(&blocks);
        for block in blocks.iter_mut().step_by(3) {
            *block = process.malloc(4000);
        }
        process.platform().pass(100);
    }
    // Slots that wait in a quarantine, or are passed over by a random pick, do lie unused: in each
    // of the 18 rounds at most those that are free while all blocks are there.
    let most = match PRESET.quarantine {
        0 => 0,
        waiting => 18 * (waiting + 32),
    };
    assert!(purged() - before <= most, "in use every time");
    free_some(&blocks);
    for _ in 0..3 {
        // Work that has nothing to do with them.
        for _ in 0..20_000 {
            process.malloc(64);
        }
        process.platform().pass(100);
    }
    // Pages of many slots each are hardly ever free as a whole.
    let short = process.platform().page_size() <= 4 * RUN_PAGE;
    assert!(purged() > before || !short, "they lay free all the while");
    process.verify();
}

/// Slots that nobody ever had are no memory that is kept.
#[test]
fn slots_of_new_pages_are_not_counted_as_retained() {
    for n in [16, 600, 3000] {
        let process = Boxed::new(true);
        for _ in 0..40 {
            assert!(!process.malloc(n).is_null());
        }
        let usage = process.stats().class_of(n);
        assert_eq!((usage.blocks, usage.retained), (40, 0), "{n}: {usage:?}");
    }
}

/// Spans that are full but for a granule do not hide those with much room: groups of three granules
/// leave one in each.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn room_behind_spans_that_are_all_but_full_is_found() {
    let process = Boxed::new(true);
    let mut blocks: Vec<_> = (0..60_000).map(|_| process.malloc(40)).collect();
    for _ in 0..3 {
        let full = process.verify().used_bytes;
        for block in blocks.iter_mut().enumerate().filter(|(i, _)| i % 100 != 0) {
            // SAFETY: live, until it is replaced.
            unsafe { process.free(*block.1) };
        }
        for block in blocks.iter_mut().enumerate().filter(|(i, _)| i % 100 != 0) {
            *block.1 = process.malloc(40);
        }
        let again = process.verify().used_bytes;
        assert!(again <= full + full / 8, "{again} bytes after {full}");
    }
}
