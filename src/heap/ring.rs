//! Freed slots of a class in the order of their freeing: what malloc takes from, and what free
//! gives to.
//!
//! The ring stands before the groups' masks. A freed slot enters at the tail and is handed out
//! again from the head, after all that were freed before it; when the ring is full its older half
//! goes to the masks, when it runs low it takes some from there. So a program that replaces blocks
//! all over a large heap hardly ever touches the masks: without the ring two of three mallocs
//! would have to find another group, as most groups have one or two free slots only.
//!
//! The end of a freed slot is verified when the slot leaves the ring, either way: the line was
//! asked for when the slot entered, and has come in the meantime. **No slot is reused, and no
//! group released, before its ends are verified.**

use crate::chunk::Chunk;
use crate::config::{CHUNK, CLASSES, KEEP_CLASS, PRESET, RING, UNIT};
use crate::fault::{stop, Fault};
use crate::heap::{Class, Heap};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::Process;
use crate::size_class::stride;
use crate::slot::{narrow_end, narrow_freed, wide_end, wide_freed, FIRST_WIDE};
use crate::sync::{AtomicU16, AtomicU8, Ordering};
use core::mem::offset_of;

/// Bytes of slots that a ring of a wide class may hold.
const WIDE_BYTES: usize = 16 << 10;

/// Slots that the ring of `class` holds at most.
#[inline(always)]
pub const fn capacity(class: usize) -> u32 {
    CAPACITY[class] as u32
}

static CAPACITY: [u8; CLASSES] = {
    let mut table = [RING as u8; CLASSES];
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

/// Slots that go between ring and masks at a time.
pub const fn batch(class: usize) -> u32 {
    capacity(class) / 2
}

/// A freed slot: its first byte, with marks in the bits that the alignment leaves, and where its
/// record lies in the slot's chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    marked: *mut u8,
    record: u32,
}

/// The slot's end is still to be verified.
pub const UNCHECKED: usize = 1;
/// The slot was never used since its pages were zero.
pub const ZERO: usize = 2;
const MARKS: usize = UNCHECKED | ZERO;

impl Entry {
    /// An unused place.
    pub const NONE: Entry = Entry {
        marked: core::ptr::null_mut(),
        record: 0,
    };

    /// The slot that starts at `start`, with its record at `record`.
    #[inline(always)]
    pub fn new<T>(start: *mut u8, record: *const T, marks: usize) -> Self {
        Entry {
            marked: start.wrapping_add(marks),
            record: (record.addr() & (CHUNK - 1)) as u32,
        }
    }

    /// Slot `index` of the group of `class`, which starts at `start`.
    #[inline(always)]
    pub fn of(meta: *mut Meta, class: usize, index: usize, start: *mut u8, marks: usize) -> Self {
        let wide = class >= FIRST_WIDE;
        let record = offset_of!(Meta, records) + (index << wide as u32);
        Entry::new(start, meta.cast::<u8>().wrapping_add(record), marks)
    }

    /// First byte of the slot.
    #[inline(always)]
    pub fn start(self) -> *mut u8 {
        self.marked.wrapping_sub(self.marked.addr() & MARKS)
    }

    /// Whether it has the mark.
    #[inline(always)]
    pub fn has(self, mark: usize) -> bool {
        self.marked.addr() & mark != 0
    }

    /// The group.
    #[inline(always)]
    pub fn meta(self) -> *mut Meta {
        let cell = self.record as usize & !(size_of::<Meta>() - 1);
        Chunk::around(self.marked)
            .cast::<u8>()
            .wrapping_add(cell)
            .cast()
    }

    /// The slot's number.
    #[inline(always)]
    pub fn index(self, class: usize) -> usize {
        let byte = self.record as usize % size_of::<Meta>() - offset_of!(Meta, records);
        if class < FIRST_WIDE {
            byte
        } else {
            byte / 2
        }
    }

    /// The slot's record, if its class is narrow.
    ///
    /// # Safety
    /// The slot's group lives, as it does while the slot is in a ring.
    #[inline(always)]
    pub unsafe fn narrow<'a>(self) -> &'a AtomicU8 {
        let chunk = Chunk::around(self.marked).cast::<u8>();
        // SAFETY: by contract; `record` is where `Meta::records.narrow` has it.
        unsafe { &*chunk.add(self.record as usize).cast() }
    }

    /// The slot's record, if its class is wide.
    ///
    /// # Safety
    /// As `narrow`.
    #[inline(always)]
    pub unsafe fn wide<'a>(self) -> &'a AtomicU16 {
        let chunk = Chunk::around(self.marked).cast::<u8>();
        // SAFETY: as above; wide records lie at even offsets.
        unsafe { &*chunk.add(self.record as usize).cast() }
    }

    /// Bytes of the end that the slot's last block had. Relaxed: only the owner writes records of
    /// slots that hold no block.
    ///
    /// # Safety
    /// As `narrow`.
    pub unsafe fn end(self, class: usize) -> usize {
        // SAFETY: by contract.
        unsafe {
            if class < FIRST_WIDE {
                narrow_end(self.narrow().load(Ordering::Relaxed))
            } else {
                wide_end(self.wide().load(Ordering::Relaxed)).max(1)
            }
        }
    }

