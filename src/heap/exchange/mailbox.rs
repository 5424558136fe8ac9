//! Frees by threads that do not own the group: bits set in the group's remote mask, and a list of
//! such groups for the owner. `deferred.rs` tells when they are sent.
//!
//! ```text
//! freer:  mask.fetch_or(bits)  old == 0 → push the group on the owner's list
//!                              the owner abandoned → the freer claims the heap and collects
//!                              much is listed → the owner is asked to collect
//!                              much of that holds no block any more → `put_aside`
//! owner:  head.swap(null); for each group: read its link, then mask.swap(0)
//!         locked: `take_aside`
//! ```
//!
//! A group all of whose slots stand in its remote mask is *complete*: it holds no block, nobody
//! frees into it, and its owner has none of its slots. When many bytes of such wait, as for an
//! owner that sleeps, a freer takes the list under the lock, keeps the complete groups aside, and
//! lists the others again; what it does with the memory of those aside tells `heap/aside.rs`.
//!
//! A group is on the list at most once, or in the hand of who took the list, or aside: only the
//! change from 0 to nonzero pushes, and only the collection of a group that is listed or aside
//! brings the mask back to 0. Bits are collected from such groups only, so a group is never
//! released while a freer still holds it to push it. Heaps are never freed, so a freer may look at
//! the owner's mailbox at any time.

use crate::base::lock::Held;
use crate::base::sync::{fence_behind_exchange, AtomicPtr, AtomicU32, Guess, Ordering};
use crate::note;
use core::mem::offset_of;
use core::ptr;

/// After a look for complete groups the next one comes once this part of the bytes that were listed
/// again has been completed.
const LEFT_SHARE: usize = 8;

/// The mark of the link of a node that is aside: a bit that no address of a node has.
const ASIDE: usize = 1;

/// Bits of the slots that other threads freed and the owner has not collected yet.
pub struct RemoteMask(AtomicU32);

impl RemoteMask {
    /// No bits.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        RemoteMask(AtomicU32::new(0))
    }

    /// Makes it a new group's mask: no bits. Relaxed: the map entry that leads to the group comes
    /// later.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The bits now, for checks. Relaxed: a snapshot that orders nothing.
    pub fn peek(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it has all bits of a group of these slots.
    ///
    /// Acquire: what the freers did, their cleared records as well, comes before.
    fn is_complete(&self, slots: u32) -> bool {
        self.0.load(Ordering::Acquire) == slots
    }

    /// Sets `bits`; returns the mask before.
    ///
    /// Release: the freer's last accesses to the blocks, and their cleared records, come before the
    /// owner's reuse. Acquire: if the mask was brought to 0 by a collection, that collection's
    /// read of our link comes before our write of it.
    pub fn add(&self, bits: u32) -> u32 {
        self.0.fetch_or(bits, Ordering::AcqRel)
    }

    /// Takes all bits.
    ///
    /// Acquire: see what the freers did before. Release: our read of the link is done.
    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::AcqRel)
    }
}

/// What can be listed in a mailbox. All of it may be used by several threads.
pub trait Node: Sized + 'static {
    /// Its remote frees.
    fn mask(&self) -> &RemoteMask;
    /// Its successor in the list, or aside, and a mark if it is aside; owned by whoever changed the
    /// mask from 0, until collected.
    fn link(&self) -> &AtomicPtr<Self>;
    /// Bits of all its slots. Fixed, as the next, while it lives.
    fn slots(&self) -> u32;
    /// Bytes of it.
    fn weight(&self) -> usize;
}

/// Who may work on a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Life {
    /// Nobody: the empty heap, or one that was orphaned and waits to be used anew.
    Unused = 0,
    /// One thread, without a lock.
    Active = 1,
    /// Whoever makes it `Claimed`, or `Active` under the lock: its thread ended.
    Abandoned = 2,
    /// Nobody, ever: its thread stayed behind in the parent of a fork, perhaps in mid-update.
    Orphaned = 3,
    /// The thread that claimed it, to collect once for a heap that has no thread.
    Claimed = 4,
}

/// The nodes from one on. Each link is read before its node is shown: who is shown one may push it
/// again, or release it. Relaxed: the caller took the first so that it sees the links.
fn each_of<N: Node>(first: *mut N) -> impl Iterator<Item = &'static N> {
    // SAFETY: links lead to nodes that `push` got by reference, and a node stays until its bits are
    // taken, as by a caller that was shown it.
    let node = |at: *mut N| unsafe { at.as_ref() };
    core::iter::successors(node(first), move |shown| node(next_of(shown)))
}

