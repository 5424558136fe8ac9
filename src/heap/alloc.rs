//! malloc: class, ring, slot.

use crate::heap::{Class, Heap};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::process::Process;
use crate::ring::Entry;
use crate::size_class::{class_of, slot_bytes, stride, MAX_SMALL};
use crate::slot::{
    max_end, narrow_offset, narrow_record, wide_place, wide_record, Place, FIRST_WIDE,
};
use crate::sync::Ordering;
use core::ptr;

/// Largest block of a narrow class, in bytes.
const MAX_NARROW: usize = stride(FIRST_WIDE - 1) - 1;

impl<P: Platform> Process<P> {
    /// A block of `n` bytes at a multiple of 16; null, and errno, when memory is out or n exceeds
    /// PTRDIFF_MAX. Blocks of 0 bytes are distinct.
    #[inline(always)]
    pub fn malloc(&self, n: usize) -> *mut u8 {
        if n <= MAX_NARROW {
            let class = class_of(n);
            let heap = self.heap();
            // SAFETY: the thread's own heap; the empty one has no slots and is only read.
            unsafe {
                let state = Heap::class(heap, class);
                if (*state).ready() > (*state).low as u32 {
                    return self.take_narrow(state, class, n);
                }
            }
        }
        self.malloc_slow(n)
    }

    /// Hands the oldest slot in the ring of a narrow class out.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, whose ring is not empty; n suits the class.
    #[inline(always)]
    unsafe fn take_narrow(&self, state: *mut Class, class: usize, n: usize) -> *mut u8 {
        // SAFETY: by contract: the slot is free and ours.
        unsafe {
            let (entry, start) = self.leave_ring(state, class);
            let slack = slot_bytes(class) - n;
            let offset = narrow_offset(class, slack, (*state).cycle);
            // Relaxed: other threads learn of the block by the program's own synchronisation.
            let record = (*entry.meta()).records.narrow(entry.index());
            record.store(narrow_record(class, slack, offset), Ordering::Relaxed);
            let block = start.add(offset);
            self.write_guards(class, block.add(n), slack - offset);
            block
        }
    }

    /// Takes the oldest slot out of a ring, verified, and tells its first byte.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, whose ring is not empty.
    #[inline(always)]
    unsafe fn leave_ring(&self, state: *mut Class, class: usize) -> (Entry, *mut u8) {
        // SAFETY: by contract.
        unsafe {
            let entry = (*state).take();
            let stride = slot_bytes(class);
            self.check_entry(class, stride, entry);
            let start = entry.start(stride);
            self.check_clear(start, stride);
            (entry, start)
        }
    }

    /// The rest of malloc: wide classes, rings that run low, threads without a heap, large blocks.
    #[cold]
    #[inline(never)]
    pub(crate) fn malloc_slow(&self, n: usize) -> *mut u8 {
        if n > MAX_SMALL {
            return self.large_alloc(n, 1);
        }
        let class = class_of(n);
        // SAFETY: the thread's own heap, or the empty one.
        let untouched = unsafe { (*Heap::class(self.heap(), class)).slots == 0 };
        if untouched {
            // A first block needs no group if the dynamic linker left a slot for it.
            let block = self.donated_alloc(class, n, false);
            if !block.is_null() {
                return block;
            }
        }
        let state = self.filled(class);
        if state.is_null() {
            let block = self.donated_alloc(class, n, true);
            if block.is_null() {
                self.platform.out_of_memory();
            }
            return block;
        }
        // SAFETY: `filled` gives a class of the thread's own heap, with a slot in its ring.
        unsafe {
            if class < FIRST_WIDE {
                self.take_narrow(state, class, n)
            } else {
                (*state).cycle = (*state).cycle.wrapping_add(1);
                let place = wide_place(class, stride(class), n, (*state).cycle as usize);
                self.take_at(state, class, place)
            }
        }
    }

    /// A block of `n` bytes at the start of a slot of `class`, whose slots are aligned as the
    /// caller needs. The block is rounded up as far as the record demands.
    pub(crate) fn start_alloc(&self, class: usize, n: usize) -> *mut u8 {
        let state = self.filled(class);
        if state.is_null() {
            self.platform.out_of_memory();
            return ptr::null_mut();
        }
        let end = (stride(class) - n).min(max_end(class));
        // SAFETY: as above.
        unsafe { self.take_at(state, class, Place { offset: 0, end }) }
    }

    /// Hands the oldest slot in a ring out, for a block at `place`.
    ///
    /// # Safety
    /// As `take_narrow`.
    unsafe fn take_at(&self, state: *mut Class, class: usize, place: Place) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            let (entry, start) = self.leave_ring(state, class);
            self.occupy(entry.meta(), class, entry.index(), start, place)
        }
    }

    /// The class of this thread's heap, with at least one slot in its ring; null when memory is
    /// out.
    fn filled(&self, class: usize) -> *mut Class {
        let heap = self.heap_to_use();
        if heap.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: the thread's own heap.
        unsafe {
            let state = Heap::class(heap, class);
            if (*state).ready() <= (*state).low as u32 && !self.refill_or_trim(heap, class) {
                return ptr::null_mut();
            }
            state
        }
    }

    /// Writes record and guards of a block.
    ///
    /// # Safety
    /// The slot is free, ours, and in no mask or ring.
    pub(crate) unsafe fn occupy(
        &self,
        meta: *mut Meta,
        class: usize,
        index: usize,
        start: *mut u8,
        place: Place,
    ) -> *mut u8 {
        let stride = stride(class);
        // SAFETY: by contract. Relaxed: see `take_narrow`.
        unsafe {
            if class < FIRST_WIDE {
                let slack = place.offset + place.end;
                let record = narrow_record(class, slack, place.offset);
                (*meta)
                    .records
                    .narrow(index)
                    .store(record, Ordering::Relaxed);
            } else {
                let record = wide_record(class, place);
                (*meta).records.wide(index).store(record, Ordering::Relaxed);
            }
            self.write_guards(class, start.add(stride - place.end), place.end);
            start.add(place.offset)
        }
    }

    /// This thread's heap; attaches one first if it has none. Null when memory is out.
    #[inline(always)]
    fn heap_to_use(&self) -> *mut Heap {
        let heap = self.heap();
        if self.is_empty_heap(heap) {
            return self.attach();
        }
        heap
    }

    /// Refills; when memory is out, gives up what this heap and the caches retain and tries again.
    ///
    /// # Safety
    /// The caller may work on the heap.
    unsafe fn refill_or_trim(&self, heap: *mut Heap, class: usize) -> bool {
        // SAFETY: by contract.
        unsafe {
            if self.refill(heap, class) {
                return true;
            }
            self.trim(heap);
            self.refill(heap, class)
        }
    }

    /// Gives back whatever the heap and the process retain for later.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn trim(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe { self.settle_all(heap) };
        let mut locked = self.lock();
        locked.drop_large_cache();
        locked.purge();
    }

    /// Whether the block that this thread just got from malloc is known to be all zero.
    pub fn is_zero(&self, block: *mut u8) -> bool {
        use crate::pointer::Untrusted;
        let Some(slot) = Untrusted::new(block).find(self) else {
            return self.large_is_zero(block);
        };
        // SAFETY: the thread's own heap, or the empty one.
        unsafe { (*Heap::class(self.heap(), slot.class)).took_zero(slot.meta, slot.index) }
    }
}
