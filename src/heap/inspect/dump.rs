//! `dump` prints every slot of a heap. It needs a process at rest: no other thread inside
//! the allocator.

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, GRANULE, PRESET, RUN_PAGE, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::exchange::mailbox::{Life, Node};
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::layout::group::{Group, State};
use crate::layout::record::{narrow_units, wide_read, ZERO};
use crate::layout::slot::{Entry, LiveSlot};
use crate::pages::memory::Locked;
use core::fmt::{self, Write};

/// The state of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// It holds a block.
    Live,
    /// In its group's mask.
    Freed,
    /// In its group's mask of other threads' frees.
    Remote,
    /// Among another thread's deferred frees.
    Deferred,
    /// At hand for malloc.
    Avail,
    /// In quarantine.
    Quarantine,
    /// Never handed out.
    Unused,
}

impl SlotState {
    /// Its letter in a dump.
    fn letter(self) -> char {
        match self {
            SlotState::Live => 'L',
            SlotState::Freed => 'f',
            SlotState::Remote => 'r',
            SlotState::Deferred => 'h',
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

impl<P: Platform> Allocator<P> {
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
    /// `a` ready to be handed out, `f` freed, `r` freed by another thread, `h` freed by one that
    /// defers it still, `q` in quarantine, `.` never used, `?` more than one of these or
    /// none: the heap is broken.
    pub fn dump(&self, out: &mut dyn Write) -> fmt::Result {
        let locked = self.heaps.memory.lock();
        let heaps = self.heaps.count();
        writeln!(out, "byssal-dump 1 preset={} heaps={heaps}", PRESET.name)?;
        for heap in self.heaps.each() {
            let mut groups = [0; CLASSES];
            each_group(&locked, |group| {
                groups[group.class()] += (group.owner() == heap.id()) as u32;
                Ok::<_, fmt::Error>(())
            })?;
            dump_heap(out, MyHeap::peek(heap, &self.heaps), &groups)?;
        }
        let mut total = Total::default();
        each_group(&locked, |group| self.dump_group(out, group, &mut total))?;
        for in_run in [true, false] {
            total.dump_large(out, &locked, in_run)?;
        }
        total.live += locked.zero.live;
        writeln!(
            out,
            "total groups={} live={} runs={} large={} live_bytes={} used={} dirty={} cached={}",
            total.groups,
            total.live,
            total.runs,
            total.large,
            total.live_bytes,
            (locked.pages.used_pages - locked.zero.closed) * RUN_PAGE,
            locked.pages.dirty.amount() * RUN_PAGE,
            locked.large.kept_bytes()
        )
    }

    /// Prints a group and counts its blocks.
    fn dump_group(
        &self,
        out: &mut dyn Write,
        group: &'static Group,
        total: &mut Total,
    ) -> fmt::Result {
        let state = if group.is(State::Current) {
            "current"
        } else if group.is(State::Queued) {
            "queued"
        } else {
            "detached"
        };
        write!(
            out,
            "group heap={} class={} base={:p} bytes={} state={state} slots=",
            group.owner(),
            group.class(),
            group.start(),
            group.bytes(),
        )?;
        total.groups += 1;
        for index in 0..group.capacity() {
            let state = self.slot_state(group, index);
            out.write_char(state.map_or('?', SlotState::letter))?;
            if state == Ok(SlotState::Live) {
                total.live += 1;
                total.live_bytes += live_slot(group, index).map_or(0, |slot| slot.length());
            }
        }
        out.write_char('\n')
    }

    /// The state of slot `index`, from the places that can tell; Err if not exactly one does.
    pub(crate) fn slot_state(
        &self,
        group: &'static Group,
        index: usize,
    ) -> Result<SlotState, &'static str> {
        let owner = self.heaps.owner_of(group);
        let bit = 1u32 << index;
        let live = group.holds_block(index);
        if owner.mail.0.is_orphaned() {
            // Its masks and queues may be torn; only records are looked at, see orphans.rs.
            return Ok(if live {
                SlotState::Live
            } else {
                SlotState::Freed
            });
        }
        let owner = MyHeap::peek(owner, &self.heaps);
        let freed = group.freed() & bit != 0;
        let here = |entry: Entry| entry.is_of(group, group.class(), bit);
        let ready = owner.class(group.class()).entries().any(here);
        let avail = self.avail(group) & bit != 0;
        let places = [
            (live, SlotState::Live),
            (freed, SlotState::Freed),
            (group.mask().peek() & bit != 0, SlotState::Remote),
            (avail, SlotState::Avail),
            (ready, SlotState::Avail),
            (
                PRESET.quarantine != 0 && owner.quarantine.iter().any(|place| here(place.get())),
                SlotState::Quarantine,
            ),
        ];
        let mut found = places.into_iter().filter(|&(is_here, _)| is_here);
        let (place, other) = (found.next(), found.next());
        // A fork lost what a thread deferred that stayed behind.
        let deferred = match self.holders(group, bit, false) {
            0 => place.is_none() && self.holders(group, bit, true) > 0,
            1 => true,
            _ => return Err("one thread defers the free of a slot"),
        };
        let state = match (place, deferred) {
            (None, true) => SlotState::Deferred,
            (Some((_, state)), false) if other.is_none() => state,
            _ => return Err("each slot is live or in exactly one place"),
        };
        if (freed || avail) && group.record(index) > ZERO.into() {
            return Err("the record of a slot in a mask is a mark");
        }
        Ok(if self.is_unused(group, index) {
            SlotState::Unused
        } else {
            state
        })
    }

    /// How many heaps' threads freed the slot and have not sent it yet: of living or of orphaned
    /// heaps. The heir of the orphans (`orphans::bury`), which is unset, may have deferred
    /// anything.
    fn holders(&self, group: &Group, bit: u32, orphaned: bool) -> usize {
        let holds = |heap: &&'static Heap| {
            let held = MyHeap::peek(heap, &self.heaps).deferred.held_of(group) & bit != 0;
            if heap.mail.0.is_orphaned() {
                orphaned && (held || heap.is_unset())
            } else {
                !orphaned && held && !heap.is_unset()
            }
        };
        self.heaps.each().filter(holds).count()
    }
}

impl Total {
    /// Prints the large blocks, in runs or in mappings, and counts them.
    fn dump_large<P: Platform>(
        &mut self,
        out: &mut dyn Write,
        locked: &Locked<'_, P>,
        in_run: bool,
    ) -> fmt::Result {
        let mut result = Ok(());
        locked.large.each(|base, len, n, is_run| {
            if is_run != in_run || result.is_err() {
                return;
            }
            self.live_bytes += n;
            result = if is_run {
                self.runs += 1;
                writeln!(out, "run base={base:p} pages={} bytes={n}", len / RUN_PAGE)
            } else {
                self.large += 1;
                writeln!(out, "large base={base:p} mapped={len} bytes={n}")
            };
        });
        result
    }
}

impl<'a, P: Platform> MyHeap<'a, P> {
    /// To look at any heap of a process at rest.
    pub(crate) fn peek(heap: &'static Heap, all: &'a Heaps<P>) -> Self {
        // SAFETY: at rest nobody else works on the heap, and who looks changes nothing.
        let claim = unsafe { crate::exchange::abandoned::Claim::new(heap) };
        MyHeap::claimed(&claim, all)
    }
}

/// The slot of the live block in slot `index`, as the pointer to that block leads to it.
pub fn live_slot(group: &'static Group, index: usize) -> Option<LiveSlot> {
    let stride = stride(group.class());
    let record = group.record(index);
    let offset = if group.is_narrow() {
        (narrow_units(record as u8) as usize).checked_sub(1)? * UNIT
    } else {
        wide_read(stride, record)?.offset
    };
    LiveSlot::find_any(group, group.start().wrapping_add(index * stride + offset))
}

/// Prints a heap and its classes, of which it has so many groups.
fn dump_heap<P: Platform>(
    out: &mut dyn Write,
    heap: MyHeap<'_, P>,
    groups: &[u32; CLASSES],
) -> fmt::Result {
    let lives = [
        (Life::Active, "active"),
        (Life::Abandoned, "parked"),
        (Life::Claimed, "parked"),
        (Life::Orphaned, "dead"),
    ];
    let life = lives.iter().find(|(life, _)| heap.heap().mail.0.is(*life));
    let life = life.map_or("unused", |(_, name)| name);
    let (id, idle) = (heap.id(), heap.idle.amount());
    writeln!(out, "heap id={id} life={life} idle={idle}")?;
    for (class, &groups) in groups
        .iter()
        .enumerate()
        .filter(|(_, groups)| **groups != 0)
    {
        let state = heap.class(class);
        writeln!(
            out,
            "class heap={id} class={class} stride={} slots={} groups={groups} queued={} empty={}",
            stride(class),
            heap.slots[class].get(),
            state.queued.get(),
            state.empty.get(),
        )?;
    }
    Ok(())
}

/// Calls `each` for every group of a size class that a map leads to, once.
pub fn each_group<P: Platform, E>(
    locked: &Locked<'_, P>,
    mut each: impl FnMut(&'static Group) -> Result<(), E>,
) -> Result<(), E> {
    for chunk in locked.pages.each_chunk() {
        let header = locked.pages.header(chunk);
        let data = header.data.get() as usize / GRANULE..header.open.get() as usize / GRANULE;
        let mut last = 0;
        for granule in data {
            let number = chunk.cell_at(granule);
            if number != 0 && number != last && chunk.cell(number).class() < CLASSES {
                each(chunk.cell(number))?;
            }
            last = number;
        }
    }
    Ok(())
}
