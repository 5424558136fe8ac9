//! Nests: runs of 32 KiB that a heap cuts into groups of whole granules, without the lock.

use crate::chunk::Chunk;
use crate::config::{GRANULE, NEST, RUN_PAGE};
use crate::heap::Heap;
use crate::meta::{Meta, Nest};
use crate::pages::Platform;
use crate::provider::{Locked, Run};
use core::ptr::{self, NonNull};

/// Nests that are tried before a new one is made.
const TRIES: usize = 16;

/// Granules in a nest.
#[derive(Clone, Copy)]
pub struct Part {
    /// The chunk around the nest.
    pub chunk: *mut Chunk,
    /// First granule in the chunk.
    pub granule: usize,
    /// Whether all bytes are zero.
    pub fresh: bool,
}

/// Dirty free granules that the nests of a heap may have before their pages are given back, unless
/// a quarter of those in use is more.
const NESTS_IDLE: u32 = if cfg!(small_constants) { 16 } else { 256 };

/// Mask of the lowest `count` granules, 1 to 64.
fn low_granules(count: usize) -> u64 {
    u64::MAX >> (64 - count)
}

/// Mask of `count` granules from `first` on; count is 1 to 63.
fn granule_mask(first: usize, count: usize) -> u64 {
    ((1u64 << count) - 1) << first
}

/// First place of `count` clear bits in a row that is a multiple of `align`, a power of two up to
/// a run page.
fn find_place(used: u64, count: usize, align: usize) -> Option<usize> {
    // Bit i: `run` bits from i on are clear. Bits shifted in at the top are not.
    let (mut starts, mut run) = (!used, 1);
    while run < count {
        let more = run.min(count - run);
        starts &= starts >> more;
        run += more;
    }
    let first = (starts & MULTIPLES[align.trailing_zeros() as usize]).trailing_zeros();
    (first < u64::BITS).then_some(first as usize)
}

/// Bits at the multiples of 1, 2, 4, ... granules, up to a run page.
const MULTIPLES: [u64; (RUN_PAGE / GRANULE).ilog2() as usize + 1] = {
    let mut table = [u64::MAX; (RUN_PAGE / GRANULE).ilog2() as usize + 1];
    let mut power = 1;
    while power < table.len() {
        table[power] = u64::MAX / ((1 << (1 << power)) - 1);
        power += 1;
    }
    table
};

/// Takes `count` granules out of one of the heap's nests, in a chunk that has a cell for the group.
///
/// # Safety
/// The caller may work on the heap and holds the provider lock.
pub unsafe fn take(heap: *mut Heap, count: usize, align: usize) -> Option<Part> {
    // SAFETY: by contract; listed nests are the heap's own.
    unsafe {
        let mut nest = (*heap).nests;
        for _ in 0..TRIES {
            if nest.is_null() {
                return None;
            }
            let place = find_place((*nest).used, count, align);
            if let Some(first) = place.filter(|_| (*Chunk::around(nest)).has_cells()) {
                let mask = granule_mask(first, count);
                let fresh = (*nest).dirty & mask == 0;
                (*heap).nests_idle -= ((*nest).dirty & mask).count_ones();
                (*nest).used |= mask;
                (*nest).dirty |= mask;
                if (*nest).used == u64::MAX {
                    unlist(heap, nest);
                }
                let granule = (*nest).base as usize + first;
                return Some(Part {
                    chunk: Chunk::around(nest),
                    granule,
                    fresh,
                });
            }
            nest = (*nest).next;
        }
        None
    }
}

/// Puts `nest` at the head of the heap's list.
///
/// # Safety
/// The caller may work on the heap, whose own unlisted nest it is.
unsafe fn list(heap: *mut Heap, nest: *mut Nest) {
    // SAFETY: by contract.
    unsafe {
        (*nest).prev = ptr::null_mut();
        (*nest).next = (*heap).nests;
        if !(*nest).next.is_null() {
            (*(*nest).next).prev = nest;
        }
        (*heap).nests = nest;
        (*nest).listed = true;
    }
}

