//! What the allocator of a program keeps about its heap, copied in one go: the program may go on
//! as soon as that is done. The heap's blocks are not among it.

use std::collections::BTreeMap;

use byssal_heap::base::config::{CLASSES, GRANULE, RUN_PAGE};

use crate::error::{Error, Kind, Result};
use crate::look::descriptor::{self, Found};
use crate::look::memory::{Memory, ADDRESS_BITS};

/// Chunks that are read at most: all that 47 bits of address have room for would take days.
const MOST_CHUNKS: usize = 1 << 18;

/// Bytes of a table of buckets that are read at most.
const MOST_BUCKETS: u64 = 1 << 24;

/// What cannot be so in a sound heap, or could not be read; not without end.
#[derive(Default)]
pub struct Problems(pub Vec<String>);

impl Problems {
    /// Notes one more.
    pub fn add(&mut self, what: String) {
        if self.0.len() < 100 {
            self.0.push(what);
        }
    }
}

/// A copy.
pub struct Snapshot {
    /// Where it is from.
    pub found: Found,
    /// Copied pieces by address. They do not overlap.
    parts: BTreeMap<u64, Vec<u8>>,
    /// The chunks, in the order of their making.
    pub chunks: Vec<u64>,
    /// The heaps by number, from 1 on: where each is.
    pub heaps: Vec<u64>,
    /// Number of the fault that stopped the program, and the address that it names.
    pub fault: [u64; 2],
    /// What is wrong with it.
    pub problems: Problems,
}

impl Snapshot {
    /// Copies.
    ///
    /// # Errors
    /// When not even the allocator itself can be read.
    pub fn take(memory: &dyn Memory, found: Found) -> Result<Self> {
        let mut snapshot = Snapshot {
            found,
            parts: BTreeMap::new(),
            chunks: Vec::new(),
            heaps: Vec::new(),
            fault: [0; 2],
            problems: Problems::default(),
        };
        let word = snapshot.word_size();
        let [_, _, more, _, tables, _] = found.numbers.heaps.map(u64::from);
        // The pagemap between the two is not needed.
        let [.., keys] = found.numbers.memory.map(u64::from);
        let pieces = [
            (found.state, keys + 16),
            (found.state + more * word, tables * word),
            (found.fault, 2 * word),
        ];
        let mut copied = pieces
            .iter()
            .map(|&(at, len)| snapshot.copy(memory, at, len));
        if !copied.all(|copied| copied) {
            let what = format!("{}: its allocator cannot be read", memory.name());
            return Err(Error::new(Kind::System, what)
                .remedy("a core must hold the program's writable memory"));
        }
        let number = |at: u64| snapshot.number(found.fault + at, word as usize);
        snapshot.fault = [0, word].map(|at| number(at).unwrap_or(0));
        snapshot.copy_heaps(memory);
        snapshot.copy_chunks(memory);
        snapshot.copy_buckets(memory);
        Ok(snapshot)
    }

    /// Copies a piece, unless one that begins there was copied before. Whether it is there.
    pub fn copy(&mut self, memory: &dyn Memory, at: u64, len: u64) -> bool {
        if self.bytes(at, len as usize).is_some() {
            return true;
        }
        let Some(bytes) = memory.bytes(at, len as usize) else {
            return false;
        };
        self.parts.insert(at, bytes);
        true
    }

    fn copy_heaps(&mut self, memory: &dyn Memory) {
        let numbers = self.found.numbers;
        let [first, count, more, first_count, tables, each] = numbers.heaps.map(u64::from);
        let [body, _, size] = numbers.heap.map(u64::from);
        let state = self.found.state;
        let mut heaps = self.word(state + count).unwrap_or(0);
        // A heap's number has 16 bits.
        if heaps >= (first_count + tables * each).min(1 << 16) {
            self.problems.add(format!("there cannot be {heaps} heaps"));
            heaps = 0;
        }
        let [_, _, _, classes, quarantine, _, _, _, room] = numbers.body.map(u64::from);
        let [.., class] = numbers.class.map(u64::from);
        let [.., entry] = numbers.entry.map(u64::from);
        let len = (classes + CLASSES as u64 * class).max(quarantine + room * entry);
        for id in 1..=heaps {
            let heap = match id.checked_sub(first_count) {
                None => state + first + id * size,
                Some(further) => {
                    let table = self.word(state + (more + further / each) * self.word_size());
                    let table = table.unwrap_or(0);
                    if !self.copy(memory, table, each * size) {
                        self.problems
                            .add(format!("the table of heap {id} is not at {table:#x}"));
                        break;
                    }
                    table + further % each * size
                }
            };
            let at = self.word(heap + body).unwrap_or(0);
            if at != 0 && !self.copy(memory, at, len) {
                self.problems
                    .add(format!("the body of heap {id} is not at {at:#x}"));
            }
            self.heaps.push(heap);
        }
    }

