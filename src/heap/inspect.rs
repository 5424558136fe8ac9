//! Looking at a whole heap: `check` verifies every invariant. It needs a process at rest: no other
//! thread inside the allocator.

use crate::chunk::{count_set, find_clear, Chunk, GRANULES, PAGES};
use crate::config::{CLASSES, GRANULE, IDLE_STRIDE, PRESET, QUARANTINE, UNIT};
use crate::group::bytes_of;
use crate::heap::Heap;
use crate::inspect_cells::{check_cells, check_nests};
use crate::meta::{Meta, State, CLASS_NONE, CLASS_RUN};
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::{Life, Node};
use crate::ring::{capacity, Entry};
use crate::size_class::stride;
use crate::slot::ZERO;
use crate::sync::Ordering;

/// What a walk found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Groups with slots.
    pub groups: usize,
    /// Live blocks in slots, and those of no bytes.
    pub live: usize,
    /// Blocks in runs of pages.
    pub runs: usize,
    /// Large blocks.
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

/// The state of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Live,
    Freed,
    Remote,
    Held,
    Avail,
    Quarantine,
    Unused,
}

impl SlotState {
    /// Its letter in a dump.
    pub(crate) fn letter(self) -> char {
        match self {
            SlotState::Live => 'L',
            SlotState::Freed => 'f',
            SlotState::Remote => 'r',
            SlotState::Held => 'h',
            SlotState::Avail => 'a',
            SlotState::Quarantine => 'q',
            SlotState::Unused => '.',
        }
    }
}

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

impl<P: Platform> Process<P> {
    /// Verifies every invariant of the whole heap; tells the first broken one.
    pub fn check(&self) -> Result<Summary, Broken> {
        let mut locked = self.lock();
        let mut summary = Summary {
            heaps: locked.provider.heaps,
            ..Summary::default()
        };
        ensure(
            self.heap_total() == locked.provider.heaps,
            "as many heaps are counted as were made",
        )?;
        // First: a slot's state is looked for in all heaps.
        let found = (1..=locked.provider.heaps).all(|id| !self.heap_by_id(id as u16).is_null());
        ensure(found, "a heap's number leads to it")?;
        locked.check_chunks(&mut summary)?;
        for id in 1..=locked.provider.heaps {
            let heap = self.heap_by_id(id as u16);
            // SAFETY: heaps live for ever; the process is at rest.
            unsafe {
                let life = (*heap).mail.0.life();
                if life == Life::Active as u32 || life == Life::Parked as u32 {
                    self.check_heap(heap, &mut locked)?;
                    self.check_outgoing(heap)?;
                }
            }
        }
        locked.each_large(|_, _, n| {
            summary.large += 1;
            summary.live_bytes += n;
        });
        ensure(
            summary.large == locked.provider.large.live,
            "large blocks are counted",
        )?;
        summary.live += locked.zero_blocks();
        summary.cached_bytes = locked.provider.large.cached_bytes;
        Ok(summary)
    }

    /// The state of slot `index`, from the five places that can tell; Err if not exactly one does.
    ///
    /// # Safety
    /// `meta` is a group's; the process is at rest.
    pub(crate) unsafe fn slot_state(
        &self,
        meta: *mut Meta,
        index: usize,
    ) -> Result<SlotState, Broken> {
        // SAFETY: by contract; owners live for ever.
        unsafe {
            let owner = (*meta).owner.load(Ordering::Relaxed);
            let heap = self.heap_by_id(owner);
            let class = (*meta).class as usize;
            let bit = 1u32 << index;
            let live = self.holds_block(meta, index);
            if (*heap).mail.0.is_dead() {
                // Its masks and rings may be torn; only records are looked at, see fork.rs.
                return Ok(if live {
                    SlotState::Live
                } else {
                    SlotState::Freed
                });
            }
            let freed = (*meta).freed.load(Ordering::Relaxed) & bit != 0;
            let remote = (*meta).mask().peek() & bit != 0;
            let here = |entry: Entry| entry.is_of(meta, class, bit);
            let ready = (*Heap::class(heap, class)).entries().any(here);
            let avail = self.avail(meta) & bit != 0;
            let quarantined = PRESET.quarantine != 0
                && (&(*heap).quarantine)[..QUARANTINE]
                    .iter()
                    .any(|&entry| here(entry));
            // A fork lost what a thread held back that stayed behind.
            let nowhere = !(live || freed || remote || avail || ready || quarantined);
            let held = match self.holders(meta, bit, false) {
                0 => nowhere && self.holders(meta, bit, true) > 0,
                1 => true,
                _ => return Err("one thread holds a slot back"),
            };
            let places = [live, freed, remote, held, avail, ready, quarantined];
            if places.iter().filter(|&&place| place).count() != 1 {
                return Err("each slot is live or in exactly one mask");
            }
            if freed || avail {
                let mark = (*meta).record(index) <= ZERO.into();
                ensure(mark, "the record of a slot in a mask is a mark")?;
            }
            if self.is_unused(meta, index) {
                return Ok(SlotState::Unused);
            }
            let states = [
                SlotState::Live,
                SlotState::Freed,
                SlotState::Remote,
                SlotState::Held,
                SlotState::Avail,
                SlotState::Avail,
                SlotState::Quarantine,
            ];
            let place = places.iter().position(|&place| place);
            Ok(states[place.unwrap_or(0)])
        }
    }

