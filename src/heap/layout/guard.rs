//! Guards: what stands in the bytes beside a block, of its slot in presets that have guards, and of
//! a large block's memory in each.
//!
//! ```text
//! slot: | ... | 64 bytes of guard | block: n bytes | 0 | guard to the end, 7 bytes or more |
//! ```
//!
//! A slot's guard is a word of eight bytes, a keyed hash of the slot's address, again and again:
//! the byte at place i of the slot is byte i % 8 of the word. None of its bytes is a NUL, see
//! `Secrets::guard`. The first byte behind the block is a NUL, so that a string without an end
//! shows nothing of it, unless it is the only one. A block at its slot's start has the guard of the
//! slot before it in front.

use crate::base::random::guard_byte;
use crate::layout::record::Place;
use core::convert::Infallible;

/// Bytes before a block that are guarded at most.
const FRONT: usize = 64;

/// A guard and the slot that it is for.
#[derive(Clone, Copy)]
pub struct Guard {
    /// The slot's first byte.
    start: *mut u8,
    /// Bytes of the slot, a multiple of 16; of a large block's memory, as far as it is guarded, a
    /// multiple of 8.
    stride: usize,
    /// The word.
    word: u64,
}

impl Guard {
    /// The guard of the slot at `start`.
    pub fn new(start: *mut u8, stride: usize, word: u64) -> Self {
        Guard {
            start,
            stride,
            word,
        }
    }

    /// Shows `see` the words of the guard around a block at `place`, front to end, until it errs:
    /// the place in the slot, what stands there, and which bits of it are the guard's.
    #[inline(always)]
    fn each<E>(
        &self,
        place: Place,
        see: impl Fn(usize, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        // Blocks stand at multiples of 16.
        for at in (place.offset - place.offset.min(FRONT)..place.offset).step_by(8) {
            see(at, self.word, u64::MAX)?;
        }
        let end = self.stride - place.tail;
        let behind = end % 8 * 8;
        let (mut word, mut mask) = (self.word, u64::MAX << behind);
        if place.tail > 1 {
            word &= !(0xff << behind);
        }
        // Of a large block nothing may be left behind it.
        for at in (end / 8 * 8..self.stride).step_by(8) {
            see(at, word, mask)?;
            (word, mask) = (self.word, u64::MAX);
        }
        Ok(())
    }

    /// Writes the guard around a block at `place`.
    ///
    /// # Safety
    /// The slot is the caller's, with the block.
    #[inline(always)]
    pub unsafe fn write(&self, place: Place) {
        let written = self.each(place, |at, word, mask| {
            let at = self.start.wrapping_add(at).cast::<u64>();
            // SAFETY: the word lies in the slot, whose start is aligned to 16; the caller's.
            unsafe { at.write((at.read() & !mask.to_le()) | (word & mask).to_le()) };
            Ok::<(), Infallible>(())
        });
        let Ok(()) = written;
    }

    /// Err with the address of the first byte around a block at `place` that is not the guard's.
    pub fn check(&self, place: Place) -> Result<(), usize> {
        self.each(place, |at, word, mask| {
            match (self.read(at) ^ word) & mask {
                0 => Ok(()),
                wrong => Err(self.start.addr() + at + wrong.trailing_zeros() as usize / 8),
            }
        })
    }

    /// Err with the address of one of the last 8 bytes of the slot that is neither the guard's nor
    /// a NUL, whatever the slot holds: a block has its guard there, a free slot zeros, and what is
    /// just being cleared some of both.
    pub fn check_end(&self) -> Result<(), usize> {
        let at = self.stride - 8;
        let there = self.read(at);
        if there == self.word || there == 0 {
            return Ok(());
        }
        let wrong = (0..8).find(|&place| {
            let byte = guard_byte(there, place);
            byte != 0 && byte != guard_byte(self.word, place)
        });
        wrong.map_or(Ok(()), |place| Err(self.start.addr() + at + place))
    }

    /// The word at a place of the slot, a multiple of 8: its first byte in memory is the lowest.
    fn read(&self, at: usize) -> u64 {
        // SAFETY: the word lies in the slot, whose start is aligned to 16 and whose group stays
        // while a block in it is known. Volatile: the program may be writing to the block or beside
        // it; of what is read the guard is compared.
        u64::from_le(unsafe { self.start.add(at).cast::<u64>().read_volatile() })
    }
}
