//! Where a block lies in its slot, and the record that says so out of band.
//!
//! ```text
//! slot:   | offset (multiple of 16) | block: n bytes | tail: at least 1 byte |
//!         ^ slot start              ^ p              ^ NUL           canary ^
//! ```
//!
//! The last byte of the tail is a canary. The first is a NUL, where the tail has two bytes or more:
//! no string without an end shows the canary. In wide classes another canary stands right before
//! the block, where there is room. (`guard.rs` tells of presets that guard all of it.) Everything
//! else about a block is out of band, in its group's state:
//!
//! - *narrow* classes (strides to 672 bytes, up to 32 slots): one byte a slot, `offset/16 + 1` in
//!   the upper 3 bits and `tail - 1` in the lower 5;
//! - *wide* classes (up to 16 slots): two bytes a slot, `offset/step + 1` in the upper 7 bits and
//!   `tail` in the lower 9, where the step is 16 bytes, or 256 for strides above 8 KiB.
//!
//! An offset field of 0 means that the slot holds no block, so free can tell from out-of-band
//! state alone whether a pointer is a live block's start. The tail of a freed slot whose check is
//! still to come stays in its record. A tail longer than a record can say is shortened by
//! rounding the block up: the block is then usable a little further than asked for.

use crate::base::config::{PRESET, UNIT};
pub use crate::base::size_class::{FIRST_WIDE, NARROW_SLOTS, WIDE_SLOTS};

/// Longest tail of a narrow slot, in bytes.
pub const NARROW_TAIL: usize = 32;
/// Longest tail of a wide slot, in bytes.
pub const WIDE_TAIL: usize = 511;
/// Bits of the tail in a wide record.
const WIDE_TAIL_BITS: u32 = 9;

/// Record of a free slot in a mask that was used. As with the next three the offset field is 0,
/// which tells of no block. A canary stands in the slot's last byte; with the others nothing need.
pub const USED: u8 = 0;
/// Record of a free slot in a mask whose pages were given back, or were to be, as in a group aside.
pub const PURGED: u8 = 1;
/// Record of a slot in a mask that was never handed out.
pub const NEW: u8 = 2;
/// Record of a slot in a mask that was never handed out, and whose bytes are zero.
pub const ZERO: u8 = 3;

/// A block's place in its slot, in bytes from the slot's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the block's first byte.
    pub offset: usize,
    /// Bytes behind the block, the canary included.
    pub tail: usize,
}

/// Most slots that a group of `class` can have.
pub const fn max_slots(class: usize) -> usize {
    if class < FIRST_WIDE {
        NARROW_SLOTS
    } else {
        WIDE_SLOTS
    }
}

/// Longest stride, in bytes, of slots with offsets in steps of 16 bytes.
pub const MAX_FINE: usize = 512 * UNIT;

/// log2 of the bytes between two possible offsets in a wide slot of `stride` bytes.
#[inline(always)]
const fn wide_shift(stride: usize) -> u32 {
    if stride <= MAX_FINE {
        UNIT.ilog2()
    } else {
        (16 * UNIT).ilog2()
    }
}

/// Offset of a block of `n` bytes in a narrow slot of `stride`; the slack is 1 to 112 bytes, or 8
/// to 119 with guards. The block stands as far back as it can if `far` is the stride less a guard;
/// if it is 16 less, 16 bytes before that if there is room: two uses in a row differ.
#[inline(always)]
pub fn narrow_offset(stride: usize, n: usize, far: u16) -> usize {
    let mut far = far as u32;
    // With a unit more than a guard of 8 bytes takes, the tail would be too long for the record.
    if PRESET.has_guards() && (stride - PRESET.guard - n) % UNIT > UNIT - PRESET.guard {
        far = (stride - PRESET.guard) as u32;
    }
    (far.saturating_sub(n as u32) & !(UNIT as u32 - 1)) as usize
}

/// Record of a narrow slot: (offset/16 + 1) << 5 | (slack - offset - 1), where the slack is all
/// that is no block's. The first term is 2 * offset + 32.
pub fn narrow_record(slack: usize, offset: usize) -> u8 {
    (offset as u32 + slack as u32 + 31) as u8
}

/// The units of 16 bytes from the slot's start to the block that a narrow record tells of, plus
/// one; 0 for no block.
pub fn narrow_units(record: u8) -> u32 {
    record as u32 >> 5
}

/// Bytes behind the block, less one, that a narrow record tells of if its block starts `offset`
/// bytes into its slot; 32 or more if it does not, and of a slot that holds no block. The bits of
/// an offset that is no multiple of 16 come to the top of the difference.
pub fn narrow_behind(record: u32, offset: usize) -> u32 {
    record
        .wrapping_sub(UNIT_FIELD)
        .wrapping_sub((offset as u32).wrapping_mul(FIELD_OF_OFFSET))
}

