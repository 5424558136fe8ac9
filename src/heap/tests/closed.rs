//! What is left of a chunk that goes out of use, and what may come to lie around chunks.

use super::*;
use crate::base::config::{CHUNK, RUN_PAGE};
use crate::base::platform::Platform;
use crate::layout::chunk::{Chunk, MAP_END};
use crate::layout::group::CLASS_NONE;
use crate::mock::{Call, Plan};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Fills some chunks; their addresses. All is given back then, but for the heap's last span.
fn peak(process: &Boxed) -> BTreeSet<usize> {
    let blocks: Vec<_> = (0..few(600, 20)).map(|_| process.malloc(20_000)).collect();
    let chunks = blocks.iter().map(|block| block.addr() & !(CHUNK - 1));
    let chunks = chunks.collect();
    for block in blocks {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    process.mine().trim();
    process.verify();
    chunks
}

/// A look-up may have found the chunk's window just before another thread closed the chunk: what it
/// reads then must be there, as its pointer may be that of a live block which shares the window.
#[test]
fn a_map_can_be_read_when_its_chunk_is_closed() {
    let process = Boxed::new(true);
    let chunks = peak(&process);
    assert!(chunks.len() > 2);
    let mapped = process.platform().mapped();
    let kept = chunks.len() * MAP_END.next_multiple_of(process.platform().page_size());
    assert!(
        mapped < kept + CHUNK,
        "{mapped} bytes of {} chunks, whose maps have {kept}",
        chunks.len()
    );
    let addresses = chunks
        .iter()
        .flat_map(|&chunk| (chunk..chunk + CHUNK).step_by(512));
    for address in addresses.clone() {
        // SAFETY: a chunk was there.
        let chunk = unsafe { Chunk::around(address) };
        assert_eq!(chunk.group_at(address).class(), CLASS_NONE);
    }
    for address in addresses.step_by(100) {
        let block = std::ptr::without_provenance_mut(address);
        // SAFETY: the misuse under test.
        assert!(faults("", || unsafe { process.free(block) }));
    }
}

#[test]
fn closed_chunks_are_used_before_new_ones() {
    let process = Boxed::new(true);
    let first = peak(&process);
    let mapped = process.platform().mapped();
    for _ in 0..few(5, 5) {
        assert_eq!(peak(&process), first);
        assert_eq!(process.platform().mapped(), mapped);
    }
}

/// Blocks live in mappings of their own where chunks were, and where they would grow: they are
/// found and freed as any other, and chunks go elsewhere.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn large_blocks_may_lie_where_chunks_grow() {
    let process = Boxed::new(true);
    let chunks = peak(&process);
    process.platform().crowded.store(true, Ordering::Relaxed);
    // Enough to fill what lies between, too: inaccessible pages around them are as long.
    let count = 64 * process.platform().page_size() / RUN_PAGE;
    let large: Vec<_> = (0..count).map(|_| process.malloc(150_000)).collect();
    process.platform().crowded.store(false, Ordering::Relaxed);
    let window = |block: &&*mut u8| chunks.contains(&(block.addr() & !(CHUNK - 1)));
    assert!(large.iter().filter(window).count() > chunks.len() / 2);
    for &block in &large {
        assert_eq!(process.usable_size(block), 150_000);
        let bad = block.wrapping_add(16);
        // SAFETY: the misuse under test.
        assert!(faults("invalid", || unsafe { process.free(bad) }));
    }
    let others = peak(&process);
    assert!(others.iter().any(|chunk| !chunks.contains(chunk)));
    for block in large {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    peak(&process);
}

/// Chunks come and go twice; the system refuses to unmap once, after so many times. How often it
/// did.
fn refuse_to_unmap(skip: usize) -> usize {
    let process = Boxed::new(true);
    for round in 0..2 {
        // Each has a cell: more than a chunk has at first.
        let blocks = 0..3 * CHUNK / RUN_PAGE;
        let blocks: Vec<_> = blocks.map(|_| process.aligned_alloc(4096, 4000)).collect();
        process.verify();
        if round == 0 {
            *process.platform().plan.lock().unwrap() = Plan {
                only: 1 << Call::Unmap as u32,
                skip,
                refuse: 1,
            };
        }
        for block in blocks {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.verify();
        process.mine().trim();
        process.verify();
    }
    process.platform().refused[Call::Unmap as usize].load(Ordering::Relaxed)
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn a_chunk_of_which_a_part_may_not_go_is_idle_still() {
    let refusals = (0..).take_while(|&skip| refuse_to_unmap(skip) > 0);
    assert!(refusals.count() > 3, "data and cells of each chunk go");
}
