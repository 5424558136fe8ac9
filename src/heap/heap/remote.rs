//! Frees of other heaps' blocks: deferred, sent to their owners, and collected by them.

use crate::base::config::{CLASSES, KEEP, PRESET};
use crate::base::fault::{stop, Fault};
use crate::base::platform::Platform;
use crate::exchange::abandoned::{give_back, Abandoned, Claim, Keeper};
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::layout::group::{ones, Group, MyGroup};
use crate::layout::slot::{Entry, LiveSlot};

/// A heap's owner is asked to collect when this part of what the heap holds is listed.
const LISTED_SHARE: usize = 8;

impl<P: Platform> MyHeap<'_, P> {
    /// Defers the free of a slot of another heap's group, which holds no block any more, until its
    /// group or everything is sent. Another group may make room. The heap is not the empty one.
    #[inline(never)]
    pub fn defer(self, slot: &LiveSlot) {
        if let Some((before, bits)) = self.deferred.start(slot.group) {
            self.all.send(before, bits);
        }
        self.defer_another(slot);
    }

    /// Defers the free of a slot of a group of which another one is deferred.
    #[inline(always)]
    pub fn defer_another(self, slot: &LiveSlot) {
        if !self.deferred.join(slot.group, slot.bit()) {
            stop(Fault::DoubleFree, slot.block().addr());
        }
        if self.deferred.count(slot.stride) {
            self.flush();
        }
    }

    /// Sends all deferred frees. The caller does not hold the lock.
    #[inline(never)]
    pub fn flush(self) {
        if self.all.count() < 2 {
            // Nobody to send to: a process with one thread should not touch this page.
            return;
        }
        let most = self.all.share(KEEP);
        self.deferred
            .take_all(most, |group, bits| self.all.send(group, bits));
    }

    /// If other threads freed something of this heap: collects it, sends what is deferred, and lets
    /// go of all that holds no block, however little that is: a thread that works on something else
    /// comes by here only when it was asked to, see `Heap::ask`.
    #[inline(never)]
    pub fn exchange(self) {
        if !self.collect() {
            return;
        }
        self.flush();
        self.let_go(CLASSES);
    }

    /// Collects what other threads freed of this heap. Returns whether there was something.
    pub fn collect(self) -> bool {
        let mail = &self.heap().mail.0;
        let most = self.bytes.get() / LISTED_SHARE;
        !mail.is_empty() && mail.collect(most, |group, bits| self.got_back(owned(group), bits))
    }

    /// Enters slots of a group of the heap that other threads freed (their tails verified by the
    /// freers).
    #[inline(never)]
    fn got_back(self, group: MyGroup, bits: u32) {
        if self.raced(group, bits) {
            stop(Fault::DoubleFree, group.start().addr());
        }
        let state = self.class(group.class());
        Self::put_back(|| self, state, group, bits, ones(bits.into()), false);
    }

    /// Whether a slot that another thread gave back was not the program's to free. The freer
    /// cleared its record and nobody had it since. Anything else is a double free that raced with
    /// another: the slot is freed, in the reuse queue, in quarantine, or used anew.
    #[inline(always)]
    fn raced(self, group: MyGroup, bits: u32) -> bool {
        let class = group.class();
        let state = self.class(class);
        let here = |entry: Entry| entry.is_of(&group, class, bits);
        let current = state
            .current
            .get()
            .is_some_and(|current| current.is_same(&group));
        current && state.avail.get() & bits != 0
            || group.freed() & bits != 0
            || !group.are_used(bits)
            || state.entries().any(here)
            || PRESET.quarantine != 0 && self.quarantine.iter().any(|place| here(place.get()))
    }
}

/// A group that stood in the mailbox of the heap that the caller works on.
fn owned(group: &'static Group) -> MyGroup {
    // SAFETY: a mailbox lists groups of its own heap only.
    unsafe { MyGroup::new(group) }
}

impl<P: Platform> Heaps<P> {
    /// Gives slots of a group, which hold no block and are the caller's, back to its owner.
    #[inline(never)]
    pub fn send(&self, group: &'static Group, bits: u32) {
        let owner = self.owner_of(group);
        // Groups of a heap that stayed behind in the parent of a fork go by records, which these
        // slots have lost.
        if !owner.mail.0.is_orphaned() && !give_back(self, owner, group, bits) {
            stop(Fault::DoubleFree, group.start().addr());
        }
    }
}

impl<P: Platform> Keeper for Heaps<P> {
    type Heap = Heap;

    fn with_abandoned<R>(&self, work: impl FnOnce(&mut Abandoned<Heap>) -> R) -> R {
        work(&mut self.roster(&mut self.memory.lock()).abandoned)
    }

    fn collect_claimed(&self, claim: &Claim<Heap>) {
        let heap = MyHeap::claimed(claim, self);
        let mut touched = 0u64;
        heap.heap().mail.0.collect(0, |group, bits| {
            touched |= 1 << group.class();
            heap.got_back(owned(group), bits);
        });
        heap.release_empty(touched);
        if heap.cold.get() {
            self.leave(claim);
        }
    }
}