/// What a unit of 16 bytes counts in a narrow record.
const UNIT_FIELD: u32 = 32;
/// Makes the field of a narrow record of a multiple of 16, and more than 2^28 of another offset.
const FIELD_OF_OFFSET: u32 = UNIT_FIELD / UNIT as u32 + (1 << 28);

/// Bytes behind the block, less one, that a wide record in a slot of `stride` bytes tells of if its
/// block starts `offset` bytes into it; 511 or more if it does not, and of a slot that holds no
/// block. The bits of an offset between those that are possible come to the top of the difference.
#[inline(always)]
pub fn wide_behind(stride: usize, record: u32, offset: usize) -> u32 {
    const ONE: u32 = 1 << WIDE_TAIL_BITS;
    let field_of_offset = if wide_shift(stride) == UNIT.ilog2() {
        ONE / UNIT as u32 + (1 << 28)
    } else {
        ONE / (16 * UNIT as u32) + (1 << 24)
    };
    record
        .wrapping_sub(ONE + 1)
        .wrapping_sub((offset as u32).wrapping_mul(field_of_offset))
}

/// Bytes behind the block of a narrow slot, by its record. The tail is all that stays of that when
/// the block is freed, until the slot leaves the reuse queue.
pub const fn narrow_tail(record: u8) -> usize {
    (record & 31) as usize + 1
}

/// Bytes behind the block of a wide slot, by its record, which keeps them as a narrow one does.
pub const fn wide_tail(record: u16) -> usize {
    record as usize & WIDE_TAIL
}

/// Place of a block of `n` bytes in a wide slot. `cycle` is any number: it picks one of the
/// possible offsets, evenly.
#[inline(always)]
pub fn wide_place(stride: usize, n: usize, cycle: u16) -> Place {
    let shift = wide_shift(stride);
    let slack = stride - n;
    let last = (slack - PRESET.guard) >> shift;
    let choices = if shift == UNIT.ilog2() {
        // With any of so many the tail fits the record: at most 30 units, and one for the canary.
        (last + 1).min(WIDE_TAIL / UNIT)
    } else {
        let first = ((slack.saturating_sub(WIDE_TAIL) + (1 << shift) - 1) >> shift).min(last);
        last - first + 1
    };
    let offset = (last - ((cycle as usize * choices) >> 16)) << shift;
    Place {
        offset,
        tail: slack - offset,
    }
}

/// Record of `place` in a wide slot of `stride` bytes: (offset/step + 1) << 9 | tail.
#[inline(always)]
pub fn wide_record(stride: usize, place: Place) -> u16 {
    debug_assert!(place.tail >= 1 && place.tail <= WIDE_TAIL);
    const ONE: u32 = 1 << WIDE_TAIL_BITS;
    // All that is no block's, and the rest of the offset's field: mostly the first is at hand.
    let slack = (place.offset + place.tail) as u32;
    let field = place.offset as u32 * ((ONE >> wide_shift(stride)) - 1);
    (slack + field + ONE) as u16
}

/// What a wide record tells; None for no block.
#[inline(always)]
pub fn wide_read(stride: usize, record: u16) -> Option<Place> {
    let field = (record >> WIDE_TAIL_BITS) as usize;
    if field == 0 {
        return None;
    }
    Some(Place {
        offset: (field - 1) << wide_shift(stride),
        tail: record as usize & WIDE_TAIL,
    })
}

/// Longest tail, in bytes, that a record can tell, by whether its class is narrow.
#[inline(always)]
pub const fn max_tail(narrow: bool) -> usize {
    if narrow {
        NARROW_TAIL
    } else {
        WIDE_TAIL
    }
}

