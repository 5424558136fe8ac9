//! `dump` prints every slot of a heap. It needs a process at rest: no other thread inside
//! the allocator.

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, PRESET, RUN_PAGE};
use crate::base::platform::Platform;
use crate::exchange::mailbox::Node;
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::inspect::format::{self, Line, Places, SlotState, Total};
use crate::inspect::groups::each_group;
use crate::layout::group::Group;
use crate::layout::slot::Entry;
#[cfg(any(test, feature = "model"))]
use crate::layout::slot::LiveSlot;
use crate::pages::memory::Locked;
use core::fmt::{self, Write};

impl<P: Platform> Allocator<P> {
    /// Prints every heap, class, group, slot, run and large block, one line each, see `format.rs`.
    pub fn dump(&self, out: &mut dyn Write) -> fmt::Result {
        let locked = self.heaps.memory.lock();
        let heaps = self.heaps.count();
        let preset = PRESET.name;
        writeln!(out, "{}", Line::Head { preset, heaps })?;
        for heap in self.heaps.each() {
            let mut groups = [0; CLASSES];
            each_group(&locked, |group| {
                groups[group.class()] += (group.owner() == heap.id()) as u32;
                Ok::<_, fmt::Error>(())
            })?;
            byssal_dump_heap(out, heap, MyHeap::peek(heap, &self.heaps), &groups)?;
        }
        let mut total = Total {
            used: (locked.pages.used_pages - locked.no_bytes.closed) * RUN_PAGE,
            dirty: locked.pages.dirty.amount() * RUN_PAGE,
            cached: locked.large.kept_bytes(),
            ..Total::default()
        };
        each_group(&locked, |group| self.dump_group(out, group, &mut total))?;
        for in_run in [true, false] {
            dump_large(out, &locked, in_run, &mut total)?;
        }
        total.live += locked.no_bytes.live;
        writeln!(out, "{}", Line::Total(total))
    }

    /// Prints a group and counts its blocks.
    fn dump_group(
        &self,
        out: &mut dyn Write,
        group: &'static Group,
        total: &mut Total,
    ) -> fmt::Result {
        let line = Line::Group {
            heap: group.owner(),
            class: group.class(),
            base: group.start().addr(),
            bytes: group.bytes(),
            state: format::group_state(group.state()),
        };
        write!(out, "{line}")?;
        total.groups += 1;
        for index in 0..group.capacity() {
            let state = self.slot_state(group, index);
            out.write_char(state.map_or('?', SlotState::letter))?;
            if state == Ok(SlotState::Live) {
                total.live += 1;
                let block = format::block(group.class(), group.record(index));
                total.live_bytes += block.map_or(0, |(_, length)| length);
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
        let here = |entry: Entry| entry.is_of(group, group.class(), bit);
        let places = Places {
            live,
            freed: group.freed() & bit != 0,
            remote: group.mask().peek() & bit != 0,
            avail: self.avail(group) & bit != 0,
            ready: owner.class(group.class()).entries().any(here),
            quarantine: PRESET.quarantine != 0
                && owner.quarantine.iter().any(|place| here(place.get())),
            deferred: [false, true].map(|orphaned| self.holders(group, bit, orphaned)),
            record: group.record(index),
        };
        places.state()
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

/// Prints the large blocks, in runs or in mappings, and counts them.
fn dump_large<P: Platform>(
    out: &mut dyn Write,
    locked: &Locked<'_, P>,
    in_run: bool,
    total: &mut Total,
) -> fmt::Result {
    let mut result = Ok(());
    locked.large.each(|base, len, bytes, is_run| {
        if is_run != in_run || result.is_err() {
            return;
        }
        total.live_bytes += bytes;
        let base = base.addr();
        let line = if is_run {
            total.runs += 1;
            let pages = len / RUN_PAGE;
            Line::Run { base, pages, bytes }
        } else {
            total.large += 1;
            let mapped = len;
            Line::Large {
                base,
                mapped,
                bytes,
            }
        };
        result = writeln!(out, "{line}");
    });
    result
}

impl<'a, P: Platform> MyHeap<'a, P> {
    /// To look at any heap of a process at rest.
    pub(crate) fn peek(heap: &'static Heap, all: &'a Heaps<P>) -> Self {
        // SAFETY: at rest nobody else works on the heap, and who looks changes nothing.
        let claim = unsafe { crate::exchange::abandoned::Claim::new(heap) };
        MyHeap::claimed(&claim, all)
    }
}

#[cfg(any(test, feature = "model"))]
/// The slot of the live block in slot `index`, as the pointer to that block leads to it.
pub fn live_slot(group: &'static Group, index: usize) -> Option<LiveSlot> {
    let stride = crate::base::size_class::stride(group.class());
    let (offset, _) = format::block(group.class(), group.record(index))?;
    LiveSlot::find_any(group, group.start().wrapping_add(index * stride + offset))
}

/// Prints a heap and its classes, of which it has so many groups.
fn byssal_dump_heap<P: Platform>(
    out: &mut dyn Write,
    known: &Heap,
    heap: MyHeap<'_, P>,
    groups: &[u32; CLASSES],
) -> fmt::Result {
    let (id, idle) = (known.id(), heap.idle.amount());
    let life = known.mail.0.life();
    writeln!(
        out,
        "{}",
        Line::Heap {
            id,
            life: format::life(life),
            idle
        }
    )?;
    for (class, &groups) in groups
        .iter()
        .enumerate()
        .filter(|(_, groups)| **groups != 0)
    {
        let state = heap.class(class);
        let line = Line::Class {
            heap: id,
            class,
            slots: heap.slots[class].get(),
            groups,
            queued: state.queued.get(),
            empty: state.empty.get(),
        };
        writeln!(out, "{line}")?;
    }
    Ok(())
}
