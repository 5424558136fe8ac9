//! Out-of-band state: one cache line a group, and one a nest.

use crate::chunk::Chunk;
use crate::config::{CHUNK, GRANULE};
use crate::remote::{Node, RemoteMask};
use crate::slot::{FIRST_WIDE, NARROW_SLOTS, NEW, PURGED, USED, WIDE_SLOTS, ZERO};
use crate::sync::{AtomicPtr, AtomicU16, AtomicU32, AtomicU8, Ordering};

/// Class of a group that is one aligned run of pages for one block.
pub const CLASS_RUN: u8 = 48;
/// Class of the pseudo-meta at each chunk's start: what a map entry of 0 leads to.
pub const CLASS_NONE: u8 = 49;

/// Owner of what belongs to no heap: the pseudo-meta, and blocks in runs. No heap has this number.
pub const NOBODY: u16 = u16::MAX;

/// What a group is to its heap. Only the owner looks at it, and `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The cell is unused (or is a nest's).
    Free = 0,
    /// Its class's ring takes slots from it.
    Current = 1,
    /// In no list: the owner's next free in it queues it.
    Detached = 2,
    /// In the class's queue: it has slots to give.
    Queued = 3,
    /// One block over whole pages, see `CLASS_RUN`.
    Run = 4,
}

/// Bits of a `State`.
const STATE_BITS: u32 = 3;
const STATE_MASK: u8 = (1 << STATE_BITS) - 1;

/// The state of a group.
///
/// Conservation: each slot is either live (its record tells a block), or its bit stands in exactly
/// one of `freed`, `remote`, the class's `avail`, its ring or the quarantine; bits beyond the
/// capacity are set in `freed`.
#[repr(C, align(64))]
pub struct Meta {
    /// Next group in the class's queue, or next free cell. Owner; provider lock when free in the
    /// chunk.
    pub next: *mut Meta,
    /// Next in the owner's list of groups with remote frees. See `remote.rs`.
    link: AtomicPtr<Meta>,
    /// Slots the owner got back, and slots never used. Written by the owner only.
    pub freed: AtomicU32,
    /// Slots other threads gave back.
    remote: RemoteMask,
    /// Lower 32 bits of the address of the group's first byte; a chunk does not cross 2^32.
    /// Fixed while the group lives.
    pub base: u32,
    /// Number of the owning heap. Fixed while the group lives.
    pub owner: AtomicU16,
    /// Size class. Fixed while the group lives.
    pub class: u8,
    /// A `State` in the lower 3 bits; owner. Above them the number of slots less one, fixed while
    /// the group lives.
    shape: u8,
    /// One record a slot, see `slot.rs`. Written by the thread that allocates or frees the slot.
    pub records: Records,
}

/// Records of the slots of a group: 32 of one byte or 16 of two. Two views of the same bytes are
/// not a union because loom's atomics are no plain bytes; the wide view is the stored one and the
/// narrow one is reached by address.
#[repr(C, align(32))]
pub struct Records {
    wide: [AtomicU16; WIDE_SLOTS],
}

impl Records {
    /// Record `index` of a narrow group.
    #[inline(always)]
    pub fn narrow(&self, index: usize) -> &AtomicU8 {
        debug_assert!(index < 2 * WIDE_SLOTS);
        // SAFETY: 16 atomics of two bytes are 32 bytes; AtomicU8 has no alignment demand, and a
        // group's records are only ever used through one of the two views at a time (the class
        // is fixed while the group lives).
        unsafe { &*self.wide.as_ptr().cast::<AtomicU8>().add(index) }
    }

    /// Record `index` of a wide group.
    #[inline(always)]
    pub fn wide(&self, index: usize) -> &AtomicU16 {
        &self.wide[index]
    }
}

impl Node for Meta {
    #[inline(always)]
    fn mask(&self) -> &RemoteMask {
        &self.remote
    }
    #[inline(always)]
    fn link(&self) -> &AtomicPtr<Meta> {
        &self.link
    }
}

/// Mask of the lowest `slots` bits, 0 to 32.
#[inline(always)]
pub fn low_mask(slots: usize) -> u32 {
    ((1u64 << slots) - 1) as u32
}

/// Number of set bits. Not inline: it is long where the machine has no instruction for it.
#[inline(never)]
pub fn ones(mask: u64) -> u32 {
    mask.count_ones()
}

/// Bit i: byte i of `word` in memory is zero. Exact, unlike the common test for any zero byte
/// (Warren, Hacker's Delight, 6-1).
#[inline(always)]
fn zero_bytes(word: u32) -> u32 {
    const LOW: u32 = u32::MAX / 255 * 127;
    let word = u32::from_le(word);
    let zero = !((word & LOW).wrapping_add(LOW) | word | LOW) >> 7;
    // The product brings bit 8 i to bit 21 + i, and no other bit there.
    zero.wrapping_mul(1 << 21 | 1 << 14 | 1 << 7 | 1) >> 21 & 15
}

/// Numbers of the set bits.
fn set_bits(mut bits: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let index = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(index)
    })
}

impl Meta {
    /// The chunk that this cell lies in.
    #[inline(always)]
    pub fn chunk_of(meta: *mut Meta) -> *mut u8 {
        Chunk::around(meta).cast()
    }

    /// First byte of the group.
    ///
    /// # Safety
    /// `meta` is the cell of a group that lives in the same chunk.
    #[inline(always)]
    pub unsafe fn base_of(meta: *mut Meta) -> *mut u8 {
        // SAFETY: by contract the group lies in this chunk, at that granule.
        unsafe { Meta::chunk_of(meta).add((*meta).base as usize % CHUNK) }
    }

    /// First granule of the group in its chunk.
    #[inline(always)]
    pub fn first_granule(&self) -> usize {
        self.base as usize % CHUNK / GRANULE
    }

