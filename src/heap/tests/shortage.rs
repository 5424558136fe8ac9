//! Shortage: every call to the system that a workload makes is refused, one after the other.
//!
//! A workload is run once without failures, which tells how many calls it makes, of which kind.
//! Then for every n: the n-th call fails alone; it and the next; it and all that follow; and for
//! each kind of call alone: from the n-th of that kind on, all of it. After each operation in which
//! the system refused something the invariants of the heap stand. After each run every live
//! block holds its bytes, the invariants stand, memory that is back can be had, and what
//! was freed went back, but for what `Workload::may_stay` says.
//!
//! `SHORTAGE=all` in the environment (`make shortage` sets it) does so for every n; otherwise at
//! most `SAMPLES` of them, evenly spread, are tried.
//!
//! The platform tells of a refusal, not of its errno: ENOMEM, EAGAIN and ENOSYS are one here.

use super::*;
use crate::base::config::{CHUNK, CLASSES, PRESET};
use crate::base::random::next_random;
use crate::base::size_class::{stride, MAX_SMALL};
use crate::heap::heap::{Heap, BODY_BYTES};
use crate::layout::chunk::MAP_END;
use crate::mock::{Call, Plan, CALLS};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;

const PAGE: usize = 4096;
const KINDS: [&str; CALLS] = ["map", "unmap", "purge", "remap", "break"];
/// Runs of a plan when not all are wanted.
const SAMPLES: usize = few(12, 12);
const ANY: u32 = (1 << CALLS) - 1;

/// One run of a workload: a process, and the blocks that must live.
struct Trial {
    process: Boxed,
    live: Vec<Live>,
    tag: u8,
    nulls: usize,
    seed: Cell<u64>,
    /// Refusals after which the heap was looked at.
    looked: usize,
}

impl Trial {
    fn new(has_break: bool, plan: Plan) -> Self {
        let process = Boxed::new(has_break);
        *process.platform().plan.lock().unwrap() = plan;
        Mock::take_errno();
        Trial {
            process,
            live: Vec::new(),
            tag: 0,
            nulls: 0,
            seed: Cell::new(7),
            looked: 0,
        }
    }

