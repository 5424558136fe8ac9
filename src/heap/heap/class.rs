//! A size class in a heap: the slots at hand, and the queue of groups behind them.
//!
//! The reuse queue stands before the groups' masks. A freed slot enters at its tail and is handed
//! out again from its head, after all that were freed before it; when the queue is full a slot goes
//! to its group's mask, when it runs low malloc takes from a mask. So a program that replaces
//! blocks all over a large heap hardly ever touches the masks: without the queue two of three
//! mallocs would have to find another group, as most groups have one or two free slots only.
//!
//! The tail of a freed slot is verified when the slot leaves the queue, either way: its line was
//! asked for when the slot entered, and has come in the meantime. **No slot is reused, and no group
//! released, before its tails are verified.**

use crate::base::config::{CLASSES, KEEP_CLASS, PRESET, REUSE_QUEUE, UNIT};
use crate::base::places::places;
use crate::base::size_class::{stride, Geometry, TABLE};
use crate::base::sync::Ordering::{Acquire, Relaxed, Release};
use crate::base::sync::{compiler_fence, fence, publish, AtomicPtr, AtomicU32, AtomicU8};
use crate::base::zeroed::Zeroed;
use crate::layout::group::{MyGroup, State};
use crate::layout::record::FIRST_WIDE;
use crate::layout::slot::{Entry, FreeSlot};
use core::cell::Cell;

/// Bytes of slots that the reuse queue of a wide class may hold.
const WIDE_BYTES: usize = 16 << 10;

/// Turns of an empty loop in which a processor has long shown its stores to all others.
const SETTLED: u32 = 10_000;

/// Slots that the reuse queue of `class` holds at most.
pub const fn capacity(class: usize) -> u32 {
    CAPACITY[class % TABLE] as u32
}

static CAPACITY: [u8; TABLE] = {
    let mut table = [REUSE_QUEUE as u8; TABLE];
    let mut class = FIRST_WIDE;
    while class < CLASSES {
        let count = WIDE_BYTES / stride(class);
        if count < 2 {
            table[class] = 2;
        } else if count < REUSE_QUEUE {
            table[class] = count as u8;
        }
        class += 1;
    }
    table
};

/// How many bytes of a class a program had: what is to be done when the last live block goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Had {
    /// Nothing.
    Little = 0,
    /// The heap may settle.
    Some,
    /// So it may, and the class's groups go.
    Much,
}

/// The state of a size class in a heap: what malloc and free need of it in one cache line, and the
/// reuse queue behind it. Freed slots at hand are in the queue, and those of one group, the current
/// one, in `avail`.
#[repr(C, align(64))]
pub struct Class {
    /// Position of the oldest slot in the reuse queue. The owner's, as all of a class, but at exit
    /// another thread looks at it, at `tail` and at `queue`, see `watch`.
    head: AtomicU32,
    /// Position behind the youngest.
    tail: AtomicU32,
    /// malloc leaves this many in the queue while the masks have others.
    pub low: Cell<u8>,
    /// A free that finds this many in the queue takes a longer path, see `limit`. Another thread
    /// may set it to 0, see `ask`.
    high: AtomicU8,
    /// The class's canary. Fixed from `set_up` on, as `stride` and `reciprocal`.
    pub canary: Cell<u8>,
    /// What the program had of the class since its last live block went.
    pub had: Cell<Had>,
    /// What moves blocks within their slots: `far` of `record::narrow_offset`, or, if the class is
    /// wide, `cycle` of `wide_place`.
    pub cycle: Cell<u16>,
    /// What `tail` was, without its upper half, when all in the queue were verified.
    verified: Cell<u16>,
    /// Bytes of a slot; 0 before the first group.
    stride: Cell<u32>,
    /// See `size_class::Geometry`.
    reciprocal: Cell<u32>,
    /// Slots of the current group that malloc may take. They are in no group's `freed`.
    pub avail: Cell<u32>,
    /// Slots with the program, in quarantine or in the queue.
    pub out: Cell<u32>,
    /// The current group; None before the first.
    pub current: Cell<Option<MyGroup>>,
    /// Its first slot.
    pub base: Cell<*mut u8>,
    /// The youngest of the groups with free slots, whose `next` is the oldest: a circle. The
    /// current group is not among them.
    last: Cell<Option<MyGroup>>,
    /// Their number.
    pub queued: Cell<u32>,
    /// How many of them are empty.
    pub empty: Cell<u32>,
    /// The reuse queue.
    queue: Queue,
}