    /// Slots of the group, 1 to 32.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        (self.shape >> STATE_BITS) as usize + 1
    }

    /// Slots that are free as far as the owner knows.
    #[inline(always)]
    pub fn free_slots(&self) -> u32 {
        self.freed.load(Ordering::Relaxed) & low_mask(self.capacity())
    }

    /// The record of slot `index`.
    pub fn record(&self, index: usize) -> u16 {
        // Relaxed, as below: only the owner writes records of slots that hold no block.
        if (self.class as usize) < FIRST_WIDE {
            self.records.narrow(index).load(Ordering::Relaxed).into()
        } else {
            self.records.wide(index).load(Ordering::Relaxed)
        }
    }

    /// Which of the slots `bits`, in a mask, were used since their pages were given back or the
    /// group was made.
    pub fn dirty(&self, bits: u32) -> u32 {
        let word = |index: usize| {
            let records = (&raw const self.records).cast::<AtomicU32>();
            // SAFETY: 32 bytes, aligned to 32. Relaxed, as above: records that change meanwhile are
            // not asked for.
            unsafe { (*records.add(index)).load(Ordering::Relaxed) }
        };
        let mut used = 0;
        if (self.class as usize) < FIRST_WIDE {
            for index in 0..NARROW_SLOTS / 4 {
                used |= zero_bytes(word(index)) << (4 * index);
            }
        } else {
            for index in 0..WIDE_SLOTS {
                used |= u32::from(self.record(index) == USED.into()) << index;
            }
        }
        used & bits
    }

    /// Notes that the dirty slots `bits`, in a mask, gave their pages back.
    pub fn mark_purged(&self, bits: u32) {
        for index in set_bits(bits) {
            if (self.class as usize) < FIRST_WIDE {
                self.records.narrow(index).store(PURGED, Ordering::Relaxed);
            } else {
                let record = self.records.wide(index);
                record.store(PURGED.into(), Ordering::Relaxed);
            }
        }
    }

    /// Whether each slot is free.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.freed.load(Ordering::Relaxed) == u32::MAX
    }

    /// Whether `state` is the group's state.
    #[inline(always)]
    pub fn is(&self, state: State) -> bool {
        self.shape & STATE_MASK == state as u8
    }

    /// Makes `state` the group's state.
    #[inline(always)]
    pub fn set(&mut self, state: State) {
        self.shape = self.shape & !STATE_MASK | state as u8;
    }

    /// Makes the cell the state of a new group, whose bytes are zero if it is `fresh`. `next` stays:
    /// the cell may still be the first of its nest's reserve.
    ///
    /// # Safety
    /// The cell is unused and nobody else looks at it.
    pub unsafe fn init(
        meta: *mut Meta,
        start: usize,
        class: u8,
        capacity: usize,
        owner: u16,
        fresh: bool,
    ) {
        // SAFETY: by contract the cell is ours; all-zero bytes are valid in every field.
        unsafe {
            (&raw mut (*meta).link).write_bytes(0, 1);
            (&raw mut (*meta).remote).write_bytes(0, 1);
            (*meta).freed.store(u32::MAX, Ordering::Relaxed);
            (*meta).base = start as u32;
            (*meta).owner.store(owner, Ordering::Relaxed);
            (*meta).class = class;
            (*meta).shape = (capacity as u8 - 1) << STATE_BITS | State::Detached as u8;
            let mark = if fresh { ZERO } else { NEW };
            let word = if (class as usize) < FIRST_WIDE {
                u16::from_ne_bytes([mark; 2])
            } else {
                mark.into()
            };
            for index in 0..WIDE_SLOTS {
                (*meta).records.wide(index).store(word, Ordering::Relaxed);
            }
        }
    }

    /// Length of the block of a `CLASS_RUN` group in bytes; its records' room holds it.
    ///
    /// # Safety
    /// `meta` is the cell of a run's group.
    pub unsafe fn run_length(meta: *mut Meta) -> *mut [usize; 2] {
        // SAFETY: 32 bytes, aligned to 32: room for two words (length, pages). Runs use no slot
        // records.
        unsafe { (&raw mut (*meta).records).cast() }
    }
}

/// A run of 64 granules that a heap cuts into small groups. It uses a meta's cell.
#[repr(C, align(64))]
pub struct Nest {
    /// Neighbours in the heap's list of nests with room. Owner.
    pub next: *mut Nest,
    /// See `next`.
    pub prev: *mut Nest,
    /// Granules that belong to groups. Owner.
    pub used: u64,
    /// Granules that were ever used since the pages were zero. Owner.
    pub dirty: u64,
    /// First granule of the nest in its chunk. Fixed.
    pub base: u16,
    /// Whether it stands in the heap's list. Owner.
    pub listed: bool,
    /// Length of `cells`. Owner.
    pub spare: u8,
    /// Number of the owning heap. Fixed.
    pub owner: u16,
    /// Its reserve: free cells of the chunk for groups that come. Owner.
    pub cells: *mut Meta,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Meta>() == 64);
    assert!(size_of::<Nest>() == 64);
    // free reads the hot fields and the record from one line.
    assert!(core::mem::offset_of!(Meta, records) == 32);
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn zero_bytes_are_found_and_no_others() {
        let values = [0u8, 1, 2, 3, 0x7f, 0x80, 0x81, 0xff];
        for number in 0..values.len().pow(4) {
            let bytes = [0, 1, 2, 3].map(|i| values[number >> (3 * i) & 7]);
            let expected = (0..4).filter(|&i| bytes[i] == 0).map(|i| 1 << i).sum();
            assert_eq!(zero_bytes(u32::from_ne_bytes(bytes)), expected, "{bytes:?}");
        }
    }
}
