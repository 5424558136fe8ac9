//! free: pointer, record, owner, masks.

use crate::chunk::Chunk;
use crate::config::{PRESET, RING};
use crate::fault::{raise, stop, Fault};
use crate::heap::{Class, Heap};
use crate::meta::{Meta, State, CLASS_RUN};
use crate::pages::Platform;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::ring::{capacity, prefetch, Entry, Vacancy};
use crate::size_class::{stride, Geometry};
use crate::slot::{FIRST_WIDE, NEW, ZERO};
use crate::sync::Ordering;

impl<P: Platform> Process<P> {
    /// Frees a block; null is no block. Stops the process on any other pointer. Keeps errno.
    ///
    /// # Safety
    /// The program does not use the block any more.
    #[inline(always)]
    pub unsafe fn free(&self, block: *mut u8) {
        if self.in_chunk(block.addr()) {
            let heap = self.heap();
            // SAFETY: the window bit says that a chunk lives there, whose map leads to readable
            // cells. Relaxed: the owner is fixed while the group lives; what has no slots has an
            // owner that no heap is. The heap is the thread's own, or the empty one.
            unsafe {
                let meta = Chunk::meta_at(Chunk::around(block), block.addr());
                if (*meta).owner.load(Ordering::Relaxed) == (*heap).id {
                    let class = (*meta).class as usize;
                    if PRESET.quarantine != 0 {
                        return self.free_patient(heap, meta, block);
                    }
                    if class >= FIRST_WIDE {
                        return self.free_wide(heap, meta, block);
                    }
                    return self.free_own::<true>(heap, meta, block);
                } else if (*meta).class < CLASS_RUN {
                    return self.free_other(meta, block);
                }
            }
        }
        // SAFETY: by contract.
        unsafe { self.free_slow(block) }
    }

    /// free of a block in a group of this thread's heap, if it is one, in a wide class.
    ///
    /// # Safety
    /// As `free`, and `meta` is what the map gives; it is the heap's, of a wide class.
    #[inline(never)]
    unsafe fn free_wide(&self, heap: *mut Heap, meta: *mut Meta, block: *mut u8) {
        // SAFETY: by contract.
        unsafe { self.free_own::<false>(heap, meta, block) }
    }

    /// The same in a class of any kind, which NARROW tells.
    ///
    /// # Safety
    /// As `free`, and `meta` is what the map gives; it is the heap's.
    #[inline(always)]
    unsafe fn free_own<const NARROW: bool>(
        &self,
        heap: *mut Heap,
        meta: *mut Meta,
        block: *mut u8,
    ) {
        // SAFETY: by contract.
        unsafe {
            let Some(slot) = Untrusted::new(block).find_own::<NARROW>(heap, meta) else {
                return self.free_slow(block);
            };
            let state = Heap::class(heap, (*meta).class as usize);
            if (*state).ready() < (*state).high as u32 {
                return self.give_slot::<NARROW>(state, &slot);
            }
            let (index, start, rest) = (slot.index, slot.start, slot.end - 1);
            if NARROW {
                self.free_at_limit(state, meta, index, start, rest)
            } else {
                self.free_found(state, meta, index, start, rest)
            }
        }
    }

    /// free in the hardened preset: the block is verified at once, and its slot waits in line.
    ///
    /// # Safety
    /// As `free_own`.
    #[inline(never)]
    unsafe fn free_patient(&self, heap: *mut Heap, meta: *mut Meta, block: *mut u8) {
        let pointer = Untrusted::new(block);
        // SAFETY: by contract.
        unsafe {
            let geometry = Geometry::of((*meta).class as usize);
            let Some(slot) = pointer.find_in(meta, pointer.distance(meta), geometry) else {
                return self.free_slow(block);
            };
            raise(self.check_around(&slot));
            slot.clear_record();
            self.clear_freed(&slot);
            let entry = slot.vacancy().entry();
            if let Some((class, entry)) = self.line_up(heap, slot.class, entry) {
                self.give_entry(heap, class, entry);
            }
        }
    }

    /// Frees a slot of a narrow class whose ring is at its limit: with a full ring, all of it verified,
    /// into its group's mask, its end verified here and now. Calls nothing it returns from, which
    /// would have it save registers.
    ///
    /// # Safety
    /// The slot is this thread's heap's, of class `state`, and its block dies: slot `index` of a
    /// group, which starts at `start` and whose end is a guard and `rest` bytes.
    #[inline(never)]
    unsafe fn free_at_limit(
        &self,
        state: *mut Class,
        meta: *mut Meta,
        index: usize,
        start: *mut u8,
        rest: usize,
    ) {
        // SAFETY: by contract.
        unsafe {
            if (*state).ready() != RING as u32 || !(*state).is_verified() {
                return self.free_found(state, meta, index, start, rest);
            }
            let class = (*meta).class as usize;
            raise(self.check_end_of(state, class, start, rest + 1));
            Vacancy::of::<true>(meta, index, start).set_used::<true>();
            self.put_back(self.heap(), class, meta, 1 << index, 1, true);
        }
    }

