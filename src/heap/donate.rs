//! Memory that the dynamic linker has no use for: the ends of pages around libraries' data.
//!
//! Such a range becomes one group that is never released and belongs to no heap: its masks change
//! under the provider lock. It lies in no chunk, so a short table leads from its addresses to its
//! meta; only pointers that no chunk knows are looked up here. Each slot serves once, before the
//! heap makes a group of its class, and again when memory is out.

use crate::config::{PRESET, UNIT};
use crate::fault::{Fault, Found};
use crate::meta::{Meta, NOBODY};
use crate::pages::Platform;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::size_class::{stride, Geometry};
use crate::slot::{max_slots, narrow_offset, Place, FIRST_WIDE};
use crate::sync::{AtomicUsize, Ordering};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;

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

    /// First slot of group `index`.
    fn start(&self, index: usize) -> *mut u8 {
        // SAFETY: entries below the count never change.
        ptr::with_exposed_provenance_mut(unsafe { (*self.starts.get())[index] })
    }

    /// Whether `block` points into a donated range.
    pub fn covers(&self, block: *mut u8) -> bool {
        (0..self.len()).any(|index| {
            let distance = block.addr().wrapping_sub(self.start(index).addr());
            distance < self.bytes(index)
        })
    }

    /// Bytes of group `index`.
    fn bytes(&self, index: usize) -> usize {
        // SAFETY: class and capacity of entries below the count never change.
        unsafe {
            let meta = self.meta(index);
            (*meta).capacity() * stride((*meta).class as usize)
        }
    }

    /// The slot of the live block that starts exactly at `pointer` in a donated range.
    pub fn find(&self, pointer: Untrusted) -> Option<Slot> {
        // The count was acquired: the entries below it are complete.
        for index in 0..self.len() {
            let distance = pointer.address().wrapping_sub(self.start(index).addr());
            if distance < self.bytes(index) {
                // SAFETY: metas below the count are groups with slots.
                return unsafe {
                    let geometry = Geometry::of((*self.meta(index)).class as usize);
                    pointer.find_in(self.meta(index), distance, geometry)
                };
            }
        }
        None
    }
}

impl<P: Platform> Process<P> {
    /// First slot of any group, for inspection.
    ///
    /// # Safety
    /// `meta` is the cell of a group with slots.
    pub(crate) unsafe fn first_slot(&self, meta: *mut Meta) -> *mut u8 {
        match (0..self.donated.len()).find(|&index| self.donated.meta(index) == meta) {
            Some(index) => self.donated.start(index),
            // SAFETY: by contract; its cell lies in its chunk.
            None => unsafe { Meta::base_of(meta) },
        }
    }

    /// Makes heap memory of [start, end).
    ///
    /// # Safety
    /// Nothing else uses the range any more, and it stays mapped and writable.
    pub unsafe fn donate(&self, start: *mut u8, end: *mut u8) {
        let first = start.addr().next_multiple_of(UNIT);
        let Some(bytes) = end.addr().checked_sub(first) else {
            return;
        };
        // The longest stride that still gives a few slots loses the least at the end. Of the
        // strides in units only odd ones: the range is aligned to a unit, and slots of other
        // strides serve aligned allocations.
        let class = (0..FIRST_WIDE)
            .rev()
            .find(|&class| stride(class) / UNIT % 2 == 1 && stride(class) * LEAST_SLOTS <= bytes);
        let (Some(class), true) = (class, bytes >= LEAST) else {
            return;
        };
        let capacity = (bytes / stride(class)).min(max_slots(class));
        let _locked = self.lock();
        self.draw_secrets();
        let index = self.donated.len();
        if index == RANGES {
            return;
        }
        // SAFETY: the entry is not yet published; the range is ours.
        unsafe {
            if PRESET.zero_on_free {
                start
                    .with_addr(first)
                    .write_bytes(0, capacity * stride(class));
            }
            (*self.donated.starts.get())[index] = start.with_addr(first).expose_provenance();
            let meta = self.donated.meta(index);
            Meta::init(meta, 0, class as u8, capacity, NOBODY, false);
            self.donated.count.store(index + 1, Ordering::Release);
            // Release: who sees it finds the entry.
            self.has_donated.store(1, Ordering::Release);
        }
    }

    /// Whether there are donated slots.
    pub(crate) fn has_donated(&self) -> bool {
        // Acquire: see `donate`.
        self.has_donated.load(Ordering::Acquire) != 0
    }

    /// A block of `n` bytes in a donated slot of `class`: one never used so far, or any when
    /// `reuse` says so (they are slower to free than a heap's own). Null when there is none.
    pub(crate) fn donated_alloc(&self, class: usize, n: usize, reuse: bool) -> *mut u8 {
        if !self.has_donated() {
            return ptr::null_mut();
        }
        self.locked(|_| {
            for index in 0..self.donated.len() {
                let meta = self.donated.meta(index);
                // SAFETY: masks of donated groups belong to the lock's holder.
                unsafe {
                    if (*meta).class as usize != class {
                        continue;
                    }
                    let free = (*meta).free_slots();
                    let slots = if reuse {
                        free
                    } else {
                        free & !(*meta).dirty(free)
                    };
                    if slots == 0 {
                        continue;
                    }
                    let slot = slots.trailing_zeros() as usize;
                    (*meta).freed.fetch_and(!(1 << slot), Ordering::Relaxed);
                    let stride = stride(class);
                    let start = self.donated.start(index).add(slot * stride);
                    self.check_clear(start, stride)?;
                    let slack = stride - n;
                    let offset = narrow_offset(slack, 0);
                    let place = Place {
                        offset,
                        end: slack - offset,
                    };
                    return Ok(self.occupy(meta, class, slot, start, place));
                }
            }
            Ok(ptr::null_mut())
        })
    }

    /// The slot of the block that starts at `block`, which was found before. Under the lock: of two
    /// frees that race the second finds none.
    #[inline(never)]
    pub(crate) fn donated_at(&self, block: *mut u8) -> Result<Slot, Found> {
        let found = self.donated.find(Untrusted::new(block));
        found.ok_or(Found(Fault::DoubleFree, block.addr()))
    }

    /// Frees the block in a donated slot, whichever thread calls.
    ///
    /// # Safety
    /// The program does not use the block any more.
    pub(crate) unsafe fn donated_free(&self, block: *mut u8) {
        self.locked(|_| {
            let slot = self.donated_at(block)?;
            // SAFETY: by contract; masks of donated groups belong to the lock's holder.
            unsafe {
                self.check_end(&slot)?;
                slot.clear_record();
                self.clear_freed(&slot);
                (*slot.meta).freed.fetch_or(slot.bit(), Ordering::Relaxed);
            }
            Ok(())
        })
    }
}
