//! The whole heap against a mock system, with `check` after the steps.

use crate::config::PRESET;
use crate::mock::Mock;
use crate::process::Process;
use crate::size_class::MAX_SMALL;
use proptest::prelude::*;
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A process in memory of its own (its window table is too large for a stack).
struct Boxed(*mut Process<Mock>);

impl Boxed {
    fn new(has_break: bool) -> Self {
        Mock::new_thread();
        // SAFETY: all-zero bytes are a valid process but for its platform, which is written here.
        unsafe {
            let process = alloc_zeroed(Layout::new::<Process<Mock>>()).cast::<Process<Mock>>();
            Process::init_for_test(process, Mock::new(has_break));
            Boxed(process)
        }
    }

    fn verify(&self) -> crate::inspect::Summary {
        match self.check() {
            Ok(summary) => summary,
            Err(broken) => {
                let mut dump = String::new();
                let _ = self.dump(&mut dump);
                panic!("{broken}\n{dump}");
            }
        }
    }
}

impl Deref for Boxed {
    type Target = Process<Mock>;
    fn deref(&self) -> &Process<Mock> {
        // SAFETY: made in `new`, freed in `drop`.
        unsafe { &*self.0 }
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        Mock::new_thread();
        // SAFETY: the last use.
        unsafe {
            core::ptr::drop_in_place(&raw mut (*self.0).platform);
            dealloc(self.0.cast(), Layout::new::<Process<Mock>>());
        }
    }
}

// SAFETY: a process is shared by threads.
unsafe impl Send for Boxed {}
// SAFETY: as above.
unsafe impl Sync for Boxed {}

/// A live block of the model.
#[derive(Clone, Copy)]
struct Live {
    at: *mut u8,
    n: usize,
    tag: u8,
}

// SAFETY: tests hand blocks from thread to thread.
unsafe impl Send for Live {}
// SAFETY: as above.
unsafe impl Sync for Live {}

impl Live {
    fn new(at: *mut u8, n: usize, tag: u8) -> Self {
        assert!(!at.is_null());
        assert_eq!(at as usize % 16, 0);
        // SAFETY: a block of n bytes.
        unsafe { at.write_bytes(tag, n) };
        Live { at, n, tag }
    }

    fn verify(&self) {
        self.verify_first(self.n);
    }

    fn verify_first(&self, n: usize) {
        // SAFETY: a live block.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, n) };
        assert!(
            bytes.iter().all(|&b| b == self.tag),
            "contents of a live block changed"
        );
    }
}

/// As many frees as it takes for a freed slot to leave its ring.
fn churn(process: &Boxed, n: usize) {
    for _ in 0..=crate::config::RING {
        // SAFETY: live.
        unsafe { process.free(process.malloc(n)) };
    }
}

/// Whether the action stops with a fault of that name.
fn faults(name: &str, action: impl FnOnce()) -> bool {
    let result = catch_unwind(AssertUnwindSafe(action));
    let message = result
        .err()
        .and_then(|e| e.downcast_ref::<String>().cloned());
    message.is_some_and(|m| m.contains(name))
}

