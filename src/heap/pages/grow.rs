//! Chunks come from the system, grow in their places, and give back what they no longer use.
//!
//! A chunk is a window of addresses behind the program break, where nobody else maps unasked. Of it
//! only what is used has memory: header, map, and a first page of cells at its start, more cells
//! behind these, data further up. Each grows by mappings that are wished for right behind it. So
//! nothing is reserved, and no protection is ever changed. Where the system gives no place there,
//! chunks are mapped as a whole; where it maps nothing at all, the break itself moves.
//!
//! **Where the pagemap says that a chunk is, a header and a map can be read, for ever.** free and
//! its like look there without a lock, for any pointer; and it may be that of a live large block,
//! whose mapping shares the window with a chunk that another thread closes at this moment. The map
//! of a closed chunk is all zero: each entry leads to the header's pseudo-group. Cells behind the
//! map go with the data, since only other entries lead to them, and each such entry keeps the chunk
//! open.

use crate::base::config::{CHUNK, RUN_PAGE, SPAN};
use crate::base::platform::Platform;
use crate::layout::bitmap::PAGES;
use crate::layout::chunk::{Chunk, CELL, CELLS_END, MAP_END};
use crate::layout::group::Group;
use crate::layout::kind::Kind;
use crate::layout::pagemap::Leaf;
use crate::pages::page_heap::Pages;
use crate::pages::place::shut;
use core::ptr::{self, NonNull};

/// Bytes by which data grows at least.
const LEAST_STEP: usize = 2 * SPAN;
/// Data grows by this part of what the process uses, if that is more.
const STEP_SHARE: usize = 8;
/// Cells grow by this part of a step.
const CELLS_SHARE: usize = 16;

