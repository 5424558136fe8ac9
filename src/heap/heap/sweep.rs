//! A heap's own free slots looked at before anybody wants them: at exit; and where the preset
//! clears freed memory, a few now and then, and all before their pages go. So what a program writes
//! after free to memory that nobody uses again is found, too.

use crate::base::config::{CLASSES, PRESET};
use crate::base::fault::raise;
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::heap::heap::{MyHeap, QUARANTINE};
use crate::layout::group::{set_bits, MyGroup};
use crate::layout::record::FIRST_WIDE;
use crate::layout::slot::{Entry, FreeSlot};
use core::cell::Cell;

/// Bytes of free slots in masks that are looked at when the process ends. They take about 1 ms.
const AT_EXIT: usize = 4 << 20;
/// Of so many of the groups that wait longest in a class one is chosen for a look.
const OLDEST: u32 = 16;

impl<P: Platform> MyHeap<'_, P> {
    /// Verifies all slots in all reuse queues: their tails, or, where the preset does that at the
    /// free, that they are clear. Of the empty heap there is none.
    #[inline(never)]
    pub fn verify_queues(self) {
        for class in 0..CLASSES {
            let state = self.class(class);
            if state.ready() != 0 {
                state.forget_verified();
                self.verify_queue(class);
                if PRESET.zero_on_free {
                    raise(state.verify(|slot| slot.check_clear(state.stride())));
                }
            }
        }
    }

    /// Verifies that all slots in quarantine are clear.
    pub fn verify_quarantine(self) {
        if PRESET.quarantine != 0 {
            self.quarantine.iter().for_each(|place| self.look_at(place));
        }
    }

    /// Verifies that a slot in quarantine is clear. One that is not leaves it: a handler's malloc
    /// is not to come upon it.
    fn look_at(self, place: &Cell<Entry>) {
        let waits = place.replace(Entry::NONE);
        if waits != Entry::NONE {
            let slot = waits.slot();
            raise(slot.check_clear(stride(slot.group().class())));
            place.set(waits);
        }
    }

    /// Verifies that free slots in the masks of all classes are clear, up to `AT_EXIT` bytes.
    pub fn verify_masks(self) {
        if !PRESET.zero_on_free {
            return;
        }
        let mut left = AT_EXIT;
        for class in 0..CLASSES {
            for (group, free) in self.class(class).free_groups() {
                let clear = set_bits(free | group.guard_slots());
                for index in clear.take(left / stride(class)) {
                    left -= stride(class);
                    check_slot(group, index);
                }
            }
        }
    }

    /// Verifies that a few free slots chosen at random are clear: one in quarantine; and of a class
    /// one in its reuse queue, and of one of its groups a free one and the guard slots.
    pub fn sample(self) {
        if !PRESET.zero_on_free {
            return;
        }
        if let Some(place) = self.quarantine.get(self.choose(QUARANTINE)) {
            self.look_at(place);
        }
        let state = self.class(self.choose(CLASSES));
        if let Some(entry) = state.entries().nth(self.choose_of(state.ready())) {
            raise(entry.slot().check_clear(state.stride()));
        }
        // Of a long queue the current group, which comes last, is never the one.
        let count = state.queued.get().min(OLDEST) + state.current.get().is_some() as u32;
        let group = state.free_groups().nth(self.choose_of(count));
        if let Some((group, free)) = group {
            let chosen = set_bits(free).nth(self.choose_of(free.count_ones()));
            for index in chosen.into_iter().chain(set_bits(group.guard_slots())) {
                check_slot(group, index);
            }
        }
    }

    /// The number of one of so many, at random; 0 of none.
    fn choose_of(self, count: u32) -> usize {
        self.choose(count.max(1) as usize)
    }
}

/// Verifies that a free slot of a group, in its mask, is clear.
pub fn check_slot(group: MyGroup, index: usize) {
    let (class, stride) = (group.class(), stride(group.class()));
    let start = group.start().wrapping_add(index * stride);
    // SAFETY: the group is the caller's and has the slot, which holds no block and is in its mask.
    let slot = unsafe { FreeSlot::of(class < FIRST_WIDE, group.group(), index, start) };
    raise(slot.check_clear(stride));
}