    fn refused(&self) -> usize {
        let refused = &self.process.platform().refused;
        refused.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// Verifies the heap after each operation in which the system refused something: what was half
    /// done is undone.
    fn look(&mut self) {
        let refused = self.refused();
        if core::mem::replace(&mut self.looked, refused) != refused {
            self.process.verify();
        }
    }

    fn random(&mut self, below: usize) -> usize {
        next_random(&self.seed) as usize % below
    }

    /// Judges a result: null comes with errno, and only when the system refused something.
    fn judge(&mut self, at: *mut u8) -> bool {
        let errno = Mock::take_errno();
        if at.is_null() {
            assert!(errno, "null without errno");
            assert!(self.refused() > 0, "null though the system refused nothing");
            self.nulls += 1;
        } else {
            assert!(!errno, "errno set by a call that succeeded");
        }
        self.look();
        !at.is_null()
    }

    fn keep(&mut self, at: *mut u8, n: usize) {
        if self.judge(at) {
            self.tag = self.tag.wrapping_add(1);
            self.live.push(Live::new(at, n, self.tag));
        }
    }

    /// A block of which the program touches the first bytes only.
    fn sparse(&mut self, n: usize) {
        let at = self.process.malloc(n);
        self.keep(at, 100);
    }

    fn malloc(&mut self, n: usize) {
        let at = self.process.malloc(n);
        self.keep(at, n);
    }

    fn calloc(&mut self, n: usize) {
        let at = self.process.malloc(n);
        if !at.is_null() && self.process.is_zero(at) {
            Live { at, n, tag: 0 }.verify();
        }
        self.keep(at, n);
    }

    fn aligned(&mut self, align: usize, n: usize) {
        let at = self.process.aligned_alloc(align, n);
        assert_eq!(at as usize % align, 0);
        self.keep(at, n);
    }

    fn free(&mut self, which: usize) {
        if self.live.is_empty() {
            return;
        }
        let block = self.live.swap_remove(which % self.live.len());
        block.verify();
        // SAFETY: live.
        unsafe { self.process.free(block.at) };
        assert!(!Mock::take_errno(), "free keeps errno");
        self.look();
    }

    fn realloc(&mut self, which: usize, n: usize) {
        if self.live.is_empty() {
            return;
        }
        let which = which % self.live.len();
        let old = self.live[which];
        // SAFETY: live.
        let at = unsafe { self.process.realloc(old.at, n) };
        if self.judge(at) {
            Live { at, ..old }.verify_first(old.n.min(n));
            self.live[which] = Live::new(at, n, old.tag);
        } else {
            old.verify();
        }
    }

    fn free_all(&mut self) {
        while !self.live.is_empty() {
            self.free(0);
        }
    }

    /// Goes on as another thread: one that has `heap`. Gives the former heap.
    fn switch(&self, heap: &'static Heap) -> &'static Heap {
        switch(&self.process, Some(heap))
    }

    /// A new thread. Gives the former one's heap.
    fn new_thread(&self) -> &'static Heap {
        switch(&self.process, None)
    }

    /// Verifies what must hold while memory may be short.
    fn verify(&self) {
        self.live.iter().for_each(Live::verify);
        self.process.verify();
    }

    /// Memory is back: all of it can be had, and goes back in the end. Returns bytes still mapped.
    fn recover(&mut self) -> usize {
        *self.process.platform().plan.lock().unwrap() = Plan::NONE;
        let nulls = self.nulls;
        for class in 0..CLASSES {
            self.malloc(stride(class) - 1);
        }
        self.malloc(3 * MAX_SMALL);
        self.aligned(PAGE, 3 * PAGE);
        assert_eq!(self.nulls, nulls, "memory is back");
        self.verify();
        self.free_all();
        // What the system refused to take back is offered again at frees of large blocks.
        for _ in 0..4 {
            self.malloc(2 * MAX_SMALL);
            self.free(0);
        }
        self.process.mine().trim();
        let end = self.process.verify();
        assert_eq!((end.live, end.runs, end.large), (0, 0, 0), "{end:?}");
        self.process.platform().mapped()
    }

    /// The most that may stay mapped when all is freed: one idle chunk, header and map of others,
    /// chunks where no wish was heard; heaps and their tables; buckets for large blocks.
    fn may_stay(&self) -> usize {
        let heap_bytes = (BODY_BYTES + 4096).next_multiple_of(PAGE) + 3 * PAGE;
        let heaps = self.process.heaps.count() * heap_bytes;
        let locked = self.process.heaps.memory.lock();
        let chunks = locked.pages.each_chunk().map(|chunk| {
            if locked.pages.header(chunk).stays.get() {
                CHUNK + PAGE
            } else {
                MAP_END.next_multiple_of(PAGE)
            }
        });
        CHUNK + chunks.sum::<usize>() + heaps + PAGE
    }
}

/// Frees and mallocs of blocks that a program has most of.
fn small_churn(t: &mut Trial) {
    for _ in 0..400 {
        let n = t.random(1200);
        t.malloc(n);
        if t.live.len() > 150 {
            let which = t.random(1 << 20);
            t.free(which);
        }
        let (which, n) = (t.random(1 << 20), t.random(1500));
        if n % 5 == 0 {
            t.realloc(which, n);
        }
    }
}

/// Blocks of every class, in groups of their own.
fn every_class(t: &mut Trial) {
    for class in 0..CLASSES {
        for i in 0..3 {
            if i == 1 {
                t.calloc(stride(class) - 1);
            } else {
                t.malloc(stride(class) - 1 - i);
            }
        }
    }
    for i in 0..CLASSES {
        t.free(2 * i);
    }
    for class in (0..CLASSES).rev() {
        t.malloc(stride(class) - 1);
    }
}

/// Blocks with mappings of their own: made, grown, shrunk, kept, moved to slots and back.
fn large(t: &mut Trial) {
    for n in [200_000, 700_000, 150_000, 1_300_000] {
        t.calloc(n);
    }
    for (which, n) in [
        (0, 210_000),
        (1, 1_500_000),
        (2, 140_000),
        (3, 500_000),
        (0, 3000),
        (0, 400_000),
        (1, 700_001),
        (3, 496_000),
    ] {
        t.realloc(which, n);
    }
    for n in [300_000, 135_000, 600_000] {
        t.free(0);
        t.malloc(n);
        t.calloc(n / 2);
    }
    t.aligned(1 << 20, 300_000);
    t.aligned(1 << 21, 1 << 20);
    t.realloc(1, 900_000);
    t.free(2);
    t.malloc(160_000);
}

/// So many large blocks that their table grows.
fn many_large(t: &mut Trial) {
    for _ in 0..66 {
        t.sparse(MAX_SMALL + 1);
    }
    for i in 0..40 {
        t.free(i * 3);
    }
    for i in 0..10 {
        t.sparse(MAX_SMALL + 1 + i * PAGE);
    }
}

/// Aligned blocks: in slots, in runs of pages, in mappings.
fn aligned(t: &mut Trial) {
    for shift in 5..=21 {
        let align = 1 << shift;
        for n in [100, align + 1, 5000, 70_000] {
            t.aligned(align, n);
        }
        let (which, n) = (t.random(1 << 20), t.random(200_000));
        t.realloc(which, n);
        t.free(which / 2);
        t.free(which / 3);
    }
}

/// Threads start, exit with blocks alive, free each other's, are followed by others.
fn threads(t: &mut Trial) {
    t.malloc(100);
    let main = t.process.mine().heap();
    // More than the first table of heaps holds.
    let mut heaps = vec![];
    for _ in 0..10 {
        t.new_thread();
        for n in [10, 100, 1000, 10_000, 60_000] {
            t.malloc(n);
        }
        heaps.push(t.process.mine().heap());
    }
    for (i, heap) in heaps.iter_mut().enumerate() {
        t.switch(heap);
        for k in 0..3 {
            // Some its own, most other threads'.
            t.free(i * 7 + k * 5);
        }
        if i % 2 == 0 {
            t.process.thread_exit();
            // It may get another heap, to defer the slot in.
            t.free(i);
            t.process.thread_exit();
        }
        // One that had none may have got it for a free.
        *heap = t.process.mine().heap();
    }
    for _ in 0..4 {
        t.new_thread();
        for n in [20, 2000, 30_000] {
            t.malloc(n);
            t.malloc(n);
        }
        t.free(1);
        t.process.thread_exit();
    }
    for (i, &heap) in heaps.iter().enumerate() {
        if i % 2 == 1 {
            t.switch(heap);
            t.process.thread_exit();
        }
    }
    t.switch(main);
    for i in 0..20 {
        t.free(i);
        t.malloc(i * 300);
    }
}

/// The child of a fork frees what threads of the parent left and allocates more.
fn fork_child(t: &mut Trial) {
    t.malloc(100);
    let main = t.new_thread();
    for n in [10, 100, 1000, 10_000, 100_000, 60_000] {
        t.malloc(n);
        t.malloc(n);
        t.malloc(n);
    }
    t.switch(main);
    t.free(3);
    fork(&t.process);
    for i in 0..10 {
        t.free(i);
        t.malloc(i * 3000);
    }
    t.new_thread();
    for i in 0..8 {
        t.malloc(i * 5000);
        t.free(i);
    }
    t.process.thread_exit();
    t.switch(main);
    for _ in 0..8 {
        t.free(0);
    }
}

/// Peaks of blocks of many pages: pages go back, chunks too.
fn peaks(t: &mut Trial) {
    for _ in 0..2 {
        for i in 0..60 {
            t.malloc(8000 + (i * 7919) % 110_000);
        }
        for i in 0..57 {
            t.free(i * 3);
        }
        for _ in 0..4 {
            t.malloc(20_000);
        }
    }
}

/// A workload by name, and whether the program break is there.
struct Workload {
    name: &'static str,
    has_break: bool,
    run: fn(&mut Trial),
    /// Groups of an orphaned heap's spans stay where they are: see `orphans.rs`.
    orphans: bool,
}

/// The numbers of the calls, of `count`, from which a plan starts.
fn starts(count: usize) -> impl Iterator<Item = usize> {
    let all = std::env::var("SHORTAGE").is_ok_and(|value| value == "all");
    let runs = if all { count } else { count.min(SAMPLES) };
    (0..runs).map(move |run| run * count / runs)
}

/// What one kind of plan came to.
#[derive(Default)]
struct Sums {
    runs: usize,
    refused: [usize; CALLS],
    nulls: usize,
    /// Runs in which null was seen.
    short: usize,
}

impl Workload {
    /// One run under `plan`. Says what failed before it lets the panic through.
    fn attempt(&self, plan: Plan, sums: &mut Sums) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut t = Trial::new(self.has_break, plan);
            (self.run)(&mut t);
            t.verify();
            for (sum, refused) in sums.refused.iter_mut().zip(&t.process.platform().refused) {
                *sum += refused.load(Ordering::Relaxed);
            }
            sums.runs += 1;
            sums.nulls += t.nulls;
            sums.short += (t.nulls > 0) as usize;
            let stay = t.recover();
            let used = t.process.verify().used_bytes;
            if self.orphans {
                return;
            }
            assert_eq!(used, 0, "pages stay in use");
            let bound = t.may_stay();
            assert!(stay <= bound, "{stay} bytes stay mapped, {bound} may");
        }));
        if let Err(panic) = result {
            eprintln!("{}: {plan:?}", self.name);
            std::panic::resume_unwind(panic);
        }
    }

    /// Every plan.
    fn exhaust(&self) {
        let mut t = Trial::new(self.has_break, Plan::NONE);
        (self.run)(&mut t);
        t.verify();
        let asked = &t.process.platform().asked;
        let asked: Vec<_> = asked.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let all: usize = asked.iter().sum();
        drop(t);
        println!("{}: {all} calls, {}", self.name, named(&asked));
        for (how, refuse) in [("one", 1), ("two", 2), ("all from", usize::MAX)] {
            let mut sums = Sums::default();
            for skip in starts(all) {
                let plan = Plan {
                    only: ANY,
                    skip,
                    refuse,
                };
                self.attempt(plan, &mut sums);
            }
            self.report(how, &sums);
            assert!(refuse > 1 || sums.nulls == 0, "one refusal shows outside");
        }
        for (kind, &asked) in asked.iter().enumerate() {
            let mut sums = Sums::default();
            for skip in starts(asked) {
                let plan = Plan {
                    only: 1 << kind,
                    skip,
                    refuse: usize::MAX,
                };
                self.attempt(plan, &mut sums);
            }
            if asked > 0 {
                self.report(&format!("every {}", KINDS[kind]), &sums);
            }
        }
    }

    fn report(&self, how: &str, sums: &Sums) {
        println!(
            "{}: {how}: {} runs, refused {} ({}), null in {} runs, {} times",
            self.name,
            sums.runs,
            sums.refused.iter().sum::<usize>(),
            named(&sums.refused),
            sums.short,
            sums.nulls
        );
    }
}

