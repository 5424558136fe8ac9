//! `check` verifies every invariant of a whole heap. It needs a process at rest: no other thread
//! inside the allocator.

use super::check_cells::{check_cells, check_spans};
use crate::allocator::Allocator;
use crate::base::config::{CLASSES, GRANULE, PURGE_STRIDE, RUN_PAGE};
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::exchange::mailbox::Life;
use crate::heap::class::capacity;
use crate::heap::heap::MyHeap;
use crate::inspect::dump::live_slot;
use crate::inspect::format::SlotState;
use crate::inspect::groups::each_group;
use crate::layout::bitmap::PAGES;
use crate::layout::chunk::Chunk;
use crate::layout::group::{Group, State};
use crate::pages::memory::Locked;
use crate::pages::page_heap::Search;
use core::ptr;

/// What a walk found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Groups with slots of size classes.
    pub groups: usize,
    /// Live blocks in slots, and those of no bytes.
    pub live: usize,
    /// Large blocks in runs of pages.
    pub runs: usize,
    /// Large blocks in mappings.
    pub large: usize,
    /// Bytes of live blocks of all kinds.
    pub live_bytes: usize,
    /// Heaps ever made.
    pub heaps: usize,
    /// Bytes of pages in use in chunks.
    pub used_bytes: usize,
    /// Bytes of free pages in chunks that are not zero.
    pub dirty_bytes: usize,
    /// Bytes of freed large mappings kept.
    pub cached_bytes: usize,
}

/// Whether all is verified. Under Miri, where a walk over each granule takes seconds, blocks are
/// counted and verified, and of the rest what is quick.
const WHOLE: bool = !cfg!(miri);

/// The broken invariant.
pub(crate) type Broken = &'static str;

/// Err unless `holds`.
pub(crate) fn ensure(holds: bool, broken: Broken) -> Result<(), Broken> {
    if holds {
        Ok(())
    } else {
        Err(broken)
    }
}

impl<P: Platform> Allocator<P> {
    /// Verifies every invariant of the whole heap; tells the first broken one.
    pub fn check(&self) -> Result<Summary, Broken> {
        let locked = self.heaps.memory.lock();
        let heaps = self.heaps.count();
        let mut summary = Summary {
            heaps,
            ..Summary::default()
        };
        // First: a slot's state is looked for in all heaps.
        let leads = |id: u16| self.heaps.by_id(id).is_some_and(|heap| heap.id() == id);
        ensure((1..=heaps as u16).all(leads), "a heap's number leads to it")?;
        locked.large.each(|_, _, n, is_run| {
            summary.runs += is_run as usize;
            summary.large += !is_run as usize;
            summary.live_bytes += n;
        });
        let counted = summary.large + summary.runs == locked.large.live;
        ensure(counted, "large blocks are counted")?;
        self.check_chunks(&locked, &mut summary)?;
        for heap in self.heaps.each() {
            if !WHOLE {
                break;
            }
            if heap.mail.0.is(Life::Active) || heap.mail.0.is(Life::Abandoned) {
                let heap = MyHeap::peek(heap, &self.heaps);
                self.check_heap(heap, &locked)?;
                self.check_deferred(heap)?;
            }
        }
        summary.live += locked.no_bytes.live;
        summary.cached_bytes = locked.large.kept_bytes();
        Ok(summary)
    }

    /// Verifies what a heap's thread freed and has not sent yet.
    fn check_deferred(&self, heap: MyHeap<'_, P>) -> Result<(), Broken> {
        let (mut bytes, mut any) = (0, false);
        for (group, bits) in heap.deferred.held() {
            ensure(
                group.owner() != heap.id(),
                "what is deferred is of other heaps",
            )?;
            ensure(
                !self.heaps.is_orphan(group),
                "what is deferred is not of orphans",
            )?;
            bytes += bits.count_ones() as usize * stride(group.class());
            any = true;
        }
        ensure(heap.deferred.counts(bytes), "bytes deferred are counted")?;
        let abandoned = heap.heap().mail.0.is(Life::Abandoned);
        ensure(!(any && abandoned), "an abandoned heap defers nothing")
    }

