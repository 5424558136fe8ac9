//! Guards: what stands in the bytes beside a block, of its slot in presets that have guards, and of
//! a large block's memory in each.
//!
//! ```text
//! slot: | ... | 64 bytes of guard | block: n bytes | 0 | guard to the slot's end, 7 bytes or more |
//! ```
//!
//! A slot's guard is a word of eight bytes, a keyed hash of the slot's address, again and again:
//! the byte at place i of the slot is byte i % 8 of the word. None of its bytes is a NUL, see
//! `Secrets::guard`. The first byte behind the block is a NUL, so that a string without an end
//! shows nothing of it, unless it is the only one. A block at its slot's start has the guard of the slot before it in front.

use crate::base::random::guard_byte;
use crate::layout::record::Place;

/// Bytes before a block that are guarded at most.
const FRONT: usize = 64;

/// A guard and the slot that it is for.
#[derive(Clone, Copy)]
pub struct Guard {
    /// The slot's first byte.
    start: *mut u8,
    /// Bytes of the slot, a multiple of 16; of a large block's memory, as far as it is guarded.
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

    /// The byte that should stand at a place of the slot, given where the block ends.
    fn byte(&self, at: usize, end: usize) -> u8 {
        if at == end && end + 1 != self.stride {
            0
        } else {
            guard_byte(self.word, at)
        }
    }

    /// The guard around a block at `place` in the slot, before it and behind it: places in the slot,
    /// and the byte that stands at each.
    pub fn around(self, place: Place) -> impl Iterator<Item = (usize, u8)> {
        let end = self.stride - place.tail;
        let front = place.offset - place.offset.min(FRONT)..place.offset;
        front
            .chain(end..self.stride)
            .map(move |at| (at, self.byte(at, end)))
    }

    /// Err with the address of the first byte around a block at `place` that is not the guard's.
    pub fn check(&self, place: Place) -> Result<(), usize> {
        match self.around(place).find(|&(at, byte)| self.read(at) != byte) {
            Some((at, _)) => Err(self.start.addr() + at),
            None => Ok(()),
        }
    }

    /// Err with the address of one of the last 8 bytes of the slot that is neither the guard's nor
    /// a NUL, whatever the slot holds: a block has its guard there, a free slot zeros, and what is
    /// just being cleared some of both.
    pub fn check_end(&self) -> Result<(), usize> {
        for at in self.stride - 8..self.stride {
            let byte = self.read(at);
            if byte != 0 && byte != guard_byte(self.word, at) {
                return Err(self.start.addr() + at);
            }
        }
        Ok(())
    }

    /// The byte at a place of the slot.
    fn read(&self, at: usize) -> u8 {
        // SAFETY: the place lies in the slot, whose group stays while a block in it is known.
        // Volatile: an overflow may be racing with us, and what is read is only compared.
        unsafe { self.start.add(at).read_volatile() }
    }
}