/// A reuse queue, on lines of its own: the slots' addresses, and where their records are.
#[repr(C, align(64))]
struct Queue {
    starts: [AtomicPtr<u8>; REUSE_QUEUE],
    places: [Cell<u32>; REUSE_QUEUE],
}

// SAFETY: cells and atomics of numbers and pointers, of references behind an Option, and of a `Had`,
// which may be 0; no slots, no groups.
unsafe impl Zeroed for Class {}

impl Class {
    /// Where its fields are: head and tail of the reuse queue, avail, numbers of queued and of empty
    /// groups, the queue's addresses and places; and the size of a class.
    pub const FIELDS: [usize; 8] = places!(Class:
        head, tail, avail, queued, empty, queue.starts, queue.places;
        size_of::<Class>());

    /// Readies the class before its first group comes: no earlier, as the state of a class that a
    /// thread does not use stays untouched memory.
    pub fn set_up(&self, class: usize, canary: u8) {
        self.canary.set(canary);
        let geometry = Geometry::of(class);
        if self.stride.get() == 0 {
            self.cycle
                .set((geometry.stride as usize - PRESET.guard) as u16);
        }
        self.stride.set(geometry.stride);
        self.reciprocal.set(geometry.reciprocal);
    }

    /// What its slots are like; zero before `set_up`.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            stride: self.stride.get(),
            reciprocal: self.reciprocal.get(),
        }
    }

    /// Moves the blocks to come by a unit, to and fro, if the class is narrow.
    pub fn turn(&self) {
        let far = self.stride() - PRESET.guard;
        let turned = self.cycle.get() as usize ^ far ^ far.saturating_sub(UNIT);
        self.cycle.set(turned as u16);
    }

    /// Bytes of a slot; 0 before `set_up`.
    pub fn stride(&self) -> usize {
        self.stride.get() as usize
    }

    // The reuse queue.

    /// Position of the oldest slot, for the owner: plain, as loads that are atomic would be made
    /// anew each time.
    fn head(&self) -> u32 {
        // SAFETY: the owner alone writes it, and whoever watches only reads.
        unsafe { self.head.as_ptr().read() }
    }

    /// Position behind the youngest, for the owner.
    fn tail(&self) -> u32 {
        // SAFETY: see `head`.
        unsafe { self.tail.as_ptr().read() }
    }

    /// Slots in the queue.
    pub fn ready(&self) -> u32 {
        self.tail().wrapping_sub(self.head())
    }

    /// Whether malloc may take one: there are more than it leaves.
    pub fn has_ready(&self) -> bool {
        self.ready() as u8 > self.low.get()
    }

    /// Whether malloc finds a slot at hand.
    pub fn has_slot(&self) -> bool {
        self.has_ready() || self.avail.get() != 0
    }

    /// Whether there are `most` in the queue, and none entered it since all were verified. Atomic
    /// loads, though the owner asks: the compiler then keeps nothing that `has_room` loaded in a
    /// register.
    #[inline(always)]
    pub fn is_full_and_verified(&self, most: u32) -> bool {
        let tail = self.tail.load(Relaxed);
        tail as u16 == self.verified.get() && tail.wrapping_sub(self.head.load(Relaxed)) == most
    }

    /// Whether a free finds the queue below its limit.
    pub fn has_room(&self) -> bool {
        (self.ready() as u8) < self.high.load(Relaxed)
    }

    /// Adds a slot; the queue is not full.
    pub fn give(&self, entry: Entry) {
        let place = self.tail() as usize % REUSE_QUEUE;
        self.queue.starts[place].store(entry.start, Relaxed);
        self.queue.places[place].set(entry.place);
        // Whoever watches and counts the slot finds its address and canaries.
        publish(&self.tail, self.tail.load(Relaxed).wrapping_add(1));
    }

    /// Takes the oldest slot; the queue is not empty.
    #[inline(always)]
    pub fn take(&self) -> FreeSlot {
        let entry = self.at(self.head());
        self.leave();
        entry.slot()
    }

    /// Lets the oldest slot be out of the queue, before anything is written to it: whoever watches
    /// must not take that for damage. The compiler keeps that order, see `watch` for the machine.
    #[inline(always)]
    fn leave(&self) {
        self.head
            .store(self.head.load(Relaxed).wrapping_add(1), Relaxed);
        compiler_fence(Release);
    }

    /// In another thread than the owner's: shows `look` the addresses in the queue, oldest first,
    /// until it finds something wrong with a slot that was in the queue all the while. The owner
    /// may be at work: what `look` is shown may be anybody's by then, or no slot any more.
    ///
    /// Positions only grow. So a slot at a position that is not below the head after the look was
    /// in the queue before it, and the owner has written nothing to it since: it writes the head
    /// first. Where processors may show these two writes the other way round, that lasts no longer
    /// than a store waits in a processor: what errs is looked at once more, much later.
    pub fn watch<E>(&self, look: impl Fn(*mut u8) -> Result<(), E>) -> Result<(), E> {
        // Relaxed, here and below: what is read behind it is looked at once more if it errs.
        let mut position = self.head.load(Relaxed);
        // Acquire: see `give`.
        while (1..=REUSE_QUEUE as u32).contains(&self.tail.load(Acquire).wrapping_sub(position)) {
            let start = &self.queue.starts[position as usize % REUSE_QUEUE];
            let look = || {
                let looked = look(start.load(Relaxed));
                // Acquire: the head is read behind all that `look` reads.
                fence(Acquire);
                let left = self.head.load(Relaxed).wrapping_sub(position) as i32 > 0;
                looked.or_else(|wrong| if left { Ok(()) } else { Err(wrong) })
            };
            if look().is_err() {
                (0..SETTLED).for_each(|_| core::hint::spin_loop());
                look()?;
            }
            position = position.wrapping_add(1);
        }
        Ok(())
    }

    /// What stands at a position.
    #[inline(always)]
    fn at(&self, position: u32) -> Entry {
        let place = position as usize % REUSE_QUEUE;
        Entry {
            start: self.queue.starts[place].load(Relaxed),
            place: self.queue.places[place].get(),
        }
    }

    /// The slots in the queue, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.ready()).map(|i| self.at(self.head().wrapping_add(i)))
    }

    /// Whether no slot entered the queue since all in it were verified. (After 65,536 slots that
    /// came and went in between, one time in 4096 some are taken for verified; they are verified
    /// when they leave the queue.)
    pub fn is_verified(&self) -> bool {
        self.tail() as u16 == self.verified.get()
    }

    /// Lets all slots in the queue count as not verified.
    pub fn forget_verified(&self) {
        self.verified.set(self.head() as u16);
    }

    /// Counts all slots in the queue as verified, and gives those that were not so far to `check`,
    /// which says whether one is sound. The first that is not is taken out of the queue; returned.
    #[inline(always)]
    pub fn verify<E>(&self, check: impl Fn(FreeSlot) -> Result<(), E>) -> Result<(), E> {
        let tail = self.tail();
        let entered = (tail as u16).wrapping_sub(self.verified.replace(tail as u16));
        let mut position = tail.wrapping_sub(self.ready().min(entered.into()));
        while position != tail {
            let checked = check(self.at(position).slot());
            if checked.is_err() {
                // A handler's malloc is not to come upon it.
                self.remove(position);
                return checked;
            }
            position = position.wrapping_add(1);
        }
        Ok(())
    }

    /// Takes out what stands at a position.
    #[cold]
    fn remove(&self, position: u32) {
        let (place, oldest) = (
            position as usize % REUSE_QUEUE,
            self.head() as usize % REUSE_QUEUE,
        );
        self.queue.starts[place].store(self.queue.starts[oldest].load(Relaxed), Relaxed);
        self.queue.places[place].set(self.queue.places[oldest].get());
        self.leave();
    }

    /// Notes, at a refill, how much the program has of the class. Not by what groups there are: a
    /// class that was put away and is used for a block now and then would be put away each time.
    pub fn note_had(&self, class: usize) {
        let bytes = self.out.get() as usize * self.stride();
        let had = if bytes > KEEP_CLASS {
            Had::Much
        } else if bytes > KEEP_CLASS / 8 {
            Had::Some
        } else {
            Had::Little
        };
        if had > self.had.get() {
            self.had.set(had);
            self.limit(class);
        }
    }

    /// Sets the limit of the queue, after `out` fell or `had` changed (after `out` rose it is only
    /// lower than need be). Slots in a queue keep their groups alive, up to 16 of 128 KiB, and a
    /// program that has freed all it had comes by no slow path any more: so unless the class has
    /// little, the free of its last live block is to take one.
    #[inline(always)]
    pub fn limit(&self, class: usize) {
        let most = capacity(class);
        let high = match self.had.get() {
            Had::Little => most,
            _ => most.min(self.out.get().saturating_sub(1)),
        };
        // Relaxed, here and in `ask`: it orders nothing. What was asked meanwhile may get lost.
        self.high.store(high as u8, Relaxed);
    }

    /// In another thread than the owner's: has the owner's next free in this class take the longer
    /// path. Unused classes stay untouched memory.
    pub fn ask(&self) {
        if self.high.load(Relaxed) != 0 {
            self.high.store(0, Relaxed);
        }
    }

    /// Whether the program has no block of it: all that is out is in the queue.
    pub fn has_no_block(&self) -> bool {
        self.ready() == self.out.get()
    }

    /// Bytes of slots that are with the program, or in quarantine.
    pub fn live(&self) -> usize {
        (self.out.get() - self.ready()) as usize * self.stride()
    }

    // The queue of groups. `retained` are the heap's bytes in empty groups.

    /// Puts a group, the heap's own and in no queue, at the end.
    pub fn push(&self, group: MyGroup, retained: &Cell<usize>) {
        group.set(State::Queued);
        match self.last.replace(Some(group)) {
            None => group.set_next(Some(group.group())),
            Some(last) => {
                group.set_next(last.next());
                last.set_next(Some(group.group()));
            }
        }
        self.queued.set(self.queued.get() + 1);
        if group.is_empty() {
            self.note_empty(group, retained);
        }
    }

    /// Notes that a group in the queue has become empty.
    pub fn note_empty(&self, group: MyGroup, retained: &Cell<usize>) {
        self.empty.set(self.empty.get() + 1);
        retained.set(retained.get() + group.bytes());
    }

    /// Takes the group at the head.
    pub fn pop(&self, retained: &Cell<usize>) -> Option<MyGroup> {
        self.take_behind(self.last.get()?, retained)
    }

    /// Takes the group behind `before` out of the queue.
    fn take_behind(&self, before: MyGroup, retained: &Cell<usize>) -> Option<MyGroup> {
        let group = self.behind(before)?;
        before.set_next(group.next());
        if self.last.get().is_some_and(|last| last.is_same(&group)) {
            self.last.set((!before.is_same(&group)).then_some(before));
        }
        self.queued.set(self.queued.get() - 1);
        if group.is_empty() {
            self.empty.set(self.empty.get() - 1);
            retained.set(retained.get() - group.bytes());
        }
        Some(group)
    }

    /// The group behind `before`, which is in the queue.
    fn behind(&self, before: MyGroup) -> Option<MyGroup> {
        let group = before.next()?;
        // SAFETY: `push` alone enters groups, which came as the holder's of this class.
        Some(unsafe { MyGroup::new(group) })
    }

    /// The groups, oldest first.
    pub fn groups(&self) -> impl Iterator<Item = MyGroup> + '_ {
        let oldest = self.last.get().and_then(|last| self.behind(last));
        core::iter::successors(oldest, |group| self.behind(*group)).take(self.queued.get() as usize)
    }

    /// The groups that have free slots, and which slots of each are free and in no queue of slots:
    /// those in the queue, oldest first, then the current one.
    pub fn free_groups(&self) -> impl Iterator<Item = (MyGroup, u32)> + '_ {
        let of_current = |group: MyGroup| (group, group.free_slots() | self.avail.get());
        let queued = self.groups().map(|group| (group, group.free_slots()));
        queued.chain(self.current.get().map(of_current))
    }

    /// Whether `group` is the youngest of them, or there is none.
    #[cfg(any(test, feature = "model"))]
    pub fn ends_with(&self, group: Option<MyGroup>) -> bool {
        match (self.last.get(), group) {
            (Some(last), Some(group)) => last.is_same(&group),
            (None, None) => true,
            _ => false,
        }
    }

    /// Takes every empty group out of the queue and gives it to `release`.
    pub fn drop_empty(&self, retained: &Cell<usize>, mut release: impl FnMut(MyGroup)) {
        let mut before = self.last.get();
        // Once round at most: `empty` may be too high, if a handler of a signal interrupted
        // `take_behind` and has called exit.
        for _ in 0..self.queued.get() {
            let Some(here) = before.filter(|_| self.empty.get() > 0) else {
                return;
            };
            match self.behind(here).filter(|next| next.is_empty()) {
                Some(_) => {
                    if let Some(group) = self.take_behind(here, retained) {
                        release(group);
                    }
                }
                None => before = self.behind(here),
            }
        }
    }
}

