//! free of another heap's block: verified and marked as dead here and now, told later.

use crate::config::{OUTGOING_BYTES, PRESET};
use crate::fault::{raise, stop, Fault};
use crate::heap::Heap;
use crate::meta::Meta;
use crate::note;
use crate::pages::Platform;
use crate::parking::give_back;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::ring::Entry;
use crate::size_class::Geometry;
use crate::slot::{narrow_units, wide_freed, FIRST_WIDE};
use crate::sync::Ordering;

/// A thread without a heap gets one, to hold frees back in, with a free of one of these slots. One
/// that frees once or twice in its life and never allocates mostly does without.
const ATTACHING_SLOTS: usize = 4;

/// Whether one of the slots `bits` has the record of a live block.
///
/// # Safety
/// `meta` is the cell of a group with slots, of which these are some.
#[inline(always)]
unsafe fn tells_block(meta: *mut Meta, bits: u32) -> bool {
    // SAFETY: by contract. Relaxed: whoever gave the slots back wrote the records before.
    unsafe {
        let records = &(*meta).records;
        let mut rest = bits;
        if ((*meta).class as usize) < FIRST_WIDE {
            while rest != 0 {
                let record = records.narrow(rest.trailing_zeros() as usize);
                if narrow_units(record.load(Ordering::Relaxed)) != 0 {
                    return true;
                }
                rest &= rest - 1;
            }
        } else {
            while rest != 0 {
                let record = records.wide(rest.trailing_zeros() as usize);
                let record = record.load(Ordering::Relaxed);
                if record != wide_freed(record) {
                    return true;
                }
                rest &= rest - 1;
            }
        }
        false
    }
}

impl<P: Platform> Process<P> {
    /// free of a block in a group of another heap, if it is one. The end is checked at once, as
    /// its line is likely in this thread's cache.
    ///
    /// # Safety
    /// As `free`, and `meta` is what the map gives, of a group with slots.
    #[inline(never)]
    pub(crate) unsafe fn free_other(&self, meta: *mut Meta, block: *mut u8) {
        // SAFETY: by contract; the heap is this thread's, or the empty one, which holds nothing.
        unsafe {
            let heap = self.heap();
            let class = (*meta).class as usize;
            if class < FIRST_WIDE && !PRESET.check_at_free {
                let pointer = Untrusted::new(block);
                let slot = pointer.find_in(meta, pointer.distance(meta), Geometry::of(class));
                if let Some(slot) = slot {
                    let holds = (*heap).outgoing.holds(meta)
                        || !self.is_empty_heap(heap) && !self.is_orphan(meta);
                    if holds && self.guards_stand(class, slot.end_at(), slot.end) {
                        // Before the bit goes out: afterwards the owner may write a new record.
                        note!(RemoteFree);
                        slot.clear_record();
                        return self.hold_back(heap, &slot);
                    }
                }
            }
            // A wide class, no heap to hold it back in, or a rare case.
            self.free_slow(block);
        }
    }

    /// Frees a block of another heap.
    ///
    /// # Safety
    /// The program does not use the block any more; another heap, or none, is this thread's.
    #[inline(always)]
    pub(crate) unsafe fn free_remote(&self, slot: &Slot) {
        // SAFETY: the slot is live until it is given back; the heap is this thread's.
        unsafe {
            if self.is_orphan(slot.meta) {
                return self.free_abandoned(slot);
            }
            raise(self.check_around(slot));
            // Before the bit goes out: afterwards the owner may write a new record.
            note!(RemoteFree);
            slot.clear_record();
            self.clear_freed(slot);
            let mut heap = self.heap();
            let narrow = slot.class < FIRST_WIDE;
            let attaches = slot.index % ATTACHING_SLOTS == ATTACHING_SLOTS - 1;
            if narrow && attaches && self.is_empty_heap(heap) && self.platform.frees_often() {
                self.attach();
                self.end_loan();
                heap = self.heap();
            }
            // It may be the group's owner by now.
            let owner = (*slot.meta).owner.load(Ordering::Relaxed) == (*heap).id;
            if !narrow || owner || self.is_empty_heap(heap) {
                return self.tell(slot.meta, slot.bit());
            }
            self.hold_back(heap, slot);
        }
    }

