//! realloc and malloc_usable_size.

use crate::config::PRESET;
use crate::fault::{raise, stop, Fault, Found};
use crate::free::Block;
use crate::meta::Meta;
use crate::pages::Platform;
use crate::pointer::Slot;
use crate::process::Process;
use crate::size_class::{class_of, MAX_SMALL};
use crate::slot::{fit, Place};
use core::ptr;

impl<P: Platform> Process<P> {
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
        // SAFETY: by contract.
        unsafe { self.resize(block, n, |n| self.malloc(n)) }
    }

    /// realloc of a block, not null. `malloc` is this process's: it is all in line, and libc should
    /// have one copy of it.
    ///
    /// # Safety
    /// As `realloc`.
    #[inline(always)]
    pub unsafe fn resize(
        &self,
        block: *mut u8,
        n: usize,
        malloc: impl FnOnce(usize) -> *mut u8,
    ) -> *mut u8 {
        if n > isize::MAX as usize {
            self.platform.out_of_memory();
            return ptr::null_mut();
        }
        // SAFETY: by contract; `find` and `outside_length` let live blocks only pass.
        unsafe {
            let usable = match self.find(block) {
                Block::Slot(slot) => {
                    if raise(self.resize_slot(&slot, n)) {
                        return block;
                    }
                    slot.length()
                }
                Block::Run(_) if n == 0 && PRESET.seal_zero_size => 0,
                Block::Run(meta) => {
                    let length = self.resize_run(meta, block, n);
                    if length == n {
                        return block;
                    }
                    length
                }
                Block::Outside => {
                    if n > MAX_SMALL {
                        let moved = self.large_resize(block, n);
                        if !moved.is_null() {
                            return moved;
                        }
                    }
                    let usable = self.outside_length(block);
                    if usable == 0 && n == 0 {
                        return block;
                    }
                    usable
                }
            };
            let new = malloc(n);
            if new == block {
                // Another thread freed it meanwhile.
                stop(Fault::DoubleFree, block.addr());
            }
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, usable.min(n));
                // Looked up once more: freed by another thread meanwhile, its slot may hold another.
                self.free_slow(block);
            }
            new
        }
    }

    /// Resizes a block within its slot, if its class stays the same and the slot has room.
    /// A change of class moves the block even to shrink: so groups empty and memory goes back.
    ///
    /// # Safety
    /// The caller owns the live block.
    #[inline(always)]
    unsafe fn resize_slot(&self, slot: &Slot, n: usize) -> Result<bool, Found> {
        if n > MAX_SMALL || class_of(n) != slot.class || n == 0 && PRESET.seal_zero_size {
            return Ok(false);
        }
        let Some(n) = fit(slot.class, slot.stride, slot.offset, n) else {
            return Ok(false);
        };
        // SAFETY: by contract. The old end is verified, as it becomes the program's.
        unsafe {
            self.check_end(slot)?;
            let place = Place {
                offset: slot.offset,
                end: slot.stride - slot.offset - n,
            };
            self.occupy(slot.meta, slot.class, slot.index, slot.start, place);
        }
        Ok(true)
    }

    /// Bytes that the program may use at `block`; 0 for null. Stops the process if it is no live
    /// block.
    pub fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        match self.find(block) {
            Block::Slot(slot) => slot.length(),
            // SAFETY: `find` says that it is a run's.
            Block::Run(meta) => unsafe { (*Meta::run_length(meta))[0] },
            Block::Outside => self.outside_length(block),
        }
    }
}
