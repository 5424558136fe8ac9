//! Heaps brought to rest, and everything given back that is kept for later.

use crate::base::config::{CLASSES, PRESET};
use crate::base::fault::raise;
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::exchange::abandoned::{abandon, Claim, Keeper};
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::layout::slot::Entry;

impl<P: Platform> MyHeap<'_, P> {
    /// Brings a heap to rest: nothing in quarantine, no slot in a reuse queue, empty groups
    /// released.
    pub fn come_to_rest(self) {
        self.flush();
        self.empty_quarantine();
        self.collect();
        for class in 0..CLASSES {
            self.spill(class);
            self.retire(class);
        }
        self.release_empty(u64::MAX);
        if self.idle.amount() > 0 {
            self.purge_idle();
        }
        self.drop_empty_spans();
    }

    /// Gives back whatever the heap and the process keep for later. Of the empty heap only the
    /// latter.
    pub fn trim(self) {
        if !self.is_empty() {
            self.come_to_rest();
        }
        while let Some(claim) = self
            .all
            .with_abandoned(|abandoned| abandoned.reclaim(false))
        {
            self.all.abandon_at_rest(claim);
        }
        self.all.memory.lock().release_kept();
    }

    /// Verifies all slots in all reuse queues: their tails, or, where the preset does that at the
    /// free, that they are clear. Of the empty heap there is none.
    #[inline(never)]
    pub fn verify_queues(self) {
        for class in 0..CLASSES {
            let state = self.class(class);
            if state.ready() != 0 {
                state.forget_verified();
                self.verify_queue(class);
                if PRESET.zero_on_free {
                    raise(state.verify(|slot| slot.check_clear(state.stride())));
                }
            }
        }
    }

    /// In the hardened preset: verifies that all slots in quarantine are clear. One that is not
    /// leaves it: a handler's malloc is not to come upon it.
    pub fn verify_quarantine(self) {
        for place in self.quarantine.iter().filter(|_| PRESET.quarantine != 0) {
            let waits = place.replace(Entry::NONE);
            if waits != Entry::NONE {
                let slot = waits.slot();
                raise(slot.check_clear(stride(slot.group().class())));
                place.set(waits);
            }
        }
    }
}

impl<P: Platform> Heaps<P> {
    /// Brings a heap to rest and abandons it.
    pub fn abandon_at_rest(&self, claim: Claim<Heap>) {
        MyHeap::claimed(&claim, self).come_to_rest();
        // One at rest is never too much.
        abandon(self, claim, 0);
    }
}
