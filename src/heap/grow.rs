//! Chunks come from the system, grow in their places, and give back what they no longer use.
//!
//! A chunk is a window of addresses behind the program break, where nobody else maps unasked. Of it
//! only what is used has memory: header, map, and a first page of metas at its start, more metas
//! behind these, data further up. Each grows by mappings that are wished for right behind it. So
//! nothing is reserved, and no protection is ever changed. Where the system gives no place there,
//! chunks are mapped as a whole; where it maps nothing at all, the break itself moves.
//!
//! **Where the windows say that a chunk is, a header and a map can be read, for ever.** free and its
//! like look there without a lock, for any pointer; and it may be that of a live large block, whose
//! mapping shares the window with a chunk that another thread closes at this moment. The map of a
//! closed chunk is all zero: each entry leads to the header's pseudo-meta. Cells behind the map go
//! with the data, since only other entries lead to them, and each such entry keeps the chunk open.

use crate::chunk::{self, Chunk, CELL, MAP_END, META_END, PAGES};
use crate::config::{CHUNK, NEST, RUN_PAGE};
use crate::meta::Meta;
use crate::pages::Platform;
use crate::provider::Locked;
use crate::windows::Leaf;
use core::ptr::{self, NonNull};

/// Bytes by which data grows at least.
const LEAST_STEP: usize = 2 * NEST;
/// Data grows by this part of what the process uses, if that is more.
const STEP_SHARE: usize = 8;
/// Metas grow by this part of a step.
const META_SHARE: usize = 16;

/// Windows that are tried for a chunk, each four times as far away as the last one.
const TRIES: usize = 4;

/// No window behind the break is fit for a chunk.
const NOWHERE: usize = usize::MAX;

