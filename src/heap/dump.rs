//! `dump` prints every slot of a heap. It needs a process at rest: no other thread inside
//! the allocator.

use crate::chunk::{Chunk, GRANULES};
use crate::config::{CLASSES, PRESET, QUARANTINE, RUN_PAGE, UNIT};
use crate::group::bytes_of;
use crate::heap::Heap;
use crate::meta::{Meta, State, CLASS_RUN};
use crate::pages::Platform;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::Node;
use crate::ring::Entry;
use crate::size_class::stride;
use crate::slot::{narrow_units, wide_read, FIRST_WIDE, ZERO};
use crate::sync::Ordering;
use core::fmt::{self, Write};

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

/// What the last line of a dump tells.
#[derive(Default)]
struct Total {
    groups: usize,
    live: usize,
    runs: usize,
    large: usize,
    live_bytes: usize,
}

impl<P: Platform> Process<P> {
    /// Prints every heap, class, group, slot, run and large block, one line each:
    ///
    /// ```text
    /// byssal-dump 1 preset=default heaps=1
    /// heap id=1 life=active idle=0
    /// class heap=1 class=3 stride=64 slots=8 groups=1 queued=0 empty=0
    /// group heap=1 class=3 base=0x7f0000075000 bytes=512 state=current slots=La....ff
    /// run base=0x7f0000080000 pages=1 bytes=4096
    /// large base=0x7f0000100000 mapped=204800 bytes=200000
    /// total groups=1 live=2 runs=1 large=1 live_bytes=204160 used=32768 dirty=0 cached=0
    /// ```
    ///
    /// Numbers are bytes unless named otherwise. Letters of slots, from the first on: `L` live,
    /// `a` ready to be handed out, `f` freed, `r` freed by another thread, `h` the same, but the
    /// thread has not told yet, `q` in quarantine, `.` never used, `?` more than one of these or
    /// none: the heap is broken.
    pub fn dump(&self, out: &mut dyn Write) -> fmt::Result {
        let mut locked = self.lock();
        let heaps = locked.provider.heaps;
        writeln!(out, "byssal-dump 1 preset={} heaps={heaps}", PRESET.name)?;
        for id in 1..=heaps {
            let mut groups = [0; CLASSES];
            locked.each_group(|meta| {
                // SAFETY: groups given by the walk are alive.
                unsafe {
                    let own = (*meta).owner.load(Ordering::Relaxed) as usize == id;
                    groups[(*meta).class as usize] += own as u32;
                }
                Ok(())
            })?;
            // SAFETY: heaps live for ever.
            unsafe { dump_heap(out, self.heap_by_id(id as u16), &groups)? };
        }
        let mut total = Total::default();
        // SAFETY: groups given by the walk are alive, the process is at rest.
        locked.each_group(|meta| unsafe { self.dump_group(out, meta, &mut total) })?;
        let mut result = Ok(());
        locked.each_run_block(|base, pages, n| {
            total.runs += 1;
            total.live_bytes += n;
            result =
                result.and_then(|()| writeln!(out, "run base={base:p} pages={pages} bytes={n}"));
        });
        result?;
        let mut result = Ok(());
        locked.each_large(|base, len, n| {
            total.large += 1;
            total.live_bytes += n;
            result =
                result.and_then(|()| writeln!(out, "large base={base:p} mapped={len} bytes={n}"));
        });
        result?;
        total.live += locked.zero_blocks();
        writeln!(
            out,
            "total groups={} live={} runs={} large={} live_bytes={} used={} dirty={} cached={}",
            total.groups,
            total.live,
            total.runs,
            total.large,
            total.live_bytes,
            locked.provider.used_pages * RUN_PAGE,
            locked.provider.dirty_pages * RUN_PAGE,
            locked.provider.large.cached_bytes
        )
    }

