//! `check` must be able to fail: each invariant is broken by hand, and named.

// Every case breaks the heap on purpose; it is only looked at afterwards.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::*;
use crate::chunk::Chunk;
use crate::config::RUN_PAGE;
use crate::heap::{Class, Heap};
use crate::meta::{Meta, Nest, State};
use crate::pointer::{Slot, Untrusted};
use crate::size_class::class_of;
use crate::sync::Ordering;

/// Size of the blocks whose class is broken: in nests, several slots a group.
const N: usize = 40;

/// What a case breaks: a heap with full and partly free groups of one class.
struct Victim {
    process: Boxed,
    /// A live block, in the current group.
    slot: Slot,
    /// Its heap's state of the class.
    class: *mut Class,
    heap: *mut Heap,
    chunk: *mut Chunk,
}

impl Victim {
    fn new() -> Self {
        let process = Boxed::new(true);
        let blocks: Vec<_> = (0..300).map(|_| process.malloc(N)).collect();
        // Two of three: more than ring and quarantine hold.
        for (_, &block) in blocks.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.verify();
        let block = process.malloc(N);
        let slot = Untrusted::new(block).find(&*process).expect("live");
        let heap = process.heap();
        // SAFETY: this thread's heap.
        let class = unsafe { Heap::class(heap, class_of(N)) };
        let chunk = Chunk::around(slot.meta);
        Victim {
            process,
            slot,
            class,
            heap,
            chunk,
        }
    }

    fn nest(&self) -> *mut Nest {
        // SAFETY: groups of this class lie in nests.
        unsafe {
            let granule = (*self.slot.meta).first_granule();
            let cell = Chunk::nest(self.chunk, granule).load(Ordering::Relaxed);
            self.chunk.cast::<Meta>().add(cell as usize).cast::<Nest>()
        }
    }
}

