//! aligned_alloc: slots whose stride is a multiple, or whole pages.

use crate::allocator::malloc::MAX_NARROW;
use crate::allocator::Allocator;
use crate::base::config::{CLASSES, GRANULE, PRESET, RUN_PAGE, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, MAX_SMALL};

/// Largest alignment that a group of power-of-two stride has, see `groups::alignment`.
const MAX_SLOT_ALIGN: usize = RUN_PAGE / 2;

impl<P: Platform> Allocator<P> {
    /// A block of `n` bytes at a multiple of `align`, a power of two. Null, and errno, when
    /// memory is out.
    pub fn aligned_alloc(&self, align: usize, n: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if P::ROOMY && align.wrapping_sub(UNIT + 1) < GRANULE - UNIT {
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

/// Whether a slot of `class` may hold a block that was asked for with `n` bytes at a multiple of
/// `align`: up to 16, which all blocks have, at any alignment.
pub(crate) fn may_hold(class: usize, align: usize, n: usize) -> bool {
    if !(1..=MAX_SMALL).contains(&n) {
        return false;
    }
    let of_aligned = |align| aligned_class(align, n) == Some(class);
    if align > UNIT {
        return align <= MAX_SLOT_ALIGN && of_aligned(align);
    }
    let aligns = UNIT.ilog2() + 1..=MAX_SLOT_ALIGN.ilog2();
    class_of(n) == class || aligns.into_iter().any(|bits| of_aligned(1 << bits))
}

/// The largest block, in bytes, that a slot holds whose stride is the least multiple of `align`
/// that is long enough for `n`: no class below its is for `n` at that alignment, and mostly that
/// one is.
fn least_of(align: usize, n: usize) -> usize {
    (n.wrapping_add(PRESET.guard - 1) | (align - 1)).wrapping_sub(PRESET.guard - 1)
}

/// The smallest class whose slots are multiples of `align` and hold `n` bytes and a canary, unless
/// a run of pages is smaller.
#[inline(always)]
fn aligned_class(align: usize, n: usize) -> Option<usize> {
    let class = (class_of(least_of(align, n))..CLASSES).find(|&class| {
        stride(class) & (align - 1) == 0 && (align <= GRANULE || stride(class).is_power_of_two())
    })?;
    // From a few pages on, whole pages waste less than the next power of two.
    let fits = stride(class) < RUN_PAGE || stride(class) <= n.next_multiple_of(RUN_PAGE);
    fits.then_some(class)
}
