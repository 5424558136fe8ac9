//! What the child of a fork does with the heaps of threads that stayed behind.

use super::*;
#[cfg(small_constants)]
use crate::allocator::MOST_ORPHANS;
use crate::base::config::GRANULE;
#[cfg(small_constants)]
use crate::base::config::MOST_HEAPS;
use crate::base::config::PRESET;
#[cfg(small_constants)]
use crate::base::platform::Platform;
use crate::base::size_class::class_of;
use crate::base::sync::Ordering;
#[cfg(small_constants)]
use crate::exchange::mailbox::Life;
use crate::layout::chunk::{Chunk, GRANULES};
use crate::layout::group::{MyGroup, State};
use crate::layout::span::Span;

/// Blocks of the thread that stays behind.
const BLOCKS: usize = few(4000, 10);

/// A process in whose heap 2 a thread worked that a fork did not take along. Some of its blocks
/// are given to `each`, the others it freed itself: their slots are in its queues.
fn left_behind(each: impl Fn(usize) -> bool + Sync) -> (Boxed, Vec<Live>) {
    left_behind_as(BLOCKS, each, |_| ())
}

/// `left_behind` with a number of blocks, and with what `torn` does to each of the thread's spans.
fn left_behind_as(
    count: usize,
    each: impl Fn(usize) -> bool + Sync,
    torn: impl Fn(&'static Span),
) -> (Boxed, Vec<Live>) {
    let process = Boxed::new(true);
    let first = process.malloc(1);
    let blocks = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            Mock::new_thread();
            let made: Vec<Live> = (0..count)
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
    spans_of(&process, 2).into_iter().for_each(torn);
    process.before_fork();
    // SAFETY: the only thread that does anything from here on; live.
    unsafe {
        process.after_fork_child();
        process.free(first);
    }
    (process, blocks)
}

/// The spans of a heap.
fn spans_of(process: &Boxed, heap: u16) -> Vec<&'static Span> {
    let locked = process.heaps.memory.lock();
    let places = (0..GRANULES).step_by(64);
    let in_chunk = |chunk: &'static Chunk| places.clone().filter_map(|first| chunk.span_at(first));
    let spans = locked.pages.each_chunk().flat_map(in_chunk);
    spans.filter(|span| span.owner.get() == heap).collect()
}

