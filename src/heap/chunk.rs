//! Chunks: 4 MiB aligned windows of address space that hold groups and their metas.
//!
//! ```text
//! | header | first metas | map: u16 a granule | more metas ->     | data ->       |
//! | always mapped                             | open | no memory  | open | no mem |
//! ```
//!
//! Metas and data are opened as they are needed, each in its place; between them stays at least a
//! page without memory, and one behind the data. Header and map, once made, can be read for ever:
//! a thread may look an address up whose chunk goes out of use meanwhile, such as that of a large
//! block whose mapping lies in the same window.
//!
//! A map entry is the index of the granule's meta, in cells of 64 bytes from the chunk's start;
//! 0 leads to the header's first cell, a pseudo-meta that no pointer passes. The first metas
//! share the header's page, and so does the start of the map: a small process touches one page
//! for all three.

use crate::config::{CHUNK, GRANULE, RUN_PAGE};
use crate::meta::{Meta, Nest, CLASS_NONE, NOBODY};
use crate::sync::{AtomicU16, Ordering};
use core::ptr;

/// Bytes of a cell: a meta or a nest.
pub const CELL: usize = 64;
/// Run pages in a chunk.
pub const PAGES: usize = CHUNK / RUN_PAGE;
/// Granules in a chunk.
pub const GRANULES: usize = CHUNK / GRANULE;
/// Windows of a nest's size in a chunk.
const NEST_WINDOWS: usize = CHUNK / crate::config::NEST;
/// Words of a bitmap over run pages.
const WORDS: usize = PAGES.div_ceil(64);

/// Cells of the header.
const HEADER_CELLS: usize = size_of::<Chunk>().div_ceil(CELL);
/// Cells of metas between the header and the map.
const FIRST_METAS: usize = 8;
/// Where the map starts, in bytes.
pub const MAP_OFFSET: usize = (HEADER_CELLS + FIRST_METAS) * CELL;
/// First cell behind the map.
const MORE_METAS: usize = (MAP_OFFSET + GRANULES * 2).div_ceil(CELL);
/// End of what is always mapped, when pages are no larger.
pub const MAP_END: usize = MORE_METAS * CELL;
/// End of the metas: cells for 7 of 8 granules, which are all that are left for data.
pub const META_END: usize = MAP_OFFSET + GRANULES * 2 + GRANULES * 7 / 8 * CELL;

/// Cells for metas and nests in a chunk.
const CELLS: usize = FIRST_METAS + META_END / CELL - MORE_METAS;

/// A bitmap over the run pages of a chunk.
pub type Pages = [u64; WORDS];

/// The header. All of it belongs to whoever holds the provider lock, unless said otherwise.
#[repr(C, align(64))]
pub struct Chunk {
    /// What map entry 0 leads to: it holds no block. Never written after the chunk is made.
    pseudo: Meta,
    /// Next chunk, in the order of their making.
    pub next: *mut Chunk,
    /// Number in that order.
    pub sequence: usize,
    /// First free cell that was used before.
    free_cells: *mut Meta,
    /// First cell never used.
    fresh_cell: u32,
    /// Cells in use.
    pub cells: u32,
    /// Cells there can be at most.
    pub most_cells: u32,
    /// Metas up to here have memory, as an offset.
    pub metas: u32,
    /// First byte of data, as an offset.
    pub data: u32,
    /// Data up to here has memory, as an offset.
    pub open: u32,
    /// Data could be opened up to here, as an offset.
    pub limit: u32,
    /// Run pages in use.
    pub used_pages: u32,
    /// No free run is longer than this many run pages.
    pub longest: u32,
    /// Its memory stays: it is the program break's, or lies where others would take its place.
    pub stays: bool,
    /// Pages in runs, and pages that do not exist.
    pub used: Pages,
    /// Free pages that are not zero.
    pub dirty: Pages,
    /// Cell of the nest in each window of a nest's size, 0 for none. Written under the lock when
    /// a nest comes or goes; read by the nest's owner.
    nests: [AtomicU16; NEST_WINDOWS],
}