/// Not one page of the static in libc stands in the file.
#[test]
fn a_new_process_is_zero() {
    use crate::pages::{Access, Platform};
    use core::ptr::NonNull;
    struct Nothing;
    // SAFETY: never used.
    unsafe impl Platform for Nothing {
        fn page_size(&self) -> usize {
            4096
        }
        fn map(&self, _: usize, _: usize, _: Access) -> Option<NonNull<u8>> {
            None
        }
        unsafe fn unmap(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn protect(&self, _: NonNull<u8>, _: usize, _: Access) -> bool {
            false
        }
        unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn remap(&self, _: NonNull<u8>, _: usize, _: usize, _: bool) -> Option<NonNull<u8>> {
            None
        }
        fn program_break(&self) -> usize {
            0
        }
        fn move_break(&self, _: usize) -> bool {
            false
        }
        fn random(&self) -> [u64; 2] {
            [0; 2]
        }
        fn lock(&self) {}
        fn unlock(&self) {}
        unsafe fn reset_lock(&self) {}
        fn threaded(&self) -> bool {
            false
        }
        fn heap_field(&self) -> usize {
            0
        }
        fn set_heap_field(&self, _: usize) {}
        fn first_heap(&self) {}
        fn out_of_memory(&self) {}
    }
    static PROCESS: Process<Nothing> = Process::new(Nothing);
    let start = (&raw const PROCESS).cast::<u8>();
    // SAFETY: the static's own bytes; padding of a static is zero where its value is.
    let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<Process<Nothing>>()) };
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn blocks_of_every_size_are_aligned_apart_and_usable() {
    let process = Boxed::new(true);
    let mut live = Vec::new();
    for n in (0..3000).chain((3000..300_000).step_by(997)) {
        let block = Live::new(process.malloc(n), n, n as u8);
        assert!(process.usable_size(block.at) >= n);
        live.push(block);
    }
    process.verify();
    for block in live {
        block.verify();
        // SAFETY: live.
        unsafe { process.free(block.at) };
    }
    let end = process.verify();
    assert_eq!((end.live, end.large, end.live_bytes), (0, 0, 0));
}

#[test]
fn a_freed_slot_is_not_handed_out_at_once() {
    let process = Boxed::new(true);
    let first = process.malloc(40);
    // SAFETY: live.
    unsafe { process.free(first) };
    assert_ne!(process.malloc(40), first);
}

#[test]
fn misuse_is_found_at_the_free() {
    for n in [
        0,
        1,
        24,
        100,
        500,
        600,
        4000,
        5000,
        100_000,
        MAX_SMALL,
        200_000,
        1 << 20,
    ] {
        for warm in [false, true] {
            let process = Boxed::new(true);
            let mut neighbours = Vec::new();
            if warm {
                for i in 0..20 {
                    neighbours.push(process.malloc(n));
                    if i % 3 == 0 {
                        // SAFETY: live.
                        unsafe { process.free(neighbours.pop().unwrap()) };
                    }
                }
            }
            let p = process.malloc(n);
            // SAFETY: the misuse under test; the heap stops before it does harm.
            unsafe {
                for d in [1, 8, 16, 4096].into_iter().filter(|&d| d < n) {
                    let bad = p.wrapping_add(d);
                    assert!(
                        faults("invalid", || process.free(bad)),
                        "{n} interior by {d}"
                    );
                }
                assert!(
                    faults("invalid", || process.free(p.wrapping_sub(8))),
                    "{n} before"
                );
                process.free(p);
                assert!(
                    faults("", || process.free(p)),
                    "{n} double free, warm {warm}"
                );
                if n <= MAX_SMALL && (warm || n < 4000) {
                    assert!(
                        faults("double", || process.free(p)),
                        "{n} double free named"
                    );
                }
                assert!(
                    faults("", || _ = process.realloc(p, 10)),
                    "{n} realloc of freed"
                );
                assert!(
                    faults("", || _ = process.usable_size(p)),
                    "{n} size of freed"
                );
                let q = process.malloc(n);
                q.add(n).write(q.add(n).read() ^ 0x55);
                let found = faults("overflow", || {
                    process.free(q);
                    churn(&process, n);
                });
                assert!(found, "{n} overflow");
            }
            let mut local = 0u64;
            let stack = (&raw mut local).cast::<u8>();
            // SAFETY: as above.
            assert!(faults("invalid", || unsafe { process.free(stack) }));
        }
    }
}

#[test]
fn an_overflow_is_found_at_exit_at_the_latest() {
    for n in [10, 100, 1000, 5000, 100_000] {
        let process = Boxed::new(true);
        let p = process.malloc(n);
        // SAFETY: the misuse under test.
        unsafe {
            p.add(n).write(p.add(n).read() ^ 0x55);
            assert!(faults("overflow", || {
                process.free(p);
                process.process_exit();
            }));
        }
    }
}

#[test]
fn a_string_terminator_one_past_the_end_is_found() {
    let process = Boxed::new(true);
    let p = process.malloc(64);
    // SAFETY: the misuse under test.
    unsafe {
        p.add(64).write(0);
        assert!(faults("overflow", || {
            process.free(p);
            churn(&process, 64);
        }));
    }
}

