//! The state of a group: one cache line out of band.
//!
//! All of it is atomic: a wild or stale pointer may lead another thread here at any time, and what
//! it reads is only judged. Who may write a field, and when, stands beside it; the orderings that
//! the exchange between threads needs are those of `remote` and `link`, everything else is relaxed.

use crate::base::config::{CHUNK, CLASSES, GRANULE, PRESET, RUN_PAGE, SPAN_GROUP_MAX};
use crate::base::places::places;
use crate::base::size_class::stride;
use crate::base::sync::{AtomicPtr, AtomicU16, AtomicU32, AtomicU8, Ordering::Relaxed};
use crate::base::zeroed::Zeroed;
use crate::exchange::mailbox::{Node, RemoteMask};
use crate::layout::record::{
    narrow_tail, narrow_units, wide_read, wide_tail, FIRST_WIDE, NARROW_SLOTS, NEW, PURGED, USED,
    WIDE_SLOTS, ZERO,
};
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr;

/// Class of a group of blocks without bytes, see `pages/no_bytes.rs`.
pub const CLASS_NO_BYTES: usize = CLASSES;
/// Class of the pseudo-group at each chunk's start: what a map entry of 0 leads to.
pub const CLASS_NONE: usize = CLASSES + 1;

/// Owner of what belongs to no heap: the pseudo-group, and groups of blocks without bytes. No heap
/// has this number.
pub const NOBODY: u16 = u16::MAX;

/// What a group is to its heap. Only the owner looks at it, and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The cell is unused.
    Free = 0,
    /// Its class takes slots from it.
    Current = 1,
    /// In no list: the owner's next free in it queues it.
    Unlisted = 2,
    /// In the class's queue: it has slots to give.
    Queued = 3,
}

/// Bits of a `State`.
const STATE_BITS: u32 = 3;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;
/// Bits of a state and a number of slots.
const SHAPE_MASK: u32 = (1 << CLASS_SHIFT) - 1;
const CLASS_SHIFT: u32 = 8;
const OWNER_SHIFT: u32 = 16;

/// What a group is and whose, in one word: a `State` in the lowest 3 bits, above them the number of
/// slots less one in 5, the size class in 8, and the number of the owning heap in 16. All but the
/// state is fixed while the group lives.
#[derive(Clone, Copy)]
pub struct Tag(u32);

impl Tag {
    /// The tag of a group of `class` that a heap owns, without state and slots. By the tag of class
    /// 0 a heap knows its own groups.
    pub const fn new(owner: u16, class: usize) -> Tag {
        Tag((owner as u32) << OWNER_SHIFT | (class as u32) << CLASS_SHIFT)
    }

    /// The number of the owning heap.
    pub const fn owner(self) -> u16 {
        (self.0 >> OWNER_SHIFT) as u16
    }

    /// The size class, or one of those above.
    pub fn class(self) -> usize {
        (self.0 >> CLASS_SHIFT) as u8 as usize
    }

    /// The class, if the group's owner has `own` as the tag of class 0; else a number that no class
    /// has.
    pub fn class_of(self, own: Tag) -> usize {
        (self.0.wrapping_sub(own.0) >> CLASS_SHIFT) as usize
    }
}

// SAFETY: a number.
unsafe impl Zeroed for Tag {}

/// The state of a group.
///
/// Conservation: each slot is either live (its record tells a block), or its bit stands in exactly
/// one of `freed`, `remote`, the class's `avail`, its reuse queue, the quarantine, or another
/// heap's deferred frees; bits beyond the capacity are set in `freed`.
#[repr(C, align(64))]
pub struct Group {
    /// Next group in the class's queue (owner), or next free cell (span's owner; under the lock in
    /// the chunk's list).
    next: AtomicPtr<Group>,
    /// Next in the owner's list of groups with remote frees, or among those aside, with a mark
    /// then, see `exchange/mailbox.rs`.
    link: AtomicPtr<Group>,
    /// Slots that the owner got back, and slots never used. Written through `MyGroup`.
    freed: AtomicU32,
    /// Slots that other threads gave back.
    remote: RemoteMask,
    /// Lower 32 bits of the address of the group's first byte, negated: added to an address in it,
    /// they give the distance; a chunk does not cross 2^32. Fixed while the group lives.
    minus: AtomicU32,
    /// See `Tag`. Written through `MyGroup`.
    tag: AtomicU32,
    /// One record a slot, see `record.rs`. Written by the thread that allocates or frees the slot,
    /// and by who puts the group aside.
    records: Records,
}

