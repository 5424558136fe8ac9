//! Threads come and go, heaps stay: attached to a thread, abandoned when it ends, reclaimed by the
//! next.
//!
//! A thread keeps its heap until `thread_exit`. Some only borrow one, from each call that needs one
//! to the end of that call: threads that have handed theirs over and still allocate, as nobody
//! would abandon another one; threads whose exit the system does not tell; and those that find all
//! numbers of heaps in use but one. Nobody keeps the last heap.

use crate::allocator::Allocator;
use crate::base::config::{GRANULE, PRESET};
use crate::base::fault::raise;
use crate::base::platform::Platform;
use crate::exchange::abandoned::WARM_BYTES;
use crate::exchange::abandoned::{abandon, Claim};
use crate::exchange::mailbox::Life;
use crate::heap::heap::{Heap, MyHeap};
use crate::pages::memory::Locked;

impl<P: Platform> Allocator<P> {
    /// Gives this thread a heap: an abandoned one, or a new one. The caller must `end_loan`. None
    /// when memory or numbers are out.
    #[cold]
    #[inline(never)]
    pub(crate) fn attach(&self) -> Option<MyHeap<'_, P>> {
        let (first, last, heap) = {
            let mut locked = self.heaps.memory.lock();
            locked.pages.draw_secrets();
            let first = self.heaps.count() == 0;
            let mut heap = self.heap_for_thread(&mut locked);
            if heap.is_none() {
                locked.release_kept();
                heap = self.heap_for_thread(&mut locked);
            }
            let none_left = self.heaps.roster(&mut locked).abandoned.is_empty();
            (first, self.heaps.are_numbers_out() && none_left, heap?)
        };
        self.heaps.set_mine(Some(heap.heap()));
        // Now that the thread has a heap: it may allocate.
        let keeps = self.platform().tell_exit();
        if first {
            self.platform().first_heap();
        }
        let heap = MyHeap::claimed(&heap, &self.heaps);
        heap.lent.set(last || !keeps);
        heap.collect();
        Some(heap)
    }

    /// At the end of a call that may have attached a heap: gives it back if it was only lent.
    pub(crate) fn end_loan(&self) {
        if self.mine().lent.get() {
            self.thread_exit();
        }
    }

    /// In the last moments of a thread: what it has to do with its heap ends. Later calls of this
    /// thread may still free (like any other thread) and even allocate (with a heap that is lent).
    pub fn thread_exit(&self) {
        let heap = self.mine();
        if heap.is_empty() {
            return;
        }
        self.heaps.set_mine(None);
        heap.lent.set(false);
        heap.flush();
        heap.empty_quarantine();
        heap.collect();
        let bytes = heap.bytes.get() + heap.idle_granules.amount() * GRANULE;
        // SAFETY: the heap was this thread's, which has the empty one now, and nobody else knows of
        // it until it is abandoned.
        let mut claim = Some(unsafe { Claim::new(heap.heap()) });
        if bytes <= WARM_BYTES / 2 {
            // Tails are verified now, although the slots stay in their queues: nobody may reclaim
            // the heap for long.
            heap.verify_queues();
            claim = claim.and_then(|claim| abandon(&self.heaps, claim, bytes.max(1)));
        }
        if let Some(claim) = claim {
            self.heaps.abandon_at_rest(claim);
        }
    }

    /// At the end of the program: verifies this thread's freed slots in reuse queues, quarantine
    /// and masks, and collects what other threads freed, which finds double frees that raced. Then
    /// the tails in other heaps' queues, where other threads may still be at work. What may take
    /// the lock is left out if that stays taken: a handler of a signal may have called exit, and
    /// have interrupted its holder.
    pub fn process_exit(&self) {
        let heap = self.mine();
        if !heap.is_empty() {
            if self.heaps.memory.try_lock().is_some() {
                heap.flush();
                heap.collect();
            }
            heap.verify_quarantine();
            heap.verify_queues();
            heap.verify_masks();
        }
        let others = self.heaps.count() - !heap.is_empty() as usize;
        if !PRESET.check_at_free && others > 0 {
            let locked = self.heaps.memory.try_lock();
            let verified = locked.map(|locked| self.heaps.verify_others(&locked, heap.heap()));
            raise(verified.unwrap_or(Ok(())));
        }
    }

    /// A heap for the calling thread, active.
    fn heap_for_thread(&self, locked: &mut Locked<'_, P>) -> Option<Claim<Heap>> {
        let main = self.main_heap();
        if self.heaps.count() == 0 {
            let claim = self.set_up(locked, main, 1);
            return self.heaps.enter(locked, main).then_some(claim);
        }
        // The dynamic linker may move the first thread's state after its first allocations; its
        // word is zero again, and there is no other thread that could have the heap.
        if main.mail.0.is(Life::Active) && !self.platform().threaded() {
            // SAFETY: this is the only thread, and its word leads to no heap.
            return Some(unsafe { Claim::new(main) });
        }
        let Some(claim) = self.heaps.roster(locked).abandoned.reclaim(true) else {
            return self.make_heap(locked);
        };
        let heap = claim.heap();
        if heap.is_unset() {
            // What it was in the parent of a fork has gone, see `orphans::bury`.
            let id = heap.id();
            // SAFETY: nobody else knows of the heap, and zero is a valid one.
            unsafe { core::ptr::from_ref(heap).cast_mut().write_bytes(0, 1) };
            return Some(self.set_up(locked, heap, id));
        }
        Some(claim)
    }

    /// A new heap, its memory in the pool.
    fn make_heap(&self, locked: &mut Locked<'_, P>) -> Option<Claim<Heap>> {
        if self.heaps.are_numbers_out() {
            return None;
        }
        let memory = locked.pages.metadata(size_of::<Heap>())?;
        // SAFETY: the memory is ours for ever, zero and aligned, and zero is a valid heap.
        let heap = unsafe { &*memory.cast::<Heap>() };
        let claim = self.set_up(locked, heap, self.heaps.count() as u16 + 1);
        if self.heaps.enter(locked, heap) {
            return Some(claim);
        }
        // SAFETY: nobody knows of the heap, and its memory goes back as it came.
        unsafe { memory.write_bytes(0, size_of::<Heap>()) };
        locked.pages.return_metadata(memory, size_of::<Heap>());
        None
    }

    /// Readies a zero heap that nobody knows of, with a new number or the one that it had.
    fn set_up(&self, locked: &Locked<'_, P>, heap: &'static Heap, id: u16) -> Claim<Heap> {
        // SAFETY: nobody else knows of the heap.
        let claim = unsafe { Claim::new(heap) };
        let seed = self
            .heaps
            .memory
            .system
            .secrets
            .draw_seed(&locked.pages.held);
        let mine = MyHeap::claimed(&claim, &self.heaps);
        mine.id.set(id);
        mine.seed.set(seed);
        for (own, process) in mine.generator.iter().zip(&locked.pages.generator) {
            own.start(process.draw(self.platform()));
        }
        heap.mail.0.set_life(Life::Active);
        claim
    }
}
