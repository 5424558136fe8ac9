//! malloc: class, ring, slot.

use crate::config::{IDLE_STRIDE, PRESET, UNIT};
use crate::fault::{raise, stop, Fault};
use crate::heap::{Class, Heap};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::process::{next_random, Process};
use crate::ring::Vacancy;
use crate::size_class::{class_of, stride, MAX_SMALL};
use crate::slot::{
    max_end, narrow_offset, narrow_record, wide_place, wide_record, Place, FIRST_WIDE, MAX_FINE,
    USED, ZERO,
};
use crate::sync::Ordering;
use core::ptr;

/// Largest block of a narrow class, in bytes.
const MAX_NARROW: usize = stride(FIRST_WIDE - 1) - 1;

/// What a wide class's `cycle` goes on by: 2^16 over the golden ratio, odd, so that the lower 16
/// bits spread evenly (Knuth, The Art of Computer Programming 3, 6.4).
const STEP: u16 = 0x9e37;

impl<P: Platform> Process<P> {
    /// A block of `n` bytes at a multiple of 16; null, and errno, when memory is out or n exceeds
    /// PTRDIFF_MAX. Blocks of 0 bytes are distinct.
    #[inline(always)]
    pub fn malloc(&self, n: usize) -> *mut u8 {
        if PRESET.seal_zero_size && n == 0 {
            return self.zero_alloc(UNIT);
        }
        if n > MAX_NARROW {
            return self.malloc_wide(n);
        }
        let class = class_of(n);
        // SAFETY: the thread's own heap; the empty one has no slots and is only read.
        unsafe {
            let state = Heap::class(self.heap(), class);
            if !(*state).has_ready() {
                return self.malloc_avail::<true>(state, class, n);
            }
            let slot = self.take_ready::<true>(state, class);
            self.place_narrow(state, class, slot, n)
        }
    }