/// Records of the slots of a group: 32 of one byte or 16 of two. The class, fixed while the group
/// lives, tells which: a record is only ever used in its own width.
#[repr(C, align(32))]
struct Records([AtomicU16; WIDE_SLOTS]);

impl Group {
    /// Where its fields are, for who reads a heap from outside: freed, remote, minus, tag, records.
    pub const FIELDS: [usize; 5] = places!(Group: freed, remote, minus, tag, records);
}

impl Node for Group {
    fn mask(&self) -> &RemoteMask {
        &self.remote
    }
    fn link(&self) -> &AtomicPtr<Group> {
        &self.link
    }
    fn slots(&self) -> u32 {
        low_mask(self.capacity()) & !self.guard_slots()
    }
    fn weight(&self) -> usize {
        self.bytes()
    }
}

/// Mask of the lowest `slots` bits, 0 to 32.
pub const fn low_mask(slots: usize) -> u32 {
    ((1u64 << slots) - 1) as u32
}

/// Slots of groups that are long enough to have guard slots, and the bits of these in masks.
const LONG: usize = match PRESET.guard_slot_every {
    0 => usize::MAX,
    every => every,
};
const GUARD_SLOTS: u32 = match PRESET.guard_slot_every {
    0 => 0,
    every => u32::MAX / low_mask(every),
};

/// Number of set bits. Not inline: it is long where the machine has no instruction for it.
#[inline(never)]
pub fn ones(mask: u64) -> u32 {
    mask.count_ones()
}

/// Numbers of the set bits, ascending.
pub fn set_bits(mut bits: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let index = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(index)
    })
}

/// Bytes that a group of `bytes` takes: whole granules in a span, whole run pages above.
pub fn rounded(bytes: usize) -> usize {
    let granules = bytes.next_multiple_of(GRANULE);
    if granules <= SPAN_GROUP_MAX {
        granules
    } else {
        bytes.next_multiple_of(RUN_PAGE)
    }
}

impl Group {
    /// Makes the cell the state of a new group of `capacity` slots at `start`, whose bytes are zero
    /// if it is `fresh`. `next` stays: the cell may still be the first of its span's reserve.
    /// Nobody else looks at the cell yet.
    pub fn init(&self, start: usize, class: usize, capacity: usize, owner: u16, fresh: bool) {
        self.link.store(ptr::null_mut(), Relaxed);
        self.remote.reset();
        self.freed.store(u32::MAX, Relaxed);
        self.minus.store((start as u32).wrapping_neg(), Relaxed);
        let shape = (capacity as u32 - 1) << STATE_BITS | State::Unlisted as u32;
        self.tag.store(Tag::new(owner, class).0 | shape, Relaxed);
        // Of a narrow group two records at a time: nobody looks at them yet.
        let mark = u16::from(if fresh { ZERO } else { NEW });
        let both = mark * if self.is_narrow() { 0x101 } else { 1 };
        for records in &self.records.0 {
            records.store(both, Relaxed);
        }
    }

    /// Makes the cell a chunk's pseudo-group: it holds no block and belongs to nobody.
    pub fn init_pseudo(&self) {
        self.tag.store(Tag::new(NOBODY, CLASS_NONE).0, Relaxed);
    }

    /// Clears the cell, which nobody uses: a stale pointer that still leads here finds no block.
    pub fn clear(&self) {
        for record in &self.records.0 {
            record.store(0, Relaxed);
        }
        self.link.store(ptr::null_mut(), Relaxed);
        self.remote.reset();
        self.freed.store(0, Relaxed);
        self.minus.store(0, Relaxed);
        self.tag.store(0, Relaxed);
    }

