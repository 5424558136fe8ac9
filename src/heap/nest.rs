//! Nests: runs of 32 KiB that a heap cuts into groups of whole granules, without the lock.
//!
//! A group's meta must lie in its chunk, whose cells belong to the provider. So each nest has a
//! few in reserve: a handful comes with the nest, and whenever there is none left; those of groups
//! that go stay there, up to a number. The lock is taken for these handfuls, and for whole nests.
//!
//! What the child of a fork must find whole of another thread's nests is the map and the reserve,
//! see `fork.rs`: a cell enters the map before it leaves the reserve, and comes back to the
//! reserve before it leaves the map. Compiler fences keep the stores in that order.

use crate::chunk::Chunk;
use crate::config::{GRANULE, NEST, RUN_PAGE};
use crate::heap::Heap;
use crate::meta::{ones, Meta, Nest};
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::{Locked, Run};
use crate::remote::Life;
use crate::sync::Ordering;
use core::ptr::{self, NonNull};
use core::sync::atomic::compiler_fence;

/// Nests that are tried before a new one is made.
const TRIES: usize = 16;

/// Cells that a nest gets at a time.
const CELLS_AT_ONCE: usize = 4;

/// A nest with more spare cells gives some back.
const SPARE_CELLS: u8 = 16;

/// Memory and a cell for a group.
pub struct Part {
    /// Where it comes from, and whose reserve's first the cell is; null for a run.
    pub nest: *mut Nest,
    /// The cell for the group's meta, in the same chunk.
    pub cell: *mut Meta,
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

impl<P: Platform> Process<P> {
    /// Takes `count` granules out of one of the heap's nests, with a cell for the group: the caller
    /// enters it into the map, and then takes it out of the reserve (`Nest::pop`).
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn take_part(
        &self,
        heap: *mut Heap,
        count: usize,
        align: usize,
    ) -> Option<Part> {
        // SAFETY: by contract; listed nests are the heap's own.
        unsafe {
            let mut nest = (*heap).nests;
            for _ in 0..TRIES {
                if nest.is_null() {
                    return None;
                }
                if let Some(first) = find_place((*nest).used, count, align) {
                    if (*nest).cells.is_null() {
                        self.fill(nest);
                    }
                    // Records of large blocks take their cells from any chunk: there may be none.
                    let cell = (*nest).cells;
                    if !cell.is_null() {
                        let mask = granule_mask(first, count);
                        let fresh = (*nest).dirty & mask == 0;
                        (*heap).nests_idle -= ones((*nest).dirty & mask);
                        (*nest).used |= mask;
                        (*nest).dirty |= mask;
                        if (*nest).used == u64::MAX {
                            unlist(heap, nest);
                        }
                        return Some(Part {
                            cell,
                            granule: (*nest).base as usize + first,
                            fresh,
                            nest,
                        });
                    }
                }
                nest = (*nest).next;
            }
            None
        }
    }

    /// Gives a nest whose reserve is empty a few cells, as long as the chunk has some.
    ///
    /// # Safety
    /// The caller may work on the nest.
    #[inline(never)]
    unsafe fn fill(&self, nest: *mut Nest) {
        // SAFETY: by contract.
        unsafe { self.lock().fill(nest) }
    }

    /// Gives the granules of a group back to their nest, whose reserve has its cell already, and
    /// an empty nest back to its chunk, unless it is the only one of a heap at work. Takes the lock
    /// for that only, and leaves it in `locked`.
    ///
    /// # Safety
    /// The caller may work on the heap, and nothing uses the granules, which are its own.
    pub(crate) unsafe fn return_part<'a>(
        &'a self,
        heap: *mut Heap,
        nest: *mut Nest,
        granule: usize,
        count: usize,
        locked: &mut Option<Locked<'a, P>>,
    ) {
        // SAFETY: by contract.
        unsafe {
            let mask = granule_mask(granule - (*nest).base as usize, count);
            (*heap).nests_idle += ones((*nest).dirty & mask);
            (*nest).used &= !mask;
            if !(*nest).listed {
                list(heap, nest);
            }
            // A heap at work keeps its last nest for the next burst.
            let keep = (*nest).next.is_null()
                && (*nest).prev.is_null()
                && (*heap).mail.0.life() == Life::Active as u32;
            if (*nest).used == 0 && !keep {
                self.drop_nest(heap, nest, locked);
            } else if (*nest).spare > SPARE_CELLS {
                self.lock_once(locked).return_spare(nest, SPARE_CELLS / 2);
            }
            if (*heap).nests_idle > (*heap).nests_limit {
                self.limit_nests(heap);
            }
        }
    }

