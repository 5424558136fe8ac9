//! Blocks of no bytes: addresses that nobody may touch.
//!
//! They are slots of 16 bytes in groups whose memory is inaccessible. No block takes memory of its
//! own, and free, realloc and malloc_usable_size judge the pointer by the group's records as
//! strictly as any other. The groups belong to no heap: they change under the lock. An address is
//! used again only after all others of its group, and a group only when the others had their turn.

use crate::base::config::{GRANULE, RUN_PAGE, UNIT};
use crate::base::platform::Platform;
use crate::layout::chunk::Chunk;
use crate::layout::group::{set_bits, Group, MyGroup, CLASS_NO_BYTES, NOBODY};
use crate::layout::kind::Kind;
use crate::layout::record::{narrow_record, NARROW_SLOTS};
use crate::pages::page_heap::Pages;
use core::ptr::{self, NonNull};

/// Run pages that are made inaccessible at a time: addresses of 4032 blocks.
const PAGES: usize = 16;

/// Blocks of no bytes. Whoever borrows it holds the lock.
pub struct NoBytes {
    /// The group whose turn it is.
    current: Option<&'static Group>,
    /// Its free slots that were not used since its turn came.
    unused: u32,
    /// Of the other groups with free slots the one that waited longest, and the one that came last.
    first: Option<&'static Group>,
    last: Option<&'static Group>,
    /// Groups in that list.
    listed: usize,
    /// Where the next group comes from: the chunk, and its granules from the first to behind the
    /// last.
    chunk: Option<&'static Chunk>,
    granules: [usize; 2],
    /// Run pages that are inaccessible.
    pub closed: usize,
    /// Live blocks.
    pub live: usize,
}

impl NoBytes {
    /// A block at a multiple of `align`, at most a page. None when memory is out.
    pub fn allocate<P: Platform>(
        &mut self,
        pages: &mut Pages<'_, P>,
        align: usize,
    ) -> Option<*mut u8> {
        for _ in 0..=self.listed + 1 {
            if let Some(block) = self.take(align) {
                return Some(block);
            }
            if self.granules[0] != self.granules[1] {
                break;
            }
            // The group's addresses were all used since its turn came: it is the next one's turn.
            let next = self.pop();
            self.change_turn(next);
        }
        // Of the groups that fill a page, one is aligned to it. What is left of a run may be the
        // most of a page without it.
        for _ in 0..2 * pages.platform().page_size() / GRANULE {
            let group = self.make(pages)?;
            self.change_turn(Some(group));
            if let Some(block) = self.take(align) {
                return Some(block);
            }
        }
        None
    }

    /// Makes it the turn of another group.
    fn change_turn(&mut self, next: Option<&'static Group>) {
        self.unused = next.map_or(0, |group| group.free_slots());
        let before = core::mem::replace(&mut self.current, next);
        if let Some(group) = before.filter(|group| group.free_slots() != 0) {
            self.push(group);
        }
    }

    /// Makes a block of a slot of the current group that was not used since its turn came.
    fn take(&mut self, align: usize) -> Option<*mut u8> {
        let group = self.current?;
        let at = |index: usize| group.start().wrapping_add(index * UNIT);
        let index = set_bits(self.unused).find(|&index| at(index).addr() % align == 0)?;
        self.unused &= !(1 << index);
        mine(group).set_freed(group.freed() & !(1 << index));
        group.set_narrow(index, narrow_record(UNIT, 0));
        self.live += 1;
        Some(at(index))
    }

    /// Frees slot `index` of a group, whose record tells of a block.
    pub fn free(&mut self, group: &'static Group, index: usize) {
        group.set_narrow(index, 0);
        let current = self.current.is_some_and(|current| ptr::eq(current, group));
        let unlisted = group.free_slots() == 0 && !current;
        mine(group).set_freed(group.freed() | 1 << index);
        if unlisted {
            self.push(group);
        }
        self.live -= 1;
    }

    /// Takes the group that waited longest.
    fn pop(&mut self) -> Option<&'static Group> {
        let group = self.first?;
        self.first = group.next();
        self.listed -= 1;
        Some(group)
    }

    /// Adds a group as the one that came last.
    fn push(&mut self, group: &'static Group) {
        group.set_next(None);
        match self.last.filter(|_| self.first.is_some()) {
            Some(last) => last.set_next(Some(group)),
            None => self.first = Some(group),
        }
        self.last = Some(group);
        self.listed += 1;
    }

    /// A new group, in no list.
    fn make<P: Platform>(&mut self, pages: &mut Pages<'_, P>) -> Option<&'static Group> {
        let mut cell = None;
        for _ in 0..2 {
            if self.granules[0] == self.granules[1] {
                self.close_run(pages)?;
            }
            cell = pages.take_cell(self.chunk?);
            if cell.is_some() {
                break;
            }
            // Extents of large blocks took the chunk's cells: what is left of the run is lost.
            self.granules = [0; 2];
        }
        let (cell, chunk, granule) = (cell?, self.chunk?, self.granules[0]);
        let start = chunk.address() + granule * GRANULE;
        cell.init(start, CLASS_NO_BYTES, NARROW_SLOTS, NOBODY, false);
        chunk.enter(granule, 1, Chunk::number_of(cell));
        self.granules[0] += 1;
        Some(cell)
    }

    /// Makes the pages of a new run inaccessible, for ever.
    fn close_run<P: Platform>(&mut self, pages: &mut Pages<'_, P>) -> Option<()> {
        let align = pages.platform().page_size() / RUN_PAGE;
        // Two of the system's pages: the first granule is no group's, and would be the only one at
        // a multiple of a page.
        let run = pages.take_run(Kind::COMMON, PAGES.max(2 * align), align)?;
        let at = NonNull::new(run.start())?;
        // SAFETY: the run was just taken, and nothing uses it.
        if !unsafe { pages.platform().close(at, run.pages * RUN_PAGE) } {
            // No cell may be in use there: then none will be returned that counts the chunk.
            pages.return_run(run);
            pages.note_idle(run.chunk);
            return None;
        }
        self.closed += run.pages;
        let first = run.page * RUN_PAGE / GRANULE;
        self.chunk = Some(run.chunk);
        // The bytes before the first address and behind the last are inaccessible, too.
        self.granules = [first + 1, first + run.pages * RUN_PAGE / GRANULE - 1];
        Some(())
    }
}

/// A group of blocks of no bytes, in the hands of who borrows them all.
fn mine(group: &'static Group) -> MyGroup {
    // SAFETY: the group belongs to nobody, and whoever borrows `NoBytes` holds the lock.
    unsafe { MyGroup::new(group) }
}

const _: () = assert!(GRANULE == NARROW_SLOTS * UNIT && RUN_PAGE >= GRANULE);
