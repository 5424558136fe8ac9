//! Memory that waits for a thread that does not come for it: a group that others freed whole gives
//! its pages back all the same, and is kept aside until its owner looks.
//!
//! ```text
//! free by another    it completes a group, and much waits in such (`exchange/mailbox.rs`):
//!   put_aside          locked: each complete group's records say that its pages are gone
//!     purge_around       pages of which every granule is of a group aside
//! collect            the owner, or who claims its heap:
//!   take_aside         locked: from here on they are groups like others, empty
//! ```
//!
//! A complete group has nothing for its owner to work with: no block, no slot in a mask, a queue or
//! the quarantine, unless a double free raced (`mark`). Who holds it off the list may write its
//! records and drop its pages. What the owner may do meanwhile, let a current group be so no more,
//! is written elsewhere in the group. Whether a neighbour in the page is aside, too, a mark in its
//! cell tells, which comes and goes under the lock only.

use crate::base::config::{GRANULE, KEEP, SPAN, SPAN_GROUP_MAX};
use crate::base::fault::Found;
use crate::base::lock::Held;
use crate::base::platform::Platform;
use crate::exchange::mailbox::{is_aside, Life, Node};
use crate::heap::groups::check_clear;
use crate::heap::heap::{Heap, Heaps, MyHeap};
use crate::layout::chunk::Chunk;
use crate::layout::group::{Group, MyGroup};
use crate::layout::record::{PURGED, USED};
use core::ptr::NonNull;

/// Bytes of complete groups that may wait for an owner beyond what may be listed: an allowance for
/// all heaps.
const WAITING: usize = 4 * KEEP;

impl<P: Platform> Heaps<P> {
    /// Puts the complete groups of a heap aside, of which `bytes` bytes wait beyond what may be
    /// listed, and gives their pages back, if that is too much. The caller does not hold the lock.
    #[cold]
    #[inline(never)]
    pub fn put_aside(&self, heap: &'static Heap, bytes: usize) {
        if bytes <= self.share(WAITING) {
            return;
        }
        self.memory.locked(|locked| {
            // One that has no thread by now is collected by its freers; or others were here first.
            if !heap.mail.0.is(Life::Active) || !heap.mail.0.has_complete() {
                return Ok(());
            }
            let (held, mut found) = (&locked.pages.held, Ok(()));
            let count = heap.mail.0.put_aside(held, |group| {
                mark(group).unwrap_or_else(|stray| {
                    found = Err(stray);
                    false
                })
            });
            let mut last = None;
            for group in heap.mail.0.aside(held).take(count) {
                self.purge_around(group, held, &mut last);
            }
            found
        });
    }

    /// Gives the pages of a group aside back; of one in a span all of the span that may go, but not
    /// if `last` was in the same.
    fn purge_around(&self, group: &'static Group, held: &Held, last: &mut Option<usize>) {
        let (chunk, mut first) = (Chunk::of(group), group.first_granule());
        let mut end = first + group.bytes() / GRANULE;
        if group.bytes() <= SPAN_GROUP_MAX {
            first -= first % (SPAN / GRANULE);
            end = first + SPAN / GRANULE;
        }
        if last.replace(chunk.address() + first) == Some(chunk.address() + first) {
            return;
        }
        let platform = &self.memory.system.platform;
        let page = platform.page_size() / GRANULE;
        let may_go = |from: usize| {
            let mut granules = from..from + page;
            granules.all(|granule| {
                let group = chunk.cell(chunk.cell_at(granule));
                // The records, too, as after a double free that raced: see `mark`.
                is_aside(group, held) && group.are(group.slots(), PURGED)
            })
        };
        let mut from = first.next_multiple_of(page);
        while from + page <= end {
            let mut to = from;
            while to + page <= end && may_go(to) {
                to += page;
            }
            let at = NonNull::new(chunk.at(from * GRANULE));
            if let Some(at) = at.filter(|_| from < to) {
                // Refused, they stay until they were used once more. Nobody takes purged slots for
                // zero.
                // SAFETY: the pages lie in groups aside, which hold nothing, and stay so while the
                // lock is held.
                unsafe { platform.purge(at, (to - from) * GRANULE) };
            }
            from = to + page;
        }
    }
}

/// Notes of a complete group, which is in the caller's hand, that its pages are gone. False: a slot
/// of it is not as its freer left it, or its owner has it; that one will find a double free. (What
/// the owner has in a queue or of its current group does not show here. A block that it makes of
/// such a slot has a record that is not this mark.) Err: its memory is not clear, where the preset
/// has it so.
fn mark(group: &'static Group) -> Result<bool, Found> {
    if !group.are(group.slots(), USED) || group.freed() & group.slots() != 0 {
        return Ok(false);
    }
    // SAFETY: the caller has all slots of the group, and only their records are written.
    let group = unsafe { MyGroup::new(group) };
    check_clear(group)?;
    group.mark_purged(group.slots());
    Ok(true)
}

impl<P: Platform> MyHeap<'_, P> {
    /// The heap's groups that were aside; they are no more.
    pub fn take_aside(self) -> impl Iterator<Item = &'static Group> {
        let locked = self.all.memory.lock();
        self.heap().mail.0.take_aside(&locked.pages.held)
    }
}
