//! Random steps against a model.

use super::*;
use crate::size_class::MAX_SMALL;
use proptest::prelude::*;

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
