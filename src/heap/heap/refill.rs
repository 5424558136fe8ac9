//! What happens when a class has no slot at hand: more of them, from the nearest source.

use crate::base::config::{DECAY_REFILLS, KEEP};
use crate::base::fault::{stop, Fault};
use crate::base::platform::Platform;
use crate::heap::groups::FIRST_LONG;
use crate::heap::heap::MyHeap;
use crate::layout::group::{MyGroup, State};

/// Every so many refills look for what other threads freed before anything else.
const COLLECT_EVERY: u32 = 32;

impl<P: Platform> MyHeap<'_, P> {
    /// Sees to it that malloc finds a slot of `class`, which has none, in this order: the current
    /// group's freed slots if no other group has some; the group that waited longest; what other
    /// threads freed; the slots that stay in the reuse queue while there are others; a new group.
    /// False when memory is out.
    pub fn refill(self, class: usize) -> bool {
        let state = self.class(class);
        state.note_had(class);
        self.count_refill();
        loop {
            let only_empty = state.queued == state.empty;
            if only_empty && self.open(class) {
                return true;
            }
            if let Some(group) = state.pop(&self.retained) {
                self.install(class, group);
                if self.open(class) {
                    return true;
                }
                // It had free slots when it was queued, and only we take them.
                stop(Fault::Corruption, group.start().addr());
            }
            // May release groups and queue others: look at everything again.
            if self.collect() {
                continue;
            }
            if state.ready() > 0 {
                // The heap does not grow while it has a free slot.
                state.low.set(0);
                return true;
            }
            if class >= FIRST_LONG && self.bare() > self.all.share(2 * KEEP) {
                // A buffer that grows passes through all long classes, and leaves a slot in each.
                // No other class's groups: to find the empty ones of a long queue takes a walk.
                let bare = self.let_go(class);
                self.release_empty(bare);
            }
            let Some(group) = self.new_group(class) else {
                return false;
            };
            self.install(class, group);
            return self.open(class);
        }
    }

    /// Counts a refill, and does what is due: every 32nd sends and collects, as a class whose queue
    /// never ends must not keep other threads' frees waiting, and every `DECAY_REFILLS`th looks for
    /// what lies unused.
    fn count_refill(self) {
        let refills = self.refills.get().wrapping_add(1);
        self.refills.set(refills);
        self.idle.note_least();
        self.sample();
        if refills % COLLECT_EVERY == 0 {
            self.flush();
            self.collect();
            if refills % DECAY_REFILLS == 0 {
                self.decay();
            }
        }
    }

    /// Gives back what came too early for a purge and waited for a free, and what lay unused.
    #[cold]
    #[inline(never)]
    fn decay(self) {
        self.limit_idle();
        if self.idle_granules.is_over() {
            self.limit_granules();
        }
        let mut locked = self.all.memory.lock();
        locked.pages.purge_if_due();
        locked.decay();
    }

    /// Makes a group of the heap, in no queue, the current one of its class, in place of what was
    /// so far.
    fn install(self, class: usize, group: MyGroup) {
        self.retire(class);
        let state = self.class(class);
        state.current.set(Some(group));
        state.base.set(group.start());
        group.set(State::Current);
    }

    /// Takes the free slots of the current group out of its mask for malloc. False when there are
    /// none.
    fn open(self, class: usize) -> bool {
        let state = self.class(class);
        let Some(group) = state.current.get() else {
            return false;
        };
        let free = group.free_slots();
        group.set_freed(group.freed() & !free);
        state.avail.set(state.avail.get() | free);
        if free != 0 {
            self.keep_low(class);
        }
        state.turn();
        free != 0
    }
}
