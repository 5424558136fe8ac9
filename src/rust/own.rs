//! The crate's own heap, beside any libc. `align` and `size` are those of a `Layout`.
//!
//! All that the program calls is `extern "C"`: a panic, which nothing in the allocator does by
//! design, then ends the process, as its state is not to be trusted.

use crate::base::config::{RUN_PAGE, UNIT};
use crate::base::size_class::{class_of, MAX_SMALL};
use crate::process::PROCESS;

/// See `GlobalAlloc`.
pub extern "C" fn alloc(align: usize, size: usize) -> *mut u8 {
    if align <= UNIT {
        PROCESS.malloc(size)
    } else {
        PROCESS.aligned_alloc(align, size)
    }
}

/// See `GlobalAlloc`.
pub extern "C" fn alloc_zeroed(align: usize, size: usize) -> *mut u8 {
    if align <= UNIT {
        return PROCESS.calloc(size);
    }
    let block = PROCESS.aligned_alloc(align, size);
    let is_large = size > MAX_SMALL;
    if !block.is_null() && (!is_large || !PROCESS.is_zero(block)) {
        // SAFETY: a new block of that size.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

/// See `GlobalAlloc`. Stops the process if the block was not asked for with this size, or does not
/// lie at a multiple of this alignment.
///
/// # Safety
/// The block is the caller's to free.
pub unsafe extern "C" fn dealloc(block: *mut u8, align: usize, size: usize) {
    // SAFETY: the caller gives the block up.
    unsafe {
        // All blocks lie at a multiple of 16.
        if align <= UNIT {
            PROCESS.free_sized(block, size)
        } else {
            PROCESS.free_aligned_sized(block, align, size)
        }
    }
}

/// See `GlobalAlloc`; `n` is the new size.
///
/// # Safety
/// What `GlobalAlloc` asks.
pub unsafe extern "C" fn realloc(block: *mut u8, align: usize, size: usize, n: usize) -> *mut u8 {
    // SAFETY: the caller gives the block up, unless null is returned.
    unsafe {
        if align > UNIT {
            return realloc_aligned(block, align, size, n);
        }
        if !leaves_class(size, n) {
            return PROCESS.realloc(block, n);
        }
        let free = |block| PROCESS.free_sized(block, size);
        PROCESS.relocate(block, n, size, |n| PROCESS.malloc(n), free)
    }
}

/// Whether a block of `size` bytes moves when it is to have `n`, as those of most vectors that grow:
/// then nobody needs to look it up before it is freed.
fn leaves_class(size: usize, n: usize) -> bool {
    size.max(n) <= MAX_SMALL && class_of(size) != class_of(n)
}

/// realloc of a block that is aligned to more than malloc's way gives.
///
/// # Safety
/// What `GlobalAlloc` asks.
#[inline(never)]
unsafe fn realloc_aligned(block: *mut u8, align: usize, size: usize, n: usize) -> *mut u8 {
    let malloc = |n| PROCESS.aligned_alloc(align, n);
    // SAFETY: the caller gives the block up, unless null is returned.
    let relocate = |usable| unsafe {
        let free = |block| PROCESS.free(block);
        PROCESS.relocate(block, n, usable, malloc, free)
    };
    if align <= RUN_PAGE {
        // What stays in its slot keeps its alignment, and large blocks start at pages.
        // SAFETY: the caller gives the block up, unless null is returned.
        return unsafe { PROCESS.resize_rest(block, n, malloc, relocate) };
    }
    relocate(size)
}
