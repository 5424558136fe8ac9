//! Heaps brought to rest, and everything given back that is kept for later.

use crate::base::config::CLASSES;
use crate::base::platform::Platform;
use crate::exchange::abandoned::{abandon, Claim, Keeper};
use crate::heap::heap::{Heap, Heaps, MyHeap};

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
            MyHeap::claimed(&claim, self.all).come_to_rest();
            self.all.abandon_cold(claim);
        }
        self.all.memory.lock().release_kept();
    }
}

impl<P: Platform> Heaps<P> {
    /// Abandons a heap at rest, beyond those that count.
    pub fn abandon_cold(&self, claim: Claim<Heap>) {
        MyHeap::claimed(&claim, self).cold.set(true);
        self.leave(&claim);
        // One at rest is never too much.
        abandon(self, claim, 0);
    }
}
