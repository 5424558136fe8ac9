//! aligned_alloc: slots whose stride is a multiple, or whole pages.

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, GRANULE, PRESET, RUN_PAGE, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, FIRST_WIDE, MAX_SMALL};

/// Largest alignment that a group of power-of-two stride has, see `groups::alignment`.
const MAX_SLOT_ALIGN: usize = RUN_PAGE / 2;

impl<P: Platform> Allocator<P> {
    /// A block of `n` bytes at a multiple of `align`, a power of two. Null, and errno, when
    /// memory is out.
    pub fn aligned_alloc(&self, align: usize, n: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if align <= UNIT {
            return self.malloc(n);
        }
        if n == 0 && align <= self.platform().page_size() {
            return self.malloc_zero(align);
        }
        if n <= MAX_SMALL && align <= MAX_SLOT_ALIGN {
            if let Some(class) = aligned_class(align, n) {
                let heap = self.mine();
                let state = heap.class(class);
                if !P::ROOMY || class >= FIRST_WIDE || !state.has_ready() {
                    return self.malloc_in(class, n, true);
                }
                let slot = heap.take_ready(true, state);
                return heap.place_at_start(true, state, slot, n);
            }
        }
        self.malloc_large(n, align)
    }
}

/// The smallest class whose slots are multiples of `align` and hold `n` bytes and a canary, unless
/// a run of pages is smaller.
#[inline(always)]
fn aligned_class(align: usize, n: usize) -> Option<usize> {
    // No class below that of the next multiple of `align`, and mostly that one.
    let least = ((n + PRESET.guard - 1) | (align - 1)) + 1 - PRESET.guard;
    let class = (class_of(least)..CLASSES).find(|&class| {
        stride(class) & (align - 1) == 0 && (align <= GRANULE || stride(class).is_power_of_two())
    })?;
    // From a few pages on, whole pages waste less than the next power of two.
    let fits = stride(class) < RUN_PAGE || stride(class) <= n.next_multiple_of(RUN_PAGE);
    fits.then_some(class)
}
