//! Where a block lies in its slot, and the record that says so out of band.
//!
//! ```text
//! slot:   | offset (multiple of 16) | block: n bytes | end: at least 1 byte |
//!         ^ slot start              ^ p              ^ guard byte           ^ guard byte, stride
//! ```
//!
//! The first and the last byte of the end hold a guard (one byte when the end is one byte long).
//! Everything else about a block is out of band, in its group's meta:
//!
//! - *narrow* classes (strides to 1024 bytes, up to 32 slots): one byte a slot,
//!   `offset/step + 1` in the upper 3 bits and `end - 1` in the lower 5, where the step is 16
//!   bytes, or 32 for strides above 576;
//! - *wide* classes (up to 16 slots): two bytes a slot, `offset/step + 1` in the upper 7 bits and
//!   `end` in the lower 9, where the step is 16 bytes, or 256 for strides above 8 KiB.
//!
//! An offset field of 0 means that the slot holds no block, so free can tell from out-of-band
//! state alone whether a pointer is a live block's start. The end of a freed slot whose check is
//! still to come stays in its record. An end longer than a record can say is shortened by
//! rounding the block up: the block is then usable a little further than asked for.

use crate::config::UNIT;
use crate::size_class::UNITS;

/// Classes below this one are narrow.
pub const FIRST_WIDE: usize = 20;
/// Classes from this one on have the longer narrow step.
const FIRST_LONG_STEP: usize = 17;

/// Slots in a group of a narrow class at most.
pub const NARROW_SLOTS: usize = 32;
/// Slots in a group of a wide class at most.
pub const WIDE_SLOTS: usize = 16;

/// Largest end of a narrow slot, in bytes.
const NARROW_END: usize = 32;
/// Largest end of a wide slot, in bytes.
const WIDE_END: usize = 511;
/// Bits of the end in a wide record.
const WIDE_END_BITS: u32 = 9;

/// Wide record of a free slot whose pages were given back: no block, as its offset field is 0.
pub const WIDE_PURGED: u16 = 1;

/// A block's place in its slot, in bytes from the slot's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the block's first byte.
    pub offset: usize,
    /// Bytes behind the block, the guard included.
    pub end: usize,
}

/// Most slots that a group of `class` can have.
pub const fn max_slots(class: usize) -> usize {
    if class < FIRST_WIDE {
        NARROW_SLOTS
    } else {
        WIDE_SLOTS
    }
}

/// Bytes between two possible offsets in a wide slot of `class`.
const fn wide_step(class: usize) -> usize {
    if UNITS[class] <= 512 {
        UNIT
    } else {
        16 * UNIT
    }
}

/// Bytes between two possible offsets in a narrow slot of `class`: 7 of them, and an end of up to
/// 32 bytes, cover the distance to the class below.
#[inline(always)]
pub const fn narrow_step(class: usize) -> usize {
    if class < FIRST_LONG_STEP {
        UNIT
    } else {
        2 * UNIT
    }
}

/// Largest slack of a narrow slot of `class` that a record can tell.
#[cfg(test)]
const fn narrow_slack(class: usize) -> usize {
    6 * narrow_step(class)
        + if class < FIRST_LONG_STEP {
            UNIT
        } else {
            NARROW_END
        }
}

/// What `narrow_offset` and `narrow_record` need of a class, by table and without a branch.
#[derive(Clone, Copy)]
#[repr(C)]
struct Steps {
    /// Clears the bits of an offset below the step.
    floor: u32,
    /// All ones with the short step, 0 with the long one.
    short: u32,
}

static STEPS: [Steps; FIRST_WIDE] = {
    let mut table = [Steps { floor: 0, short: 0 }; FIRST_WIDE];
    let mut class = 0;
    while class < FIRST_WIDE {
        table[class].floor = !(narrow_step(class) as u32 - 1);
        table[class].short = if class < FIRST_LONG_STEP { u32::MAX } else { 0 };
        class += 1;
    }
    table
};

/// Offset of a block with `slack` = stride - n bytes (1 to `narrow_slack`) in a narrow slot. The
/// block stands as far back as the record allows, or, with the short step and when bit 4 of
/// `cycle` is set, one step before that if there is room: two uses in a row differ.
#[inline(always)]
pub fn narrow_offset(class: usize, slack: usize, cycle: u32) -> usize {
    let last = (slack as u32 - 1) & STEPS[class].floor;
    let back = cycle & STEPS[class].short & UNIT as u32;
    last.saturating_sub(back) as usize
}

/// Record of a narrow slot: (offset/step + 1) << 5 | (slack - offset - 1). With a step of 16 the
/// first term is 2 * offset + 32, with 32 it is offset + 32: one or two additions.
#[inline(always)]
pub fn narrow_record(class: usize, slack: usize, offset: usize) -> u8 {
    (slack as u32 + (offset as u32 & STEPS[class].short) + 31) as u8
}

/// The part of a narrow record that stays when its block is freed: the end.
#[inline(always)]
pub const fn narrow_freed(record: u8) -> u8 {
    record & 31
}

/// The same of a wide record.
#[inline(always)]
pub const fn wide_freed(record: u16) -> u16 {
    record & WIDE_END as u16
}

/// Whether a narrow record tells of a block at `offset`. With a step of 16 the offset field is
/// 2 * offset + 32, with 32 it is offset + 32; it is 0 for no block.
#[inline(always)]
pub fn narrow_stands_at(class: usize, record: u8, offset: usize) -> bool {
    let offset = offset as u32;
    record as u32 & !31 == offset + (offset & STEPS[class].short) + 32
}