impl<P: Platform> Locked<'_, P> {
    /// A new chunk with room for a run of `pages`. If the system just refused memory for the others
    /// it has none for a mapping, but the break may still move.
    pub fn make_chunk(&mut self, pages: usize, align: usize) -> Option<*mut Chunk> {
        let page = self.process.platform.page_size();
        let data = (META_END.next_multiple_of(page) + page).next_multiple_of(NEST);
        let need = (data + pages * RUN_PAGE).next_multiple_of(align * RUN_PAGE)
            + if align > 1 { pages * RUN_PAGE } else { 0 };
        if need > CHUNK - page {
            return None;
        }
        let mut made = None;
        if !self.provider.refused {
            made = self.chunk_behind_break(data);
        }
        if made.is_none() && !self.provider.refused {
            made = self.chunk_elsewhere(data, need);
        }
        let chunk = made.or_else(|| self.chunk_from_break(data, need))?;
        let provider = &mut *self.provider;
        provider.sequence += 1;
        // SAFETY: the chunk is new and ours; `last` is null or in the list.
        unsafe {
            (*chunk).sequence = provider.sequence;
            if provider.last.is_null() {
                provider.chunks = chunk;
            } else {
                (*provider.last).next = chunk;
            }
        }
        provider.last = chunk;
        for roomy in provider.roomy.iter_mut().filter(|roomy| roomy.is_null()) {
            *roomy = chunk;
        }
        Some(chunk)
    }

    /// A chunk that grows, without data so far.
    fn chunk_behind_break(&mut self, data: usize) -> Option<*mut Chunk> {
        let page = self.process.platform.page_size();
        let metas = MAP_END.next_multiple_of(page);
        let at = self.place(metas)?;
        // SAFETY: new memory, ours.
        unsafe {
            let chunk = Chunk::create(at, metas, [data, data, CHUNK - page]);
            self.enter(chunk)
        }
    }

    /// `len` bytes at the start of a new window.
    fn place(&mut self, len: usize) -> Option<*mut u8> {
        let mut way = CHUNK;
        for _ in 0..TRIES {
            let at = self.next_window();
            if at == NOWHERE {
                break;
            }
            if self.map_at(at, len) {
                self.provider.next_window = at.wrapping_add(CHUNK);
                return Some(ptr::with_exposed_provenance_mut(at));
            }
            if self.provider.refused {
                break;
            }
            self.provider.next_window = at.wrapping_add(way);
            way *= 4;
        }
        None
    }

    /// Where the next window is. The first one leaves the break room: somebody else may move it, or
    /// we do. Under the stack, where programs that are debugged may have their break, there is none.
    fn next_window(&mut self) -> usize {
        if self.provider.next_window == 0 {
            let platform = &self.process.platform;
            let (now, here) = (platform.program_break(), (&raw const platform).addr());
            let first = (now.wrapping_add(P::BREAK_ROOM) | (CHUNK - 1)).wrapping_add(1);
            let fit = now != 0 && here.wrapping_sub(first) > CHUNK << 8;
            self.provider.next_window = if fit { first } else { NOWHERE };
        }
        self.provider.next_window
    }

    /// Maps `len` bytes of memory at `at`, where nothing is. False: somebody is there, or, as
    /// `refused` tells then, the system has no more.
    fn map_at(&mut self, at: usize, len: usize) -> bool {
        self.provider.refused = !self.may_owe(1);
        if self.provider.refused {
            return false;
        }
        let Some(got) = (self.process.platform).map(at, len) else {
            self.provider.refused = true;
            return false;
        };
        let there = got.addr().get() == at;
        if !there {
            // SAFETY: just mapped, and unused.
            unsafe { self.give_back(got, len) };
        }
        there
    }

    /// Maps memory at `at`, where nothing is: `generous` bytes, or at least `least`. How many; 0 as
    /// in `map_at`.
    fn extend(&mut self, at: usize, generous: usize, least: usize) -> usize {
        if self.map_at(at, generous) {
            generous
        } else if self.map_at(at, least) {
            least
        } else {
            0
        }
    }

    /// `len` bytes where the system has room, at a multiple of `align`, between inaccessible pages.
    fn map_elsewhere(&mut self, len: usize, align: usize) -> Option<*mut u8> {
        let page = self.process.platform.page_size();
        let at = self.map_aligned(len + 2 * page, align, page)?;
        let inside = at.as_ptr().wrapping_add(page);
        self.shut(at.as_ptr());
        self.shut(inside.wrapping_add(len));
        Some(inside)
    }

    /// Makes a page of ours inaccessible. If that is refused, what lies around it works all the same.
    fn shut(&mut self, at: *mut u8) {
        let platform = &self.process.platform;
        // SAFETY: nobody uses the page, which is in a mapping of ours.
        unsafe {
            platform.close(NonNull::new_unchecked(at), platform.page_size());
        }
    }

    /// A chunk where the system has room, mapped as a whole: what comes there later leaves it none
    /// to grow.
    fn chunk_elsewhere(&mut self, data: usize, need: usize) -> Option<*mut Chunk> {
        let page = self.process.platform.page_size();
        for span in [CHUNK - page, CHUNK / 4, need.next_multiple_of(page)] {
            if span < need {
                continue;
            }
            if let Some(at) = self.map_elsewhere(span, CHUNK) {
                self.shut(at.wrapping_add(data - page));
                // SAFETY: the mapping is ours.
                unsafe {
                    let chunk = Chunk::create(at, META_END, [data, span, span]);
                    (*chunk).stays = true;
                    return self.enter(chunk);
                }
            }
        }
        None
    }

    /// A chunk on the program break: the last resort.
    fn chunk_from_break(&mut self, data: usize, need: usize) -> Option<*mut Chunk> {
        let platform = &self.process.platform;
        let page = platform.page_size();
        let now = platform.program_break();
        if now == 0 {
            return None;
        }
        let start = now.checked_next_multiple_of(CHUNK)?;
        let open = need.next_multiple_of(page);
        if !platform.move_break(start.checked_add(open)?) {
            return None;
        }
        let at = ptr::with_exposed_provenance_mut::<u8>(start);
        self.shut(at.wrapping_add(data - page));
        // SAFETY: the kernel just gave us [start, start + open), all zero.
        unsafe {
            let chunk = Chunk::create(at, META_END, [data, open, CHUNK - page]);
            (*chunk).stays = true;
            self.enter(chunk)
        }
    }

    /// Enters a new chunk's window: from now on its map is looked at. Without memory for a leaf,
    /// the first chunk of a far region becomes such memory.
    ///
    /// # Safety
    /// The chunk is new and ours.
    unsafe fn enter(&mut self, chunk: *mut Chunk) -> Option<*mut Chunk> {
        let windows = &self.process.windows;
        if windows.enter(chunk.addr(), || self.metadata(size_of::<Leaf>())) {
            return Some(chunk);
        }
        // SAFETY: nobody knows of it; without its header its metas are zero.
        unsafe {
            self.provider.pool_left = (*chunk).metas as usize;
            chunk.write_bytes(0, 1);
        }
        self.provider.pool = chunk.cast();
        None
    }

    /// By how much data should grow. More than is asked for costs no memory but in a process that
    /// locks all of its own; a part of what is used bounds the calls.
    fn step(&self) -> usize {
        (self.provider.used_pages * RUN_PAGE / STEP_SHARE).max(LEAST_STEP)
    }

    /// Makes data up to offset `end` usable. False: what is behind is somebody else's, or, as
    /// `refused` tells then, the system has no more.
    ///
    /// # Safety
    /// `chunk` is in the list, `end` at most its limit.
    pub(crate) unsafe fn open(&mut self, chunk: *mut Chunk, end: usize) -> bool {
        let page = self.process.platform.page_size();
        // SAFETY: the lock makes the header ours.
        let header = unsafe { &mut *chunk };
        let (at, open) = (chunk.addr() + header.open as usize, header.open as usize);
        let least = end.next_multiple_of(page) - open;
        let most = header.limit as usize - open;
        let generous = self.step().next_multiple_of(page).clamp(least, most);
        let mut len = 0;
        if !header.stays {
            len = self.extend(at, generous, least);
        } else if self.process.platform.program_break() == at {
            let moves = |len: &usize| self.process.platform.move_break(at + len);
            len = [generous, least].into_iter().find(moves).unwrap_or(0);
        }
        header.open += len as u32;
        if len == 0 && (header.stays || !self.provider.refused) {
            header.end_here();
        }
        len != 0
    }

    /// A cell for a meta or a nest in this chunk, zero but for `next`.
    ///
    /// # Safety
    /// `chunk` is in the list.
    pub unsafe fn take_cell(&mut self, chunk: *mut Chunk) -> Option<*mut Meta> {
        // SAFETY: the lock makes the header ours.
        unsafe {
            if (*chunk).cells as usize == (*chunk).open_cells() {
                self.open_metas(chunk);
            }
            Chunk::take_open_cell(chunk)
        }
    }

    /// Gives more metas memory.
    ///
    /// # Safety
    /// `chunk` is in the list.
    #[cold]
    unsafe fn open_metas(&mut self, chunk: *mut Chunk) {
        let page = self.process.platform.page_size();
        // SAFETY: the lock makes the header ours.
        let header = unsafe { &mut *chunk };
        if header.cells == header.most_cells {
            return;
        }
        let metas = header.metas as usize;
        let most = META_END.next_multiple_of(page) - metas;
        let generous = (self.step() / META_SHARE).next_multiple_of(page).min(most);
        let len = self.extend(chunk.addr() + metas, generous, page);
        header.metas += len as u32;
        if len == 0 && !self.provider.refused {
            header.most_cells = header.cells;
        }
    }

    /// Takes the memory of an unused chunk away, header and map aside. False: the system refused,
    /// it stays in use.
    ///
    /// # Safety
    /// No cell and no run of the chunk is in use, and it does not stay.
    pub(crate) unsafe fn close(&mut self, chunk: *mut Chunk) -> bool {
        let platform = &self.process.platform;
        let page = platform.page_size();
        let first = MAP_END.next_multiple_of(page);
        // SAFETY: nothing uses what goes. No map leads to the cells that are cleared.
        unsafe {
            let header = &mut *chunk;
            let (data, open) = (header.data as usize, header.open as usize);
            let at = |offset| NonNull::new_unchecked(chunk.cast::<u8>().add(offset));
            if open > data && !platform.unmap(at(data), open - data) {
                return false;
            }
            let mut metas = header.metas as usize;
            if metas > first && platform.unmap(at(first), metas - first) {
                metas = first;
            }
            let dirty = chunk::set(&mut header.dirty, 0, PAGES, false);
            Chunk::clear_cells(chunk, metas);
            // The map is zero before and after its pages go.
            if first > page {
                platform.purge(at(page), first - page);
            }
            header.lay_out(metas, [data, data, CHUNK - page]);
            self.forget_dirty(dirty);
            self.provider.idle_chunks -= 1;
            self.found_room(chunk);
        }
        true
    }

    /// `bytes` of zero memory for ever, at a cache line's start, in windows of their own: for heaps
    /// and their tables, which no overflow of a block should reach.
    pub fn metadata(&mut self, bytes: usize) -> Option<*mut u8> {
        let bytes = bytes.next_multiple_of(CELL);
        let page = self.process.platform.page_size();
        if self.provider.pool_left < bytes {
            let end = self.provider.pool.addr() + self.provider.pool_left;
            let mut more = (bytes - self.provider.pool_left).next_multiple_of(page);
            if end % CHUNK == 0 || !self.map_at(end, more) {
                more = bytes.next_multiple_of(page);
                self.provider.refused = false;
                let pool = self.place(more);
                self.provider.pool = pool.or_else(|| self.map_elsewhere(more, page))?;
                self.provider.pool_left = 0;
            }
            self.provider.pool_left += more;
        }
        let at = self.provider.pool;
        self.provider.pool = at.wrapping_add(bytes);
        self.provider.pool_left -= bytes;
        Some(at)
    }

    /// Maps `len` bytes of which the one at `lead` (whole pages) lies at a multiple of `align`, by
    /// mapping more and giving the ends back.
    pub fn map_aligned(&mut self, len: usize, align: usize, lead: usize) -> Option<NonNull<u8>> {
        let platform = &self.process.platform;
        let page_size = platform.page_size();
        debug_assert!(lead % page_size == 0);
        if align <= page_size {
            return platform.map(0, len);
        }
        if !self.may_owe(2) {
            return None;
        }
        let platform = &self.process.platform;
        let total = len.checked_add(align - page_size)?;
        if total > isize::MAX as usize {
            return None;
        }
        let at = platform.map(0, total)?;
        let first = at.addr().get() + lead;
        let head = first.next_multiple_of(align) - first;
        let rest = total - head - len;
        // SAFETY: the parts are within the mapping just made and unused.
        unsafe {
            let middle = at.add(head);
            if head != 0 {
                self.give_back(at, head);
            }
            if rest != 0 {
                self.give_back(middle.add(len), rest);
            }
            Some(middle)
        }
    }
}
