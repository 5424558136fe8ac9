//! A thread's heap: a bin a class for the fast path, and the queues behind them.

use crate::config::{CLASSES, QUARANTINE};
use crate::meta::{Meta, Nest, State};
use crate::remote::Mailbox;
use core::ptr;

/// What malloc needs of the current group of a class.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bin {
    /// Slots ready to be handed out.
    pub avail: u32,
    /// Bytes of a slot.
    pub stride: u32,
    /// First slot.
    pub base: *mut u8,
    /// The group; null before the first.
    pub meta: *mut Meta,
    /// What moves blocks within their slots, see `slot.rs`.
    pub cycle: u32,
    /// Whether the slots in `avail` were never used since their pages were zero.
    pub zero: u32,
}

/// What the slow paths need of a class.
#[derive(Clone, Copy)]
pub struct Class {
    /// Groups with room, oldest first. The current group is not among them.
    pub head: *mut Meta,
    /// The youngest of them.
    pub tail: *mut Meta,
    /// Their number.
    pub queued: u32,
    /// How many of them are empty.
    pub empty: u32,
    /// Slots of all groups of the class.
    pub slots: u32,
    /// Groups of the class.
    pub groups: u32,
}

/// A freed slot in line.
#[derive(Clone, Copy)]
pub struct Quarantined {
    /// Its group; null for an empty place.
    pub meta: *mut Meta,
    /// Its number.
    pub index: u32,
}

/// A heap. Everything but the mailbox belongs to whom `remote::Life` says.
#[repr(C, align(64))]
pub struct Heap {
    /// One a class.
    pub bins: [Bin; CLASSES],
    /// Number of this heap; 0 for the empty one. Fixed once the heap is entered.
    pub id: u16,
    /// Bytes in free slots of long strides whose pages are dirty.
    pub idle: usize,
    /// State of the generator of choices.
    pub seed: u64,
    /// One a class.
    pub classes: [Class; CLASSES],
    /// Nests with room.
    pub nests: *mut Nest,
    /// Next parked heap. Provider lock.
    pub next_parked: *mut Heap,
    /// Freed slots in line, hardened preset only.
    pub quarantine: [Quarantined; QUARANTINE],
    /// Frees from other threads, on a line of its own.
    pub mail: Line<Mailbox<Meta>>,
}

/// Something on a cache line of its own.
#[repr(align(64))]
pub struct Line<T>(pub T);

impl Heap {
    /// A heap without groups: malloc finds every bin empty, and every group is somebody else's.
    // Each use is a heap of its own, as meant.
    #[allow(clippy::declare_interior_mutable_const)]
    pub const EMPTY: Heap = Heap {
        bins: [Bin {
            avail: 0,
            stride: 0,
            base: ptr::null_mut(),
            meta: ptr::null_mut(),
            cycle: 0,
            zero: 0,
        }; CLASSES],
        id: 0,
        idle: 0,
        seed: 0,
        classes: [Class {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            queued: 0,
            empty: 0,
            slots: 0,
            groups: 0,
        }; CLASSES],
        nests: ptr::null_mut(),
        next_parked: ptr::null_mut(),
        quarantine: [Quarantined { meta: ptr::null_mut(), index: 0 }; QUARANTINE],
        mail: Line(Mailbox::new()),
    };

    /// The current group of a class, or null.
    #[inline(always)]
    pub fn current(&self, class: usize) -> *mut Meta {
        self.bins[class].meta
    }
}

impl Class {
    /// Puts a group at the end of the queue.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is its own and in no queue.
    pub unsafe fn push(&mut self, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            (*meta).state = State::Queued as u8;
            (*meta).next = ptr::null_mut();
            if self.head.is_null() {
                self.head = meta;
            } else {
                (*self.tail).next = meta;
            }
            self.tail = meta;
            self.queued += 1;
            self.empty += (*meta).is_empty() as u32;
        }
    }

    /// Takes the group at the head of the queue, or null.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn pop(&mut self) -> *mut Meta {
        let meta = self.head;
        if !meta.is_null() {
            // SAFETY: queued groups are alive and the heap's own.
            unsafe {
                self.head = (*meta).next;
                self.queued -= 1;
                self.empty -= (*meta).is_empty() as u32;
            }
        }
        meta
    }

    /// Takes every empty group beyond the first `keep` out of the queue and gives it to `release`.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn drop_empty(&mut self, keep: u32, mut release: impl FnMut(*mut Meta)) {
        let mut kept = 0;
        let mut last: *mut Meta = ptr::null_mut();
        let mut meta = self.head;
        while !meta.is_null() && self.empty > kept {
            // SAFETY: queued groups are alive and the heap's own.
            unsafe {
                let next = (*meta).next;
                if (*meta).is_empty() && kept < keep {
                    kept += 1;
                } else if (*meta).is_empty() {
                    if last.is_null() {
                        self.head = next;
                    } else {
                        (*last).next = next;
                    }
                    if self.tail == meta {
                        self.tail = last;
                    }
                    self.queued -= 1;
                    self.empty -= 1;
                    release(meta);
                    meta = next;
                    continue;
                }
                last = meta;
                meta = next;
            }
        }
    }
}