/// The successor of a node that the caller has in hand. Relaxed: see `each_of`.
fn next_of<N: Node>(node: &N) -> *mut N {
    let link = node.link().load(Ordering::Relaxed);
    link.map_addr(|at| at & !ASIDE)
}

/// Whether a node is aside. Relaxed: the mark comes and goes under the lock only.
pub fn is_aside<N: Node>(node: &N, _: &Held) -> bool {
    node.link().load(Ordering::Relaxed).addr() & ASIDE != 0
}

/// What became of a remote free.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an abandoned heap must be collected by the freer, a double free must stop"]
pub enum Sent {
    /// The owner will find it. `much`: so much is listed that it should be asked to look now.
    /// `beyond`: bytes of complete groups that wait for it, beyond as many as may be listed.
    Delivered { much: bool, beyond: usize },
    /// The owner is abandoned: claim it and collect.
    OwnerAbandoned,
    /// One of the bits was set already.
    Double,
}

/// A heap's list of groups with remote frees, and who may work on the heap.
pub struct Mailbox<N> {
    head: AtomicPtr<N>,
    life: AtomicU32,
    /// Bytes of the groups that were listed since the last collection, or since the owner was asked
    /// to collect.
    listed: Guess,
    /// It is asked when there are more than this many.
    most: Guess,
    /// Bytes of the groups that were completed since the last collection, or since complete ones
    /// were put aside.
    complete: Guess,
    /// Complete groups, linked as those in the list. Changed under the lock.
    aside: AtomicPtr<N>,
}

impl<N: Node> Mailbox<N> {
    /// Where the life is, for who reads a heap from outside.
    pub const LIFE: usize = offset_of!(Self, life);

    /// An empty one of an unused heap.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        Mailbox {
            head: AtomicPtr::new(ptr::null_mut()),
            life: AtomicU32::new(0),
            listed: Guess::ZERO,
            most: Guess::ZERO,
            complete: Guess::ZERO,
            aside: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Gives slots `bits` of `node`, which the heap of this mailbox owns, back to it. The caller
    /// took those slots' blocks over from the program, which keeps `node` alive until the bits are
    /// set; from then on the change from 0 does. The heap is not orphaned.
    pub fn send(&self, node: &'static N, bits: u32) -> Sent {
        // Before the bits are set: then the node may go.
        let (slots, bytes) = (node.slots(), node.weight());
        let old = node.mask().add(bits);
        if old & bits != 0 {
            return Sent::Double;
        }
        let beyond = if old | bits == slots {
            self.count_complete(bytes)
        } else {
            0
        };
        if old != 0 {
            return Sent::Delivered {
                much: false,
                beyond,
            };
        }
        let much = self.count_listed(bytes);
        self.push(node);
        // The owner abandons its heap by: store Abandoned, fence, take the list. We: push, fence,
        // load. In the single order of the two fences one comes first: either the ending thread
        // sees our push, or we see Abandoned.
        fence_behind_exchange();
        if self.life.load(Ordering::Relaxed) == Life::Abandoned as u32 {
            Sent::OwnerAbandoned
        } else {
            Sent::Delivered { much, beyond }
        }
    }

    /// Counts a node of so many bytes that was completed. How many bytes of such wait, beyond what
    /// may be listed.
    fn count_complete(&self, bytes: usize) -> usize {
        let complete = self.complete.get() + bytes;
        self.complete.set(complete);
        complete.saturating_sub(self.most.get())
    }

    /// Counts a node of so many bytes that is about to be listed. Whether much is listed: then it
    /// counts from 0 on.
    fn count_listed(&self, bytes: usize) -> bool {
        let listed = self.listed.get() + bytes;
        let much = listed > self.most.get();
        self.listed.set(if much { 0 } else { listed });
        much
    }

    /// Puts `node`, whose mask the caller changed from 0, at the head of the list.
    fn push(&self, node: &'static N) {
        note!(RemotePush);
        // Relaxed: only a guess that the exchange confirms.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // Relaxed: the link is ours, and the exchange publishes it.
            node.link().store(head, Ordering::Relaxed);
            // Release: whoever takes the list sees the link. Nothing is acquired: older nodes
            // are only looked at by the collector.
            let new = ptr::from_ref(node).cast_mut();
            let exchanged =
                self.head
                    .compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether a collection would find nothing. Relaxed: a hint.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null() && !self.has_aside()
    }

    /// Whether groups were completed since the last collection, or since such were put aside.
    pub fn has_complete(&self) -> bool {
        self.complete.get() != 0
    }