#[cfg(not(any(loom, small_constants)))]
const _: () = {
    assert!(
        core::mem::offset_of!(Class, queue) == 64,
        "one line before the reuse queue"
    );
    // A line for eight addresses, or for 16 on 32 bits; and one for all places.
    assert!(size_of::<Class>() == 128 + 16 * size_of::<usize>());
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr;

    /// An entry that nobody looks behind.
    fn entry(number: usize) -> Entry {
        Entry {
            start: ptr::without_provenance_mut(number << 4),
            place: number as u32,
        }
    }

    /// The numbers of the entries, oldest first.
    fn numbers(state: &Class) -> Vec<u32> {
        state.entries().map(|entry| entry.place).collect()
    }

    #[test]
    fn slots_leave_the_queue_in_the_order_in_which_they_came() {
        let state = Class::ZERO;
        let (mut next, mut oldest) = (0, 0);
        for round in 0..if cfg!(miri) { 1000 } else { 100_000 } {
            if state.ready() < 1 + round % REUSE_QUEUE as u32 {
                state.give(entry(next));
                next += 1;
            } else {
                assert_eq!(state.take().start, entry(oldest).start);
                oldest += 1;
            }
            assert_eq!(state.ready() as usize, next - oldest);
        }
    }

    #[test]
    fn slots_are_verified_once() {
        let state = Class::ZERO;
        let seen = Cell::new(0);
        let check = |_| {
            seen.set(seen.get() + 1);
            Ok::<(), ()>(())
        };
        (0..3).for_each(|number| state.give(entry(number)));
        assert!(!state.is_verified());
        assert_eq!((state.verify(check), seen.get()), (Ok(()), 3));
        assert!(state.is_verified());
        state.give(entry(3));
        assert!(!state.is_verified());
        assert_eq!((state.verify(check), seen.get()), (Ok(()), 4));
        state.take();
        assert!(state.is_verified());
        state.forget_verified();
        assert_eq!((state.verify(check), seen.get()), (Ok(()), 7));
    }

    #[test]
    fn a_slot_that_is_not_sound_leaves_the_queue() {
        let state = Class::ZERO;
        (0..4).for_each(|number| state.give(entry(number)));
        let bad = entry(2).start;
        let check = |slot: FreeSlot| if slot.start == bad { Err(()) } else { Ok(()) };
        assert_eq!(state.verify(check), Err(()));
        let mut left = numbers(&state);
        left.sort_unstable();
        assert_eq!(left, [0, 1, 3]);
        state.forget_verified();
        assert_eq!(state.verify(check), Ok(()));
    }
}
