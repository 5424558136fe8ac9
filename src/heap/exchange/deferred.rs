//! Deferred frees: other heaps' blocks that a thread has freed and not yet sent. One atomic
//! operation then gives all slots of a group back.
//!
//! ```text
//! free     the block's record is cleared at once: the block is dead, a second free a fault
//!          → the slot's bit joins those of its group, if the group has an entry
//!                 otherwise another group's bits make room, and go to their owner
//! flushed  an entry that must make room; all of them when they hold much, at every 32nd refill of
//!          the thread, when it is short of memory, when it exits, and when it exits the program
//! ```
//!
//! Two threads that free one block at the same moment may both find its record live. The bit that
//! comes second is found when both have been flushed: not by an exit while the other thread lives
//! and has not flushed its own.
//!
//! A group with a bit here is not empty for its owner, so neither it nor its owner changes. An
//! abandoned heap defers nothing.

use crate::base::config::DEFERRED;
use crate::base::places::places;
use crate::base::sync::{compiler_fence, Ordering::Release};
use crate::base::zeroed::Zeroed;
use core::cell::Cell;
use core::mem::offset_of;
use core::ptr;

/// Slots of one group.
pub struct Entry<N: 'static> {
    /// The group; None if the entry is free.
    node: Cell<Option<&'static N>>,
    /// Its slots.
    bits: Cell<u32>,
}

/// What a heap's thread defers. Belongs to whom the heap belongs to.
#[repr(C, align(64))]
pub struct Deferred<N: 'static> {
    /// By address of the group.
    entries: [Entry<N>; DEFERRED],
    /// Bytes of the slots here, or a little more: slots that made room still count.
    bytes: Cell<u32>,
    /// How many there may be.
    most: Cell<u32>,
}

// SAFETY: cells of numbers and of references behind an Option; nothing may be deferred yet.
unsafe impl<N> Zeroed for Deferred<N> {}

impl<N> Deferred<N> {
    /// Where its fields are: entries; how many, the size of one, and in it node and bits.
    pub const FIELDS: [usize; 5] = places!(Self: entries;
        DEFERRED, size_of::<Entry<N>>(), offset_of!(Entry<N>, node), offset_of!(Entry<N>, bits));

    /// Where the slots of `node` stand, if any do.
    fn place(&self, node: &N) -> &Entry<N> {
        // Cells of neighbouring groups differ in the bits above a cell's size.
        &self.entries[(ptr::from_ref(node).addr() / 64) % DEFERRED]
    }

    /// Whether `node` has an entry.
    pub fn holds(&self, node: &N) -> bool {
        let held = self.place(node).node.get();
        held.is_some_and(|held| ptr::eq(held, node))
    }

    /// The slots of `node` that are deferred here.
    pub fn held_of(&self, node: &N) -> u32 {
        if self.holds(node) {
            self.place(node).bits.get()
        } else {
            0
        }
    }

    /// Makes an entry for `node` if there is none; returns the group and slots that stood there.
    #[inline(always)]
    pub fn start(&self, node: &'static N) -> Option<(&'static N, u32)> {
        if self.holds(node) {
            return None;
        }
        let entry = self.place(node);
        let bits = entry.bits.replace(0);
        // In this order: a handler of a signal may call exit, and no slot is of another's group.
        compiler_fence(Release);
        let before = entry.node.replace(Some(node));
        before.map(|before| (before, bits))
    }

    /// Adds slot `bit` of `node`, which has an entry. False: it was there already.
    #[inline(always)]
    pub fn join(&self, node: &N, bit: u32) -> bool {
        debug_assert!(self.holds(node));
        let bits = &self.place(node).bits;
        let new = bits.get() & bit == 0;
        bits.set(bits.get() | bit);
        new
    }

    /// Counts a slot of `stride` bytes. Whether there are too many now: then everything must go.
    pub fn count(&self, stride: usize) -> bool {
        self.bytes.set(self.bytes.get() + stride as u32);
        self.bytes.get() > self.most.get()
    }

    /// Takes everything; from now on slots of `most` bytes may be deferred. `each` must not come
    /// here.
    pub fn take_all(&self, most: usize, mut each: impl FnMut(&'static N, u32)) {
        self.most.set(most as u32);
        if self.bytes.get() == 0 {
            return;
        }
        for entry in &self.entries {
            let (node, bits) = (entry.node.take(), entry.bits.replace(0));
            // Without a slot its group may have gone: so at an exit that a handler of a signal
            // called between `start` and `join`.
            if let Some(node) = node.filter(|_| bits != 0) {
                each(node, bits);
            }
        }
        self.bytes.set(0);
    }

    /// Whether slots of so many bytes are within what is counted and may be deferred.
    #[cfg(any(test, feature = "model"))]
    pub fn counts(&self, bytes: usize) -> bool {
        bytes <= self.bytes.get() as usize && self.bytes.get() <= self.most.get()
    }

    /// The groups and their slots.
    #[cfg(any(test, feature = "model"))]
    pub fn held(&self) -> impl Iterator<Item = (&'static N, u32)> + '_ {
        let entries = self.entries.iter();
        entries.filter_map(|entry| Some((entry.node.get()?, entry.bits.get())))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static GROUP: u64 = 0;

    #[test]
    fn a_group_without_a_slot_is_not_sent() {
        let deferred = Deferred::ZERO;
        let sent = || {
            let mut all = Vec::new();
            deferred.take_all(1, |group, bits| all.push((ptr::from_ref(group), bits)));
            all
        };
        assert_eq!(deferred.start(&GROUP), None);
        assert!(deferred.join(&GROUP, 4));
        assert!(!deferred.join(&GROUP, 4));
        deferred.count(1);
        assert_eq!(sent(), [(ptr::from_ref(&GROUP), 4)]);
        // As in a handler that interrupted the thread right there.
        assert_eq!(deferred.start(&GROUP), None);
        deferred.count(1);
        assert_eq!(sent(), []);
        assert!(!deferred.holds(&GROUP));
    }
}
