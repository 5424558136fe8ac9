//! Threads come and go, heaps stay: attached to a thread, abandoned when it ends, reclaimed by the
//! next.
//!
//! A thread keeps its heap until `thread_exit`. Some only borrow one, from each call that needs one
//! to the end of that call: threads that have handed theirs over and still allocate, as nobody
//! would abandon another one; threads whose exit the system does not tell; and those that find all
//! numbers of heaps in use but one. Nobody keeps the last heap.

use crate::allocator::Allocator;
use crate::base::config::{GRANULE, PRESET, RUN_PAGE};
use crate::base::fault::raise;
use crate::base::platform::Platform;
use crate::exchange::abandoned::{abandon, Claim, WARM_BYTES};
use crate::exchange::mailbox::Life;
use crate::heap::heap::{Heap, MyHeap, BODY_BYTES};
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
            // Where it is numbers that are out, others' heaps are waited for.
            if heap.is_none() && !self.heaps.are_numbers_out() {
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
        heap.cold.set(false);
        heap.thread.set(self.platform().thread_id());
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
        // SAFETY: the heap was this thread's, which has the empty one now, and nobody else knows of
        // it until it is abandoned.
        let mut claim = Some(unsafe { Claim::new(heap.heap()) });
        // As it is, if it is small; else at rest; and without its body, if there are many of these.
        let held = || heap.bytes.get() + heap.idle_granules.amount() * GRANULE + BODY_BYTES;
        if held() <= WARM_BYTES / 2 + BODY_BYTES {
            // Tails are verified now, although the slots stay in their queues: nobody may reclaim
            // the heap for long.
            heap.verify_queues();
            claim = claim.and_then(|claim| abandon(&self.heaps, claim, held()));
        }
        if let Some(claim) = claim {
            heap.come_to_rest();
            if let Some(claim) = abandon(&self.heaps, claim, held()) {
                self.heaps.abandon_cold(claim);
            }
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
        // The dynamic linker may move the first thread's state after its first allocations; its
        // word is zero again, and there is no other thread that could have the heap.
        let first = self.heaps.by_id(1);
        if let Some(first) = first.filter(|first| first.mail.0.is(Life::Active)) {
            if !self.platform().threaded() {
                // SAFETY: this is the only thread, and its word leads to no heap.
                return Some(unsafe { Claim::new(first) });
            }
        }
        if let Some(claim) = self.heaps.roster(locked).abandoned.reclaim(true) {
            if claim.heap().is_unset() {
                // SAFETY: the claim is the right to the heap.
                unsafe { claim.heap().clear() };
                self.set_up(locked, &claim);
            }
            return Some(claim);
        }
        let heap = self.heaps.enter(locked, |locked| match first {
            None => Some(self.main_body()),
            Some(_) => {
                let align = if self.heaps.have_bodies_pages() {
                    self.platform().page_size()
                } else {
                    RUN_PAGE
                };
                let body = locked.pages.metadata(BODY_BYTES, align);
                body.map(|at| at.cast())
            }
        })?;
        // SAFETY: nobody else knows of the heap.
        let claim = unsafe { Claim::new(heap) };
        self.set_up(locked, &claim);
        Some(claim)
    }

    /// Readies a heap whose body is zero.
    fn set_up(&self, locked: &Locked<'_, P>, claim: &Claim<Heap>) {
        let mine = MyHeap::claimed(claim, &self.heaps);
        mine.start(claim);
        for (own, process) in mine.generator.iter().zip(&locked.pages.generator) {
            own.start(process.draw(self.platform()));
        }
        claim.heap().mail.0.set_life(Life::Active);
    }
}
