//! What the child of a fork does with the heaps of threads that stayed behind.

use super::*;
use crate::chunk::{Chunk, GRANULES};
#[cfg(small_constants)]
use crate::config::{MOST_DEAD, MOST_HEAPS};
use crate::meta::{Meta, Nest, State};
#[cfg(small_constants)]
use crate::pages::Platform;
use crate::sync::Ordering;
use core::ptr::NonNull;

/// A process in whose heap 2 a thread worked that a fork did not take along. Some of its blocks
/// are given to `each`, the others it freed itself: their slots are in its rings and queues.
fn left_behind(each: impl Fn(usize) -> bool + Sync) -> (Boxed, Vec<Live>) {
    left_behind_as(each, |_, _| ())
}

/// The same, with what `torn` does to each of the thread's nests and its chunk.
fn left_behind_as(
    each: impl Fn(usize) -> bool + Sync,
    torn: impl Fn(*mut Chunk, *mut Nest),
) -> (Boxed, Vec<Live>) {
    let process = Boxed::new(true);
    let first = process.malloc(1);
    let blocks = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            Mock::new_thread();
            let made: Vec<Live> = (0..4000)
                .map(|i| (i * 37) % 20_000)
                .map(|n| Live::new(process.malloc(n), n, n as u8))
                .collect();
            let mut given = Vec::new();
            for (index, block) in made.into_iter().enumerate() {
                if each(index) {
                    given.push(block);
                } else {
                    // SAFETY: live.
                    unsafe { process.free(block.at) };
                }
            }
            // No thread_exit: in the child it never comes to that.
            given
        });
        made.join().unwrap()
    });
    for (chunk, nest) in nests_of(&process, 2) {
        torn(chunk, nest);
    }
    process.before_fork();
    // SAFETY: the only thread that does anything from here on; live.
    unsafe {
        process.after_fork_child();
        process.free(first);
    }
    (process, blocks)
}

/// The nests of a heap and their chunks.
fn nests_of(process: &Boxed, heap: u16) -> Vec<(*mut Chunk, *mut Nest)> {
    let mut chunk = process.lock().provider.chunks;
    let mut nests = Vec::new();
    while !chunk.is_null() {
        // SAFETY: chunks in the list exist.
        unsafe {
            for first in (0..GRANULES).step_by(64) {
                let nest = Chunk::nest_at(chunk, first);
                let any = Chunk::nest(chunk, first).load(Ordering::Relaxed) != 0;
                if any && (*nest).owner == heap {
                    nests.push((chunk, nest));
                }
            }
            chunk = (*chunk).next;
        }
    }
    nests
}

/// Lines of the dump that tell of groups of heap 2.
fn groups_left(process: &Boxed) -> usize {
    let mut dump = String::new();
    process.dump(&mut dump).unwrap();
    dump.matches("\ngroup heap=2 ").count()
}

#[test]
fn a_dead_heap_s_groups_go_with_their_last_blocks() {
    let (process, blocks) = left_behind(|index| index % 3 == 0);
    let before = process.verify();
    assert_eq!(before.live, blocks.len());
    for block in &blocks {
        block.verify();
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
    }
    let after = process.verify();
    assert_eq!(after.live, 0);
    assert_eq!(groups_left(&process), 0);
    assert!(after.used_bytes < before.used_bytes / 8, "{after:?}");
}

