//! Threads come and go, heaps stay: attached to a thread, parked when it exits, adopted by the
//! next.

use crate::chunk::{Chunk, CELL};
use crate::config::{CLASSES, MAX_HEAPS};
use crate::heap::Heap;
use crate::meta::{Meta, State};
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::Life;
use crate::sync::Ordering;
use core::ptr;

impl<P: Platform> Process<P> {
    /// Gives this thread a heap: a parked one, or a new one. Null when memory is out.
    #[cold]
    #[inline(never)]
    pub(crate) fn attach(&self) -> *mut Heap {
        let heap = {
            let mut locked = self.lock();
            self.draw_secrets();
            locked.heap_for_thread()
        };
        if !heap.is_null() {
            self.set_heap(heap);
            // SAFETY: the heap is this thread's now.
            unsafe { self.collect(heap) };
        }
        heap
    }

    /// In the last moments of a thread: what it has to do with its heap ends. Later calls of this
    /// thread may still free (like any other thread) and even allocate (with another heap).
    pub fn thread_exit(&self) {
        let heap = self.heap();
        if self.is_empty_heap(heap) {
            return;
        }
        self.set_heap(self.empty_heap());
        // SAFETY: the heap was this thread's, and nobody else knows of it until it is parked.
        unsafe {
            self.settle_all(heap);
            let locked = self.lock();
            (*heap).next_parked = locked.provider.parked;
            locked.provider.parked = heap;
            (*heap).mail.0.set_life(Life::Parked);
        }
        // Frees that came before the change of life found an active heap and left it to us.
        // SAFETY: heaps live for ever.
        if !unsafe { (*heap).mail.0.is_empty() } {
            self.collect_parked(heap);
        }
    }