    /// malloc of a class whose ring is low. Apart, as what it calls at times would have malloc save
    /// registers every time.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`; n suits the class, NARROW tells its kind.
    #[inline(never)]
    unsafe fn malloc_avail<const NARROW: bool>(
        &self,
        state: *mut Class,
        class: usize,
        n: usize,
    ) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            if (*state).avail == 0 {
                return self.malloc_slow(n);
            }
            if !PRESET.check_at_free && !(*state).is_verified() {
                return self.malloc_verifying(state, class, n);
            }
            let slot = self.take_avail::<NARROW>(state, class);
            if NARROW {
                self.place_narrow(state, class, slot, n)
            } else {
                self.place_wide(state, class, slot, n)
            }
        }
    }

    /// The same once those in the ring are verified: no freed slot waits for that longer than 16
    /// further mallocs. Apart, as above.
    ///
    /// # Safety
    /// As `malloc_avail`.
    #[inline(never)]
    unsafe fn malloc_verifying(&self, state: *mut Class, class: usize, n: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            self.check_ring(state, class);
            if class < FIRST_WIDE {
                self.malloc_avail::<true>(state, class, n)
            } else {
                self.malloc_avail::<false>(state, class, n)
            }
        }
    }

    /// malloc of a block that no narrow class holds.
    #[inline(never)]
    fn malloc_wide(&self, n: usize) -> *mut u8 {
        if n <= MAX_SMALL {
            let class = class_of(n);
            // SAFETY: as in `malloc`.
            unsafe {
                let state = Heap::class(self.heap(), class);
                if !(*state).has_ready() {
                    return self.malloc_avail::<false>(state, class, n);
                }
                let slot = self.take_ready::<false>(state, class);
                return self.place_wide(state, class, slot, n);
            }
        }
        self.malloc_slow(n)
    }

    /// Makes a block of a slot of a narrow class.
    ///
    /// # Safety
    /// The slot is free and ours; n suits the class.
    #[inline(always)]
    unsafe fn place_narrow(
        &self,
        state: *mut Class,
        class: usize,
        slot: Vacancy,
        n: usize,
    ) -> *mut u8 {
        // SAFETY: by contract. Relaxed: other threads learn of the block by the program's own
        // synchronisation.
        unsafe {
            let slack = (*state).stride as usize - n;
            let guard = (*state).guard;
            let offset = narrow_offset(slack, (*state).cycle as u32);
            let record = narrow_record(slack, offset);
            slot.narrow().store(record, Ordering::Relaxed);
            let block = slot.start.add(offset);
            self.write_first_guard(class, guard, block.add(n));
            self.write_front(class, block, offset);
            block
        }
    }

    /// Makes a block of a slot of a wide class.
    ///
    /// # Safety
    /// As `place_narrow`.
    #[inline(always)]
    unsafe fn place_wide(
        &self,
        state: *mut Class,
        class: usize,
        slot: Vacancy,
        n: usize,
    ) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            if (*state).stride as usize <= MAX_FINE {
                self.place_wide_here(state, class, slot, n)
            } else {
                self.place_long(state, class, slot, n)
            }
        }
    }

    /// The same in a slot whose offsets have long steps. Apart, as it takes more registers.
    ///
    /// # Safety
    /// As `place_narrow`.
    #[inline(never)]
    unsafe fn place_long(
        &self,
        state: *mut Class,
        class: usize,
        slot: Vacancy,
        n: usize,
    ) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.place_wide_here(state, class, slot, n) }
    }

    /// The same, without a call.
    ///
    /// # Safety
    /// As `place_narrow`.
    #[inline(always)]
    unsafe fn place_wide_here(
        &self,
        state: *mut Class,
        class: usize,
        slot: Vacancy,
        n: usize,
    ) -> *mut u8 {
        // SAFETY: by contract. Relaxed: as above.
        unsafe {
            let stride = (*state).stride as usize;
            (*state).cycle = (*state).cycle.wrapping_add(STEP);
            let guard = (*state).guard;
            let place = wide_place(stride, n, (*state).cycle);
            let record = wide_record(stride, place);
            slot.wide().store(record, Ordering::Relaxed);
            let block = slot.start.add(place.offset);
            self.write_first_guard(class, guard, block.add(n));
            self.write_front(class, block, place.offset);
            block
        }
    }

    /// Takes a slot, of the ring if malloc may have one, or else of the current group.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, which has a slot at hand; NARROW tells the kind
    /// of the class, here and below.
    #[inline(always)]
    unsafe fn take_slot<const NARROW: bool>(&self, state: *mut Class, class: usize) -> Vacancy {
        // SAFETY: by contract.
        unsafe {
            if (*state).has_ready() {
                self.take_ready::<NARROW>(state, class)
            } else {
                self.check_ring(state, class);
                self.take_avail::<NARROW>(state, class)
            }
        }
    }

    /// Takes the oldest slot of the ring, verifies it, and sees to it that the guard in its last
    /// byte stands.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, whose ring is not empty.
    #[inline(always)]
    unsafe fn take_ready<const NARROW: bool>(&self, state: *mut Class, class: usize) -> Vacancy {
        // SAFETY: by contract: the slot is free and ours. Plain reads, unlike in `guards_stand`, so
        // that each is compared in memory: what a racing overflow leaves is read once and trusted
        // for nothing.
        unsafe {
            let slot = (*state).take();
            if !NARROW {
                (*self.heap()).zero = false;
            }
            let (stride, guard) = ((*state).stride as usize, (*state).guard);
            let limit = slot.start.add(stride);
            let last = limit.sub(1);
            let last_guard = self.guard_of(class, guard, last.addr());
            if PRESET.check_at_free {
                raise(self.check_clear(slot.start, stride));
                last.write(last_guard);
                return slot;
            }
            let first = limit.sub(slot.end::<NARROW>());
            if first.read() != self.guard_of(class, guard, first.addr())
                || last.read() != last_guard
            {
                stop(Fault::Overflow, first.addr());
            }
            slot
        }
    }

    /// Takes a slot of the current group, and sees to it that the guard in its last byte stands. Its
    /// end was verified before; the last byte is once more, as the next slot's block may have been
    /// written from its front since.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`, whose `avail` is not zero.
    #[inline(always)]
    unsafe fn take_avail<const NARROW: bool>(&self, state: *mut Class, class: usize) -> Vacancy {
        // SAFETY: by contract: the group is alive, the slot free and ours.
        unsafe {
            let index = self.pick((*state).avail);
            (*state).avail &= !(1 << index);
            (*state).out += 1;
            let stride = (*state).stride as usize;
            let start = (*state).base.add(index * stride);
            let slot = Vacancy::of::<NARROW>((*state).current, index, start);
            let last = start.add(stride - 1);
            let guard = self.guard_of(class, (*state).guard, last.addr());
            let mark = slot.mark::<NARROW>();
            if !NARROW {
                (*self.heap()).zero = mark == ZERO;
            }
            if stride >= IDLE_STRIDE && mark == USED {
                (*self.heap()).idle -= stride;
            }
            if PRESET.check_at_free || mark != USED {
                raise(self.check_clear(start, stride));
                last.write(guard);
            } else if last.read() != guard {
                stop(Fault::Overflow, last.addr());
            }
            slot
        }
    }

    /// Number of one set bit of `bits`: the lowest, or a random one. `bits` is not zero.
    #[inline(always)]
    fn pick(&self, bits: u32) -> usize {
        let mut rest = bits;
        if PRESET.random_slots {
            // SAFETY: only called for this thread's own heap.
            let random = unsafe { next_random(&mut (*self.heap()).seed) } as u32;
            for _ in 0..random % bits.count_ones() {
                rest &= rest - 1;
            }
        }
        rest.trailing_zeros() as usize
    }

    /// Writes the guard behind a block.
    ///
    /// # Safety
    /// `at` is the first byte of the end of a block of that class, of the caller's heap.
    #[inline(always)]
    unsafe fn write_first_guard(&self, class: usize, guard: u8, at: *mut u8) {
        // SAFETY: by contract.
        unsafe { at.write(self.guard_of(class, guard, at.addr())) }
    }

    /// The guard byte at `address`, given that of the class.
    #[inline(always)]
    pub(crate) fn guard_of(&self, class: usize, guard: u8, address: usize) -> u8 {
        if PRESET.guard_by_address {
            self.guard(class, address)
        } else {
            guard
        }
    }

    /// The rest of malloc: rings that run low, threads without a heap, large blocks.
    #[cold]
    #[inline(never)]
    pub(crate) fn malloc_slow(&self, n: usize) -> *mut u8 {
        if n > MAX_SMALL {
            return self.large_alloc(n, 1);
        }
        let block = self.malloc_filled(n);
        self.end_loan();
        block
    }

    /// malloc of a small block from a class that is refilled first.
    #[inline(always)]
    fn malloc_filled(&self, n: usize) -> *mut u8 {
        let class = class_of(n);
        let state = self.filled(class);
        if state.is_null() {
            self.platform.out_of_memory();
            return ptr::null_mut();
        }
        if class >= FIRST_WIDE {
            // Finds the slot at hand.
            return self.malloc_wide(n);
        }
        // SAFETY: `filled` gives a class of the thread's own heap, with a slot at hand.
        unsafe {
            let slot = self.take_any(state, class);
            self.place_narrow(state, class, slot, n)
        }
    }

    /// Takes a slot of any class, for callers that need not be fast.
    ///
    /// # Safety
    /// As `take_slot`.
    #[inline(never)]
    unsafe fn take_any(&self, state: *mut Class, class: usize) -> Vacancy {
        // SAFETY: by contract.
        unsafe {
            if class < FIRST_WIDE {
                self.take_slot::<true>(state, class)
            } else {
                self.take_slot::<false>(state, class)
            }
        }
    }

    /// A block of `n` bytes at the start of a slot of `class`, whose slots are aligned as the
    /// caller needs. The block is rounded up as far as the record demands.
    pub(crate) fn start_alloc(&self, class: usize, n: usize) -> *mut u8 {
        let state = self.filled(class);
        let mut block = ptr::null_mut();
        if state.is_null() {
            self.platform.out_of_memory();
        } else {
            let end = (stride(class) - n).min(max_end(class));
            let place = Place { offset: 0, end };
            // SAFETY: `filled` gives a class of the thread's own heap, with a slot at hand.
            unsafe {
                let slot = self.take_any(state, class);
                block = self.occupy(slot.meta(), class, slot.index(class), slot.start, place);
            }
        }
        self.end_loan();
        block
    }

    /// The class of this thread's heap, with at least one slot at hand; null when memory is out.
    fn filled(&self, class: usize) -> *mut Class {
        let heap = self.heap_to_use();
        if heap.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: the thread's own heap.
        unsafe {
            let state = Heap::class(heap, class);
            if !(*state).has_slot() && !self.refill_or_trim(heap, class) {
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
                let record = narrow_record(slack, place.offset);
                (*meta)
                    .records
                    .narrow(index)
                    .store(record, Ordering::Relaxed);
            } else {
                let record = wide_record(stride, place);
                (*meta).records.wide(index).store(record, Ordering::Relaxed);
            }
            self.write_guards(class, start.add(stride - place.end), place.end);
            self.write_front(class, start.add(place.offset), place.offset);
            start.add(place.offset)
        }
    }

    /// This thread's heap; attaches one first if it has none, and waits for that if it must. Null
    /// when memory is out.
    #[inline(always)]
    fn heap_to_use(&self) -> *mut Heap {
        let mut heap = self.heap();
        if self.is_empty_heap(heap) {
            heap = self.attach();
            while heap.is_null() && self.numbers_are_out() {
                heap = self.attach();
            }
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
        self.settle_warm();
        self.lock().release_retained();
    }

    /// Whether the block that this thread just got from malloc is known to be all zero.
    pub fn is_zero(&self, block: *mut u8) -> bool {
        use crate::pointer::Untrusted;
        let Some(slot) = Untrusted::new(block).find(self) else {
            return self.large_is_zero(block);
        };
        // SAFETY: the thread's own heap, or the empty one.
        slot.class >= FIRST_WIDE && unsafe { (*self.heap()).zero }
    }
}