#[test]
fn a_dead_heap_s_empty_groups_go_before_another_chunk_comes() {
    let (process, blocks) = left_behind(|_| false);
    assert!(blocks.is_empty() && groups_left(&process) > 0);
    // More than the chunks hold that the thread left.
    let live: Vec<_> = (0..2000).map(|_| process.malloc(50_000)).collect();
    assert_eq!(groups_left(&process), 0);
    for block in live {
        assert!(!block.is_null());
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    assert_eq!(process.verify().live, 0);
}

#[test]
fn double_frees_into_a_dead_heap_are_found() {
    let (process, blocks) = left_behind(|_| true);
    for block in &blocks {
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
        assert!(
            // SAFETY: the misuse under test.
            faults("", || unsafe { process.free(block.at) }),
            "double free of {} bytes",
            block.n
        );
    }
    assert_eq!(process.verify().live, 0);
}

/// Threads of the child free what the parent's threads made.
#[test]
fn threads_of_the_child_free_into_dead_heaps() {
    let (process, blocks) = left_behind(|_| true);
    std::thread::scope(|scope| {
        for part in blocks.chunks(1000) {
            let process = &process;
            scope.spawn(move || {
                Mock::new_thread();
                for block in part {
                    block.verify();
                    // SAFETY: live, handed over.
                    unsafe { process.free(block.at) };
                    let own = Live::new(process.malloc(block.n), block.n, 3);
                    own.verify();
                    // SAFETY: live.
                    unsafe { process.free(own.at) };
                }
                process.thread_exit();
            });
        }
    });
    assert_eq!(process.verify().live, 0);
}

/// What a nest is in mid-update where only its thread looks: masks, links, counts.
///
/// # Safety
/// Nobody works on the nest.
unsafe fn tear_what_only_owners_see(nest: *mut Nest) {
    // SAFETY: by contract; nobody follows the links.
    unsafe {
        (*nest).used = 0x0f0f << 7;
        (*nest).dirty = 5;
        (*nest).spare ^= 0x55;
        (*nest).listed ^= true;
        (*nest).next = NonNull::dangling().as_ptr();
        (*nest).prev = NonNull::dangling().as_ptr();
    }
}

/// Frees the blocks: all that the dead heap had goes back.
fn free_and_count(process: &Boxed, blocks: &[Live]) {
    let before = process.verify();
    for block in blocks {
        block.verify();
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
    }
    let after = process.verify();
    assert_eq!((after.live, groups_left(process)), (0, 0));
    assert!(nests_of(process, 2).is_empty());
    assert!(after.used_bytes < before.used_bytes / 8, "{after:?}");
}

#[test]
fn groups_that_were_just_made_are_released() {
    for entered in [0, 1, 2] {
        let torn = |chunk, nest| {
            // SAFETY: nobody else works on the nest.
            unsafe { make_partly(chunk, nest, entered) }
        };
        let (process, blocks) = left_behind_as(|index| index % 3 == 0, torn);
        free_and_count(&process, &blocks);
    }
}

/// A group of two granules is made in the nest, of which so many are entered.
///
/// # Safety
/// Nobody else works on the nest.
unsafe fn make_partly(chunk: *mut Chunk, nest: *mut Nest, entered: usize) {
    // SAFETY: by contract.
    unsafe {
        let used = (*nest).used;
        let place = (0..63).find(|&first| used >> first & 3 == 0);
        let (Some(first), false) = (place, (*nest).cells.is_null()) else {
            return;
        };
        let (cell, class) = ((*nest).cells, crate::size_class::class_of(900));
        let granule = (*nest).base as usize + first;
        let start = chunk.addr() + granule * crate::config::GRANULE;
        Meta::init(cell, start, class as u8, 1, (*nest).owner, false);
        Chunk::enter(chunk, granule, entered, Chunk::cell_index(cell));
        tear_what_only_owners_see(nest);
    }
}

#[test]
fn groups_that_were_just_going_are_released() {
    let torn = |chunk: *mut Chunk, nest: *mut Nest| {
        // SAFETY: nobody else works on the nest.
        unsafe {
            // The first group without a block: its cell is in the reserve, its first granule is not
            // entered any more.
            let base = (*nest).base as usize;
            for granule in base..base + 64 {
                let cell = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
                let meta = chunk.cast::<Meta>().add(cell as usize);
                if cell != 0 && (*meta).is_empty() {
                    (*nest).push(meta);
                    (*meta).set(State::Free);
                    Chunk::enter(chunk, granule, 1, 0);
                    tear_what_only_owners_see(nest);
                    return;
                }
            }
        }
    };
    let (process, blocks) = left_behind_as(|index| index % 3 == 0, torn);
    free_and_count(&process, &blocks);
}

/// A process forks, its child forks, and so on, each with threads that stay behind: numbers and
/// structs of their heaps serve again, and blocks of any generation can be freed.
#[cfg(small_constants)]
#[test]
fn children_of_children_use_the_numbers_of_dead_heaps_anew() {
    const THREADS: usize = 3;
    let generations = MOST_HEAPS;
    let process = Boxed::new(true);
    let first = process.malloc(10);
    let own = process.platform.heap_field();
    let mut left: Vec<Live> = Vec::new();
    for generation in 0..generations {
        for thread in 0..THREADS {
            Mock::new_thread();
            let n = 40 * thread + generation % 64;
            left.push(Live::new(process.malloc(n), n, n as u8));
            let other = left.swap_remove(generation * 7 % left.len());
            other.verify();
            // SAFETY: live. Of this heap, another, or a dead one.
            unsafe { process.free(other.at) };
            assert!(!process.malloc(n).is_null(), "generation {generation}");
        }
        process.platform.set_heap_field(own);
        process.before_fork();
        // SAFETY: the only thread.
        unsafe { process.after_fork_child() };
        let heaps = process.verify().heaps;
        assert!(heaps <= MOST_DEAD + THREADS + 2, "{heaps} heaps");
    }
    for block in left {
        block.verify();
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
    }
    // SAFETY: live.
    unsafe { process.free(first) };
    assert_eq!(process.verify().live, generations * THREADS);
}

/// A thread that frees into a parked heap has claimed it and stays behind: the heap is not lost.
#[cfg(small_constants)]
#[test]
fn a_heap_that_was_claimed_at_the_fork_is_used_anew() {
    let process = Boxed::new(true);
    let own = process.platform.heap_field();
    for _ in 0..=MOST_DEAD {
        Mock::new_thread();
        process.malloc(1);
    }
    Mock::new_thread();
    process.malloc(1);
    let claimed = process.heap();
    process.thread_exit();
    // SAFETY: parked.
    unsafe { (*claimed).berth.claim_for_test() };
    process.platform.set_heap_field(own);
    process.before_fork();
    // SAFETY: the only thread.
    unsafe { process.after_fork_child() };
    process.verify();
    let before = process.verify().heaps;
    for _ in 0..=MOST_DEAD {
        Mock::new_thread();
        assert!(!process.malloc(1).is_null());
    }
    assert_eq!(process.verify().heaps, before, "no new number");
}