#[test]
fn aligned_blocks_are_aligned_and_cheap() {
    let process = Boxed::new(true);
    for shift in 4..=24 {
        let align = 1usize << shift;
        for n in [
            0,
            1,
            15,
            100,
            align - 1,
            align,
            align + 1,
            3 * align / 2,
            5000,
        ] {
            let block = Live::new(process.aligned_alloc(align, n), n, 7);
            assert_eq!(block.at as usize % align, 0, "align {align} n {n}");
            assert!(process.usable_size(block.at) >= n);
            block.verify();
            process.verify();
            // SAFETY: live; the interior is the misuse under test.
            unsafe {
                if n > 16 {
                    assert!(faults("invalid", || process.free(block.at.add(16))));
                }
                process.free(block.at);
                assert!(
                    faults("", || process.free(block.at)),
                    "double free at {align}, {n}"
                );
            }
        }
    }
    let before = process.verify().used_bytes;
    let pages: Vec<_> = (0..100)
        .map(|_| process.aligned_alloc(4096, 4096))
        .collect();
    // The hardened preset pays another page for a guard byte.
    let each = if PRESET.guard_pages { 8192 } else { 4096 };
    assert_eq!(process.verify().used_bytes - before, 100 * each);
    for page in pages {
        // SAFETY: live.
        unsafe { process.free(page) };
    }
    assert_eq!(process.verify().live_bytes, 0);
}

#[test]
fn memory_goes_back_after_a_peak() {
    let process = Boxed::new(false);
    let live: Vec<_> = (0..200_000).map(|i| process.malloc(16 + i % 900)).collect();
    let peak = process.verify();
    for block in live {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    let end = process.verify();
    assert!(
        end.used_bytes < peak.used_bytes / 50,
        "{end:?} after {peak:?}"
    );
    assert!(end.dirty_bytes <= 2 << 20, "{end:?}");
    // Address space goes back too, but for a chunk or two.
    let mapped = process.platform.mapped();
    assert!(mapped <= 16 << 20, "{mapped} bytes stay mapped");
}

#[test]
fn sizes_are_checked_by_free_sized() {
    for n in [0, 10, 100, 700, 5000, 200_000] {
        let process = Boxed::new(true);
        let p = process.malloc(n);
        // SAFETY: the misuse under test, then a right free.
        unsafe {
            assert!(faults("size", || process.free_sized(p, 1, n + 1)), "{n}");
            assert!(
                n == 0 || faults("size", || process.free_sized(p, 1, n - 1)),
                "{n}"
            );
            process.free_sized(p, 1, n);
            let q = process.aligned_alloc(64, n);
            assert!(faults("size", || process.free_sized(q, 1 << 40, n)), "{n}");
            process.free_sized(q, 64, n);
        }
        assert_eq!(process.verify().live_bytes, 0);
    }
}

#[test]
fn other_threads_free_and_heaps_are_adopted() {
    let process = Boxed::new(true);
    let blocks: Vec<Live> = (0..5000)
        .map(|i| Live::new(process.malloc(i % 700), i % 700, i as u8))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Mock::new_thread();
            let own: Vec<_> = (0..1000).map(|i| process.malloc(i)).collect();
            for block in &blocks {
                block.verify();
                // SAFETY: live, handed over.
                unsafe { process.free(block.at) };
                // SAFETY: the misuse under test.
                assert!(
                    // SAFETY: as above.
                    faults("", || unsafe { process.free(block.at) }),
                    "remote double free"
                );
            }
            for block in own {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
            process.thread_exit();
        });
    });
    let middle = process.verify();
    assert_eq!(middle.live, 0);
    assert_eq!(middle.heaps, 2);
    for _ in 0..20 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                Mock::new_thread();
                let p = process.malloc(100);
                // SAFETY: live.
                unsafe { process.free(p) };
                process.thread_exit();
            });
        });
    }
    assert_eq!(process.verify().heaps, 2, "parked heaps are adopted");
}