    /// Record `index` of a narrow group.
    pub fn narrow(&self, index: usize) -> &AtomicU8 {
        debug_assert!(index < NARROW_SLOTS);
        let first = self.records.0.as_ptr().cast::<AtomicU8>();
        // SAFETY: the 16 atomics of two bytes are room for 32 of one, and the mask keeps inside.
        unsafe { &*first.add(index % NARROW_SLOTS) }
    }

    /// Record `index` of a wide group.
    pub fn wide(&self, index: usize) -> &AtomicU16 {
        &self.records.0[index % WIDE_SLOTS]
    }

    /// The record of slot `index`, of either width.
    pub fn record(&self, index: usize) -> u16 {
        if self.is_narrow() {
            self.narrow(index).load(Relaxed).into()
        } else {
            self.wide(index).load(Relaxed)
        }
    }

    /// Writes the record of slot `index` of a narrow group.
    pub fn set_narrow(&self, index: usize, record: u8) {
        self.narrow(index).store(record, Relaxed);
    }

    /// Whether slot `index` has the record of a live block.
    pub fn holds_block(&self, index: usize) -> bool {
        let record = self.record(index);
        if self.is_narrow() {
            narrow_units(record as u8) != 0
        } else {
            wide_read(stride(self.class()), record).is_some()
        }
    }

    /// Bytes of the tail that the last block of slot `index` had, by the record of a slot in a
    /// reuse queue; None if it holds a block. For any thread: the owner may be at work.
    pub fn freed_tail(&self, index: usize) -> Option<usize> {
        let record = self.record(index);
        if self.is_narrow() {
            (narrow_units(record as u8) == 0).then(|| narrow_tail(record as u8))
        } else {
            let stride = stride(self.class());
            wide_read(stride, record)
                .is_none()
                .then(|| wide_tail(record))
        }
    }

    /// Which of the slots `bits`, in a mask, were used since their pages were given back or the
    /// group was made.
    pub fn dirty(&self, bits: u32) -> u32 {
        let mut used = 0;
        if self.is_narrow() {
            for index in 0..NARROW_SLOTS {
                used |= u32::from(self.narrow(index).load(Relaxed) == USED) << index;
            }
        } else {
            for (index, record) in self.records.0.iter().enumerate() {
                used |= u32::from(record.load(Relaxed) == USED.into()) << index;
            }
        }
        used & bits
    }

    /// Whether all slots `bits` have this mark for a record.
    pub fn are(&self, bits: u32, mark: u8) -> bool {
        if self.is_narrow() {
            set_bits(bits).all(|index| self.narrow(index).load(Relaxed) == mark)
        } else {
            set_bits(bits).all(|index| self.wide(index).load(Relaxed) == mark.into())
        }
    }

    /// Whether the records are of one byte.
    pub fn is_narrow(&self) -> bool {
        !(FIRST_WIDE..CLASSES).contains(&self.class())
    }

    /// What it is and whose.
    pub fn tag(&self) -> Tag {
        Tag(self.tag.load(Relaxed))
    }

    /// The size class, or one of those above.
    pub fn class(&self) -> usize {
        self.tag().class()
    }

    /// Number of the owning heap.
    pub fn owner(&self) -> u16 {
        self.tag().owner()
    }

    /// Gives the group to another heap: there is one thread only.
    pub fn set_owner(&self, owner: u16) {
        let rest = self.tag().0 & ((1 << OWNER_SHIFT) - 1);
        self.tag.store(Tag::new(owner, 0).0 | rest, Relaxed);
    }

    /// Bytes from the group's first byte to `address`, if that lies in it.
    pub fn distance(&self, address: usize) -> usize {
        (address as u32).wrapping_add(self.minus.load(Relaxed)) as usize
    }

    /// The group's first byte: in the chunk that the cell lies in.
    pub fn start(&self) -> *mut u8 {
        let chunk = ptr::from_ref(self).expose_provenance() & !(CHUNK - 1);
        ptr::with_exposed_provenance_mut(chunk + self.base() % CHUNK)
    }