/// Counts with the names of their kinds.
fn named(counts: &[usize]) -> String {
    let named = KINDS.iter().zip(counts).filter(|(_, &count)| count > 0);
    let named: Vec<_> = named.map(|(name, n)| format!("{name} {n}")).collect();
    named.join(", ")
}

fn exhaust(name: &'static str, has_break: bool, run: fn(&mut Trial)) {
    let orphans = name == "fork_child";
    Workload {
        name,
        has_break,
        run,
        orphans,
    }
    .exhaust();
}

/// Where the system maps no more, pages that small blocks had serve large ones.
#[test]
fn a_large_block_finds_room_in_a_chunk() {
    if 2 * MAX_SMALL > CHUNK / 2 {
        // The small chunks of the small-constants build have no such room.
        return;
    }
    if PRESET.classes_apart {
        println!("skipped: the preset keeps such pages for their class");
        return;
    }
    let mut t = Trial::new(false, Plan::NONE);
    for i in 0..30 {
        t.malloc(20_000 + i);
    }
    t.free_all();
    *t.process.platform().plan.lock().unwrap() = Plan {
        only: 1 << Call::Map as u32,
        skip: 0,
        refuse: usize::MAX,
    };
    t.process.mine().come_to_rest();
    t.malloc(MAX_SMALL + 1);
    assert_eq!(t.nulls, 0);
    t.realloc(0, MAX_SMALL + 20_000);
    t.verify();
    t.recover();
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn shortage_small_churn() {
    exhaust("small_churn", true, small_churn);
    exhaust("small_churn, no break", false, small_churn);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn shortage_every_class() {
    exhaust("every_class", true, every_class);
}

#[test]
fn shortage_large() {
    exhaust("large", true, large);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn shortage_many_large() {
    exhaust("many_large", true, many_large);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn shortage_aligned() {
    exhaust("aligned", true, aligned);
}

#[test]
fn shortage_threads() {
    exhaust("threads", true, threads);
}

#[test]
fn shortage_fork_child() {
    exhaust("fork_child", true, fork_child);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn shortage_peaks() {
    exhaust("peaks", true, peaks);
    exhaust("peaks, no break", false, peaks);
}