#[test]
fn blocks_of_a_parked_heap_come_back_without_an_adopter() {
    let process = Boxed::new(false);
    let blocks: Vec<Live> = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            Mock::new_thread();
            let made = (0..20_000)
                .map(|i| Live::new(process.malloc(900), 900, i as u8))
                .collect();
            process.thread_exit();
            made
        });
        made.join().unwrap()
    });
    let peak = process.verify();
    for block in blocks {
        block.verify();
        // SAFETY: live.
        unsafe { process.free(block.at) };
    }
    let end = process.verify();
    assert_eq!(end.live, 0);
    assert!(
        end.used_bytes < peak.used_bytes / 20,
        "{end:?} after {peak:?}"
    );
}

#[test]
fn threads_hand_blocks_around() {
    let process = Boxed::new(true);
    let shelf: Vec<std::sync::Mutex<Option<Live>>> = (0..64).map(|_| Default::default()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (process, shelf) = (&process, &shelf);
            scope.spawn(move || {
                Mock::new_thread();
                let mut seed = thread;
                for step in 0..20_000u64 {
                    let random = crate::process::next_random(&mut seed);
                    let n = random as usize % [32, 300, 3000, 40_000][(random >> 40) as usize % 4];
                    let block = Live::new(process.malloc(n), n, step as u8);
                    let place = &shelf[(random >> 32) as usize % shelf.len()];
                    if let Some(old) = place.lock().unwrap().replace(block) {
                        old.verify();
                        // SAFETY: taken off the shelf: ours.
                        unsafe { process.free(old.at) };
                    }
                }
                process.thread_exit();
            });
        }
    });
    for place in &shelf {
        if let Some(block) = place.lock().unwrap().take() {
            block.verify();
            // SAFETY: live.
            unsafe { process.free(block.at) };
        }
    }
    assert_eq!(process.verify().live_bytes, 0);
}

/// A step of the model.
#[derive(Debug, Clone)]
enum Step {
    Malloc(usize),
    Aligned(u32, usize),
    Zeroed(usize),
    Free(usize),
    FreeElsewhere(usize),
    Realloc(usize, usize),
    Donate(usize),
    Trim,
    Restart,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0usize..700,
        4 => 0usize..9000,
        2 => 0usize..=MAX_SMALL,
        1 => MAX_SMALL..1_000_000,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => size().prop_map(Step::Malloc),
        1 => (4u32..18, size()).prop_map(|(shift, n)| Step::Aligned(shift, n)),
        1 => size().prop_map(Step::Zeroed),
        6 => any::<usize>().prop_map(Step::Free),
        2 => any::<usize>().prop_map(Step::FreeElsewhere),
        2 => (any::<usize>(), size()).prop_map(|(which, n)| Step::Realloc(which, n)),
        1 => (0usize..4096).prop_map(Step::Donate),
        1 => Just(Step::Trim),
        1 => Just(Step::Restart),
    ]
}

