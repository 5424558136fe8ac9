//! The one gate from a wild pointer to a trusted slot.
//!
//! `Untrusted` cannot be dereferenced. `find` yields a `Slot` that holds a live block, or nothing.
//! What it reads is out of band: the window bit, the chunk's map, the group's meta.

use crate::chunk::Chunk;
use crate::heap::Heap;
use crate::meta::{Meta, State, CLASS_RUN};
use crate::pages::Platform;
use crate::process::Process;
use crate::ring::Vacancy;
use crate::size_class::Geometry;
use crate::slot::{
    narrow_rest, wide_rest, FIRST_WIDE, NARROW_END, NARROW_SLOTS, WIDE_END, WIDE_SLOTS,
};
use crate::sync::Ordering;

/// A pointer from the program, of unknown worth.
#[derive(Clone, Copy)]
pub struct Untrusted(*mut u8);

/// A slot that holds a live block.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Its group.
    pub meta: *mut Meta,
    /// Its number in the group.
    pub index: usize,
    /// Its class.
    pub class: usize,
    /// Bytes of the slot.
    pub stride: usize,
    /// The slot's first byte.
    pub start: *mut u8,
    /// Bytes from there to the block.
    pub offset: usize,
    /// Bytes behind the block.
    pub end: usize,
}