    /// Verifies a heap's queues and counters.
    fn check_heap(&self, heap: MyHeap<'_, P>, locked: &Locked<'_, P>) -> Result<(), Broken> {
        let (mut slots, mut queued) = ([0u32; CLASSES], [0u32; CLASSES]);
        let mut out = [0u32; CLASSES];
        let (mut bytes, mut retained, mut dirty) = (0, 0, 0);
        each_group::<P, Broken>(locked, |group| {
            if group.owner() == heap.id() {
                let class = group.class();
                slots[class] += group.capacity() as u32;
                queued[class] += group.is(State::Queued) as u32;
                let avail = self.avail(group);
                out[class] += (group.freed() | avail).count_zeros();
                if stride(class) >= PURGE_STRIDE {
                    let free = group.free_slots() | avail;
                    dirty += group.dirty(free).count_ones() as usize * stride(class);
                }
                bytes += group.bytes();
                if group.is(State::Queued) && group.is_empty() {
                    retained += group.bytes();
                }
            }
            Ok(())
        })?;
        let free_granules = heap
            .each_span()
            .map(|span| span.dirty.get() & !span.used.get());
        let idle: u32 = free_granules.map(u64::count_ones).sum();
        let counted = idle as usize == heap.idle_granules.amount();
        ensure(counted, "dirty free granules are counted")?;
        ensure(heap.bytes.get() == bytes, "a heap's bytes are counted")?;
        ensure(
            heap.idle.amount() == dirty,
            "bytes in dirty free slots are counted",
        )?;
        ensure(
            heap.retained.get() == retained,
            "bytes in empty groups are counted",
        )?;
        for class in 0..CLASSES {
            ensure(
                heap.slots[class].get() == slots[class],
                "a class's slots are counted",
            )?;
            let counted = heap.class(class).out.get() == out[class];
            ensure(counted, "slots out of the masks are counted")?;
            check_class(heap, class, queued[class])?;
        }
        Ok(())
    }

    /// Verifies chunks: bitmaps, maps, groups and their slots, spans.
    fn check_chunks(&self, locked: &Locked<'_, P>, summary: &mut Summary) -> Result<(), Broken> {
        each_group(locked, |group| self.check_group(group, summary))?;
        let (mut used, mut dirty, mut cells, mut idle) = (0, 0, 0, 0);
        for chunk in locked.pages.each_chunk() {
            let header = locked.pages.header(chunk);
            let entered = locked.pages.system.pagemap.chunk(chunk.address()).is_some();
            ensure(entered, "a chunk's window is entered")?;
            ensure(
                header.used.is_disjoint(&header.dirty),
                "dirty pages are free",
            )?;
            dirty += header.dirty.count(0, crate::layout::bitmap::PAGES);
            let used_pages = header.used_pages.get() as usize;
            used += used_pages;
            let data = header.data.get() as usize / RUN_PAGE;
            let limit = header.limit.get() as usize / RUN_PAGE;
            let counted = header.used.count(data, limit - data) == used_pages;
            ensure(counted, "a chunk's pages are counted")?;
            if WHOLE {
                check_spans(self, chunk)?;
                cells += header.cells.get() as usize - check_cells(self, locked, chunk)?;
            }
            idle += locked.pages.is_idle(chunk) as usize;
            check_roomy(locked, chunk)?;
        }
        let counted = !WHOLE || cells == locked.large.cells();
        ensure(counted, "cells in use are counted")?;
        ensure(used == locked.pages.used_pages, "pages in use are counted")?;
        ensure(
            idle == locked.pages.idle_chunks,
            "chunks without a use are counted",
        )?;
        ensure(
            dirty == locked.pages.dirty.amount(),
            "dirty pages are counted",
        )?;
        // What is inaccessible has no memory.
        summary.used_bytes = (used - locked.no_bytes.closed) * RUN_PAGE;
        summary.dirty_bytes = dirty * RUN_PAGE;
        Ok(())
    }

