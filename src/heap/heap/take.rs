//! Slots taken and blocks placed in them; canaries written and verified.
//!
//! A block's tail is verified when its slot leaves the reuse queue (in the hardened preset at the
//! free itself), by the freer when another thread owns the slot, and whenever the block is resized.

use crate::base::config::{PRESET, PURGE_STRIDE};
use crate::base::fault::{raise, stop, was_found, Fault, Found};
use crate::base::platform::Platform;
use crate::base::sync::Ordering::Relaxed;
use crate::heap::class::Class;
use crate::heap::heap::MyHeap;
use crate::layout::guard::Guard;
use crate::layout::record::{
    max_tail, narrow_offset, narrow_record, wide_place, wide_record, Place, FIRST_WIDE, USED, ZERO,
};
use crate::layout::slot::{FreeSlot, LiveSlot};

/// What a wide class's `cycle` goes on by: 2^16 over the golden ratio, odd, so that the lower 16
/// bits spread evenly (Knuth, The Art of Computer Programming 3, 6.4).
const STEP: u16 = 0x9e37;

impl<P: Platform> MyHeap<'_, P> {
    /// Verifies the tail of a slot in the reuse queue, or just taken out, if that is still to be
    /// done. `narrow` tells the kind of the class, here and below.
    #[inline(always)]
    pub fn check_freed(self, narrow: bool, state: &Class, slot: FreeSlot) -> Result<(), Found> {
        if PRESET.check_at_free {
            return Ok(());
        }
        slot.check_tail(state.stride(), slot.tail(narrow), state.canary.get())
    }

    /// Verifies the tails of all slots in a class's reuse queue. Of the empty heap there is none.
    #[cold]
    #[inline(never)]
    pub fn verify_queue(self, class: usize) {
        let state = self.class(class);
        if PRESET.check_at_free || state.is_verified() {
            return;
        }
        raise(state.verify(|slot| self.check_freed(class < FIRST_WIDE, state, slot)));
    }

    /// Takes the oldest slot of the reuse queue, which is not empty, and verifies it.
    #[inline(always)]
    pub fn take_ready(self, narrow: bool, state: &Class) -> FreeSlot {
        let slot = state.take();
        if !narrow {
            self.zero.set(false);
        }
        if PRESET.check_at_free {
            raise(slot.check_clear(state.stride()));
        } else {
            raise(self.check_freed(narrow, state, slot));
        }
        slot
    }

    /// Takes a slot of the current group, of which `avail` has one. Its tail was verified before;
    /// the last byte is once more, as the next slot's block may have been written from its front
    /// since.
    #[inline(always)]
    pub fn take_avail(self, narrow: bool, state: &Class) -> Option<FreeSlot> {
        let group = state.current.get()?;
        let index = self.pick(state.avail.get());
        state.avail.set(state.avail.get() & !(1 << index));
        state.out.set(state.out.get() + 1);
        let stride = state.stride();
        let start = state.base.get().wrapping_add(index * stride);
        // SAFETY: the class's current group has the slot, which `avail` had: nobody else takes it.
        let slot = unsafe { FreeSlot::of(narrow, group.group(), index, start) };
        let mark = slot.mark(narrow);
        if !narrow {
            self.zero.set(mark == ZERO);
        }
        if stride >= PURGE_STRIDE && mark == USED {
            self.idle.sub(stride);
        }
        if PRESET.check_at_free || mark != USED {
            raise(slot.check_clear(stride));
        } else if slot.read(stride - 1) != state.canary.get() {
            stop(Fault::Overflow, start.addr() + stride - 1);
        }
        Some(slot)
    }

    /// Number of one set bit of `bits`: the lowest, or a random one. `bits` is not zero.
    #[inline(always)]
    fn pick(self, bits: u32) -> usize {
        let mut left = bits;
        if PRESET.random_slots {
            for _ in 0..self.choose(bits.count_ones() as usize) {
                left &= left - 1;
            }
        }
        left.trailing_zeros() as usize
    }

    /// Takes a slot of any class that has one at hand, for callers that need not be fast.
    #[inline(never)]
    pub fn take_any(self, class: usize) -> Option<FreeSlot> {
        let (narrow, state) = (class < FIRST_WIDE, self.class(class));
        if state.has_ready() {
            return Some(self.take_ready(narrow, state));
        }
        self.verify_queue(class);
        self.take_avail(narrow, state)
    }

    /// Makes a block of `n` bytes of a slot just taken, whose class n suits.
    #[inline(always)]
    pub fn place(self, narrow: bool, state: &Class, slot: FreeSlot, n: usize) -> *mut u8 {
        // Read before anything is written: who verified the slot has both at hand.
        let (stride, canary) = (state.stride(), state.canary.get());
        // Relaxed, both: other threads learn of the block by the program's own synchronisation.
        let offset = if narrow {
            let offset = narrow_offset(stride, n, state.cycle.get());
            slot.narrow()
                .store(narrow_record(stride - n, offset), Relaxed);
            offset
        } else {
            let cycle = state.cycle.get().wrapping_add(STEP);
            state.cycle.set(cycle);
            let place = wide_place(stride, n, cycle);
            slot.wide().store(wide_record(stride, place), Relaxed);
            place.offset
        };
        let tail = stride - offset - n;
        self.all
            .surround(narrow, slot, stride, Place { offset, tail }, canary);
        slot.start.wrapping_add(offset)
    }

    /// Moves the end of a live block of the heap, the canaries around which were verified, to `n`
    /// bytes, for which the slot has room; rounded up as far as the record demands. `canary` is the
    /// class's.
    #[inline(always)]
    pub fn end_at(self, narrow: bool, slot: &LiveSlot, n: usize, canary: u8) {
        let tail = (slot.room() - n).min(max_tail(narrow));
        let place = Place {
            offset: slot.offset,
            tail,
        };
        write_place(narrow, slot.stride, slot.held(narrow), place);
        let place = Place { offset: 0, tail };
        self.all
            .surround(narrow, slot.behind(narrow), slot.room(), place, canary);
    }

    /// Makes a block of `n` bytes of a slot of any class just taken; if `at_start`, at the slot's
    /// start, and rounded up as far as the record demands.
    pub fn place_any(self, class: usize, slot: FreeSlot, n: usize, at_start: bool) -> *mut u8 {
        let (narrow, state) = (class < FIRST_WIDE, self.class(class));
        if at_start {
            self.place_at_start(narrow, state, slot, n)
        } else {
            self.place(narrow, state, slot, n)
        }
    }

    /// `place_any` at the slot's start.
    #[inline(always)]
    pub fn place_at_start(self, narrow: bool, state: &Class, slot: FreeSlot, n: usize) -> *mut u8 {
        let (stride, canary) = (state.stride(), state.canary.get());
        let tail = (stride - n).min(max_tail(narrow));
        let place = Place { offset: 0, tail };
        write_place(narrow, stride, slot, place);
        self.all.surround(narrow, slot, stride, place, canary);
        slot.start
    }
}

