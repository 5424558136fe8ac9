//! What guards a slot's memory: the bytes around its end, and in the hardened preset cleared
//! memory and a place in line for freed slots.
//!
//! A block's end is verified when its slot leaves the ring of freed slots (see `ring.rs`; in the
//! hardened preset at the free itself), by the freer when another thread owns the slot, and
//! whenever the block is resized.

use crate::config::{PRESET, QUARANTINE};
use crate::fault::{was_found, Fault, Found};
use crate::heap::Heap;
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::{next_random, Process};
use crate::ring::Entry;

impl<P: Platform> Process<P> {
    /// Writes the guards of an end of `len` bytes at `at`.
    ///
    /// # Safety
    /// The end is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn write_guards(&self, class: usize, at: *mut u8, len: usize) {
        // SAFETY: by contract; len is at least 1.
        unsafe {
            let last = at.add(len - 1);
            at.write(self.guard(class, at.addr()));
            last.write(self.guard(class, last.addr()));
        }
    }

    /// Whether both guards of an end still stand.
    ///
    /// # Safety
    /// The end is readable.
    #[inline(always)]
    pub(crate) unsafe fn guards_stand(&self, class: usize, at: *mut u8, len: usize) -> bool {
        // SAFETY: by contract. Volatile: a program that overflows may race with us, and what is
        // read is only compared.
        unsafe {
            let last = at.add(len - 1);
            at.read_volatile() == self.guard(class, at.addr())
                && last.read_volatile() == self.guard(class, last.addr())
        }
    }

    /// Err if the end of `slot` was written.
    ///
    /// # Safety
    /// The slot's memory is mapped.
    #[inline(always)]
    pub(crate) unsafe fn check_end(&self, slot: &Slot) -> Result<(), Found> {
        // SAFETY: by contract.
        unsafe { self.check_guards(slot.class, slot.end_at(), slot.end) }
    }

    /// Err if a guard of an end of `len` bytes at `at` was written.
    ///
    /// # Safety
    /// The end is readable.
    #[inline(always)]
    pub(crate) unsafe fn check_guards(
        &self,
        class: usize,
        at: *mut u8,
        len: usize,
    ) -> Result<(), Found> {
        // SAFETY: by contract.
        if unsafe { self.guards_stand(class, at, len) } {
            Ok(())
        } else {
            Err(Found(Fault::Overflow, at.addr()))
        }
    }

    /// Writes the guard before a block that stands `offset` bytes into its slot, if the preset says
    /// so and there is room.
    ///
    /// # Safety
    /// The slot is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn write_front(&self, class: usize, block: *mut u8, offset: usize) {
        if PRESET.front_guard && offset > 0 {
            // SAFETY: by contract.
            unsafe {
                let front = block.sub(1);
                front.write(self.guard(class, front.addr()));
            }
        }
    }

    /// The same as `check_end` for a block in a slot of a heap, whose front is verified, too, if
    /// the preset says so: a guard of its own, or the neighbour's last byte, which is a guard or,
    /// if the neighbour holds no block, zero.
    ///
    /// # Safety
    /// The slot's memory is mapped.
    #[inline(always)]
    pub(crate) unsafe fn check_around(&self, slot: &Slot) -> Result<(), Found> {
        // SAFETY: by contract. Before slot 0 lies another group, or an inaccessible page.
        unsafe {
            self.check_end(slot)?;
            if PRESET.front_guard && (slot.offset > 0 || slot.index > 0) {
                let front = slot.block().sub(1);
                // Volatile: see `guards_stand`.
                let byte = front.read_volatile();
                let neighbour_free = slot.offset == 0 && byte == 0;
                // A damaged end that was told of still stands before the next slot: once is enough.
                if !neighbour_free && !was_found() && byte != self.guard(slot.class, front.addr()) {
                    return Err(Found(Fault::Overflow, front.addr()));
                }
            }
            Ok(())
        }
    }

    /// Clears a freed slot, if the preset says so. With it all free memory is zero.
    ///
    /// # Safety
    /// The slot is ours and holds no live block.
    #[inline(always)]
    pub(crate) unsafe fn clear_freed(&self, slot: &Slot) {
        if PRESET.zero_on_free {
            // SAFETY: the block is dead.
            unsafe { slot.start.write_bytes(0, slot.stride) };
        }
    }

    /// If the preset clears freed memory: Err if free memory is no longer clear.
    ///
    /// # Safety
    /// [start, start + len) is free memory; start and len are multiples of 16.
    #[inline(always)]
    pub(crate) unsafe fn check_clear(&self, start: *mut u8, len: usize) -> Result<(), Found> {
        if !PRESET.zero_on_free {
            return Ok(());
        }
        // SAFETY: by contract. Volatile: the writer we look for may be racing.
        unsafe {
            let words = start.cast::<u64>();
            for word in 0..len / 8 {
                if words.add(word).read_volatile() != 0 {
                    if was_found() {
                        // There may be more of it than was told of: a handler's malloc goes on.
                        start.write_bytes(0, len);
                        break;
                    }
                    return Err(Found(Fault::WriteAfterFree, words.add(word).addr()));
                }
            }
        }
        Ok(())
    }

    /// In the hardened preset a freed slot first waits in line, at a random place: how long cannot
    /// be foreseen. Returns the slot whose turn it is instead, with its class, if there is one.
    ///
    /// # Safety
    /// The caller may work on the heap, which owns the slot.
    #[inline(always)]
    pub(crate) unsafe fn line_up(
        &self,
        heap: *mut Heap,
        class: usize,
        entry: Entry,
    ) -> Option<(usize, Entry)> {
        if PRESET.quarantine == 0 {
            return Some((class, entry));
        }
        // SAFETY: by contract; the group of a slot in line lives.
        unsafe {
            let random = next_random(&mut (*heap).seed) >> 32;
            let place = ((random * QUARANTINE as u64) >> 32) as usize;
            let due = core::mem::replace(&mut (*heap).quarantine[place], entry);
            (due != Entry::NONE).then(|| ((*due.slot().meta()).class as usize, due))
        }
    }

    /// Counts everything in line as free.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn empty_quarantine(&self, heap: *mut Heap) {
        if PRESET.quarantine == 0 {
            return;
        }
        // SAFETY: by contract.
        unsafe {
            for place in 0..QUARANTINE {
                let due = core::mem::replace(&mut (*heap).quarantine[place], Entry::NONE);
                if due != Entry::NONE {
                    let slot = due.slot();
                    let class = (*slot.meta()).class as usize;
                    let bit = 1 << slot.index(class);
                    self.put_back(heap, class, slot.meta(), bit, 1, false);
                }
            }
        }
    }
}

const _: () = assert!(QUARANTINE >= 1);
