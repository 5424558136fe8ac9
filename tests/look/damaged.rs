//! Memory that is not as it was.

use std::cell::Cell;

use byssal_tool::error::Result;
use byssal_tool::look::descriptor::Found;
use byssal_tool::look::memory::{Memory, Region, Thread, ADDRESS_BITS};
use byssal_tool::look::snapshot::Snapshot;
use byssal_tool::look::walk::Walk;
use byssal_tool::look::{dump, fault, map, report, summary};

/// The memory of a program, of which each word is something else with some probability.
pub struct Damaged<'a> {
    memory: &'a dyn Memory,
    seed: Cell<u64>,
    /// One of so many words.
    every: u64,
}

impl<'a> Damaged<'a> {
    /// Damage of a kind that the seed picks: from nearly everything to a word here and there.
    pub fn new(memory: &'a dyn Memory, seed: u64) -> Self {
        Damaged {
            memory,
            seed: Cell::new(seed + 1),
            every: 4 << (seed % 12),
        }
    }

    /// Marsaglia's xorshift.
    fn next(&self) -> u64 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.set(x);
        x
    }

    /// A word that may stand instead of another.
    fn word(&self, before: u64) -> u64 {
        match self.next() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => self.next(),
            3 => before ^ 1 << (self.next() % 64),
            4 => before.wrapping_add(8),
            5 => self.next() % 4096,
            6 => before.rotate_left(32),
            _ => before & !0xfff,
        }
    }
}

impl Memory for Damaged<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let read = self.memory.read(at, into);
        if self.next() % (self.every * 16) == 0 {
            return read / 2;
        }
        for word in into[..read].chunks_exact_mut(8) {
            if self.next() % self.every == 0 {
                let before = u64::from_le_bytes(word.try_into().unwrap());
                word.copy_from_slice(&self.word(before).to_le_bytes());
            }
        }
        read
    }

    fn regions(&self) -> Result<Vec<Region>> {
        self.memory.regions()
    }

    fn threads(&self) -> Vec<Thread> {
        self.memory.threads()
    }

    fn name(&self) -> String {
        self.memory.name()
    }
}

/// Memory of which one word is the largest that an address can be.
pub struct Largest<'a> {
    memory: &'a dyn Memory,
    at: u64,
}

impl<'a> Largest<'a> {
    /// The word at `at`, or one behind the address that stands there.
    pub fn new(memory: &'a dyn Memory, at: u64, behind: Option<u16>) -> Self {
        let word = |at| memory.bytes(at, 8).unwrap().try_into().unwrap();
        let at = match behind {
            Some(behind) => u64::from_ne_bytes(word(at)) + u64::from(behind),
            None => at,
        };
        Largest { memory, at }
    }
}

impl Memory for Largest<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let read = self.memory.read(at, into);
        let place = usize::try_from(self.at.wrapping_sub(at)).unwrap();
        if let Some(word) = into[..read].get_mut(place..place.saturating_add(8)) {
            word.copy_from_slice(&((1u64 << ADDRESS_BITS) - 1).to_ne_bytes());
        }
        read
    }

    fn regions(&self) -> Result<Vec<Region>> {
        self.memory.regions()
    }

    fn threads(&self) -> Vec<Thread> {
        self.memory.threads()
    }

    fn name(&self) -> String {
        self.memory.name()
    }
}

/// Looks as the tool does, all of it; how many problems were told.
pub fn look(memory: &dyn Memory, found: &[Found]) -> usize {
    let mut told = 0;
    for &found in found {
        let Ok(mut snapshot) = Snapshot::take(memory, found) else {
            continue;
        };
        if snapshot.fault[0] == 0 {
            let chunk = snapshot.chunks.first().copied().unwrap_or(0);
            snapshot.fault = [3, chunk + 0x8_1234];
        }
        let mut walk = Walk::of(&snapshot);
        let mut view = summary::of(&snapshot, &mut walk, &memory.threads());
        let dump = dump::text(&snapshot, &walk.owners, &view);
        view.fault = fault::describe(memory, &snapshot, &view);
        assert!(dump.lines().count() >= 2);
        assert!(!report::text(&view).is_empty());
        assert!(!map::svg(&view).is_empty());
        assert!(serde_json::to_string(&view).is_ok());
        told += view.problems.len() + usize::from(view.totals.unclear > 0);
    }
    told
}

/// Memory whose descriptions are of a later version.
pub struct Newer<'a>(pub &'a dyn Memory);

impl Memory for Newer<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let read = self.0.read(at, into);
        // What is read behind a magic number begins with order and version.
        if read > 4 && [into[0], into[1]] == 0x0102u16.to_ne_bytes() && into.len() < 4096 {
            into[2..4].copy_from_slice(&7u16.to_ne_bytes());
        }
        read
    }

    fn regions(&self) -> Result<Vec<Region>> {
        self.0.regions()
    }

    fn threads(&self) -> Vec<Thread> {
        self.0.threads()
    }

    fn name(&self) -> String {
        self.0.name()
    }
}
