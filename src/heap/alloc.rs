//! malloc: class, bin, slot.

use crate::config::{PRESET, UNIT};
use crate::heap::Heap;
use crate::meta::Meta;
use crate::pages::Platform;
use crate::process::{next_random, Process};
use crate::size_class::{class_of, stride, MAX_SMALL};
use crate::slot::{
    max_end, narrow_offset, narrow_record, round_for, wide_place, wide_record, Place, FIRST_WIDE,
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
                let bin = (&raw mut (*heap).bins).cast::<crate::heap::Bin>().add(class);
                let avail = (*bin).avail;
                if avail != 0 {
                    return self.take_narrow(heap, class, avail, n);
                }
            }
        }
        self.malloc_slow(n)
    }

    /// Hands a slot of the bin of a narrow class out.
    ///
    /// # Safety
    /// The caller may work on the heap; `avail` is the bin's and not 0; n suits the class.
    #[inline(always)]
    unsafe fn take_narrow(&self, heap: *mut Heap, class: usize, avail: u32, n: usize) -> *mut u8 {
        // SAFETY: by contract: the slot is free and ours.
        unsafe {
            let bin = (&raw mut (*heap).bins).cast::<crate::heap::Bin>().add(class);
            let index = self.choose(heap, avail);
            (*bin).avail = avail & !(1 << index);
            let slack = (*bin).stride as usize - n;
            let start = (*bin).base.add(index * (*bin).stride as usize);
            self.check_clear(start, (*bin).stride as usize);
            let offset = narrow_offset(slack, (*bin).cycle as usize % 2 * UNIT);
            // Relaxed: other threads learn of the block by the program's own synchronisation.
            let record = (*(*bin).meta).records.narrow(index);
            record.store(narrow_record(slack, offset), Ordering::Relaxed);
            let block = start.add(offset);
            self.write_guards(class, block.add(n), slack - offset);
            block
        }
    }

    /// The slot of `avail` to hand out: the first, or a random one.
    ///
    /// # Safety
    /// The caller may work on the heap; `avail` is not 0.
    #[inline(always)]
    unsafe fn choose(&self, heap: *mut Heap, avail: u32) -> usize {
        if PRESET.random_slots {
            // SAFETY: by contract.
            let random = unsafe { next_random(&mut (*heap).seed) } as u32 % 32;
            let turned = avail.rotate_right(random);
            return (turned.trailing_zeros() + random) as usize % 32;
        }
        avail.trailing_zeros() as usize
    }

    /// The rest of malloc: wide classes, empty bins, threads without a heap, large blocks.
    #[cold]
    #[inline(never)]
    pub(crate) fn malloc_slow(&self, n: usize) -> *mut u8 {
        if n > MAX_SMALL {
            return self.large_alloc(n, 1);
        }
        self.small_alloc(class_of(n), n)
    }

    /// A block of `n` bytes in a slot of `class`, at the slot's start if the class is not `n`'s
    /// own. Null, and errno, when memory is out.
    pub(crate) fn small_alloc(&self, class: usize, n: usize) -> *mut u8 {
        let heap = self.heap_to_use();
        if heap.is_null() {
            self.platform.out_of_memory();
            return ptr::null_mut();
        }
        // SAFETY: the thread's own heap.
        unsafe {
            if (*heap).bins[class].avail == 0 && !self.refill_or_trim(heap, class) {
                self.platform.out_of_memory();
                return ptr::null_mut();
            }
            let avail = (*heap).bins[class].avail;
            if class < FIRST_WIDE {
                self.take_narrow(heap, class, avail, round_for(class, stride(class), n))
            } else {
                self.take_wide(heap, class, avail, n)
            }
        }
    }

    /// Hands a slot of the bin of a wide class out.
    ///
    /// # Safety
    /// As `take_narrow`.
    unsafe fn take_wide(&self, heap: *mut Heap, class: usize, avail: u32, n: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            let bin = &mut (&mut (*heap).bins)[class];
            let n = round_for(class, bin.stride as usize, n);
            bin.cycle = bin.cycle.wrapping_add(1);
            let place = wide_place(class, bin.stride as usize, n, bin.cycle as usize);
            let index = self.choose(heap, avail);
            (&mut (*heap).bins)[class].avail &= !(1 << index);
            let bin = &(&(*heap).bins)[class];
            let start = bin.base.add(index * bin.stride as usize);
            self.check_clear(start, bin.stride as usize);
            self.occupy(bin.meta, class, index, start, place)
        }
    }

    /// A block of `n` bytes at the start of a slot of `class`, whose slots are aligned as the
    /// caller needs. The block is rounded up as far as the record demands.
    pub(crate) fn start_alloc(&self, class: usize, n: usize) -> *mut u8 {
        let heap = self.heap_to_use();
        // SAFETY: the thread's own heap.
        unsafe {
            if heap.is_null()
                || ((*heap).bins[class].avail == 0 && !self.refill_or_trim(heap, class))
            {
                self.platform.out_of_memory();
                return ptr::null_mut();
            }
            let index = self.choose(heap, (*heap).bins[class].avail);
            let bin = &mut (&mut (*heap).bins)[class];
            bin.avail &= !(1 << index);
            let stride = bin.stride as usize;
            let start = bin.base.add(index * stride);
            self.check_clear(start, stride);
            let end = (stride - n).min(max_end(class));
            self.occupy(bin.meta, class, index, start, Place { offset: 0, end })
        }
    }

    /// Writes record and guards of a block.
    ///
    /// # Safety
    /// The slot is free, ours, and no longer in `avail`.
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
                let record = narrow_record(place.offset + place.end, place.offset);
                (*meta).records.narrow(index).store(record, Ordering::Relaxed);
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
    /// The caller may work on the heap; the bin of `class` is empty.
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
        unsafe {
            self.empty_quarantine(heap);
            for class in 0..crate::config::CLASSES {
                self.release_empty(heap, class, 0);
            }
            self.purge_idle(heap);
        }
        let mut locked = self.lock();
        locked.drop_large_cache();
        // SAFETY: as above.
        unsafe { locked.drop_empty_nests(heap) };
        locked.purge();
    }

    /// Whether the block that this thread just got from malloc is known to be all zero.
    pub fn is_zero(&self, block: *mut u8) -> bool {
        use crate::pointer::Untrusted;
        let Some(slot) = Untrusted::new(block).find(self) else {
            return self.large_is_zero(block);
        };
        let heap = self.heap();
        // SAFETY: the thread's own heap; `zero` tells of the slots that the bin got last, and
        // the newest block is one of them.
        unsafe {
            let bin = &(&(*heap).bins)[slot.class];
            bin.meta == slot.meta && bin.zero != 0
        }
    }
}
