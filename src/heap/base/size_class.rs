//! Bytes to size class and back. Pure; tested exhaustively in both directions.
//!
//! Strides in units of 16 bytes: 1 to 8, then for each power of two P from 64 the quotients
//! P/7, P/6, P/5, P/4 rounded down: four steps a doubling, and 7, 6, 5 or 4 slots of them fill
//! a power of two with a loss below one slot's unit each. A slot keeps at least one byte for its
//! canary, so a block of n bytes needs n/16 + 1 units; or 8 bytes, where the preset has guards.

use crate::base::config::{CLASSES, GRANULE, PRESET, RUN_PAGE, UNIT};

/// Classes with one step per unit.
const LINEAR: usize = 8;

/// Strides in units of 16 bytes, ascending.
const UNITS: [u16; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        table[class] = if class < LINEAR {
            class as u16 + 1
        } else {
            let power = 64u32 << ((class - LINEAR) / 4);
            (power / (7 - ((class - LINEAR) % 4) as u32)) as u16
        };
        class += 1;
    }
    table
};

/// What free needs of a class to divide by its stride.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Geometry {
    /// Bytes of a slot.
    pub stride: u32,
    /// ceil(2^27 / stride) of a narrow class, whose groups are at most 2^15 bytes: a distance
    /// within one times it has the number of the slot in its upper 5 bits, see `index`. The
    /// quotient's error stays below 2^-12, where the distance is a multiple of 16: exact. Of a wide
    /// class ceil(2^28 / stride), 2^17 bytes, 4 bits, and an error below 2^-11: exact for multiples
    /// of 16 in strides to 8 KiB, and for multiples of 256 above.
    pub reciprocal: u32,
}

/// Classes below this one are narrow, as is that of blocks of no bytes; all others are wide.
pub const FIRST_WIDE: usize = 18;
/// Slots in a group of a narrow class at most.
pub const NARROW_SLOTS: usize = 32;
/// Slots in a group of a wide class at most.
pub const WIDE_SLOTS: usize = 16;

impl Geometry {
    /// Number of the slot that a distance from the start of a group leads to, modulo the slots that
    /// a group of its kind may have: any distance gives one.
    #[inline(always)]
    pub fn index(self, narrow: bool, distance: usize) -> usize {
        let slots = if narrow { NARROW_SLOTS } else { WIDE_SLOTS };
        ((distance as u32).wrapping_mul(self.reciprocal) >> (u32::BITS - slots.ilog2())) as usize
    }
}

/// Entries of tables by class: more than there are classes, so that a mask keeps an index inside
/// at less cost than a comparison and a panic. No class leads to those beyond.
pub const TABLE: usize = CLASSES.next_power_of_two();

static GEOMETRY: [Geometry; TABLE] = {
    let mut table = [Geometry {
        stride: 0,
        reciprocal: 0,
    }; TABLE];
    let mut class = 0;
    // And blocks of no bytes, in groups of a class of their own: a unit each.
    while class <= CLASSES {
        let (units, slots) = if class < FIRST_WIDE {
            (UNITS[class] as u32, NARROW_SLOTS as u32)
        } else if class < CLASSES {
            (UNITS[class] as u32, WIDE_SLOTS as u32)
        } else {
            (1, NARROW_SLOTS as u32)
        };
        table[class] = Geometry {
            stride: units * UNIT as u32,
            reciprocal: (u32::MAX / slots + 1).div_ceil(units * UNIT as u32),
        };
        class += 1;
    }
    table
};

impl Geometry {
    /// By table.
    pub fn of(class: usize) -> Geometry {
        GEOMETRY[class % TABLE]
    }
}

/// Largest block that a slot holds, in bytes.
pub const MAX_SMALL: usize = UNITS[CLASSES - 1] as usize * UNIT - PRESET.guard;

/// Bytes of a slot of `class`, its slack and canary included.
pub const fn stride(class: usize) -> usize {
    GEOMETRY[class % TABLE].stride as usize
}

/// Entries of `SMALL`: blocks below 1024 bytes.
const SMALL_ENTRIES: usize = 64;

