//! Threads come and go, heaps stay: attached to a thread, parked when it exits, adopted by the
//! next.
//!
//! A thread keeps its heap until `thread_exit`. Some only borrow one, from each call that needs one
//! to the end of that call: threads that have handed theirs over and still allocate, as nobody
//! would park another one; threads whose exit the system does not tell; and those that find all
//! numbers of heaps in use but one. Nobody keeps the last heap.

use crate::config::{CLASSES, GRANULE, MOST_HEAPS, WARM_BYTES};
use crate::heap::Heap;
use crate::pages::Platform;
use crate::parking::{self, Keeper, Parked};
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::Life;
use core::ptr;

impl<P: Platform> Process<P> {
    /// Gives this thread a heap: a parked one, or a new one. The caller must `end_loan`. Null when
    /// memory or numbers are out.
    #[cold]
    #[inline(never)]
    pub(crate) fn attach(&self) -> *mut Heap {
        let (first, last, heap) = {
            let mut locked = self.lock();
            self.draw_secrets();
            let first = locked.provider.heaps == 0;
            let mut heap = locked.heap_for_thread();
            if heap.is_null() {
                locked.release_retained();
                heap = locked.heap_for_thread();
            }
            let last = self.numbers_are_out() && locked.provider.parked.is_empty();
            (first, last, heap)
        };
        if !heap.is_null() {
            self.set_heap(heap);
            // Now that the thread has a heap: it may allocate.
            let keeps = self.platform.tell_exit();
            if first {
                self.platform.first_heap();
            }
            // SAFETY: the heap is this thread's now.
            unsafe {
                (*heap).lent = last || !keeps;
                self.collect(heap);
            }
        }
        heap
    }

    /// At the end of a call that may have attached a heap: gives it back if it was only lent.
    #[inline(always)]
    pub(crate) fn end_loan(&self) {
        // SAFETY: the thread's own heap, or the empty one.
        if unsafe { (*self.heap()).lent } {
            self.thread_exit();
        }
    }

    /// Whether no further heap can be made. Then one at least is parked, or lent for a call.
    pub(crate) fn numbers_are_out(&self) -> bool {
        self.heap_total() >= MOST_HEAPS
    }

    /// In the last moments of a thread: what it has to do with its heap ends. Later calls of this
    /// thread may still free (like any other thread) and even allocate (with a heap that is lent).
    pub fn thread_exit(&self) {
        let heap = self.heap();
        if self.is_empty_heap(heap) {
            return;
        }
        self.set_heap(self.empty_heap());
        // SAFETY: the heap was this thread's, and nobody else knows of it until it is parked.
        unsafe {
            (*heap).lent = false;
            self.tell_all(heap);
            self.empty_quarantine(heap);
            self.collect(heap);
            let bytes = (*heap).bytes + (*heap).nests_idle as usize * GRANULE;
            if bytes <= WARM_BYTES / 2 {
                // Ends are verified now, although the slots stay in their rings: nobody may adopt
                // the heap for long.
                self.check_rings(heap);
                if parking::park(self, heap, bytes.max(1)) {
                    return;
                }
            }
            self.rest(heap);
        }
    }

    /// Brings a heap to rest and parks it.
    ///
    /// # Safety
    /// The caller may work on the heap, and nobody else knows of it.
    #[inline(never)]
    unsafe fn rest(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            self.settle_all(heap);
            parking::park(self, heap, 0);
        }
    }

    /// Verifies the ends of all slots in all rings.
    ///
    /// # Safety
    /// The caller may work on the heap, or it is the empty one.
    #[inline(never)]
    unsafe fn check_rings(&self, heap: *mut Heap) {
        for class in 0..CLASSES {
            // SAFETY: by contract; slots in a ring keep their groups alive.
            unsafe {
                let state = Heap::class(heap, class);
                if (*state).ready() != 0 {
                    (*state).verified = (*state).head as u16;
                    self.check_ring(state, class);
                }
            }
        }
    }

    /// At the end of the program: verifies the ends of freed slots that still wait in this thread's
    /// rings, and collects what other threads freed, which finds double frees that raced. Other
    /// threads may still run: their heaps are not looked at.
    pub fn process_exit(&self) {
        let heap = self.heap();
        if !self.is_empty_heap(heap) {
            // SAFETY: the thread's own heap.
            unsafe {
                self.tell_all(heap);
                self.collect(heap);
            }
        }
        // SAFETY: the thread's own heap, or the empty one.
        unsafe { self.check_rings(heap) };
    }

    /// Brings the heaps that threads left warm to rest.
    pub(crate) fn settle_warm(&self) {
        loop {
            let heap = self.with_parked(|parked| parked.adopt(false));
            if heap.is_null() {
                return;
            }
            // SAFETY: adopted, and known to nobody until it is parked again.
            unsafe { self.rest(heap) };
        }
    }

    /// Brings a heap to rest: nothing in line, no slot in a ring, empty groups released.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn settle_all(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            self.tell_all(heap);
            self.empty_quarantine(heap);
            self.collect(heap);
            for class in 0..CLASSES {
                self.spill(heap, class);
                self.retire(heap, class);
            }
            self.release_empty(heap, u64::MAX);
            if (*heap).idle > 0 {
                self.purge_idle(heap);
            }
            self.drop_empty_nests(heap);
        }
    }
}

