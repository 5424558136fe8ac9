//! realloc and malloc_usable_size.

use crate::allocator::Allocator;
use crate::base::fault::{raise, stop, Fault, Found};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, MAX_SMALL};
use crate::layout::record::fit;
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
        if block.is_null() {
            return self.malloc(n);
        }
        // SAFETY: the caller uses only the returned pointer after success.
        unsafe { self.resize(block, n, |n| self.malloc(n)) }
    }

    /// realloc of a block, not null. `malloc` is this allocator's: it is all in line, and libc
    /// should have one copy of it.
    ///
    /// # Safety
    /// The program uses only the returned pointer after success.
    #[inline(always)]
    pub unsafe fn resize(
        &self,
        block: *mut u8,
        n: usize,
        malloc: impl FnOnce(usize) -> *mut u8,
    ) -> *mut u8 {
        if n > isize::MAX as usize {
            return self.out_of_memory();
        }
        let (resized, usable) = match self.find(block) {
            Some(slot) => {
                let resized = raise(self.resize_slot(&slot, n));
                (if resized { block } else { ptr::null_mut() }, slot.length())
            }
            None => self.resize_outside(block, n),
        };
        if !resized.is_null() {
            return resized;
        }
        let new = malloc(n);
        if new == block {
            // Another thread freed it meanwhile.
            stop(Fault::DoubleFree, block.addr());
        }
        if !new.is_null() {
            // SAFETY: the old block has so many bytes, the new one is another and holds n.
            unsafe { ptr::copy_nonoverlapping(block, new, usable.min(n)) };
            // Looked up once more: freed by another thread meanwhile, its slot may hold another.
            self.free_again(block);
        }
        new
    }

    /// Resizes a block within its slot, if its class stays the same and the slot has room.
    /// A change of class moves the block even to shrink: so groups empty and memory goes back.
    #[inline(always)]
    fn resize_slot(&self, slot: &LiveSlot, n: usize) -> Result<bool, Found> {
        if n > MAX_SMALL || class_of(n) != slot.class || n == 0 {
            return Ok(false);
        }
        let Some(n) = fit(slot.class, slot.stride, slot.offset, n) else {
            return Ok(false);
        };
        // The old tail is verified, as it becomes the program's.
        slot.check_tail(&self.heaps.memory.system.secrets)?;
        self.heaps.replace(slot, n);
        Ok(true)
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
        if block.is_null() {
            return 0;
        }
        match self.find_here(block) {
            Some(slot) => slot.length(),
            None => self.length_outside(block),
        }
    }
}
