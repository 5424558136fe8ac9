//! Call stacks, each once, and what was allocated there.

use crate::memory::{Array, Plain};

/// Estimates of a number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    pub objects: f64,
    pub bytes: f64,
    /// Samples that they were estimated from.
    pub samples: u64,
}

impl Sum {
    /// Adds a sample of `size` bytes that stands for `weight` blocks.
    pub fn add(&mut self, size: usize, weight: f64) {
        self.objects += weight;
        self.bytes += weight * size as f64;
        self.samples += 1;
    }

    /// Takes back what `add` added.
    pub fn remove(&mut self, size: usize, weight: f64) {
        self.samples = self.samples.saturating_sub(1);
        if self.samples == 0 {
            // What rounding left goes, too.
            *self = Sum::default();
            return;
        }
        self.objects -= weight;
        self.bytes -= weight * size as f64;
    }
}

/// A call stack.
#[derive(Clone, Copy)]
pub struct Site {
    hash: u64,
    /// Where its addresses begin among those of all, and how many they are.
    first: usize,
    depth: usize,
    pub allocated: Sum,
    pub live: Sum,
}

// SAFETY: of all bytes zero it is the site without addresses and allocations.
unsafe impl Plain for Site {}

/// All call stacks of the process.
pub struct Sites {
    sites: Array<Site>,
    count: usize,
    /// The addresses of all stacks, one stack behind the other.
    addresses: Array<usize>,
    used: usize,
    /// Numbers of sites by their hash; 0 is free. At most half of it is used.
    index: Array<u32>,
}

/// The number of the site that has no addresses: what found no room is counted there.
pub const OTHER: u32 = 0;

/// Bounds of the memory, in elements.
const MOST_SITES: usize = 1 << 18;
const MOST_ADDRESSES: usize = 1 << 23;
const FIRST_SITES: usize = 1 << 7;

impl Sites {
    pub const fn new() -> Self {
        Sites {
            sites: Array::new(),
            count: 0,
            addresses: Array::new(),
            used: 0,
            index: Array::new(),
        }
    }

    /// The number of the site of a stack, innermost address first; `OTHER` if there is no room for
    /// a new one, and `None` if there is none even for that.
    pub fn number(&mut self, stack: &[usize]) -> Option<u32> {
        if self.count == 0 && !self.begin() {
            return None;
        }
        let hash = hash(stack);
        let mut at = self.slot(hash);
        while let Some(&number @ 1..) = self.index.get(at) {
            let site = &self.sites[number as usize];
            if site.hash == hash && self.stack(site) == stack {
                return Some(number);
            }
            at = self.slot(at as u64 + 1);
        }
        Some(self.add(hash, stack).unwrap_or(OTHER))
    }

    /// Makes room for the first sites, and the one of what finds none later.
    fn begin(&mut self) -> bool {
        let made = self.sites.grow(FIRST_SITES)
            && self.addresses.grow(16 * FIRST_SITES)
            && self.index.grow(4 * FIRST_SITES);
        self.count = usize::from(made);
        made
    }

    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.index.len() - 1)
    }

    /// Adds a site; `None` if there is no room.
    fn add(&mut self, hash: u64, stack: &[usize]) -> Option<u32> {
        let end = self.used + stack.len();
        if self.count == MOST_SITES || end > MOST_ADDRESSES {
            return None;
        }
        if end > self.addresses.len() && !self.addresses.grow(end.next_power_of_two()) {
            return None;
        }
        let len = self.sites.len();
        if self.count == len && !(self.grow_index(4 * len) && self.sites.grow(2 * len)) {
            return None;
        }
        let number = self.count;
        self.addresses[self.used..end].copy_from_slice(stack);
        self.sites[number] = Site {
            hash,
            first: self.used,
            depth: stack.len(),
            allocated: Sum::default(),
            live: Sum::default(),
        };
        self.used = end;
        self.count += 1;
        self.enter(number);
        Some(number as u32)
    }

    /// Makes a greater index of all sites.
    fn grow_index(&mut self, len: usize) -> bool {
        if len <= self.index.len() {
            return true;
        }
        let Some(new) = Array::zeros(len) else {
            return false;
        };
        self.index = new;
        (1..self.count).for_each(|number| self.enter(number));
        true
    }

    /// Enters a site into the index, which has room.
    fn enter(&mut self, number: usize) {
        let mut at = self.slot(self.sites[number].hash);
        while self.index[at] != 0 {
            at = self.slot(at as u64 + 1);
        }
        self.index[at] = number as u32;
    }

    /// A site by its number.
    pub fn get(&mut self, number: u32) -> Option<&mut Site> {
        self.sites.get_mut(number as usize)
    }

    /// All sites.
    pub fn all(&self) -> &[Site] {
        &self.sites[..self.count]
    }

    /// The addresses of a site, innermost first.
    pub fn stack(&self, site: &Site) -> &[usize] {
        &self.addresses[site.first..site.first + site.depth]
    }
}

/// Mixes the addresses of a stack: each in turn, as FNV-1a does bytes, and the upper half into the
/// lower, which the index takes.
fn hash(stack: &[usize]) -> u64 {
    let mixed = stack
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &address| {
            (hash ^ address as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        });
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_is_one_site() {
        let mut sites = Sites::new();
        let stack = |i: usize| [0x1000 + i, 0x2000, 0x3000 + i / 7];
        let first: std::vec::Vec<_> = (0..5000).map(|i| sites.number(&stack(i))).collect();
        let again: std::vec::Vec<_> = (0..5000).map(|i| sites.number(&stack(i))).collect();
        assert_eq!(first, again);
        let mut numbers = first.clone();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 5000);
        for (i, number) in first.iter().enumerate() {
            let site = *sites.get(number.unwrap()).unwrap();
            assert_eq!(sites.stack(&site), stack(i));
        }
        assert_eq!(sites.all().len(), 5001);
        // A shorter and an empty stack are others.
        assert_eq!(sites.number(&stack(0)[..2]), Some(5001));
        assert_eq!(sites.number(&[]), Some(5002));
        assert_eq!(sites.number(&[]), Some(5002));
    }

    #[test]
    fn what_finds_no_room_is_counted_together() {
        let mut sites = Sites::new();
        let all = (0..MOST_SITES + 3).map(|i| sites.number(&[i]).unwrap());
        assert_eq!(all.filter(|&number| number == OTHER).count(), 4);
        assert_eq!(sites.number(&[7]), Some(8));
    }

    #[test]
    fn sums_come_back_to_nothing() {
        let mut sum = Sum::default();
        sum.add(10, 0.1);
        sum.add(20, 0.7);
        assert_eq!(sum.samples, 2);
        sum.remove(10, 0.1);
        assert!((sum.bytes - 14.0).abs() < 1e-9);
        sum.remove(20, 0.7);
        assert_eq!(sum, Sum::default());
    }
}
