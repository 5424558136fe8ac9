//! Runs of pages, under the one lock: chunks from the system, runs from chunks, dirty pages back.

use crate::chunk::{self, each_run, find_clear, Chunk, MAP_END, PAGES};
use crate::config::{CHUNK, DIRTY_MOST, DIRTY_PAGES, DIRTY_SHIFT, GRANULE, RUN_PAGE};
use crate::heap::Heap;
use crate::large::Large;
use crate::meta::Meta;
use crate::pages::{Pace, Platform};
use crate::parking::Parked;
use crate::process::Process;
use crate::zero::Region;
use core::ptr::{self, NonNull};

/// Lengths of runs, in run pages, for which the provider remembers where to start; longer ones
/// count as the last.
const ROOMY: usize = 33;

/// Unused mappings that are remembered when the system refuses to take them back.
const OWED: usize = 8;

/// What the provider lock protects.
pub struct Provider {
    /// Chunks in the order of their making.
    pub chunks: *mut Chunk,
    pub(crate) last: *mut Chunk,
    /// By a number of pages: no chunk before this one has a free run of as many. None comes before
    /// that of a lesser number.
    pub(crate) roomy: [*mut Chunk; ROOMY],
    pub(crate) sequence: usize,
    /// Chunks that have memory without any use but header and map, and could give it back.
    pub(crate) idle_chunks: usize,
    /// Run pages in use.
    pub used_pages: usize,
    /// Free run pages that are not zero.
    pub dirty_pages: usize,
    /// Those that the system would not take back last time, or that share its pages.
    pub(crate) kept_pages: usize,
    /// When they were given back last.
    pace: Pace,
    /// The fewest of them since `settle` looked last.
    pub(crate) least_dirty: usize,
    /// When that was.
    pub(crate) settled: u32,
    /// Unused mappings that the system refused to take back (start, length), and their number.
    owed: [(usize, usize); OWED],
    owed_count: usize,
    /// Whether the system had no memory for the last mapping, see `map_at`.
    pub(crate) refused: bool,
    /// Where the next chunk may go, see `next_window`; 0 before the first.
    pub(crate) next_window: usize,
    /// Memory for heaps and their tables, see `metadata`.
    pub(crate) pool: *mut u8,
    pub(crate) pool_left: usize,
    /// Heaps made so far; also the highest number of a heap.
    pub heaps: usize,
    /// Heaps without a thread.
    pub parked: Parked<Heap>,
    /// Whether heaps that a fork left behind may hold groups without a block, see `fork.rs`.
    pub abandoned: bool,
    /// Number of the dead heap that takes over what others have; 0 unless `bury` is at work.
    pub(crate) heir: u16,
    /// Blocks with mappings of their own.
    pub large: Large,
    /// Addresses of blocks of no bytes, hardened preset only.
    pub zero: *mut Region,
}

/// A run of pages in a chunk.
#[derive(Clone, Copy)]
pub struct Run {
    /// The chunk.
    pub chunk: *mut Chunk,
    /// First run page in the chunk.
    pub page: usize,
    /// Number of run pages.
    pub pages: usize,
    /// Whether all bytes are zero.
    pub fresh: bool,
}

impl Run {
    /// First granule in the chunk.
    pub fn granule(&self) -> usize {
        self.page * (RUN_PAGE / GRANULE)
    }
}

impl Provider {
    /// Nothing yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Provider {
            chunks: ptr::null_mut(),
            last: ptr::null_mut(),
            roomy: [ptr::null_mut(); ROOMY],
            sequence: 0,
            idle_chunks: 0,
            used_pages: 0,
            dirty_pages: 0,
            kept_pages: 0,
            pace: Pace::NEW,
            least_dirty: 0,
            settled: 0,
            owed: [(0, 0); OWED],
            owed_count: 0,
            refused: false,
            next_window: 0,
            pool: ptr::null_mut(),
            pool_left: 0,
            heaps: 0,
            parked: Parked::new(),
            abandoned: false,
            heir: 0,
            large: Large::new(),
            zero: ptr::null_mut(),
        }
    }
}