impl Chunk {
    /// Makes a chunk header at `at`, see `lay_out`.
    ///
    /// # Safety
    /// [at, at + metas) is zero and writable, at is chunk-aligned, and nobody else knows of it.
    pub unsafe fn create(at: *mut u8, metas: usize, data: [usize; 3]) -> *mut Chunk {
        let chunk = at.cast::<Chunk>();
        // SAFETY: the memory is ours and zero, which is a valid header.
        unsafe {
            (*chunk).pseudo.class = CLASS_NONE;
            (*chunk).pseudo.owner.store(NOBODY, Ordering::Relaxed);
            (*chunk).lay_out(metas, data);
        }
        chunk
    }

    /// Nothing is in use, neither of the metas that are open up to `metas`, nor of the data: where it
    /// starts, is open up to, and may be opened up to. No free page is dirty.
    pub fn lay_out(&mut self, metas: usize, [data, open, limit]: [usize; 3]) {
        self.fresh_cell = HEADER_CELLS as u32;
        self.free_cells = ptr::null_mut();
        self.most_cells = CELLS as u32;
        self.metas = metas as u32;
        self.data = data as u32;
        self.open = open as u32;
        self.limit = limit as u32;
        self.used = [u64::MAX; WORDS];
        let pages = (limit - data) / RUN_PAGE;
        set(&mut self.used, data / RUN_PAGE, pages, false);
        self.longest = pages as u32;
    }

    /// Ends the data where it is open: what is behind belongs to somebody else.
    pub fn end_here(&mut self) {
        let rest = self.open as usize / RUN_PAGE;
        set(&mut self.used, rest, PAGES - rest, true);
        self.limit = self.open;
    }

    /// Cells that have memory.
    pub fn open_cells(&self) -> usize {
        FIRST_METAS + (self.metas as usize).min(META_END) / CELL - MORE_METAS
    }

    /// The chunk around a cell or a byte of data.
    #[inline(always)]
    pub fn around<T>(inside: *mut T) -> *mut Chunk {
        // By the exposed address: the compiler then needs one instruction, not an offset.
        ptr::with_exposed_provenance_mut(inside.expose_provenance() & !(CHUNK - 1))
    }

    /// The map's entry of a granule.
    ///
    /// # Safety
    /// `chunk` is a chunk and `granule` is below `GRANULES`.
    #[inline(always)]
    pub unsafe fn entry<'a>(chunk: *mut Chunk, granule: usize) -> &'a AtomicU16 {
        // SAFETY: the map has one entry for each granule. Entries are atomic because frees of
        // other threads read them while the owner of a neighbouring group writes its own.
        unsafe {
            &*chunk
                .cast::<u8>()
                .add(MAP_OFFSET + granule * 2)
                .cast::<AtomicU16>()
        }
    }

    /// The meta of the group at `address` in this chunk, or the pseudo-meta.
    ///
    /// # Safety
    /// `chunk` is a chunk, and `address` lies in its window.
    #[inline(always)]
    pub unsafe fn meta_at(chunk: *mut Chunk, address: usize) -> *mut Meta {
        // SAFETY: the granule number is below GRANULES; entries hold indices of cells. Relaxed:
        // a live block's pointer came here by the program's own synchronisation, which orders
        // the entry too; any other pointer is rejected by what the meta says.
        unsafe {
            let granule = (address & (CHUNK - 1)) / GRANULE;
            let cell = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
            chunk.cast::<Meta>().add(cell as usize)
        }
    }

    /// Index of a cell of this chunk.
    pub fn cell_index<T>(cell: *mut T) -> u16 {
        ((cell.addr() & (CHUNK - 1)) / CELL) as u16
    }

    /// Enters `cell` for all granules from `first` on; 0 clears them.
    ///
    /// # Safety
    /// The granules belong to the caller.
    pub unsafe fn enter(chunk: *mut Chunk, first: usize, granules: usize, cell: u16) {
        for granule in first..first + granules {
            // SAFETY: by contract. Relaxed: see `meta_at`.
            unsafe { Chunk::entry(chunk, granule).store(cell, Ordering::Relaxed) };
        }
    }

