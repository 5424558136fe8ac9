//! Slots as values: one that holds a live block, and one that is free and the holder's.

use crate::base::config::{PRESET, UNIT};
use crate::base::fault::{was_found, Fault, Found};
use crate::base::places::places;
use crate::base::random::Secrets;
use crate::base::size_class::Geometry;
use crate::base::sync::{read_byte, read_pair, seldom, AtomicU16, AtomicU8, Ordering::Relaxed};
use crate::layout::group::Group;
use crate::layout::guard::Guard;
use crate::layout::record::{
    narrow_behind, wide_behind, Place, FIRST_WIDE, NARROW_SLOTS, NARROW_TAIL, USED, WIDE_SLOTS,
    WIDE_TAIL,
};
use core::ops::Deref;
use core::ptr;

/// A slot whose record tells of a live block. It proves that the block's group and memory stay as
/// long as the program does not free the block a second time at this moment. `find` alone makes
/// one; what it found is read through it, and cannot be changed.
#[derive(Clone, Copy)]
pub struct LiveSlot(Live);

/// What is known of a live block's slot.
#[derive(Clone, Copy)]
pub struct Live {
    /// Its group.
    pub group: &'static Group,
    /// Its number in the group.
    pub index: usize,
    /// Its class.
    pub class: usize,
    /// Bytes of the slot.
    pub stride: usize,
    /// The block's first byte.
    block: *mut u8,
    /// The slot's.
    pub start: *mut u8,
    /// Bytes from there to the block.
    pub offset: usize,
    /// Bytes behind the block, less one.
    pub less: usize,
}

impl Deref for LiveSlot {
    type Target = Live;
    fn deref(&self) -> &Live {
        &self.0
    }
}

impl LiveSlot {
    /// The slot of the live block that starts exactly at `pointer`, in a group of `class`, whose
    /// slots are like `geometry` says. `narrow` tells the kind of the class. None if no live block
    /// starts there.
    ///
    /// A misaligned distance leaves an offset that no record has, and one beyond the last slot,
    /// where the group's bytes were rounded up, an offset beyond all. Records of slots that hold no
    /// block have no offset. Geometry of zeros, of a class without groups, finds nothing.
    #[inline(always)]
    pub fn find(
        narrow: bool,
        group: &'static Group,
        class: usize,
        pointer: *mut u8,
        geometry: Geometry,
    ) -> Option<LiveSlot> {
        let distance = group.distance(pointer.addr());
        let index = geometry.index(narrow, distance);
        let stride = geometry.stride as usize;
        let offset = distance.wrapping_sub(index * stride);
        let cell = ptr::from_ref(group).expose_provenance();
        let (behind, most) = if narrow {
            // SAFETY: the group has a record for each number.
            let record = unsafe { read_byte::<RECORDS>(cell, index) } as u32;
            (narrow_behind(record, offset), NARROW_TAIL)
        } else {
            // SAFETY: the group has a record for each number.
            let record = unsafe { read_pair::<RECORDS>(cell, index) } as u32;
            (wide_behind(stride, record, offset), WIDE_TAIL)
        };
        if behind >= most as u32 {
            return None;
        }
        Some(LiveSlot(Live {
            group,
            index,
            class,
            stride,
            block: pointer,
            start: pointer.wrapping_sub(offset),
            offset,
            less: behind as usize,
        }))
    }

    /// `find` in a group of any size class.
    #[inline(never)]
    pub fn find_any(group: &'static Group, pointer: *mut u8) -> Option<LiveSlot> {
        let class = group.class();
        let geometry = Geometry::of(class);
        LiveSlot::find(group.is_narrow(), group, class, pointer, geometry)
    }

    /// The block's first byte.
    pub fn block(&self) -> *mut u8 {
        self.block
    }

    /// Bytes behind the block.
    pub fn tail(&self) -> usize {
        self.less + 1
    }

    /// Bytes of the block.
    pub fn length(&self) -> usize {
        self.room() - self.tail()
    }

    /// Bytes from the block's first to the slot's last.
    pub fn room(&self) -> usize {
        self.stride - self.offset
    }

    /// The slot's bit in the group's masks.
    pub fn bit(&self) -> u32 {
        1 << self.index
    }

    /// Where the block lies in the slot.
    pub fn place(&self) -> Place {
        Place {
            offset: self.offset,
            tail: self.tail(),
        }
    }

    /// The slot's guard, in presets that have guards.
    pub fn guard(&self, secrets: &Secrets) -> Guard {
        Guard::new(self.start, self.stride, secrets.guard(self.start.addr()))
    }

    /// Err unless both canaries of the tail, or all of the guard, stand.
    #[inline(always)]
    pub fn check_tail(&self, secrets: &Secrets) -> Result<(), Found> {
        if PRESET.has_guards() {
            let checked = self.guard(secrets).check(self.place());
            return checked.map_err(|at| Found(Fault::Overflow, at));
        }
        let canary = secrets.class_canary(self.class);
        let slot = self.held(self.class < FIRST_WIDE);
        slot.check_tail(self.stride, self.tail(), canary)
    }

