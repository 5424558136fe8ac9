//! Chunks: 4 MiB aligned windows of address space that hold groups and their states.
//!
//! ```text
//! | header | first cells | map: u16 a granule | more cells ->     | data ->       |
//! | always mapped                             | open | no memory  | open | no mem |
//! ```
//!
//! Cells and data are opened as they are needed, each in its place; between them stays at least a
//! page without memory, and one behind the data. Header and map, once made, can be read for ever:
//! a thread may look an address up whose chunk goes out of use meanwhile, such as that of a large
//! block whose mapping lies in the same window.
//!
//! A cell is 64 bytes: the state of a group or of a span, or the record of a large block. A map
//! entry is the number of the granule's cell, counted from the chunk's start; 0 leads to the
//! header's first cell, a pseudo-group that no pointer passes. The first cells share the header's
//! page, and so does the start of the map: a small process touches one page for all three.

use crate::base::config::{CHUNK, GRANULE, RUN_PAGE, SPAN};
use crate::base::lock::Held;
use crate::base::places::places;
use crate::base::sync::{read_pair, AtomicU16, Ordering::Relaxed};
use crate::layout::bitmap::{Bitmap, PageMap, PAGES};
use crate::layout::group::Group;
use crate::layout::kind::Kind;
use crate::layout::span::Span;
use core::cell::Cell;
use core::ptr;

/// Bytes of a cell.
pub const CELL: usize = 64;
/// Granules in a chunk.
pub const GRANULES: usize = CHUNK / GRANULE;

/// Cells of the header.
const HEADER_CELLS: usize = size_of::<Chunk>().div_ceil(CELL);
/// Cells between the header and the map.
const FIRST_CELLS: usize = 8;
/// Where the map starts, in bytes.
const MAP_OFFSET: usize = (HEADER_CELLS + FIRST_CELLS) * CELL;
/// First cell behind the map.
const MORE_CELLS: usize = (MAP_OFFSET + GRANULES * 2).div_ceil(CELL);
/// End of what is always mapped, when pages are no larger.
pub const MAP_END: usize = MORE_CELLS * CELL;
/// End of the cells: for 7 of 8 granules, which are all that are left for data.
pub const CELLS_END: usize = MAP_OFFSET + GRANULES * 2 + GRANULES * 7 / 8 * CELL;
/// Run pages that cells lie in, from the chunk's start: the header takes one at most.
pub const CELL_PAGES: usize = 1 + (GRANULES * 2 + GRANULES * 7 / 8 * CELL).div_ceil(RUN_PAGE);
/// Alignments of runs, from a run page to an eighth of a chunk.
const ALIGNMENTS: usize = (PAGES / 8).ilog2() as usize + 1;
/// Cells for states and records in a chunk.
const CELLS: usize = FIRST_CELLS + CELLS_END / CELL - MORE_CELLS;

/// What is made in cells of chunks only.
///
/// # Safety
/// A value that somebody refers to lies in a cell.
pub unsafe trait InCell {}

// SAFETY: states of groups are cells, or the pseudo-group's in the header, which is one, too.
unsafe impl InCell for Group {}
// SAFETY: `Span::write` is the one way to a span.
unsafe impl InCell for Span {}

/// A chunk: its header. Map, cells and data lie behind it.
#[repr(C, align(64))]
pub struct Chunk {
    /// What map entry 0 leads to: it holds no block. Never written after the chunk is made.
    pseudo: Group,
    header: Header,
    /// Cell of the span in each place of a span's size, 0 for none. Written under the lock when a
    /// span comes or goes; read by the span's owner.
    spans: [AtomicU16; CHUNK / SPAN],
}

// SAFETY: the cells of the header are reached with the lock in hand only, see `Chunk::header`;
// everything else is atomic.
unsafe impl Sync for Chunk {}