/// The provider while its lock is held.
pub struct Locked<'a, P: Platform> {
    /// The process around it.
    pub process: &'a Process<P>,
    /// What the lock protects.
    pub provider: &'a mut Provider,
}

impl<P: Platform> Drop for Locked<'_, P> {
    fn drop(&mut self) {
        self.process.platform.unlock();
    }
}

impl<P: Platform> Locked<'_, P> {
    /// A run of `pages` run pages that starts at a multiple of `align` of them.
    pub fn take_run(&mut self, pages: usize, align: usize) -> Option<Run> {
        let mut run = self.take_free_run(pages, align);
        if run.is_none() && self.release_all_abandoned() {
            run = self.take_free_run(pages, align);
        }
        if run.is_some() {
            return run;
        }
        let chunk = self.make_chunk(pages, align)?;
        // SAFETY: just made.
        unsafe { self.take_run_in(chunk, pages, align) }
    }

    /// The same in the chunks that there are.
    fn take_free_run(&mut self, pages: usize, align: usize) -> Option<Run> {
        self.provider.refused = false;
        let size = pages.min(ROOMY - 1);
        let mut chunk = self.provider.roomy[size];
        while !chunk.is_null() {
            // SAFETY: chunks in the list exist; the lock makes their headers ours.
            unsafe {
                // Where there is no memory, a chunk that has none is not asked.
                let asked = !self.provider.refused || (*chunk).open > (*chunk).data;
                if asked && (*chunk).longest as usize >= pages && (*chunk).has_cells() {
                    if let Some(run) = self.take_run_in(chunk, pages, align) {
                        return Some(run);
                    }
                }
                if chunk == self.provider.roomy[size] && ((*chunk).longest as usize) < size {
                    for roomy in &mut self.provider.roomy[size..] {
                        if *roomy == chunk {
                            *roomy = (*chunk).next;
                        }
                    }
                }
                chunk = (*chunk).next;
            }
        }
        None
    }

    /// The same in one chunk.
    ///
    /// # Safety
    /// `chunk` is in the list.
    unsafe fn take_run_in(&mut self, chunk: *mut Chunk, pages: usize, align: usize) -> Option<Run> {
        // SAFETY: the lock makes the header ours.
        let header = unsafe { &mut *chunk };
        let idle = self.is_idle(header);
        let page = match find_clear(&header.used, pages, align) {
            Ok(page) => page,
            Err(longest) => {
                header.longest = longest as u32;
                return None;
            }
        };
        let end = (page + pages) * RUN_PAGE;
        // SAFETY: as above.
        if end > header.open as usize && !unsafe { self.open(chunk, end) } {
            return None;
        }
        self.provider.idle_chunks -= idle as usize;
        chunk::set(&mut header.used, page, pages, true);
        let dirty = chunk::set(&mut header.dirty, page, pages, false);
        header.used_pages += pages as u32;
        self.provider.used_pages += pages;
        self.forget_dirty(dirty);
        Some(Run {
            chunk,
            page,
            pages,
            fresh: dirty == 0,
        })
    }

    /// So many dirty pages are in use or gone.
    pub(crate) fn forget_dirty(&mut self, pages: usize) {
        let provider = &mut *self.provider;
        provider.dirty_pages -= pages;
        provider.kept_pages = provider.kept_pages.min(provider.dirty_pages);
        provider.least_dirty = provider.least_dirty.min(provider.dirty_pages);
    }

    /// Gives a run back; its pages are dirty.
    ///
    /// # Safety
    /// The run came from `take_run`, and nothing uses it any more.
    pub unsafe fn return_run(&mut self, run: Run) {
        // SAFETY: by contract.
        let header = unsafe { &mut *run.chunk };
        chunk::set(&mut header.used, run.page, run.pages, false);
        chunk::set(&mut header.dirty, run.page, run.pages, true);
        header.used_pages -= run.pages as u32;
        header.longest = PAGES as u32;
        self.provider.used_pages -= run.pages;
        self.provider.dirty_pages += run.pages;
        // SAFETY: the run's chunk is in the list.
        unsafe { self.found_room(run.chunk) };
        self.purge_if_due();
    }

    /// A chunk has a longer free run than before.
    ///
    /// # Safety
    /// The chunk is in the list.
    pub(crate) unsafe fn found_room(&mut self, chunk: *mut Chunk) {
        for roomy in self.provider.roomy.iter_mut().rev() {
            // SAFETY: both are in the list, or roomy is null; the lock makes their headers ours.
            if !roomy.is_null() && unsafe { (**roomy).sequence <= (*chunk).sequence } {
                // Nor are those of shorter runs later ones.
                break;
            }
            *roomy = chunk;
        }
    }

    /// Gives dirty free pages back if they are too many, and it is time or they are far too many:
    /// a program may free all that it has in less than the time between two purges, and never
    /// return a run again.
    pub(crate) fn purge_if_due(&mut self) {
        let provider = &mut *self.provider;
        let may_wait = DIRTY_PAGES + (provider.used_pages >> DIRTY_SHIFT);
        let dirty = provider.dirty_pages - provider.kept_pages.min(provider.dirty_pages);
        let far_too_many = may_wait + DIRTY_MOST + provider.used_pages / 4;
        if dirty > may_wait
            && (dirty > far_too_many
                || provider
                    .pace
                    .is_due(&self.process.platform, provider.used_pages))
        {
            self.purge();
        }
    }

    /// Gives a cell back, and with the last one perhaps the chunk.
    ///
    /// # Safety
    /// As `Chunk::return_cell`; any run that the cell described was returned before.
    pub unsafe fn return_cell(&mut self, cell: *mut Meta) {
        // SAFETY: by contract; the chunk lives.
        unsafe {
            let chunk = Chunk::around(cell);
            Chunk::return_cell(cell);
            self.drop_idle(chunk);
        }
    }

    /// Counts a chunk that may have become idle; only one such keeps its memory.
    ///
    /// # Safety
    /// The chunk is in the list, and was not idle before.
    unsafe fn drop_idle(&mut self, chunk: *mut Chunk) {
        // SAFETY: by contract.
        unsafe {
            if self.is_idle(&*chunk) {
                self.provider.idle_chunks += 1;
                if self.provider.idle_chunks > 1 && self.close(chunk) {
                    // Others are left only if the system refused them before.
                    self.drop_idle_chunks(1);
                }
            }
        }
    }

    /// Gives idle chunks back until `keep` are left or the system refuses.
    pub fn drop_idle_chunks(&mut self, keep: usize) {
        let mut chunk = self.provider.chunks;
        while !chunk.is_null() && self.provider.idle_chunks > keep {
            // SAFETY: chunks in the list exist; the lock makes their headers ours.
            unsafe {
                if self.is_idle(&*chunk) && !self.close(chunk) {
                    return;
                }
                chunk = (*chunk).next;
            }
        }
    }

    /// Whether `count` refused `give_back`s could be remembered: asked before whatever may need
    /// them. Where the system takes nothing back, little is asked of it.
    pub fn may_owe(&mut self, count: usize) -> bool {
        if self.provider.owed_count + count > OWED {
            self.retry_owed();
        }
        self.provider.owed_count + count <= OWED
    }

    /// Unmaps [at, at+len). If the system refuses (at its limit of mappings, say) it is offered
    /// again later.
    ///
    /// # Safety
    /// The range came from `map` or `remap`, and nothing uses it any more; `may_owe` said yes
    /// to it.
    pub unsafe fn give_back(&mut self, at: NonNull<u8>, len: usize) {
        // SAFETY: by contract.
        if unsafe { self.process.platform.unmap(at, len) } {
            return;
        }
        let provider = &mut *self.provider;
        debug_assert!(provider.owed_count < OWED);
        provider.owed[provider.owed_count] = (at.as_ptr().expose_provenance(), len);
        provider.owed_count += 1;
    }

    /// Offers the system again what it refused to take back.
    pub fn retry_owed(&mut self) {
        while self.provider.owed_count > 0 {
            let (at, len) = self.provider.owed[self.provider.owed_count - 1];
            let at = ptr::with_exposed_provenance_mut::<u8>(at);
            // SAFETY: what is owed is a mapping of ours that nothing uses.
            unsafe {
                if !self.process.platform.unmap(NonNull::new_unchecked(at), len) {
                    return;
                }
            }
            self.provider.owed_count -= 1;
        }
    }

    /// A cell of some chunk, or of a new one.
    pub fn any_cell(&mut self) -> Option<*mut Meta> {
        let mut chunk = self.provider.chunks;
        self.provider.refused = false;
        loop {
            let new = chunk.is_null();
            if new {
                chunk = self.make_chunk(1, 1)?;
            }
            // SAFETY: chunks in the list exist; the lock makes their headers ours.
            unsafe {
                let idle = self.is_idle(&*chunk);
                let cell = self.take_cell(chunk);
                if cell.is_some() {
                    self.provider.idle_chunks -= idle as usize;
                }
                if cell.is_some() || new {
                    return cell;
                }
                chunk = (*chunk).next;
            }
        }
    }

    /// Takes back what `metadata` gave last.
    ///
    /// # Safety
    /// Nothing uses it, and `metadata` gave nothing since.
    pub unsafe fn return_metadata(&mut self, at: *mut u8, bytes: usize) {
        let bytes = bytes.next_multiple_of(chunk::CELL);
        debug_assert!(at.wrapping_add(bytes) == self.provider.pool);
        // SAFETY: by contract.
        unsafe { at.write_bytes(0, bytes) };
        self.provider.pool = at;
        self.provider.pool_left += bytes;
    }

    /// Gives up all that is retained for later.
    pub fn release_retained(&mut self) {
        self.drop_large_cache();
        self.drop_idle_chunks(0);
        self.purge();
    }

    /// No more bytes than these could come back by giving up all that is retained.
    pub fn retained(&self) -> usize {
        let pages = self.provider.used_pages + self.provider.dirty_pages;
        pages * RUN_PAGE + self.provider.idle_chunks * CHUNK + self.provider.large.cached_bytes
    }

    /// Whether nothing of the chunk is in use, and it has memory to give back.
    pub(crate) fn is_idle(&self, chunk: &Chunk) -> bool {
        let page = self.process.platform.page_size();
        let more = chunk.open > chunk.data || chunk.metas as usize >= MAP_END + page;
        chunk.used_pages == 0 && chunk.cells == 0 && !chunk.stays && more
    }

    /// Gives the physical pages of all dirty free runs back.
    pub fn purge(&mut self) {
        let platform = &self.process.platform;
        let page_size = platform.page_size();
        let mut chunk = self.provider.chunks;
        while !chunk.is_null() {
            // SAFETY: chunks in the list exist; the lock makes their headers ours.
            let header = unsafe { &mut *chunk };
            let dirty = header.dirty;
            each_run(&dirty, |first, count| {
                let start = (first * RUN_PAGE).next_multiple_of(page_size);
                let end = (first + count) * RUN_PAGE / page_size * page_size;
                if start >= end {
                    return;
                }
                // SAFETY: dirty runs are free and in the opened part of the chunk.
                let purged = unsafe {
                    let at = NonNull::new_unchecked(chunk.cast::<u8>().add(start));
                    platform.purge(at, end - start)
                };
                if purged {
                    let (first, count) = (start / RUN_PAGE, (end - start) / RUN_PAGE);
                    chunk::set(&mut header.dirty, first, count, false);
                    self.provider.dirty_pages -= count;
                }
            });
            chunk = header.next;
        }
        self.provider.kept_pages = self.provider.dirty_pages;
    }
}