    /// Holds a slot back until its group or everything is told. Another group may make room.
    ///
    /// # Safety
    /// The slot holds no block any more, and this call gives it back; it is the thread's heap, not
    /// the empty one.
    #[inline(always)]
    unsafe fn hold_back(&self, heap: *mut Heap, slot: &Slot) {
        // SAFETY: by contract.
        unsafe {
            if !(*heap).outgoing.holds(slot.meta) {
                self.make_room(heap, slot.meta);
            }
            if !(*heap).outgoing.join(slot.meta, slot.bit()) {
                stop(Fault::DoubleFree, slot.block().addr());
            }
            if (*heap).outgoing.count(slot.stride) {
                self.tell_all(heap);
            }
        }
    }

    /// Makes an entry for a group that has none, perhaps in place of another's.
    ///
    /// # Safety
    /// It is the thread's heap, not the empty one, and the caller adds a slot at once.
    #[inline(never)]
    unsafe fn make_room(&self, heap: *mut Heap, meta: *mut Meta) {
        // SAFETY: by contract; what is held is ours to tell.
        unsafe {
            if let Some(held) = (*heap).outgoing.start(meta) {
                self.tell(held.node, held.bits);
            }
        }
    }

    /// Gives slots of a group back to its owner.
    ///
    /// # Safety
    /// The slots hold no block, and this call gives them back.
    #[inline(never)]
    unsafe fn tell(&self, meta: *mut Meta, bits: u32) {
        // SAFETY: by contract. Relaxed: the owner is fixed while the group lives.
        unsafe {
            let owner = self.heap_by_id((*meta).owner.load(Ordering::Relaxed));
            // Groups of a heap that stayed behind in the parent of a fork go by records, which these
            // slots have lost.
            if !(*owner).mail.0.is_dead() && !give_back(self, owner, meta, bits) {
                stop(Fault::DoubleFree, meta.addr());
            }
        }
    }

    /// Tells other heaps of all their slots that this thread freed.
    ///
    /// # Safety
    /// The caller may work on the heap, and does not hold the provider lock.
    #[inline(never)]
    pub(crate) unsafe fn tell_all(&self, heap: *mut Heap) {
        if self.heap_total() < 2 {
            // Nobody to tell: a process with one thread should not touch this page.
            return;
        }
        // SAFETY: by contract; what is held is ours to tell.
        unsafe {
            let most = self.share(OUTGOING_BYTES);
            (*heap)
                .outgoing
                .take_all(most, |held| self.tell(held.node, held.bits));
        }
    }

    /// Whether a slot that another thread gave back was not the program's to free. The freer cleared
    /// its record and nobody had it since. Anything else is a double free that raced with another:
    /// the slot is freed, in the ring, in line, or used anew.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is.
    #[inline(always)]
    pub(crate) unsafe fn raced(&self, heap: *mut Heap, meta: *mut Meta, bits: u32) -> bool {
        // SAFETY: by contract. Relaxed: only the owner writes the mask.
        unsafe {
            let class = (*meta).class as usize;
            let state = Heap::class(heap, class);
            let here = |entry: Entry| entry.is_of(meta, class, bits);
            let current = (*state).current == meta && (*state).avail & bits != 0;
            current
                || (*meta).freed.load(Ordering::Relaxed) & bits != 0
                || tells_block(meta, bits)
                || (*state).entries().any(here)
                || PRESET.quarantine != 0 && (*heap).quarantine.iter().any(|&entry| here(entry))
        }
    }

    /// Whether the owner of a group stayed behind in the parent of a fork.
    ///
    /// # Safety
    /// The group lives.
    #[inline(never)]
    pub(crate) unsafe fn is_orphan(&self, meta: *mut Meta) -> bool {
        // SAFETY: by contract; heaps live for ever. Relaxed: fixed while the group lives.
        unsafe {
            let owner = self.heap_by_id((*meta).owner.load(Ordering::Relaxed));
            (*owner).mail.0.is_dead()
        }
    }
}
