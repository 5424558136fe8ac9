//! Runs steps against the heap and the list of what is live.

use super::{is_all, Boxed, Live, Op, Step};
use crate::base::config::SPAN;
use crate::exchange::abandoned::WARM_BYTES;
use crate::mock::Mock;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Simulated threads.
pub(super) const THREADS: usize = 4;
/// Live blocks and bytes at most: memory must not run out for real.
const MOST_BLOCKS: usize = 3000;
const MOST_BYTES: usize = 48 << 20;
/// Freed blocks that are remembered, to be misused.
const REMEMBERED: usize = 64;

/// What a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    /// Calls of the allocator.
    pub calls: u64,
    /// Faults that were provoked and named.
    pub faults: u64,
    /// Allocations that failed, as the system refused.
    pub refused: u64,
}

/// How a live block came to be.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Its bytes: all that it says are usable.
    pub live: Live,
    /// What was asked for.
    pub asked: usize,
    /// Alignment asked for; 0 for malloc.
    pub align: usize,
    /// The heap (its word) that was the thread's when it was made.
    pub heap: usize,
}

/// The list of what must be live, and the simulated threads.
pub(super) struct Model<'a> {
    pub process: &'a Boxed,
    /// The word of each thread; the current thread's is out of date.
    words: [usize; THREADS],
    thread: usize,
    pub blocks: Vec<Block>,
    /// Ranges of live blocks, to find any overlap.
    ranges: BTreeMap<usize, usize>,
    bytes: usize,
    /// Starts of freed blocks, youngest last.
    pub freed: Vec<usize>,
    tag: u8,
    pub report: Report,
    /// The heap is in no state to go on with.
    pub over: bool,
    forked: bool,
    short: bool,
}

/// Runs the steps, with `check` after each and everything freed at the end.
///
/// # Panics
/// When the heap contradicts the model, or a misuse is not named.
pub fn run(process: &Boxed, steps: &[Step]) -> Report {
    let mut model = Model::new(process);
    for (number, step) in steps.iter().enumerate() {
        model.tag = number as u8 | 1;
        model.step(step);
        if model.over {
            return model.report;
        }
        process.verify();
    }
    model.finish();
    model.report
}

impl<'a> Model<'a> {
    fn new(process: &'a Boxed) -> Self {
        Mock::new_thread();
        Model {
            process,
            words: [0; THREADS],
            thread: 0,
            blocks: Vec::new(),
            ranges: BTreeMap::new(),
            bytes: 0,
            freed: Vec::new(),
            tag: 0,
            report: Report::default(),
            over: false,
            forked: false,
            short: false,
        }
    }

    fn step(&mut self, step: &Step) {
        let (which, n) = (step.which as usize, step.n as usize);
        match step.op {
            Op::Malloc => self.malloc(n),
            Op::Zeroed => self.zeroed(n),
            Op::Aligned => self.aligned(4 + which % 19, n),
            Op::Burst => (0..which % 64).for_each(|_| self.malloc(n.min(40_000))),
            Op::TooMuch => self.too_much(which, n),
            Op::Free => self.free_with(which, |process, block| {
                // SAFETY: live.
                unsafe { process.free(block.live.at) }
            }),
            Op::FreeElsewhere => self.free_elsewhere(which),
            // SAFETY: live, and of this size and alignment.
            Op::FreeSized => self.free_with(which, |process, block| unsafe {
                if n % 2 == 0 {
                    process.free_aligned_sized(block.live.at, block.align.max(1), block.asked)
                } else {
                    process.free_sized(block.live.at, block.asked)
                }
            }),
            Op::FreeMany => self.free_many(1 + which % 7),
            Op::Realloc => self.realloc(which, n),
            Op::Thread => self.go_on_as(which % THREADS),
            Op::Exit => self.process.thread_exit(),
            Op::Trim => self.trim(),
            Op::ForkParent => self.fork_parent(),
            Op::ForkChild => self.fork_child(),
            Op::ProcessExit => self.process.process_exit(),
            Op::Shortage => self.shortage(which % 64, n % 2 != 0),
            Op::Plenty => self.plenty(),
            Op::Dump => self.dump(),
            _ => self.misuse(step),
        }
    }

