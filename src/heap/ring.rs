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

use crate::config::{KEEP_CLASS, PRESET, RING};
use crate::fault::{stop, Fault};
use crate::heap::{Class, Heap};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::Process;
use crate::size_class::stride;
use crate::slot::{narrow_end, narrow_freed, wide_freed, FIRST_WIDE};
use crate::sync::Ordering;

/// Bytes of slots that a ring of a wide class may hold.
const WIDE_BYTES: usize = 16 << 10;

/// Slots that the ring of `class` holds at most.
#[inline(always)]
pub const fn capacity(class: usize) -> u32 {
    if class < FIRST_WIDE {
        return RING as u32;
    }
    let count = WIDE_BYTES / stride(class);
    if count < 2 {
        2
    } else if count > RING {
        RING as u32
    } else {
        count as u32
    }
}

/// Slots that go between ring and masks at a time.
pub const fn batch(class: usize) -> u32 {
    capacity(class) / 2
}

/// A freed slot in a ring: its group's address, its number in the lowest five bits, and one bit
/// that says that its end is still to be verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(*mut Meta);

impl Entry {
    const UNCHECKED: usize = 32;

    /// An unused place.
    pub const NONE: Entry = Entry(core::ptr::null_mut());

    /// Slot `index` of the group.
    #[inline(always)]
    pub fn new(meta: *mut Meta, index: usize, unchecked: bool) -> Self {
        let bits = index | if unchecked { Entry::UNCHECKED } else { 0 };
        Entry(core::ptr::with_exposed_provenance_mut(
            meta.expose_provenance() | bits,
        ))
    }

    /// The group.
    #[inline(always)]
    pub fn meta(self) -> *mut Meta {
        // By the exposed address, see `Chunk::around`.
        let address = self.0.expose_provenance() & !(align_of::<Meta>() - 1);
        core::ptr::with_exposed_provenance_mut(address)
    }

    /// The slot's number.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0.addr() & 31
    }

    /// Whether it is one of the slots `bits` of the group.
    #[inline(always)]
    pub fn is_of(self, meta: *mut Meta, bits: u32) -> bool {
        self.meta() == meta && bits & 1 << self.index() != 0
    }

    /// Whether the slot's end is still to be verified.
    #[inline(always)]
    pub fn unchecked(self) -> bool {
        self.0.addr() & Entry::UNCHECKED != 0
    }

    /// First byte of the slot.
    ///
    /// # Safety
    /// The group lives, in a chunk.
    #[inline(always)]
    pub unsafe fn start(self, stride: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { Meta::base_of(self.meta()).add(self.index() * stride) }
    }
}

impl Class {
    /// Slots in the ring.
    #[inline(always)]
    pub fn ready(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Adds a slot; the ring is not full.
    #[inline(always)]
    pub fn give(&mut self, entry: Entry) {
        self.ring[self.tail as usize % RING] = entry;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the oldest slot; the ring is not empty.
    #[inline(always)]
    pub fn take(&mut self) -> Entry {
        let entry = self.ring[self.head as usize % RING];
        self.head = self.head.wrapping_add(1);
        entry
    }

    /// Whether the class holds so much that its groups should go with the last live block.
    pub fn holds_much(&self, class: usize) -> bool {
        self.slots > 1 && self.slots as usize * stride(class) > KEEP_CLASS
    }

    /// Sets the limit of the ring, after `out` or `slots` changed. Slots in a ring keep their
    /// groups alive, up to 16 of 128 KiB, and a program that has freed all it had comes by no
    /// slow path any more: so where the class holds much, the free of its last live block is to
    /// take one.
    pub fn limit(&mut self, class: usize) {
        let most = capacity(class);
        self.high = if self.holds_much(class) {
            most.min(self.out.saturating_sub(1)) as u16
        } else {
            most as u16
        };
    }

    /// The slots in the ring, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.ready()).map(|i| self.ring[self.head.wrapping_add(i) as usize % RING])
    }

    /// Whether the slot taken last is this one and was never used since its pages were zero.
    pub fn took_zero(&self, meta: *mut Meta, index: usize) -> bool {
        let last = self.head.wrapping_sub(1);
        let since = last.wrapping_sub(self.zero_from);
        let entry = self.ring[last as usize % RING];
        since < self.zero_to.wrapping_sub(self.zero_from) && entry == Entry::new(meta, index, false)
    }
}

impl<P: Platform> Process<P> {
    /// Verifies the end of a slot that leaves its ring, if that is still to be done.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot.
    #[inline(always)]
    pub(crate) unsafe fn check_entry(&self, class: usize, stride: usize, entry: Entry) {
        if PRESET.check_at_free || !entry.unchecked() {
            return;
        }
        // SAFETY: a slot in a ring keeps its group alive. Relaxed: only the owner writes records
        // of slots that hold no block.
        unsafe {
            let records = &(*entry.meta()).records;
            let len = if class < FIRST_WIDE {
                narrow_end(records.narrow(entry.index()).load(Ordering::Relaxed))
            } else {
                records.wide(entry.index()).load(Ordering::Relaxed).max(1) as usize
            };
            let end = entry.start(stride).add(stride - len);
            if !self.guards_stand(class, end, len) {
                stop(Fault::Overflow, end.addr());
            }
        }
    }

    /// Puts a slot that its owner frees into the ring, or verifies its end at once if the preset
    /// says so. Its record tells of no block from here on.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot, whose block dies.
    #[inline(always)]
    pub(crate) unsafe fn retire_slot(&self, slot: &Slot) -> Entry {
        // SAFETY: by contract. Relaxed: only the thread that frees the live block writes its
        // record.
        unsafe {
            if PRESET.check_at_free {
                self.check_end(slot);
                slot.clear_record();
                self.clear_freed(slot);
                return Entry::new(slot.meta, slot.index, false);
            }
            prefetch(slot.end_at());
            let records = &(*slot.meta).records;
            if slot.class < FIRST_WIDE {
                let record = records.narrow(slot.index);
                record.store(narrow_freed(slot.end as u8 - 1), Ordering::Relaxed);
            } else {
                let record = records.wide(slot.index);
                record.store(wide_freed(slot.end as u16), Ordering::Relaxed);
            }
            Entry::new(slot.meta, slot.index, true)
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
            let state = &raw mut (*heap).classes[class];
            for _ in 0..count.min((*state).ready()) {
                let entry = (*state).take();
                self.check_entry(class, stride(class), entry);
                let records = &(*entry.meta()).records;
                if class < FIRST_WIDE {
                    records.narrow(entry.index()).store(0, Ordering::Relaxed);
                } else {
                    records.wide(entry.index()).store(0, Ordering::Relaxed);
                }
                self.put_back(heap, entry.meta(), 1 << entry.index());
            }
            // The masks have some: let the youngest in the ring wait a while.
            (*state).low = (capacity(class) / 4) as u16;
        }
    }
}

/// Asks for the line at `at`.
#[inline(always)]
fn prefetch(at: *mut u8) {
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
    assert!(align_of::<Meta>() >= 64, "six bits beside a meta's address");
};
