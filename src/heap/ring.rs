//! Freed slots of a class in the order of their freeing: what malloc takes from, and what free
//! gives to.
//!
//! The ring stands before the groups' masks. A freed slot enters at the tail and is handed out
//! again from the head, after all that were freed before it; when the ring is full a slot goes to
//! its group's mask, when it runs low malloc takes from a mask. So a program that replaces
//! blocks all over a large heap hardly ever touches the masks: without the ring two of three
//! mallocs would have to find another group, as most groups have one or two free slots only.
//!
//! The end of a freed slot is verified when the slot leaves the ring, either way: the line was
//! asked for when the slot entered, and has come in the meantime. **No slot is reused, and no
//! group released, before its ends are verified.**

use crate::chunk::Chunk;
use crate::config::{CHUNK, CLASSES, KEEP_CLASS, PRESET, RING};
use crate::fault::{raise, Fault, Found};
use crate::heap::{Class, Heap};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::Process;
use crate::size_class::{stride, TABLE};
use crate::slot::{narrow_freed, wide_end, wide_freed, FIRST_WIDE, NARROW_SLOTS, USED, WIDE_SLOTS};
use crate::sync::{AtomicU16, AtomicU8, Ordering};
use core::mem::offset_of;

/// Bytes of slots that a ring of a wide class may hold.
const WIDE_BYTES: usize = 16 << 10;

/// Slots that the ring of `class` holds at most.
#[inline(always)]
pub const fn capacity(class: usize) -> u32 {
    CAPACITY[class % TABLE] as u32
}

static CAPACITY: [u8; TABLE] = {
    let mut table = [RING as u8; TABLE];
    let mut class = FIRST_WIDE;
    while class < CLASSES {
        let count = WIDE_BYTES / stride(class);
        if count < 2 {
            table[class] = 2;
        } else if count < RING {
            table[class] = count as u8;
        }
        class += 1;
    }
    table
};

/// A slot that malloc takes: its first byte and its record.
#[derive(Clone, Copy)]
pub struct Vacancy {
    /// The slot's first byte.
    pub start: *mut u8,
    /// Its record, of one byte or two.
    pub record: *mut u8,
}

impl Vacancy {
    /// Slot `index` of a group, which starts at `start`.
    #[inline(always)]
    pub fn of<const NARROW: bool>(meta: *mut Meta, index: usize, start: *mut u8) -> Self {
        let offset = offset_of!(Meta, records) + (index << !NARROW as u32);
        Vacancy {
            start,
            record: meta.cast::<u8>().wrapping_add(offset),
        }
    }

    /// The record, if the slot's class is narrow.
    ///
    /// # Safety
    /// The slot's group lives, as it does while the slot is in a ring or with the caller.
    #[inline(always)]
    pub unsafe fn narrow<'a>(self) -> &'a AtomicU8 {
        // SAFETY: by contract; it is where `Records::narrow` has it.
        unsafe { &*self.record.cast() }
    }

    /// The record, if the slot's class is wide.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn wide<'a>(self) -> &'a AtomicU16 {
        // SAFETY: as above; wide records lie at even offsets.
        unsafe { &*self.record.cast() }
    }

    /// Bytes of the end that the slot's last block had, by the record of a slot in a ring. Relaxed:
    /// only the owner writes records of slots that hold no block.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn end<const NARROW: bool>(self) -> usize {
        // SAFETY: by contract.
        unsafe {
            if NARROW {
                // The end is all of a freed slot's record.
                self.narrow().load(Ordering::Relaxed) as usize + 1
            } else {
                wide_end(self.wide().load(Ordering::Relaxed))
            }
        }
    }

    /// The mark of a slot in a mask.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn mark<const NARROW: bool>(self) -> u8 {
        // SAFETY: by contract. Relaxed: see `end`.
        unsafe {
            if NARROW {
                self.narrow().load(Ordering::Relaxed)
            } else {
                self.wide().load(Ordering::Relaxed) as u8
            }
        }
    }

    /// Notes the end of a slot whose block dies.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn set_freed<const NARROW: bool>(self, end: usize) {
        // SAFETY: by contract. Relaxed: only the thread that frees the live block writes its record.
        unsafe {
            if NARROW {
                self.narrow()
                    .store(narrow_freed(end as u8 - 1), Ordering::Relaxed);
            } else {
                self.wide().store(wide_freed(end as u16), Ordering::Relaxed);
            }
        }
    }

    /// Notes that a guard stands in the slot's last byte, as it goes to a mask.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn set_used<const NARROW: bool>(self) {
        // SAFETY: by contract. Relaxed: see `end`.
        unsafe {
            if NARROW {
                self.narrow().store(USED, Ordering::Relaxed);
            } else {
                self.wide().store(USED.into(), Ordering::Relaxed);
            }
        }
    }

    /// The group.
    #[inline(always)]
    pub fn meta(self) -> *mut Meta {
        self.record
            .map_addr(|at| at & !(size_of::<Meta>() - 1))
            .cast()
    }

    /// The slot's number.
    #[inline(always)]
    pub fn index_in<const NARROW: bool>(self) -> usize {
        // Records fill the second half of the cell.
        if NARROW {
            self.record.addr() % NARROW_SLOTS
        } else {
            self.record.addr() / 2 % WIDE_SLOTS
        }
    }

    /// The same for a slot of `class`.
    #[inline(always)]
    pub fn index(self, class: usize) -> usize {
        if class < FIRST_WIDE {
            self.index_in::<true>()
        } else {
            self.index_in::<false>()
        }
    }

    /// As it stands in a ring.
    #[inline(always)]
    pub fn entry(self) -> Entry {
        Entry::new(self.start, self.record)
    }
}

