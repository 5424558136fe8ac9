//! free: pointer, record, owner, reuse queue or mask.
//!
//! ```text
//! free               pagemap → chunk's map → group, of this thread's heap:    layout/
//!   LiveSlot::find     the record tells of a live block that starts here      layout/slot.rs
//!   Class::give        there is room in the reuse queue                       heap/class.rs
//!   free_at_limit      there is none:
//!     put_back           the slot, verified now, goes to its group's mask     heap/put_back.rs
//! free_by_queue      or the queue's oldest does:
//!   MyHeap::give                                                              heap/put_back.rs
//!     release_group      empty groups beyond what may be kept                 heap/groups.rs
//!     settle             little is left of what the heap had                  heap/put_back.rs
//!   exchange           or another thread asked for what waits in the mailbox  heap/remote.rs
//! free_remote        another heap's group of which slots are deferred: verify, clear the record
//!   defer_another      the slot's bit waits with theirs                       heap/remote.rs
//! free_rare          any other block of another heap: verified and cleared, too; a slot of a
//!                    narrow class is deferred, a wide one sent at once; heaps that a fork left
//!                                                                             heap/orphans.rs
//!   Heaps::send        many go to the owner at once                           exchange/
//! free_slow          no size class has it, or the byte before it was written
//!   free_outside       a large block by its address, or one of no bytes       pages/large.rs
//!     Leaving            what takes the system long goes without the lock
//!     refuse             none is there: the name of the misuse
//! ```

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, PRESET, REUSE_QUEUE, UNIT};
use crate::base::fault::{raise, stop, Fault};
use crate::base::platform::Platform;
use crate::base::size_class::{may_hold, Geometry};
use crate::heap::class::{capacity, Class};
use crate::heap::heap::{MyHeap, Whose};
use crate::heap::orphans;
use crate::heap::take::prefetch;
use crate::layout::group::{Group, MyGroup, State, CLASS_NONE, CLASS_NO_BYTES};
use crate::layout::record::{max_tail, FIRST_WIDE, MAX_FINE, NEW, ZERO};
use crate::layout::slot::{FreeSlot, LiveSlot};
use crate::note;
use crate::pages::large::Freed;

/// A thread without a heap gets one, to defer frees in, with a free of one of these slots. One that
/// frees once or twice in its life and never allocates mostly does without.
const ATTACHING_SLOTS: usize = 4;

impl<P: Platform> Allocator<P> {
    /// Frees a block; null is no block. Stops the process on any other pointer. Keeps errno.
    ///
    /// # Safety
    /// The program does not use the block any more.
    #[inline(always)]
    pub unsafe fn free(&self, block: *mut u8) {
        if let Some(chunk) = self.heaps.memory.system.pagemap.chunk(block.addr()) {
            let heap = self.mine();
            let group = chunk.group_at(block.addr());
            match heap.whose(group) {
                Whose::Narrow(..) | Whose::Wide(..) if PRESET.quarantine != 0 => {
                    return self.free_to_quarantine(block, group)
                }
                Whose::Narrow(mine, class) => {
                    if self.free_own(true, block, heap, mine, class, |_| true) {
                        return;
                    }
                }
                Whose::Wide(mine) => return self.free_wide(block, heap, mine),
                Whose::Others if group.class() < CLASSES => return self.free_remote(block, group),
                Whose::Others => {}
            }
        }
        self.free_slow(block)
    }

    /// free of a block in a group of this thread's heap, of a wide class.
    #[inline(never)]
    fn free_wide(&self, block: *mut u8, heap: MyHeap<'_, P>, group: MyGroup) {
        let class = group.class();
        if P::SHORTCUTS && heap.class(class).stride() > MAX_FINE {
            return self.free_coarse(block, heap, group);
        }
        if !self.free_own(false, block, heap, group, class, |_| true) {
            self.free_slow(block);
        }
    }

    /// free of a block of a wide class whose offsets have long steps. Apart, as these are compared
    /// in another way.
    #[inline(never)]
    fn free_coarse(&self, block: *mut u8, heap: MyHeap<'_, P>, group: MyGroup) {
        if !self.free_own(false, block, heap, group, group.class(), |_| true) {
            self.free_slow(block);
        }
    }

