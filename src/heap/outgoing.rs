//! Frees of other heaps' blocks that a thread has done and not yet told: one atomic operation then
//! gives all slots of a group back.
//!
//! ```text
//! free     the block's record is cleared at once: the block is dead, a second free a fault
//!          → the slot's bit joins those of its group, if the group has an entry
//!                 otherwise another group's bits make room, and go to their owner
//! told     an entry that must make room; all of them when they hold much, at every 32nd refill of
//!          the thread, when it is short of memory, and when it or the process exits
//! ```
//!
//! A group with a bit here is not empty for its owner, so neither it nor its owner changes. A
//! parked heap holds nothing here.

use crate::config::OUTGOING;
use core::ptr;

/// Slots of one group.
pub struct Held<N> {
    /// The group; null if the entry is free.
    pub node: *mut N,
    /// Its slots.
    pub bits: u32,
}

impl<N> Held<N> {
    /// A free entry.
    const NONE: Held<N> = Held {
        node: ptr::null_mut(),
        bits: 0,
    };
}

// Not derived: that would ask it of N.
impl<N> Clone for Held<N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<N> Copy for Held<N> {}

/// What a heap's thread holds back for other heaps. Belongs to whom the heap belongs to.
#[repr(C, align(64))]
pub struct Outgoing<N> {
    /// By address of the group.
    entries: [Held<N>; OUTGOING],
    /// Bytes of the slots held, or a little more: slots that made room still count.
    bytes: u32,
    /// How many there may be.
    most: u32,
}

impl<N> Outgoing<N> {
    /// Nothing held, and nothing may be.
    pub const EMPTY: Outgoing<N> = Outgoing {
        entries: [Held::NONE; OUTGOING],
        bytes: 0,
        most: 0,
    };

    /// Where the slots of `node` stand, if any do.
    #[inline(always)]
    fn place(node: *mut N) -> usize {
        // Cells of neighbouring groups differ in the bits above a cell's size.
        (node.addr() / 64) % OUTGOING
    }

    /// Whether `node` has an entry.
    #[inline(always)]
    pub fn holds(&self, node: *mut N) -> bool {
        self.entries[Self::place(node)].node == node
    }

    /// The slots of `node` that are held.
    pub fn held_of(&self, node: *mut N) -> u32 {
        let entry = &self.entries[Self::place(node)];
        if entry.node == node {
            entry.bits
        } else {
            0
        }
    }

    /// Makes an entry for `node` if there is none; returns what stood there instead.
    #[inline(always)]
    pub fn start(&mut self, node: *mut N) -> Option<Held<N>> {
        let entry = &mut self.entries[Self::place(node)];
        if entry.node == node {
            return None;
        }
        let before = core::mem::replace(entry, Held { node, bits: 0 });
        (!before.node.is_null()).then_some(before)
    }

    /// Adds slot `bit` of `node`, which has an entry. False: it was there already.
    #[inline(always)]
    pub fn join(&mut self, node: *mut N, bit: u32) -> bool {
        let entry = &mut self.entries[Self::place(node)];
        debug_assert!(entry.node == node);
        let new = entry.bits & bit == 0;
        entry.bits |= bit;
        new
    }

    /// Counts a slot of `stride` bytes as held. Whether that is too much: then everything must go.
    #[inline(always)]
    pub fn count(&mut self, stride: usize) -> bool {
        self.bytes += stride as u32;
        self.bytes > self.most
    }

    /// Takes everything; from now on slots of `most` bytes may be held. `each` must not come here.
    pub fn take_all(&mut self, most: usize, mut each: impl FnMut(Held<N>)) {
        self.most = most as u32;
        if self.bytes == 0 {
            return;
        }
        for entry in &mut self.entries {
            if !entry.node.is_null() {
                each(core::mem::replace(entry, Held::NONE));
            }
        }
        self.bytes = 0;
    }

    /// Whether slots of so many bytes are within what is counted and may be held.
    pub fn counts(&self, bytes: usize) -> bool {
        bytes <= self.bytes as usize && self.bytes <= self.most
    }

    /// What is held.
    pub fn held(&self) -> impl Iterator<Item = Held<N>> + '_ {
        let entries = self.entries.iter().copied();
        entries.filter(|entry| !entry.node.is_null())
    }
}
