//! realloc and malloc_usable_size.
//!
//! ```text
//! resize             a narrow class of this thread's heap, as in free.rs
//!   check_tail         its tail, which becomes the program's or is freed   layout/slot.rs
//!   end_at             it stays: record and canary of the new end          heap/take.rs
//!   relocate           it does not: malloc, copy, free
//! resize_rest        any other block
//!   resize_slot        of another class or heap
//!   resize_outside     of no class                                         pages/large.rs
//! ```

use crate::allocator::malloc::MAX_NARROW;
use crate::allocator::Allocator;
use crate::base::config::{CLASSES, PRESET};
use crate::base::fault::{raise, stop, Fault};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, Geometry, MAX_SMALL};
use crate::layout::group::Group;
use crate::layout::record::{fit, FIRST_WIDE};
use crate::layout::slot::LiveSlot;
use core::ptr;

impl<P: Platform> Allocator<P> {
    /// Resizes a block to `n` bytes, perhaps moving it; contents up to the lesser size are kept.
    /// Null, and errno, when memory is out: the block is unchanged. Null resizes nothing: that is
    /// malloc. Stops the process if `block` is no live block.
    ///
    /// # Safety
    /// The program uses only the returned pointer after success.
    pub unsafe fn realloc(&self, block: *mut u8, n: usize) -> *mut u8 {
        // SAFETY: the caller says so.
        unsafe { self.realloc_by(block, n, |n| self.malloc(n)) }
    }

    /// realloc with a malloc that does what it does, and perhaps something before.
    ///
    /// # Safety
    /// As for realloc.
    pub(crate) unsafe fn realloc_by(
        &self,
        block: *mut u8,
        n: usize,
        malloc: impl Fn(usize) -> *mut u8 + Copy,
    ) -> *mut u8 {
        // SAFETY: the caller gives the block up, unless null is returned.
        unsafe {
            let free = |block| self.free(block);
            let relocate = |usable| self.relocate(block, n, usable, malloc, free);
            let rest = || self.resize_rest(block, n, malloc, relocate);
            let wide = || self.resize(false, block, n, relocate, rest);
            self.resize(true, block, n, relocate, wide)
        }
    }

    /// realloc of a block of this thread's heap to a size of the same class, whose kind `narrow`
    /// tells. Where it does not stay, `relocate` is told how many bytes the program may have used.
    /// Any other: `rest`. Both are the caller's functions, and this one is all in line: what is
    /// called last has registers of its own to save.
    ///
    /// # Safety
    /// The program uses only the returned pointer after success.
    #[inline(always)]
    pub unsafe fn resize(
        &self,
        narrow: bool,
        block: *mut u8,
        n: usize,
        relocate: impl FnOnce(usize) -> *mut u8,
        rest: impl FnOnce() -> *mut u8,
    ) -> *mut u8 {
        let (least, most) = if narrow {
            (1, MAX_NARROW)
        } else {
            (MAX_NARROW + 1, MAX_SMALL)
        };
        // No bytes, too, are for `rest`, and so is null, where no chunk is.
        if !P::SHORTCUTS || n.wrapping_sub(least) > most - least || PRESET.has_guards() {
            return rest();
        }
        let Some(chunk) = self.heaps.memory.system.pagemap.near_chunk(block.addr()) else {
            return rest();
        };
        let heap = self.mine();
        let group = chunk.group_at(block.addr());
        // A change of class moves the block even to shrink: so groups empty and memory goes back.
        let class = class_of(n);
        if !heap.owns_of(group, class) {
            return rest();
        }
        let state = heap.class(class);
        let Some(slot) = LiveSlot::find(narrow, group, class, block, state.geometry()) else {
            return rest();
        };
        // The old tail is verified, as it becomes the program's, or is not written any more. What
        // is wrong with it `rest` tells.
        let canary = state.canary.get();
        let behind = slot.behind(narrow);
        let tail = behind.check_tail(slot.room(), slot.tail(), canary);
        if tail.is_err() || !narrow && !slot.has_front(canary) {
            return rest();
        }
        if n >= slot.room() {
            return relocate(slot.length());
        }
        heap.end_at(narrow, &slot, n, canary);
        block
    }

    /// realloc to a size beyond all classes. `rest`: if the block lies where a chunk is.
    ///
    /// # Safety
    /// As for `resize`.
    #[inline(always)]
    pub unsafe fn resize_large(
        &self,
        block: *mut u8,
        n: usize,
        relocate: impl FnOnce(usize) -> *mut u8,
        rest: impl FnOnce() -> *mut u8,
    ) -> *mut u8 {
        let has_chunk = self.heaps.memory.system.pagemap.has(block.addr());
        if has_chunk || block.is_null() || n > isize::MAX as usize {
            return rest();
        }
        let (resized, usable) = self.resize_outside(block, n);
        if resized.is_null() {
            relocate(usable)
        } else {
            resized
        }
    }

