//! Systems whose pages are longer than 4 KiB: aarch64, ppc64le and mips may have 16 or 64 KiB. The
//! mock claims such pages, and ends a test that asks for a part of one. `BYSSAL_PAGE` runs all
//! tests so.

use super::*;
use crate::mock::with_pages;

/// What depends on pages, or meets much that does.
const TESTS: [fn(); 14] = [
    blocks::blocks_of_every_size_are_aligned_apart_and_usable,
    blocks::aligned_blocks_are_aligned_and_cheap,
    blocks::blocks_of_no_bytes_are_aligned_up_to_a_page,
    blocks::large_blocks_are_resized_within_their_mapping_at_little_cost,
    closed::large_blocks_may_lie_where_chunks_grow,
    decay::large_blocks_have_a_nul_and_a_guard_behind_them,
    decay::guarded_blocks_grow_and_shrink,
    decay::what_lay_unused_for_a_while_goes_back,
    footprint::memory_goes_back_after_a_peak,
    footprint::cells_of_groups_that_went_go_back,
    misuse::blocks_of_no_bytes_have_no_memory,
    random::sequences_that_failed_once,
    || random::corpus_agrees(8),
    || random::steps_agree(random::CASES / 6),
];

/// Runs them with pages of so many bytes.
fn run_with(page: usize) {
    TESTS.into_iter().for_each(|test| with_pages(page, test));
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn all_is_right_with_pages_of_16_kib() {
    run_with(16 << 10);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn all_is_right_with_pages_of_64_kib() {
    if cfg!(small_constants) {
        return println!("skipped: a chunk has one page for data, and some runs have two");
    }
    run_with(64 << 10);
}

/// A span fills half a page of 64 KiB. It goes back with the other half, which was never used.
#[test]
#[cfg_attr(miri, ignore = "Miri's pages are short")]
fn free_runs_go_back_with_the_rest_of_their_page() {
    with_pages(64 << 10, || {
        let process = Boxed::new(true);
        let blocks: Vec<_> = (0..100).map(|_| process.malloc(100)).collect();
        for block in blocks {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.mine().trim();
        process.heaps.memory.lock().pages.purge();
        let end = process.verify();
        assert_eq!((end.used_bytes, end.dirty_bytes), (0, 0));
    });
}