    /// Prints a group and counts its blocks.
    ///
    /// # Safety
    /// The group is alive, the process at rest.
    unsafe fn dump_group(
        &self,
        out: &mut dyn Write,
        meta: *mut Meta,
        total: &mut Total,
    ) -> fmt::Result {
        // SAFETY: the caller's walk found the group, and at rest nobody releases it meanwhile.
        unsafe {
            let state = if (*meta).is(State::Current) {
                "current"
            } else if (*meta).is(State::Queued) {
                "queued"
            } else {
                "detached"
            };
            write!(
                out,
                "group heap={} class={} base={:p} bytes={} state={state} slots=",
                (*meta).owner.load(Ordering::Relaxed),
                (*meta).class,
                Meta::base_of(meta),
                bytes_of(meta),
            )?;
            total.groups += 1;
            for index in 0..(*meta).capacity() {
                let state = self.slot_state(meta, index);
                out.write_char(state.map_or('?', SlotState::letter))?;
                if state == Ok(SlotState::Live) {
                    total.live += 1;
                    total.live_bytes += self.slot_of(meta, index).map_or(0, |slot| slot.length());
                }
            }
            out.write_char('\n')
        }
    }

    /// The state of slot `index`, from the five places that can tell; Err if not exactly one does.
    ///
    /// # Safety
    /// `meta` is a group's; the process is at rest.
    pub(crate) unsafe fn slot_state(
        &self,
        meta: *mut Meta,
        index: usize,
    ) -> Result<SlotState, &'static str> {
        // SAFETY: the group lives, its owner lives for ever, and at rest nobody changes either.
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
            if (freed || avail) && (*meta).record(index) > ZERO.into() {
                return Err("the record of a slot in a mask is a mark");
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
        // SAFETY: heaps live for ever; at rest their threads change nothing.
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

    /// The slot of group `meta` with this number, as the pointer to its live block leads to it.
    ///
    /// # Safety
    /// The slot is live, the process at rest.
    pub(crate) unsafe fn slot_of(&self, meta: *mut Meta, index: usize) -> Option<Slot> {
        // SAFETY: a live slot's group lives; nobody changes its record.
        unsafe {
            let class = (*meta).class as usize;
            let offset = if class < FIRST_WIDE {
                let record = (*meta).records.narrow(index).load(Ordering::Relaxed);
                (narrow_units(record) as usize - 1) * UNIT
            } else {
                let record = (*meta).records.wide(index).load(Ordering::Relaxed);
                wide_read(stride(class), record).map_or(0, |place| place.offset)
            };
            let start = Meta::base_of(meta).add(index * stride(class));
            Untrusted::new(start.add(offset)).find(self)
        }
    }
}

/// Prints a heap and its classes, of which it has so many groups.
///
/// # Safety
/// The heap lives, the process is at rest.
unsafe fn dump_heap(out: &mut dyn Write, heap: *mut Heap, groups: &[u32; CLASSES]) -> fmt::Result {
    // SAFETY: heaps live for ever; at rest its thread changes nothing.
    unsafe {
        let life = ["unused", "active", "parked", "dead"][(*heap).mail.0.life() as usize & 3];
        writeln!(
            out,
            "heap id={} life={life} idle={}",
            (*heap).id,
            (*heap).idle
        )?;
        for (class, &groups) in groups.iter().enumerate() {
            let state = &(&(*heap).classes)[class];
            if groups == 0 {
                continue;
            }
            writeln!(
                out,
                "class heap={} class={class} stride={} slots={} groups={} queued={} empty={}",
                (*heap).id,
                stride(class),
                (&(*heap).slots)[class],
                groups,
                state.queued,
                state.empty,
            )?;
        }
    }
    Ok(())
}

impl<P: Platform> Locked<'_, P> {
    /// Calls `each` for every meta that a map leads to, once.
    fn each_meta<E>(&mut self, mut each: impl FnMut(*mut Meta) -> Result<(), E>) -> Result<(), E> {
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
            // SAFETY: this chunk is in the list, which the lock protects.
            chunk = unsafe { (*chunk).next };
        }
        Ok(())
    }

    /// Calls `each` for every group with slots.
    pub(crate) fn each_group<E>(
        &mut self,
        mut each: impl FnMut(*mut Meta) -> Result<(), E>,
    ) -> Result<(), E> {
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
        let _ = self.each_meta::<()>(|meta| {
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
}
