//! Heaps of several threads: remote frees, exits, reclaim, collection.

use super::*;
use crate::base::config::{PRESET, SPAN};
use crate::base::random::next_random;
use crate::exchange::abandoned::WARM_BYTES;
use crate::heap::heap::BODY_BYTES;
use std::sync::atomic::Ordering;

#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn other_threads_free_and_heaps_are_reclaimed() {
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
    assert_eq!(process.verify().heaps, 2, "abandoned heaps are reclaimed");
}

/// What others freed comes back to an owner that lives from its reuse queues, without a refill.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn an_owner_without_refills_collects() {
    let process = Boxed::new(true);
    let blocks: Vec<Live> = (0..3000)
        .map(|i| Live::new(process.malloc(i % 500), i % 500, i as u8))
        .collect();
    let pair = || {
        // SAFETY: just made.
        unsafe { process.free(process.malloc(100)) };
    };
    pair();
    let full = process.verify().used_bytes;
    let refills = process.mine().refills.get();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Mock::new_thread();
            for block in &blocks {
                // SAFETY: live, handed over.
                unsafe { process.free(block.at) };
            }
            process.thread_exit();
        });
    });
    assert!(process.verify().used_bytes > full / 2, "the owner sleeps");
    (0..100).for_each(|_| pair());
    let after = process.verify();
    // (Those that wait in a quarantine are missing.)
    let refilled = process.mine().refills.get() - refills;
    assert!(PRESET.quarantine != 0 || refilled < 3, "{refilled}");
    let few = if PRESET.classes_apart { 25 } else { 4 } * SPAN;
    assert!(after.used_bytes < few, "{after:?} of {full}");
}

#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn blocks_of_an_abandoned_heap_come_back_without_a_thread() {
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
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn threads_hand_blocks_around() {
    let process = Boxed::new(true);
    let shelf: Vec<std::sync::Mutex<Option<Live>>> = (0..64).map(|_| Default::default()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (process, shelf) = (&process, &shelf);
            scope.spawn(move || {
                Mock::new_thread();
                let seed = generator(thread);
                for step in 0..20_000u64 {
                    let random = next_random(&seed);
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

/// A double free by another thread that raced with the owner's.
#[test]
fn a_racing_remote_double_free_is_found() {
    let process = Boxed::new(true);
    let keep: Vec<_> = (0..8).map(|_| process.malloc(40)).collect();
    let p = keep[3];
    let slot = process.find(p).expect("live");
    let heap = process.mine();
    // SAFETY: the misuse under test: the other thread passed all its checks before our free.
    unsafe {
        process.free(p);
        slot.clear_record();
        let _ = heap.heap().mail.0.send(slot.group, slot.bit());
        assert!(faults("double", || {
            heap.collect();
        }));
    }
}

/// What other threads freed is collected though the class in use never runs out of groups.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn a_busy_owner_collects() {
    let process = Boxed::new(true);
    let big: Vec<Live> = (0..4000)
        .map(|_| Live::new(process.malloc(5000), 5000, 1))
        .collect();
    let mut small: Vec<_> = (0..40_000).map(|_| process.malloc(100)).collect();
    // Every group of the small class has room.
    let seed = generator(5);
    for _ in 0..10_000 {
        let at = next_random(&seed) as usize % small.len();
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
        // More at a time than the reuse queue holds.
        for _ in 0..40 {
            let at = next_random(&seed) as usize % small.len();
            // SAFETY: live.
            unsafe { process.free(small.swap_remove(at)) };
        }
        small.extend((0..40).map(|_| process.malloc(100)));
    }
    let end = process.verify().used_bytes;
    assert!(end < peak / 2, "{end} of {peak}");
}

/// A thread that lives for a request of `n` blocks, then exits.
fn request(process: &Boxed, n: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Mock::new_thread();
            let blocks: Vec<_> = (0..n).map(|i| process.malloc(5 * i + 1)).collect();
            for block in blocks {
                // SAFETY: live.
                unsafe { process.free(block) };
            }
            process.thread_exit();
        });
    });
}

#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn a_heap_that_a_thread_left_warm_serves_the_next_without_the_system() {
    let process = Boxed::new(true);
    process.malloc(1);
    request(&process, 20);
    let calls = || process.platform().calls.load(Ordering::Relaxed);
    let (before, first) = (calls(), process.verify());
    assert!(first.used_bytes > 0);
    for _ in 0..10 {
        request(&process, 20);
    }
    assert_eq!(calls(), before, "no page comes or goes");
    assert_eq!(process.verify(), first);
    // What it holds is no reason to run out of memory.
    process.mine().trim();
    assert!(process.verify().used_bytes < first.used_bytes);
}

#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn few_heaps_stay_warm() {
    let process = Boxed::new(true);
    let barrier = std::sync::Barrier::new(64);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                Mock::new_thread();
                let blocks: Vec<_> = (0..60).map(|i| process.malloc(20 * i + 1)).collect();
                barrier.wait();
                for block in blocks {
                    // SAFETY: live.
                    unsafe { process.free(block) };
                }
                process.thread_exit();
            });
        }
    });
    let end = process.verify();
    assert_eq!((end.live, end.heaps), (0, 64));
    // A span counts as in use although its free granules were given back; where each class has
    // spans of its own, one for a few blocks, too. All heaps would have four times as many.
    let spans = if PRESET.classes_apart { 25 } else { 1 };
    let heaps = WARM_BYTES / BODY_BYTES;
    assert!(
        end.used_bytes <= heaps * spans * SPAN,
        "{} bytes in use by nobody",
        end.used_bytes
    );
}