/// Class of a block of n bytes at n / 16.
static SMALL: [u8; SMALL_ENTRIES] = {
    let mut table = [0; SMALL_ENTRIES];
    let mut entry = 0;
    while entry < SMALL_ENTRIES {
        let mut class = 0;
        while (UNITS[class] as usize) < entry + 1 {
            class += 1;
        }
        table[entry] = class as u8;
        entry += 1;
    }
    table
};

/// The smallest class whose slots hold `n` bytes and a canary or guard. `n` is at most `MAX_SMALL`.
#[inline(always)]
pub fn class_of(n: usize) -> usize {
    debug_assert!(n <= MAX_SMALL);
    let n = n + (PRESET.guard - 1);
    if n / UNIT < SMALL_ENTRIES {
        SMALL[n / UNIT] as usize
    } else {
        class_of_big(n)
    }
}

/// The class of a block of `n` bytes that takes `SMALL_ENTRIES` units or more.
#[inline(always)]
fn class_of_big(n: usize) -> usize {
    // The top stride of doubling j is 16 << j units: j is the first whose stride exceeds n.
    let doubling = (n / UNIT).ilog2() as usize - 3;
    let first = LINEAR + 4 * doubling;
    first
        + (n >= stride(first)) as usize
        + (n >= stride(first + 1)) as usize
        + (n >= stride(first + 2)) as usize
}

/// Largest alignment, in bytes, of blocks in slots: what is aligned to a page or more gets whole
/// pages.
pub const MAX_SLOT_ALIGN: usize = RUN_PAGE / 2;

/// Whether a slot of `class` may hold a block that was asked for with `n` bytes at a multiple of
/// `align`: up to 16, which all blocks have, at any alignment.
pub fn may_hold(class: usize, align: usize, n: usize) -> bool {
    if !(1..=MAX_SMALL).contains(&n) {
        return false;
    }
    // A resize within a slot asks for no other class than the length does.
    if class_of(n) == class {
        return true;
    }
    let mut asked = UNIT.ilog2() + 1..=MAX_SLOT_ALIGN.ilog2();
    asked.any(|bits| {
        (align <= UNIT || align == 1 << bits) && aligned_class(1 << bits, n) == Some(class)
    })
}

/// The largest block, in bytes, that a slot holds whose stride is the least multiple of `align`
/// that is long enough for `n`: no class below its is for `n` at that alignment, and mostly that
/// one is.
pub fn least_of(align: usize, n: usize) -> usize {
    (n.wrapping_add(PRESET.guard - 1) | (align - 1)).wrapping_sub(PRESET.guard - 1)
}

/// The smallest class whose slots are multiples of `align` and hold `n` bytes and a canary, unless
/// a run of pages is smaller.
#[inline(always)]
pub fn aligned_class(align: usize, n: usize) -> Option<usize> {
    let class = (class_of(least_of(align, n))..CLASSES).find(|&class| {
        stride(class) & (align - 1) == 0 && (align <= GRANULE || stride(class).is_power_of_two())
    })?;
    // From a few pages on, whole pages waste less than the next power of two.
    let fits = stride(class) < RUN_PAGE || stride(class) <= n.next_multiple_of(RUN_PAGE);
    fits.then_some(class)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::config::GROUP_MAX;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for n in 0..=MAX_SMALL {
            let class = class_of(n);
            let need = n + PRESET.guard;
            assert!(stride(class) >= need, "{n}: block and canary fit");
            assert!(
                class == 0 || stride(class - 1) < need,
                "{n}: the class below is too small"
            );
        }
    }

    #[test]
    fn strides_ascend_and_end_at_128_kib() {
        assert!(UNITS.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(stride(CLASSES - 1), 128 << 10);
        assert_eq!(stride(7), 128);
    }

    #[test]
    fn reciprocals_divide_exactly() {
        for class in 0..CLASSES {
            let (geometry, stride) = (Geometry::of(class), stride(class));
            let most = if class < FIRST_WIDE {
                NARROW_SLOTS
            } else {
                WIDE_SLOTS
            };
            let slots = (GROUP_MAX / stride).clamp(1, most);
            let step = if stride > 8192 { 256 } else { UNIT };
            for d in (0..slots * stride).step_by(step) {
                let index = geometry.index(class < FIRST_WIDE, d);
                assert_eq!(index, d / stride, "class {class}");
            }
        }
    }
}
