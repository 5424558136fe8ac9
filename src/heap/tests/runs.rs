//! Where searches for runs of pages begin, and what a long slot's new pages cost other classes.

use super::*;
use crate::base::config::{CLASSES, PRESET};
use crate::base::size_class::{class_of, stride};
use crate::heap::groups::FIRST_LONG;
use crate::layout::kind::Kind;
use crate::mock::Mock;
use crate::pages::page_heap::{Pages, Run, Search, SPAN_PAGES};

/// A page more: most holes of as many have no place for a span.
const ODD: usize = SPAN_PAGES + 1;

/// The number of the chunk that a run lies in, in the order of their making.
fn number(pages: &Pages<'_, Mock>, run: &Run) -> usize {
    pages.header(run.chunk).sequence.get()
}

/// The number of the chunk where the search for such a run begins; greater than all if there is
/// none.
fn begins(pages: &Pages<'_, Mock>, count: usize, align: usize) -> usize {
    let first = pages.roomy[Search::of(count, align).0];
    first.map_or(usize::MAX, |chunk| pages.header(chunk).sequence.get())
}

/// Returns a run, as its owner does.
fn give_back(pages: &mut Pages<'_, Mock>, run: Run) {
    pages.return_run(run);
    pages.note_idle(run.chunk);
}

/// Three runs of a page, and as many of `ODD` pages as the first two chunks have room for.
fn fill(pages: &mut Pages<'_, Mock>) -> (Vec<Run>, Vec<Run>) {
    let mut take = |count| pages.take_run(Kind::COMMON, count, 1).expect("memory");
    let small = (0..3).map(|_| take(1)).collect();
    let mut runs = vec![take(ODD)];
    while runs.last().is_some_and(|last| number(pages, last) <= 2) {
        runs.push(pages.take_run(Kind::COMMON, ODD, 1).expect("memory"));
    }
    (small, runs)
}

#[test]
fn searches_pass_chunks_where_nothing_is_aligned() {
    let process = Boxed::new(true);
    let mut locked = process.heaps.memory.lock();
    let pages = &mut locked.pages;
    let (_, runs) = fill(pages);
    for run in runs.iter().skip(1).step_by(2) {
        give_back(pages, *run);
    }
    let mut span = pages.take_run(Kind::COMMON, SPAN_PAGES, SPAN_PAGES);
    while span.is_some_and(|span| number(pages, &span) <= 2) {
        span = pages.take_run(Kind::COMMON, SPAN_PAGES, SPAN_PAGES);
    }
    assert!(begins(pages, SPAN_PAGES, SPAN_PAGES) > 2);
    assert_eq!(begins(pages, 1, 1), 1, "other runs find the holes");
    // Together with the holes around it the first of them has a place for a span.
    give_back(pages, runs[2]);
    assert_eq!(begins(pages, SPAN_PAGES, SPAN_PAGES), 1);
    let span = pages.take_run(Kind::COMMON, SPAN_PAGES, SPAN_PAGES);
    assert_eq!(number(pages, &span.expect("memory")), 1);
}

#[test]
fn a_short_run_that_is_returned_is_none_for_longer_ones() {
    let process = Boxed::new(true);
    let mut locked = process.heaps.memory.lock();
    let pages = &mut locked.pages;
    let (small, _) = fill(pages);
    assert!(begins(pages, ODD, 1) > 2);
    give_back(pages, small[1]);
    assert_eq!(begins(pages, 1, 1), 1);
    assert!(begins(pages, ODD, 1) > 2);
    // Both neighbours make it three.
    give_back(pages, small[0]);
    give_back(pages, small[2]);
    assert_eq!(begins(pages, 3, 1), 1);
}

/// To find the empty groups of a long queue takes a walk along all of it.
#[test]
fn new_pages_for_a_long_slot_leave_other_classes_alone() {
    if PRESET.quarantine != 0 {
        return println!("skipped: a class whose freed slots are in quarantine is not let go");
    }
    if cfg!(small_constants) {
        return println!("skipped: what is kept is less than a class that is let go leaves");
    }
    let process = Boxed::new(true);
    let blocks: Vec<_> = (0..2000).map(|_| process.malloc(24)).collect();
    for block in &blocks[..1000] {
        // SAFETY: live.
        unsafe { process.free(*block) };
    }
    let heap = process.mine();
    let empty = &heap.class(class_of(24)).empty;
    let before = empty.get();
    assert!(before > 0);
    // A buffer that grows leaves a slot in each class, until they are let go.
    let mut buffer = process.malloc(stride(FIRST_LONG));
    let mut bare = 0;
    for class in FIRST_LONG + 1..CLASSES {
        // SAFETY: live.
        buffer = unsafe { process.realloc(buffer, stride(class) - PRESET.guard) };
        if heap.bare() < bare {
            break;
        }
        bare = heap.bare();
    }
    assert!(heap.bare() < bare, "they are let go");
    assert_eq!(empty.get(), before);
    process.verify();
}