/// Bytes behind the block that `record` tells of.
#[inline(always)]
pub const fn narrow_end(record: u8) -> usize {
    (record as usize & 31) + 1
}

/// Offset field of a narrow record: offset/step + 1, or 0 for no block.
#[inline(always)]
pub const fn narrow_offset_field(record: u8) -> usize {
    record as usize >> 5
}

/// Place of a block of `n` bytes in a wide slot. `cycle` is any number: it picks one of the
/// possible offsets.
#[inline(always)]
pub fn wide_place(class: usize, stride: usize, n: usize, cycle: usize) -> Place {
    let step = wide_step(class);
    let slack = stride - n;
    let last = (slack - 1) / step * step;
    let first = slack
        .saturating_sub(WIDE_END)
        .next_multiple_of(step)
        .min(last);
    let choices = (last - first) / step + 1;
    let offset = first + cycle % choices * step;
    Place {
        offset,
        end: slack - offset,
    }
}

/// Record of `place` in a wide slot.
#[inline(always)]
pub fn wide_record(class: usize, place: Place) -> u16 {
    debug_assert!(place.end >= 1 && place.end <= WIDE_END);
    ((place.offset / wide_step(class) + 1) << WIDE_END_BITS | place.end) as u16
}

/// What a wide record tells; None for no block.
#[inline(always)]
pub fn wide_read(class: usize, record: u16) -> Option<Place> {
    let field = (record >> WIDE_END_BITS) as usize;
    if field == 0 {
        return None;
    }
    Some(Place {
        offset: (field - 1) * wide_step(class),
        end: record as usize & WIDE_END,
    })
}

/// Largest end that a record of `class` can tell.
#[inline(always)]
pub const fn max_end(class: usize) -> usize {
    if class < FIRST_WIDE {
        NARROW_END
    } else {
        WIDE_END
    }
}

/// `n` rounded up so that a block of it at `offset` in a slot of `class` has an end that a record
/// can tell; None when the block does not fit there with its guard byte.
pub fn fit(class: usize, stride: usize, offset: usize, n: usize) -> Option<usize> {
    let room = stride.checked_sub(offset + 1)?;
    if n > room {
        return None;
    }
    Some(n.max((stride - offset).saturating_sub(max_end(class))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CLASSES;
    use crate::size_class::{class_of, stride, MAX_SMALL};

    #[test]
    fn narrow_records_tell_offset_and_end() {
        for class in 0..FIRST_WIDE {
            for slack in 1..=narrow_slack(class) {
                for cycle in [0, UNIT as u32] {
                    let offset = narrow_offset(class, slack, cycle);
                    let record = narrow_record(class, slack, offset);
                    let field = offset / narrow_step(class) + 1;
                    assert_eq!(narrow_offset_field(record), field, "{class} slack {slack}");
                    assert_eq!(narrow_end(record), slack - offset, "{class} slack {slack}");
                    for other in (0..stride(class)).step_by(UNIT) {
                        assert_eq!(narrow_stands_at(class, record, other), other == offset);
                        assert!(!narrow_stands_at(class, narrow_freed(record), other));
                    }
                    assert_eq!(narrow_end(narrow_freed(record)), slack - offset);
                    assert_eq!(narrow_offset_field(narrow_freed(record)), 0);
                }
            }
        }
    }

    #[test]
    fn narrow_offsets_cycle_where_there_is_room() {
        for slack in 17..=narrow_slack(0) {
            assert_ne!(
                narrow_offset(0, slack, 0),
                narrow_offset(0, slack, UNIT as u32)
            );
        }
    }

    #[test]
    fn every_size_is_representable_in_its_class_and_every_narrow_slack_is_small() {
        for n in 0..=MAX_SMALL {
            let class = class_of(n);
            let stride = stride(class);
            if class < FIRST_WIDE {
                assert!(stride - n <= narrow_slack(class));
                continue;
            }
            for cycle in [0, 1, 2, 77] {
                let place = wide_place(class, stride, n, cycle);
                assert_eq!(place.offset + n + place.end, stride);
                assert!(place.end >= 1 && place.offset % UNIT == 0, "{n} {place:?}");
                let record = wide_record(class, place);
                assert_eq!(wide_read(class, record), Some(place));
                assert_eq!(wide_read(class, wide_freed(record)), None);
                assert_eq!(wide_freed(record) as usize, place.end);
            }
        }
    }

    #[test]
    fn empty_records_are_no_block() {
        assert_eq!(narrow_offset_field(0), 0);
        assert!((FIRST_WIDE..CLASSES).all(|class| wide_read(class, 0).is_none()));
        assert!((FIRST_WIDE..CLASSES).all(|class| wide_read(class, WIDE_PURGED).is_none()));
    }

    #[test]
    fn fit_never_grows_beyond_the_slot() {
        for class in 0..CLASSES {
            let stride = stride(class);
            for offset in (0..stride.min(2048)).step_by(UNIT) {
                for n in [0, 1, stride / 2, stride - 1] {
                    if let Some(fitted) = fit(class, stride, offset, n) {
                        assert!(fitted >= n && offset + fitted < stride);
                        assert!(stride - offset - fitted <= max_end(class));
                    }
                }
            }
        }
    }
}