impl<P: Platform> Keeper for Process<P> {
    type Heap = Heap;

    fn with_parked<R>(&self, work: impl FnOnce(&mut Parked<Heap>) -> R) -> R {
        work(&mut self.lock().provider.parked)
    }

    unsafe fn collect_idle(&self, heap: *mut Heap) {
        let mut touched = 0u64;
        // SAFETY: by contract; listed groups belong to this heap.
        unsafe {
            (*heap).mail.0.collect(|meta, bits| {
                touched |= 1 << (*meta).class;
                self.got_back(heap, meta, bits);
            });
            self.release_empty(heap, touched);
        }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// A heap for the calling thread, active.
    fn heap_for_thread(&mut self) -> *mut Heap {
        let process = self.process;
        let main = process.main_heap();
        // SAFETY: heaps live for ever; the lock makes parked and unused ones ours.
        unsafe {
            if process.heap_by_id(1).is_null() {
                self.set_up(main, 1);
                process.enter_heap(1, main, || None);
                self.count_heap();
                return main;
            }
            // The dynamic linker may move the first thread's state after its first allocations;
            // its word is zero again, and there is no other thread that could have the heap.
            if (*main).mail.0.life() == Life::Active as u32 && !process.platform.threaded() {
                return main;
            }
            let parked = self.provider.parked.adopt(true);
            if parked.is_null() {
                return self.make_heap();
            }
            if (*parked).seed == 0 {
                // What it was in the parent of a fork has gone, see `Locked::bury`.
                let id = (*parked).id as usize;
                parked.write_bytes(0, 1);
                self.set_up(parked, id);
            }
            parked
        }
    }

    /// A new heap, its memory among the metas.
    ///
    /// # Safety
    /// None beyond the lock.
    unsafe fn make_heap(&mut self) -> *mut Heap {
        let id = self.provider.heaps + 1;
        if id > MOST_HEAPS {
            return ptr::null_mut();
        }
        let Some(memory) = self.metadata(size_of::<Heap>()) else {
            return ptr::null_mut();
        };
        let heap = memory.cast::<Heap>();
        // SAFETY: the memory is ours, zero and aligned; zero is a valid heap.
        unsafe { self.set_up(heap, id) };
        let process = self.process;
        let entered =
            process.enter_heap(id, heap, || self.metadata(Process::<P>::HEAP_TABLE_BYTES));
        if entered {
            self.count_heap();
            heap
        } else {
            // SAFETY: nobody knows of the heap.
            unsafe { self.return_metadata(memory, size_of::<Heap>()) };
            ptr::null_mut()
        }
    }

    /// Counts the heap that was just entered: each number that is counted leads to a heap.
    fn count_heap(&mut self) {
        self.provider.heaps += 1;
        self.process.count_heaps(self.provider.heaps);
    }

    /// Readies a zero heap, with a new number or the one that it had.
    ///
    /// # Safety
    /// The heap is new, or nobody knows of it.
    unsafe fn set_up(&mut self, heap: *mut Heap, id: usize) {
        // SAFETY: by contract.
        unsafe {
            (*heap).id = id as u16;
            (*heap).seed = self.process.draw_seed();
            (*heap).mail.0.set_life(Life::Active);
        }
    }
}
