//! The crate's own heap, beside any libc.

use crate::base::config::{RUN_PAGE, UNIT};
use crate::base::size_class::MAX_SMALL;
use crate::process::PROCESS;
use core::alloc::Layout;

/// See `GlobalAlloc`.
pub fn alloc(layout: Layout) -> *mut u8 {
    if layout.align() <= UNIT {
        PROCESS.malloc(layout.size())
    } else {
        PROCESS.aligned_alloc(layout.align(), layout.size())
    }
}

/// See `GlobalAlloc`.
pub fn alloc_zeroed(layout: Layout) -> *mut u8 {
    if layout.align() <= UNIT {
        return PROCESS.calloc(layout.size());
    }
    let block = PROCESS.aligned_alloc(layout.align(), layout.size());
    let is_large = layout.size() > MAX_SMALL;
    if !block.is_null() && (!is_large || !PROCESS.is_zero(block)) {
        // SAFETY: a new block of that size.
        unsafe { block.write_bytes(0, layout.size()) };
    }
    block
}

/// See `GlobalAlloc`. Stops the process if the block was not asked for with this layout's size, or
/// does not lie at a multiple of its alignment.
///
/// # Safety
/// The block is the caller's to free.
pub unsafe fn dealloc(block: *mut u8, layout: Layout) {
    // All blocks lie at a multiple of 16.
    let align = if layout.align() <= UNIT {
        1
    } else {
        layout.align()
    };
    // SAFETY: the caller gives the block up.
    unsafe { PROCESS.free_sized(block, align, layout.size()) }
}

/// See `GlobalAlloc`.
///
/// # Safety
/// What `GlobalAlloc` asks.
pub unsafe fn realloc(block: *mut u8, layout: Layout, n: usize) -> *mut u8 {
    if layout.align() <= UNIT {
        // SAFETY: the caller gives the block up, unless null is returned.
        return unsafe { PROCESS.realloc(block, n) };
    }
    // SAFETY: the caller gives the block up, unless null is returned.
    unsafe { realloc_aligned(block, layout, n) }
}

/// realloc of a block that is aligned to more than malloc's way gives.
///
/// # Safety
/// What `GlobalAlloc` asks.
#[inline(never)]
unsafe fn realloc_aligned(block: *mut u8, layout: Layout, n: usize) -> *mut u8 {
    let malloc = |n| PROCESS.aligned_alloc(layout.align(), n);
    // SAFETY: the caller gives the block up, unless null is returned.
    let relocate = |usable| unsafe {
        let free = |block| PROCESS.free(block);
        PROCESS.relocate(block, n, usable, malloc, free)
    };
    if layout.align() <= RUN_PAGE {
        // What stays in its slot keeps its alignment, and large blocks start at pages.
        // SAFETY: the caller gives the block up, unless null is returned.
        return unsafe { PROCESS.resize_rest(block, n, malloc, relocate) };
    }
    relocate(layout.size())
}
