//! aligned_alloc: slots whose stride is a multiple, or whole pages.

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, GRANULE, RUN_PAGE, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, MAX_SMALL};

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
                return self.malloc_in(class, n, true);
            }
        }
        self.malloc_large(n, align)
    }
}

/// The smallest class whose slots are multiples of `align` and hold `n` bytes and a canary, unless
/// a run of pages is smaller.
fn aligned_class(align: usize, n: usize) -> Option<usize> {
    let class = (class_of(n)..CLASSES).find(|&class| {
        stride(class) % align == 0 && (align <= GRANULE || stride(class).is_power_of_two())
    })?;
    // From a few pages on, whole pages waste less than the next power of two.
    let pages = n.max(1).next_multiple_of(RUN_PAGE);
    (stride(class) <= pages || stride(class) < RUN_PAGE).then_some(class)
}
