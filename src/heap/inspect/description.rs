//! Where what lies in an allocator's memory: for those who look at a process or a core from
//! outside, without debug information (`byssal look`).
//!
//! A description lies in the program's data beside the allocator that it is of. Whoever looks finds
//! it by `MAGIC`, reads version and order of bytes, and by the places given here the rest. What the
//! numbers mean is told at the fields: `FIELDS` of each type lists them in the order in which they
//! stand here. Sizes of classes, records and masks are as this crate has them: who changes what they
//! mean raises `VERSION`.

use crate::allocator::Allocator;
use crate::base::config::{CHUNK_SHIFT, PRESET};
use crate::base::fault::FAULT;
use crate::base::platform::Platform;
use crate::exchange::deferred::Deferred;
use crate::heap::class::Class;
use crate::heap::heap::{Body, Heap, Heaps};
use crate::layout::chunk::Chunk;
use crate::layout::group::Group;
use crate::layout::slot::Entry;
use crate::pages::extent::{Extent, Large};
use crate::pages::memory::Memory;
use core::sync::atomic::AtomicPtr;

/// What a description begins with, at a multiple of 16.
pub const MAGIC: [u8; 16] = *b"\x7fbyssal's heap\r\n";

/// Of what is described, and how.
pub const VERSION: u16 = 2;

/// `Numbers::order` as the machine has it that wrote it.
pub const ORDER: u16 = 0x0102;

/// A description. The pointers are atomic, so that they lie in writable memory: cores hold that.
#[repr(C, align(16))]
pub struct Description {
    /// `MAGIC`.
    pub magic: [u8; 16],
    /// What it says in numbers.
    pub numbers: Numbers,
    /// The allocator.
    pub state: AtomicPtr<()>,
    /// The number of the fault that stopped the process, and the address that it names; two words.
    pub fault: AtomicPtr<()>,
}

/// What a description says in numbers, of 16 bits each. Places are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// `ORDER`.
    pub order: u16,
    /// `VERSION`.
    pub version: u16,
    /// Bytes of these numbers.
    pub bytes: u16,
    /// Bytes of an address.
    pub word: u16,
    /// log2 of the bytes of a chunk.
    pub chunk_shift: u16,
    /// Of the preset: bytes of the guard, slots to a guard slot (0: none), whether freed memory is
    /// cleared.
    pub preset: [u16; 3],
    /// In the allocator, see `Heaps::FIELDS`, without memory. The tables lie far behind, and their
    /// place is in words.
    pub heaps: [u16; 6],
    /// In the allocator, see `Memory::FIELDS`, without that of large blocks.
    pub memory: [u16; 7],
    /// In the allocator, see `Large::FIELDS`.
    pub large: [u16; 7],
    /// See `Heap::FIELDS`.
    pub heap: [u16; 3],
    /// See `Body::FIELDS`.
    pub body: [u16; 9],
    /// See `Class::FIELDS`.
    pub class: [u16; 8],
    /// See `Entry::FIELDS`.
    pub entry: [u16; 3],
    /// See `Deferred::FIELDS`.
    pub deferred: [u16; 5],
    /// See `Chunk::FIELDS`.
    pub chunk: [u16; 8],
    /// See `Group::FIELDS`.
    pub group: [u16; 5],
    /// See `Extent::FIELDS`.
    pub extent: [u16; 5],
}

/// How many there are.
pub const NUMBERS: usize = size_of::<Numbers>() / 2;

impl Numbers {
    /// From as many numbers, in their order.
    pub fn from_words(words: [u16; NUMBERS]) -> Self {
        // SAFETY: `Numbers` is made of as many numbers of 16 bits, one behind the other.
        unsafe { core::mem::transmute(words) }
    }

    /// Of an allocator over this system.
    const fn of<P: Platform>() -> Self {
        let [first, count, more, memory, first_count, tables, more_count] = Heaps::<P>::FIELDS;
        let more = more / size_of::<usize>();
        let [chunks, used, dirty, large, closed, zero, canaries, keys] = Memory::<P>::FIELDS;
        let [buckets, further, live, kept, kept_bytes, refused, bucket_count] = Large::FIELDS;
        let large = memory + large;
        Numbers {
            order: ORDER,
            version: VERSION,
            bytes: size_of::<Numbers>() as u16,
            word: size_of::<usize>() as u16,
            chunk_shift: CHUNK_SHIFT as u16,
            preset: all([
                PRESET.guard,
                PRESET.guard_slot_every,
                PRESET.zero_on_free as usize,
            ]),
            heaps: all([first, count, more, first_count, tables, more_count]),
            memory: all([
                memory + chunks,
                memory + used,
                memory + dirty,
                memory + closed,
                memory + zero,
                memory + canaries,
                memory + keys,
            ]),
            large: all([
                large + buckets,
                large + further,
                large + live,
                large + kept,
                large + kept_bytes,
                large + refused,
                bucket_count,
            ]),
            heap: all(Heap::FIELDS),
            body: all(Body::FIELDS),
            class: all(Class::FIELDS),
            entry: all(Entry::FIELDS),
            deferred: all(Deferred::<Group>::FIELDS),
            chunk: all(Chunk::FIELDS),
            group: all(Group::FIELDS),
            extent: all(Extent::FIELDS),
        }
    }
}

/// The numbers in 16 bits each, which they fit.
const fn all<const N: usize>(numbers: [usize; N]) -> [u16; N] {
    let mut all = [0; N];
    let mut at = 0;
    while at < N {
        assert!(numbers[at] <= u16::MAX as usize);
        all[at] = numbers[at] as u16;
        at += 1;
    }
    all
}

impl Description {
    /// Of an allocator.
    pub const fn of<P: Platform>(allocator: &'static Allocator<P>) -> Self {
        Description {
            magic: MAGIC,
            numbers: Numbers::of::<P>(),
            state: AtomicPtr::new((&raw const *allocator).cast_mut().cast()),
            fault: AtomicPtr::new((&raw mut FAULT).cast()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn the_address_of_further_buckets_stands_before_their_number() {
        let extents: Vec<Cell<Option<&'static Extent>>> = (0..3).map(|_| Cell::new(None)).collect();
        let more: Option<&[Cell<Option<&'static Extent>>]> = Some(&extents);
        // SAFETY: two words.
        let words: [usize; 2] = unsafe { core::mem::transmute(more) };
        assert_eq!(words, [extents.as_ptr().addr(), 3]);
    }

    // With small chunks the pagemap is so long that the tables behind it are out of reach.
    #[test]
    #[cfg(not(small_constants))]
    fn all_numbers_fit() {
        assert!(size_of::<Body>() < 1 << 16 && size_of::<Class>() < 1 << 16);
        let numbers = Numbers::of::<crate::mock::Mock>();
        // SAFETY: as many numbers of 16 bits.
        let words: [u16; NUMBERS] = unsafe { core::mem::transmute(numbers) };
        assert_eq!(Numbers::from_words(words), numbers);
        assert_eq!(words[..2], [ORDER, VERSION]);
    }
}