    /// How many heaps' threads freed the slot and have not told yet: of living or of dead heaps. The
    /// heir of the dead (`Locked::bury`), whose seed is 0, may have held anything.
    ///
    /// # Safety
    /// The process is at rest.
    unsafe fn holders(&self, meta: *mut Meta, bit: u32, dead: bool) -> usize {
        // SAFETY: by contract; heaps live for ever.
        let holds = |heap: *mut Heap| unsafe {
            let held = (*heap).outgoing.held_of(meta) & bit != 0;
            if (*heap).mail.0.is_dead() {
                dead && (held || (*heap).seed == 0)
            } else {
                !dead && held && (*heap).seed != 0
            }
        };
        let heaps = (1..=self.heap_total()).map(|id| self.heap_by_id(id as u16));
        heaps.filter(|&heap| holds(heap)).count()
    }

    /// Verifies what a heap's thread freed and has not told yet.
    ///
    /// # Safety
    /// The process is at rest.
    unsafe fn check_outgoing(&self, heap: *mut Heap) -> Result<(), Broken> {
        // SAFETY: by contract; groups with slots that are held are alive.
        unsafe {
            let (mut bytes, mut any) = (0, false);
            for held in (*heap).outgoing.held() {
                let owner = (*held.node).owner.load(Ordering::Relaxed);
                ensure(owner != (*heap).id, "what is held is of other heaps")?;
                ensure(
                    !self.is_orphan(held.node),
                    "what is held is not of dead heaps",
                )?;
                let class = (*held.node).class as usize;
                bytes += held.bits.count_ones() as usize * stride(class);
                any = true;
            }
            ensure((*heap).outgoing.counts(bytes), "bytes held are counted")?;
            let parked = (*heap).mail.0.life() == Life::Parked as u32;
            ensure(!(any && parked), "a parked heap holds nothing back")
        }
    }

