//! The pagemap: which windows of a chunk's size hold a chunk. A byte each, in leaves that exist
//! where chunks do. A process has room for the leaf of its first chunk, which most have all chunks
//! in.

use crate::base::config::{ADDRESS_BITS, CHUNK_SHIFT};
use crate::base::sync::{read_byte, seldom, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use crate::base::zeroed::Zeroed;
use crate::layout::chunk::Chunk;

/// log2 of the number of windows.
const WINDOW_BITS: u32 = ADDRESS_BITS - CHUNK_SHIFT;
/// log2 of those that one leaf tells of: 32 GiB of addresses where chunks have 4 MiB.
/// Under Miri, where each use of a reference takes time for each atomic behind it, halves.
const LEAF_BITS: u32 = if cfg!(miri) {
    WINDOW_BITS / 2
} else if WINDOW_BITS < 13 {
    WINDOW_BITS
} else {
    13
};
/// Windows of a leaf.
const LEAF: usize = 1 << LEAF_BITS;
/// Leaves that the address space has room for.
const LEAVES: usize = 1 << (WINDOW_BITS - LEAF_BITS);

/// Whether there is a chunk, for each window of a region. Zero memory is a leaf without one.
pub struct Leaf([AtomicU8; LEAF]);

/// The leaf of the first chunk, and the others by region. Leaves stay. Written under the
/// lock.
#[repr(C)]
pub struct Pagemap {
    /// Start of the first leaf's region, negated: added to an address in it, it gives the distance.
    /// Written once.
    minus: AtomicUsize,
    /// Not 0 once it was.
    is_placed: AtomicU8,
    first: Leaf,
    /// Leaves of the other regions, null where there never was a chunk.
    others: [AtomicPtr<Leaf>; LEAVES],
}

/// Number of the region that one leaf tells of.
fn region(address: usize) -> usize {
    // Two shifts: on 32 bits the sum is the width of the word.
    address >> CHUNK_SHIFT >> LEAF_BITS
}

/// Tells the compiler that a branch is not the usual one.
#[cold]
fn rare() {}

// SAFETY: atomics of numbers and pointers; no chunk is entered.
unsafe impl Zeroed for Pagemap {}

impl Pagemap {
    /// The chunk whose window `address` lies in, if there is one.
    #[inline(always)]
    pub fn chunk(&self, address: usize) -> Option<&'static Chunk> {
        // SAFETY: `enter` entered the window of a chunk, and headers stay.
        self.has(address).then(|| unsafe { Chunk::around(address) })
    }

    /// `chunk` as a call, for callers that need not be fast.
    #[inline(never)]
    pub fn any_chunk(&self, address: usize) -> Option<&'static Chunk> {
        self.chunk(address)
    }

    /// The chunk whose window `address` lies in, if that is in the first leaf's region, where most
    /// are. None elsewhere, even if there is a chunk.
    #[inline(always)]
    pub fn near_chunk(&self, address: usize) -> Option<&'static Chunk> {
        let leaf = (&raw const self.first).expose_provenance();
        // SAFETY: the leaf has a byte for each window.
        let has = |window| unsafe { read_byte::<0>(leaf, window) } != 0;
        let entered = self.window(address).is_some_and(has);
        // SAFETY: see `chunk`.
        entered.then(|| unsafe { Chunk::around(address) })
    }

    /// Whether `address` lies in the window of a chunk. Relaxed: see `window`.
    #[inline(always)]
    pub fn has(&self, address: usize) -> bool {
        let byte = if let Some(window) = self.window(address) {
            let leaf = (&raw const self.first).expose_provenance();
            // SAFETY: the leaf has a byte for each window.
            unsafe { read_byte::<0>(leaf, window) }
        } else {
            rare();
            let address = seldom(address);
            // Null is no chunk's.
            if address == 0 {
                return false;
            }
            let byte = self.far_byte(address);
            byte.map_or(0, |byte| byte.load(Ordering::Relaxed).into())
        };
        byte != 0
    }

    /// The place of the window around `address` in the first leaf, if it lies in its region. Before
    /// there is a chunk that is region 0, and the leaf is empty.
    #[inline(always)]
    fn window(&self, address: usize) -> Option<usize> {
        // Relaxed, here and below, and the byte, too: a live block's pointer came here by the
        // program's own synchronisation, which orders leaf and byte. For any other pointer either
        // answer is right; a leaf was zero before it was entered, and what is read of it depends on
        // its address, which was read first.
        let distance = self.minus.load(Ordering::Relaxed).wrapping_add(address);
        (region(distance) == 0).then_some(distance >> CHUNK_SHIFT)
    }

    /// The byte of the window around `address`, which does not lie in the first leaf's region. None
    /// if its region never had a chunk.
    #[inline(always)]
    fn far_byte(&self, address: usize) -> Option<&AtomicU8> {
        // What is no address of this system has no leaf either.
        let leaf = self.others.get(region(address))?.load(Ordering::Relaxed);
        // SAFETY: null, or a leaf, which stays once it is entered.
        Some(&unsafe { leaf.as_ref()? }.0[address >> CHUNK_SHIFT & (LEAF - 1)])
    }

    /// The byte of the window around `address`; None if its region never had a chunk.
    fn byte(&self, address: usize) -> Option<&AtomicU8> {
        match self.window(address) {
            Some(window) => Some(&self.first.0[window % LEAF]),
            None => self.far_byte(address),
        }
    }

    /// Enters the window of a new chunk. The first leaf of a further region takes what `room`
    /// gives: zero memory for ever, a leaf's bytes. False without it. The caller holds the lock.
    pub fn enter(&self, address: usize, room: impl FnOnce() -> Option<*mut u8>) -> bool {
        // Relaxed: the flag is used under the lock only.
        if self.is_placed.load(Ordering::Relaxed) == 0 {
            self.is_placed.store(1, Ordering::Relaxed);
            let start = region(address) << LEAF_BITS << CHUNK_SHIFT;
            self.minus.store(start.wrapping_neg(), Ordering::Relaxed);
        }
        let mut byte = self.byte(address);
        if byte.is_none() {
            if let (Some(entry), Some(leaf)) = (self.others.get(region(address)), room()) {
                // Release: the leaf is zero for whoever finds it.
                entry.store(leaf.cast(), Ordering::Release);
                byte = self.byte(address);
            }
        }
        // Relaxed: see `has`.
        byte.map(|byte| byte.store(1, Ordering::Relaxed)).is_some()
    }

    /// Forgets the window of a chunk, for a test that it is missed.
    #[cfg(test)]
    pub fn leave(&self, address: usize) {
        if let Some(byte) = self.byte(address) {
            byte.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, target_pointer_width = "64", not(loom)))]