    /// Whether the canary before a block of a wide class stands, if there is room for one.
    #[inline(always)]
    pub fn has_front(&self, canary: u8) -> bool {
        self.offset == 0 || self.held(false).read(self.offset - 1) == canary
    }

    /// What will stand in the reuse queue for the slot, whose block the caller frees.
    pub fn entry(&self, narrow: bool) -> Entry {
        self.held(narrow).entry()
    }

    /// The slot as its holder's: the block is the caller's, to free it or to move its end.
    #[inline(always)]
    pub fn held(&self, narrow: bool) -> FreeSlot {
        // SAFETY: `find` got index and start by the group's geometry, and with the block the slot
        // is the caller's: nobody else writes memory or record of a live block's slot.
        unsafe { FreeSlot::of(narrow, self.group, self.index, self.start) }
    }

    /// The part of the slot from the block on, of `room` bytes, as its holder's.
    #[inline(always)]
    pub fn behind(&self, narrow: bool) -> FreeSlot {
        FreeSlot {
            start: self.block(),
            ..self.held(narrow)
        }
    }

    /// The slot without its block, which the caller frees: the record tells of none from here on.
    #[inline(always)]
    pub fn free(&self, narrow: bool) -> FreeSlot {
        let slot = self.held(narrow);
        slot.set_freed(narrow, self.tail());
        slot
    }

    /// Marks the slot of a block that the caller frees as holding none, its tail as verified.
    #[inline(always)]
    pub fn clear_record(&self) {
        let narrow = self.class < FIRST_WIDE;
        self.held(narrow).set_used(narrow);
    }

    /// Clears the memory of a slot whose block dies, if the preset says so. With it all free memory
    /// is zero.
    pub fn clear_memory(&self) {
        if PRESET.zero_on_free {
            // SAFETY: the slot's stride bytes are mapped, and the program gave its block back.
            unsafe { self.start.write_bytes(0, self.stride) };
        }
    }
}

/// Whether these are the first and the last byte of a tail of `len` bytes, as a block's placing
/// left them: a NUL, and the canary of its class; of a tail of one byte the canary alone.
#[inline(always)]
pub fn is_tail(first: u8, last: u8, len: usize, canary: u8) -> bool {
    // Most tails are longer. The complement is at hand, as the tail's place was found by it.
    last == canary && (first == 0 || seldom(!(len - 1)) == usize::MAX)
}

/// A slot that is its holder's: just taken from a mask or a queue, or on its way into one, or that
/// of the holder's own block. It proves that the slot's memory and its group stay, and that nobody
/// else writes either.
#[derive(Clone, Copy)]
pub struct FreeSlot {
    /// The slot's first byte.
    pub start: *mut u8,
    /// Its record, of one byte or two, is so many bytes behind this one in its group's cell as the
    /// first record behind the cell's start.
    place: *mut u8,
}

impl FreeSlot {
    /// Slot `index` of a group, which starts at `start`. `narrow` tells the kind of the group's
    /// class, here and below.
    ///
    /// # Safety
    /// The group has a slot of that number there, and it is the caller's: it holds no block, or the
    /// caller's own, and stands in no mask or queue that somebody else takes from.
    #[inline(always)]
    pub unsafe fn of(narrow: bool, group: &'static Group, index: usize, start: *mut u8) -> Self {
        let cell = ptr::from_ref(group).cast::<u8>().cast_mut();
        FreeSlot {
            start,
            place: cell.wrapping_add(index << !narrow as u32),
        }
    }

