//! What is left where a chunk was.

use super::*;
use crate::chunk::Chunk;
use crate::config::CHUNK;
use crate::meta::CLASS_NONE;
use crate::pages::{Access, Platform};
use std::collections::BTreeSet;
use std::ptr::NonNull;

fn enclosed() -> Boxed {
    let process = Boxed::new(false);
    process.platform.enclose();
    process
}

/// Fills some chunks; their addresses. All but the heap's last is given back then.
fn peak(process: &Boxed) -> BTreeSet<usize> {
    let blocks: Vec<_> = (0..600).map(|_| process.malloc(20_000)).collect();
    let chunks = blocks.iter().map(|block| block.addr() & !(CHUNK - 1));
    let chunks = chunks.collect();
    for block in blocks {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // SAFETY: this thread's heap.
    unsafe { process.trim(process.heap()) };
    process.verify();
    chunks
}

/// A look-up may have found the window's bit just before another thread gave the chunk back: what
/// it reads then must be there, as its pointer may be that of a live block which shares the window.
#[test]
fn a_map_can_be_read_when_its_chunk_has_gone() {
    let process = enclosed();
    let chunks = peak(&process);
    assert!(chunks.len() > 2 && process.platform.mapped() < chunks.len() * CHUNK);
    let addresses = chunks
        .iter()
        .flat_map(|&chunk| (chunk..chunk + CHUNK).step_by(512));
    for address in addresses.clone() {
        let chunk = Chunk::around(std::ptr::without_provenance_mut::<u8>(address));
        // SAFETY: a chunk was there.
        let class = unsafe { (*Chunk::meta_at(chunk, address)).class };
        assert_eq!(class, CLASS_NONE);
    }
    for address in addresses.step_by(100) {
        let block = std::ptr::without_provenance_mut(address);
        // SAFETY: the misuse under test.
        assert!(faults("", || unsafe { process.free(block) }));
    }
}

#[test]
fn chunks_come_back_where_they_went() {
    let process = enclosed();
    // The first chunk of all is shorter, and there may be no room for a longer one in its place.
    let mut first = peak(&process);
    (0..3).for_each(|_| first.extend(peak(&process)));
    let mapped = process.platform.mapped();
    for _ in 0..5 {
        assert!(peak(&process).is_subset(&first));
        assert!(process.platform.mapped() < mapped + CHUNK);
    }
}

/// Somebody's mapping where a chunk was: the next is made elsewhere, and there again once it is gone.
#[test]
fn a_chunk_does_not_come_back_where_something_is_in_its_way() {
    let process = enclosed();
    let first = peak(&process);
    let kept = process.lock().kept();
    // In each hole, as far up as the next chunk's first page.
    let holes = first.iter().filter_map(|chunk| {
        let at = process.platform.map(chunk + kept, 4096, Access::None)?;
        if at.addr().get() == chunk + kept {
            return Some(at);
        }
        // SAFETY: just mapped.
        unsafe { process.platform.unmap(at, 4096) };
        None
    });
    let in_the_way: Vec<NonNull<u8>> = holes.collect();
    assert!(in_the_way.len() > 1);
    let second = peak(&process);
    for at in in_the_way {
        assert!(!second.contains(&(at.addr().get() - kept)));
        // SAFETY: mapped here, unused.
        unsafe { process.platform.unmap(at, 4096) };
    }
    let most = process.platform.mapped();
    for _ in 0..5 {
        let again = peak(&process);
        assert!(again
            .iter()
            .all(|chunk| first.contains(chunk) || second.contains(chunk)));
        assert!(process.platform.mapped() <= most);
    }
}

/// A block lives in a mapping of its own where a chunk was: it is found and freed as any other.
#[test]
fn a_large_block_may_lie_where_a_chunk_was() {
    let process = enclosed();
    let mut holes = peak(&process);
    let large: Vec<_> = (0..64).map(|_| process.malloc(150_000)).collect();
    holes.retain(|hole| {
        large
            .iter()
            .any(|block| block.addr() & !(CHUNK - 1) == *hole)
    });
    assert!(!holes.is_empty(), "none lies in a hole");
    for &block in &large {
        assert_eq!(process.usable_size(block), 150_000);
        let bad = block.wrapping_add(16);
        // SAFETY: the misuse under test.
        assert!(faults("invalid", || unsafe { process.free(bad) }));
    }
    peak(&process);
    for block in large {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    process.verify();
}