/// What the lock protects of a chunk. Offsets are bytes from the chunk's start.
pub struct Header {
    /// What the chunk is for. Fixed once it is in the list.
    pub kind: Cell<Kind>,
    /// Next chunk, in the order of their making.
    pub next: Cell<Option<&'static Chunk>>,
    /// Number in that order.
    pub sequence: Cell<usize>,
    /// Cells that are in use or are none, by number: a word for each run page of them.
    used_cells: Bitmap<CELL_PAGES>,
    /// Run pages of cells that were used since their memory was new.
    dirty_cells: Bitmap<{ CELL_PAGES.div_ceil(64) }>,
    /// No cell with a lower number is free.
    first_free: Cell<u32>,
    /// Cells in use.
    pub cells: Cell<u32>,
    /// Cells there can be at most.
    pub most_cells: Cell<u32>,
    /// Cells up to this offset have memory.
    pub cells_open: Cell<u32>,
    /// Offset of the first byte of data.
    pub data: Cell<u32>,
    /// Data up to this offset has memory.
    pub open: Cell<u32>,
    /// Data could be opened up to this offset.
    pub limit: Cell<u32>,
    /// Run pages in use.
    pub used_pages: Cell<u32>,
    /// By the logarithm of an alignment, both in run pages: no free run is longer from a multiple
    /// of it on.
    longest: [Cell<u16>; ALIGNMENTS],
    /// Its memory stays: it is the program break's, or lies where others would take its place.
    pub stays: Cell<bool>,
    /// Pages in runs, and pages that do not exist.
    pub used: PageMap,
    /// Free pages that are not zero.
    pub dirty: PageMap,
}

impl Header {
    /// Nothing is in use, neither of the cells that are open up to offset `cells_open`, nor of the
    /// data: where it starts, is open up to, and may be opened up to. No free page is dirty.
    pub fn lay_out(&self, cells_open: usize, [data, open, limit]: [usize; 3]) {
        let none = [
            (0, HEADER_CELLS),
            (MAP_OFFSET / CELL, MORE_CELLS),
            (CELLS_END / CELL, CELL_PAGES * 64),
        ];
        for (first, end) in none {
            self.used_cells.set(first, end - first, true);
        }
        self.dirty_cells.set(0, CELL_PAGES, false);
        self.first_free.set(HEADER_CELLS as u32);
        self.most_cells.set(CELLS as u32);
        self.cells_open.set(cells_open as u32);
        self.data.set(data as u32);
        self.open.set(open as u32);
        self.limit.set(limit as u32);
        let pages = (limit - data) / RUN_PAGE;
        self.used.set(0, PAGES, true);
        self.used.set(data / RUN_PAGE, pages, false);
        for longest in &self.longest {
            longest.set(pages as u16);
        }
    }

    /// Whether there may be a free run of `pages` run pages at a multiple of `align` of them, a
    /// power of two.
    pub fn may_have(&self, pages: usize, align: usize) -> bool {
        let longest = self.longest.get(align.ilog2() as usize);
        longest.is_none_or(|longest| longest.get() as usize >= pages)
    }

    /// No free run is longer than so many run pages from a multiple of `align` on.
    pub fn note_longest(&self, longest: usize, align: usize) {
        for known in self.longest.iter().skip(align.ilog2() as usize) {
            known.set(known.get().min(longest as u16));
        }
    }

    /// Page `page` is free now. How many there are in the free run around it.
    pub fn note_free(&self, page: usize) -> usize {
        let (start, end) = self.used.clear_around(page);
        // None is less than the last.
        if end - start > self.longest[ALIGNMENTS - 1].get() as usize {
            for (log, known) in self.longest.iter().enumerate() {
                let length = end.saturating_sub(start.next_multiple_of(1 << log));
                known.set(known.get().max(length as u16));
            }
        }
        end - start
    }

    /// Ends the data where it is open: what is behind belongs to somebody else.
    pub fn end_here(&self) {
        let first = self.open.get() as usize / RUN_PAGE;
        self.used.set(first, PAGES - first, true);
        self.limit.set(self.open.get());
    }

    /// Of free run pages from `first` to before `end` those that make whole pages of the system, of
    /// `each` run pages, with free ones beside them as need be: the first, and the one behind the
    /// last. None if that is not below it.
    pub fn whole_pages(&self, first: usize, end: usize, each: usize) -> (usize, usize) {
        let is_free = |from: usize, to: usize| from == to || self.used.seek(from, true) >= to;
        let (mut start, mut stop) = (first / each * each, end.next_multiple_of(each));
        if !is_free(start, first) {
            start += each;
        }
        if !is_free(end, stop) {
            stop -= each;
        }
        (start, stop)
    }

