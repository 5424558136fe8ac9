//! A thread's heap: for each class the slots at hand, and the queue of groups behind them.

use crate::config::{CLASSES, QUARANTINE, RING};
use crate::group::bytes_of;
use crate::meta::{Meta, Nest, State};
use crate::outgoing::Outgoing;
use crate::pages::Pace;
use crate::parking::{Berth, Tenant};
use crate::remote::Mailbox;
use crate::ring::Entry;
use crate::size_class::Geometry;
use core::ptr;

/// The state of a size class in a heap: what malloc and free need of it in one line, and the ring
/// behind it. Freed slots at hand are in the ring, and those of one group, the current one, in
/// `avail`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Class {
    /// Position of the oldest slot in the ring.
    pub head: u32,
    /// Position behind the youngest.
    pub tail: u32,
    /// malloc leaves this many in the ring while the masks have others.
    pub low: u8,
    /// A free that finds this many in the ring takes a longer path, see `Class::limit`.
    pub high: u8,
    /// The class's guard byte. Fixed from `set_up` on, as `stride` and `reciprocal`.
    pub guard: u8,
    /// Whether the class has so many bytes that its groups should go with the last live block.
    pub much: bool,
    /// What moves blocks within their slots, see `slot.rs`.
    pub cycle: u16,
    /// What `tail` was, without its upper half, when all in the ring were verified.
    pub verified: u16,
    /// Bytes of a slot; 0 before the first group.
    pub stride: u32,
    /// See `size_class::Geometry`.
    pub reciprocal: u32,
    /// Slots of the current group that malloc may take. They are in no group's `freed`.
    pub avail: u32,
    /// Slots with the program, in line or in the ring.
    pub out: u32,
    /// The current group; null before the first.
    pub current: *mut Meta,
    /// Its first slot.
    pub base: *mut u8,
    /// The youngest of the groups with free slots, whose `next` is the oldest: a circle. The
    /// current group is not among them.
    pub last: *mut Meta,
    /// Their number.
    pub queued: u32,
    /// How many of them are empty.
    pub empty: u32,
    /// See `ring.rs`: the slots' addresses and marks, and where their records are.
    pub ring: [*mut u8; RING],
    /// See `ring`.
    pub records: [u32; RING],
}

/// A heap. Everything but the mailbox belongs to whom `remote::Life` says.
#[repr(C, align(64))]
pub struct Heap {
    /// Frees from other threads, on a line of its own.
    pub mail: Line<Mailbox<Meta>>,
    /// Number of this heap; 0 for the empty one. Fixed once the heap is entered.
    pub id: u16,
    /// Counts refills, see there.
    pub refills: u32,
    /// Bytes in free slots of long strides whose pages are dirty.
    pub idle: usize,
    /// How many there may be, see `limit_idle`.
    pub idle_limit: usize,
    /// The fewest that a refill found since `limit_idle` looked last.
    pub idle_least: usize,
    /// Bytes of its groups.
    pub bytes: usize,
    /// Bytes of those in queues that are empty.
    pub retained: usize,
    /// When they were given back last.
    pub idle_pace: Pace,
    /// Whether the slot of a wide class that malloc took last was never used, and zero.
    pub zero: bool,
    /// Whether its thread has it for the time of a call only, see `thread.rs`.
    pub lent: bool,
    /// State of the generator of choices; 0 before `set_up`.
    pub seed: u64,
    /// Dirty granules of nests that no group uses.
    pub nests_idle: u32,
    /// How many there may be, see `limit_nests`.
    pub nests_limit: u32,
    /// When they were given back last.
    pub nests_pace: Pace,
    /// Nests with room.
    pub nests: *mut Nest,
    /// Its place among the parked heaps. Provider lock.
    pub berth: Berth<Heap>,
    /// Slots of all groups of each class.
    pub slots: [u32; CLASSES],
    /// One a class; what a process does not use stays untouched.
    pub classes: [Class; CLASSES],
    /// Freed slots in line, hardened preset only.
    pub quarantine: [Entry; QUARANTINE],
    /// Freed slots of other heaps, see there.
    pub outgoing: Outgoing<Meta>,
}

/// Something on a cache line of its own.
#[repr(align(64))]
pub struct Line<T>(pub T);

impl Tenant for Heap {
    type Group = Meta;
    #[inline(always)]
    fn mail(&self) -> &Mailbox<Meta> {
        &self.mail.0
    }
    #[inline(always)]
    fn berth(&self) -> &Berth<Heap> {
        &self.berth
    }
}