impl Slot {
    /// The block's first byte.
    #[inline(always)]
    pub fn block(&self) -> *mut u8 {
        self.start.wrapping_add(self.offset)
    }
    /// Bytes of the block.
    #[inline(always)]
    pub fn length(&self) -> usize {
        self.stride - self.offset - self.end
    }
    /// First byte of the end.
    #[inline(always)]
    pub fn end_at(&self) -> *mut u8 {
        self.start.wrapping_add(self.stride - self.end)
    }
    /// The slot, as the ring and malloc know it.
    #[inline(always)]
    pub fn vacancy(&self) -> Vacancy {
        if self.class < FIRST_WIDE {
            Vacancy::of::<true>(self.meta, self.index, self.start)
        } else {
            Vacancy::of::<false>(self.meta, self.index, self.start)
        }
    }
    /// The slot's bit in the group's masks.
    #[inline(always)]
    pub fn bit(&self) -> u32 {
        1 << self.index
    }
    /// Marks the slot as holding no block.
    ///
    /// # Safety
    /// The caller frees the block.
    #[inline(always)]
    pub unsafe fn clear_record(&self) {
        // Relaxed: only the thread that frees the live block writes its record; the masks order
        // this write before any reuse.
        // SAFETY: a live block's group lives.
        unsafe {
            if self.class < FIRST_WIDE {
                (*self.meta)
                    .records
                    .narrow(self.index)
                    .store(0, Ordering::Relaxed);
            } else {
                (*self.meta)
                    .records
                    .wide(self.index)
                    .store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Untrusted {
    /// Any pointer.
    #[inline(always)]
    pub fn new(pointer: *mut u8) -> Self {
        Untrusted(pointer)
    }

    /// The pointer's number, for messages and look-ups.
    #[inline(always)]
    pub fn address(self) -> usize {
        self.0.addr()
    }

    /// The meta that the map gives for this address; null when it is in no chunk. It may be the
    /// pseudo-meta. Not inline: free has a copy of its own.
    #[inline(never)]
    pub fn meta<P: Platform>(self, process: &Process<P>) -> *mut Meta {
        if !process.in_chunk(self.address()) {
            return core::ptr::null_mut();
        }
        // SAFETY: the window says that a chunk is there, whose map can be read for ever.
        unsafe { Chunk::meta_at(Chunk::around(self.0), self.address()) }
    }

    /// Whether a live block alone in a run starts exactly here.
    ///
    /// # Safety
    /// `meta` is what the map gives for this address, or null.
    pub(crate) unsafe fn starts_run(self, meta: *mut Meta) -> bool {
        // SAFETY: cells are readable.
        unsafe {
            !meta.is_null()
                && (*meta).class == CLASS_RUN
                && (*meta).is(State::Run)
                && Meta::base_of(meta) == self.0
        }
    }

    /// The slot of the live block that starts exactly here. None for anything else, runs and
    /// large blocks included.
    pub fn find<P: Platform>(self, process: &Process<P>) -> Option<Slot> {
        let meta = self.meta(process);
        // SAFETY: the map leads to cells of the chunk, which are readable.
        unsafe {
            if meta.is_null() || (*meta).class >= CLASS_RUN {
                return None;
            }
            self.find_in_group(meta)
        }
    }

    /// The same, in the group of `meta`.
    ///
    /// # Safety
    /// `meta` is what the map gives for this address, and the state of a group with slots.
    pub(crate) unsafe fn find_in_group(self, meta: *mut Meta) -> Option<Slot> {
        // SAFETY: by contract.
        unsafe {
            let geometry = Geometry::of((*meta).class as usize);
            self.find_in(meta, self.distance(meta), geometry)
        }
    }

    /// `find` in a group of the thread's own heap, which has at hand what its slots are like.
    ///
    /// # Safety
    /// `meta` is what the map gives for this address, and it is a group of the heap (or the heap
    /// is the empty one: then its classes have no slots, and no record fits), whose class NARROW tells
    /// the kind of.
    #[inline(always)]
    pub(crate) unsafe fn find_own<const NARROW: bool>(
        self,
        heap: *mut Heap,
        meta: *mut Meta,
    ) -> Option<Slot> {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, (*meta).class as usize);
            self.find_kind::<NARROW>(meta, self.distance(meta), (*state).geometry())
        }
    }

    /// Bytes from the first slot of the group to here.
    ///
    /// # Safety
    /// `meta` is what the map gives for this address.
    #[inline(always)]
    pub(crate) unsafe fn distance(self, meta: *mut Meta) -> usize {
        // SAFETY: readable.
        let base = unsafe { (*meta).base };
        (self.address() as u32).wrapping_sub(base) as usize
    }

    /// The slot of the live block that starts exactly here, given the group, this pointer's
    /// distance from its first slot, and what its class's slots are like.
    ///
    /// A misaligned distance leaves an offset that no record has, and one beyond the last slot,
    /// where the group's bytes were rounded up, an offset beyond all. Records of slots that hold no
    /// block have no offset.
    ///
    /// # Safety
    /// `meta` is readable and the state of a group with slots.
    #[inline(always)]
    pub(crate) unsafe fn find_in(
        self,
        meta: *mut Meta,
        distance: usize,
        geometry: Geometry,
    ) -> Option<Slot> {
        // SAFETY: by contract.
        unsafe {
            if ((*meta).class as usize) < FIRST_WIDE {
                self.find_kind::<true>(meta, distance, geometry)
            } else {
                self.find_kind::<false>(meta, distance, geometry)
            }
        }
    }

    /// The same; NARROW tells the kind of the group's class.
    ///
    /// # Safety
    /// As `find_in`.
    #[inline(always)]
    unsafe fn find_kind<const NARROW: bool>(
        self,
        meta: *mut Meta,
        distance: usize,
        geometry: Geometry,
    ) -> Option<Slot> {
        // SAFETY: by contract; `index` is below the number of records.
        unsafe {
            let class = (*meta).class as usize;
            let index = ((distance as u64 * geometry.reciprocal as u64) >> 32) as usize;
            let index = index % if NARROW { NARROW_SLOTS } else { WIDE_SLOTS };
            let stride = geometry.stride as usize;
            let offset = distance.wrapping_sub(index * stride);
            let (rest, most) = if NARROW {
                let record = (*meta).records.narrow(index).load(Ordering::Relaxed);
                (narrow_rest(record, offset), NARROW_END)
            } else {
                let record = (*meta).records.wide(index).load(Ordering::Relaxed);
                (wide_rest(stride, record, offset), WIDE_END)
            };
            if rest >= most as u32 {
                return None;
            }
            Some(Slot {
                meta,
                index,
                class,
                stride,
                start: self.0.wrapping_sub(offset),
                offset,
                end: rest as usize + 1,
            })
        }
    }
}