/// Takes `nest` out of the heap's list.
///
/// # Safety
/// The caller may work on the heap, whose own listed nest it is.
unsafe fn unlist(heap: *mut Heap, nest: *mut Nest) {
    // SAFETY: by contract.
    unsafe {
        if (*nest).prev.is_null() {
            (*heap).nests = (*nest).next;
        } else {
            (*(*nest).prev).next = (*nest).next;
        }
        if !(*nest).next.is_null() {
            (*(*nest).next).prev = (*nest).prev;
        }
        (*nest).listed = false;
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Adds a nest to the heap.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn add_nest(&mut self, heap: *mut Heap) -> bool {
        let pages = NEST / RUN_PAGE;
        let Some(run) = self.take_run(pages, pages) else {
            return false;
        };
        // SAFETY: the run is ours and lies in one window of a nest's size; the cell is ours.
        unsafe {
            let Some(cell) = Chunk::take_cell(run.chunk) else {
                self.return_run(run);
                return false;
            };
            let nest = cell.cast::<Nest>();
            cell.write_bytes(0, 1);
            (*nest).dirty = if run.fresh { 0 } else { u64::MAX };
            (*nest).base = run.granule() as u16;
            let index = Chunk::cell_index(cell);
            // Relaxed: only this heap's owner reads it.
            Chunk::nest(run.chunk, run.granule()).store(index, crate::sync::Ordering::Relaxed);
            list(heap, nest);
            (*heap).nests_idle += (*nest).dirty.count_ones();
        }
        true
    }

    /// Gives granules back to their nest, and an empty nest back to its chunk, unless it is the
    /// heap's only one and `keep` says so.
    ///
    /// # Safety
    /// The caller may work on the heap, and nothing uses the granules, which are its own.
    pub unsafe fn return_part(
        &mut self,
        heap: *mut Heap,
        chunk: *mut Chunk,
        granule: usize,
        count: usize,
        keep: bool,
    ) {
        // SAFETY: by contract; the nest's cell lives while a granule of it is in use.
        unsafe {
            let entry = Chunk::nest(chunk, granule);
            let cell = entry.load(crate::sync::Ordering::Relaxed);
            let nest = chunk.cast::<Meta>().add(cell as usize).cast::<Nest>();
            let mask = granule_mask(granule - (*nest).base as usize, count);
            (*heap).nests_idle += ((*nest).dirty & (*nest).used & mask).count_ones();
            (*nest).used &= !mask;
            if !(*nest).listed {
                list(heap, nest);
            }
            let only = (*nest).next.is_null() && (*nest).prev.is_null();
            if (*nest).used == 0 && !(only && keep) {
                unlist(heap, nest);
                (*heap).nests_idle -= (*nest).dirty.count_ones();
                entry.store(0, crate::sync::Ordering::Relaxed);
                let page = (*nest).base as usize * GRANULE / RUN_PAGE;
                let pages = NEST / RUN_PAGE;
                self.return_run(Run {
                    chunk,
                    page,
                    pages,
                    fresh: false,
                });
                self.return_cell(nest.cast());
            }
            if (*heap).nests_idle > (*heap).nests_limit {
                self.limit_nests(heap);
            }
        }
    }

    /// Gives the pages of free granules back if they are many and more than a quarter of those of
    /// the listed nests. (A nest that is not listed is full.)
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[cold]
    pub(crate) unsafe fn limit_nests(&mut self, heap: *mut Heap) {
        let platform = &self.process.platform;
        let page = (platform.page_size() / GRANULE).max(1);
        // SAFETY: by contract; free granules hold nothing.
        unsafe {
            if !(*heap).nests_pace.is_due(platform, (*heap).bytes) {
                return;
            }
            let (mut used, mut idle) = (0, 0);
            let least = self.process.share(NESTS_IDLE as usize) as u32;
            let most = |used| least.max(used / 4);
            let mut nest = (*heap).nests;
            while !nest.is_null() {
                used += (*nest).used.count_ones();
                nest = (*nest).next;
            }
            (*heap).nests_limit = most(used);
            if (*heap).nests_idle <= most(used) {
                return;
            }
            let mut nest = (*heap).nests;
            while !nest.is_null() {
                let mut first = 0;
                while first + page <= 64 && page < 64 {
                    let mut count = 0;
                    while first + count < 64
                        && (*nest).used & granule_mask(first + count, page) == 0
                    {
                        count += page;
                    }
                    if count != 0 && (*nest).dirty >> first & low_granules(count) != 0 {
                        let at = ((*nest).base as usize + first) * GRANULE;
                        let at = Chunk::around(nest).cast::<u8>().add(at);
                        if platform.purge(NonNull::new_unchecked(at), count * GRANULE) {
                            (*nest).dirty &= !(low_granules(count) << first);
                        }
                    }
                    first += count + page;
                }
                idle += ((*nest).dirty & !(*nest).used).count_ones();
                nest = (*nest).next;
            }
            (*heap).nests_idle = idle;
            // Granules that share a page with used ones stay.
            (*heap).nests_limit = most(used).max(idle + least);
        }
    }

    /// Gives the heap's empty nests back.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub unsafe fn drop_empty_nests(&mut self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            let mut nest = (*heap).nests;
            while !nest.is_null() {
                let next = (*nest).next;
                if (*nest).used == 0 {
                    self.return_part(heap, Chunk::around(nest), (*nest).base as usize, 1, false);
                }
                nest = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_aligned_and_clear() {
        assert_eq!(find_place(0, 16, 1), Some(0));
        assert_eq!(find_place(1, 16, 1), Some(1));
        assert_eq!(find_place(1, 16, 8), Some(8));
        assert_eq!(find_place(u64::MAX, 1, 1), None);
        assert_eq!(find_place(u64::MAX >> 16, 16, 1), Some(48));
        assert_eq!(find_place(u64::MAX >> 15, 16, 1), None);
        for used in [
            0,
            1,
            0xf0f0,
            0x7fff_0f00_f00f_0f31,
            u64::MAX << 17,
            u64::MAX - (9 << 20),
        ] {
            for count in 1..=16 {
                for align in [1, 2, 4, 8] {
                    let plain = (0..=64 - count)
                        .step_by(align)
                        .find(|&first| used & granule_mask(first, count) == 0);
                    assert_eq!(
                        find_place(used, count, align),
                        plain,
                        "{used:x} {count} {align}"
                    );
                }
            }
        }
    }
}
