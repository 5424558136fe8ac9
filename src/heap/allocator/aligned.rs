//! aligned_alloc: slots whose stride is a multiple, or whole pages.

use crate::allocator::malloc::MAX_NARROW;
use crate::allocator::Allocator;
use crate::base::config::{GRANULE, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::{aligned_class, class_of, least_of, MAX_SLOT_ALIGN, MAX_SMALL};

impl<P: Platform> Allocator<P> {
    /// A block of `n` bytes at a multiple of `align`, a power of two. Null, and errno, when
    /// memory is out.
    pub fn aligned_alloc(&self, align: usize, n: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if P::SHORTCUTS && align.wrapping_sub(UNIT + 1) < GRANULE - UNIT {
            let least = least_of(align, n);
            if n.wrapping_sub(1) < MAX_NARROW && least <= MAX_NARROW {
                let heap = self.mine();
                let state = heap.class(class_of(least));
                if state.has_ready() && state.stride() & (align - 1) == 0 {
                    let slot = heap.take_ready(true, state);
                    return heap.place_at_start(true, state, slot, n);
                }
            }
        }
        self.aligned_any(align, n)
    }

    /// aligned_alloc of any block: mostly one that no narrow class has at hand.
    #[inline(never)]
    fn aligned_any(&self, align: usize, n: usize) -> *mut u8 {
        if align <= UNIT {
            return self.malloc(n);
        }
        if n == 0 && align <= self.platform().page_size() {
            return self.malloc_no_bytes(align);
        }
        if n <= MAX_SMALL && align <= MAX_SLOT_ALIGN {
            if let Some(class) = aligned_class(align, n) {
                return self.malloc_in(class, n, true);
            }
        }
        self.malloc_large(n, align)
    }
}
