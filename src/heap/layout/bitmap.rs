//! Bitmaps over the run pages of a chunk, and over its cells.

use crate::base::config::{CHUNK, RUN_PAGE};
use core::cell::Cell;

/// Run pages in a chunk.
pub const PAGES: usize = CHUNK / RUN_PAGE;

/// A bit for each run page of a chunk.
pub type PageMap = Bitmap<{ PAGES.div_ceil(64) }>;

/// Bits in words. Zero memory is a bitmap without a set bit.
pub struct Bitmap<const WORDS: usize>([Cell<u64>; WORDS]);

impl<const WORDS: usize> Bitmap<WORDS> {
    /// Bits there are.
    pub const BITS: usize = WORDS * 64;

    /// Sets or clears `count` bits from `first` on. Returns how many it cleared.
    pub fn set(&self, first: usize, count: usize, value: bool) -> usize {
        set(&self.0, first, count, value)
    }

    /// First bit at or after `from` that is as `value` says; `BITS` if there is none.
    pub fn seek(&self, from: usize, value: bool) -> usize {
        seek(&self.0, from, value)
    }

    /// Whether no bit of a word is set.
    pub fn is_clear(&self, word: usize) -> bool {
        self.0[word].get() == 0
    }

    /// First run of `count` clear bits that starts at a multiple of `align` pages; or the length of
    /// the longest one that starts there.
    pub fn find_clear(&self, count: usize, align: usize) -> Result<usize, usize> {
        let mut longest = 0;
        let mut page = self.seek(0, false);
        while page < Self::BITS {
            let end = self.seek(page, true);
            let start = page.next_multiple_of(align);
            if start + count <= end {
                return Ok(start);
            }
            longest = longest.max(end.saturating_sub(start));
            page = self.seek(end, false);
        }
        Err(longest)
    }

    /// The run of clear bits around one: where it starts, and its end.
    pub fn clear_around(&self, page: usize) -> (usize, usize) {
        (seek_back(&self.0, page, true), self.seek(page, true))
    }

    /// The first run of set bits from page `from` on: where it starts, and its length.
    pub fn next_run(&self, from: usize) -> Option<(usize, usize)> {
        let first = self.seek(from, true);
        (first < Self::BITS).then(|| (first, self.seek(first, false) - first))
    }

    /// Number of set bits among `count` from `first` on.
    #[cfg(any(test, feature = "model"))]
    pub fn count(&self, first: usize, count: usize) -> usize {
        let is_set = |&page: &usize| self.0[page / 64].get() & 1 << (page % 64) != 0;
        (first..first + count).filter(is_set).count()
    }

    /// Whether no page is set in both.
    #[cfg(any(test, feature = "model"))]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let words = self.0.iter().zip(&other.0);
        words.fold(0, |both, (a, b)| both | a.get() & b.get()) == 0
    }
}

// Of words in a row, so that all lengths share them.

/// See `Bitmap::set`.
#[inline(never)]
fn set(words: &[Cell<u64>], first: usize, count: usize, value: bool) -> usize {
    let (mut bit, end) = (first, first + count);
    let mut cleared = 0;
    while bit < end {
        let bits = (64 - bit % 64).min(end - bit);
        let mask = u64::MAX >> (64 - bits) << (bit % 64);
        let word = &words[bit / 64];
        let mut changes = if value { !word.get() } else { word.get() } & mask;
        word.set(word.get() ^ changes);
        // One by one: few targets count bits in less code.
        while changes != 0 && !value {
            changes &= changes - 1;
            cleared += 1;
        }
        bit += bits;
    }
    cleared
}

/// See `Bitmap::seek`.
#[inline(never)]
fn seek(words: &[Cell<u64>], from: usize, value: bool) -> usize {
    let mut bit = from;
    while let Some(word) = words.get(bit / 64) {
        let word = if value { word.get() } else { !word.get() } >> (bit % 64);
        if word != 0 {
            return bit + word.trailing_zeros() as usize;
        }
        bit = (bit / 64 + 1) * 64;
    }
    words.len() * 64
}

/// Behind the last bit before `from` that is as `value` says; 0 if there is none.
#[inline(never)]
fn seek_back(words: &[Cell<u64>], from: usize, value: bool) -> usize {
    let mut end = from;
    while let Some(word) = end.checked_sub(1).and_then(|last| words.get(last / 64)) {
        let last = (end - 1) % 64;
        let word = if value { word.get() } else { !word.get() } << (63 - last);
        if word != 0 {
            return end - word.leading_zeros() as usize;
        }
        end -= last + 1;
    }
    0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn empty() -> PageMap {
        Bitmap([const { Cell::new(0) }; PAGES.div_ceil(64)])
    }

    #[test]
    fn finds_aligned_runs_and_the_longest_when_there_is_none() {
        let map = empty();
        map.set(0, PAGES, true);
        map.set(5, 3, false);
        map.set(17, 6, false);
        assert_eq!(map.find_clear(3, 1), Ok(5));
        assert_eq!(map.find_clear(4, 1), Ok(17));
        assert_eq!(map.find_clear(3, 4), Ok(20));
        assert_eq!(map.find_clear(7, 1), Err(6));
        assert_eq!(map.find_clear(4, 4), Err(3));
        assert_eq!(map.find_clear(1, 32), Err(0));
        assert_eq!(map.count(0, 24), 24 - 9);
    }

    #[test]
    fn cleared_bits_are_counted_across_words() {
        let map = empty();
        let (half, many) = (PAGES / 2, (PAGES / 2).min(66));
        map.set(half - 1, many, true);
        assert_eq!(map.count(0, PAGES), many);
        map.set(half - 4, 5, true);
        assert_eq!(map.set(half, 5, false), 5);
        assert_eq!(map.count(0, PAGES), many - 2);
        assert_eq!(map.count(half - 4, 12), 4 + 3);
    }

    #[test]
    fn runs_are_listed_across_words() {
        let map = empty();
        let (second, count) = if PAGES > 64 { (60, 8) } else { (60, 4) };
        map.set(second, count, true);
        map.set(2, 1, true);
        assert_eq!(map.next_run(0), Some((2, 1)));
        assert_eq!(map.next_run(3), Some((second, count)));
        assert_eq!(map.next_run(second + count), None);
    }

    #[test]
    fn a_run_is_found_from_any_of_its_bits() {
        let map = empty();
        assert_eq!(map.clear_around(PAGES / 2), (0, PAGES));
        map.set(PAGES / 2, 1, true);
        assert_eq!(map.clear_around(PAGES / 2 - 1), (0, PAGES / 2));
        assert_eq!(map.clear_around(PAGES / 2 + 3), (PAGES / 2 + 1, PAGES));
        map.set(3, 1, true);
        for page in 4..PAGES / 2 {
            assert_eq!(map.clear_around(page), (4, PAGES / 2));
        }
    }

    #[test]
    fn bitmaps_with_a_page_in_common_are_not_disjoint() {
        let (one, other) = (empty(), empty());
        one.set(0, PAGES / 2, true);
        other.set(PAGES / 2, PAGES / 2, true);
        assert!(one.is_disjoint(&other));
        other.set(PAGES / 2 - 1, 1, true);
        assert!(!one.is_disjoint(&other));
    }
}
