//! Groups: made for a heap, released when empty.

use crate::base::config::{
    FIRST_GROUP, GRANULE, GROUP_MAX, PURGE_STRIDE, RUN_PAGE, SPAN_GROUP_MAX,
};
use crate::base::fault::{raise, Found};
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::heap::heap::{Heaps, MyHeap};
use crate::heap::orphans;
use crate::heap::spans::{leave_map, return_group_run, Part};
use crate::layout::chunk::Chunk;
use crate::layout::group::{ones, rounded, MyGroup, State};
use crate::layout::kind::Kind;
use crate::layout::record::max_slots;
use crate::layout::slot::FreeSlot;
use crate::pages::memory::Locked;
use crate::pages::page_heap::{Run, SPAN_PAGES};
use core::sync::atomic::{compiler_fence, Ordering};

/// The first class whose slots are longer than groups in spans.
pub const FIRST_LONG: usize = {
    let mut class = 0;
    while stride(class) <= SPAN_GROUP_MAX {
        class += 1;
    }
    class
};

/// Size of a group: slots, and bytes from the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Slots.
    pub capacity: usize,
    /// Bytes, a multiple of the granule, or of the run page above `SPAN_GROUP_MAX`.
    pub bytes: usize,
}

/// The shape of a group of `class` with about `wanted` slots: at most that many, as many as fill
/// the bytes well.
pub fn shape(class: usize, wanted: usize) -> Shape {
    let stride = stride(class);
    let most = max_slots(class).min((GROUP_MAX / stride).max(1));
    let wanted = wanted.clamp(1, most);
    // A few slots fewer may fill whole granules better.
    let least = (wanted - wanted / 8).max(1);
    let mut best = Shape {
        capacity: 0,
        bytes: 1,
    };
    for capacity in (least..=wanted).rev() {
        let bytes = rounded(capacity * stride);
        if best.capacity == 0 || capacity * best.bytes > best.capacity * bytes {
            best = Shape { capacity, bytes };
        }
    }
    // The rounding may leave room for more.
    best.capacity = (best.bytes / stride).min(most).max(best.capacity);
    best
}

/// Slots of the next group of `class`, when the heap's groups of it have `slots`: as many again,
/// so that the number of groups grows with the logarithm and the unused part stays below a half.
fn next_slots(class: usize, slots: usize) -> usize {
    slots.max(FIRST_GROUP / stride(class)).max(1)
}

/// Alignment of a group in granules: a power-of-two stride lies on its own multiples (up to a
/// run page), which serves aligned allocations.
fn alignment(class: usize) -> usize {
    let stride = stride(class);
    if stride.is_power_of_two() {
        (stride / GRANULE).clamp(1, RUN_PAGE / GRANULE)
    } else {
        1
    }
}

impl<'a, P: Platform> MyHeap<'a, P> {
    /// Makes a group of `class`; its state is `Unlisted`. None when memory is out.
    pub fn new_group(self, class: usize) -> Option<MyGroup> {
        let slots = self.slots[class].get();
        let canary = self.all.memory.system.secrets.class_canary(class);
        self.class(class).set_up(class, canary);
        let mut wanted = [next_slots(class, slots as usize), 1].into_iter();
        let group = wanted.find_map(|wanted| self.make_group(class, shape(class, wanted)))?;
        self.slots[class].set(slots + group.capacity() as u32);
        self.bytes.set(self.bytes.get() + group.bytes());
        Some(group)
    }

    /// A group of `shape`.
    fn make_group(self, class: usize, shape: Shape) -> Option<MyGroup> {
        let granules = shape.bytes / GRANULE;
        // Held until the map leads to a run: a fork finds every run there.
        let mut locked = None;
        let part = if shape.bytes <= SPAN_GROUP_MAX {
            self.part_of_span(class, granules)
        } else {
            let locked = locked.insert(self.all.memory.lock());
            self.all
                .take_group_run(locked, class, shape.bytes / RUN_PAGE)
        }?;
        let (cell, chunk) = (part.cell, Chunk::of(part.cell));
        let start = chunk.address() + part.granule * GRANULE;
        cell.init(start, class, shape.capacity, self.id(), part.fresh);
        compiler_fence(Ordering::SeqCst);
        chunk.enter(part.granule, granules, Chunk::number_of(cell));
        if let Some(span) = part.span {
            span.pop();
        }
        // SAFETY: it was just made for this heap.
        Some(unsafe { MyGroup::new(cell) })
    }

