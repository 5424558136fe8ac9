//! `stats()` tells what this program holds. One test at a time: others would hold blocks, too.

use byssal::{stats, Stats, Usage};
use std::alloc::{alloc, dealloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Mutex;
use std::thread;

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The sums; None, with the reason, where there are none.
fn now() -> Option<Stats> {
    let stats = stats();
    if stats.is_none() {
        println!("skipped: libc's own byssal has no sums");
    }
    stats
}

/// The harness's first thread may take or free a block while a test compares sums: what is so must be
/// seen in one of some tries. A try says what was otherwise.
fn is_seen(tried: impl Fn() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..50 {
        match tried() {
            Ok(()) => return,
            Err(otherwise) => last = otherwise,
        }
        thread::yield_now();
    }
    panic!("{last}");
}

fn check(is_so: bool, otherwise: impl Fn() -> String) -> Result<(), String> {
    is_so.then_some(()).ok_or_else(otherwise)
}

#[test]
fn live_blocks_are_counted_by_class() {
    const COUNT: usize = 50;
    let _alone = ONE_AT_A_TIME.lock();
    for size in [
        16,
        100,
        671,
        700,
        3000,
        8000,
        50_000,
        131_000,
        131_072,
        1 << 20,
        9 << 20,
    ] {
        if now().is_none() {
            return;
        }
        is_seen(|| count_of(size, COUNT));
    }
}

/// Counts blocks of a size before, while and after there are so many more.
fn count_of(size: usize, count: usize) -> Result<(), String> {
    let layout = Layout::from_size_align(size, 8).unwrap();
    let mut blocks = Vec::with_capacity(count);
    let before = stats().unwrap();
    for _ in 0..count {
        // SAFETY: the size is not 0.
        blocks.push(unsafe { alloc(layout) });
    }
    let with = stats().unwrap();
    for block in &blocks {
        // SAFETY: made with this layout.
        unsafe { dealloc(*block, layout) };
    }
    let after = stats().unwrap();
    let [before, with, after] = [before, with, after].map(|stats| stats.class_of(size));
    let otherwise = || format!("{size}: {before:?} {with:?} {after:?}");
    let grown = with.live.wrapping_sub(before.live);
    check(with.blocks.wrapping_sub(before.blocks) == count, otherwise)?;
    check(
        (count * size..=count * (size + 511)).contains(&grown),
        otherwise,
    )?;
    check(with.mapped >= with.live + with.retained, otherwise)?;
    check(
        (after.blocks, after.live) == (before.blocks, before.live),
        otherwise,
    )?;
    check(after.mapped >= after.retained, otherwise)
}

#[test]
fn freed_slots_are_retained_while_their_group_stays() {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(before) = now() else { return };
    // Every second one stays, so no group is empty.
    let mut blocks: Vec<Option<Box<[u8; 200]>>> =
        (0..2000).map(|_| Some(Box::new([1; 200]))).collect();
    blocks.iter_mut().step_by(2).for_each(|block| *block = None);
    let after = stats().unwrap();
    let (before, after) = (before.class_of(200), after.class_of(200));
    assert!(
        after.retained - before.retained >= 1000 * 200,
        "{before:?} {after:?}"
    );
    assert!(
        after.live - before.live >= 1000 * 200,
        "{before:?} {after:?}"
    );
}

#[test]
fn sums_agree_and_looking_changes_nothing() {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(first) = now() else { return };
    is_seen(|| {
        let [one, two] = [stats(), stats()];
        check(one == two, || format!("{one:?} {two:?}"))
    });
    let mut kinds: Vec<Usage> = first.classes().map(|(_, usage)| usage).collect();
    kinds.extend([first.large(), first.rest()]);
    let total = first.total();
    let sum = |of: fn(&Usage) -> usize| kinds.iter().map(of).sum::<usize>();
    assert_eq!(total.live, sum(|usage| usage.live));
    assert_eq!(total.retained, sum(|usage| usage.retained));
    assert_eq!(total.mapped, sum(|usage| usage.mapped));
    assert!(total.live > 0 && total.mapped > total.live, "{total:?}");
    let strides: Vec<usize> = first.classes().map(|(stride, _)| stride).collect();
    assert!(strides.is_sorted() && strides[0] > 0);
}

#[test]
fn blocks_of_other_threads_are_counted_while_they_work() {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(before) = now() else { return };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                while !over.load(Relaxed) {
                    kept.extend((0..300).map(|n| vec![3; 1 + n * n % 20_000]));
                    kept.truncate(kept.len() % 100);
                }
            });
        }
        for _ in 0..300 {
            let held = stats().unwrap().total().live;
            // The three hold at most 400 blocks of 20,000 bytes each.
            assert!(held < before.total().live + 3 * 400 * 20_511, "{held}");
        }
        over.store(true, Relaxed);
    });
}
