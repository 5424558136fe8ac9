//! What happens when a bin is empty: the next slots of a class, from the nearest source.

use crate::config::{CLASSES, IDLE_STRIDE, KEEP_GROUP_MAX, PRESET, RUN_PAGE};
use crate::fault::{stop, Fault};
use crate::group::bytes_of;
use crate::heap::{Heap, Quarantined};
use crate::meta::{low_mask, Meta, State};
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::Process;
use crate::size_class::stride;
use crate::slot::{FIRST_WIDE, WIDE_PURGED};
use crate::sync::Ordering;
use core::ptr::NonNull;

/// Slots per empty group that a class may keep beyond the first.
const SLOTS_PER_KEPT: u32 = 256;

impl<P: Platform> Process<P> {
    /// Fills the bin of `class`, in this order: the current group's freed slots if no other group
    /// has some; the group that waited longest; the current group's freed slots; what other
    /// threads freed; slots of the current group never used so far; a new group. False when
    /// memory is out.
    ///
    /// # Safety
    /// The caller may work on the heap, and the bin's `avail` is 0.
    pub(crate) unsafe fn refill(&self, heap: *mut Heap, class: usize) -> bool {
        // SAFETY: by contract.
        unsafe {
            loop {
                let current = (*heap).current(class);
                let queue = &mut (&mut (*heap).classes)[class];
                let only_empty = queue.queued == queue.empty;
                if !current.is_null() && only_empty && self.take_freed(heap, current) {
                    return true;
                }
                let next = queue.pop();
                if !next.is_null() {
                    self.retire(heap, class);
                    self.install(heap, next);
                    if self.take_freed(heap, next) || self.activate(heap, next) {
                        return true;
                    }
                    // It had room when it was queued, and only we take room away.
                    stop(Fault::Corruption, next.addr());
                }
                if !current.is_null() && self.take_freed(heap, current) {
                    return true;
                }
                // May release groups and queue others: look at everything again.
                if self.collect(heap) {
                    continue;
                }
                if !current.is_null() && self.activate(heap, current) {
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
            let class = (*meta).class as usize;
            let bin = &mut (&mut (*heap).bins)[class];
            bin.avail = 0;
            bin.stride = stride(class) as u32;
            bin.base = self.first_slot(meta);
            bin.meta = meta;
            (*meta).state = State::Current as u8;
        }
    }

    /// Takes the current group of a class, whose bin is empty, out of its bin: into the queue if
    /// it still has room.
    ///
    /// # Safety
    /// The caller may work on the heap; the bin's `avail` is 0.
    pub(crate) unsafe fn retire(&self, heap: *mut Heap, class: usize) {
        // SAFETY: by contract.
        unsafe {
            let meta = (*heap).current(class);
            if meta.is_null() {
                return;
            }
            (&mut (*heap).bins)[class].meta = core::ptr::null_mut();
            if (*meta).has_room() {
                (&mut (*heap).classes)[class].push(meta);
            } else {
                (*meta).state = State::Detached as u8;
            }
        }
    }

    /// Moves the freed slots of the current group to its bin. False when there are none.
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
            // Relaxed: only the owner writes the mask.
            (*meta).freed.store(!(*meta).active(), Ordering::Relaxed);
            let class = (*meta).class as usize;
            let bin = &mut (&mut (*heap).bins)[class];
            bin.avail = free;
            bin.zero = 0;
            bin.cycle = bin.cycle.wrapping_add(1);
            if stride(class) >= IDLE_STRIDE {
                let bytes = free.count_ones() as usize * stride(class);
                (*heap).idle = (*heap).idle.saturating_sub(bytes);
            }
            true
        }
    }

    /// Activates more slots of the current group, which has none free: a page's worth at least,
    /// and as many as are active. False when all are active.
    ///
    /// # Safety
    /// The caller may work on the heap; the group is current and its bin empty.
    unsafe fn activate(&self, heap: *mut Heap, meta: *mut Meta) -> bool {
        // SAFETY: by contract.
        unsafe {
            let (slots, capacity) = ((*meta).slots(), (*meta).capacity as usize);
            if slots == capacity {
                return false;
            }
            let class = (*meta).class as usize;
            let page = (RUN_PAGE / stride(class)).max(1);
            let now = (slots + page.max(slots)).min(capacity);
            let added = low_mask(now) & !low_mask(slots);
            (*meta).set_slots(now);
            let freed = (*meta).freed.load(Ordering::Relaxed);
            (*meta).freed.store(freed & !added, Ordering::Relaxed);
            let bin = &mut (&mut (*heap).bins)[class];
            bin.avail = added;
            bin.zero = (*meta).is_fresh() as u32;
            true
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
    unsafe fn got_back(&self, heap: *mut Heap, meta: *mut Meta, bits: u32) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            let current = (*heap).current(class) == meta;
            let avail = if current { (*heap).bins[class].avail } else { 0 };
            let mut rest = bits;
            while rest != 0 {
                let index = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let record = if class < FIRST_WIDE {
                    (*meta).records.narrow(index).load(Ordering::Relaxed) as u16
                } else {
                    (*meta).records.wide(index).load(Ordering::Relaxed)
                };
                // The freer cleared it: a live block here was allocated after a racing double
                // free by the owner.
                if record != 0 {
                    stop(Fault::DoubleFree, meta.addr());
                }
            }
            let freed = (*meta).freed.load(Ordering::Relaxed);
            if (freed | avail) & bits != 0 {
                stop(Fault::DoubleFree, meta.addr());
            }
            self.put_back(heap, meta, bits);
        }
    }