    /// Whether all cells that have memory are in use.
    pub fn are_cells_out(&self) -> bool {
        let open = (self.cells_open.get() as usize).min(CELLS_END) / CELL;
        self.cells.get() as usize == FIRST_CELLS + open - MORE_CELLS
    }

    /// Whether there are cells left for a span and a group: records of large blocks take theirs
    /// from any chunk, so its pages may outlast them.
    pub fn has_cells(&self) -> bool {
        self.cells.get() + 2 <= self.most_cells.get()
    }

    /// Numbers of the free cells.
    #[cfg(any(test, feature = "model"))]
    pub fn free_cells(&self) -> impl Iterator<Item = u16> + '_ {
        let free = |from: usize| Some(self.used_cells.seek(from, false));
        let numbers = core::iter::successors(free(0), move |&last| free(last + 1));
        let end = CELL_PAGES * 64;
        numbers
            .take_while(move |&number| number < end)
            .map(|number| number as u16)
    }

    /// Whether of `count` run pages of cells from `first` on one is not as new, and none has a cell
    /// in use. From now on they count as new.
    pub fn take_free_pages(&self, first: usize, count: usize) -> bool {
        first + count <= CELL_PAGES
            && (first..first + count).all(|page| self.used_cells.is_clear(page))
            && self.dirty_cells.set(first, count, false) != 0
    }
}

impl Chunk {
    /// Where its fields are: of the header the next chunk, the end of cells that have memory, where
    /// data starts and is open up to, pages in use, dirty ones, and cells in use, a word of bits for
    /// each page of them; and the map.
    pub const FIELDS: [usize; 8] = places!(Chunk:
        header.next, header.cells_open, header.data, header.open, header.used, header.dirty,
        header.used_cells;
        MAP_OFFSET);