/// Of many heaps that no thread has any more, and no block, the bodies go, and come again.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn bodies_of_many_heaps_go() {
    let process = Boxed::new(true);
    const THREADS: usize = 48;
    for _ in 0..3 {
        let barrier = std::sync::Barrier::new(THREADS);
        let shelf = std::sync::Mutex::new(vec![]);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    Mock::new_thread();
                    let own: Vec<_> = (1..60)
                        .map(|i| Live::new(process.malloc(20 * i), 20 * i, i as u8))
                        .collect();
                    shelf.lock().expect("sound").push(own);
                    barrier.wait();
                    // Another's, or its own; some when their owner is gone.
                    let blocks = shelf.lock().expect("sound").pop();
                    for block in blocks.expect("one for each") {
                        block.verify();
                        // SAFETY: live, handed over.
                        unsafe { process.free(block.at) };
                    }
                    process.thread_exit();
                });
            }
        });
        let end = process.verify();
        assert_eq!((end.live, end.heaps), (0, THREADS));
        let with_body = process.heaps.each().filter(|heap| !heap.is_unset()).count();
        let most = if process.heaps.have_bodies_pages() {
            WARM_BYTES / BODY_BYTES + 1
        } else {
            THREADS
        };
        assert!(
            with_body <= most,
            "{with_body} of {THREADS} keep their bodies"
        );
    }
}

#[test]
fn an_overflow_is_found_when_the_thread_exits() {
    for n in [10, 100, 1000, 5000] {
        assert!(super::misuse::overflow_is_found_by(n, |process| process.thread_exit()));
    }
}

/// Late code of a thread, which libc runs behind all destructors, frees and allocates.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn a_thread_that_handed_its_heap_over_keeps_no_other() {
    let process = Boxed::new(true);
    let others: Vec<_> = (0..400)
        .map(|_| Live::new(process.malloc(100), 100, 1))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Mock::new_thread();
            let own: Vec<_> = (0..400)
                .map(|n| Live::new(process.malloc(n), n, 2))
                .collect();
            process.thread_exit();
            Mock::late();
            for block in own.iter().chain(&others) {
                // SAFETY: live.
                unsafe { process.free(block.at) };
                assert!(process.mine().is_empty(), "attached by a free");
            }
            for i in 0..400 {
                let block = match i % 4 {
                    0 => process.aligned_alloc(64, i),
                    1 => process.malloc(200_000),
                    _ => process.malloc(i),
                };
                let mut live = Live::new(block, i, 7);
                assert!(process.mine().is_empty(), "kept after a malloc");
                // SAFETY: live; then the new block is.
                live.at = unsafe { process.realloc(live.at, i + 700) };
                assert!(!live.at.is_null());
                live.verify();
                // SAFETY: live.
                unsafe { process.free(live.at) };
                assert!(process.mine().is_empty(), "kept after a realloc");
            }
        });
    });
    let end = process.verify();
    assert_eq!((end.live, end.large, end.heaps), (0, 0, 2));
}

/// A thread that only ever frees, and only in its last moments.
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn a_late_free_attaches_no_heap() {
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..4000)
        .map(|_| Live::new(process.malloc(272), 272, 1))
        .collect();
    for part in blocks.chunks(40) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                Mock::new_thread();
                Mock::late();
                for block in part {
                    // SAFETY: live, handed over.
                    unsafe { process.free(block.at) };
                }
            });
        });
    }
    let end = process.verify();
    assert_eq!((end.live, end.heaps), (0, 1));
}

/// More threads than there are numbers of heaps: the last heap is lent to all that have none.
#[cfg(small_constants)]
#[test]
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn threads_beyond_the_last_number_share_a_heap() {
    use crate::base::config::MOST_HEAPS;
    let process = Boxed::new(true);
    let barrier = std::sync::Barrier::new(MOST_HEAPS + 20);
    std::thread::scope(|scope| {
        for thread in 0..MOST_HEAPS + 20 {
            let (process, barrier) = (&process, &barrier);
            scope.spawn(move || {
                Mock::new_thread();
                let first = Live::new(process.malloc(thread), thread, 1);
                barrier.wait();
                for n in 0..200 {
                    let block = Live::new(process.malloc(n), n, n as u8);
                    let zero = process.aligned_alloc(32, n);
                    assert!(!zero.is_null());
                    block.verify();
                    // SAFETY: live.
                    unsafe {
                        process.free(block.at);
                        process.free(zero);
                    }
                }
                first.verify();
                barrier.wait();
                // SAFETY: live.
                unsafe { process.free(first.at) };
                process.thread_exit();
            });
        }
    });
    let end = process.verify();
    assert_eq!((end.live, end.heaps), (0, MOST_HEAPS));
    // Nothing of it stays: a lone thread keeps its heap.
    process.malloc(1);
    assert!(!process.mine().is_empty());
}