/// `n` rounded up so that a block of it at `offset` in a slot of `class` has a tail that a record
/// can tell; None when the block does not fit there with its canary.
pub fn fit(class: usize, stride: usize, offset: usize, n: usize) -> Option<usize> {
    let room = stride.checked_sub(offset + PRESET.guard)?;
    if n > room {
        return None;
    }
    Some(n.max((stride - offset).saturating_sub(max_tail(class < FIRST_WIDE))))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::config::CLASSES;
    use crate::base::size_class::{class_of, stride, MAX_SMALL};

    /// Largest slack of a narrow slot that a record can tell: 7 offsets, and an end of a unit, or
    /// of a unit and a guard.
    const NARROW_SLACK: usize = 7 * UNIT + PRESET.guard - 1;

    /// Bytes of a slot that is long enough for it.
    const STRIDE: usize = 672;

    /// `narrow_offset` as far back as can be, or `back` bytes before that.
    fn offset(slack: usize, back: usize) -> usize {
        let far = STRIDE - PRESET.guard - back;
        narrow_offset(STRIDE, STRIDE - slack, far as u16)
    }

    #[test]
    fn narrow_records_tell_offset_and_end() {
        for slack in PRESET.guard..=NARROW_SLACK {
            for back in [0, UNIT] {
                let offset = offset(slack, back);
                let record = narrow_record(slack, offset);
                assert_eq!(narrow_units(record) as usize, offset / UNIT + 1, "{slack}");
                assert_eq!(
                    narrow_behind(record.into(), offset) as usize,
                    slack - offset - 1
                );
                for other in (0..1 << 17).filter(|&other| other != offset) {
                    assert!(
                        narrow_behind(record.into(), other) > 31,
                        "{slack}: {offset} {other}"
                    );
                }
                assert_eq!(offset % UNIT, 0, "{slack}");
                assert_eq!(narrow_tail(record), slack - offset);
                let freed = (slack - offset - 1) as u8;
                assert!(narrow_behind(freed.into(), offset) > 31);
                assert_eq!(narrow_units(freed), 0);
            }
        }
    }

    #[test]
    fn narrow_offsets_cycle_where_there_is_room() {
        let full = |slack| PRESET.has_guards() && (slack - PRESET.guard) % UNIT > 8;
        for slack in (UNIT + PRESET.guard..=NARROW_SLACK).filter(|&slack| !full(slack)) {
            assert_ne!(offset(slack, 0), offset(slack, UNIT));
        }
    }

    #[test]
    fn wide_offsets_all_come_round() {
        for class in FIRST_WIDE..CLASSES {
            let (stride, n) = (stride(class), stride(class - 1) + 1);
            let mut seen = std::collections::BTreeSet::new();
            let mut cycle = 0u16;
            for _ in 0..4096 {
                cycle = cycle.wrapping_add(0x9e37);
                seen.insert(wide_place(stride, n, cycle).offset);
            }
            let choices = (0..stride).step_by(1 << wide_shift(stride));
            let choices = choices.filter(|&offset| {
                let end = (stride - n).saturating_sub(offset);
                (1..=WIDE_TAIL).contains(&end)
            });
            let mut choices: std::collections::BTreeSet<_> = choices.collect();
            if stride <= 8192 && choices.len() > WIDE_TAIL / UNIT {
                choices.pop_first();
            }
            assert_eq!(seen, choices, "class {class}");
        }
    }

    #[test]
    fn every_size_is_representable_in_its_class_and_every_narrow_slack_is_small() {
        for n in 0..=MAX_SMALL {
            let class = class_of(n);
            let stride = stride(class);
            if class < FIRST_WIDE {
                assert!(stride - n <= NARROW_SLACK);
                continue;
            }
            for cycle in [0, 1, 30_000, 65_535] {
                let place = wide_place(stride, n, cycle);
                assert_eq!(place.offset + n + place.tail, stride);
                assert!(place.tail >= 1 && place.offset % UNIT == 0, "{n} {place:?}");
                let record = wide_record(stride, place);
                assert_eq!(wide_read(stride, record), Some(place));
                assert_eq!(
                    wide_behind(stride, record.into(), place.offset) as usize,
                    place.tail - 1
                );
                assert_eq!(wide_tail(record), place.tail);
                let freed = place.tail as u16;
                let behind = wide_behind(stride, freed.into(), place.offset);
                assert!(behind >= WIDE_TAIL as u32);
                assert_eq!(wide_read(stride, freed), None);
            }
        }
    }

    #[test]
    fn wide_records_fit_no_other_offset() {
        for class in FIRST_WIDE..CLASSES {
            let stride = stride(class);
            for n in [
                stride - PRESET.guard,
                stride - 200,
                crate::base::size_class::stride(class - 1),
            ] {
                let place = wide_place(stride, n, 40_000);
                let record = wide_record(stride, place);
                for other in (0..1 << 17).chain([1usize, 5, 15].map(usize::wrapping_neg)) {
                    let fits = wide_behind(stride, record.into(), other) < WIDE_TAIL as u32;
                    assert_eq!(fits, other == place.offset, "class {class}: {other}");
                }
            }
        }
    }

    #[test]
    fn empty_records_are_no_block() {
        assert_eq!(narrow_units(0), 0);
        for mark in [USED, PURGED, NEW, ZERO] {
            let wide = |class| wide_read(stride(class), mark.into());
            assert!((FIRST_WIDE..CLASSES).all(|class| wide(class).is_none()));
            assert_eq!(narrow_units(mark), 0);
        }
    }

    #[test]
    fn fit_never_grows_beyond_the_slot() {
        for class in 0..CLASSES {
            let stride = stride(class);
            for offset in (0..stride.min(2048)).step_by(UNIT) {
                for n in [0, 1, stride / 2, stride - PRESET.guard] {
                    if let Some(fitted) = fit(class, stride, offset, n) {
                        assert!(fitted >= n && offset + fitted < stride);
                        assert!(stride - offset - fitted <= max_tail(class < FIRST_WIDE));
                    }
                }
            }
        }
    }
}
