//! Threads come and go, heaps stay: attached to a thread, parked when it exits, adopted by the
//! next.

use crate::config::CLASSES;
use crate::heap::Heap;
use crate::meta::{Meta, State, NOBODY};
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::Life;
use core::ptr;

impl<P: Platform> Process<P> {
    /// Gives this thread a heap: a parked one, or a new one. Null when memory is out.
    #[cold]
    #[inline(never)]
    pub(crate) fn attach(&self) -> *mut Heap {
        let (first, heap) = {
            let mut locked = self.lock();
            self.draw_secrets();
            let first = locked.provider.heaps == 0;
            let mut heap = locked.heap_for_thread();
            if heap.is_null() {
                locked.release_retained();
                heap = locked.heap_for_thread();
            }
            (first, heap)
        };
        if !heap.is_null() {
            self.set_heap(heap);
            if first {
                self.platform.first_heap();
            }
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

    /// At the end of the program: verifies the ends of freed slots that still wait in this thread's
    /// rings. Other threads may still run: theirs are not looked at.
    pub fn process_exit(&self) {
        let heap = self.heap();
        for class in 0..CLASSES {
            // SAFETY: the thread's own heap, or the empty one; slots in a ring keep their groups
            // alive.
            unsafe {
                for entry in (*Heap::class(heap, class)).entries() {
                    self.check_entry(class, entry);
                }
            }
        }
    }

    /// Brings a heap to rest: nothing in line, no slot in a ring, empty groups released.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn settle_all(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            self.empty_quarantine(heap);
            self.collect(heap);
            for class in 0..CLASSES {
                self.spill(heap, class, u32::MAX);
                self.retire(heap, class);
                self.release_empty(heap, class, 0);
            }
            if (*heap).idle > 0 {
                self.purge_idle(heap);
            }
            self.lock().drop_empty_nests(heap);
        }
    }

    /// Collects what came back to a parked heap, by whoever freed it.
    #[cold]
    pub(crate) fn collect_parked(&self, heap: *mut Heap) {
        {
            let _locked = self.lock();
            // SAFETY: heaps live for ever; life and claim change under the lock only.
            unsafe {
                let parked = (*heap).mail.0.life() == Life::Parked as u32;
                if !parked || (*heap).claimed {
                    // Its new owner, or the thread that claimed it, will look again.
                    return;
                }
                (*heap).claimed = true;
            }
        }
        // SAFETY: claimed and parked: nobody else works on it.
        unsafe {
            loop {
                let mut touched = 0u64;
                (*heap).mail.0.collect(|meta, bits| {
                    touched |= 1 << (*meta).class;
                    self.got_back(heap, meta, bits);
                });
                while touched != 0 {
                    self.release_empty(heap, touched.trailing_zeros() as usize, 0);
                    touched &= touched - 1;
                }
                let _locked = self.lock();
                if (*heap).mail.0.is_empty() {
                    (*heap).claimed = false;
                    return;
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
                // A claimed heap was being collected by a thread that is not here.
                if heap != own && (active || (*heap).claimed) {
                    (*heap).mail.0.set_life(Life::Dead);
                }
            }
        }
    }

    /// A block of a heap that stayed behind in a fork was freed: its group goes back once all its
    /// slots are free. The caller set the last bit that was missing:
    /// until then the group lived, from then on it is the caller's.
    ///
    /// # Safety
    /// The owner is dead, and the caller set the last bit.
    pub(crate) unsafe fn reclaim(&self, meta: *mut Meta) {
        // SAFETY: a dead heap's groups change only here. The mask of freed slots is one word: it
        // is from before or after whatever was in progress. Slots that it shows as free but that
        // a ring had or was about to get hold no block either. The group in a nest is left alone:
        // the nest's state may be torn.
        unsafe {
            let in_run = crate::group::bytes_of(meta) > crate::config::NEST_GROUP_MAX;
            let torn = (*meta).is(State::Free);
            if in_run && !torn {
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
            let parked = self.unpark();
            if !parked.is_null() {
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
        if id >= NOBODY as usize {
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
            heap
        } else {
            // SAFETY: nobody knows of the heap.
            unsafe { self.return_metadata(memory, size_of::<Heap>()) };
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

    /// Takes a heap that nobody is just collecting off the list of parked heaps; null if there is
    /// none.
    ///
    /// # Safety
    /// Heaps in the list are alive.
    unsafe fn unpark(&mut self) -> *mut Heap {
        let mut link = &raw mut self.provider.parked;
        // SAFETY: by contract; the lock makes the links ours.
        unsafe {
            while !(*link).is_null() {
                let heap = *link;
                if !(*heap).claimed {
                    *link = (*heap).next_parked;
                    return heap;
                }
                link = &raw mut (*heap).next_parked;
            }
        }
        ptr::null_mut()
    }
}