    /// Granules for a group of `class` of one of the heap's spans, of a new one if need be.
    fn part_of_span(self, class: usize, granules: usize) -> Option<Part> {
        let (kind, align) = (Kind::of_class(class), alignment(class));
        let part = self.take_part(kind, granules, align);
        if part.is_some() {
            return part;
        }
        let mut locked = self.all.memory.lock();
        let run = self
            .all
            .take_run(&mut locked, kind, SPAN_PAGES, SPAN_PAGES)?;
        if !self.add_span(&mut locked, run) {
            return None;
        }
        drop(locked);
        self.take_part(kind, granules, align)
    }

    /// Releases an empty group of the heap's that is in no list and not current. Takes the lock
    /// only if a run or cells go back, and leaves it in `locked`.
    pub fn release_group(self, group: MyGroup, locked: &mut Option<Locked<'a, P>>) {
        let class = group.class();
        debug_assert!(group.is_empty());
        let (bytes, first) = (group.bytes(), group.first_granule());
        if let Err(found) = check_clear(group) {
            // It stays, in no queue.
            group.set(State::Unlisted);
            *locked = None;
            return raise(Err(found));
        }
        let slots = &self.slots[class];
        slots.set(slots.get() - group.capacity() as u32);
        self.bytes.set(self.bytes.get() - bytes);
        if stride(class) >= PURGE_STRIDE {
            let dirty = ones(group.dirty(group.free_slots()).into());
            self.idle.sub(dirty as usize * stride(class));
        }
        if bytes > SPAN_GROUP_MAX {
            return return_group_run(self.all.memory.lock_once(locked), group, bytes);
        }
        if let Some(span) = Chunk::of(group.group()).span_at(first) {
            span.push(group.group());
            leave_map(group, bytes);
            self.return_part(span, first, bytes / GRANULE, locked);
        }
    }
}

/// If the preset clears freed memory: Err if the memory of an empty group is no longer clear.
pub fn check_clear(group: MyGroup) -> Result<(), Found> {
    // SAFETY: the group is the caller's and none of its slots holds a block: all of its bytes are
    // one free slot.
    let slots = unsafe { FreeSlot::of(true, group.group(), 0, group.start()) };
    slots.check_clear(group.bytes())
}

impl<P: Platform> Heaps<P> {
    /// A run of pages for a heap. Before another chunk is made, what a fork left goes.
    fn take_run(
        &self,
        locked: &mut Locked<'_, P>,
        kind: Kind,
        pages: usize,
        align: usize,
    ) -> Option<Run> {
        let mut run = locked.pages.take_free_run(kind, pages, align);
        if run.is_none() && orphans::release_all(self, locked) {
            run = locked.pages.take_free_run(kind, pages, align);
        }
        run.or_else(|| locked.pages.take_new_run(kind, pages, align))
    }

    /// A run and a cell for a group of `class`.
    fn take_group_run(
        &self,
        locked: &mut Locked<'_, P>,
        class: usize,
        pages: usize,
    ) -> Option<Part> {
        let run = self.take_run(locked, Kind::of_class(class), pages, 1)?;
        let Some(cell) = locked.pages.take_cell(run.chunk) else {
            locked.pages.return_run(run);
            return None;
        };
        Some(Part {
            span: None,
            cell,
            granule: run.page * RUN_PAGE / GRANULE,
            fresh: run.fresh,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::config::CLASSES;

    #[test]
    fn shapes_hold_their_slots_and_waste_little() {
        for class in 0..CLASSES {
            for wanted in 1..=32 {
                let shape = shape(class, wanted);
                let used = shape.capacity * stride(class);
                assert!(shape.capacity >= 1 && used <= shape.bytes);
                assert!(shape.capacity <= max_slots(class));
                assert_eq!(
                    rounded(used),
                    shape.bytes,
                    "bytes follow from class and slots"
                );
                let in_span = shape.bytes <= SPAN_GROUP_MAX;
                if shape.bytes > if in_span { 4 * GRANULE } else { 2 * RUN_PAGE } {
                    assert!(used * 4 > shape.bytes * 3, "class {class} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn the_first_group_of_small_blocks_is_one_granule() {
        for class in 0..16 {
            assert_eq!(
                shape(class, next_slots(class, 0)).bytes,
                GRANULE,
                "class {class}"
            );
        }
    }
}
