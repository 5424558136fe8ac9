//! Where the allocator of a program is: by the description that lies beside it, see
//! `src/heap/inspect/description.rs`.

use byssal_heap::inspect::description::{Numbers, MAGIC, NUMBERS, ORDER, VERSION};

use crate::error::{Error, Kind, Result};
use crate::look::memory::{Memory, ADDRESS_BITS};

/// Bytes that are searched at a time.
const PIECE: usize = 1 << 20;

/// Bytes of a region without a file that are searched at most: a program may have been unpacked in
/// memory, and what it works on is larger.
const LONGEST: u64 = 64 << 20;

/// An allocator in the memory of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What its description says.
    pub numbers: Numbers,
    /// Whether the highest byte of a number comes first.
    pub is_big: bool,
    /// Address of the allocator.
    pub state: u64,
    /// Address of the fault's two words.
    pub fault: u64,
}

/// A number of so many bytes.
pub fn number(bytes: &[u8], is_big: bool) -> u64 {
    let fold = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
    if is_big {
        bytes.iter().fold(0, fold)
    } else {
        bytes.iter().rev().fold(0, fold)
    }
}

/// All allocators of a program.
///
/// # Errors
/// When there is none, or one that this tool does not know how to read.
pub fn find(memory: &dyn Memory) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut other = None;
    for region in memory.regions()? {
        // Those of files come first. A core does not tell them apart, and is searched as a whole.
        if !region.is_file && (!found.is_empty() || region.end - region.start > LONGEST) {
            continue;
        }
        let mut at = region.start.next_multiple_of(16);
        while at < region.end {
            let len = (region.end - at).min(PIECE as u64) as usize;
            let mut piece = vec![0; len];
            let read = memory.read(at, &mut piece);
            for (index, start) in piece[..read].chunks_exact(16).enumerate() {
                if start == MAGIC {
                    match read_at(memory, at + index as u64 * 16) {
                        Ok(Some(here)) if !found.contains(&here) => found.push(here),
                        Ok(_) => {}
                        Err(e) => other = Some(e),
                    }
                }
            }
            // Where nothing can be read (a guard of the kernel's, say), the next page may be there.
            at += read.max(4096).next_multiple_of(16) as u64;
        }
    }
    if let Some(e) = other.filter(|_| found.is_empty()) {
        return Err(e);
    }
    if found.is_empty() {
        return Err(Error::new(
            Kind::Usage,
            format!("{}: there is no byssal inside", memory.name()),
        )
        .remedy(
            "look at a program whose libc, preloaded library or crate is byssal 0.1 or newer; a core \
             must hold the program's writable memory (bit 0 of /proc/PID/coredump_filter)",
        ));
    }
    Ok(found)
}

/// The description at `at`. None if what stands there only looks like the start of one.
fn read_at(memory: &dyn Memory, at: u64) -> Result<Option<Found>> {
    const LEN: usize = 2 * NUMBERS;
    let Some(bytes) = memory.bytes(at + 16, LEN + 24) else {
        return Ok(None);
    };
    let [high, low] = ORDER.to_be_bytes();
    let is_big = match bytes[..2] {
        [a, b] if [a, b] == [high, low] => true,
        [a, b] if [a, b] == [low, high] => false,
        _ => return Ok(None),
    };
    let mut words = [0; NUMBERS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = number(bytes, is_big) as u16;
    }
    let numbers = Numbers::from_words(words);
    if numbers.version != VERSION || usize::from(numbers.bytes) != LEN {
        return Err(Error::new(
            Kind::Usage,
            format!(
                "{}: its heap is laid out as version {} describes in {} bytes, this tool reads \
                 version {VERSION} in {LEN} bytes",
                memory.name(),
                numbers.version,
                numbers.bytes
            ),
        )
        .remedy("look with the tool of the byssal that the program has inside"));
    }
    if !is_sound(&numbers) {
        return Ok(None);
    }
    let word = usize::from(numbers.word);
    let first = LEN.next_multiple_of(word);
    let pointer = |index: usize| number(&bytes[first + index * word..][..word], is_big);
    let [state, fault] = [0, 1].map(pointer);
    if (state | fault) >> ADDRESS_BITS != 0 {
        return Ok(None);
    }
    Ok(Some(Found {
        numbers,
        is_big,
        state,
        fault,
    }))
}

/// Whether a heap can be counted through by these numbers, as far as the reader relies on them: the
/// description may be damaged like all else.
pub fn is_sound(numbers: &Numbers) -> bool {
    let [_, _, _, _, tables, each] = numbers.heaps.map(u32::from);
    let [.., starts, places, _] = numbers.class;
    let [.., room] = numbers.body;
    let [_, deferred, ..] = numbers.deferred;
    matches!(numbers.word, 4 | 8)
        && (16..=30).contains(&numbers.chunk_shift)
        && each > 0
        && tables * each <= 1 << 16
        && starts < places
        && room.max(deferred) <= 1024
}
