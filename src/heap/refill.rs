//! What happens when a ring runs low: more slots of the class, from the nearest source.

use crate::config::{
    CLASSES, IDLE_BYTES, IDLE_STRIDE, PRESET, RETAINED_BYTES, RETAINED_SHIFT, UNIT,
};
use crate::fault::{stop, Fault};
use crate::group::bytes_of;
use crate::heap::Heap;
use crate::meta::{low_mask, Meta, State};
use crate::pages::Platform;
use crate::process::{next_random, Process};
use crate::ring::{batch, prefetch, Entry, UNCHECKED, ZERO};
use crate::size_class::stride;
use crate::sync::Ordering;
use core::ptr::NonNull;

/// Every so many refills look for what other threads freed before anything else.
const COLLECT_EVERY: u32 = 32;

impl<P: Platform> Process<P> {
    /// Sees to it that the ring of `class` has a slot, in this order: the current group's freed
    /// slots if no other group has some; the group that waited longest; what other threads freed;
    /// slots of the current group never used so far; the slots that the ring itself held back; a
    /// new group. False when memory is out.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn refill(&self, heap: *mut Heap, class: usize) -> bool {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            // A class whose queue never ends must not keep other threads' frees waiting.
            (*heap).refills = (*heap).refills.wrapping_add(1);
            if (*heap).refills % COLLECT_EVERY == 0 {
                self.collect(heap);
            }
            loop {
                let current = (*state).current;
                let only_empty = (*state).queued == (*state).empty;
                if !current.is_null() && only_empty && self.take_freed(heap, current) {
                    return true;
                }
                let next = (*state).pop(&mut (*heap).retained);
                if !next.is_null() {
                    self.retire(heap, class);
                    self.install(heap, next);
                    if self.take_freed(heap, next) || self.activate(heap, next) {
                        return true;
                    }
                    // It had room when it was queued, and only we take room away.
                    stop(Fault::Corruption, next.addr());
                }
                // May release groups and queue others: look at everything again.
                if self.collect(heap) {
                    continue;
                }
                if !current.is_null() && self.activate(heap, current) {
                    return true;
                }
                if (*state).ready() > 0 {
                    // The heap does not grow while it has a free slot.
                    (*state).low = 0;
                    return true;
                }
                let group = self.new_group(heap, class);
                if group.is_null() {
                    return false;
                }
                self.retire(heap, class);
                self.install(heap, group);
                return self.activate(heap, group);
            }
        }
    }

    /// Makes a group the current one of its class.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is its own, in no queue, and no group is
    /// current.
    unsafe fn install(&self, heap: *mut Heap, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            (*Heap::class(heap, (*meta).class as usize)).current = meta;
            (*meta).state = State::Current as u8;
        }
    }

    /// Lets a class have no current group: it goes to the queue if it still has room.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn retire(&self, heap: *mut Heap, class: usize) {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            let meta = core::mem::replace(&mut (*state).current, core::ptr::null_mut());
            if meta.is_null() {
                return;
            }
            if (*meta).has_room() {
                (*state).push(meta, &mut (*heap).retained);
            } else {
                (*meta).state = State::Detached as u8;
            }
        }
    }

    /// Moves some freed slots of the current group to the ring. False when there are none.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is current.
    unsafe fn take_freed(&self, heap: *mut Heap, meta: *mut Meta) -> bool {
        // SAFETY: by contract.
        unsafe {
            let free = (*meta).free_slots();
            if free == 0 {
                return false;
            }
            let class = (*meta).class as usize;
            let taken = self.choose(heap, free, batch(class));
            let state = Heap::class(heap, class);
            self.move_to_ring(heap, meta, taken, UNCHECKED);
            // Moves blocks of narrow classes by a unit.
            (*state).cycle ^= UNIT as u16;
            if stride(class) >= IDLE_STRIDE {
                let clean = (*meta).purged(taken).count_ones();
                let bytes = (taken.count_ones() - clean) as usize * stride(class);
                (*heap).idle = (*heap).idle.saturating_sub(bytes);
            }
            true
        }
    }

    /// Up to `count` bits of `free`: the lowest, or random ones.
    ///
    /// # Safety
    /// The caller may work on the heap.
    unsafe fn choose(&self, heap: *mut Heap, free: u32, count: u32) -> u32 {
        let mut rest = free;
        if PRESET.random_slots {
            while rest.count_ones() > count {
                // SAFETY: by contract.
                let random = unsafe { next_random(&mut (*heap).seed) } as u32 % 32;
                rest &= !(1 << random);
            }
            return rest;
        }
        for _ in 0..count {
            rest &= rest.wrapping_sub(1);
        }
        free & !rest
    }

    /// Number of one set bit of `bits`: the lowest, or a random one.
    ///
    /// # Safety
    /// The caller may work on the heap; `bits` is not zero.
    #[inline(always)]
    unsafe fn pick(&self, heap: *mut Heap, bits: u32) -> usize {
        let mut rest = bits;
        if PRESET.random_slots {
            // SAFETY: by contract.
            let random = unsafe { next_random(&mut (*heap).seed) } as u32;
            for _ in 0..random % bits.count_ones() {
                rest &= rest - 1;
            }
        }
        rest.trailing_zeros() as usize
    }

    /// Activates some more slots of the current group and moves them to the ring. False when all
    /// are active.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is current and has no freed slot.
    unsafe fn activate(&self, heap: *mut Heap, meta: *mut Meta) -> bool {
        // SAFETY: by contract.
        unsafe {
            let (slots, capacity) = ((*meta).slots(), (*meta).capacity as usize);
            if slots == capacity {
                return false;
            }
            let class = (*meta).class as usize;
            let some = (slots + batch(class) as usize).min(capacity);
            // To pick among all, all are activated; what is not picked waits in the mask.
            let now = if PRESET.random_slots { capacity } else { some };
            (*meta).set_slots(now);
            let new = low_mask(now) & !low_mask(slots);
            let taken = if PRESET.random_slots {
                (*meta).mark_purged(new);
                self.choose(heap, new, batch(class))
            } else {
                new
            };
            let marks = if (*meta).is_fresh() { ZERO } else { 0 };
            self.move_to_ring(heap, meta, taken, marks);
            true
        }
    }

    /// Moves slots from the mask of freed ones to the ring, which has room for them. In the last
    /// byte of used ones a guard stands: it is verified once more when they leave the ring, as
    /// the next slot's block may have been written from its front.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the group; the bits are set in `freed`.
    unsafe fn move_to_ring(&self, heap: *mut Heap, meta: *mut Meta, bits: u32, marks: usize) {
        // SAFETY: by contract. Relaxed: only the owner writes the mask.
        unsafe {
            let freed = (*meta).freed.load(Ordering::Relaxed);
            (*meta).freed.store(freed & !bits, Ordering::Relaxed);
            let class = (*meta).class as usize;
            let state = Heap::class(heap, class);
            let (base, stride) = (Meta::base_of(meta), (*state).stride as usize);
            let purged = if stride >= IDLE_STRIDE {
                (*meta).purged(bits)
            } else {
                0
            };
            let mut rest = bits;
            while rest != 0 {
                let index = self.pick(heap, rest);
                let start = base.add(index * stride);
                let bare = purged & 1 << index != 0;
                let marks = if bare { marks & !UNCHECKED } else { marks };
                if marks & UNCHECKED != 0 {
                    prefetch(start.add(stride - 1));
                }
                (*state).give(Entry::of(meta, class, index, start, marks));
                rest &= !(1 << index);
            }
            (*state).out += bits.count_ones();
            (*state).limit((*meta).class as usize);
        }
    }

    /// Collects what other threads freed. Returns whether there was something.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn collect(&self, heap: *mut Heap) -> bool {
        // SAFETY: by contract; listed groups belong to this heap.
        unsafe {
            let mail = &(*heap).mail.0;
            !mail.is_empty() && mail.collect(|meta, bits| self.got_back(heap, meta, bits))
        }
    }

    /// Enters slots that other threads freed (their ends verified by the freers).
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is.
    pub(crate) unsafe fn got_back(&self, heap: *mut Heap, meta: *mut Meta, bits: u32) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            // The freer cleared the record and nobody had the slot. Anything else is a double
            // free that raced with the owner's: the slot is freed, in the ring, in line, or used anew.
            let freed = (*meta).freed.load(Ordering::Relaxed);
            let mut ready = (*Heap::class(heap, class)).entries();
            let mut double = freed & bits != 0
                || ready.any(|entry| entry.is_of(meta, class, bits))
                || PRESET.quarantine != 0
                    && (*heap)
                        .quarantine
                        .iter()
                        .any(|entry| entry.is_of(meta, class, bits));
            let mut rest = bits;
            while rest != 0 {
                double |= self.holds_block(meta, rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
            if double {
                stop(Fault::DoubleFree, meta.addr());
            }
            self.put_back(heap, meta, bits);
        }
    }

    /// Sets bits in `freed`, and sees to it that the group is found.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is; the slots hold no block, are in no mask
    /// and no ring any more, and their ends are verified.
    pub(crate) unsafe fn put_back(&self, heap: *mut Heap, meta: *mut Meta, bits: u32) {
        // SAFETY: by contract.
        unsafe {
            let before = (*meta).freed.load(Ordering::Relaxed);
            if before & bits != 0 {
                stop(Fault::DoubleFree, meta.addr());
            }
            (*meta).freed.store(before | bits, Ordering::Relaxed);
            let class = (*meta).class as usize;
            let state = Heap::class(heap, class);
            (*state).out -= bits.count_ones();
            (*state).limit(class);
            if stride(class) >= IDLE_STRIDE {
                (*heap).idle += bits.count_ones() as usize * stride(class);
                if (*heap).idle > (*heap).idle_limit {
                    self.limit_idle(heap);
                }
            }
            if (*meta).is(State::Detached) || before | bits == u32::MAX {
                self.settle(heap, meta);
            }
        }
    }

    /// After frees: a group outside the lists goes to the queue; too many empty ones go back.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is.
    unsafe fn settle(&self, heap: *mut Heap, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            if (*meta).is(State::Current) {
                return;
            }
            let class = (*meta).class as usize;
            let state = Heap::class(heap, class);
            if (*meta).is(State::Detached) {
                (*state).push(meta, &mut (*heap).retained);
                if !(*meta).is_empty() {
                    return;
                }
            } else {
                (*state).empty += 1;
                (*heap).retained += bytes_of(meta);
            }
            self.release_beyond(heap);
        }
    }

    /// Releases all empty groups once there are too many bytes in them: few enough to return to
    /// where a program started, enough for the next burst. As a part of the heap they grow with it,
    /// because the sweep walks its queues.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[inline(always)]
    unsafe fn release_beyond(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            if (*heap).retained > self.share(RETAINED_BYTES) + ((*heap).bytes >> RETAINED_SHIFT) {
                for class in 0..CLASSES {
                    self.release_empty(heap, class);
                }
            }
        }
    }

    /// Releases the empty groups of a class.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[inline(never)]
    pub(crate) unsafe fn release_empty(&self, heap: *mut Heap, class: usize) {
        // SAFETY: by contract. `release_group` changes counters of the class, never its queue.
        unsafe {
            let state = Heap::class(heap, class);
            if (*state).empty > 0 {
                let retained = &mut (*heap).retained;
                let mut locked = self.lock();
                (*state).drop_empty(retained, |meta| locked.release_group(heap, meta));
                (*state).limit(class);
            }
        }
    }

    /// Empties the ring of a class without a live block: its groups become empty.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn put_away(&self, heap: *mut Heap, class: usize) {
        // SAFETY: by contract.
        unsafe {
            self.spill(heap, class, u32::MAX);
            self.retire(heap, class);
            self.release_beyond(heap);
        }
    }

    /// Gives pages of free slots back if they are more than a quarter of what is in use. A heap
    /// that replaces blocks at random stays below that, and keeps its pages.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[cold]
    unsafe fn limit_idle(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            if !(*heap).idle_pace.is_due(&self.platform) {
                return;
            }
            let classes = (*heap).classes.iter().enumerate();
            let used: usize = classes.map(|(i, c)| c.out as usize * stride(i)).sum();
            (*heap).idle_limit = self.share(IDLE_BYTES).max(used / 4);
            if (*heap).idle > (*heap).idle_limit {
                self.purge_idle(heap);
            }
        }
    }

    /// Gives back the whole pages inside the free slots of long strides.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn purge_idle(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            (*heap).idle = 0;
            for class in (0..CLASSES)
                .rev()
                .take_while(|&class| stride(class) >= IDLE_STRIDE)
            {
                let state = Heap::class(heap, class);
                if !(*state).current.is_null() {
                    self.purge_slots((*state).current);
                }
                let mut meta = (*state).first;
                while !meta.is_null() {
                    self.purge_slots(meta);
                    meta = (*meta).next;
                }
            }
        }
    }

    /// The same for one group.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the group.
    unsafe fn purge_slots(&self, meta: *mut Meta) {
        // SAFETY: by contract; free slots hold nothing that is needed.
        unsafe {
            let page = self.platform.page_size();
            let class = (*meta).class as usize;
            let mut free = (*meta).free_slots();
            while free != 0 {
                // Neighbours go together: pages that two slots share, and calls.
                let first = free.trailing_zeros() as usize;
                let count = (free >> first).trailing_ones() as usize;
                free &= !(low_mask(count) << first);
                let slots = low_mask(count) << first;
                let purged = (*meta).purged(slots) == slots;
                (*meta).mark_purged(slots);
                let start = Meta::base_of(meta).add(first * stride(class));
                let from = start.addr().next_multiple_of(page);
                let to = (start.addr() + count * stride(class)) / page * page;
                if !purged && from < to {
                    let at = NonNull::new_unchecked(start.with_addr(from));
                    // Refused (as for locked memory), it would be so again: once a free is enough.
                    self.platform.purge(at, to - from);
                }
            }
        }
    }
}