    fn copy_chunks(&mut self, memory: &dyn Memory) {
        let numbers = self.found.numbers;
        let [next, .., map] = numbers.chunk.map(u64::from);
        let size = 1u64 << numbers.chunk_shift;
        let head = (map + size / GRANULE as u64 * 2).next_multiple_of(64);
        let mut seen = std::collections::HashSet::new();
        let first = u64::from(numbers.memory[0]);
        let mut chunk = self.word(self.found.state + first).unwrap_or(0);
        while chunk != 0 {
            if chunk % size != 0 || !seen.insert(chunk) || seen.len() > MOST_CHUNKS {
                self.problems
                    .add(format!("the list of chunks leads to {chunk:#x}"));
                return;
            }
            if !self.copy(memory, chunk, head) {
                self.problems
                    .add(format!("the chunk at {chunk:#x} cannot be read"));
                return;
            }
            self.copy_cells(memory, chunk, head);
            self.chunks.push(chunk);
            chunk = self.word(chunk + next).unwrap_or(0);
        }
    }

    /// Copies the cells of a chunk that are in use, by the page, from those behind `head` bytes on.
    fn copy_cells(&mut self, memory: &dyn Memory, chunk: u64, head: u64) {
        let numbers = self.found.numbers;
        let [_, cells_open, .., used, _] = numbers.chunk.map(u64::from);
        let page = RUN_PAGE as u64;
        let open = self.u32(chunk + cells_open).unwrap_or(0);
        let pages = u64::from(open).min(1 << numbers.chunk_shift).div_ceil(page);
        let is_used = |snapshot: &Self, number: u64| {
            number < pages
                && snapshot
                    .u64(chunk + used + number * 8)
                    .is_some_and(|word| word != 0)
        };
        let mut number = head / page;
        while number < pages {
            let first = number;
            while is_used(self, number) {
                number += 1;
            }
            let start = (chunk + first * page).max(chunk + head);
            let end = chunk + number * page;
            if start < end && !self.copy(memory, start, end - start) {
                self.problems
                    .add(format!("the cells at {start:#x} cannot be read"));
            }
            number += 1;
        }
    }

    fn copy_buckets(&mut self, memory: &dyn Memory) {
        let [at, count] = self.further_buckets();
        if at != 0 && (count > MOST_BUCKETS || !self.copy(memory, at, count * self.word_size())) {
            self.problems.add(format!(
                "{count} buckets of large blocks are not at {at:#x}"
            ));
        }
    }

    /// Address and number of the buckets of large blocks behind the first ones; 0 without any.
    pub fn further_buckets(&self) -> [u64; 2] {
        let at = self.found.state + u64::from(self.found.numbers.large[1]);
        [0, self.word_size()].map(|behind| self.word(at + behind).unwrap_or(0))
    }

    /// Address of a class in the body of a heap.
    pub fn class(&self, body: u64, class: usize) -> u64 {
        let [_, _, _, classes, ..] = self.found.numbers.body.map(u64::from);
        let [.., size] = self.found.numbers.class.map(u64::from);
        body + classes + class as u64 * size
    }

    /// Bytes that were copied.
    pub fn copied(&self) -> u64 {
        self.parts.values().map(|part| part.len() as u64).sum()
    }

    /// Bytes of an address.
    pub fn word_size(&self) -> u64 {
        self.found.numbers.word.into()
    }

    /// Copied bytes.
    pub fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        // A piece may begin inside of a longer one.
        let before = self.parts.range(..=at).rev().take(3);
        before.into_iter().find_map(|(start, part)| {
            let skip = usize::try_from(at - start).ok()?;
            part.get(skip..skip.checked_add(len)?)
        })
    }

    fn number(&self, at: u64, len: usize) -> Option<u64> {
        Some(descriptor::number(self.bytes(at, len)?, self.found.is_big))
    }

    /// A number of 8 bits that was copied; so the next ones, of more.
    pub fn u8(&self, at: u64) -> Option<u8> {
        self.number(at, 1).map(|number| number as u8)
    }

    /// 16 bits.
    pub fn u16(&self, at: u64) -> Option<u16> {
        self.number(at, 2).map(|number| number as u16)
    }

    /// 32 bits.
    pub fn u32(&self, at: u64) -> Option<u32> {
        self.number(at, 4).map(|number| number as u32)
    }

    /// 64 bits.
    pub fn u64(&self, at: u64) -> Option<u64> {
        self.number(at, 8)
    }

    /// An address, or a number as long; None of one that is longer than any address, which is damage.
    pub fn word(&self, at: u64) -> Option<u64> {
        let word = self.number(at, self.word_size() as usize);
        word.filter(|word| word >> ADDRESS_BITS == 0)
    }
}