    /// free of a block in a group of this thread's heap, the kind of whose class `narrow` tells.
    /// The heap has at hand what the class's slots are like; the empty heap's classes have none,
    /// and no record fits. `fits` judges the block. False, and nothing is changed: no live block
    /// starts there, or it does not fit, or the byte before it was written.
    #[inline(always)]
    fn free_own(
        &self,
        narrow: bool,
        block: *mut u8,
        heap: MyHeap<'_, P>,
        group: MyGroup,
        class: usize,
        fits: impl FnOnce(&LiveSlot) -> bool,
    ) -> bool {
        let state = heap.class(class);
        let Some(slot) = LiveSlot::find(narrow, group.group(), class, block, state.geometry())
        else {
            return false;
        };
        if !narrow && !slot.has_front(state.canary.get()) || !fits(&slot) {
            return false;
        }
        if state.has_room() {
            // The record first: a handler of a signal may call exit, which looks at the queue.
            slot.free(narrow);
            state.give(slot.entry(narrow));
            // Its first canary mostly lies in the same line.
            prefetch(slot.start.wrapping_add(slot.stride - 1));
        } else if narrow {
            self.free_at_limit::<true>(slot.start, group, slot.index, state, slot.less);
        } else {
            self.free_at_limit::<false>(slot.start, group, slot.index, state, slot.less);
        }
        true
    }

    /// Frees slot `index` of a group of this thread's heap, which starts at `start`, while the
    /// class's queue is at its limit: with a full queue, all of it verified, into the group's mask,
    /// its tail of `less + 1` bytes verified here and now. In line, and calls nothing it returns
    /// from: free has just as many registers at hand as it takes.
    #[inline(always)]
    fn free_at_limit<const NARROW: bool>(
        &self,
        start: *mut u8,
        group: MyGroup,
        index: usize,
        state: &Class,
        less: usize,
    ) {
        // SAFETY: `free_own` found the caller's live block there, which it frees.
        let slot = unsafe { FreeSlot::of(NARROW, group.group(), index, start) };
        // In libc's core rows of frees of wide classes, which are rarer, go the other way.
        let may = NARROW || P::SHORTCUTS;
        let most = if NARROW {
            REUSE_QUEUE as u32
        } else {
            capacity(group.class())
        };
        let sound = || {
            slot.check_tail(state.stride(), less + 1, state.canary.get())
                .is_ok()
        };
        if !may || !state.is_full_and_verified(most) || !sound() {
            return self.free_by_queue::<NARROW>(start, group, index, less);
        }
        slot.set_used(NARROW);
        MyHeap::put_back(|| self.mine(), state, group, 1 << index, 1, true);
    }

    /// Frees a slot of this thread's heap by way of the class's reuse queue. Whatever is wrong with
    /// the tail is found when the slot leaves it.
    #[inline(never)]
    fn free_by_queue<const NARROW: bool>(
        &self,
        start: *mut u8,
        group: MyGroup,
        index: usize,
        less: usize,
    ) {
        // SAFETY: see `free_at_limit`.
        let slot = unsafe { FreeSlot::of(NARROW, group.group(), index, start) };
        slot.set_freed(NARROW, less + 1);
        let heap = self.mine();
        if heap.give(group.class(), slot) {
            heap.exchange();
        }
    }

    /// free in the hardened preset: the block is verified at once, and its slot waits in
    /// quarantine.
    #[inline(never)]
    fn free_to_quarantine(&self, block: *mut u8, group: &'static Group) {
        let Some(slot) = LiveSlot::find_any(group, block) else {
            return self.free_slow(block);
        };
        raise(self.heaps.check_around(&slot));
        let free = slot.held(slot.class < FIRST_WIDE);
        slot.clear_record();
        slot.clear_memory();
        let heap = self.mine();
        if heap.quarantine_slot(free) {
            heap.exchange();
        }
    }

    /// free of a block in a group of another heap: verified and marked as dead here and now, as its
    /// lines are likely in this thread's cache; sent to the owner later. If slots of its group are
    /// deferred already, as only those of narrow classes are, without a call.
    #[inline(never)]
    fn free_remote(&self, block: *mut u8, group: &'static Group) {
        let heap = self.mine();
        if heap.deferred.holds(group) {
            let class = group.class();
            if let Some(slot) = LiveSlot::find(true, group, class, block, Geometry::of(class)) {
                raise(self.heaps.check_around_narrow(&slot));
                slot.held(true).set_used(true);
                slot.clear_memory();
                note!(RemoteFree);
                return heap.defer_another(&slot);
            }
        }
        self.free_rare(block, group)
    }