/// Writes the record of a block's place in a slot of `stride` bytes. Relaxed: other threads learn
/// of the block by the program's own synchronisation.
#[inline(always)]
fn write_place(narrow: bool, stride: usize, slot: FreeSlot, place: Place) {
    if narrow {
        let record = narrow_record(place.offset + place.tail, place.offset);
        slot.narrow().store(record, Relaxed);
    } else {
        slot.wide().store(wide_record(stride, place), Relaxed);
    }
}

impl<P: Platform> crate::heap::heap::Heaps<P> {
    /// Writes what stands in a slot, which is the caller's, around a block at `place`: a guard; or
    /// a NUL behind it, so that a string without an end shows nothing, and the class's canary in
    /// the slot's last byte, and before the block in wide classes.
    #[inline(always)]
    fn surround(&self, narrow: bool, slot: FreeSlot, stride: usize, place: Place, canary: u8) {
        if PRESET.has_guards() {
            return slot.write_guard(&self.memory.system.secrets, stride, place);
        }
        slot.write(stride - place.tail, 0);
        // A tail of one byte is this one.
        slot.write(stride - 1, canary);
        if !narrow && place.offset > 0 {
            slot.write(place.offset - 1, canary);
        }
    }

    /// Err unless what `surround` wrote around a live block stands. A block with a guard at its
    /// slot's start has the end of the slot before it there.
    #[inline(never)]
    pub fn check_around(&self, slot: &LiveSlot) -> Result<(), Found> {
        let secrets = &self.memory.system.secrets;
        slot.check_tail(secrets)?;
        if !PRESET.has_guards() {
            let has_front =
                slot.class < FIRST_WIDE || slot.has_front(secrets.class_canary(slot.class));
            return if has_front {
                Ok(())
            } else {
                Err(Found(Fault::Overflow, slot.block().addr() - 1))
            };
        }
        // Before slot 0 lies another group, or an inaccessible page. A damaged tail that was
        // reported still stands before the next slot: once is enough.
        if slot.offset == 0 && slot.index > 0 && !was_found() {
            let before = slot.start.wrapping_sub(slot.stride);
            let guard = Guard::new(before, slot.stride, secrets.guard(before.addr()));
            guard.check_end().map_err(|at| Found(Fault::Overflow, at))?;
        }
        Ok(())
    }

    /// `check_around` for a slot of a narrow class, in line where it takes little.
    #[inline(always)]
    pub fn check_around_narrow(&self, slot: &LiveSlot) -> Result<(), Found> {
        if PRESET.has_guards() {
            return self.check_around(slot);
        }
        slot.check_tail(&self.memory.system.secrets)
    }

    /// Moves the end of a live block, whose tail was verified, to `n` bytes, which `record::fit`
    /// gave. Any thread that the block belongs to may do so.
    pub fn end_at(&self, slot: &LiveSlot, n: usize) {
        let place = Place {
            offset: slot.offset,
            tail: slot.stride - slot.offset - n,
        };
        let free = slot.held(slot.class < FIRST_WIDE);
        write_place(slot.class < FIRST_WIDE, slot.stride, free, place);
        if PRESET.has_guards() {
            // What the block gains holds its old guard.
            let (old, new) = (slot.stride - slot.tail(), slot.stride - place.tail);
            (old..new).for_each(|at| free.write(at, 0));
        }
        let canary = self.memory.system.secrets.class_canary(slot.class);
        self.surround(slot.class < FIRST_WIDE, free, slot.stride, place, canary);
    }
}

/// Asks for the cache line at `at`.
#[inline(always)]
pub fn prefetch(at: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches; SSE is part of x86_64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast::<i8>());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch has no effect but on caches.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