/// A free slot in a ring: its first byte, and where its record lies in its chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    start: *mut u8,
    record: u32,
}

impl Entry {
    /// An unused place.
    pub const NONE: Entry = Entry {
        start: core::ptr::null_mut(),
        record: 0,
    };

    /// The slot that starts at `start`, with its record at `record`.
    #[inline(always)]
    pub fn new<T>(start: *mut u8, record: *const T) -> Self {
        Entry {
            start,
            record: (record.addr() & (CHUNK - 1)) as u32,
        }
    }

    /// The slot. Of an entry that is not `NONE`.
    #[inline(always)]
    pub fn slot(self) -> Vacancy {
        let chunk = Chunk::around(self.start).cast::<u8>();
        Vacancy {
            start: self.start,
            record: chunk.wrapping_add(self.record as usize),
        }
    }

    /// Whether it is one of the slots `bits` of the group.
    pub fn is_of(self, meta: *mut Meta, class: usize, bits: u32) -> bool {
        // Most entries of another group differ here already.
        let cell = (meta.addr() & (CHUNK - 1)) as u32;
        (self.record ^ cell) < size_of::<Meta>() as u32
            && self != Entry::NONE
            && self.slot().meta() == meta
            && bits & 1 << self.slot().index(class) != 0
    }
}

impl Class {
    /// Slots in the ring.
    #[inline(always)]
    pub fn ready(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Whether malloc may take one: there are more than it leaves.
    #[inline(always)]
    pub fn has_ready(&self) -> bool {
        self.ready() > self.low as u32
    }

    /// Whether malloc finds a slot at hand.
    #[inline(always)]
    pub fn has_slot(&self) -> bool {
        self.has_ready() || self.avail != 0
    }

    /// Whether no slot entered the ring since all in it were verified. (After 65,536 slots that came
    /// and went in between, one time in 4096 some are taken for verified; they are verified when they
    /// leave the ring.)
    #[inline(always)]
    pub fn is_verified(&self) -> bool {
        self.tail as u16 == self.verified
    }

    /// Adds a slot; the ring is not full.
    #[inline(always)]
    pub fn give(&mut self, entry: Entry) {
        let place = self.tail as usize % RING;
        self.ring[place] = entry.start;
        self.records[place] = entry.record;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the oldest slot; the ring is not empty.
    #[inline(always)]
    pub fn take(&mut self) -> Vacancy {
        let entry = self.at(self.head);
        self.head = self.head.wrapping_add(1);
        entry.slot()
    }

    /// What lies at a position.
    #[inline(always)]
    fn at(&self, position: u32) -> Entry {
        let place = position as usize % RING;
        Entry {
            start: self.ring[place],
            record: self.records[place],
        }
    }

    /// Notes that the class has so many slots.
    pub fn count(&mut self, class: usize, slots: u32) {
        self.much = slots > 1 && slots as usize * stride(class) > KEEP_CLASS;
        self.limit(class);
    }

    /// Sets the limit of the ring, after `out` fell or `much` changed (after `out` rose it is only
    /// lower than need be). Slots in a ring keep their groups alive, up to 16 of 128 KiB, and a
    /// program that has freed all it had comes by no slow path any more: so where the class holds
    /// much, the free of its last live block is to take one.
    #[inline(always)]
    pub fn limit(&mut self, class: usize) {
        let most = capacity(class);
        self.high = if self.much {
            most.min(self.out.saturating_sub(1)) as u8
        } else {
            most as u8
        };
    }

    /// Takes out what lies at a position.
    #[inline(never)]
    fn remove(&mut self, position: u32) {
        let (place, oldest) = (position as usize % RING, self.head as usize % RING);
        self.ring[place] = self.ring[oldest];
        self.records[place] = self.records[oldest];
        self.head = self.head.wrapping_add(1);
    }

    /// The slots in the ring, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.ready()).map(|i| self.at(self.head.wrapping_add(i)))
    }
}

impl<P: Platform> Process<P> {
    /// Verifies the end of a slot in a ring, if that is still to be done.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, whose ring has the slot, or just had.
    #[inline(always)]
    unsafe fn check_freed<const NARROW: bool>(
        &self,
        state: *mut Class,
        class: usize,
        slot: Vacancy,
    ) -> Result<(), Found> {
        if PRESET.check_at_free {
            return Ok(());
        }
        // SAFETY: a slot in a ring keeps its group alive.
        unsafe { self.check_end_of(state, class, slot.start, slot.end::<NARROW>()) }
    }