    /// Verifies a group and counts its blocks.
    fn check_group(&self, group: &'static Group, summary: &mut Summary) -> Result<(), Broken> {
        let orphaned = self.heaps.is_orphan(group);
        let used = orphaned || !group.is(State::Free);
        ensure(used, "a map leads to groups only")?;
        let (chunk, first) = (Chunk::of(group), group.first_granule());
        let number = Chunk::number_of(group);
        let mut granules = first..first + group.bytes() / GRANULE;
        let mut entered = || granules.all(|granule| chunk.cell_at(granule) == number);
        ensure(
            orphaned || !WHOLE || entered(),
            "all granules of a group lead to it",
        )?;
        summary.groups += 1;
        for index in 0..group.capacity() {
            if self.slot_state(group, index)? != SlotState::Live {
                continue;
            }
            let slot = live_slot(group, index).ok_or("a live block's pointer leads to its slot")?;
            let found = self.find(slot.block());
            let same =
                found.is_some_and(|found| found.index == index && ptr::eq(found.group, group));
            ensure(same, "a live block's pointer leads to no other slot")?;
            let stands = slot.check_tail(&self.heaps.memory.system.secrets).is_ok();
            ensure(stands, "a live block's tail is intact")?;
            summary.live += 1;
            summary.live_bytes += slot.length();
        }
        Ok(())
    }
}

/// Verifies the queues of a class of which so many groups say that they are queued.
fn check_class<P: Platform>(heap: MyHeap<'_, P>, class: usize, queued: u32) -> Result<(), Broken> {
    let state = heap.class(class);
    ensure(
        state.ready() <= capacity(class),
        "a reuse queue holds what it may",
    )?;
    for entry in state.entries() {
        let group = entry.slot().group();
        ensure(group.class() == class, "a reuse queue is of one class")?;
        ensure(
            group.owner() == heap.id(),
            "slots in a reuse queue are the heap's own",
        )?;
    }
    let right = match state.current.get() {
        None => state.avail.get() == 0,
        Some(current) => current.is(State::Current) && state.base.get() == current.start(),
    };
    ensure(right, "the current group's state says so")?;
    let (mut walked, mut empty, mut youngest) = (0, 0, None);
    for group in state.groups() {
        ensure(group.is(State::Queued), "groups in a queue are queued")?;
        ensure(group.class() == class, "a queue is of one class")?;
        ensure(group.free_slots() != 0, "groups in a queue have free slots")?;
        walked += 1;
        empty += group.is_empty() as u32;
        youngest = Some(group);
    }
    ensure(queued == state.queued.get(), "queued groups are counted")?;
    ensure(walked == queued, "a queue is a circle")?;
    ensure(state.ends_with(youngest), "a queue ends")?;
    ensure(empty == state.empty.get(), "empty groups are counted")
}

/// Verifies that no search passes a chunk with room, and that the first chunks with room for so
/// many pages come in the order of their numbers.
fn check_roomy<P: Platform>(locked: &Locked<'_, P>, chunk: &'static Chunk) -> Result<(), Broken> {
    let header = locked.pages.header(chunk);
    let number = |chunk: &'static Chunk| locked.pages.header(chunk).sequence.get();
    let sequences = locked
        .pages
        .roomy
        .map(|roomy| roomy.map_or(usize::MAX, number));
    let [lengths @ .., _] = &sequences;
    ensure(lengths.is_sorted(), "chunks with room come in order")?;
    for number in (1..Search::COUNT).filter(|&n| sequences[n] > header.sequence.get()) {
        let (pages, align) = Search(number).needs();
        let room = header.used.find_clear(pages, align);
        ensure(room.is_err(), "a chunk with room is found")?;
    }
    for align in (0..PAGES.ilog2()).map(|log| 1 << log) {
        let Err(longest) = header.used.find_clear(PAGES + 1, align) else {
            continue;
        };
        ensure(header.may_have(longest, align), "a chunk knows its runs")?;
    }
    Ok(())
}