/// Runs steps against the model: contents of live blocks are kept, and the heap's invariants hold.
/// Returns whether every allocation succeeded.
fn run(process: &Boxed, steps: &[Step], every: usize) -> bool {
    let mut live: Vec<Live> = Vec::new();
    let mut gifts: Vec<Box<[u128]>> = Vec::new();
    let mut all = true;
    for (number, step) in steps.iter().enumerate() {
        let tag = number as u8;
        let mut add = |at: *mut u8, n: usize| {
            if at.is_null() {
                assert!(Mock::take_errno(), "errno tells of the failure");
                all = false;
            } else {
                live.push(Live::new(at, n, tag));
            }
        };
        match *step {
            Step::Malloc(n) => add(process.malloc(n), n),
            Step::Aligned(shift, n) => {
                let at = process.aligned_alloc(1 << shift, n);
                assert_eq!(at as usize % (1 << shift), 0);
                add(at, n);
            }
            Step::Zeroed(n) => {
                let at = process.malloc(n);
                if !at.is_null() && process.is_zero(at) {
                    // SAFETY: a live block.
                    let bytes = unsafe { std::slice::from_raw_parts(at, n) };
                    assert!(bytes.iter().all(|&b| b == 0), "known to be zero, and is");
                }
                add(at, n);
            }
            Step::Free(which) | Step::FreeElsewhere(which) if !live.is_empty() => {
                let block = live.swap_remove(which % live.len());
                block.verify();
                if matches!(step, Step::Free(_)) {
                    // SAFETY: live.
                    unsafe { process.free(block.at) };
                } else {
                    let heap = process.heap();
                    process.set_heap(process.empty_heap());
                    // SAFETY: live; as another thread would, without a heap of its own.
                    unsafe { process.free(block.at) };
                    process.set_heap(heap);
                }
            }
            Step::Realloc(which, n) if !live.is_empty() => {
                let which = which % live.len();
                let old = live[which];
                old.verify();
                // SAFETY: live.
                let at = unsafe { process.realloc(old.at, n) };
                if at.is_null() {
                    assert!(Mock::take_errno());
                    old.verify();
                    all = false;
                } else {
                    Live { at, ..old }.verify_first(old.n.min(n));
                    live[which] = Live::new(at, n, tag);
                }
            }
            Step::Donate(bytes) => {
                let mut gift = vec![u128::MAX; bytes / 16].into_boxed_slice();
                let range = gift.as_mut_ptr_range();
                // SAFETY: the gift lives as long as the process's use of it.
                unsafe { process.donate(range.start.cast(), range.end.cast()) };
                gifts.push(gift);
            }
            Step::Trim if !process.is_empty_heap(process.heap()) => {
                // SAFETY: the thread's own heap.
                unsafe { process.trim(process.heap()) };
            }
            Step::Restart => process.thread_exit(),
            _ => {}
        }
        if number % every == 0 {
            process.verify();
        }
    }
    for block in live {
        block.verify();
        // SAFETY: live.
        unsafe { process.free(block.at) };
    }
    let end = process.verify();
    assert_eq!(
        (end.live_bytes, end.live, end.runs, end.large),
        (0, 0, 0, 0)
    );
    process.thread_exit();
    process.verify();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_steps_keep_contents_and_invariants(
        steps in proptest::collection::vec(step(), 1..400),
        has_break in any::<bool>(),
    ) {
        let process = Boxed::new(has_break);
        prop_assert!(run(&process, &steps, 1));
    }

    #[test]
    fn failures_of_the_system_lose_nothing(
        steps in proptest::collection::vec(step(), 1..200),
        after in 0usize..60,
        once in any::<bool>(),
    ) {
        let process = Boxed::new(true);
        process.platform.calls_left.store(after, std::sync::atomic::Ordering::Relaxed);
        process.platform.fail_once.store(once, std::sync::atomic::Ordering::Relaxed);
        run(&process, &steps, 1);
        process.platform.calls_left.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
        let p = process.malloc(1000);
        prop_assert!(!p.is_null(), "memory is back");
        // SAFETY: live.
        unsafe { process.free(p) };
    }
}

