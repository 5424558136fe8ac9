//! What happens when a class has no slot at hand: more of them, from the nearest source.

use crate::config::{
    CLASSES, IDLE_BYTES, IDLE_STRIDE, RETAINED_BYTES, RETAINED_SHIFT, RING, SETTLE_REFILLS, UNIT,
};
use crate::fault::{stop, Fault};
use crate::group::bytes_of;
use crate::heap::{Class, Heap};
use crate::meta::{low_mask, ones, Meta, State};
use crate::pages::Platform;
use crate::process::Process;
use crate::ring::capacity;
use crate::size_class::stride;
use crate::sync::Ordering;
use core::ptr::NonNull;

/// A purge of free slots that came too early is tried again with this part of a heap's share more.
const IDLE_STEPS: usize = 16;

/// Every so many refills look for what other threads freed before anything else.
const COLLECT_EVERY: u32 = 32;

impl<P: Platform> Process<P> {
    /// Sees to it that malloc finds a slot of `class`, in this order: the current group's freed
    /// slots if no other group has some; the group that waited longest; what other threads freed;
    /// the slots that the ring itself held back; a new group. False when memory is out.
    ///
    /// # Safety
    /// The caller may work on the heap, whose class has no slot for malloc.
    pub(crate) unsafe fn refill(&self, heap: *mut Heap, class: usize) -> bool {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            // A class whose queue never ends must not keep other threads' frees waiting.
            (*heap).refills = (*heap).refills.wrapping_add(1);
            (*heap).idle_least = (*heap).idle_least.min((*heap).idle);
            if (*heap).refills % COLLECT_EVERY == 0 {
                self.tell_all(heap);
                self.collect(heap);
                if (*heap).refills % SETTLE_REFILLS == 0 {
                    self.settle_heap(heap);
                }
            }
            loop {
                let only_empty = (*state).queued == (*state).empty;
                if only_empty && self.open(state) {
                    return true;
                }
                let next = (*state).pop(&mut (*heap).retained);
                if !next.is_null() {
                    self.install(heap, next);
                    if self.open(state) {
                        return true;
                    }
                    // It had free slots when it was queued, and only we take them.
                    stop(Fault::Corruption, next.addr());
                }
                // May release groups and queue others: look at everything again.
                if self.collect(heap) {
                    continue;
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
                self.install(heap, group);
                return self.open(state);
            }
        }
    }

