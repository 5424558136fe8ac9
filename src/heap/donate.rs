//! Memory that the dynamic linker has no use for: the ends of pages around libraries' data.
//!
//! Such a range becomes one group that is never released. It lies in no chunk, so a short table
//! leads from its addresses to its meta; only pointers that no chunk knows are looked up here.

use crate::config::{CLASSES, PRESET, UNIT};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::size_class::{stride, UNITS};
use crate::slot::max_slots;
use crate::sync::{AtomicUsize, Ordering};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// Ranges that are remembered.
const RANGES: usize = 16;
/// A shorter range is not worth a meta.
const LEAST: usize = 256;
/// Slots that a range should give at least.
const LEAST_SLOTS: usize = 4;

/// The groups made of donated ranges. Ranges are only ever added.
pub(crate) struct Donated {
    /// Entries in use; released after they are written.
    count: AtomicUsize,
    starts: UnsafeCell<[usize; RANGES]>,
    metas: UnsafeCell<MaybeUninit<[Meta; RANGES]>>,
}

impl Donated {
    /// None.
    pub const fn new() -> Self {
        Donated {
            count: AtomicUsize::new(0),
            starts: UnsafeCell::new([0; RANGES]),
            metas: UnsafeCell::new(MaybeUninit::zeroed()),
        }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        // Acquire: see `find`.
        self.count.load(Ordering::Acquire)
    }

    /// Meta number `index`.
    pub fn meta(&self, index: usize) -> *mut Meta {
        self.metas.get().cast::<Meta>().wrapping_add(index)
    }

    /// Whether `meta` is a donated group's.
    #[inline(always)]
    pub fn holds(&self, meta: *mut Meta) -> bool {
        meta.addr().wrapping_sub(self.meta(0).addr()) < RANGES * size_of::<Meta>()
    }

    /// First slot of the group of `meta`, which is a donated one.
    pub fn first_slot(&self, meta: *mut Meta) -> *mut u8 {
        let index = (meta.addr() - self.meta(0).addr()) / size_of::<Meta>();
        // SAFETY: written before the group was published.
        core::ptr::with_exposed_provenance_mut(unsafe { (*self.starts.get())[index] })
    }

    /// The slot of the live block that starts exactly at `pointer` in a donated range.
    pub fn find(&self, pointer: Untrusted) -> Option<Slot> {
        // The count was acquired: the entries below it are complete.
        for index in 0..self.len() {
            // SAFETY: entries below the count never change.
            let start = unsafe { (*self.starts.get())[index] };
            let meta = self.meta(index);
            // SAFETY: as above.
            let bytes = unsafe {
                (*meta).capacity as usize * stride((*meta).class as usize)
            };
            let distance = pointer.address().wrapping_sub(start);
            if distance < bytes {
                return pointer.find_in(meta, distance);
            }
        }
        None
    }
}

impl<P: Platform> Process<P> {
    /// Makes heap memory of [start, end).
    ///
    /// # Safety
    /// Nothing else uses the range any more, and it stays mapped and writable.
    pub unsafe fn donate(&self, start: *mut u8, end: *mut u8) {
        let heap = self.heap();
        let heap = if self.is_empty_heap(heap) { self.attach() } else { heap };
        if heap.is_null() {
            return;
        }
        let first = start.addr().next_multiple_of(UNIT);
        let Some(bytes) = end.addr().checked_sub(first) else { return };
        // The longest stride that still gives a few slots loses the least at the end. Of the
        // strides in units only odd ones: the range is aligned to a unit, and slots of other
        // strides serve aligned allocations.
        let class = (0..CLASSES / 2)
            .rev()
            .find(|&class| UNITS[class] % 2 == 1 && stride(class) * LEAST_SLOTS <= bytes);
        let (Some(class), true) = (class, bytes >= LEAST) else { return };
        let capacity = (bytes / stride(class)).min(max_slots(class));
        let _locked = self.lock();
        // Relaxed: writers hold the lock.
        let index = self.donated.count.load(Ordering::Relaxed);
        if index == RANGES {
            return;
        }
        // SAFETY: the entry is not yet published; the heap is the thread's own.
        unsafe {
            if PRESET.zero_on_free {
                start.with_addr(first).write_bytes(0, capacity * stride(class));
            }
            (*self.donated.starts.get())[index] = start.with_addr(first).expose_provenance();
            let meta = self.donated.meta(index);
            Meta::init(meta, 0, class as u8, capacity, (*heap).id, false);
            (*heap).classes[class].slots += capacity as u32;
            (*heap).classes[class].groups += 1;
            self.donated.count.store(index + 1, Ordering::Release);
            (*heap).classes[class].push(meta);
        }
    }

    /// First slot of a group.
    ///
    /// # Safety
    /// `meta` is the cell of a group with slots.
    #[inline(always)]
    pub(crate) unsafe fn first_slot(&self, meta: *mut Meta) -> *mut u8 {
        if self.donated.holds(meta) {
            return self.donated.first_slot(meta);
        }
        // SAFETY: by contract; its cell lies in its chunk.
        unsafe { Meta::base_of(meta) }
    }
}