    /// Verifies a heap's rings, queues and counters.
    ///
    /// # Safety
    /// The process is at rest.
    unsafe fn check_heap(&self, heap: *mut Heap, locked: &mut Locked<'_, P>) -> Result<(), Broken> {
        let (mut slots, mut groups) = ([0u32; CLASSES], [0u32; CLASSES]);
        let mut out = [0u32; CLASSES];
        let (mut bytes, mut retained, mut dirty) = (0, 0, 0);
        locked.each_group(|meta| {
            // SAFETY: groups are alive.
            unsafe {
                if (*meta).owner.load(Ordering::Relaxed) == (*heap).id {
                    slots[(*meta).class as usize] += (*meta).capacity() as u32;
                    groups[(*meta).class as usize] += 1;
                    let freed = (*meta).freed.load(Ordering::Relaxed);
                    let avail = self.avail(meta);
                    out[(*meta).class as usize] += (freed | avail).count_zeros();
                    let stride = stride((*meta).class as usize);
                    if stride >= IDLE_STRIDE {
                        let free = (*meta).free_slots() | avail;
                        dirty += (*meta).dirty(free).count_ones() as usize * stride;
                    }
                    bytes += bytes_of(meta);
                    if (*meta).is(State::Queued) && (*meta).is_empty() {
                        retained += bytes_of(meta);
                    }
                }
            }
            Ok(())
        })?;
        // SAFETY: by contract; listed nests are alive.
        unsafe {
            let (mut idle, mut nest) = (0, (*heap).nests);
            while !nest.is_null() {
                idle += ((*nest).dirty & !(*nest).used).count_ones();
                nest = (*nest).next;
            }
            ensure(
                idle == (*heap).nests_idle,
                "dirty free granules are counted",
            )?;
            ensure((*heap).bytes == bytes, "a heap's bytes are counted")?;
            ensure(
                (*heap).idle == dirty,
                "bytes in dirty free slots are counted",
            )?;
            ensure(
                (*heap).retained == retained,
                "bytes in empty groups are counted",
            )?;
        }
        for class in 0..CLASSES {
            // SAFETY: by contract; current and queued groups are alive.
            unsafe {
                let state = &(&(*heap).classes)[class];
                ensure(
                    (&(*heap).slots)[class] == slots[class],
                    "a class's slots are counted",
                )?;
                ensure(
                    state.out == out[class],
                    "slots out of the masks are counted",
                )?;
                ensure(state.ready() <= capacity(class), "a ring holds what it may")?;
                for entry in state.entries() {
                    let meta = entry.slot().meta();
                    ensure((*meta).class as usize == class, "a ring is of one class")?;
                    let owner = (*meta).owner.load(Ordering::Relaxed);
                    ensure(owner == (*heap).id, "slots in a ring are the heap's own")?;
                }
                let current = state.current;
                let right = if current.is_null() {
                    state.avail == 0
                } else {
                    (*current).is(State::Current) && state.base == Meta::base_of(current)
                };
                ensure(right, "the current group's state says so")?;
                let (mut queued, mut empty) = (0, 0);
                let mut meta = state.last;
                while !meta.is_null() {
                    meta = (*meta).next;
                    ensure(!meta.is_null(), "a queue is a circle")?;
                    ensure((*meta).is(State::Queued), "groups in a queue are queued")?;
                    ensure((*meta).class as usize == class, "a queue is of one class")?;
                    ensure(
                        (*meta).free_slots() != 0,
                        "groups in a queue have free slots",
                    )?;
                    queued += 1;
                    empty += (*meta).is_empty() as u32;
                    ensure(queued <= groups[class], "a queue ends")?;
                    if meta == state.last {
                        break;
                    }
                }
                ensure(queued == state.queued, "queued groups are counted")?;
                ensure(empty == state.empty, "empty groups are counted")?;
            }
        }
        Ok(())
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Calls `each` for every meta that a map leads to, once.
    fn each_meta(
        &mut self,
        mut each: impl FnMut(*mut Meta) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let mut chunk = self.provider.chunks;
        while !chunk.is_null() {
            let mut last = 0;
            for granule in 0..GRANULES {
                // SAFETY: chunks in the list exist.
                let cell = unsafe { Chunk::entry(chunk, granule) }.load(Ordering::Relaxed);
                if cell != 0 && cell != last {
                    each(chunk.cast::<Meta>().wrapping_add(cell as usize))?;
                }
                last = cell;
            }
            // SAFETY: as above.
            chunk = unsafe { (*chunk).next };
        }
        Ok(())
    }

    /// Calls `each` for every group with slots.
    pub(crate) fn each_group(
        &mut self,
        mut each: impl FnMut(*mut Meta) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.each_meta(|meta| {
            // SAFETY: metas that a map leads to are alive.
            if unsafe { (*meta).class } < CLASS_RUN {
                each(meta)
            } else {
                Ok(())
            }
        })
    }

    /// Calls `each(base, pages, bytes)` for every block in a run.
    pub(crate) fn each_run_block(&mut self, mut each: impl FnMut(*mut u8, usize, usize)) {
        let _ = self.each_meta(|meta| {
            // SAFETY: metas that a map leads to are alive.
            unsafe {
                if (*meta).class == CLASS_RUN {
                    let [n, pages] = *Meta::run_length(meta);
                    each(Meta::base_of(meta), pages, n);
                }
            }
            Ok(())
        });
    }

    /// Verifies chunks: bitmaps, maps, groups and their slots, nests.
    fn check_chunks(&mut self, summary: &mut Summary) -> Result<(), Broken> {
        let process = self.process;
        self.each_group(|meta| {
            // SAFETY: groups are alive, the process at rest.
            unsafe { check_group(process, meta, summary) }
        })?;
        self.each_run_block(|_, _, n| {
            summary.runs += 1;
            summary.live_bytes += n;
        });
        let (mut used, mut dirty, mut cells, mut idle) = (0, 0, 0, 0);
        let mut chunk = self.provider.chunks;
        while !chunk.is_null() {
            // SAFETY: chunks in the list exist; the lock is held.
            unsafe {
                let header = &*chunk;
                ensure(
                    process.in_chunk(chunk.addr()),
                    "a chunk's window is entered",
                )?;
                let both = (0..PAGES / 64).all(|w| header.used[w] & header.dirty[w] == 0);
                ensure(both, "dirty pages are free")?;
                dirty += count_set(&header.dirty, 0, PAGES);
                used += header.used_pages as usize;
                let data = header.data as usize / crate::config::RUN_PAGE;
                let limit = header.limit as usize / crate::config::RUN_PAGE;
                let counted = count_set(&header.used, data, limit - data);
                ensure(
                    counted == header.used_pages as usize,
                    "a chunk's pages are counted",
                )?;
                check_nests(process, chunk)?;
                cells += header.cells as usize - check_cells(process, chunk)?;
                idle += usize::from(self.is_idle(header));
                self.check_roomy(header)?;
                chunk = header.next;
            }
        }
        ensure(cells == self.record_cells(), "cells in use are counted")?;
        ensure(used == self.provider.used_pages, "pages in use are counted")?;
        ensure(
            idle == self.provider.idle_chunks,
            "chunks without a use are counted",
        )?;
        ensure(
            dirty == self.provider.dirty_pages,
            "dirty pages are counted",
        )?;
        summary.used_bytes = used * crate::config::RUN_PAGE;
        summary.dirty_bytes = dirty * crate::config::RUN_PAGE;
        Ok(())
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Verifies that no search passes a chunk with room, and that the first chunks with room for so
    /// many pages come in the order of their numbers.
    fn check_roomy(&self, header: &Chunk) -> Result<(), Broken> {
        // SAFETY: the entries are null or chunks in the list; the lock is held.
        let sequences = (self.provider.roomy).map(|chunk| unsafe { chunk.as_ref() });
        let sequences = sequences.map(|chunk| chunk.map_or(usize::MAX, |chunk| chunk.sequence));
        ensure(sequences.is_sorted(), "chunks with room come in order")?;
        // Longer runs would be such, too.
        let passed = (1..sequences.len()).find(|&pages| sequences[pages] > header.sequence);
        let room = passed.map(|pages| find_clear(&header.used, pages, 1));
        ensure(!matches!(room, Some(Ok(_))), "a chunk with room is found")
    }
}

/// Verifies a group and counts its blocks.
///
/// # Safety
/// The group is alive, the process at rest.
unsafe fn check_group<P: Platform>(
    process: &Process<P>,
    meta: *mut Meta,
    summary: &mut Summary,
) -> Result<(), Broken> {
    // SAFETY: by contract.
    unsafe {
        ensure(
            (*meta).class != CLASS_NONE,
            "a map does not lead to the header",
        )?;
        let owner = (*meta).owner.load(Ordering::Relaxed);
        let dead = process.is_dead(owner);
        let used = dead || !(*meta).is(State::Free);
        ensure(used, "a map leads to groups only")?;
        if !dead {
            let chunk = Chunk::around(meta);
            let cell = Chunk::cell_index(meta);
            let first = (*meta).first_granule();
            for granule in first..first + bytes_of(meta) / GRANULE {
                let entry = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
                ensure(entry == cell, "all granules of a group lead to it")?;
            }
        }
        summary.groups += 1;
        for index in 0..(*meta).capacity() {
            if process.slot_state(meta, index)? != SlotState::Live {
                continue;
            }
            let start = Meta::base_of(meta).add(index * stride((*meta).class as usize));
            summary.live += 1;
            summary.live_bytes += process.check_block(meta, index, start)?;
        }
    }
    Ok(())
}

impl<P: Platform> Process<P> {
    /// Whether a fork left heap number `id` behind.
    pub(crate) fn is_dead(&self, id: u16) -> bool {
        // SAFETY: heaps live for ever.
        unsafe { (*self.heap_by_id(id)).mail.0.is_dead() }
    }

    /// Verifies the end of the live block in a slot; its length.
    ///
    /// # Safety
    /// The slot is live, the process at rest.
    unsafe fn check_block(
        &self,
        meta: *mut Meta,
        index: usize,
        start: *mut u8,
    ) -> Result<usize, Broken> {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            let offset = if class < crate::slot::FIRST_WIDE {
                let record = (*meta).records.narrow(index).load(Ordering::Relaxed);
                (crate::slot::narrow_units(record) as usize - 1) * UNIT
            } else {
                let record = (*meta).records.wide(index).load(Ordering::Relaxed);
                crate::slot::wide_read(stride(class), record).map_or(0, |place| place.offset)
            };
            let pointer = crate::pointer::Untrusted::new(start.add(offset));
            let slot = pointer
                .find(self)
                .ok_or("a live block's pointer leads to its slot")?;
            ensure(slot.meta == meta && slot.index == index, "and to no other")?;
            let stands = self.guards_stand(class, slot.end_at(), slot.end);
            ensure(stands, "a live block's end is intact")?;
            Ok(slot.length())
        }
    }
}
