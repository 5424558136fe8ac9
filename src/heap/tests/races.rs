//! Threads at work on one process for ThreadSanitizer (`make tsan`), which knows of the atomics in
//! this crate but of no lock of the standard library: blocks are handed over by atomics alone.

use super::*;
use crate::base::random::next_random;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A block's first bytes.
struct Head {
    n: usize,
    tag: u8,
}

type Shelf = [AtomicPtr<Head>; 64];

fn shelf() -> Shelf {
    [const { AtomicPtr::new(std::ptr::null_mut()) }; 64]
}

/// A block that carries its own length.
fn make(process: &Boxed, random: u64) -> *mut Head {
    let n =
        size_of::<Head>() + random as usize % [40, 300, 3000, 40_000][(random >> 60) as usize % 4];
    let block = Live::new(process.malloc(n), n, random as u8);
    let head = block.at.cast::<Head>();
    // SAFETY: a block with room for it.
    unsafe { head.write(Head { n, tag: block.tag }) };
    head
}

/// Verifies and frees a block that was taken off a shelf.
fn free(process: &Boxed, head: *mut Head) {
    if head.is_null() {
        return;
    }
    // SAFETY: a live block, ours.
    unsafe {
        let Head { n, tag } = head.read();
        let rest = head.add(1).cast::<u8>();
        let live = Live {
            at: rest,
            n: n - size_of::<Head>(),
            tag,
        };
        live.verify();
        process.free(head.cast());
    }
}

/// A thread's life: makes, swaps, frees what was there; then leaves blocks behind and exits.
fn hand_around(process: &Boxed, shelf: &Shelf, seed: u64, steps: usize) {
    Mock::new_thread();
    let seed = generator(seed);
    for _ in 0..steps {
        let random = next_random(&seed);
        let place = &shelf[(random >> 32) as usize % shelf.len()];
        // Acquire and release: the block's bytes go with its pointer.
        free(process, place.swap(make(process, random), Ordering::AcqRel));
    }
    process.thread_exit();
}

fn clear(process: &Boxed, shelf: &Shelf) {
    for place in shelf {
        let left = place.swap(std::ptr::null_mut(), Ordering::AcqRel);
        free(process, left);
    }
}

/// Threads free each other's blocks while they come and go: remote frees, refill, exit, reclaim,
/// abandoned heaps collected by freers, groups released.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn threads_come_go_and_free_each_others_blocks() {
    let process = Boxed::new(true);
    let shelf = shelf();
    let (waves, steps) = if cfg!(tsan) { (20, 2000) } else { (5, 1000) };
    for wave in 0..waves {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (process, shelf) = (&process, &shelf);
                // The later ones find what the earlier ones left, and their heaps abandoned.
                let steps = steps * (thread + 1) / 4;
                scope.spawn(move || hand_around(process, shelf, wave * 4 + thread as u64, steps));
            }
        });
    }
    clear(&process, &shelf);
    assert_eq!(process.verify().live_bytes, 0);
}

/// In the child of a fork: orphaned heaps' blocks are freed by all threads while they work.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn threads_of_a_child_free_the_parents_blocks() {
    let process = Boxed::new(true);
    let shelf = shelf();
    let steps = if cfg!(tsan) { 4000 } else { 1000 };
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (process, shelf, ended) = (&process, &shelf, &ended);
            scope.spawn(move || {
                Mock::new_thread();
                for step in 0..200 {
                    let block = make(process, next_random(&generator(thread * 1000 + step)));
                    let place = &shelf[step as usize % shelf.len()];
                    free(process, place.swap(block, Ordering::AcqRel));
                }
                // Release: all of that comes before the fork.
                ended.fetch_add(1, Ordering::Release);
            });
        }
    });
    assert_eq!(ended.load(Ordering::Acquire), 2);
    // The other threads have ended, as a fork ends them.
    fork(&process);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (process, shelf) = (&process, &shelf);
            scope.spawn(move || hand_around(process, shelf, thread, steps));
        }
    });
    clear(&process, &shelf);
    assert_eq!(process.verify().live_bytes, 0);
}

/// Waits until so many threads have come here, as often as this one.
fn meet(met: &AtomicUsize, threads: usize, times: &mut usize) {
    *times += 1;
    met.fetch_add(1, Ordering::AcqRel);
    while met.load(Ordering::Acquire) < threads * *times {
        std::thread::yield_now();
    }
}

/// Others put groups aside while their owner sleeps, or works and takes them back.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn groups_put_aside_while_their_owner_works() {
    const EACH: usize = 1500;
    const ROUNDS: usize = if cfg!(tsan) { 6 } else { 20 };
    let process = Boxed::new(true);
    let length = |i: usize| [40, 300, 1000, 5000][i % 4] + i % 7;
    let shelf: Vec<_> = (0..2 * EACH).map(|_| AtomicPtr::default()).collect();
    let met = AtomicUsize::new(0);
    process.malloc(1);
    let owner = process.mine().heap();
    std::thread::scope(|scope| {
        for blocks in shelf.chunks(EACH) {
            let (process, met) = (&process, &met);
            scope.spawn(move || {
                Mock::new_thread();
                let mut times = 0;
                for _ in 0..ROUNDS {
                    meet(met, 3, &mut times);
                    // In another order than they were made.
                    for i in (0..EACH).map(|i| (i + EACH / 3) % EACH) {
                        let block = blocks[i].load(Ordering::Acquire);
                        // SAFETY: live, handed over.
                        unsafe { process.free(block) };
                    }
                    process.mine().flush();
                    meet(met, 3, &mut times);
                }
                process.thread_exit();
            });
        }
        let mut times = 0;
        for round in 0..ROUNDS {
            let make = |i| Live::new(process.malloc(length(i)), length(i), i as u8 | 1);
            for (i, place) in shelf.iter().enumerate() {
                place.store(make(i).at, Ordering::Release);
            }
            meet(&met, 3, &mut times);
            let sleeps = round % 2 == 0;
            if sleeps {
                meet(&met, 3, &mut times);
                assert!(owner.mail.0.has_aside());
            }
            let own: Vec<Live> = (0..2000).map(make).collect();
            if !sleeps {
                meet(&met, 3, &mut times);
            }
            for block in own {
                block.verify();
                // SAFETY: live.
                unsafe { process.free(block.at) };
            }
            process.verify();
        }
    });
    assert_eq!(process.verify().live, 1);
}