    /// Lower 32 bits of the address of the group's first byte.
    fn base(&self) -> usize {
        self.minus.load(Relaxed).wrapping_neg() as usize
    }

    /// First granule of the group in its chunk.
    pub fn first_granule(&self) -> usize {
        self.base() % CHUNK / GRANULE
    }

    /// Bytes of the group.
    pub fn bytes(&self) -> usize {
        rounded(self.capacity() * stride(self.class()))
    }

    /// Slots of the group, 1 to 32.
    pub fn capacity(&self) -> usize {
        ((self.tag().0 & SHAPE_MASK) >> STATE_BITS) as usize + 1
    }

    /// Slots that the owner got back, and bits beyond the capacity.
    pub fn freed(&self) -> u32 {
        self.freed.load(Relaxed)
    }

    /// Slots that are free as far as the owner knows, and may be handed out.
    pub fn free_slots(&self) -> u32 {
        self.freed() & self.slots()
    }

    /// Guard slots: never handed out and always clear, so that whatever stands in one is a stray
    /// write. Their bits stay set in `freed`.
    pub fn guard_slots(&self) -> u32 {
        if GUARD_SLOTS == 0 || self.capacity() < LONG || self.class() >= CLASSES {
            0
        } else {
            GUARD_SLOTS & low_mask(self.capacity())
        }
    }

    /// Whether `other` is this very group.
    pub fn is_same(&self, other: &Group) -> bool {
        ptr::eq(self, other)
    }

    /// Whether each slot is free.
    pub fn is_empty(&self) -> bool {
        self.freed() == u32::MAX
    }

    /// Whether `state` is the group's state.
    pub fn is(&self, state: State) -> bool {
        self.tag().0 & STATE_MASK == state as u32
    }

    /// The number of its `State`.
    #[cfg(any(test, feature = "model", feature = "dump"))]
    pub fn state(&self) -> u32 {
        self.tag().0 & STATE_MASK
    }

    /// The next group of the list that this one is in.
    pub fn next(&self) -> Option<&'static Group> {
        // SAFETY: `set_next` got it by reference, and cells stay while a list leads to them.
        unsafe { self.next.load(Relaxed).as_ref() }
    }

    /// Links the group to the next one.
    pub fn set_next(&self, next: Option<&'static Group>) {
        let next = next.map_or(ptr::null_mut(), |next| ptr::from_ref(next).cast_mut());
        self.next.store(next, Relaxed);
    }
}

/// A group whose masks and state are the holder's to write: one of its own heap, or, under the
/// lock, one of nobody. It proves that no other thread writes them meanwhile.
#[derive(Clone, Copy)]
pub struct MyGroup(&'static Group);

impl Deref for MyGroup {
    type Target = Group;
    fn deref(&self) -> &Group {
        self.0
    }
}

impl MyGroup {
    /// A group of the caller's.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the group, or holds the lock and the group's owner
    /// is nobody or was orphaned; and keeps that right as long as the value. (Or the caller has the
    /// group's slots, all of them, and writes their records only.)
    #[inline(always)]
    pub unsafe fn new(group: &'static Group) -> Self {
        MyGroup(group)
    }

    /// The group as everybody knows it.
    pub fn group(self) -> &'static Group {
        self.0
    }

    /// Writes the mask of free slots.
    pub fn set_freed(self, freed: u32) {
        self.freed.store(freed, Relaxed);
    }

    /// Makes `state` the group's state.
    pub fn set(self, state: State) {
        let rest = self.tag().0 & !STATE_MASK;
        self.tag.store(rest | state as u32, Relaxed);
    }

    /// Notes that the slots `bits`, in a mask, gave their pages back.
    pub fn mark_purged(self, bits: u32) {
        for index in set_bits(bits) {
            if self.is_narrow() {
                self.narrow(index).store(PURGED, Relaxed);
            } else {
                self.wide(index).store(PURGED.into(), Relaxed);
            }
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Group>() == 64);
    // free reads the hot fields and the record from one line.
    assert!(offset_of!(Group, records) == NARROW_SLOTS);
};
