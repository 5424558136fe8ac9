//! What a fork leaves of the parent's other threads: their heaps are orphaned.
//!
//! An orphaned heap's queues and masks, of freed slots and of granules, may be torn: its thread may
//! have been in mid-update. They are never looked at again. What can be trusted is what only
//! changes under the lock (chunks, which runs and spans there are, groups in runs), and of what
//! that thread wrote alone:
//!
//! - each slot's record, one byte or two, which tells whether the slot holds a block that somebody
//!   may free;
//! - the map, and the reserves of spans (`spans.rs`). The child sees of each thread what it did up
//!   to some instruction, and nothing behind that: the system write-protects the pages, and a
//!   thread that does not know of it yet writes to pages that the child has, until it does. So a
//!   cell that a map entry leads to describes a group, perhaps one that is only partly entered,
//!   without a block; and a cell of a span is in the map, in the reserve, or (one of them) in both.
//!
//! So in the child every free into an orphaned heap takes the lock, and a group goes back as soon
//! as none of its records tells of a block, a span as soon as its part of the map is empty. Groups
//! without a block from the start go back with the first of these, or when a heap of the child
//! would otherwise need another chunk: not at the fork, as that would cost a child that only execs.
//!
//! What a fork loses: in a heap that lives on in the child, the group of a remote free that was
//! caught between setting its bit and listing the group (at most one for each thread that is not
//! there any more), the slot of a free caught before its bit, and the slots that such a thread
//! deferred; blocks that a thread had and nobody else knows of; of each orphaned heap its struct
//! and its number, until there are many such: then one of them takes all groups over, at the fork,
//! while no other thread can look at an owner, and the others become new heaps. A program whose
//! children fork again and again, each with threads, runs out of neither.

use crate::base::config::{GRANULE, PRESET, SPAN, SPAN_GROUP_MAX};
use crate::base::fault::{Fault, Found};
use crate::base::platform::Platform;
use crate::exchange::mailbox::Node;
use crate::heap::heap::Heaps;
use crate::heap::spans::{leave_map, return_group_run, return_span};
use crate::layout::chunk::{Chunk, GRANULES};
use crate::layout::group::{Group, MyGroup, CLASS_NO_BYTES};
use crate::layout::slot::LiveSlot;
use crate::pages::memory::Locked;

/// Frees a block of an orphaned heap.
#[cold]
#[inline(never)]
pub fn free<P: Platform>(all: &Heaps<P>, slot: &LiveSlot) {
    let block = slot.block();
    all.memory.locked(|locked| {
        // Once more, as records of orphaned heaps are cleared under the lock only: of two frees of
        // the same block that race, the second finds none, or, if the group has gone by then, one
        // that a living heap made in its place.
        let chunk = all.memory.system.pagemap.any_chunk(block.addr());
        let group = chunk.map(|chunk| chunk.group_at(block.addr()));
        let group = group.filter(|group| group.class() < CLASS_NO_BYTES && all.is_orphan(group));
        let slot = group.and_then(|group| LiveSlot::find_any(group, block));
        let slot = slot.ok_or(Found(Fault::DoubleFree, block.addr()))?;
        all.check_around(&slot)?;
        slot.clear_record();
        slot.clear_memory();
        slot.group.mask().add(slot.bit());
        if is_left(all, slot.group) {
            release(all, locked, slot.group);
            // A child that frees what others made means to stay.
            release_all(all, locked);
        }
        Ok(())
    })
}

/// Whether a group belongs to an orphaned heap and holds no block.
fn is_left<P: Platform>(all: &Heaps<P>, group: &Group) -> bool {
    all.is_orphan(group) && !(0..group.capacity()).any(|index| group.holds_block(index))
}

/// In the only thread of a fork's child: has one orphaned heap take over what all have, and makes
/// the others ready for new threads. Nobody else may have read an owner.
#[cold]
pub fn bury<P: Platform>(all: &Heaps<P>, locked: &mut Locked<'_, P>) {
    all.roster(locked).abandoned.forget_orphans();
    for heap in all.each().filter(|heap| heap.mail.0.is_orphaned()) {
        // For the thread that reclaims it, which clears it: not here, as the child may only exec.
        heap.unset();
        let roster = all.roster(locked);
        if roster.heir == 0 {
            roster.heir = heap.id();
            roster.orphans = true;
            release_all(all, locked);
        } else {
            roster.abandoned.enter_unused(heap);
        }
    }
    all.roster(locked).heir = 0;
}

/// Releases every group that holds no block and every empty span of orphaned heaps, once after the
/// fork. What stays goes to the heir, if there is one. Whether there was something to
/// look for.
pub fn release_all<P: Platform>(all: &Heaps<P>, locked: &mut Locked<'_, P>) -> bool {
    if !core::mem::replace(&mut all.roster(locked).orphans, false) {
        return false;
    }
    let mut next = locked.pages.chunks;
    while let Some(chunk) = next {
        release_in(all, locked, chunk);
        // Chunks stay in the list, whatever is released.
        next = locked.pages.header(chunk).next.get();
    }
    true
}

/// Releases what is left in one chunk.
fn release_in<P: Platform>(all: &Heaps<P>, locked: &mut Locked<'_, P>, chunk: &'static Chunk) {
    let heir = all.roster(locked).heir;
    let mut granule = 0;
    while granule < GRANULES {
        let number = chunk.cell_at(granule);
        let group = chunk.cell(number);
        granule += 1;
        if number == 0 || group.class() >= CLASS_NO_BYTES {
            continue;
        }
        granule = group.first_granule() + group.bytes() / GRANULE;
        if is_left(all, group) {
            release(all, locked, group);
        } else if heir != 0 && all.is_orphan(group) {
            group.set_owner(heir);
        }
    }
    for first in (0..GRANULES).step_by(SPAN / GRANULE) {
        release_span(all, locked, chunk, first);
    }
}

/// Releases a group without a block, whose heap is orphaned.
fn release<P: Platform>(all: &Heaps<P>, locked: &mut Locked<'_, P>, group: &'static Group) {
    // SAFETY: the lock is held, and the group's heap is orphaned.
    let group = unsafe { MyGroup::new(group) };
    if PRESET.zero_on_free {
        // A block that was just being made or freed may have left canaries.
        // SAFETY: the group's memory is mapped, and no slot of it holds a block.
        unsafe { group.start().write_bytes(0, group.bytes()) };
    }
    let bytes = group.bytes();
    if bytes > SPAN_GROUP_MAX {
        return return_group_run(locked, group, bytes);
    }
    let (chunk, first) = (Chunk::of(group.group()), group.first_granule());
    let Some(span) = chunk.span_at(first) else {
        return;
    };
    // The thread that is not here may have come to that.
    if !span.has_spare(&group) {
        span.push(group.group());
    }
    leave_map(group, bytes);
    release_span(all, locked, chunk, first);
}

/// Releases the span around a granule if an orphaned heap has one there, without a group.
fn release_span<P: Platform>(
    all: &Heaps<P>,
    locked: &mut Locked<'_, P>,
    chunk: &'static Chunk,
    granule: usize,
) {
    let Some(span) = chunk.span_at(granule) else {
        return;
    };
    let owner = all.by_id(span.owner.get());
    if !owner.is_some_and(|owner| owner.mail.0.is_orphaned()) {
        return;
    }
    let base = span.base.get() as usize;
    let heir = all.roster(locked).heir;
    if (base..base + SPAN / GRANULE).all(|granule| chunk.cell_at(granule) == 0) {
        return_span(locked, span);
    } else if heir != 0 {
        span.owner.set(heir);
    }
}