    /// The nest in the window around `granule`, where one is.
    ///
    /// # Safety
    /// As `nest`.
    pub unsafe fn nest_at(chunk: *mut Chunk, granule: usize) -> *mut Nest {
        // SAFETY: by contract. Relaxed: who asks owns the nest, or holds the lock.
        unsafe {
            let cell = Chunk::nest(chunk, granule).load(Ordering::Relaxed);
            chunk.cast::<Meta>().add(cell as usize).cast()
        }
    }

    /// Cell of the nest in the window around `granule`.
    ///
    /// # Safety
    /// `chunk` is a chunk and `granule` is below `GRANULES`.
    pub unsafe fn nest<'a>(chunk: *mut Chunk, granule: usize) -> &'a AtomicU16 {
        // SAFETY: by contract.
        unsafe { &(*chunk).nests[granule / 64] }
    }

    /// A cell that has memory, for a meta or a nest, zero but for `next`. Provider lock.
    ///
    /// # Safety
    /// `chunk` is a chunk, and the caller holds the provider lock.
    pub unsafe fn take_open_cell(chunk: *mut Chunk) -> Option<*mut Meta> {
        // SAFETY: the lock makes the header ours; so many cells exist.
        unsafe {
            if (*chunk).cells as usize == (*chunk).open_cells() {
                return None;
            }
            let mut cell = (*chunk).free_cells;
            if cell.is_null() {
                cell = chunk.cast::<Meta>().add((*chunk).fresh_cell as usize);
                (*chunk).fresh_cell += 1;
                if (*chunk).fresh_cell as usize * CELL == MAP_OFFSET {
                    (*chunk).fresh_cell = MORE_METAS as u32;
                }
            } else {
                (*chunk).free_cells = (*cell).next;
            }
            (*chunk).cells += 1;
            Some(cell)
        }
    }

    /// Clears the cells that have memory up to offset `metas`, none of them in use.
    ///
    /// # Safety
    /// `chunk` is a chunk, nothing leads to its cells, and the caller holds the provider lock.
    pub unsafe fn clear_cells(chunk: *mut Chunk, metas: usize) {
        // SAFETY: the first metas and those behind the map, as far as they have memory.
        unsafe {
            let cells = chunk.cast::<Meta>();
            cells.add(HEADER_CELLS).write_bytes(0, FIRST_METAS);
            cells
                .add(MORE_METAS)
                .write_bytes(0, metas / CELL - MORE_METAS);
        }
    }

    /// Calls `each` for every free cell that was used before, until it errs.
    ///
    /// # Safety
    /// As `take_cell`.
    pub unsafe fn each_free_cell<E>(
        chunk: *mut Chunk,
        mut each: impl FnMut(*mut Meta) -> Result<(), E>,
    ) -> Result<(), E> {
        // SAFETY: by contract; free cells are in one list.
        unsafe {
            let mut cell = (*chunk).free_cells;
            while !cell.is_null() {
                each(cell)?;
                cell = (*cell).next;
            }
        }
        Ok(())
    }

    /// Whether the chunk has cells left for a nest and a group: records of large blocks take
    /// theirs from any chunk, so its pages may outlast them. Provider lock.
    pub fn has_cells(&self) -> bool {
        self.cells + 2 <= self.most_cells
    }

    /// Gives a cell back.
    ///
    /// # Safety
    /// The cell came from `take_cell`, nobody uses it, and the caller holds the provider lock.
    pub unsafe fn return_cell(cell: *mut Meta) {
        // SAFETY: by contract. Zero records: a stale pointer that still leads here is rejected.
        unsafe {
            let chunk = Chunk::around(cell);
            cell.write_bytes(0, 1);
            (*cell).next = (*chunk).free_cells;
            (*chunk).free_cells = cell;
            (*chunk).cells -= 1;
        }
    }
}

