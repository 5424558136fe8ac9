//! A process whose libc is byssal's own musl, linked statically: there is one byssal already, and
//! the program's blocks come from it, too. It is found by its names; outside of `libc.a` they are
//! hidden, so beside a shared musl this crate has a heap of its own, as beside any libc.
//!
//! musl's core has no function that checks the size which a free names: that goes unchecked here.

use crate::base::config::UNIT;
use crate::base::size_class::MAX_SMALL;
use crate::weak::WEAK;
use core::alloc::Layout;
use core::ptr;

/// Whether the process has one. Then all functions of the table are its own.
#[inline(always)]
pub fn is_there() -> bool {
    // SAFETY: a table that the linker filled.
    cfg!(target_env = "musl") && unsafe { WEAK.aligned_alloc.is_some() }
}

/// See `GlobalAlloc`.
///
/// # Safety
/// `is_there`.
pub unsafe fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: both take any size, and the one any power of two.
    let block = unsafe {
        if layout.align() <= UNIT {
            WEAK.malloc.map(|malloc| malloc(layout.size()))
        } else {
            WEAK.aligned_alloc
                .map(|aligned| aligned(layout.align(), layout.size()))
        }
    };
    block.map_or(ptr::null_mut(), |block| block.cast())
}

/// See `GlobalAlloc`.
///
/// # Safety
/// `is_there`.
pub unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the caller says that it is there.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        return block;
    }
    let is_large = layout.size() > MAX_SMALL;
    // SAFETY: a block that this thread just got, of that size.
    unsafe {
        let known = |is_zero: unsafe extern "C" fn(_) -> _| is_zero(block.cast()) != 0;
        if !is_large || !WEAK.is_zero.is_some_and(known) {
            block.write_bytes(0, layout.size());
        }
    }
    block
}

/// See `GlobalAlloc`.
///
/// # Safety
/// `is_there`, and the block is the caller's to free.
pub unsafe fn dealloc(block: *mut u8) {
    // SAFETY: the caller gives the block up.
    unsafe { WEAK.free.into_iter().for_each(|free| free(block.cast())) }
}

/// See `GlobalAlloc`.
///
/// # Safety
/// `is_there`, and what `GlobalAlloc` asks.
pub unsafe fn realloc(block: *mut u8, layout: Layout, n: usize) -> *mut u8 {
    // SAFETY: the caller gives the block up, unless null is returned; `n` fits the alignment.
    unsafe {
        if layout.align() <= UNIT {
            let moved = WEAK.realloc.map(|realloc| realloc(block.cast(), n));
            return moved.map_or(ptr::null_mut(), |block| block.cast());
        }
        let new = alloc(Layout::from_size_align_unchecked(n, layout.align()));
        if !new.is_null() {
            ptr::copy_nonoverlapping(block, new, layout.size().min(n));
            dealloc(block);
        }
        new
    }
}