    /// Brings a heap to rest: nothing in line, no slot in a ring, empty groups released.
    ///
    /// # Safety
    /// The caller may work on the heap.
    unsafe fn settle_all(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            self.empty_quarantine(heap);
            self.collect(heap);
            for class in 0..CLASSES {
                self.spill(heap, class, u32::MAX);
                self.retire(heap, class);
                self.release_empty(heap, class, 0);
            }
            self.purge_idle(heap);
            self.lock().drop_empty_nests(heap);
        }
    }

    /// Collects what came back to a parked heap, by whoever freed it.
    #[cold]
    pub(crate) fn collect_parked(&self, heap: *mut Heap) {
        // Each step takes the lock by itself: a heap is adopted or collected, never both, as
        // the adopting thread takes it off the list first.
        let claimed = {
            let locked = self.lock();
            // SAFETY: heaps live for ever; the lock makes the list ours.
            unsafe { locked.claim_parked(heap) }
        };
        if !claimed {
            return;
        }
        // SAFETY: off the list and still parked: nobody else works on it.
        unsafe {
            loop {
                self.collect(heap);
                for class in 0..CLASSES {
                    if (*heap).classes[class].empty > 0 {
                        self.release_empty(heap, class, 0);
                    }
                }
                let mut locked = self.lock();
                locked.drop_empty_nests(heap);
                if (*heap).mail.0.is_empty() {
                    (*heap).next_parked = locked.provider.parked;
                    locked.provider.parked = heap;
                    break;
                }
            }
        }
    }

    /// Before a fork in a process with threads: the provider's state is at rest.
    pub fn before_fork(&self) {
        self.platform.lock();
    }

    /// After it, in the parent.
    pub fn after_fork_parent(&self) {
        self.platform.unlock();
    }

    /// After it, in the child: the other threads' heaps stay as they were, for good. They may be
    /// in mid-update; only what out-of-band state alone can tell is ever done to them.
    ///
    /// # Safety
    /// The only thread, right after the fork.
    pub unsafe fn after_fork_child(&self) {
        // SAFETY: by contract.
        unsafe {
            self.platform.reset_lock();
            let own = self.heap();
            let locked = self.lock();
            for id in 1..=locked.provider.heaps {
                let heap = self.heap_by_id(id as u16);
                let active = (*heap).mail.0.life() == Life::Active as u32;
                let parked_off_list = (*heap).mail.0.life() == Life::Parked as u32
                    && !locked.is_listed(heap);
                if heap != own && (active || parked_off_list) {
                    (*heap).mail.0.set_life(Life::Dead);
                }
            }
        }
    }

    /// A block of a heap that stayed behind in a fork was freed: its group goes back once all its
    /// slots are free. `remote` are the bits that other threads set.
    ///
    /// # Safety
    /// The owner is dead, and these bits were set by the caller last.
    pub(crate) unsafe fn reclaim(&self, meta: *mut Meta, remote: u32) {
        // SAFETY: a dead heap's groups change only here. The mask of freed slots is one word: it
        // is from before or after whatever was in progress. Slots that it shows as free but that
        // a ring had or was about to get hold no block either. The group in a nest is left alone:
        // the nest's state may be torn.
        unsafe {
            let freed = (*meta).freed.load(Ordering::Relaxed);
            let in_run = crate::group::bytes_of(meta) > crate::config::NEST_GROUP_MAX;
            let torn = (*meta).is(State::Free);
            if freed | remote == u32::MAX && in_run && !torn {
                self.lock().release_abandoned(meta);
            }
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
                return main;
            }
            // The dynamic linker may move the first thread's state after its first allocations;
            // its word is zero again, and there is no other thread that could have the heap.
            if (*main).mail.0.life() == Life::Active as u32 && !process.platform.threaded() {
                return main;
            }
            let parked = self.provider.parked;
            if !parked.is_null() {
                self.provider.parked = (*parked).next_parked;
                (*parked).mail.0.set_life(Life::Active);
                return parked;
            }
            self.make_heap()
        }
    }

    /// A new heap, its memory among the metas.
    ///
    /// # Safety
    /// None beyond the lock.
    unsafe fn make_heap(&mut self) -> *mut Heap {
        let id = self.provider.heaps + 1;
        if id >= MAX_HEAPS {
            return ptr::null_mut();
        }
        let Some(memory) = self.cells(size_of::<Heap>()) else { return ptr::null_mut() };
        let heap = memory.cast::<Heap>();
        // SAFETY: the cells are ours, zero and aligned; zero is a valid heap.
        unsafe { self.set_up(heap, id) };
        let process = self.process;
        let entered =
            process.enter_heap(id, heap, || self.cells(Process::<P>::HEAP_TABLE_BYTES));
        if entered {
            heap
        } else {
            // The number stays unused and the memory lost; only at the very limit.
            self.provider.heaps -= 1;
            ptr::null_mut()
        }
    }

    /// Readies a zero heap.
    ///
    /// # Safety
    /// The heap is new.
    unsafe fn set_up(&mut self, heap: *mut Heap, id: usize) {
        // SAFETY: by contract.
        unsafe {
            (*heap).id = id as u16;
            (*heap).seed = self.process.draw_seed();
            (*heap).mail.0.set_life(Life::Active);
        }
        self.provider.heaps = id;
    }

    /// `bytes` of zero memory among the metas of a chunk, for ever.
    fn cells(&mut self, bytes: usize) -> Option<*mut u8> {
        let count = bytes.div_ceil(CELL);
        // SAFETY: we hold the lock.
        self.cells_of_any(|chunk| unsafe { Chunk::fresh_cells(chunk, count) }).map(|c| c.cast())
    }

    /// Takes `heap` off the list of parked heaps. False when it is not there.
    ///
    /// # Safety
    /// Heaps in the list are alive.
    unsafe fn claim_parked(&self, heap: *mut Heap) -> bool {
        let mut link = (&raw const self.provider.parked).cast_mut();
        // SAFETY: by contract; the lock makes the links ours.
        unsafe {
            while !(*link).is_null() {
                if *link == heap {
                    *link = (*heap).next_parked;
                    return true;
                }
                link = &raw mut (**link).next_parked;
            }
        }
        false
    }

    /// Whether `heap` stands in the list of parked heaps.
    fn is_listed(&self, heap: *mut Heap) -> bool {
        let mut parked = self.provider.parked;
        while !parked.is_null() && parked != heap {
            // SAFETY: heaps in the list are alive; the lock makes the links ours.
            parked = unsafe { (*parked).next_parked };
        }
        !parked.is_null()
    }
}