    /// The record, if the slot's class is narrow.
    pub fn narrow(self) -> &'static AtomicU8 {
        // SAFETY: `of` made the pointer to where `Group::narrow` has the record.
        unsafe { &*self.place.add(RECORDS).cast() }
    }

    /// The record, if the slot's class is wide.
    pub fn wide(self) -> &'static AtomicU16 {
        // SAFETY: `of` made the pointer to where `Group::wide` has the record, at an even offset.
        unsafe { &*self.place.add(RECORDS).cast() }
    }

    /// Notes the tail of a slot whose block dies. Relaxed: only the thread that frees the live
    /// block writes its record; the masks order this write before any reuse.
    #[inline(always)]
    pub fn set_freed(self, narrow: bool, tail: usize) {
        if narrow {
            self.narrow().store(tail as u8 - 1, Relaxed);
        } else {
            self.wide().store(tail as u16, Relaxed);
        }
    }

    /// Bytes of the tail that the slot's last block had, by the record of a slot in a reuse queue.
    #[inline(always)]
    pub fn tail(self, narrow: bool) -> usize {
        // SAFETY: plain reads, as the holder alone writes the record. The tail is all of it.
        unsafe {
            if narrow {
                self.narrow().as_ptr().read() as usize + 1
            } else {
                self.wide().as_ptr().read() as usize
            }
        }
    }

    /// The mark of a slot in a mask. Relaxed, here and below: records of slots that hold no block
    /// are written by whoever has the slot in hand.
    #[inline(always)]
    pub fn mark(self, narrow: bool) -> u8 {
        if narrow {
            self.narrow().load(Relaxed)
        } else {
            self.wide().load(Relaxed) as u8
        }
    }

    /// Notes that a canary stands in the slot's last byte, as it goes to a mask.
    #[inline(always)]
    pub fn set_used(self, narrow: bool) {
        if narrow {
            self.narrow().store(USED, Relaxed);
        } else {
            self.wide().store(USED.into(), Relaxed);
        }
    }

    /// The group.
    pub fn group(self) -> &'static Group {
        let cell = self.place.map_addr(|at| at & !(size_of::<Group>() - 1));
        // SAFETY: the place lies in the group's cell, which is aligned to its size.
        unsafe { &*cell.cast::<Group>() }
    }

    /// The slot's number.
    #[inline(always)]
    pub fn index(self, narrow: bool) -> usize {
        // Records fill the second half of the cell, places the first.
        if narrow {
            self.place.addr() % NARROW_SLOTS
        } else {
            self.place.addr() / 2 % WIDE_SLOTS
        }
    }

    /// The byte at `offset` below the stride. A plain read: what a racing overflow leaves is
    /// compared once and trusted for nothing.
    pub fn read(self, offset: usize) -> u8 {
        // SAFETY: the slot's memory is the holder's.
        unsafe { self.start.add(offset).read() }
    }

    /// Err unless both ends of a tail of `len` bytes are as a block's placing left them in the slot
    /// of `stride` bytes, of a class with this canary.
    #[inline(always)]
    pub fn check_tail(self, stride: usize, len: usize, canary: u8) -> Result<(), Found> {
        let end = stride - len;
        if is_tail(self.read(end), self.read(stride - 1), len, canary) {
            return Ok(());
        }
        Err(Found(Fault::Overflow, self.start.addr() + end))
    }

    /// Writes the byte at `offset`, below the stride.
    pub fn write(self, offset: usize, byte: u8) {
        // SAFETY: the slot's memory is the holder's.
        unsafe { self.start.add(offset).write(byte) }
    }

    /// Writes the slot's guard around a block at `place`, given the slot's bytes.
    pub fn write_guard(self, secrets: &Secrets, stride: usize, place: Place) {
        let guard = Guard::new(self.start, stride, secrets.guard(self.start.addr()));
        // SAFETY: the slot's memory is the holder's.
        unsafe { guard.write(place) }
    }

    /// If the preset clears freed memory: Err if the slot's `stride` bytes are no longer clear.
    #[inline(always)]
    pub fn check_clear(self, stride: usize) -> Result<(), Found> {
        if !PRESET.zero_on_free {
            return Ok(());
        }
        for unit in 0..stride / UNIT {
            let at = self.start.cast::<[u64; 2]>().wrapping_add(unit);
            // SAFETY: the slot's memory is the holder's, whole units. Volatile: the writer we look
            // for may be racing.
            let [low, high] = unsafe { at.read_volatile() };
            if low | high != 0 {
                if was_found() {
                    // There may be more of it than was reported: a handler's malloc goes on.
                    (0..stride).for_each(|offset| self.write(offset, 0));
                    break;
                }
                let word = if low == 0 { 8 } else { 0 };
                return Err(Found(Fault::WriteAfterFree, at.addr() + word));
            }
        }
        Ok(())
    }

    /// The slot as it stands in a queue.
    pub fn entry(self) -> Entry {
        Entry {
            start: self.start,
            place: (self.place.addr() as u32).wrapping_sub(self.start.addr() as u32),
        }
    }
}

/// A free slot in a queue: its first byte, and where its record lies, in the same chunk. The queue
/// is its holder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The slot's first byte.
    pub start: *mut u8,
    /// Bytes from there to its place in its group's cell, back or forth, see `FreeSlot`.
    pub place: u32,
}

impl Entry {
    /// Where its fields are: start, place; and its size.
    pub const FIELDS: [usize; 3] = places!(Entry: start, place; size_of::<Entry>());

    /// An unused place.
    pub const NONE: Entry = Entry {
        start: ptr::null_mut(),
        place: 0,
    };

    /// The slot. The entry is not `NONE`.
    #[inline(always)]
    pub fn slot(self) -> FreeSlot {
        // By the exposed address: the compiler then needs one instruction, not an offset.
        let place =
            (self.start.expose_provenance()).wrapping_add_signed(self.place as i32 as isize);
        FreeSlot {
            start: self.start,
            place: ptr::with_exposed_provenance_mut(place),
        }
    }

    /// Whether it is one of the slots `bits` of the group, which is of `class`.
    pub fn is_of(self, group: &Group, class: usize, bits: u32) -> bool {
        // Most entries of another group differ here already.
        let cell = ptr::from_ref(group).addr() as u32;
        (self.place.wrapping_add(self.start.addr() as u32) ^ cell) < size_of::<Group>() as u32
            && self != Entry::NONE
            && ptr::eq(self.slot().group(), group)
            && bits & 1 << self.slot().index(class < FIRST_WIDE) != 0
    }
}

/// Bytes from a group's cell to its records.
const RECORDS: usize = NARROW_SLOTS;

const _: () = {
    assert!(2 * WIDE_SLOTS == NARROW_SLOTS);
    assert!(size_of::<Group>() == 2 * RECORDS, "see `index`");
};
