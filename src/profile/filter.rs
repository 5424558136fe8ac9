//! Whether a freed block may be a sample. Each free asks `pages`, so it is one load, and of a line
//! that frees of blocks nearby have loaded: it is indexed by the block's page. What passes is
//! looked up in `blocks`, where a block hardly shares an entry with a sample: few frees go on to
//! the lock.

use core::sync::atomic::{AtomicU8, Ordering};

/// Entries of a filter: pages of 1 GiB. As many bytes, of which only what is used is resident.
pub const ENTRIES: usize = 1 << 18;

/// Counts the samples of each entry. An entry that has counted to 255 stays so: then it says "may
/// be" for good.
#[repr(C, align(4096))]
pub struct Filter {
    counts: [AtomicU8; ENTRIES],
}

impl Filter {
    /// A filter without samples.
    pub const fn new() -> Self {
        Filter {
            counts: [const { AtomicU8::new(0) }; ENTRIES],
        }
    }

    // Relaxed, here and where profile.c reads: whoever frees a block has it from the thread whose
    // malloc noted it before it returned, and the program's own handing over orders the two. Only
    // the holder of the profile's lock writes.

    /// Counts a sample. `index` is taken modulo `ENTRIES`.
    pub fn add(&self, index: usize) {
        let count = &self.counts[index % ENTRIES];
        let now = count.load(Ordering::Relaxed);
        count.store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Counts a sample less.
    pub fn remove(&self, index: usize) {
        let count = &self.counts[index % ENTRIES];
        match count.load(Ordering::Relaxed) {
            0 | u8::MAX => {}
            now => count.store(now - 1, Ordering::Relaxed),
        }
    }

    /// Whether an entry has samples.
    pub fn has(&self, index: usize) -> bool {
        self.counts[index % ENTRIES].load(Ordering::Relaxed) != 0
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// The index of an address in the filter of pages. profile.c has the same.
pub fn page(address: usize) -> usize {
    address >> 12
}

/// The index of an address in the filter of blocks. profile.c has the same.
pub fn block(address: usize) -> usize {
    (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> (usize::BITS - 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_and_down() {
        let filter = std::boxed::Box::new(Filter::new());
        assert!(!filter.has(5));
        filter.add(5);
        filter.add(5 + ENTRIES);
        filter.remove(5);
        assert!(filter.has(5));
        filter.remove(5);
        assert!(!filter.has(5));
        // Down from nothing, or from too many to know.
        filter.remove(5);
        assert!(!filter.has(5));
        (0..300).for_each(|_| filter.add(6));
        (0..300).for_each(|_| filter.remove(6));
        assert!(filter.has(6));
    }

    #[test]
    fn neighbours_have_entries_of_their_own() {
        let places: std::collections::BTreeSet<usize> = (0..1000)
            .map(|i| block(0x7f00_0000_0000 + 16 * i))
            .collect();
        assert!(places.len() > 950, "{}", places.len());
        assert!(places.iter().all(|&i| i < ENTRIES));
    }
}