#[test]
fn hardened_finds_writes_to_freed_memory() {
    if !PRESET.zero_on_free {
        return;
    }
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..200).map(|_| process.malloc(100)).collect();
    // Their neighbours stay, and so do their groups.
    for &block in blocks.iter().skip(1).step_by(2) {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // SAFETY: the misuse under test.
    unsafe { blocks[7].add(3).write(1) };
    assert!(faults("write after free", || {
        // Bursts larger than ring and quarantine together reach the masks.
        for _ in 0..50 {
            let burst: Vec<_> = (0..400).map(|_| process.malloc(100)).collect();
            for block in burst {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
        }
    }));
}

fn ring_state(process: &Boxed, n: usize) -> *mut crate::heap::Class {
    // SAFETY: this thread's heap.
    unsafe { crate::heap::Heap::class(process.heap(), crate::size_class::class_of(n)) }
}

/// 2^32 mallocs of a class later, positions repeat.
#[test]
fn zero_is_true_when_positions_wrap() {
    let process = Boxed::new(true);
    let n = 40;
    // Fresh group, activated: some positions are zero.
    let keep: Vec<_> = (0..64).map(|_| process.malloc(n)).collect();
    for &b in &keep {
        // SAFETY: live.
        unsafe { b.write_bytes(0xaa, n) };
    }
    for &b in &keep {
        // SAFETY: live.
        unsafe { process.free(b) };
    }
    let state = ring_state(&process, n);
    // SAFETY: our heap.
    unsafe {
        // Everything to the masks; then as many mallocs as lead the positions around.
        process.spill(process.heap(), crate::size_class::class_of(n), u32::MAX);
        if (*state).zero_from == (*state).zero_to {
            return;
        }
        (*state).head = (*state).zero_from;
        (*state).tail = (*state).zero_from;
        for _ in 0..8 {
            let b = process.malloc(n);
            if process.is_zero(b) {
                let bytes = std::slice::from_raw_parts(b, n);
                assert!(
                    bytes.iter().all(|&x| x == 0),
                    "calloc would return dirty memory"
                );
            }
        }
    }
}

/// A double free by another thread that raced with the owner's.
#[test]
fn a_racing_remote_double_free_is_found() {
    let process = Boxed::new(true);
    let keep: Vec<_> = (0..8).map(|_| process.malloc(40)).collect();
    let p = keep[3];
    let slot = crate::pointer::Untrusted::new(p).find(&*process).unwrap();
    let heap = process.heap();
    // SAFETY: the misuse under test: the other thread passed all its checks before our free.
    unsafe {
        process.free(p);
        slot.clear_record();
        let _ = (*heap).mail.0.send(slot.meta, slot.bit());
        assert!(faults("double", || {
            process.collect(heap);
        }));
    }
}

/// What other threads freed is collected though the class in use never runs out of groups.
#[test]
fn a_busy_owner_collects() {
    let process = Boxed::new(true);
    let big: Vec<Live> = (0..4000)
        .map(|_| Live::new(process.malloc(5000), 5000, 1))
        .collect();
    let mut small: Vec<_> = (0..40_000).map(|_| process.malloc(100)).collect();
    // Every group of the small class has room.
    let mut seed = 5;
    for _ in 0..10_000 {
        let at = crate::process::next_random(&mut seed) as usize % small.len();
        // SAFETY: live.
        unsafe { process.free(small.swap_remove(at)) };
    }
    let peak = process.verify().used_bytes;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Mock::new_thread();
            for b in &big {
                // SAFETY: live.
                unsafe { process.free(b.at) };
            }
        });
    });
    for _ in 0..10_000 {
        // More at a time than the ring holds.
        for _ in 0..40 {
            let at = crate::process::next_random(&mut seed) as usize % small.len();
            // SAFETY: live.
            unsafe { process.free(small.swap_remove(at)) };
        }
        small.extend((0..40).map(|_| process.malloc(100)));
    }
    let end = process.verify().used_bytes;
    assert!(end < peak / 2, "{end} of {peak}");
}

