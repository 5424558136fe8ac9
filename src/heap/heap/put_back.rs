//! Freed slots on their way back: from the reuse queue or the quarantine to the mask of their
//! group. The next refill then finds the group; or it goes when it is empty. And what a heap lets go
//! of with the last block of a class.

use crate::base::config::{CLASSES, GRANULE, KEEP, PRESET, PURGE_STRIDE, REUSE_QUEUE};
use crate::base::fault::raise;
use crate::base::platform::Platform;
use crate::heap::class::{capacity, Class, Had};
use crate::heap::heap::{MyHeap, QUARANTINE};
use crate::heap::take::prefetch;
use crate::layout::group::{MyGroup, State};
use crate::layout::record::{FIRST_WIDE, NARROW_SLOTS};
use crate::layout::slot::{Entry, FreeSlot};
use crate::pages::memory::Locked;

/// Empty groups may hold this part of the bytes in a heap's groups, or half of it beside `KEEP`.
const RETAINED_SHARE: usize = 16;

/// A heap settles if no more than this part of the bytes in its groups is live.
const SETTLED_SHARE: usize = 4;
/// Groups that are released before other threads have the lock for a moment.
const MOST_HELD: u32 = 32;

impl<P: Platform> MyHeap<'_, P> {
    /// Puts a slot whose block was just freed into its class's reuse queue. If that is full, one
    /// slot goes to its group's mask: this one if all in the queue are verified, else the oldest;
    /// so none waits longer than 16 further frees. Whenever the slots that are out are a multiple
    /// of 16, a full queue is verified as a whole: in a row of frees the masks then get the slots
    /// themselves. (At each free it would cost programs too much that free and allocate about as
    /// often.) True if the queue has reached its limit, which another thread may have set to ask
    /// for an `exchange`.
    #[inline(never)]
    #[must_use]
    pub fn give(self, class: usize, slot: FreeSlot) -> bool {
        let state = self.class(class);
        if state.ready() == capacity(class)
            && (state.is_verified() || state.out.get() % REUSE_QUEUE as u32 == 0)
        {
            self.verify_queue(class);
            self.spill_slot(class, slot, true);
            return false;
        }
        prefetch(slot.start.wrapping_add(state.stride() - 1));
        self.give_entry(class, slot.entry())
    }

    /// Puts a slot into its class's reuse queue; if that is full, its oldest goes to a mask. The
    /// result is that of `give`.
    #[inline(never)]
    fn give_entry(self, class: usize, entry: Entry) -> bool {
        let state = self.class(class);
        if state.ready() == capacity(class) {
            let oldest = state.take();
            state.give(entry);
            self.spill_slot(class, oldest, true);
            return false;
        }
        state.give(entry);
        if state.has_room() {
            return false;
        }
        if state.has_no_block() {
            self.last_block_went(class);
        } else {
            // More are out by now, perhaps.
            state.limit(class);
        }
        true
    }

    /// In the hardened preset: a freed slot waits in quarantine, at a random place: how long cannot
    /// be foreseen. The one whose turn it is instead goes to its reuse queue. The result is that of
    /// `give`.
    #[must_use]
    pub fn quarantine_slot(self, slot: FreeSlot) -> bool {
        let Some(place) = self.quarantine.get(self.choose(QUARANTINE)) else {
            return false;
        };
        let due = place.replace(slot.entry());
        due != Entry::NONE && self.give_entry(due.slot().group().class(), due)
    }

    /// The group of a slot that came from a reuse queue or the quarantine of the heap.
    fn group_of(self, slot: FreeSlot) -> MyGroup {
        // SAFETY: only slots of the heap's groups enter its queues.
        unsafe { MyGroup::new(slot.group()) }
    }

    /// Counts everything in quarantine as free.
    pub fn empty_quarantine(self) {
        for place in self.quarantine.iter().filter(|_| PRESET.quarantine != 0) {
            let due = place.replace(Entry::NONE);
            if due != Entry::NONE {
                let slot = due.slot();
                let group = self.group_of(slot);
                let class = group.class();
                let bit = 1 << slot.index(class < FIRST_WIDE);
                Self::put_back(|| self, self.class(class), group, bit, 1, false);
            }
        }
    }

    /// Moves all slots of a reuse queue to the masks of their groups.
    #[inline(never)]
    pub fn spill(self, class: usize) {
        let state = self.class(class);
        while state.ready() > 0 {
            let slot = state.take();
            self.spill_slot(class, slot, false);
        }
    }

    /// Moves a slot that is in no reuse queue any more to the mask of its group. The default preset
    /// relies on it that a canary stands in the last byte of a slot with the record `USED`. `away`:
    /// see `put_back`.
    #[inline(never)]
    fn spill_slot(self, class: usize, slot: FreeSlot, away: bool) {
        let (narrow, state) = (class < FIRST_WIDE, self.class(class));
        raise(self.check_freed(narrow, state, slot));
        slot.set_used(narrow);
        let bit = 1 << slot.index(narrow);
        Self::put_back(|| self, state, self.group_of(slot), bit, 1, away);
    }

    /// Sets `count` bits of a group of the heap that `heap` gives (few calls need it), of the class
    /// of `state`, in its mask, and sees to it that the group is found. The slots hold no block,
    /// are in no mask and no queue any more, and their tails are verified. If `away` says so,
    /// looks whether this was the class's last live block.
    #[inline(always)]
    pub fn put_back(
        heap: impl Fn() -> Self,
        state: &Class,
        group: MyGroup,
        bits: u32,
        count: u32,
        away: bool,
    ) {
        let before = group.freed();
        debug_assert!(before & bits == 0, "nobody else gives them back");
        let after = before | bits;
        group.set_freed(after);
        state.out.set(state.out.get() - count);
        if state.stride() >= PURGE_STRIDE {
            let heap = heap();
            heap.idle.add(count as usize * state.stride());
            if heap.idle.is_over() {
                return heap.after_put_back(group, away);
            }
        }
        if state.out.get() <= REUSE_QUEUE as u32 || after == u32::MAX || group.is(State::Unlisted) {
            heap().after_put_back(group, away);
        }
    }

    /// What is seldom to be done after slots were put back.
    #[inline(never)]
    pub fn after_put_back(self, group: MyGroup, away: bool) {
        let class = group.class();
        let state = self.class(class);
        state.limit(class);
        // The masks have some.
        self.keep_low(class);
        if !group.is(State::Current) {
            if group.is(State::Unlisted) {
                state.push(group, &self.retained);
            } else if group.is_empty() {
                state.note_empty(group, &self.retained);
            }
            if group.is_empty() {
                self.release_beyond();
            }
        }
        // Only now, as all groups with free slots are in a queue, or current.
        if self.idle.is_over() {
            self.limit_idle();
        }
        if away && state.has_no_block() {
            self.last_block_went(class);
        }
    }

    /// Lets the youngest in the reuse queue wait a while: malloc takes from masks, which have some.
    pub fn keep_low(self, class: usize) {
        self.class(class).low.set(capacity(class) as u8 / 4);
    }

    /// Empties the reuse queue of a class without a live block: its groups become empty.
    #[cold]
    #[inline(never)]
    fn empty_class(self, class: usize) {
        self.class(class).had.set(Had::Little);
        self.spill(class);
        self.retire(class);
    }

    /// What follows when the last live block of a class went.
    #[cold]
    #[inline(never)]
    fn last_block_went(self, class: usize) {
        let state = self.class(class);
        let had = state.had.get();
        if had == Had::Much {
            self.empty_class(class);
            self.release_beyond();
        } else {
            state.had.set(Had::Little);
            state.limit(class);
        }
        // A handful of blocks that come and go in turn do not ask each time.
        if had != Had::Little {
            self.settle(class);
        }
    }

    /// Gives back what the heap keeps of each kind, and the process's dirty pages, where that is
    /// more than what is live, once most of what the heap had is gone: perhaps no further free will
    /// come. Not more often than decay.rs says: a program that builds up and drops all it has,
    /// again and again, mostly finds what it kept. Class `last` keeps what it may: most blocks that
    /// are freed twice, or written once more, are so right after their free.
    fn settle(self, last: usize) {
        let live: usize = self.classes().map(|(_, state)| state.live()).sum();
        let little = live <= self.bytes.get() / SETTLED_SHARE;
        if !little || !self.settled.ask().is_due(self.platform(), live) {
            return;
        }
        self.let_go(last);
        self.release_empty(!(1 << last));
        if self.idle.amount() > live {
            self.purge_idle();
        }
        if self.idle_granules.amount() * GRANULE > live {
            self.purge_granules();
        }
        // Many heaps together ask for the pages that all of them use as often as one may.
        let alone = self.all.count() < 2;
        self.all.memory.lock().pages.purge_beyond(live, alone);
    }

    /// Has the groups of all classes of which the program has no block become empty, but for class
    /// `spared` (`CLASSES`: for none). A bit for each of these classes.
    #[cold]
    #[inline(never)]
    pub fn let_go(self, spared: usize) -> u64 {
        let mut bare = 0;
        for (class, state) in self.classes().filter(|&(class, _)| class != spared) {
            if state.has_no_block() {
                self.empty_class(class);
                bare |= 1 << class;
            }
        }
        bare
    }

    /// Bytes in groups of classes of which the program has no block.
    pub fn bare(self) -> usize {
        let bare = self.classes().filter(|(_, state)| state.has_no_block());
        bare.map(|(class, state)| self.slots[class].get() as usize * state.stride())
            .sum()
    }

    /// Lets a class have no current group: it goes to the queue if it has free slots.
    pub fn retire(self, class: usize) {
        let state = self.class(class);
        let Some(group) = state.current.take() else {
            return;
        };
        group.set_freed(group.freed() | state.avail.replace(0));
        if group.free_slots() != 0 {
            state.push(group, &self.retained);
        } else {
            group.set(State::Unlisted);
        }
    }

    /// Releases all empty groups once there are too many bytes in them: few enough to return to
    /// where a program started, enough for the next burst. As a part of the heap they grow with it,
    /// because the sweep walks its queues.
    #[inline(always)]
    fn release_beyond(self) {
        let part = self.bytes.get() / RETAINED_SHARE;
        let most = (self.all.share(4 * KEEP) + part / 2).max(part);
        if self.retained.get() > most {
            self.release_empty(u64::MAX);
        }
    }

    /// Releases the empty groups of some classes. Takes the lock once for many of them, if runs or
    /// spans go back.
    #[inline(never)]
    pub fn release_empty(self, classes: u64) {
        if self.retained.get() == 0 {
            return;
        }
        let (mut locked, mut held): (Option<Locked<'_, P>>, u32) = (None, 0);
        for class in (0..CLASSES).filter(|class| classes & 1 << class != 0) {
            self.class(class).drop_empty(&self.retained, |group| {
                self.release_group(group, &mut locked);
                held += locked.is_some() as u32;
                if held % MOST_HELD == 0 {
                    // To find the next one may take a long walk.
                    locked = None;
                }
            });
        }
    }
}

const _: () = assert!(NARROW_SLOTS == 32 && CLASSES <= 64);