    fn malloc(&mut self, n: usize) {
        self.new_block(n, 0, |process| process.malloc(n));
    }

    fn aligned(&mut self, shift: usize, n: usize) {
        let align = 1usize << shift;
        self.new_block(n, align, |process| process.aligned_alloc(align, n));
    }

    /// calloc, as the libraries have it; libc's own asks `is_zero` of malloc's block.
    fn zeroed(&mut self, n: usize) {
        self.new_block(n, 0, |process| {
            let at = process.calloc(n);
            if !at.is_null() {
                // SAFETY: a live block.
                let bytes = unsafe { std::slice::from_raw_parts(at, n) };
                assert!(is_all(bytes, 0), "calloc's block is not all zero");
            }
            at
        });
    }

    /// Allocates, unless too much is live already, and enters the block.
    fn new_block(&mut self, n: usize, align: usize, make: impl FnOnce(&Boxed) -> *mut u8) {
        if self.blocks.len() >= MOST_BLOCKS || self.bytes + n + align > MOST_BYTES {
            return;
        }
        self.report.calls += 1;
        let at = make(self.process);
        if at.is_null() {
            return self.refused();
        }
        assert_eq!(at as usize % align.max(16), 0, "aligned");
        self.enter(at, n, align);
    }

    /// An allocation failed.
    fn refused(&mut self) {
        assert!(Mock::take_errno(), "errno tells of the failure");
        assert!(self.short, "there is memory");
        self.report.refused += 1;
    }

    /// Enters a new live block and fills it.
    fn enter(&mut self, at: *mut u8, n: usize, align: usize) {
        let usable = self.process.usable_size(at);
        assert!(usable >= n, "usable as far as asked");
        let start = at as usize;
        let before = self.ranges.range(..start + usable.max(1)).next_back();
        if let Some((&other, &len)) = before {
            assert!(other + len.max(1) <= start, "live blocks are apart");
        }
        self.ranges.insert(start, usable);
        self.bytes += usable;
        self.freed.retain(|&freed| freed != start);
        self.blocks.push(Block {
            live: Live::new(at, usable, self.tag),
            asked: n,
            align,
            heap: self.process.word(),
        });
    }

    /// Takes a block out of the list, its contents verified.
    pub(super) fn take(&mut self, which: usize) -> Option<Block> {
        if self.blocks.is_empty() {
            return None;
        }
        let block = self.blocks.swap_remove(which % self.blocks.len());
        block.live.verify();
        self.ranges.remove(&(block.live.at as usize));
        self.bytes -= block.live.n;
        Some(block)
    }

    /// Puts back what `take` took.
    pub(super) fn put(&mut self, block: Block) {
        self.ranges.insert(block.live.at as usize, block.live.n);
        self.bytes += block.live.n;
        self.blocks.push(block);
    }

    /// Whether a live block starts there.
    pub(super) fn is_live(&self, address: usize) -> bool {
        self.ranges.contains_key(&address)
    }

    /// Remembers a freed block.
    pub(super) fn remember(&mut self, block: &Block) {
        if self.freed.len() == REMEMBERED {
            self.freed.remove(0);
        }
        self.freed.push(block.live.at as usize);
    }

    fn free_with(&mut self, which: usize, free: impl FnOnce(&Boxed, &Block)) {
        if let Some(block) = self.take(which) {
            self.report.calls += 1;
            free(self.process, &block);
            self.remember(&block);
        }
    }

    fn free_elsewhere(&mut self, which: usize) {
        self.free_with(which, |process, block| {
            let heap = process.mine().heap();
            process.heaps.set_mine(None);
            // SAFETY: live; as another thread would.
            unsafe { process.free(block.live.at) };
            // It may have got a heap to defer the free in, and nobody else could use the slot.
            process.thread_exit();
            process.heaps.set_mine(Some(heap));
        });
    }

    fn free_many(&mut self, every: usize) {
        let mut which = 0;
        while which < self.blocks.len() {
            self.free_with(which, |process, block| {
                // SAFETY: live.
                unsafe { process.free(block.live.at) }
            });
            // The last one took its place.
            which += every - 1;
        }
    }

