//! Pages of free slots: given back when they are many.

use crate::base::config::{CLASSES, KEEP, PRESET, PURGE_STRIDE};
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::heap::heap::MyHeap;
use crate::heap::sweep::check_slot;
use crate::layout::group::{low_mask, set_bits, MyGroup};
use core::ptr::NonNull;

/// After a purge that came too early the next is tried once this part more of what may be kept is
/// idle.
const STEPS: usize = 16;

impl<P: Platform> MyHeap<'_, P> {
    /// Gives pages of free slots back if they are more than a quarter of what is in use. A heap
    /// that replaces blocks at random stays below that, and keeps its pages.
    #[cold]
    pub fn limit_idle(self) {
        let kept = &self.idle;
        let least = self.all.share(2 * KEEP);
        if kept.amount() <= least {
            return kept.set_limit(least);
        }
        let used = self.bytes.get().saturating_sub(kept.amount());
        let fallen = kept.pace.has_fallen(used);
        // The next free would ask again: not before there is some more.
        kept.set_limit(kept.amount() + least.max(used / 4) / STEPS);
        if !kept.pace.ask().is_due(self.platform(), used) {
            return;
        }
        let out: usize = self
            .classes()
            .map(|(_, state)| state.out.get() as usize * state.stride())
            .sum();
        let budget = least.max(out / 4);
        // What is beyond it goes if it was so ever since the last look, or if much is gone. Else
        // the program may want it again: it waits for some more.
        if kept.take_least() > budget || fallen || kept.amount() <= budget {
            kept.set_limit(budget);
        }
        if kept.is_over() {
            self.purge_idle();
        }
    }

    /// Gives back the whole pages inside the free slots of long strides. Where the preset clears
    /// freed memory these are looked at before: a purge would hide what was written there. And
    /// before anything changes, as a fault leaves.
    pub fn purge_idle(self) {
        if PRESET.zero_on_free {
            self.each_long(|group, free| {
                set_bits(group.dirty(free)).for_each(|index| check_slot(group, index));
            });
        }
        self.idle.sub(self.idle.amount());
        self.each_long(|group, free| self.purge_slots(group, free));
    }

    /// Shows `see` all groups of long strides that have free slots, and which these are.
    fn each_long(self, see: impl Fn(MyGroup, u32)) {
        let long = (0..CLASSES)
            .rev()
            .take_while(|&class| stride(class) >= PURGE_STRIDE);
        for class in long {
            let groups = self.class(class).free_groups();
            groups.for_each(|(group, free)| see(group, free));
        }
    }

    /// Gives back the whole pages inside the free slots `free` of one group of the heap.
    fn purge_slots(self, group: MyGroup, mut free: u32) {
        let page = self.platform().page_size();
        let stride = stride(group.class());
        let dirty = group.dirty(free);
        group.mark_purged(dirty);
        while free & dirty != 0 {
            // Neighbours go together: pages that two slots share, and calls.
            let first = free.trailing_zeros() as usize;
            let count = (free >> first).trailing_ones() as usize;
            let slots = low_mask(count) << first;
            free &= !slots;
            let start = group.start().addr() + first * stride;
            let from = start.next_multiple_of(page);
            let to = (start + count * stride) / page * page;
            let at = NonNull::new(group.start().with_addr(from));
            if let Some(at) = at.filter(|_| dirty & slots != 0 && from < to) {
                // Refused (as for locked memory), it would be so again: once a free is enough.
                // Nobody takes purged slots for zero: PURGED is not ZERO.
                // SAFETY: the pages lie inside free slots of the heap, which hold nothing.
                unsafe { self.platform().purge(at, to - from) };
            }
        }
    }
}