    /// Sets bits in `freed`, and sees to it that the group is found.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is; the slots hold no block, were handed
    /// out, and their ends are verified or pending.
    pub(crate) unsafe fn put_back(&self, heap: *mut Heap, meta: *mut Meta, bits: u32) {
        // SAFETY: by contract.
        unsafe {
            let freed = (*meta).freed.load(Ordering::Relaxed) | bits;
            (*meta).freed.store(freed, Ordering::Relaxed);
            let class = (*meta).class as usize;
            if stride(class) >= IDLE_STRIDE {
                self.add_idle(heap, bits.count_ones() as usize * stride(class));
            }
            if (*meta).is(State::Detached) || freed == u32::MAX {
                self.settle(heap, meta);
            }
        }
    }

    /// After frees: a group outside the lists goes to the queue; too many empty ones go back.
    ///
    /// # Safety
    /// The caller may work on the heap, whose group it is.
    #[inline(never)]
    pub(crate) unsafe fn settle(&self, heap: *mut Heap, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            if (*heap).current(class) == meta {
                return;
            }
            let queue = &mut (&mut (*heap).classes)[class];
            if (*meta).is(State::Detached) {
                queue.push(meta);
                if !(*meta).is_empty() {
                    return;
                }
            } else {
                queue.empty += 1;
            }
            let keep = if bytes_of(meta) > KEEP_GROUP_MAX {
                0
            } else {
                1 + queue.slots / SLOTS_PER_KEPT
            };
            // The sweep walks the queue: it waits until an eighth of it goes.
            if queue.empty > keep && queue.empty * 8 >= queue.queued {
                self.release_empty(heap, class, keep);
            }
        }
    }

    /// Releases the empty groups of a class beyond `keep`.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn release_empty(&self, heap: *mut Heap, class: usize, keep: u32) {
        // SAFETY: by contract.
        unsafe {
            let mut locked = self.lock();
            let queue = &raw mut (*heap).classes[class];
            // `release_group` changes the class's counters, never the queue.
            let mut kept_donated: *mut Meta = core::ptr::null_mut();
            (*queue).drop_empty(keep, |meta| {
                if self.donated.holds(meta) {
                    (*meta).next = kept_donated;
                    kept_donated = meta;
                } else {
                    locked.release_group(heap, meta);
                }
            });
            while !kept_donated.is_null() {
                let next = (*kept_donated).next;
                (*queue).push(kept_donated);
                kept_donated = next;
            }
        }
    }

    /// Counts bytes in free slots whose pages could go; gives them back when they are many.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn add_idle(&self, heap: *mut Heap, bytes: usize) {
        // SAFETY: by contract.
        unsafe {
            (*heap).idle += bytes;
            if (*heap).idle > crate::config::IDLE_BYTES {
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
            for class in 0..CLASSES {
                if stride(class) < IDLE_STRIDE {
                    continue;
                }
                let current = (*heap).current(class);
                if !current.is_null() {
                    self.purge_slots(current);
                }
                let mut meta = (*heap).classes[class].head;
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
                let index = free.trailing_zeros() as usize;
                free &= free - 1;
                let record = (*meta).records.wide(index);
                if record.load(Ordering::Relaxed) == WIDE_PURGED {
                    continue;
                }
                let start = self.first_slot(meta).add(index * stride(class));
                let from = start.addr().next_multiple_of(page);
                let to = (start.addr() + stride(class)) / page * page;
                if from < to {
                    let at = NonNull::new_unchecked(start.with_addr(from));
                    if self.platform.purge(at, to - from) {
                        record.store(WIDE_PURGED, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Lets a freed slot wait in quarantine (hardened preset) or counts it as free at once.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot, whose record is cleared.
    #[inline(always)]
    pub(crate) unsafe fn line_up(&self, heap: *mut Heap, slot: &Slot) {
        // SAFETY: by contract.
        unsafe {
            if PRESET.quarantine == 0 {
                return self.put_back(heap, slot.meta, slot.bit());
            }
            let entry = Quarantined { meta: slot.meta, index: slot.index as u32 };
            let due = self.quarantine(heap, entry);
            if !due.meta.is_null() {
                self.leave_quarantine(heap, due);
            }
        }
    }

    /// Counts a slot whose time in quarantine is over as free.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot.
    unsafe fn leave_quarantine(&self, heap: *mut Heap, due: Quarantined) {
        // SAFETY: by contract; the group lives while a slot of it is in line.
        unsafe {
            let bit = 1 << due.index;
            if (*due.meta).freed.load(Ordering::Relaxed) & bit != 0 {
                stop(Fault::DoubleFree, due.meta.addr());
            }
            self.put_back(heap, due.meta, bit);
        }
    }

    /// Counts everything in quarantine as free.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn empty_quarantine(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            for place in 0..crate::config::QUARANTINE {
                let none = Quarantined { meta: core::ptr::null_mut(), index: 0 };
                let due = core::mem::replace(&mut (*heap).quarantine[place], none);
                if !due.meta.is_null() {
                    self.leave_quarantine(heap, due);
                }
            }
        }
    }
}