    fn realloc(&mut self, which: usize, n: usize) {
        let Some(&old) = self.blocks.get(which % self.blocks.len().max(1)) else {
            // What realloc(NULL, n) does.
            // SAFETY: null.
            return self.new_block(n, 0, |process| unsafe {
                process.realloc(std::ptr::null_mut(), n)
            });
        };
        if self.bytes + n > MOST_BYTES {
            return;
        }
        old.live.verify();
        self.report.calls += 1;
        // SAFETY: live.
        let at = unsafe { self.process.realloc(old.live.at, n) };
        if at.is_null() {
            old.live.verify();
            return self.refused();
        }
        let kept = old.live.n.min(n);
        Live { at, ..old.live }.verify_first(kept);
        let index = which % self.blocks.len();
        self.blocks.swap_remove(index);
        self.ranges.remove(&(old.live.at as usize));
        self.bytes -= old.live.n;
        if at != old.live.at {
            self.remember(&old);
        }
        self.enter(at, n, 0);
        if at == old.live.at {
            // Whoever made it, it stays in its slot.
            let block = self.blocks.last_mut().expect("just entered");
            (block.heap, block.align) = (old.heap, old.align);
        }
    }

    fn too_much(&mut self, which: usize, n: usize) {
        let n = isize::MAX as usize + 1 + n;
        let at = match (which % 3, self.blocks.first()) {
            (0, _) => self.process.malloc(n),
            (1, Some(block)) => {
                // SAFETY: live.
                unsafe { self.process.realloc(block.live.at, n) }
            }
            _ => self.process.aligned_alloc(64, n),
        };
        assert!(at.is_null() && Mock::take_errno(), "more than there is");
    }

    fn go_on_as(&mut self, thread: usize) {
        use crate::base::platform::Platform;
        self.words[self.thread] = self.process.platform().heap_field();
        self.thread = thread;
        self.process.platform().set_heap_field(self.words[thread]);
    }

    fn trim(&mut self) {
        if !self.process.mine().is_empty() {
            self.process.mine().trim();
        }
    }

    fn fork_parent(&mut self) {
        self.process.before_fork();
        self.process.after_fork_parent();
    }

    fn fork_child(&mut self) {
        self.process.before_fork();
        // SAFETY: the other threads are simulated, and end here.
        unsafe { self.process.after_fork_child() };
        self.words = [0; THREADS];
        self.forked = true;
    }

    fn shortage(&mut self, after: usize, once: bool) {
        let platform = self.process.platform();
        platform.fail_once.store(once, Relaxed);
        platform.calls_left.store(after, Relaxed);
        self.short = true;
    }

    pub(super) fn plenty(&mut self) {
        self.process
            .platform()
            .calls_left
            .store(usize::MAX, Relaxed);
        self.short = false;
    }

    fn dump(&mut self) {
        let mut dump = String::new();
        self.process.dump(&mut dump).expect("a string holds it");
        let last = dump.lines().last().unwrap_or("");
        assert!(last.starts_with("total "), "{last}");
    }

    /// Ends all threads, in between which everything is freed: nothing may be left.
    fn finish(&mut self) {
        self.plenty();
        let left = self.blocks.len() / 2;
        while self.blocks.len() > left {
            self.step(&Step {
                op: Op::Free,
                which: 7,
                n: 0,
            });
        }
        for thread in 0..THREADS {
            self.go_on_as(thread);
            self.process.thread_exit();
            self.words[thread] = 0;
        }
        self.go_on_as(0);
        self.free_many(1);
        // It may have got a heap to defer frees of other heaps' slots in.
        self.process.thread_exit();
        let end = self.process.verify();
        let nothing = (end.live_bytes, end.live, end.runs, end.large);
        assert_eq!(nothing, (0, 0, 0, 0), "all is freed");
        if !self.forked {
            // Heaps of threads that ended may be warm, a little: spans take their room whole.
            let most = 2 * WARM_BYTES + THREADS * SPAN;
            assert!(
                end.used_bytes <= most,
                "more than warm heaps may keep: {end:?}"
            );
            // At rest no heap keeps an empty group.
            self.process.mine().trim();
            let end = self.process.verify();
            assert!(end.used_bytes == 0, "pages are left in use: {end:?}");
        }
        let at = self.process.malloc(1000);
        assert!(!at.is_null(), "memory is back");
    }
}