    /// Whether it is one of the slots `bits` of the group.
    pub fn is_of(self, meta: *mut Meta, class: usize, bits: u32) -> bool {
        self != Entry::NONE && self.meta() == meta && bits & 1 << self.index(class) != 0
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

    /// Adds a slot; the ring is not full.
    #[inline(always)]
    pub fn give(&mut self, entry: Entry) {
        let place = self.tail as usize % RING;
        self.ring[place] = entry.marked;
        self.records[place] = entry.record;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the oldest slot; the ring is not empty.
    #[inline(always)]
    pub fn take(&mut self) -> Entry {
        let entry = self.at(self.head);
        self.head = self.head.wrapping_add(1);
        entry
    }

    /// What lies at a position.
    #[inline(always)]
    fn at(&self, position: u32) -> Entry {
        let place = position as usize % RING;
        Entry {
            marked: self.ring[place],
            record: self.records[place],
        }
    }

    /// Whether the class holds so much that its groups should go with the last live block.
    #[inline(always)]
    pub fn holds_much(&self, class: usize) -> bool {
        self.slots > 1 && self.slots as usize * stride(class) > KEEP_CLASS
    }

    /// Sets the limit of the ring, after `out` or `slots` changed. Slots in a ring keep their
    /// groups alive, up to 16 of 128 KiB, and a program that has freed all it had comes by no
    /// slow path any more: so where the class holds much, the free of its last live block is to
    /// take one.
    #[inline(always)]
    pub fn limit(&mut self, class: usize) {
        let most = capacity(class);
        self.high = if self.holds_much(class) {
            most.min(self.out.saturating_sub(1)) as u8
        } else {
            most as u8
        };
    }

    /// The slots in the ring, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.ready()).map(|i| self.at(self.head.wrapping_add(i)))
    }

    /// Whether the slot taken last is the one at `start` and was never used since its pages were
    /// zero.
    pub fn took_zero(&self, start: *mut u8) -> bool {
        let last = self.at(self.head.wrapping_sub(1));
        last.has(ZERO) && last.start() == start
    }
}

impl<P: Platform> Process<P> {
    /// Verifies the end of a slot that leaves its ring, if that is still to be done.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot.
    #[inline(always)]
    pub(crate) unsafe fn check_entry(&self, class: usize, entry: Entry) {
        if PRESET.check_at_free || !entry.has(UNCHECKED) {
            return;
        }
        // SAFETY: a slot in a ring keeps its group alive.
        unsafe {
            let len = entry.end(class);
            let end = entry.start().add(stride(class) - len);
            if !self.guards_stand(class, end, len) {
                stop(Fault::Overflow, end.addr());
            }
        }
    }

    /// Makes an entry of a slot that its owner frees; verifies its end at once if the preset says
    /// so. The slot's record tells of no block from here on.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot, whose block dies.
    #[inline(always)]
    pub(crate) unsafe fn retire_slot(&self, slot: &Slot) -> Entry {
        // SAFETY: by contract. Relaxed: only the thread that frees the live block writes its
        // record.
        unsafe {
            if PRESET.check_at_free {
                self.check_around(slot);
                slot.clear_record();
                self.clear_freed(slot);
                return Entry::of(slot.meta, slot.class, slot.index, slot.start, 0);
            }
            prefetch(slot.end_at());
            let records = &(*slot.meta).records;
            if slot.class < FIRST_WIDE {
                let record = records.narrow(slot.index);
                record.store(narrow_freed(slot.end as u8 - 1), Ordering::Relaxed);
                Entry::new(slot.start, record, UNCHECKED)
            } else {
                let record = records.wide(slot.index);
                record.store(wide_freed(slot.end as u16), Ordering::Relaxed);
                Entry::new(slot.start, record, UNCHECKED)
            }
        }
    }

    /// Moves the oldest `count` slots of a ring to the masks of their groups.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[inline(never)]
    pub(crate) unsafe fn spill(&self, heap: *mut Heap, class: usize, count: u32) {
        // SAFETY: by contract; slots in a ring keep their groups alive.
        unsafe {
            let state = Heap::class(heap, class);
            // Neighbours in the ring are often of one group.
            let (mut meta, mut bits) = (core::ptr::null_mut(), 0);
            for _ in 0..count.min((*state).ready()) {
                let entry = (*state).take();
                self.check_entry(class, entry);
                self.mark_spilled(class, entry);
                if entry.meta() != meta {
                    if bits != 0 {
                        self.put_back(heap, meta, bits);
                    }
                    (meta, bits) = (entry.meta(), 0);
                }
                bits |= 1 << entry.index(class);
            }
            if bits != 0 {
                self.put_back(heap, meta, bits);
            }
            // The masks have some: let the youngest in the ring wait a while.
            (*state).low = capacity(class) as u8 / 4;
        }
    }
}

impl<P: Platform> Process<P> {
    /// Writes the record of a slot that goes from its ring to its group's mask. The default preset
    /// relies on it that a guard stands in the last byte of each slot with that record.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot.
    #[inline(always)]
    unsafe fn mark_spilled(&self, class: usize, entry: Entry) {
        let bare = !PRESET.check_at_free && !entry.has(UNCHECKED);
        // SAFETY: by contract. Relaxed: see `Entry::end`.
        unsafe {
            if class < FIRST_WIDE {
                entry.narrow().store(0, Ordering::Relaxed);
            } else {
                entry.wide().store(0, Ordering::Relaxed);
            }
            if bare {
                let last = entry.start().add(stride(class) - 1);
                last.write(self.guard(class, last.addr()));
            }
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
    assert!(UNIT > MARKS, "marks beside a slot's address");
};