    /// Defers the free of a slot, or sends it, in a thread that had no heap so far: it gets one, if
    /// it frees others' blocks again and again.
    #[cold]
    fn defer_without_heap(&self, slot: &LiveSlot) {
        let attaches = slot.index % ATTACHING_SLOTS == ATTACHING_SLOTS - 1;
        if attaches && self.platform().frees_often() {
            self.attach();
            self.end_loan();
        }
        let heap = self.mine();
        // It may be the group's owner by now.
        if heap.is_empty() || slot.group.owner() == heap.id() {
            return self.heaps.send(slot.group, slot.bit());
        }
        heap.defer(slot)
    }

    /// free of a block in any group of another heap, or of an orphaned heap, or of none.
    #[inline(never)]
    fn free_rare(&self, block: *mut u8, group: &'static Group) {
        let Some(slot) = LiveSlot::find_any(group, block) else {
            // A large block's mapping may share the window of a chunk that is just being made.
            return self.free_slow(block);
        };
        if self.heaps.is_orphan(group) {
            return orphans::free(&self.heaps, &slot);
        }
        raise(self.heaps.check_around(&slot));
        // Before the bit goes out: afterwards the owner may write a new record.
        note!(RemoteFree);
        slot.clear_record();
        slot.clear_memory();
        if slot.class >= FIRST_WIDE {
            return self.heaps.send(group, slot.bit());
        }
        let heap = self.mine();
        if heap.is_empty() {
            return self.defer_without_heap(&slot);
        }
        heap.defer(&slot)
    }

    /// free of whatever is no live block of a size class: null, large blocks, blocks of no bytes,
    /// misuse. What changes under the lock is looked up when it is held: another thread may free
    /// the same block meanwhile.
    #[inline(never)]
    fn free_slow(&self, block: *mut u8) {
        // Before registers are saved.
        if !block.is_null() {
            self.free_outside(block);
        }
    }

    /// Frees a block of no size class, or stops the process.
    #[inline(never)]
    fn free_outside(&self, block: *mut u8) {
        let freed = self.heaps.memory.locked(|locked| {
            if let Some(slot) = self.find_no_bytes(block) {
                locked.no_bytes.free(slot.group, slot.index);
                return Ok(Freed::Whole);
            }
            locked.free_large(block)
        });
        match freed {
            Freed::None => self.refuse(block),
            Freed::Whole => {}
            Freed::But(leaving) => {
                let left = leaving.give_back(self.platform());
                self.heaps.memory.lock().free_left(left);
            }
        }
    }