/// Lines of the dump that tell of groups of heap 2.
fn groups_left(process: &Boxed) -> usize {
    let mut dump = String::new();
    process.dump(&mut dump).unwrap();
    dump.matches("\ngroup heap=2 ").count()
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn an_orphaned_heap_s_groups_go_with_their_last_blocks() {
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
#[cfg_attr(miri, ignore = "too long for Miri")]
fn an_orphaned_heap_s_empty_groups_go_before_another_chunk_comes() {
    // So few that the thread's heap keeps its groups when all of them are freed.
    let (process, blocks) = left_behind_as(20, |_| false, |_| ());
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
#[cfg_attr(miri, ignore = "too long for Miri")]
fn double_frees_into_an_orphaned_heap_are_found() {
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
#[cfg_attr(miri, ignore = "threads are for ThreadSanitizer")]
fn threads_of_the_child_free_into_orphaned_heaps() {
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

/// What a span is in mid-update where only its thread looks: masks, links, counts.
fn tear_what_only_owners_see(span: &'static Span) {
    span.used.set(0x0f0f << 7);
    span.dirty.set(5);
    span.spare.set(span.spare.get() ^ 0x55);
    span.listed.set(!span.listed.get());
    // Whoever followed these would turn in a circle.
    span.next.set(Some(span));
    span.prev.set(Some(span));
}

/// Frees the blocks: all that the orphaned heap had goes back.
fn free_and_count(process: &Boxed, blocks: &[Live]) {
    let before = process.verify();
    for block in blocks {
        block.verify();
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
    }
    let after = process.verify();
    assert_eq!((after.live, groups_left(process)), (0, 0));
    assert!(spans_of(process, 2).is_empty());
    assert!(after.used_bytes < before.used_bytes / 8, "{after:?}");
}

#[test]
fn groups_that_were_just_made_are_released() {
    for entered in [0, 1, 2] {
        let torn = |span| make_partly(span, entered);
        let (process, blocks) = left_behind_as(BLOCKS, |index| index % 3 == 0, torn);
        free_and_count(&process, &blocks);
    }
}

/// A group of two granules is made in the span, of which so many are entered.
fn make_partly(span: &'static Span, entered: usize) {
    let used = span.used.get();
    let place = (0..63).find(|&first| used >> first & 3 == 0);
    let (Some(first), Some(cell)) = (place, span.cells.get()) else {
        return;
    };
    let (chunk, granule) = (Chunk::of(span), span.base.get() as usize + first);
    let start = chunk.address() + granule * GRANULE;
    cell.init(start, class_of(900), 1, span.owner.get(), false);
    chunk.enter(granule, entered, Chunk::number_of(cell));
    tear_what_only_owners_see(span);
}

#[test]
fn groups_that_were_just_going_are_released() {
    let torn = |span: &'static Span| {
        // The first group without a block: its cell is in the reserve, its first granule is not
        // entered any more.
        let (chunk, base) = (Chunk::of(span), span.base.get() as usize);
        for granule in base..base + 64 {
            let cell = chunk.cell_at(granule);
            let group = chunk.cell(cell);
            if cell != 0 && group.is_empty() {
                span.push(group);
                // SAFETY: there is no other thread any more.
                unsafe { MyGroup::new(group) }.set(State::Free);
                chunk.enter(granule, 1, 0);
                tear_what_only_owners_see(span);
                return;
            }
        }
    };
    let (process, blocks) = left_behind_as(BLOCKS, |index| index % 3 == 0, torn);
    free_and_count(&process, &blocks);
}

/// A process forks, its child forks, and so on, each with threads that stay behind: numbers and
/// structs of their heaps serve again, and blocks of any generation can be freed.
#[cfg(small_constants)]
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn children_of_children_use_the_numbers_of_orphaned_heaps_anew() {
    const THREADS: usize = 3;
    let generations = few(MOST_HEAPS, 8);
    let process = Boxed::new(true);
    let first = process.malloc(10);
    let own = process.platform().heap_field();
    let mut left: Vec<Live> = Vec::new();
    for generation in 0..generations {
        for thread in 0..THREADS {
            Mock::new_thread();
            let n = 40 * thread + generation % 64;
            left.push(Live::new(process.malloc(n), n, n as u8));
            let other = left.swap_remove(generation * 7 % left.len());
            other.verify();
            // SAFETY: live. Of this heap, another, or an orphaned one.
            unsafe { process.free(other.at) };
            assert!(!process.malloc(n).is_null(), "generation {generation}");
        }
        process.platform().set_heap_field(own);
        fork(&process);
        let heaps = process.verify().heaps;
        assert!(heaps <= MOST_ORPHANS + THREADS + 2, "{heaps} heaps");
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

/// A thread that frees into an abandoned heap has claimed it and stays behind: the heap is not
/// lost.
#[cfg(small_constants)]
#[test]
fn a_heap_that_was_claimed_at_the_fork_is_used_anew() {
    let process = Boxed::new(true);
    let own = process.platform().heap_field();
    for _ in 0..=MOST_ORPHANS {
        Mock::new_thread();
        process.malloc(1);
    }
    Mock::new_thread();
    process.malloc(1);
    let claimed = process.mine().heap();
    process.thread_exit();
    assert!(claimed.mail.0.take_over(Life::Abandoned, Life::Claimed));
    process.platform().set_heap_field(own);
    fork(&process);
    process.verify();
    let before = process.verify().heaps;
    for _ in 0..=MOST_ORPHANS {
        Mock::new_thread();
        assert!(!process.malloc(1).is_null());
    }
    assert_eq!(process.verify().heaps, before, "no new number");
}

#[test]
fn the_child_of_a_fork_chooses_slots_anew() {
    let process = Boxed::new(true);
    process.malloc(1);
    let asked = || process.platform().drawn.load(Ordering::Relaxed);
    let before = asked();
    // SAFETY: one thread.
    unsafe { process.after_fork_child() };
    // For the heap's choices, and for those under the lock.
    assert_eq!(asked() - before, if PRESET.random_slots { 2 } else { 0 });
}
