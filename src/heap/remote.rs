//! Frees by threads that do not own the group: bits set in the group's remote mask, and a list of
//! such groups for the owner. `outgoing.rs` tells when.
//!
//! ```text
//! freer:  mask.fetch_or(bits)  old == 0 → push the group on the owner's list
//!                              list's heap parked → the freer collects, under the provider lock
//! owner:  head.swap(null); for each group: read its link, then mask.swap(0)
//! ```
//!
//! A group is on the list at most once: only the change from 0 to nonzero pushes, and only the
//! collection of a listed group brings the mask back to 0. Bits are collected from listed groups
//! only, so a group is never released while a freer still holds it to push it. Heaps are never
//! freed, so a freer may look at the owner's mailbox at any time.

use crate::note;
use crate::sync::{fence, fence_behind_exchange, AtomicPtr, AtomicU32, Ordering};
use core::ptr;

/// Bits of the slots that other threads freed and the owner has not yet seen.
pub struct RemoteMask(AtomicU32);

impl RemoteMask {
    /// No bits.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        RemoteMask(AtomicU32::new(0))
    }

    /// The bits now, for checks. Relaxed: a snapshot that orders nothing.
    #[inline(always)]
    pub fn peek(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets `bits`; returns the mask before.
    ///
    /// Release: the freer's last accesses to the blocks, and their cleared records, come before the
    /// owner's reuse. Acquire: if the mask was brought to 0 by a collection, that collection's
    /// read of our link comes before our write of it.
    #[inline(always)]
    pub(crate) fn add(&self, bits: u32) -> u32 {
        self.0.fetch_or(bits, Ordering::AcqRel)
    }

    /// Takes all bits.
    ///
    /// Acquire: see what the freers did before. Release: our read of the link is done.
    #[inline(always)]
    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::AcqRel)
    }
}

/// What can be listed in a mailbox.
pub trait Node: Sized {
    /// Its remote frees.
    fn mask(&self) -> &RemoteMask;
    /// Its successor in the list; owned by whoever changed the mask from 0, until collected.
    fn link(&self) -> &AtomicPtr<Self>;
}

/// Who may work on a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Life {
    /// Nobody: the empty heap, or one that was dead and waits to be used anew.
    Unused = 0,
    /// One thread, without a lock.
    Active = 1,
    /// Whoever holds the provider lock: its thread has gone.
    Parked = 2,
    /// Nobody, ever: its thread stayed behind in the parent of a fork, perhaps in mid-update.
    Dead = 3,
}

/// What became of a remote free.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a parked heap must be collected by the freer, a double free must stop"]
pub enum Sent {
    /// The owner will find it.
    Delivered,
    /// The owner is parked: take the provider lock and collect.
    OwnerParked,
    /// One of the bits was set already.
    Double,
}

/// A heap's list of groups with remote frees, and who may work on the heap.
pub struct Mailbox<N> {
    head: AtomicPtr<N>,
    life: AtomicU32,
}

impl<N: Node> Mailbox<N> {
    /// An empty one of an unused heap.
    #[allow(clippy::new_without_default)]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Mailbox {
            head: AtomicPtr::new(ptr::null_mut()),
            life: AtomicU32::new(0),
        }
    }

    /// An empty one of an unused heap.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        Mailbox {
            head: AtomicPtr::new(ptr::null_mut()),
            life: AtomicU32::new(0),
        }
    }

    /// Gives slots `bits` of `node`, which the heap of this mailbox owns, back to it.
    ///
    /// # Safety
    /// The caller took those slots' blocks over from the program: that keeps `node` alive until
    /// the bits are set; from then on the change from 0 does, as described above. The heap is not
    /// dead.
    pub unsafe fn send(&self, node: *mut N, bits: u32) -> Sent {
        // SAFETY: the slots keep the node alive.
        let old = unsafe { (*node).mask().add(bits) };
        if old & bits != 0 {
            return Sent::Double;
        }
        if old != 0 {
            return Sent::Delivered;
        }
        // SAFETY: we changed the mask from 0, so the node stays until it is collected.
        unsafe { self.push(node) };
        // The owner parks by: store Parked, fence, take the list. We: push, fence, load. In the
        // single order of the two fences one comes first: either the parking thread sees our
        // push, or we see Parked.
        fence_behind_exchange();
        if self.life.load(Ordering::Relaxed) == Life::Parked as u32 {
            Sent::OwnerParked
        } else {
            Sent::Delivered
        }
    }

    /// Puts `node` at the head of the list.
    ///
    /// # Safety
    /// The caller changed the node's mask from 0.
    unsafe fn push(&self, node: *mut N) {
        note!(RemotePush);
        // Relaxed: only a guess that the exchange confirms.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: by contract the link is ours. Relaxed: the exchange publishes it.
            unsafe { (*node).link().store(head, Ordering::Relaxed) };
            // Release: whoever takes the list sees the link. Nothing is acquired: older nodes
            // are only looked at by the collector.
            match self
                .head
                .compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether a collection would find something. Relaxed: a hint.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes every listed group with its bits. Returns whether there was one.
    ///
    /// # Safety
    /// The caller may work on the heap, see `Life`.
    pub unsafe fn collect(&self, mut each: impl FnMut(*mut N, u32)) -> bool {
        note!(MailTaken);
        // Acquire: the links written before each push.
        let mut node = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let found = !node.is_null();
        while !node.is_null() {
            // The link first: once the mask is 0 the node may be pushed again.
            // SAFETY: listed nodes are alive, see above. Relaxed: ordered by the swap of the head.
            let (next, bits) = unsafe {
                (
                    (*node).link().load(Ordering::Relaxed),
                    (*node).mask().take(),
                )
            };
            note!(Collected);
            each(node, bits);
            node = next;
        }
        found
    }

    /// Whether the heap's thread stayed behind in the parent of a fork. Relaxed: a heap dies in the
    /// child before that child has a second thread.
    #[inline(always)]
    pub fn is_dead(&self) -> bool {
        self.life.load(Ordering::Relaxed) == Life::Dead as u32
    }

    /// Who may work on the heap. Relaxed: the caller holds the provider lock, or asks of itself.
    pub fn life(&self) -> u32 {
        self.life.load(Ordering::Relaxed)
    }

    /// Changes who may work on the heap, under the provider lock. After `Parked` the caller must
    /// collect once more.
    pub fn set_life(&self, life: Life) {
        // Relaxed: heap state is handed over by the provider lock.
        self.life.store(life as u32, Ordering::Relaxed);
        // The counterpart of the fence in `send`.
        fence(Ordering::SeqCst);
    }
}