type Case = (&'static str, unsafe fn(&Victim));

// Each does what its name says, and the process is dropped without another call.
const COUNTERS: &[Case] = &[
    ("a class's slots are counted", |v| unsafe {
        (&mut (*v.heap).slots)[class_of(N)] += 1
    }),
    ("slots out of the masks are counted", |v| unsafe {
        (*v.class).out += 1
    }),
    ("queued groups are counted", |v| unsafe {
        (*v.class).queued += 1
    }),
    ("empty groups are counted", |v| unsafe {
        (*v.class).empty += 1
    }),
    ("dirty free granules are counted", |v| unsafe {
        (*v.heap).nests_idle += 1
    }),
    ("pages in use are counted", |v| {
        v.process.lock().provider.used_pages += 1
    }),
    ("dirty pages are counted", |v| {
        v.process.lock().provider.dirty_pages += 1
    }),
    ("large blocks are counted", |v| {
        v.process.lock().provider.large.live += 1
    }),
    ("cells in use are counted", |v| unsafe {
        (*v.chunk).cells += 1
    }),
    ("spare cells are counted", |v| unsafe {
        (*v.nest()).spare += 1
    }),
    ("a chunk's pages are counted", |v| unsafe {
        (*v.chunk).used_pages += 1
    }),
];

const SLOTS: &[Case] = &[
    ("as many heaps are counted as were made", |v| {
        v.process.lock().provider.heaps += 1;
    }),
    ("a heap's number leads to it", |v| {
        let locked = v.process.lock();
        locked.provider.heaps += 1;
        v.process.count_heaps(locked.provider.heaps);
    }),
    ("slots in a ring are the heap's own", |v| unsafe {
        Mock::new_thread();
        // More than the quarantine holds.
        let blocks: Vec<_> = (0..300).map(|_| v.process.malloc(N)).collect();
        for &block in &blocks[1..] {
            v.process.free(block);
        }
        let other = Heap::class(v.process.heap(), class_of(N));
        (*v.class).give((*other).entries().next().expect("its ring has some"));
    }),
    ("all granules of a group lead to it", |v| unsafe {
        let block = v.process.malloc(700);
        let meta = Untrusted::new(block).find(&*v.process).expect("live").meta;
        let second = Chunk::entry(v.chunk, (*meta).first_granule() + 1);
        second.store(0, Ordering::Relaxed);
    }),
    ("each slot is live or in exactly one mask", |v| unsafe {
        v.slot.clear_record()
    }),
    ("a live block's end is intact", |v| unsafe {
        let end = v.slot.end_at();
        end.write(end.read() ^ 1);
    }),
    ("a ring is of one class", |v| unsafe {
        // Into the ring of another class.
        let other = Heap::class(v.heap, class_of(N) + 1);
        (*other).give((*v.class).entries().next().expect("the ring has some"));
    }),
    ("the record of a slot in a mask is a mark", |v| unsafe {
        let current = (*v.class).current;
        let free = (*current).free_slots() | (*v.class).avail;
        let record = (*current).records.narrow(free.trailing_zeros() as usize);
        record.store(31, Ordering::Relaxed);
    }),
    ("bytes in dirty free slots are counted", |v| unsafe {
        (*v.heap).idle += 1
    }),
];

const LISTS: &[Case] = &[
    ("the current group's state says so", |v| unsafe {
        (*v.class).base = (*v.class).base.add(1)
    }),
    ("groups in a queue are queued", |v| unsafe {
        (*(*v.class).last).set(State::Detached);
    }),
    ("a queue is a circle", |v| unsafe {
        (*(*v.class).last).next = core::ptr::null_mut()
    }),
    ("a queue ends", |v| unsafe {
        // A circle without the youngest.
        let first = (*(*v.class).last).next;
        (*(*first).next).next = first
    }),
    ("a queue is of one class", |v| unsafe {
        let unused = Heap::class(v.heap, class_of(N) + 1);
        (*unused).last = (*v.class).last
    }),
    ("a map leads to groups only", |v| unsafe {
        (*v.slot.meta).set(State::Free);
    }),
    ("dirty pages are free", |v| unsafe {
        let page = (*v.chunk).data as usize / RUN_PAGE;
        crate::chunk::set(&mut (*v.chunk).dirty, page, 1, true);
        crate::chunk::set(&mut (*v.chunk).used, page, 1, true);
    }),
    ("a nest fills its window", |v| unsafe {
        (*v.nest()).base += 1
    }),
    ("a nest's granules are those of its groups", |v| unsafe {
        (*v.nest()).used ^= 1 << 63;
    }),
    ("a cell has one use", |v| unsafe {
        // In its reserve, and the map leads to it.
        (*v.nest()).push(v.slot.meta);
    }),
    ("nests with room are listed", |v| unsafe {
        // Out of its list too: the heap's own count stays right.
        (*v.nest()).listed ^= true;
    }),
];

#[test]
fn check_names_what_is_broken() {
    let mut wrong = Vec::new();
    for &(name, break_it) in [COUNTERS, SLOTS, LISTS].into_iter().flatten() {
        let victim = Victim::new();
        // SAFETY: what is broken is only looked at by `check`, which ends at it.
        unsafe { break_it(&victim) };
        let told = victim.process.check().err();
        if told != Some(name) {
            wrong.push((name, told));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn check_misses_a_window() {
    let process = Boxed::new(true);
    // A run: no block in a slot that would miss it first.
    let block = process.aligned_alloc(4096, 4096);
    process.verify();
    process.lock().process.windows.leave(block.addr());
    let told = process.check().err();
    assert_eq!(told, Some("a chunk's window is entered"));
}

#[test]
fn a_dump_of_a_broken_heap_says_so() {
    let victim = Victim::new();
    // SAFETY: as above.
    unsafe { victim.slot.clear_record() };
    let mut dump = String::new();
    victim.process.dump(&mut dump).expect("a string holds it");
    assert!(dump.contains('?'), "the slot's letter");
    assert!(dump
        .lines()
        .last()
        .is_some_and(|line| line.starts_with("total ")));
}

/// A sink that is full after so many bytes.
struct Full(usize);

impl std::fmt::Write for Full {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0 = self.0.checked_sub(s.len()).ok_or(std::fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_dump_ends_where_its_sink_does() {
    let victim = Victim::new();
    victim.process.aligned_alloc(4096, 4096);
    victim.process.malloc(1 << 20);
    let mut dump = String::new();
    victim.process.dump(&mut dump).expect("a string holds it");
    for bytes in (0..dump.len()).step_by(7) {
        assert!(victim.process.dump(&mut Full(bytes)).is_err());
        victim.process.verify();
    }
    assert!(victim.process.dump(&mut Full(dump.len())).is_ok());
}