    /// The part of realloc that moves a block, of which the program may have used `usable` bytes.
    ///
    /// # Safety
    /// The program uses only the returned pointer after success. `malloc` and `free` are this
    /// allocator's.
    #[inline(always)]
    pub unsafe fn relocate(
        &self,
        block: *mut u8,
        n: usize,
        usable: usize,
        malloc: impl FnOnce(usize) -> *mut u8,
        free: impl FnOnce(*mut u8),
    ) -> *mut u8 {
        let new = malloc(n);
        if new == block {
            // Another thread freed it meanwhile.
            stop(Fault::DoubleFree, block.addr());
        }
        if !new.is_null() {
            // SAFETY: the old block has so many bytes, the new one is another and holds n.
            unsafe { ptr::copy_nonoverlapping(block, new, usable.min(n)) };
            // Looked up once more: freed by another thread meanwhile, its slot may hold another.
            free(block);
        }
        new
    }

    /// realloc of any block, or of null.
    ///
    /// # Safety
    /// As for `resize`; `malloc` is this allocator's.
    #[inline(always)]
    pub unsafe fn resize_rest(
        &self,
        block: *mut u8,
        n: usize,
        malloc: impl FnOnce(usize) -> *mut u8,
        relocate: impl FnOnce(usize) -> *mut u8,
    ) -> *mut u8 {
        if block.is_null() {
            return malloc(n);
        }
        if n > isize::MAX as usize {
            return self.resize_beyond(block);
        }
        let (resized, usable) = match self.find(block) {
            Some(slot) => {
                raise(self.heaps.check_around(&slot));
                let resized = self.resize_slot(&slot, n);
                (if resized { block } else { ptr::null_mut() }, slot.length())
            }
            None => self.resize_outside(block, n),
        };
        if resized.is_null() {
            relocate(usable)
        } else {
            resized
        }
    }

    /// A resize to more bytes than there can be: null, and errno, but stops the process on what is
    /// no block, as any other.
    #[cold]
    #[inline(never)]
    fn resize_beyond(&self, block: *mut u8) -> *mut u8 {
        match self.find(block) {
            Some(slot) => raise(self.heaps.check_around(&slot)),
            None => {
                self.length_outside(block);
            }
        }
        self.out_of_memory()
    }

    /// Resizes a block, its tail verified, within its slot, if its class stays the same and the
    /// slot has room.
    #[inline(always)]
    fn resize_slot(&self, slot: &LiveSlot, n: usize) -> bool {
        if n > MAX_SMALL || class_of(n) != slot.class || n == 0 {
            return false;
        }
        let Some(n) = fit(slot.class, slot.stride, slot.offset, n) else {
            return false;
        };
        self.heaps.end_at(slot, n);
        true
    }

    /// Resizes a block that no size class has, if it can keep its pages. Where it is now, or null:
    /// it is unchanged; and its length before. Stops the process if no live block starts there.
    #[inline(never)]
    fn resize_outside(&self, block: *mut u8, n: usize) -> (*mut u8, usize) {
        let large = self.heaps.memory.locked(|locked| {
            let stays = n > MAX_SMALL;
            locked.resize_large(block, n, stays)
        });
        large.unwrap_or_else(|| {
            // A block of no bytes, if any.
            let usable = self.length_outside(block);
            let stays = n == 0;
            (if stays { block } else { ptr::null_mut() }, usable)
        })
    }

    /// Bytes that the program may use at `block`; 0 for null. Stops the process if it is no live
    /// block.
    pub fn usable_size(&self, block: *mut u8) -> usize {
        if let Some(chunk) = self.heaps.memory.system.pagemap.chunk(block.addr()) {
            let group = chunk.group_at(block.addr());
            let class = group.class();
            if class < FIRST_WIDE {
                let geometry = Geometry::of(class);
                if let Some(slot) = LiveSlot::find(true, group, class, block, geometry) {
                    return slot.length();
                }
            } else if class < CLASSES {
                return self.usable_wide(group, block);
            }
        }
        self.usable_outside(block)
    }

    /// Bytes that the program may use at a block in a group of a wide class.
    #[inline(never)]
    fn usable_wide(&self, group: &'static Group, block: *mut u8) -> usize {
        let class = group.class();
        match LiveSlot::find(false, group, class, block, Geometry::of(class)) {
            Some(slot) => slot.length(),
            None => self.length_outside(block),
        }
    }

    /// Bytes that the program may use at a block of no size class, or at null.
    #[inline(never)]
    fn usable_outside(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        self.length_outside(block)
    }
}
