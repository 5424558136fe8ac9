//! Blocks of no bytes in the hardened preset: addresses that nobody may touch.
//!
//! A region is a range of inaccessible addresses, 16 bytes a block, with two bits out of band for
//! each: whether a block lives there, and whether one ever did. No block takes memory of its own,
//! an address is used again only after all others of its region, and free, realloc and
//! malloc_usable_size judge the pointer as strictly as any other.

use crate::config::{PRESET, UNIT};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use core::ptr;

/// Regions double in size; from this one on they stay the same.
const MAX_DOUBLINGS: u32 = 8;

/// A range of addresses. It uses a meta's cell. Provider lock.
pub struct Region {
    pub(crate) next: *mut Region,
    base: *mut u8,
    /// A bit for each live block, then as many for those that ever were.
    bits: *mut u64,
    /// Blocks that there is room for, a multiple of 64.
    blocks: usize,
    /// Live ones.
    live: usize,
    /// Where to look for the next one.
    cursor: usize,
}

impl Region {
    /// Number of the block at `block`, if it lies here.
    fn index(&self, block: *mut u8) -> Option<usize> {
        let distance = block.addr().wrapping_sub(self.base.addr());
        (distance < self.blocks * UNIT && distance % UNIT == 0).then_some(distance / UNIT)
    }

    /// The word of a block's bit: whether it lives, or whether it ever did.
    fn word(&self, index: usize, ever: bool) -> *mut u64 {
        let words = if ever { self.blocks / 64 } else { 0 };
        self.bits.wrapping_add(words + index / 64)
    }

    /// Whether the bit is set.
    fn has(&self, index: usize, ever: bool) -> bool {
        // SAFETY: the region's words, for an index below `blocks`.
        unsafe { *self.word(index, ever) & 1 << (index % 64) != 0 }
    }

    /// A free address at a multiple of `align`, at most a page. Taken in turn.
    fn take(&mut self, align: usize) -> Option<*mut u8> {
        let step = align / UNIT;
        for turn in 0..self.blocks / step {
            let index = (self.cursor.next_multiple_of(step) + turn * step) % self.blocks;
            if !self.has(index, false) {
                for ever in [false, true] {
                    // SAFETY: the region's words.
                    unsafe { *self.word(index, ever) |= 1 << (index % 64) };
                }
                self.live += 1;
                self.cursor = index + 1;
                return Some(self.base.wrapping_add(index * UNIT));
            }
        }
        None
    }
}

impl<P: Platform> Process<P> {
    /// A block of no bytes at a multiple of `align`, at most a page. Null, and errno, when memory
    /// is out.
    #[cold]
    pub(crate) fn zero_alloc(&self, align: usize) -> *mut u8 {
        let mut locked = self.lock();
        let mut block = locked.take_zero(align);
        if block.is_null() {
            // What is cached may be what is missing.
            locked.drop_large_cache();
            locked.purge();
            block = locked.take_zero(align);
        }
        drop(locked);
        if block.is_null() {
            self.platform.out_of_memory();
        }
        block
    }

    /// Whether a block of no bytes lives at `block`, or ever did.
    pub(crate) fn zero_contains(&self, block: *mut u8, ever: bool) -> bool {
        if !PRESET.seal_zero_size {
            return false;
        }
        self.lock()
            .zero_region(block)
            .is_some_and(|(region, index)| region.has(index, ever))
    }

    /// Frees the block of no bytes at `block`. False: none lives there.
    pub(crate) fn zero_free(&self, block: *mut u8) -> bool {
        if !PRESET.seal_zero_size {
            return false;
        }
        match self.lock().zero_region(block) {
            Some((region, index)) if region.has(index, false) => {
                // SAFETY: the region's words.
                unsafe { *region.word(index, false) &= !(1 << (index % 64)) };
                region.live -= 1;
                true
            }
            _ => false,
        }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Live blocks of no bytes.
    pub fn zero_blocks(&mut self) -> usize {
        let mut count = 0;
        let mut region = self.provider.zero;
        while !region.is_null() {
            // SAFETY: regions live for ever.
            unsafe {
                count += (*region).live;
                region = (*region).next;
            }
        }
        count
    }

    /// The region that an address lies in, and its number there.
    fn zero_region(&mut self, block: *mut u8) -> Option<(&mut Region, usize)> {
        let mut region = self.provider.zero;
        while !region.is_null() {
            // SAFETY: regions live for ever; the lock is held.
            let here = unsafe { &mut *region };
            if let Some(index) = here.index(block) {
                return Some((here, index));
            }
            region = here.next;
        }
        None
    }

    /// An address, from a new region if all others are full; null when memory is out.
    fn take_zero(&mut self, align: usize) -> *mut u8 {
        let mut region = self.provider.zero;
        let mut regions = 0;
        while !region.is_null() {
            // SAFETY: as above.
            let here = unsafe { &mut *region };
            if here.live < here.blocks {
                if let Some(block) = here.take(align) {
                    return block;
                }
            }
            regions += 1;
            region = here.next;
        }
        let new = self.new_zero_region(regions);
        // SAFETY: as above.
        let block = new.and_then(|region| unsafe { (*region).take(align) });
        block.unwrap_or(ptr::null_mut())
    }

    /// One more region: a page of bits for the first, and 256 KiB of addresses.
    fn new_zero_region(&mut self, regions: u32) -> Option<*mut Region> {
        let platform = &self.process.platform;
        let bytes = platform.page_size() << regions.min(MAX_DOUBLINGS);
        // Two bits a block.
        let blocks = bytes * 8 / 2;
        let cell = self.any_cell()?.cast::<Region>();
        let Some(base) = platform.map(0, blocks * UNIT) else {
            // SAFETY: just taken.
            unsafe { self.return_cell(cell.cast()) };
            return None;
        };
        // SAFETY: just mapped, and nobody knows of it yet.
        let closed = unsafe { platform.close(base, blocks * UNIT) };
        let bits = if closed { platform.map(0, bytes) } else { None };
        let Some(bits) = bits else {
            // SAFETY: just mapped, just taken. Refused, addresses without memory are lost.
            unsafe {
                platform.unmap(base, blocks * UNIT);
                self.return_cell(cell.cast());
            }
            return None;
        };
        // SAFETY: the cell is ours.
        unsafe {
            cell.write(Region {
                next: self.provider.zero,
                base: base.as_ptr(),
                bits: bits.as_ptr().cast(),
                blocks,
                live: 0,
                cursor: 0,
            });
        }
        self.provider.zero = cell;
        Some(cell)
    }
}

const _: () = assert!(size_of::<Region>() <= size_of::<Meta>());