    /// Frees a slot, whatever its class and ring. While a full ring holds slots that are not
    /// verified, its oldest goes to a mask instead, so that none waits longer than 16 further frees.
    /// Once in so many the whole ring is verified: in a row of frees the masks get the slots
    /// themselves then. At once it would cost programs too much that free and allocate about as
    /// often.
    ///
    /// # Safety
    /// As `free_at_limit`, for a class of any kind.
    #[inline(never)]
    unsafe fn free_found(
        &self,
        state: *mut Class,
        meta: *mut Meta,
        index: usize,
        start: *mut u8,
        rest: usize,
    ) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            let slot = if class < FIRST_WIDE {
                let slot = Vacancy::of::<true>(meta, index, start);
                slot.set_freed::<true>(rest + 1);
                slot
            } else {
                let slot = Vacancy::of::<false>(meta, index, start);
                slot.set_freed::<false>(rest + 1);
                slot
            };
            let heap = self.heap();
            if (*state).ready() == capacity(class)
                && ((*state).is_verified() || (*state).out % RING as u32 == 0)
            {
                self.check_ring(state, class);
                return self.spill_slot(heap, class, slot, true);
            }
            prefetch(start.add((*state).stride as usize - 1));
            self.give_entry(heap, class, slot.entry());
        }
    }

    /// Puts a slot into its class's ring; if that is full, its oldest goes to a mask; if this was the
    /// last live block of a class that holds much, all of it goes.
    ///
    /// # Safety
    /// The caller may work on the heap that owns the slot, which holds no block.
    #[inline(never)]
    unsafe fn give_entry(&self, heap: *mut Heap, class: usize, entry: Entry) {
        // SAFETY: by contract.
        unsafe {
            let state = Heap::class(heap, class);
            if (*state).ready() == capacity(class) {
                let oldest = (*state).take();
                (*state).give(entry);
                return self.spill_slot(heap, class, oldest, true);
            }
            (*state).give(entry);
            if (*state).ready() < (*state).high as u32 {
                return;
            }
            if (*state).ready() == (*state).out && (*state).much {
                return self.put_away(heap, class);
            }
            // More are out by now, perhaps.
            (*state).limit(class);
        }
    }

    /// The rest of free: null, wide classes, other heaps, run and large blocks, misuse.
    ///
    /// # Safety
    /// As `free`.
    #[inline(never)]
    pub(crate) unsafe fn free_slow(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        // SAFETY: by contract; `find` said what it is. What changes under the lock is looked up once
        // more when it is held: another thread may free the same block meanwhile, and what told of it
        // may tell of another by then.
        unsafe {
            match self.find(block) {
                Block::Slot(slot) => self.free_slot(&slot),
                Block::Run(meta) => self.free_run(meta, block),
                Block::Outside => self.free_outside(block),
            }
        }
    }

    /// Frees a block in a slot of any heap.
    ///
    /// # Safety
    /// The program does not use the block any more.
    #[inline(always)]
    unsafe fn free_slot(&self, slot: &Slot) {
        let heap = self.heap();
        // SAFETY: by contract. Relaxed: the owner is fixed while the group lives.
        unsafe {
            if (*slot.meta).owner.load(Ordering::Relaxed) == (*heap).id {
                if PRESET.quarantine != 0 {
                    return self.free_patient(heap, slot.meta, slot.block());
                }
                let state = Heap::class(heap, slot.class);
                let (index, start) = (slot.index, slot.start);
                self.free_found(state, slot.meta, index, start, slot.end - 1);
            } else {
                self.free_remote(slot);
            }
        }
    }

    /// What kind of block starts at `block`, as far as that is seen without the lock.
    pub(crate) fn find(&self, block: *mut u8) -> Block {
        let pointer = Untrusted::new(block);
        let meta = pointer.meta(self);
        // SAFETY: metas given by the map are readable.
        unsafe {
            if !meta.is_null() && (*meta).class < CLASS_RUN {
                if let Some(slot) = pointer.find_in_group(meta) {
                    return Block::Slot(slot);
                }
            } else if pointer.starts_run(meta) {
                return Block::Run(meta);
            }
        }
        Block::Outside
    }

    /// Bytes of the block at `block`, which `find` calls outside. Stops the process if no live
    /// block starts there.
    #[inline(never)]
    pub(crate) fn outside_length(&self, block: *mut u8) -> usize {
        match self.large_length(block) {
            Some(n) => n,
            None if self.zero_contains(block, false) => 0,
            None => self.refuse(block),
        }
    }

    /// Frees the block at `block`, which `find` calls outside. Stops the process if no live block
    /// starts there.
    ///
    /// # Safety
    /// The program does not use the block any more.
    unsafe fn free_outside(&self, block: *mut u8) {
        // SAFETY: by contract.
        if !unsafe { self.large_free(block) } && !self.zero_free(block) {
            self.refuse(block);
        }
    }

    /// Stops the process, as no live block starts at `block`.
    #[cold]
    fn refuse(&self, block: *mut u8) -> ! {
        let meta = Untrusted::new(block).meta(self);
        // SAFETY: `meta` is the map's for this block.
        stop(unsafe { self.classify(meta, block) }, block.addr())
    }

    /// The name of the misuse: freed blocks' starts are double frees, all else is invalid.
    ///
    /// # Safety
    /// `meta` is what the map gave for `block`, or null.
    unsafe fn classify(&self, meta: *mut Meta, block: *mut u8) -> Fault {
        // SAFETY: by contract.
        unsafe {
            if !meta.is_null() && (*meta).class < CLASS_RUN {
                let stride = stride((*meta).class as usize);
                let distance = block.addr() - Meta::base_of(meta).addr();
                let index = distance / stride;
                let free = index < (*meta).capacity()
                    && !self.holds_block(meta, index)
                    && !self.is_unused(meta, index);
                if free && distance % crate::config::UNIT == 0 {
                    return Fault::DoubleFree;
                }
            }
            if self.large_was_freed(block) || self.zero_contains(block, true) {
                return Fault::DoubleFree;
            }
            Fault::InvalidPointer
        }
    }

    /// Whether slot `index`, which holds no block, was never handed out since its group was made.
    ///
    /// # Safety
    /// `meta` is the cell of a group with slots, `index` below its capacity.
    pub(crate) unsafe fn is_unused(&self, meta: *mut Meta, index: usize) -> bool {
        // SAFETY: by contract. In a mask the record is a mark, in a ring it may look like one.
        // Another thread's mask may change meanwhile: then the name of the fault may be the other.
        unsafe {
            let record = (*meta).record(index);
            (record == NEW.into() || record == ZERO.into())
                && (self.avail(meta) | (*meta).freed.load(Ordering::Relaxed)) & 1 << index != 0
        }
    }

    /// Slots of a group that malloc may take and that are in no mask of the group.
    ///
    /// # Safety
    /// As `is_unused`.
    pub(crate) unsafe fn avail(&self, meta: *mut Meta) -> u32 {
        // SAFETY: by contract; owners of groups with slots are heaps, which live for ever. Volatile:
        // the owner may be at work.
        unsafe {
            if !(*meta).is(State::Current) {
                return 0;
            }
            let owner = (*meta).owner.load(Ordering::Relaxed);
            let state = Heap::class(self.heap_by_id(owner), (*meta).class as usize);
            (&raw const (*state).avail).read_volatile()
        }
    }

    /// Whether slot `index` has a record of a live block.
    ///
    /// # Safety
    /// `meta` is the cell of a group with slots, `index` below its capacity.
    pub(crate) unsafe fn holds_block(&self, meta: *mut Meta, index: usize) -> bool {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            if class < FIRST_WIDE {
                let record = (*meta).records.narrow(index).load(Ordering::Relaxed);
                crate::slot::narrow_units(record) != 0
            } else {
                let record = (*meta).records.wide(index).load(Ordering::Relaxed);
                crate::slot::wide_read(stride(class), record).is_some()
            }
        }
    }

    /// free_sized, free_aligned_sized: frees a block that was asked for with this size and
    /// alignment (1 to ask nothing). Stops the process if that cannot be.
    ///
    /// # Safety
    /// As `free`.
    pub unsafe fn free_sized(&self, block: *mut u8, align: usize, n: usize) {
        if block.is_null() {
            return;
        }
        let fits = match self.find(block) {
            // The record holds the size, rounded up as `fit` does.
            Block::Slot(slot) => {
                crate::slot::fit(slot.class, slot.stride, slot.offset, n) == Some(slot.length())
            }
            _ => self.usable_size(block) == n,
        };
        if !fits || !align.is_power_of_two() || block.addr() % align != 0 {
            stop(Fault::SizeMismatch, block.addr());
        }
        // SAFETY: by contract.
        unsafe { self.free(block) }
    }
}

/// A block, by kind; live, unless it is `Outside`.
pub(crate) enum Block {
    /// In a slot.
    Slot(Slot),
    /// Alone in a run of pages.
    Run(*mut Meta),
    /// In a mapping of its own, or of no bytes and in no memory; or no block at all: the lock is
    /// needed to tell.
    Outside,
}
