//! `check` must be able to fail: each invariant is broken by hand, and named.

use super::*;
use crate::base::config::RUN_PAGE;
use crate::base::size_class::class_of;
use crate::heap::class::Class;
use crate::layout::chunk::Chunk;
use crate::layout::group::{MyGroup, State};
use crate::layout::slot::LiveSlot;
use crate::layout::span::Span;
use crate::pages::memory::Locked;

/// Size of the blocks whose class is broken: in spans, several slots a group.
const N: usize = 40;

/// What a case breaks: a heap with full and partly free groups of one class.
struct Victim {
    process: Boxed,
    /// A live block, in the current group.
    slot: LiveSlot,
    /// Its heap's state of the class.
    class: &'static Class,
    chunk: &'static Chunk,
}

impl Victim {
    fn new() -> Self {
        let process = Boxed::new(true);
        let blocks: Vec<_> = (0..300).map(|_| process.malloc(N)).collect();
        // Two of three: more than reuse queue and quarantine hold.
        for (_, &block) in blocks.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        process.verify();
        let slot = process.find(process.malloc(N)).expect("live");
        let class = process.mine().class(class_of(N));
        Victim {
            slot,
            class,
            chunk: Chunk::of(slot.group),
            process,
        }
    }

    /// Groups of the class lie in spans.
    fn span(&self) -> &'static Span {
        let granule = self.slot.group.first_granule();
        self.chunk.span_at(granule).expect("a span")
    }

    fn lock(&self) -> Locked<'_, Mock> {
        self.process.heaps.memory.lock()
    }

    /// The groups in the class's queue, oldest first.
    fn queue(&self) -> Vec<MyGroup> {
        self.class.groups().collect()
    }
}

/// One more.
fn add<T: Copy + std::ops::Add<Output = T> + From<u8>>(count: &Cell<T>) {
    count.set(count.get() + T::from(1));
}