/// STRESS_SECONDS of threads that come and go, hand blocks around, and meet failures.
#[test]
#[ignore]
fn stress() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let seconds: u64 = std::env::var("STRESS_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(30);
    let fail = std::env::var("STRESS_FAIL").is_ok();
    let begin = std::time::Instant::now();
    let mut round = std::env::var("STRESS_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0u64);
    while begin.elapsed().as_secs() < seconds {
        round += 1;
        let process = Boxed::new(round % 2 == 0);
        let shelf: Vec<std::sync::Mutex<Option<Live>>> =
            (0..400).map(|_| Default::default()).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if fail {
                let (process, done) = (&process, &done);
                scope.spawn(move || {
                    let mut seed = round;
                    while !done.load(Ordering::Relaxed) {
                        let r = crate::process::next_random(&mut seed);
                        process
                            .platform
                            .fail_once
                            .store(r & 1 == 0, Ordering::Relaxed);
                        process
                            .platform
                            .calls_left
                            .store((r >> 8) as usize % 20, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_micros(200 + (r >> 20) % 400));
                        process
                            .platform
                            .calls_left
                            .store(usize::MAX, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_micros((r >> 40) % 1000));
                    }
                    process
                        .platform
                        .calls_left
                        .store(usize::MAX, Ordering::Relaxed);
                });
            }
            let workers: Vec<_> = (0..4u64)
                .map(|thread| {
                    let (process, shelf) = (&process, &shelf);
                    scope.spawn(move || {
                        let mut seed = round * 1000 + thread;
                        for life in 0..6u64 {
                            Mock::new_thread();
                            let mut own: Vec<Live> = Vec::new();
                            let bound = [64, 700, 3000, 140_000]
                                [(crate::process::next_random(&mut seed) % 4) as usize];
                            for step in 0..4000u64 {
                                let r = crate::process::next_random(&mut seed);
                                let n =
                                    (r as usize >> 3) % if r & 7 == 0 { 200_000 } else { bound };
                                let pick = (r >> 32) as usize;
                                match (r >> 24) % 16 {
                                    0..=4 => {
                                        let at = match (r >> 50) % 16 {
                                            0 => {
                                                process.aligned_alloc(1 << (5 + (r >> 54) % 10), n)
                                            }
                                            1 | 2 => {
                                                let at = process.malloc(n);
                                                if !at.is_null() && process.is_zero(at) {
                                                    // SAFETY: live.
                                                    let bytes = unsafe {
                                                        std::slice::from_raw_parts(at, n)
                                                    };
                                                    assert!(bytes.iter().all(|&b| b == 0), "zero");
                                                }
                                                at
                                            }
                                            _ => process.malloc(n),
                                        };
                                        if !at.is_null() {
                                            own.push(Live::new(at, n, step as u8));
                                        }
                                    }
                                    5..=8 if !own.is_empty() => {
                                        let b = own.swap_remove(pick % own.len());
                                        b.verify();
                                        // SAFETY: live.
                                        unsafe { process.free(b.at) };
                                    }
                                    9..=13 if !own.is_empty() => {
                                        let b = own.swap_remove(pick % own.len());
                                        let place = &shelf[(r >> 40) as usize % shelf.len()];
                                        let old = place.lock().unwrap().replace(b);
                                        if let Some(b) = old {
                                            b.verify();
                                            // SAFETY: ours now.
                                            unsafe { process.free(b.at) };
                                        }
                                    }
                                    14 => {
                                        let taken =
                                            shelf[pick % shelf.len()].lock().unwrap().take();
                                        own.extend(taken);
                                    }
                                    15 if !own.is_empty() => {
                                        let which = pick % own.len();
                                        let old = own[which];
                                        // SAFETY: live.
                                        let at = unsafe { process.realloc(old.at, n) };
                                        if at.is_null() {
                                            old.verify();
                                        } else {
                                            Live { at, ..old }.verify_first(old.n.min(n));
                                            own[which] = Live::new(at, n, step as u8);
                                        }
                                    }
                                    _ => {}
                                }
                                if r >> 52 == 0 && !process.is_empty_heap(process.heap()) {
                                    // SAFETY: this thread's heap.
                                    unsafe { process.trim(process.heap()) };
                                }
                            }
                            if life % 2 == 0 {
                                for b in own.drain(..) {
                                    b.verify();
                                    // SAFETY: live.
                                    unsafe { process.free(b.at) };
                                }
                                process.thread_exit();
                            } else {
                                process.thread_exit();
                                for b in own.drain(..) {
                                    b.verify();
                                    // SAFETY: live.
                                    unsafe { process.free(b.at) };
                                }
                            }
                        }
                    })
                })
                .collect();
            for w in workers {
                w.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        process.verify();
        for place in &shelf {
            if let Some(b) = place.lock().unwrap().take() {
                b.verify();
                // SAFETY: live.
                unsafe { process.free(b.at) };
            }
        }
        let end = process.verify();
        assert_eq!(
            (end.live, end.live_bytes, end.runs, end.large),
            (0, 0, 0, 0)
        );
        assert!(end.heaps <= 6, "{end:?}");
        assert!(fail || end.used_bytes <= 256 << 10, "{end:?}");
    }
    eprintln!("rounds: {round}");
}