    /// Gives an empty nest back.
    ///
    /// # Safety
    /// The caller may work on the heap, whose nest it is; no group lies in it.
    unsafe fn drop_nest<'a>(
        &'a self,
        heap: *mut Heap,
        nest: *mut Nest,
        locked: &mut Option<Locked<'a, P>>,
    ) {
        // SAFETY: by contract.
        unsafe {
            unlist(heap, nest);
            (*heap).nests_idle -= ones((*nest).dirty);
            locked.get_or_insert_with(|| self.lock()).return_nest(nest);
        }
    }

    /// Gives the pages of free granules back if they are many and more than a quarter of those of
    /// the listed nests. (A nest that is not listed is full.)
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[cold]
    pub(crate) unsafe fn limit_nests(&self, heap: *mut Heap) {
        let platform = &self.platform;
        let page = (platform.page_size() / GRANULE).max(1);
        // SAFETY: by contract; free granules hold nothing.
        unsafe {
            if !(*heap).nests_pace.is_due(platform, (*heap).bytes) {
                return;
            }
            let (mut used, mut idle) = (0, 0);
            let least = self.share(NESTS_IDLE as usize) as u32;
            let most = |used| least.max(used / 4);
            let mut nest = (*heap).nests;
            while !nest.is_null() {
                used += ones((*nest).used);
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
                idle += ones((*nest).dirty & !(*nest).used);
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
    pub(crate) unsafe fn drop_empty_nests(&self, heap: *mut Heap) {
        let mut locked = None;
        // SAFETY: by contract.
        unsafe {
            let mut nest = (*heap).nests;
            while !nest.is_null() {
                let next = (*nest).next;
                if (*nest).used == 0 {
                    self.drop_nest(heap, nest, &mut locked);
                }
                nest = next;
            }
        }
    }
}

impl Nest {
    /// Takes the first cell of the reserve out of it: the map leads to it now.
    #[inline(always)]
    pub fn pop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: cells of the reserve exist.
        self.cells = unsafe { (*self.cells).next };
        compiler_fence(Ordering::SeqCst);
        // What a fork left behind may count one too few.
        self.spare = self.spare.wrapping_sub(1);
    }

    /// Puts the cell of a group that goes into the reserve: the map does not lead to it for long.
    ///
    /// # Safety
    /// The caller may work on the nest; the cell is its group's, which is in no list.
    #[inline(always)]
    pub unsafe fn push(&mut self, cell: *mut Meta) {
        // SAFETY: by contract.
        unsafe { (*cell).next = self.cells };
        compiler_fence(Ordering::SeqCst);
        self.cells = cell;
        compiler_fence(Ordering::SeqCst);
        self.spare += 1;
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
            let Some(cell) = self.take_cell(run.chunk) else {
                self.return_run(run);
                return false;
            };
            let nest = cell.cast::<Nest>();
            cell.write_bytes(0, 1);
            (*nest).dirty = if run.fresh { 0 } else { u64::MAX };
            (*nest).base = run.granule() as u16;
            (*nest).owner = (*heap).id;
            let index = Chunk::cell_index(cell);
            // Relaxed: only this heap's owner reads it.
            Chunk::nest(run.chunk, run.granule()).store(index, Ordering::Relaxed);
            list(heap, nest);
            (*heap).nests_idle += ones((*nest).dirty);
            self.fill(nest);
        }
        true
    }

    /// The same.
    ///
    /// # Safety
    /// As there.
    unsafe fn fill(&mut self, nest: *mut Nest) {
        for _ in 0..CELLS_AT_ONCE {
            // SAFETY: by contract.
            unsafe {
                if let Some(cell) = self.take_cell(Chunk::around(nest)) {
                    (*nest).push(cell);
                }
            }
        }
    }

    /// Gives up to `count` cells of a nest's reserve back.
    ///
    /// # Safety
    /// The caller may work on the nest; the map does not lead to any of its spare cells.
    unsafe fn return_spare(&mut self, nest: *mut Nest, count: u8) {
        for _ in 0..count {
            // SAFETY: by contract. The nest's pages keep the chunk.
            unsafe {
                let cell = (*nest).cells;
                if cell.is_null() {
                    return;
                }
                (*nest).pop();
                Chunk::return_cell(cell);
            }
        }
    }

    /// Gives a nest back that is in no list.
    ///
    /// # Safety
    /// The caller may work on it; no group lies in it.
    pub(crate) unsafe fn return_nest(&mut self, nest: *mut Nest) {
        // SAFETY: by contract.
        unsafe {
            // There are no more than the nest has granules.
            self.return_spare(nest, u8::MAX);
            let (chunk, granule) = (Chunk::around(nest), (*nest).base as usize);
            Chunk::nest(chunk, granule).store(0, Ordering::Relaxed);
            self.return_run(Run {
                chunk,
                page: granule * GRANULE / RUN_PAGE,
                pages: NEST / RUN_PAGE,
                fresh: false,
            });
            self.return_cell(nest.cast());
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