type Case = (&'static str, fn(&Victim));

// Each does what its name says, and the process is dropped without another call.
const COUNTERS: &[Case] = &[
    ("a class's slots are counted", |v| {
        add(&v.process.mine().slots[class_of(N)])
    }),
    ("slots out of the masks are counted", |v| add(&v.class.out)),
    ("queued groups are counted", |v| {
        v.class.queued.set(v.class.queued.get() - 1);
    }),
    ("empty groups are counted", |v| add(&v.class.empty)),
    ("dirty free granules are counted", |v| {
        v.process.mine().idle_granules.add(1)
    }),
    ("pages in use are counted", |v| {
        v.lock().pages.used_pages += 1
    }),
    ("dirty pages are counted", |v| v.lock().pages.dirty.add(1)),
    ("large blocks are counted", |v| v.lock().large.live += 1),
    ("cells in use are counted", |v| {
        add(&v.lock().pages.header(v.chunk).cells)
    }),
    ("spare cells are counted", |v| add(&v.span().spare)),
    ("a chunk's pages are counted", |v| {
        add(&v.lock().pages.header(v.chunk).used_pages)
    }),
];

const SLOTS: &[Case] = &[
    ("a heap's number leads to it", |v| {
        v.process.mine().heap().renumber(2);
    }),
    ("slots in a reuse queue are the heap's own", |v| {
        Mock::new_thread();
        // More than the quarantine holds.
        let blocks: Vec<_> = (0..300).map(|_| v.process.malloc(N)).collect();
        for &block in &blocks[1..] {
            // SAFETY: live.
            unsafe { v.process.free(block) };
        }
        let other = v.process.mine().class(class_of(N));
        v.class
            .give(other.entries().next().expect("its queue has some"));
    }),
    ("all granules of a group lead to it", |v| {
        let block = v.process.malloc(700);
        let group = v.process.find(block).expect("live").group;
        Chunk::of(group).enter(group.first_granule() + 1, 1, 0);
    }),
    ("each slot is live or in exactly one place", |v| {
        v.slot.clear_record()
    }),
    ("a live block's tail is intact", |v| {
        let canary = v.slot.block().wrapping_add(v.slot.length());
        // SAFETY: within the slot.
        unsafe { canary.write(canary.read() ^ 1) };
    }),
    ("a reuse queue is of one class", |v| {
        // Into the queue of another class.
        let other = v.process.mine().class(class_of(N) + 1);
        other.give(v.class.entries().next().expect("the queue has some"));
    }),
    ("the record of a slot in a mask is a mark", |v| {
        let current = v.class.current.get().expect("it has some");
        let free = current.free_slots() | v.class.avail.get();
        current.set_narrow(free.trailing_zeros() as usize, 31);
    }),
    ("bytes in dirty free slots are counted", |v| {
        v.process.mine().idle.add(1)
    }),
];

const LISTS: &[Case] = &[
    ("the current group's state says so", |v| {
        v.class.base.set(v.class.base.get().wrapping_add(1))
    }),
    ("groups in a queue are queued", |v| {
        v.queue()[0].set(State::Unlisted)
    }),
    ("a queue is a circle", |v| {
        v.queue().last().expect("some").set_next(None)
    }),
    ("a queue ends", |v| {
        // A circle without the youngest.
        let queue = v.queue();
        queue[1].set_next(Some(queue[0].group()));
    }),
    ("a queue is of one class", |v| {
        let unused = v.process.mine().class(class_of(N) - 1);
        unused.push(v.queue()[0], &v.process.mine().retained);
    }),
    ("a map leads to groups only", |v| {
        // SAFETY: the group is the only thread's.
        unsafe { MyGroup::new(v.slot.group) }.set(State::Free)
    }),
    ("dirty pages are free", |v| {
        let locked = v.lock();
        let header = locked.pages.header(v.chunk);
        let page = header.data.get() as usize / RUN_PAGE;
        header.dirty.set(page, 1, true);
        header.used.set(page, 1, true);
    }),
    ("a span fills its window", |v| add(&v.span().base)),
    ("a span's granules are those of its groups", |v| {
        v.span().used.set(v.span().used.get() ^ 1 << 63)
    }),
    ("a cell has one use", |v| {
        // In its reserve, and the map leads to it.
        v.span().push(v.slot.group)
    }),
    ("spans with room are listed", |v| {
        // Out of its list too: the heap's own count stays right.
        v.span().listed.set(!v.span().listed.get())
    }),
];

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn check_names_what_is_broken() {
    let mut wrong = Vec::new();
    for &(name, break_it) in [COUNTERS, SLOTS, LISTS].into_iter().flatten() {
        let victim = Victim::new();
        // What is broken is only looked at by `check`, which ends at it.
        break_it(&victim);
        let told = victim.process.check().err();
        if told != Some(name) {
            wrong.push((name, told));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// As an exit finds it in a handler of a signal that interrupted the owner between two stores.
#[test]
fn a_class_that_counts_too_many_empty_groups_is_swept() {
    let victim = Victim::new();
    let heap = victim.process.mine();
    add(&victim.class.empty);
    heap.retained.set(heap.retained.get().max(1));
    heap.release_empty(u64::MAX);
    assert!(victim.queue().iter().all(|group| !group.is_empty()));
}

#[test]
fn check_misses_a_window() {
    let process = Boxed::new(true);
    // A run: no block in a slot that would miss it first.
    let block = process.aligned_alloc(4096, 4096);
    process.verify();
    let system = &process.heaps.memory.system;
    system.pagemap.leave(block.addr());
    let told = process.check().err();
    assert_eq!(told, Some("a chunk's window is entered"));
}

#[test]
fn a_dump_of_a_broken_heap_says_so() {
    let victim = Victim::new();
    victim.slot.clear_record();
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
#[cfg_attr(miri, ignore = "too long for Miri")]
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
