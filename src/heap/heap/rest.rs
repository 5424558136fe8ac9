//! Heaps brought to rest, and everything given back that is kept for later: altogether, or when
//! little is left of what a heap had.

use crate::base::config::{CLASSES, GRANULE};
use crate::base::platform::Platform;
use crate::exchange::abandoned::{abandon, Claim, Keeper};
use crate::heap::class::Class;
use crate::heap::heap::{Heap, Heaps, MyHeap};

/// A heap settles if no more than this part of the bytes in its groups is live.
const SETTLED_SHARE: usize = 4;

impl<'a, P: Platform> MyHeap<'a, P> {
    /// Gives back what the heap keeps of each kind, and the process's dirty pages, where that is more
    /// than what is live, once most of what the heap had is gone: perhaps no further free will come.
    /// Not more often than decay.rs says: a program that builds up and drops all it has, again and
    /// again, mostly finds what it kept. Class `last` keeps the reuse queue that it still has: most
    /// blocks that are freed twice are freed twice in a row.
    pub fn settle(self, last: usize) {
        let live: usize = self.classes().map(|(_, state)| state.live()).sum();
        let little = live <= self.bytes.get() / SETTLED_SHARE;
        if !little || !self.settled.ask().is_due(self.platform(), live) {
            return;
        }
        self.let_go(last);
        if self.idle.amount() > live {
            self.purge_idle();
        }
        if self.idle_granules.amount() * GRANULE > live {
            self.purge_granules();
        }
        // Many heaps together ask for the pages that all of them use as often as one may.
        let alone = self.all.count() < 2;
        self.all.memory.lock().pages.purge_beyond(live, alone);
    }

    /// Releases the groups of all classes of which the program has no block, but for those of
    /// `spared`.
    #[cold]
    #[inline(never)]
    pub fn let_go(self, spared: usize) {
        for (class, state) in self.classes().filter(|&(class, _)| class != spared) {
            if state.has_no_block() {
                self.put_away(class);
            }
        }
        self.release_empty(u64::MAX);
    }

    /// Bytes in groups of classes of which the program has no block.
    pub fn bare(self) -> usize {
        let bare = self.classes().filter(|(_, state)| state.has_no_block());
        bare.map(|(class, state)| self.slots[class].get() as usize * state.stride())
            .sum()
    }

    /// The classes of which the heap has groups.
    fn classes(self) -> impl Iterator<Item = (usize, &'static Class)> + use<'a, P> {
        (0..CLASSES)
            .filter(move |&class| self.slots[class].get() != 0)
            .map(move |class| (class, self.class(class)))
    }

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