mod tests {
    use super::*;
    use crate::base::config::CHUNK;
    use core::ptr;

    /// A leaf for a further region.
    static FAR: Leaf = Leaf([const { AtomicU8::new(0) }; LEAF]);

    #[test]
    fn chunks_that_lie_far_apart_have_leaves_of_their_own() {
        let map = Pagemap {
            minus: AtomicUsize::new(0),
            is_placed: AtomicU8::new(0),
            first: Leaf([const { AtomicU8::new(0) }; LEAF]),
            others: [const { AtomicPtr::new(ptr::null_mut()) }; LEAVES],
        };
        let leaf = || Some(ptr::from_ref(&FAR).cast_mut().cast());
        let (near, far) = (5 * CHUNK, 3 * LEAF * CHUNK + 5 * CHUNK);
        assert!(map.enter(near, || unreachable!("the first leaf is there")));
        assert!(!map.enter(far, || None), "no memory for another leaf");
        assert!(map.has(near) && !map.has(far));
        assert!(map.enter(far, leaf));
        assert!(map.enter(far + CHUNK, || unreachable!("the leaf is there")));
        let inside = [near, near + CHUNK - 1, far, far + 2 * CHUNK - 1];
        let outside = [0, near - 1, near + CHUNK, far - 1, far + 2 * CHUNK];
        assert!(inside.iter().all(|&at| map.has(at)));
        assert!(!outside.iter().any(|&at| map.has(at)));
        // What is no address of this system.
        assert!(!map.has(usize::MAX) && !map.enter(usize::MAX, leaf));
    }
}