/// Sets or clears `count` bits of a bitmap from `first` on. Returns how many it cleared.
#[inline(never)]
pub fn set(map: &mut Pages, first: usize, count: usize, value: bool) -> usize {
    let (mut bit, end) = (first, first + count);
    let mut cleared = 0;
    while bit < end {
        let bits = (64 - bit % 64).min(end - bit);
        let mask = u64::MAX >> (64 - bits) << (bit % 64);
        let word = &mut map[bit / 64];
        let mut changes = if value { !*word } else { *word } & mask;
        *word ^= changes;
        // One by one: few targets count bits in less code.
        while changes != 0 && !value {
            changes &= changes - 1;
            cleared += 1;
        }
        bit += bits;
    }
    cleared
}

/// Number of set bits among `count` from `first` on.
#[cfg(any(test, feature = "model"))]
pub fn count_set(map: &Pages, first: usize, count: usize) -> usize {
    let mut copy = *map;
    set(&mut copy, first, count, false)
}

/// First page at or after `from` whose bit is `value`; `PAGES` if there is none.
fn seek(map: &Pages, from: usize, value: bool) -> usize {
    let mut page = from;
    while page < PAGES {
        let word = if value {
            map[page / 64]
        } else {
            !map[page / 64]
        } >> (page % 64);
        if word != 0 {
            return page + word.trailing_zeros() as usize;
        }
        page = (page / 64 + 1) * 64;
    }
    PAGES
}

/// First run of `count` clear bits that starts at a multiple of `align` pages; or the length of
/// the longest run seen.
pub fn find_clear(map: &Pages, count: usize, align: usize) -> Result<usize, usize> {
    let mut longest = 0;
    let mut page = seek(map, 0, false);
    while page < PAGES {
        let end = seek(map, page, true);
        let start = page.next_multiple_of(align);
        if start + count <= end {
            return Ok(start);
        }
        longest = longest.max(end - page);
        page = seek(map, end, false);
    }
    Err(longest)
}

/// Calls `each(first, count)` for every longest run of pages set in `map`.
pub fn each_run(map: &Pages, mut each: impl FnMut(usize, usize)) {
    let mut page = seek(map, 0, true);
    while page < PAGES {
        let end = seek(map, page, false);
        each(page, end - page);
        page = seek(map, end, true);
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(MAP_OFFSET < RUN_PAGE, "the map starts in the header's page");
    assert!(META_END < CHUNK / 4);
    assert!(CELL == size_of::<Meta>());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_aligned_runs_and_the_longest_when_there_is_none() {
        let mut map: Pages = [u64::MAX; WORDS];
        set(&mut map, 5, 3, false);
        set(&mut map, 17, 6, false);
        assert_eq!(find_clear(&map, 3, 1), Ok(5));
        assert_eq!(find_clear(&map, 4, 1), Ok(17));
        assert_eq!(find_clear(&map, 3, 4), Ok(20));
        assert_eq!(find_clear(&map, 7, 1), Err(6));
        assert_eq!(count_set(&map, 0, 24), 24 - 9);
    }

    #[test]
    fn cleared_bits_are_counted_across_words() {
        let mut map: Pages = [0; WORDS];
        let (half, many) = (PAGES / 2, (PAGES / 2).min(66));
        set(&mut map, half - 1, many, true);
        assert_eq!(count_set(&map, 0, PAGES), many);
        set(&mut map, half - 4, 5, true);
        assert_eq!(set(&mut map, half, 5, false), 5);
        assert_eq!(count_set(&map, 0, PAGES), many - 2);
        assert_eq!(count_set(&map, half - 4, 12), 4 + 3);
    }

    #[test]
    fn runs_are_listed_across_words() {
        let mut map: Pages = [0; WORDS];
        set(&mut map, 60, 4, true);
        set(&mut map, 2, 1, true);
        let mut seen = [(0, 0); 2];
        let mut found = 0;
        each_run(&map, |first, count| {
            seen[found] = (first, count);
            found += 1;
        });
        assert_eq!(seen, [(2, 1), (60, 4)]);
    }
}