impl Heap {
    /// A heap without groups: malloc finds every ring empty, and every group is somebody else's.
    // Each use is a heap of its own, as meant.
    #[allow(clippy::declare_interior_mutable_const)]
    pub const EMPTY: Heap = Heap {
        classes: [Class::EMPTY; CLASSES],
        slots: [0; CLASSES],
        id: 0,
        refills: 0,
        idle: 0,
        idle_limit: 0,
        idle_least: 0,
        bytes: 0,
        retained: 0,
        idle_pace: Pace::NEW,
        zero: false,
        lent: false,
        seed: 0,
        nests_idle: 0,
        nests_limit: 0,
        nests_pace: Pace::NEW,
        nests: ptr::null_mut(),
        berth: Berth::new(),
        quarantine: [Entry::NONE; QUARANTINE],
        outgoing: Outgoing::EMPTY,
        mail: Line(Mailbox::new()),
    };

    /// A class of the heap.
    ///
    /// # Safety
    /// `heap` is a heap and `class` below `CLASSES`.
    #[inline(always)]
    pub unsafe fn class(heap: *mut Heap, class: usize) -> *mut Class {
        // SAFETY: by contract.
        unsafe { (&raw mut (*heap).classes).cast::<Class>().add(class) }
    }
}

impl Class {
    /// A class without groups, all zero.
    const EMPTY: Class = Class {
        head: 0,
        tail: 0,
        low: 0,
        high: 0,
        guard: 0,
        much: false,
        cycle: 0,
        verified: 0,
        stride: 0,
        reciprocal: 0,
        avail: 0,
        out: 0,
        current: ptr::null_mut(),
        base: ptr::null_mut(),
        last: ptr::null_mut(),
        queued: 0,
        empty: 0,
        ring: [ptr::null_mut(); RING],
        records: [0; RING],
    };

    /// Readies the class before its first group comes: no earlier, as the state of a class that a
    /// thread does not use stays untouched memory.
    pub fn set_up(&mut self, class: usize, guard: u8) {
        self.guard = guard;
        let geometry = Geometry::of(class);
        self.stride = geometry.stride;
        self.reciprocal = geometry.reciprocal;
    }

    /// What its slots are like; zero before `set_up`.
    #[inline(always)]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            stride: self.stride,
            reciprocal: self.reciprocal,
        }
    }

    /// Puts a group at the end of the queue; `retained` are the heap's bytes in empty groups.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is its own and in no queue.
    pub unsafe fn push(&mut self, meta: *mut Meta, retained: &mut usize) {
        // SAFETY: by contract.
        unsafe {
            (*meta).set(State::Queued);
            if self.last.is_null() {
                (*meta).next = meta;
            } else {
                (*meta).next = (*self.last).next;
                (*self.last).next = meta;
            }
            self.last = meta;
            self.queued += 1;
            if (*meta).is_empty() {
                self.empty += 1;
                *retained += bytes_of(meta);
            }
        }
    }

    /// Takes the group at the head of the queue, or null.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn pop(&mut self, retained: &mut usize) -> *mut Meta {
        if self.last.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: queued groups are alive and the heap's own.
        unsafe { self.take_behind(self.last, retained) }
    }

    /// Takes the group behind `before` out of the queue.
    ///
    /// # Safety
    /// The caller may work on the heap; `before` is in the queue.
    unsafe fn take_behind(&mut self, before: *mut Meta, retained: &mut usize) -> *mut Meta {
        // SAFETY: by contract.
        unsafe {
            let meta = (*before).next;
            (*before).next = (*meta).next;
            if meta == self.last {
                self.last = if before == meta {
                    ptr::null_mut()
                } else {
                    before
                };
            }
            self.queued -= 1;
            if (*meta).is_empty() {
                self.empty -= 1;
                *retained -= bytes_of(meta);
            }
            meta
        }
    }

    /// The groups in the queue, oldest first.
    ///
    /// # Safety
    /// The caller may work on the heap, and does not change the queue meanwhile.
    pub unsafe fn groups(&self) -> impl Iterator<Item = *mut Meta> {
        let mut before = self.last;
        (0..self.queued).map(move |_| {
            // SAFETY: by contract; the queue has so many groups.
            before = unsafe { (*before).next };
            before
        })
    }

    /// Takes every empty group out of the queue and gives it to `release`.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn drop_empty(&mut self, retained: &mut usize, mut release: impl FnMut(*mut Meta)) {
        let mut before = self.last;
        while self.empty > 0 {
            // SAFETY: queued groups are alive and the heap's own; as many as `empty` are empty.
            unsafe {
                let meta = (*before).next;
                if (*meta).is_empty() {
                    release(self.take_behind(before, retained));
                } else {
                    before = meta;
                }
            }
        }
    }
}

#[cfg(all(target_pointer_width = "64", not(any(loom, small_constants))))]
const _: () = {
    assert!(
        core::mem::offset_of!(Class, ring) == 64,
        "one line before the ring"
    );
    assert!(size_of::<Class>() == 256);
};
