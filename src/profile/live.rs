//! The samples that are not freed, by address: a hash table with linear probing.

use crate::memory::{Array, Plain};

/// A live sample. profile.c has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// 0 in a free place of the table.
    pub address: usize,
    /// Bytes that were asked for.
    pub size: usize,
    /// Number of the call stack.
    pub site: u32,
}

// SAFETY: integers.
unsafe impl Plain for Block {}

/// All live samples.
pub struct Live {
    table: Array<Block>,
    count: usize,
}

const FIRST: usize = 1 << 8;
/// Bounds the memory: half of it may be used.
const MOST: usize = 1 << 22;

impl Live {
    pub const fn new() -> Self {
        Live {
            table: Array::new(),
            count: 0,
        }
    }

    fn place(&self, address: usize) -> usize {
        let mixed = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.table.len() - 1)
    }

    /// Where `address` is, or else the free place where it may be put.
    fn find(&self, address: usize) -> usize {
        let mut at = self.place(address);
        while self.table[at].address != address && self.table[at].address != 0 {
            at = (at + 1) & (self.table.len() - 1);
        }
        at
    }

    /// Adds a block whose address is not there yet. `false` if there is no room.
    #[must_use]
    pub fn add(&mut self, block: Block) -> bool {
        if 2 * (self.count + 1) > self.table.len() && !self.grow() {
            return false;
        }
        let at = self.find(block.address);
        self.count += usize::from(self.table[at].address == 0);
        self.table[at] = block;
        true
    }

    fn grow(&mut self) -> bool {
        let len = (2 * self.table.len()).max(FIRST);
        if len > MOST {
            return false;
        }
        let Some(new) = Array::zeros(len) else {
            return false;
        };
        let old = core::mem::replace(&mut self.table, new);
        for block in old.iter().filter(|b| b.address != 0) {
            let at = self.find(block.address);
            self.table[at] = *block;
        }
        true
    }

    /// Takes the block at `address` out, if it is there.
    pub fn remove(&mut self, address: usize) -> Option<Block> {
        if self.count == 0 || address == 0 {
            return None;
        }
        let mut hole = self.find(address);
        let block = self.table[hole];
        if block.address == 0 {
            return None;
        }
        self.count -= 1;
        // Moves back what stands behind it, so that no search ends at the hole before its block.
        let mask = self.table.len() - 1;
        let mut at = hole;
        loop {
            self.table[hole].address = 0;
            loop {
                at = (at + 1) & mask;
                let next = self.table[at].address;
                if next == 0 {
                    return Some(block);
                }
                // May stand at the hole if its own place is not between the hole and here.
                let place = self.place(next);
                if (at.wrapping_sub(place) & mask) >= (at.wrapping_sub(hole) & mask) {
                    break;
                }
            }
            self.table[hole] = self.table[at];
            hole = at;
        }
    }

    /// The live samples, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Block> {
        self.table.iter().filter(|b| b.address != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Against a map of the standard library, with addresses close enough to collide.
    #[test]
    fn holds_what_was_added_and_not_removed() {
        let mut live = Live::new();
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for step in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let address = 16 * (1 + (random >> 33) as usize % 3000);
            if step % 3 == 0 {
                let gone: Option<Block> = model.remove(&address);
                assert_eq!(live.remove(address), gone);
            } else {
                let block = Block {
                    address,
                    size: step,
                    site: 1,
                };
                assert!(live.add(block));
                model.insert(address, block);
            }
        }
        let mut all: std::vec::Vec<Block> = live.all().copied().collect();
        all.sort_by_key(|b| b.address);
        assert!(all.iter().eq(model.values()));
        assert!(model.len() > 500);
        for (address, block) in model {
            assert_eq!(live.remove(address), Some(block));
        }
        assert_eq!(live.all().count(), 0);
    }

    #[test]
    fn knows_when_there_is_no_room() {
        let mut live = Live::new();
        let block = |i: usize| Block {
            address: 16 * i,
            size: 1,
            site: 0,
        };
        assert_eq!(live.remove(16), None);
        assert!((1..=MOST / 2).all(|i| live.add(block(i))));
        assert!(!live.add(block(MOST)));
        assert_eq!(live.remove(16), Some(block(1)));
        assert!(live.add(block(MOST)));
    }
}