    /// Whether groups are aside. Relaxed: a hint.
    pub fn has_aside(&self) -> bool {
        !self.aside.load(Ordering::Relaxed).is_null()
    }

    /// Takes every listed group with its bits, for a caller that may work on the heap (see `Life`).
    /// From now on, groups of `most` bytes may be listed before the owner is asked to collect.
    pub fn collect(&self, most: usize, mut each: impl FnMut(&'static N, u32)) {
        note!(MailTaken);
        self.listed.set(0);
        self.complete.set(0);
        self.most.set(most);
        // Acquire: the links written before each push. Each is read first: once the mask is 0 the
        // node may be pushed again.
        for node in each_of(self.head.swap(ptr::null_mut(), Ordering::Acquire)) {
            let bits = node.mask().take();
            note!(Collected);
            each(node, bits);
        }
    }

    /// For an owner that does not come: takes the list, keeps those complete groups aside that
    /// `may` be so, and lists the others again. How many it was. The heap has a thread, and while
    /// the lock is held it keeps it: so nobody abandons the heap who should find those in hand.
    pub fn put_aside(&self, _: &Held, mut may: impl FnMut(&'static N) -> bool) -> usize {
        self.complete.set(0);
        let (mut count, mut left) = (0, 0);
        // Acquire: the links written before each push.
        for node in each_of(self.head.swap(ptr::null_mut(), Ordering::Acquire)) {
            // Off the list the node is ours until it is pushed again, or, if it is complete, taken
            // from those aside.
            if node.mask().is_complete(node.slots()) && may(node) {
                // Relaxed, all: who looks at those aside has the lock.
                let next = self.aside.load(Ordering::Relaxed);
                let marked = next.map_addr(|at| at | ASIDE);
                node.link().store(marked, Ordering::Relaxed);
                self.aside
                    .store(ptr::from_ref(node).cast_mut(), Ordering::Relaxed);
                count += 1;
            } else {
                left += node.weight();
                self.push(node);
            }
        }
        // The more there is to look at, the later again.
        self.most.set(self.most.get().max(left / LEFT_SHARE));
        count
    }

    /// The groups aside, the latest first.
    pub fn aside(&self, _: &Held) -> impl Iterator<Item = &'static N> {
        each_of(self.aside.load(Ordering::Relaxed))
    }

    /// Takes the groups aside, for a caller that may work on the heap: they have neither mark nor
    /// bits any more.
    pub fn take_aside(&self, held: &Held) -> impl Iterator<Item = &'static N> {
        self.aside(held).for_each(|node| {
            node.link().store(next_of(node), Ordering::Relaxed);
            node.mask().take();
        });
        // Relaxed: the lock orders it.
        each_of(self.aside.swap(ptr::null_mut(), Ordering::Relaxed))
    }

    /// Drops what is listed and aside: a fork left it in an orphaned heap, whose groups are
    /// another's now.
    pub fn forget(&self) {
        // Relaxed: no other thread lists anything in it before it is active.
        self.head.store(ptr::null_mut(), Ordering::Relaxed);
        self.aside.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether the heap's thread stayed behind in the parent of a fork. Relaxed: a heap is orphaned
    /// in the child before that child has a second thread.
    pub fn is_orphaned(&self) -> bool {
        self.life.load(Ordering::Relaxed) == Life::Orphaned as u32
    }

    /// Whether `life` says who may work on the heap. Relaxed: the caller holds the lock and asks of
    /// what changes under it only, or asks of its own heap, or there is no other thread.
    pub fn is(&self, life: Life) -> bool {
        self.life.load(Ordering::Relaxed) == life as u32
    }

    /// The number of the `Life`, at rest.
    #[cfg(any(test, feature = "model", feature = "dump"))]
    pub fn life(&self) -> u32 {
        self.life.load(Ordering::Relaxed)
    }

    /// Changes who may work on the heap, by whom that is so far. After `Abandoned` the caller must
    /// look into the mailbox once more.
    pub fn set_life(&self, life: Life) {
        // Release: what was done to the heap, for whoever takes it over. An exchange, as its fence
        // costs nothing on x86: the counterpart of the one in `send`.
        self.life.swap(life as u32, Ordering::Release);
        fence_behind_exchange();
    }

    /// Takes over a heap that nobody works on, if its life is `from`; whether it was.
    pub fn take_over(&self, from: Life, to: Life) -> bool {
        // Acquire: what was done to the heap before, see `set_life`. Relaxed: or nothing is done.
        // No fence: whoever takes a heap over and leaves it again looks into the mailbox then.
        let (from, to) = (from as u32, to as u32);
        self.life
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}