    /// The group at an address, of a size class or of blocks of no bytes; None outside of groups.
    #[inline(never)]
    pub(crate) fn group_at(&self, pointer: *mut u8) -> Option<&'static Group> {
        let chunk = self.heaps.memory.system.pagemap.any_chunk(pointer.addr())?;
        Some(chunk.group_at(pointer.addr())).filter(|group| group.class() < CLASS_NONE)
    }

    /// The slot of the live block that starts exactly at `block`, in a size class. None for
    /// anything else, large blocks included. Without a call, as each realloc that moves asks it.
    #[inline(never)]
    pub(crate) fn find(&self, block: *mut u8) -> Option<LiveSlot> {
        let chunk = self.heaps.memory.system.pagemap.chunk(block.addr())?;
        let group = chunk.group_at(block.addr());
        let class = group.class();
        let geometry = Geometry::of(class);
        if class < FIRST_WIDE {
            LiveSlot::find(true, group, class, block, geometry)
        } else if class < CLASSES {
            LiveSlot::find(false, group, class, block, geometry)
        } else {
            None
        }
    }

    /// The slot of the live block of no bytes that starts exactly at `block`.
    fn find_no_bytes(&self, block: *mut u8) -> Option<LiveSlot> {
        let group = self
            .group_at(block)
            .filter(|group| group.class() == CLASS_NO_BYTES)?;
        LiveSlot::find_any(group, block)
    }

    /// Bytes of the block at `block`, which no size class has. Stops the process if no live block
    /// starts there.
    #[inline(never)]
    pub(crate) fn length_outside(&self, block: *mut u8) -> usize {
        if self.find_no_bytes(block).is_some() {
            return 0;
        }
        let length = self
            .heaps
            .memory
            .lock()
            .large
            .find(block)
            .map(|extent| extent.n.get());
        length.unwrap_or_else(|| self.refuse(block))
    }

    /// Stops the process, as no live block starts at `block`, or one that was written before.
    #[cold]
    pub(crate) fn refuse(&self, block: *mut u8) -> ! {
        if let Some(slot) = self.find(block) {
            raise(self.heaps.check_around(&slot));
        }
        stop(self.classify(block), block.addr())
    }

    /// The name of the misuse: freed blocks' starts are double frees, all else is invalid.
    fn classify(&self, block: *mut u8) -> Fault {
        let slot_freed = self.group_at(block).is_some_and(|group| {
            let distance = group.distance(block.addr());
            let index = distance / Geometry::of(group.class()).stride as usize;
            index < group.capacity()
                && distance % UNIT == 0
                && !group.holds_block(index)
                && !self.is_unused(group, index)
        });
        let large = &self.heaps.memory.lock().large;
        if slot_freed || large.was_freed(self.platform(), block) {
            Fault::DoubleFree
        } else {
            Fault::InvalidPointer
        }
    }

    /// Whether slot `index`, which holds no block, was never handed out since its group was made:
    /// in a mask the record is a mark, in a reuse queue it may look like one. Another thread's mask
    /// may change meanwhile: then the name of the fault may be the other.
    pub(crate) fn is_unused(&self, group: &Group, index: usize) -> bool {
        let record = group.record(index);
        (record == NEW.into() || record == ZERO.into())
            && (self.avail(group) | group.freed()) & 1 << index != 0
    }

    /// Slots of a group that malloc may take and that are in no mask of the group.
    pub(crate) fn avail(&self, group: &Group) -> u32 {
        if !group.is(State::Current) {
            return 0;
        }
        self.heaps.owner_of(group).peek_avail(group.class())
    }

    /// free_sized: frees a block that was asked for with this size. Stops the process if that cannot
    /// be.
    ///
    /// # Safety
    /// The program does not use the block any more.
    #[inline(always)]
    pub unsafe fn free_sized(&self, block: *mut u8, n: usize) {
        if PRESET.quarantine == 0 {
            if let Some(chunk) = self.heaps.memory.system.pagemap.chunk(block.addr()) {
                let heap = self.mine();
                if let Whose::Narrow(mine, class) = heap.whose(chunk.group_at(block.addr())) {
                    let fits = |slot: &LiveSlot| n == slot.length();
                    if self.free_own(true, block, heap, mine, class, fits) {
                        return;
                    }
                }
            }
        }
        // SAFETY: the caller gives the block up.
        unsafe { self.free_aligned_sized(block, 1, n) }
    }

    /// free_aligned_sized: frees a block that was asked for with this size and alignment (1 to ask
    /// nothing), or null. Stops the process if that cannot be.
    ///
    /// # Safety
    /// The program does not use the block any more.
    #[inline(never)]
    pub unsafe fn free_aligned_sized(&self, block: *mut u8, align: usize, n: usize) {
        if block.is_null() {
            return;
        }
        let fits = match self.find(block) {
            Some(slot) => is_of(&slot, align, n),
            None => self.length_outside(block) == n,
        };
        if !fits || !is_aligned(block, align) {
            stop(Fault::SizeMismatch, block.addr())
        }
        // SAFETY: the caller gives the block up.
        unsafe { self.free(block) }
    }
}

/// Whether a block may have been asked for with `n` bytes at this alignment: its record holds the
/// size; where the tail is the longest that it can tell, any smaller one of its class.
fn is_of(slot: &LiveSlot, align: usize, n: usize) -> bool {
    let longest = max_tail(slot.class < FIRST_WIDE);
    let is_rounded = slot.tail() == longest && n < slot.length();
    n == slot.length() || is_rounded && may_hold(slot.class, align, n)
}

/// Whether a block may have been asked for at a multiple of `align`.
fn is_aligned(block: *mut u8, align: usize) -> bool {
    align.is_power_of_two() && block.addr() & (align - 1) == 0
}