    /// Verifies the end, of `len` bytes, of a slot of `class` that starts at `start`.
    ///
    /// # Safety
    /// The slot's memory is mapped; `state` is the class of the heap that owns it.
    #[inline(always)]
    pub(crate) unsafe fn check_end_of(
        &self,
        state: *mut Class,
        class: usize,
        start: *mut u8,
        len: usize,
    ) -> Result<(), Found> {
        // SAFETY: by contract.
        unsafe {
            let limit = start.add((*state).stride as usize);
            let (end, last) = (limit.sub(len), limit.sub(1));
            // Volatile: see `guards_stand`.
            let guard = |at: *mut u8| self.guard_of(class, (*state).guard, at.addr());
            if end.read_volatile() != guard(end) || last.read_volatile() != guard(last) {
                return Err(Found(Fault::Overflow, end.addr()));
            }
            Ok(())
        }
    }

    /// Verifies the ends of all slots in a ring.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, or it is the empty one.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn check_ring(&self, state: *mut Class, class: usize) {
        if PRESET.check_at_free {
            return;
        }
        // SAFETY: by contract.
        unsafe {
            let (tail, verified) = ((*state).tail, (*state).verified);
            let entered = (tail as u16).wrapping_sub(verified);
            (*state).verified = tail as u16;
            let mut position = tail.wrapping_sub((*state).ready().min(entered.into()));
            while position != tail {
                let slot = (*state).at(position).slot();
                let checked = if class < FIRST_WIDE {
                    self.check_freed::<true>(state, class, slot)
                } else {
                    self.check_freed::<false>(state, class, slot)
                };
                if checked.is_err() {
                    // A handler's malloc is not to come upon it.
                    (*state).remove(position);
                }
                raise(checked);
                position = position.wrapping_add(1);
            }
        }
    }

    /// Puts a slot that its owner frees into its class's ring, which is not full. The slot's record
    /// tells of no block from here on.
    ///
    /// # Safety
    /// The caller may work on the heap of `state` that owns the slot, whose block dies.
    #[inline(always)]
    pub(crate) unsafe fn give_slot<const NARROW: bool>(&self, state: *mut Class, slot: &Slot) {
        // SAFETY: by contract.
        unsafe {
            let vacancy = Vacancy::of::<NARROW>(slot.meta, slot.index, slot.start);
            (*state).give(vacancy.entry());
            // Its first guard mostly lies in the same line.
            prefetch(slot.start.add(slot.stride - 1));
            vacancy.set_freed::<NARROW>(slot.end);
        }
    }

    /// Moves all slots of a ring to the masks of their groups.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[inline(never)]
    pub(crate) unsafe fn spill(&self, heap: *mut Heap, class: usize) {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            while (*state).ready() > 0 {
                let slot = (*state).take();
                self.spill_slot(heap, class, slot, false);
            }
        }
    }

    /// Moves a slot that was just taken out of a ring to the mask of its group. The default preset
    /// relies on it that a guard stands in the last byte of a slot with the record `USED`.
    ///
    /// # Safety
    /// The caller may work on the heap; `away`: see `put_back`.
    #[inline(never)]
    pub(crate) unsafe fn spill_slot(
        &self,
        heap: *mut Heap,
        class: usize,
        slot: Vacancy,
        away: bool,
    ) {
        // SAFETY: by contract; slots in a ring keep their groups alive.
        unsafe {
            let state = Heap::class(heap, class);
            if class < FIRST_WIDE {
                raise(self.check_freed::<true>(state, class, slot));
                slot.set_used::<true>();
            } else {
                raise(self.check_freed::<false>(state, class, slot));
                slot.set_used::<false>();
            }
            self.put_back(heap, class, slot.meta(), 1 << slot.index(class), 1, away);
        }
    }
}

/// Asks for the line at `at`.
#[inline(always)]
pub fn prefetch(at: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches; SSE is part of x86_64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast::<i8>());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

const _: () = {
    assert!(RING.is_power_of_two(), "positions wrap around");
    assert!(offset_of!(Meta, records) == NARROW_SLOTS && 2 * WIDE_SLOTS == NARROW_SLOTS);
    assert!(size_of::<Meta>() == 2 * NARROW_SLOTS, "see `index_in`");
};