    /// Makes a chunk at `at`, see `Header::lay_out`.
    ///
    /// # Safety
    /// [at, at + cells_open) is zero and writable, `at` is a multiple of `CHUNK`, nobody else knows
    /// of it, and its header and map stay readable for ever once its window is entered.
    pub unsafe fn create(at: *mut u8, cells_open: usize, data: [usize; 3]) -> &'static Chunk {
        // SAFETY: zero bytes are a valid header, and the caller gives the memory.
        let chunk = unsafe { &*at.cast::<Chunk>() };
        chunk.pseudo.init_pseudo();
        chunk.header.lay_out(cells_open, data);
        chunk
    }

    /// The chunk whose window `address` lies in.
    ///
    /// # Safety
    /// There is a chunk.
    pub unsafe fn around(address: usize) -> &'static Chunk {
        let start = ptr::with_exposed_provenance::<Chunk>(address & !(CHUNK - 1));
        // SAFETY: the caller says that a chunk starts there, and headers stay.
        unsafe { &*start }
    }

    /// The chunk that a cell lies in.
    pub fn of<T: InCell>(cell: &'static T) -> &'static Chunk {
        // SAFETY: what is `InCell` lies in a cell, and cells lie in chunks.
        unsafe { Chunk::around(ptr::from_ref(cell).expose_provenance()) }
    }

    /// What the lock protects.
    pub fn header(&'static self, _: &Held) -> &'static Header {
        &self.header
    }

    /// Address of the chunk's first byte.
    pub fn address(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    /// The byte at an offset.
    pub fn at(&self, offset: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.address() + offset)
    }

    /// The map's entries of `granules` granules from `first` on.
    #[inline(always)]
    fn entries(&self, first: usize, granules: usize) -> &'static [AtomicU16] {
        debug_assert!(first + granules <= GRANULES);
        let at = ptr::with_exposed_provenance(self.address() + MAP_OFFSET + first * 2);
        // SAFETY: the map has an entry for each granule, and can be read for ever.
        unsafe { core::slice::from_raw_parts(at, granules) }
    }

    /// The number of the cell that the map gives for a granule; 0 for none.
    pub fn cell_at(&self, granule: usize) -> u16 {
        self.entry(granule) as u16
    }

    /// What the map has for a granule, widened to 32 bits, as the load leaves it.
    #[inline(always)]
    fn entry(&self, granule: usize) -> u32 {
        debug_assert!(granule < GRANULES);
        // Relaxed: a live block's pointer came here by the program's own synchronisation, which
        // orders the entry too; any other pointer is rejected by what the cell says.
        // SAFETY: the map has an entry for each granule, and can be read for ever.
        unsafe { read_pair::<MAP_OFFSET>(self.address(), granule) as u32 }
    }

    /// Cell number `number` as the state of a group.
    pub fn cell(&self, number: impl Into<u32>) -> &'static Group {
        let cell = self.address() + (number.into() * CELL as u32) as usize;
        // SAFETY: numbers are made by `number_of`, or 0, the pseudo-group's. All of a state is
        // atomic. Its memory stays at least until no entry leads to it; only a pointer whose block
        // another thread frees at this moment, which is misuse, may come later and fault.
        unsafe { &*ptr::with_exposed_provenance(cell) }
    }

    /// The group at `address`, which lies in this chunk's window, or the pseudo-group.
    pub fn group_at(&self, address: usize) -> &'static Group {
        self.cell(self.entry(address % CHUNK / GRANULE))
    }

    /// Number of a cell in its chunk.
    pub fn number_of<T: InCell>(cell: &T) -> u16 {
        (ptr::from_ref(cell).addr() % CHUNK / CELL) as u16
    }

    /// Lets the map lead from `granules` granules, which are the caller's, from `first` on to a
    /// cell, or, with 0, nowhere.
    pub fn enter(&self, first: usize, granules: usize, cell: u16) {
        for entry in self.entries(first, granules) {
            // Relaxed: see `cell_at`.
            entry.store(cell, Relaxed);
        }
    }

    /// The span around a granule, if there is one.
    pub fn span_at(&self, granule: usize) -> Option<&'static Span> {
        // Relaxed: who asks owns the span, or holds the lock.
        let cell = self.spans[granule / 64].load(Relaxed);
        let span = ptr::with_exposed_provenance::<Span>(self.address() + cell as usize * CELL);
        // SAFETY: `enter_span` had the span in hand, and is called again before its cell goes.
        (cell != 0).then(|| unsafe { &*span })
    }

    /// Enters the span around a granule, or None. The caller holds the lock.
    pub fn enter_span(&self, granule: usize, span: Option<&'static Span>) {
        self.spans[granule / 64].store(span.map_or(0, Chunk::number_of), Relaxed);
    }

    /// A cell that has memory, if there is one.
    pub fn take_open_cell(&'static self, held: &Held) -> Option<&'static Group> {
        let header = self.header(held);
        if header.are_cells_out() {
            return None;
        }
        let number = header
            .used_cells
            .seek(header.first_free.get() as usize, false);
        header.used_cells.set(number, 1, true);
        header.dirty_cells.set(number * CELL / RUN_PAGE, 1, true);
        header.first_free.set(number as u32 + 1);
        header.cells.set(header.cells.get() + 1);
        Some(self.cell(number as u16))
    }

    /// Gives a cell back, which nobody uses any more.
    pub fn return_cell(cell: &'static Group, held: &Held) {
        let header = Chunk::of(cell).header(held);
        cell.clear();
        let number = Chunk::number_of(cell) as usize;
        header.used_cells.set(number, 1, false);
        header
            .first_free
            .set(header.first_free.get().min(number as u32));
        header.cells.set(header.cells.get() - 1);
    }

    /// Clears the cells that have memory up to offset `end`, none of them in use.
    pub fn clear_cells(&self, end: usize) {
        for number in HEADER_CELLS..HEADER_CELLS + FIRST_CELLS {
            self.cell(number as u32).clear();
        }
        for number in MORE_CELLS..end / CELL {
            self.cell(number as u32).clear();
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(MAP_OFFSET < RUN_PAGE, "the map starts in the header's page");
    assert!(CELLS_END < CHUNK / 4);
    assert!(CELL == size_of::<Group>());
    assert!(CELLS_END <= CELL_PAGES * RUN_PAGE);
    assert!(RUN_PAGE == 64 * CELL, "a word of cells is a page");
};
