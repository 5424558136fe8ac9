//! Frees of other heaps' blocks: deferred, sent to their owners, and collected by them.

use crate::base::config::{CLASSES, KEEP, PRESET};
use crate::base::fault::{stop, Fault};
use crate::base::platform::Platform;
use crate::exchange::abandoned::{give_back, Abandoned, Claim, Keeper};
use crate::exchange::mailbox::Node;
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::layout::group::{ones, Group, MyGroup};
use crate::layout::record::{PURGED, USED};
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
        self.release_empty(u64::MAX);
    }

    /// Collects what other threads freed of this heap. Returns whether there was something.
    pub fn collect(self) -> bool {
        !self.heap().mail.0.is_empty() && self.take_mail(self.bytes.get() / LISTED_SHARE) != 0
    }

    /// Collects what other threads freed. From now on groups of `most` bytes may be listed before
    /// the owner is asked to. Returns a bit for each class of which something came.
    fn take_mail(self, most: usize) -> u64 {
        let (mail, mut classes) = (&self.heap().mail.0, 0u64);
        mail.collect(most, |group, bits| {
            classes |= 1 << group.class();
            self.got_back(owned(group), bits, USED);
        });
        if mail.has_aside() {
            for group in self.take_aside() {
                classes |= 1 << group.class();
                self.got_back(owned(group), group.slots(), PURGED);
            }
        }
        classes
    }

    /// Enters slots of a group of the heap that other threads freed (their tails verified by the
    /// freers), and that have this mark.
    #[inline(never)]
    fn got_back(self, group: MyGroup, bits: u32, mark: u8) {
        self.expect_freed(group, bits, mark);
        let (state, count) = (self.class(group.class()), ones(bits.into()));
        if mark == USED {
            return Self::put_back(|| self, state, group, bits, count, false);
        }
        // Of a group that was aside: its pages are gone, none of it lies idle.
        state.out.set(state.out.get() - count);
        group.set_freed(group.freed() | bits);
        self.after_put_back(group, false);
    }

    /// Stops the process if a slot that another thread gave back was not the program's to free. The
    /// freer left this mark for a record, and nobody had the slot since. Anything else is a double
    /// free that raced with another: the slot is freed, in the reuse queue, in quarantine, or used
    /// anew.
    #[inline(always)]
    fn expect_freed(self, group: MyGroup, bits: u32, mark: u8) {
        let class = group.class();
        let state = self.class(class);
        let here = |entry: Entry| entry.is_of(&group, class, bits);
        let current = state
            .current
            .get()
            .is_some_and(|current| current.is_same(&group));
        if current && state.avail.get() & bits != 0
            || group.freed() & bits != 0
            || !group.are(bits, mark)
            || state.entries().any(here)
            || PRESET.quarantine != 0 && self.quarantine.iter().any(|place| here(place.get()))
        {
            stop(Fault::DoubleFree, group.start().addr());
        }
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
        heap.release_empty(heap.take_mail(0));
        if heap.cold.get() {
            self.leave(claim);
        }
    }

    fn put_aside(&self, heap: &'static Heap, bytes: usize) {
        Heaps::put_aside(self, heap, bytes);
    }
}