impl<P: Platform> Pages<'_, P> {
    /// A new chunk of a kind with room for a run of `pages` at a multiple of `align`. If the system
    /// just refused memory for the others it has none for a mapping, but the break may still move.
    pub fn make_chunk(&mut self, kind: Kind, pages: usize, align: usize) -> Option<&'static Chunk> {
        let page = self.platform().page_size();
        let data = (CELLS_END.next_multiple_of(page) + page).next_multiple_of(SPAN);
        let need = (data + pages * RUN_PAGE).next_multiple_of(align * RUN_PAGE)
            + if align > 1 { pages * RUN_PAGE } else { 0 };
        if need > CHUNK - page {
            return None;
        }
        let mut made = None;
        if !self.no_memory {
            made = self.chunk_behind_break(data);
        }
        if made.is_none() && !self.no_memory {
            made = self.chunk_elsewhere(data, need);
        }
        let chunk = made.or_else(|| self.chunk_from_break(data, need))?;
        self.sequence += 1;
        self.header(chunk).sequence.set(self.sequence);
        self.header(chunk).kind.set(kind);
        match self.last.replace(chunk) {
            Some(last) => self.header(last).next.set(Some(chunk)),
            None => self.chunks = Some(chunk),
        }
        for roomy in self.roomy.iter_mut().filter(|roomy| roomy.is_none()) {
            *roomy = Some(chunk);
        }
        Some(chunk)
    }

    /// A chunk that grows, without data so far.
    fn chunk_behind_break(&mut self, data: usize) -> Option<&'static Chunk> {
        let page = self.platform().page_size();
        let cells = MAP_END.next_multiple_of(page);
        let at = self.map_window(cells)?;
        // SAFETY: `place` gave new memory at a window's start; it is never unmapped, see `close`.
        let chunk = unsafe { Chunk::create(at, cells, [data, data, CHUNK - page]) };
        self.enter(chunk)
    }

    /// A chunk where the system has room, mapped as a whole: what comes there later leaves it none
    /// to grow.
    fn chunk_elsewhere(&mut self, data: usize, need: usize) -> Option<&'static Chunk> {
        let page = self.platform().page_size();
        for len in [CHUNK - page, CHUNK / 4, need.next_multiple_of(page)] {
            if len < need {
                continue;
            }
            if let Some(at) = self.map_elsewhere(len, CHUNK) {
                at.expose_provenance();
                return self.enter_lasting(at, [data, len, len]);
            }
        }
        None
    }

    /// A chunk on the program break: the last resort.
    fn chunk_from_break(&mut self, data: usize, need: usize) -> Option<&'static Chunk> {
        let page = self.platform().page_size();
        let now = self.platform().program_break();
        if now == 0 {
            return None;
        }
        let start = now.checked_next_multiple_of(CHUNK)?;
        let open = need.next_multiple_of(page);
        if !self.platform().move_break(start.checked_add(open)?) {
            return None;
        }
        let at = ptr::with_exposed_provenance_mut(start);
        self.enter_lasting(at, [data, open, CHUNK - page])
    }

    /// Makes a chunk of [at, at + open), which is new, all zero, ours, and stays for ever.
    fn enter_lasting(&mut self, at: *mut u8, data: [usize; 3]) -> Option<&'static Chunk> {
        let page = self.platform().page_size();
        shut(self.platform(), at.wrapping_add(data[0] - page), page);
        // SAFETY: both callers just got the memory from the system, and it stays.
        let chunk = unsafe { Chunk::create(at, CELLS_END, data) };
        self.header(chunk).stays.set(true);
        self.enter(chunk)
    }

    /// Enters a new chunk's window: from now on its map is looked at. Without memory for a leaf of
    /// the pagemap, the first chunk of a far region becomes such memory.
    fn enter(&mut self, chunk: &'static Chunk) -> Option<&'static Chunk> {
        let system = self.system;
        let leaf = || self.metadata(size_of::<Leaf>(), CELL);
        if system.pagemap.enter(chunk.address(), leaf) {
            return Some(chunk);
        }
        let len = self.header(chunk).cells_open.get() as usize;
        self.pool = chunk.at(0);
        self.pool_left = len;
        // SAFETY: nobody knows of the chunk; without its header its cells are zero.
        unsafe { self.pool.write_bytes(0, size_of::<Chunk>()) };
        None
    }

    /// By how much data should grow. More than is asked for costs no memory but in a process that
    /// locks all of its own; a part of what is used bounds the calls.
    fn step(&self) -> usize {
        (self.used_pages * RUN_PAGE / STEP_SHARE).max(LEAST_STEP)
    }

    /// Maps memory at `at`, where nothing is: `generous` bytes, or at least `least`. How many; 0 as
    /// in `map_at`.
    fn extend(&mut self, at: usize, [generous, least]: [usize; 2]) -> usize {
        let mut lengths = [generous, least].into_iter();
        lengths.find(|&len| self.map_at(at, len)).unwrap_or(0)
    }

    /// Makes data of a chunk up to offset `end`, at most its limit, usable. False: what is behind
    /// is somebody else's, or, as `no_memory` tells then, the system has no more.
    pub fn open(&mut self, chunk: &'static Chunk, end: usize) -> bool {
        let page = self.platform().page_size();
        let header = self.header(chunk);
        let (open, stays) = (header.open.get() as usize, header.stays.get());
        let at = chunk.address() + open;
        let least = end.next_multiple_of(page) - open;
        let most = header.limit.get() as usize - open;
        let generous = self.step().next_multiple_of(page).clamp(least, most);
        let mut len = 0;
        if !stays {
            len = self.extend(at, [generous, least]);
        } else if self.platform().program_break() == at {
            let moves = |len: &usize| self.platform().move_break(at + len);
            len = [generous, least].into_iter().find(moves).unwrap_or(0);
        }
        header.open.set((open + len) as u32);
        if len == 0 && (stays || !self.no_memory) {
            header.end_here();
        }
        len != 0
    }

    /// A cell of this chunk, clear but for `next`.
    pub fn take_cell(&mut self, chunk: &'static Chunk) -> Option<&'static Group> {
        if self.header(chunk).are_cells_out() {
            self.open_cells(chunk);
        }
        chunk.take_open_cell(&self.held)
    }

    /// Gives more cells memory.
    #[cold]
    fn open_cells(&mut self, chunk: &'static Chunk) {
        let page = self.platform().page_size();
        let header = self.header(chunk);
        if header.cells == header.most_cells {
            return;
        }
        let open = header.cells_open.get() as usize;
        let most = CELLS_END.next_multiple_of(page) - open;
        let generous = (self.step() / CELLS_SHARE).next_multiple_of(page).min(most);
        let len = self.extend(chunk.address() + open, [generous, page]);
        header.cells_open.set((open + len) as u32);
        if len == 0 && !self.no_memory {
            header.most_cells.set(header.cells.get());
        }
    }

    /// Takes the memory of a chunk away, header and map aside, of which no cell and no run is in
    /// use, and which does not stay. False: the system refused, it stays in use.
    pub fn close(&mut self, chunk: &'static Chunk) -> bool {
        let page = self.platform().page_size();
        let first = MAP_END.next_multiple_of(page);
        let header = self.header(chunk);
        let (data, open) = (header.data.get() as usize, header.open.get() as usize);
        let mut cells = header.cells_open.get() as usize;
        let unmap = |from: usize, to: usize| {
            let at = NonNull::new(chunk.at(from));
            // SAFETY: nothing uses the chunk, and no map entry leads to what goes.
            at.is_some_and(|at| unsafe { self.platform().unmap(at, to - from) })
        };
        if open > data && !unmap(data, open) {
            return false;
        }
        if cells > first && unmap(first, cells) {
            cells = first;
        }
        let dirty = header.dirty.set(0, PAGES, false);
        chunk.clear_cells(cells);
        // The map is zero before and after its pages go.
        if let Some(map) = NonNull::new(chunk.at(page)).filter(|_| first > page) {
            // SAFETY: of these pages only the map and cells that nobody uses were in use, all zero.
            unsafe { self.platform().purge(map, first - page) };
        }
        header.lay_out(cells, [data, data, CHUNK - page]);
        self.forget_dirty(dirty);
        // Cells that the system refused to take are memory to give back later.
        self.idle_chunks -= !self.is_idle(chunk) as usize;
        self.found_room(chunk, PAGES);
        true
    }
}
