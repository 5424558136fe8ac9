//! Runs of pages and cells from chunks; dirty pages and idle chunks back to the system.

use crate::base::config::{DECAY_PAUSE, KEEP, RUN_PAGE};
use crate::base::platform::Platform;
use crate::layout::chunk::{Chunk, CELL_PAGES};
use crate::layout::group::Group;
use crate::layout::kind::Kind;
use crate::pages::page_heap::{Pages, Run, Search};
use core::ptr::NonNull;

/// Dirty free pages that may wait, beside a 16th of those in use.
const DIRTY_PAGES: usize = KEEP / RUN_PAGE;
/// Those beyond go back even when the last purge was just now, unless a quarter of the pages in use
/// is more: 4 MiB.
const DIRTY_MOST: usize = 1024;

impl<P: Platform> Pages<'_, P> {
    /// A run of `pages` run pages that starts at a multiple of `align` of them, in a chunk of a
    /// kind that there is or a new one.
    pub fn take_run(&mut self, kind: Kind, pages: usize, align: usize) -> Option<Run> {
        let run = self.take_free_run(kind, pages, align);
        run.or_else(|| self.take_new_run(kind, pages, align))
    }

    /// A run in a new chunk, after the others had none.
    pub fn take_new_run(&mut self, kind: Kind, pages: usize, align: usize) -> Option<Run> {
        let chunk = self.make_chunk(kind, pages, align)?;
        self.take_run_in(chunk, pages, align)
    }

    /// A run in the chunks of a kind that there are.
    pub fn take_free_run(&mut self, kind: Kind, pages: usize, align: usize) -> Option<Run> {
        self.no_memory = false;
        let search = Search::of(pages, align);
        let mut next = self.roomy[search.0];
        while let Some(chunk) = next {
            let header = self.header(chunk);
            next = header.next.get();
            // Where there is no memory, a chunk that has none is not asked.
            let asked = !self.no_memory || header.open > header.data;
            let fits = asked && kind.suits(header.kind.get());
            if fits && header.may_have(pages, align) && header.has_cells() {
                let run = self.take_run_in(chunk, pages, align);
                if run.is_some() {
                    return run;
                }
            }
            self.pass(search, chunk);
        }
        None
    }

    /// A run in one chunk.
    fn take_run_in(&mut self, chunk: &'static Chunk, pages: usize, align: usize) -> Option<Run> {
        let header = self.header(chunk);
        let idle = self.is_idle(chunk);
        let page = match header.used.find_clear(pages, align) {
            Ok(page) => page,
            Err(longest) => {
                header.note_longest(longest, align);
                return None;
            }
        };
        let end = (page + pages) * RUN_PAGE;
        if end > header.open.get() as usize && !self.open(chunk, end) {
            return None;
        }
        self.idle_chunks -= idle as usize;
        header.used.set(page, pages, true);
        let dirty = header.dirty.set(page, pages, false);
        header
            .used_pages
            .set(header.used_pages.get() + pages as u32);
        self.used_pages += pages;
        self.forget_dirty(dirty);
        Some(Run {
            chunk,
            page,
            pages,
            fresh: dirty == 0,
        })
    }

    /// Gives a run back that nothing uses any more; its pages are dirty.
    pub fn return_run(&mut self, run: Run) {
        let header = self.header(run.chunk);
        header.used.set(run.page, run.pages, false);
        header.dirty.set(run.page, run.pages, true);
        header
            .used_pages
            .set(header.used_pages.get() - run.pages as u32);
        self.used_pages -= run.pages;
        self.dirty.add(run.pages);
        self.found_room(run.chunk, header.note_free(run.page));
        self.purge_if_due();
    }

    /// Gives dirty free pages back if they are too many, and it is time or they are far too many:
    /// a program may free all that it has in less than the time between two purges, and never
    /// return a run again.
    pub fn purge_if_due(&mut self) {
        let budget = DIRTY_PAGES + self.used_pages / 16;
        let dirty = self.dirty.amount().saturating_sub(self.stuck_pages);
        let far_too_many = budget + DIRTY_MOST + self.used_pages / 4;
        if dirty > budget
            && (dirty > far_too_many || self.dirty.pace.is_due(self.platform(), self.used_pages))
        {
            self.purge();
        }
    }

    /// Gives all dirty free pages back, if they are more than so many bytes, and it is time, or
    /// `at_once`.
    pub fn purge_beyond(&mut self, bytes: usize, at_once: bool) {
        let dirty = self.dirty.amount().saturating_sub(self.stuck_pages);
        let is_due = || (self.dirty.pace.ask()).is_due(self.platform(), self.used_pages);
        if dirty * RUN_PAGE > bytes && (at_once || is_due()) {
            self.purge();
        }
    }

    /// Gives the physical pages of all dirty free runs back.
    pub fn purge(&mut self) {
        let each = self.platform().page_size() / RUN_PAGE;
        let mut next = self.chunks;
        while let Some(chunk) = next {
            let header = self.header(chunk);
            next = header.next.get();
            let mut from = 0;
            while let Some((first, count)) = header.dirty.next_run(from) {
                let (start, end) = header.whole_pages(first, first + count, each);
                from = end.max(first + count);
                let Some(at) = NonNull::new(chunk.at(start * RUN_PAGE)).filter(|_| start < end)
                else {
                    continue;
                };
                // SAFETY: the pages are free. Some are dirty, so they lie in the opened part of the
                // chunk, which is whole pages of the system.
                if unsafe { self.platform().purge(at, (end - start) * RUN_PAGE) } {
                    self.dirty.sub(header.dirty.set(start, end - start, false));
                }
            }
            self.purge_cells(chunk);
        }
        self.stuck_pages = self.dirty.amount();
    }

    /// Gives the pages of a chunk back in which all cells are free.
    fn purge_cells(&self, chunk: &'static Chunk) {
        let each = self.platform().page_size() / RUN_PAGE;
        let header = self.header(chunk);
        let mut page = 0;
        while page < CELL_PAGES {
            let first = page;
            while header.take_free_pages(page, each) {
                page += each;
            }
            let at = NonNull::new(chunk.at(first * RUN_PAGE));
            if let Some(at) = at.filter(|_| page > first) {
                // Refused, they stay until they were used once more.
                // SAFETY: no entry leads to a free cell, and zero memory is one.
                unsafe { self.platform().purge(at, (page - first) * RUN_PAGE) };
            }
            page += each;
        }
    }

    /// Whether it is time to look at what lay unused since the last look; if so, dirty free pages
    /// of that kind go back.
    pub fn decay(&mut self) -> bool {
        let now = self.platform().clock();
        if now.wrapping_sub(self.decayed) < DECAY_PAUSE {
            return false;
        }
        self.decayed = now;
        let unused = self.dirty.take_least().saturating_sub(self.stuck_pages);
        // Most of them: a purge gives all back.
        if unused > DIRTY_PAGES / 4 && unused >= self.dirty.amount() / 2 {
            self.purge();
            self.dirty.take_least();
        }
        true
    }

    /// A cell of some chunk, or of a new one.
    pub fn any_cell(&mut self) -> Option<&'static Group> {
        self.no_memory = false;
        let mut next = self.chunks;
        loop {
            let chunk = match next {
                Some(chunk) => chunk,
                None => self.make_chunk(Kind::COMMON, 1, 1)?,
            };
            let idle = self.is_idle(chunk);
            let cell = self.take_cell(chunk);
            if cell.is_some() {
                self.idle_chunks -= idle as usize;
            }
            if cell.is_some() || next.is_none() {
                return cell;
            }
            next = self.header(chunk).next.get();
        }
    }

    /// Gives a cell back that nobody uses, and with the last one perhaps the chunk, whose runs were
    /// returned before.
    pub fn return_cell(&mut self, cell: &'static Group) {
        Chunk::return_cell(cell, &self.held);
        self.note_idle(Chunk::of(cell));
    }

    /// Counts a chunk that may have become idle, and was not so before: only one such keeps its
    /// memory.
    pub fn note_idle(&mut self, chunk: &'static Chunk) {
        if self.is_idle(chunk) {
            self.idle_chunks += 1;
            if self.idle_chunks > 1 && self.close(chunk) {
                // Others are left only if the system refused them before.
                self.drop_idle_chunks(1);
            }
        }
    }

    /// Gives idle chunks back until `keep` are left or the system refuses.
    pub fn drop_idle_chunks(&mut self, keep: usize) {
        let mut next = self.chunks;
        while let Some(chunk) = next.filter(|_| self.idle_chunks > keep) {
            if self.is_idle(chunk) && !self.close(chunk) {
                return;
            }
            next = self.header(chunk).next.get();
        }
    }
}