    /// Makes a group the current one of its class, in place of what was so far.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is its own, and in no queue.
    unsafe fn install(&self, heap: *mut Heap, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            self.retire(heap, class);
            let state = Heap::class(heap, class);
            (*state).current = meta;
            (*state).base = Meta::base_of(meta);
            (*meta).set(State::Current);
        }
    }

    /// Takes the free slots of the current group out of its mask for malloc. False when there are
    /// none.
    ///
    /// # Safety
    /// The caller may work on the heap of `state`.
    unsafe fn open(&self, state: *mut Class) -> bool {
        // SAFETY: by contract. Relaxed: only the owner writes the mask.
        unsafe {
            let meta = (*state).current;
            if meta.is_null() {
                return false;
            }
            let free = (*meta).free_slots();
            let freed = (*meta).freed.load(Ordering::Relaxed);
            (*meta).freed.store(freed & !free, Ordering::Relaxed);
            (*state).avail |= free;
            if free != 0 {
                // Let the youngest in the ring wait a while.
                (*state).low = capacity((*meta).class as usize) as u8 / 4;
            }
            // Moves blocks of narrow classes by a unit.
            (*state).cycle ^= UNIT as u16;
            free != 0
        }
    }

    /// Lets a class have no current group: it goes to the queue if it has free slots.
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
            let avail = core::mem::replace(&mut (*state).avail, 0);
            let freed = (*meta).freed.load(Ordering::Relaxed) | avail;
            (*meta).freed.store(freed, Ordering::Relaxed);
            if (*meta).free_slots() != 0 {
                (*state).push(meta, &mut (*heap).retained);
            } else {
                (*meta).set(State::Detached);
            }
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
            if self.raced(heap, meta, bits) {
                stop(Fault::DoubleFree, meta.addr());
            }
            self.put_back(heap, class, meta, bits, ones(bits.into()), false);
        }
    }

    /// Sets `count` bits in `freed`, and sees to it that the group is found. If `away` says so, and
    /// no block is left of a class that holds much, empties its ring.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group of `class` it is; the slots hold no block, are
    /// in no mask and no ring any more, and their ends are verified.
    #[inline(always)]
    pub(crate) unsafe fn put_back(
        &self,
        heap: *mut Heap,
        class: usize,
        meta: *mut Meta,
        bits: u32,
        count: u32,
        away: bool,
    ) {
        // SAFETY: by contract.
        unsafe {
            let before = (*meta).freed.load(Ordering::Relaxed);
            debug_assert!(before & bits == 0, "nobody else gives them back");
            let after = before | bits;
            (*meta).freed.store(after, Ordering::Relaxed);
            let state = Heap::class(heap, class);
            (*state).out -= count;
            let mut rest =
                (*state).out <= RING as u32 || after == u32::MAX || (*meta).is(State::Detached);
            let stride = (*state).stride as usize;
            if stride >= IDLE_STRIDE {
                (*heap).idle += count as usize * stride;
                rest |= (*heap).idle > (*heap).idle_limit;
            }
            if rest {
                self.put_back_rest(heap, class, meta, away);
            }
        }
    }

    /// What is seldom to be done after slots were put back.
    ///
    /// # Safety
    /// As `put_back`.
    #[inline(never)]
    unsafe fn put_back_rest(&self, heap: *mut Heap, class: usize, meta: *mut Meta, away: bool) {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            (*state).limit(class);
            // The masks have some, as in `open`.
            (*state).low = capacity(class) as u8 / 4;
            if (*meta).is(State::Detached) || (*meta).is_empty() {
                self.settle(heap, meta);
            }
            // Only now, as all groups with free slots are in a queue, or current.
            if (*heap).idle > (*heap).idle_limit {
                self.limit_idle(heap);
            }
            if away && (*state).much && (*state).ready() == (*state).out {
                self.put_away(heap, class);
            }
        }
    }

    /// After frees: a group outside the lists goes to the queue; too many empty ones go back.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is.
    #[inline(never)]
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
            let part = (*heap).bytes >> RETAINED_SHIFT;
            let most = (self.share(RETAINED_BYTES) + part / 2).max(part);
            if (*heap).retained > most {
                self.release_empty(heap, u64::MAX);
            }
        }
    }

    /// Releases the empty groups of some classes. Takes the lock once, if runs or nests go back.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[inline(never)]
    pub(crate) unsafe fn release_empty(&self, heap: *mut Heap, classes: u64) {
        // SAFETY: by contract. `release_group` changes counters of the class, never its queue.
        unsafe {
            if (*heap).retained == 0 {
                return;
            }
            let mut locked = None;
            for class in 0..CLASSES {
                if classes & 1 << class != 0 {
                    let state = Heap::class(heap, class);
                    let retained = &mut (*heap).retained;
                    (*state)
                        .drop_empty(retained, |meta| self.release_group(heap, meta, &mut locked));
                }
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
            self.spill(heap, class);
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
    pub(crate) unsafe fn limit_idle(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            let least = self.share(IDLE_BYTES);
            if (*heap).idle <= least {
                (*heap).idle_limit = least;
                return;
            }
            let used = (*heap).bytes.saturating_sub((*heap).idle);
            let halved = (*heap).idle_pace.halved(used);
            // The next free would ask again: not before there is some more.
            (*heap).idle_limit = (*heap).idle + least / IDLE_STEPS;
            if !(*heap).idle_pace.ask().is_due(&self.platform, used) {
                return;
            }
            let classes = (*heap).classes.iter().enumerate();
            let used: usize = classes.map(|(i, c)| c.out as usize * stride(i)).sum();
            let most = least.max(used / 4);
            let fewest = core::mem::replace(&mut (*heap).idle_least, (*heap).idle);
            if (*heap).idle <= most || halved || fewest > most {
                (*heap).idle_limit = most;
            }
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
                    self.purge_slots((*state).current, (*state).avail);
                }
                for meta in (*state).groups() {
                    self.purge_slots(meta, 0);
                }
            }
        }
    }

    /// The same for one group, of whose slots `avail` are free without being in its mask.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the group.
    unsafe fn purge_slots(&self, meta: *mut Meta, avail: u32) {
        // SAFETY: by contract; free slots hold nothing that is needed.
        unsafe {
            let page = self.platform.page_size();
            let class = (*meta).class as usize;
            let mut free = (*meta).free_slots() | avail;
            let dirty = (*meta).dirty(free);
            if dirty == 0 {
                return;
            }
            (*meta).mark_purged(dirty);
            while free != 0 {
                // Neighbours go together: pages that two slots share, and calls.
                let first = free.trailing_zeros() as usize;
                let count = (free >> first).trailing_ones() as usize;
                free &= !(low_mask(count) << first);
                let slots = low_mask(count) << first;
                let start = Meta::base_of(meta).add(first * stride(class));
                let from = start.addr().next_multiple_of(page);
                let to = (start.addr() + count * stride(class)) / page * page;
                if dirty & slots != 0 && from < to {
                    let at = NonNull::new_unchecked(start.with_addr(from));
                    // Refused (as for locked memory), it would be so again: once a free is enough.
                    // Nobody takes purged slots for zero: PURGED is not ZERO.
                    self.platform.purge(at, to - from);
                }
            }
        }
    }
}
