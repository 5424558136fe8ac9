//! Groups: made for a heap, released when empty.

use crate::chunk::Chunk;
use crate::config::{
    CLASSES, FIRST_GROUP, GRANULE, GROUP_MAX, IDLE_STRIDE, NEST_GROUP_MAX, RUN_PAGE,
};
use crate::fault::raise;
use crate::heap::Heap;
use crate::meta::{ones, Meta, State};
use crate::nest::Part;
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::{Locked, Run};
use crate::size_class::stride;
use crate::slot::max_slots;
use crate::sync::Ordering;
use core::ptr;
use core::sync::atomic::compiler_fence;

/// Size of a group: slots, and bytes from the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Slots.
    pub capacity: usize,
    /// Bytes, a multiple of the granule, or of the run page above `NEST_GROUP_MAX`.
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

/// Bytes that a group of `bytes` takes.
fn rounded(bytes: usize) -> usize {
    let granules = bytes.next_multiple_of(GRANULE);
    if granules <= NEST_GROUP_MAX {
        granules
    } else {
        bytes.next_multiple_of(RUN_PAGE)
    }
}

/// Bytes of the group that `meta` describes.
///
/// # Safety
/// `meta` is the cell of a group with slots.
pub unsafe fn bytes_of(meta: *mut Meta) -> usize {
    // SAFETY: by contract.
    unsafe { rounded((*meta).capacity() * stride((*meta).class as usize)) }
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

impl<P: Platform> Process<P> {
    /// Makes a group of `class` for `heap`; its state is `Detached`. Null when memory is out.
    ///
    /// # Safety
    /// The caller may work on the heap.
    pub(crate) unsafe fn new_group(&self, heap: *mut Heap, class: usize) -> *mut Meta {
        // SAFETY: by contract.
        unsafe {
            let slots = (*heap).slots[class] as usize;
            (*heap).classes[class].set_up(class, self.class_guard(class));
            for wanted in [next_slots(class, slots), 1] {
                let shape = shape(class, wanted);
                let made = self.make_group(heap, class, shape);
                if !made.is_null() {
                    (*heap).slots[class] += (*made).capacity() as u32;
                    (*heap).classes[class].count(class, (*heap).slots[class]);
                    (*heap).bytes += bytes_of(made);
                    return made;
                }
            }
            ptr::null_mut()
        }
    }

    /// A group of `shape`, or null.
    ///
    /// # Safety
    /// The caller may work on the heap.
    unsafe fn make_group(&self, heap: *mut Heap, class: usize, shape: Shape) -> *mut Meta {
        // SAFETY: by contract; parts are ours until entered.
        unsafe {
            let granules = shape.bytes / GRANULE;
            // Held until the map leads to a run: a fork finds every run there.
            let mut locked = None;
            let part = if shape.bytes <= NEST_GROUP_MAX {
                let align = alignment(class);
                let mut part = self.take_part(heap, granules, align);
                if part.is_none() && self.lock().add_nest(heap) {
                    part = self.take_part(heap, granules, align);
                }
                part
            } else {
                let pages = shape.bytes / RUN_PAGE;
                locked.insert(self.lock()).take_group_run(pages)
            };
            let Some(part) = part else {
                return ptr::null_mut();
            };
            let (cell, first) = (part.cell, part.granule);
            Meta::init(
                cell,
                Chunk::around(cell).addr() + first * GRANULE,
                class as u8,
                shape.capacity,
                (*heap).id,
                part.fresh,
            );
            compiler_fence(Ordering::SeqCst);
            Chunk::enter(
                Chunk::around(cell),
                first,
                granules,
                Chunk::cell_index(cell),
            );
            if !part.nest.is_null() {
                (*part.nest).pop();
            }
            cell
        }
    }

    /// Releases an empty group that is in no list and not current. Takes the lock only if a run or
    /// cells go back, and leaves it in `locked`.
    ///
    /// # Safety
    /// The caller may work on the heap that owns it; no slot is live.
    pub(crate) unsafe fn release_group<'a>(
        &'a self,
        heap: *mut Heap,
        meta: *mut Meta,
        locked: &mut Option<Locked<'a, P>>,
    ) {
        // SAFETY: by contract.
        unsafe {
            let class = (*meta).class as usize;
            debug_assert!(class < CLASSES && (*meta).is_empty());
            let bytes = bytes_of(meta);
            let (chunk, first) = (Chunk::around(meta), (*meta).first_granule());
            let clear = self.check_clear(Meta::base_of(meta), bytes);
            if clear.is_err() {
                // It stays, in no queue.
                (*meta).set(State::Detached);
                *locked = None;
            }
            raise(clear);
            (*heap).slots[class] -= (*meta).capacity() as u32;
            (*heap).classes[class].count(class, (*heap).slots[class]);
            (*heap).bytes -= bytes;
            if stride(class) >= IDLE_STRIDE {
                let dirty = ones((*meta).dirty((*meta).free_slots()).into());
                (*heap).idle -= dirty as usize * stride(class);
            }
            if bytes > NEST_GROUP_MAX {
                return self.lock_once(locked).return_group_run(meta, bytes);
            }
            let nest = Chunk::nest_at(chunk, first);
            (*nest).push(meta);
            // A stale pointer must not lead to a group again.
            (*meta).set(State::Free);
            Chunk::enter(chunk, first, bytes / GRANULE, 0);
            compiler_fence(Ordering::SeqCst);
            self.return_part(heap, nest, first, bytes / GRANULE, locked);
        }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// A run and a cell for a group.
    fn take_group_run(&mut self, pages: usize) -> Option<Part> {
        let run = self.take_run(pages, 1)?;
        // SAFETY: the lock is held, and the run ours.
        unsafe {
            let Some(cell) = self.take_cell(run.chunk) else {
                self.return_run(run);
                return None;
            };
            Some(Part {
                nest: ptr::null_mut(),
                cell,
                granule: run.granule(),
                fresh: run.fresh,
            })
        }
    }

    /// Gives run and cell of a group back.
    ///
    /// # Safety
    /// No slot is live, no list has the group.
    pub(crate) unsafe fn return_group_run(&mut self, meta: *mut Meta, bytes: usize) {
        // SAFETY: by contract.
        unsafe {
            let (chunk, first) = (Chunk::around(meta), (*meta).first_granule());
            (*meta).set(State::Free);
            // Before the bytes go: a stale pointer must not lead to a reused cell.
            Chunk::enter(chunk, first, bytes / GRANULE, 0);
            self.return_run(Run {
                chunk,
                page: first * GRANULE / RUN_PAGE,
                pages: bytes / RUN_PAGE,
                fresh: false,
            });
            self.return_cell(meta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let in_nest = shape.bytes <= NEST_GROUP_MAX;
                if shape.bytes > if in_nest { 4 * GRANULE } else { 2 * RUN_PAGE } {
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
