//! Spans of a heap: taken from, given back to, and their idle pages purged, without the lock.
//!
//! A group's cell must lie in its chunk, whose cells the lock protects. So each span has a few in
//! reserve: a handful comes with the span, and whenever there is none left; those of groups that go
//! stay there, up to a number. The lock is taken for these handfuls, and for whole spans.
//!
//! What the child of a fork must find whole of another thread's spans is the map and the reserve,
//! see `orphans.rs`: a cell enters the map before it leaves the reserve, and comes back to the
//! reserve before it leaves the map.

use crate::base::config::{GRANULE, KEEP, PRESET, RUN_PAGE};
use crate::base::platform::Platform;
use crate::exchange::mailbox::Life;
use crate::heap::heap::MyHeap;
use crate::layout::chunk::Chunk;
use crate::layout::group::{ones, Group, MyGroup, State};
use crate::layout::kind::Kind;
use crate::layout::span::Span;
use crate::pages::memory::Locked;
use crate::pages::page_heap::{Run, SPAN_PAGES};
use core::ptr::{self, NonNull};
use core::sync::atomic::{compiler_fence, Ordering};

/// Spans that are tried before a new one is made.
const TRIES: usize = 16;
/// Cells that a span gets at a time.
const CELLS_AT_ONCE: usize = 4;
/// A span with more spare cells gives some back.
const SPARE_CELLS: u8 = 16;

/// Memory and a cell for a group.
pub struct Part {
    /// The span that it comes from: the cell is the first of that one's reserve. None for a run.
    pub span: Option<&'static Span>,
    /// The cell for the group's state, in the same chunk.
    pub cell: &'static Group,
    /// First granule in the chunk.
    pub granule: usize,
    /// Whether all bytes are zero.
    pub fresh: bool,
}

/// Mask of `count` granules from `first` on; count is 1 to 63.
fn granule_mask(first: usize, count: usize) -> u64 {
    ((1u64 << count) - 1) << first
}

/// Places of `count` clear bits in a row that start at multiples of `align`, a power of two up to a
/// run page: a bit for each.
fn find_places(used: u64, count: usize, align: usize) -> u64 {
    // Bit i: `run` bits from i on are clear. Bits shifted in at the top are not.
    let (mut starts, mut run) = (!used, 1);
    while run < count {
        let more = run.min(count - run);
        starts &= starts >> more;
        run += more;
    }
    starts & MULTIPLES[align.trailing_zeros() as usize]
}

/// Bits at the multiples of 1, 2, 4, ... granules, up to a run page.
const MULTIPLES: [u64; (RUN_PAGE / GRANULE).ilog2() as usize + 1] = {
    let mut table = [u64::MAX; (RUN_PAGE / GRANULE).ilog2() as usize + 1];
    let mut power = 1;
    while power < table.len() {
        table[power] = u64::MAX / ((1 << (1 << power)) - 1);
        power += 1;
    }
    table
};

/// Lets one span of a list come behind another.
fn link(span: &'static Span, next: &'static Span) {
    span.next.set(Some(next));
    next.prev.set(Some(span));
}

/// Whether `place` leads to this very span.
fn is_at(place: Option<&'static Span>, span: &Span) -> bool {
    place.is_some_and(|at| ptr::eq(at, span))
}

impl<'a, P: Platform> MyHeap<'a, P> {
    /// The heap's spans with room, a circle, from the one that is tried first.
    pub fn each_span(self) -> impl Iterator<Item = &'static Span> {
        let first = self.spans.get();
        core::iter::successors(first, move |span| {
            span.next.get().filter(|next| !is_at(first, next))
        })
    }

    /// Puts a span, unlisted, before the others.
    fn list(self, span: &'static Span) {
        let first = self.spans.replace(Some(span)).unwrap_or(span);
        let last = first.prev.get().unwrap_or(span);
        link(last, span);
        link(span, first);
        span.listed.set(true);
    }

    /// Takes a listed span out of the list.
    fn unlist(self, span: &'static Span) {
        let (prev, next) = (span.prev.take(), span.next.take());
        if let Some((prev, next)) = prev.zip(next).filter(|_| !is_at(next, span)) {
            link(prev, next);
        }
        if is_at(self.spans.get(), span) {
            self.spans.set(next.filter(|_| !is_at(next, span)));
        }
        span.listed.set(false);
    }

    /// Takes `count` granules out of one of the heap's spans of a kind, with a cell for the group:
    /// the caller enters it into the map, and then takes it out of the reserve (`Span::pop`).
    pub fn take_part(self, kind: Kind, count: usize, align: usize) -> Option<Part> {
        let suitable = self.each_span().filter(|span| kind.suits(span.kind.get()));
        let mut behind = self.spans.get();
        for span in suitable.take(TRIES) {
            behind = span.next.get();
            let places = find_places(span.used.get(), count, align);
            if places == 0 {
                continue;
            }
            let first = self.pick_place(places, count);
            if span.cells.get().is_none() {
                fill(&mut self.all.memory.lock(), span);
            }
            // Extents of large blocks take their cells from any chunk: there may be none.
            let Some(cell) = span.cells.get() else {
                continue;
            };
            let mask = granule_mask(first, count);
            let dirty = span.dirty.get();
            self.idle_granules.sub(ones(dirty & mask) as usize);
            span.used.set(span.used.get() | mask);
            span.dirty.set(dirty | mask);
            if span.used.get() == u64::MAX {
                self.unlist(span);
            }
            return Some(Part {
                span: Some(span),
                cell,
                granule: span.base.get() as usize + first,
                fresh: dirty & mask == 0,
            });
        }
        // Others first from now on: spans that are all but full would hide them.
        self.spans.set(behind);
        None
    }

    /// One of the places for so many granules: the first, or, of groups of a page or more, where
    /// the preset has choices, any. (Shorter ones would lie on more pages.)
    fn pick_place(self, mut places: u64, count: usize) -> usize {
        if PRESET.random_slots && count >= RUN_PAGE / GRANULE {
            for _ in 0..self.choose(ones(places) as usize) {
                places &= places - 1;
            }
        }
        places.trailing_zeros() as usize
    }

    /// Gives `count` granules of a group, which nothing uses any more and whose cell is in the
    /// reserve already, back to their span, and an empty span back to its chunk, unless it is the
    /// only one of a heap at work. Takes the lock for that only, and leaves it in `locked`.
    pub fn return_part(
        self,
        span: &'static Span,
        granule: usize,
        count: usize,
        locked: &mut Option<Locked<'a, P>>,
    ) {
        let mask = granule_mask(granule - span.base.get() as usize, count);
        self.idle_granules
            .add(ones(span.dirty.get() & mask) as usize);
        span.used.set(span.used.get() & !mask);
        if !span.listed.get() {
            self.list(span);
        }
        if span.used.get() == 0 && !self.keeps(span) {
            self.drop_span(span, locked);
        } else if span.spare.get() > SPARE_CELLS {
            return_spare(self.all.memory.lock_once(locked), span, SPARE_CELLS / 2);
        }
        if self.idle_granules.is_over() {
            self.limit_granules();
        }
    }

    /// Whether an empty span stays: a heap at work keeps its last one, of each kind, for the next
    /// burst.
    fn keeps(self, span: &'static Span) -> bool {
        let is_like = |other: &&'static Span| {
            !ptr::eq(*other, span) && other.kind.get().suits(span.kind.get())
        };
        self.heap().mail.0.is(Life::Active) && self.each_span().find(is_like).is_none()
    }

    /// Gives an empty span of the heap's back.
    fn drop_span(self, span: &'static Span, locked: &mut Option<Locked<'a, P>>) {
        self.unlist(span);
        self.idle_granules.sub(ones(span.dirty.get()) as usize);
        return_span(self.all.memory.lock_once(locked), span);
    }

    /// Gives the heap's empty spans back.
    pub fn drop_empty_spans(self) {
        let (mut locked, mut next) = (None, self.spans.get());
        for _ in 0..self.each_span().count() {
            let Some(span) = next else {
                return;
            };
            next = span.next.get();
            if span.used.get() == 0 {
                self.drop_span(span, &mut locked);
            }
        }
    }

    /// Gives the pages of free granules back if they are many and more than a quarter of those of
    /// the listed spans. (A span that is not listed is full.)
    #[cold]
    pub fn limit_granules(self) {
        let kept = &self.idle_granules;
        if !kept.pace.is_due(self.platform(), self.bytes.get()) {
            return;
        }
        let used: u32 = self.each_span().map(|span| ones(span.used.get())).sum();
        let least = self.all.share(KEEP / 2 / GRANULE);
        let budget = least.max(used as usize / 4);
        kept.set_limit(budget);
        if kept.amount() <= budget {
            return;
        }
        self.purge_granules();
        // Granules that share a page with used ones stay.
        kept.set_limit(budget.max(kept.amount() + least));
    }

    /// Gives the whole pages of free granules of the listed spans back.
    pub fn purge_granules(self) {
        self.each_span().for_each(|span| self.purge_span(span));
    }

    /// Gives the whole pages of free granules of a span back.
    fn purge_span(self, span: &'static Span) {
        let page = (self.platform().page_size() / GRANULE).max(1);
        let mut first = 0;
        while first + page <= 64 && page < 64 {
            let is_free = |at: usize| span.used.get() & granule_mask(at, page) == 0;
            let mut end = first;
            while end < 64 && is_free(end) {
                end += page;
            }
            let mask = u64::MAX.checked_shr(64 - (end - first) as u32).unwrap_or(0) << first;
            let dirty = ones(span.dirty.get() & mask);
            let at = Chunk::of(span).at((span.base.get() as usize + first) * GRANULE);
            if let Some(at) = NonNull::new(at).filter(|_| dirty != 0) {
                // SAFETY: free granules hold nothing, and lie in the opened part of the chunk.
                if unsafe { self.platform().purge(at, (end - first) * GRANULE) } {
                    span.dirty.set(span.dirty.get() & !mask);
                    self.idle_granules.sub(dirty as usize);
                }
            }
            first = end + page;
        }
    }

    /// Adds a span of a new run to the heap.
    pub fn add_span(self, locked: &mut Locked<'_, P>, run: Run) -> bool {
        let Some(cell) = locked.pages.take_cell(run.chunk) else {
            locked.pages.return_run(run);
            return false;
        };
        let base = run.page * RUN_PAGE / GRANULE;
        let kind = locked.pages.header(run.chunk).kind.get();
        let span = Span::write(cell, base as u16, self.id(), kind);
        span.dirty.set(if run.fresh { 0 } else { u64::MAX });
        run.chunk.enter_span(base, Some(span));
        self.list(span);
        self.idle_granules.add(ones(span.dirty.get()) as usize);
        fill(locked, span);
        true
    }
}

/// Gives a span whose reserve is empty a few cells, as long as the chunk has some. The caller may
/// work on the span, here and below.
fn fill<P: Platform>(locked: &mut Locked<'_, P>, span: &'static Span) {
    for _ in 0..CELLS_AT_ONCE {
        if let Some(cell) = locked.pages.take_cell(Chunk::of(span)) {
            span.push(cell);
        }
    }
}

/// Gives up to `count` cells of a span's reserve, to none of which the map leads, back. The span's
/// pages keep the chunk.
fn return_spare<P: Platform>(locked: &mut Locked<'_, P>, span: &'static Span, count: u8) {
    for _ in 0..count {
        let Some(cell) = span.cells.get() else {
            return;
        };
        span.pop();
        Chunk::return_cell(cell, &locked.pages.held);
    }
}

/// Gives a span back that is in no list and in which no group lies.
pub fn return_span<P: Platform>(locked: &mut Locked<'_, P>, span: &'static Span) {
    // There are no more spare cells than the span has granules.
    return_spare(locked, span, u8::MAX);
    let (chunk, base) = (Chunk::of(span), span.base.get() as usize);
    chunk.enter_span(base, None);
    let run = Run {
        chunk,
        page: base * GRANULE / RUN_PAGE,
        pages: SPAN_PAGES,
        fresh: false,
    };
    locked.pages.return_run(run);
    locked.pages.return_cell(chunk.cell(Chunk::number_of(span)));
}

/// Takes a group of so many bytes out of the map: a stale pointer must not lead to it again. Its
/// cell is in its span's reserve by then: a fork's child must find it in one of the two.
pub fn leave_map(group: MyGroup, bytes: usize) {
    group.set(State::Free);
    Chunk::of(group.group()).enter(group.first_granule(), bytes / GRANULE, 0);
    compiler_fence(Ordering::SeqCst);
}

/// Gives run and cell of a group of so many bytes, of which no slot is live and which is in no
/// list, back.
pub fn return_group_run<P: Platform>(locked: &mut Locked<'_, P>, group: MyGroup, bytes: usize) {
    // Before the bytes go: a stale pointer must not lead to a reused cell.
    leave_map(group, bytes);
    locked.pages.return_run(Run {
        chunk: Chunk::of(group.group()),
        page: group.first_granule() * GRANULE / RUN_PAGE,
        pages: bytes / RUN_PAGE,
        fresh: false,
    });
    locked.pages.return_cell(group.group());
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_aligned_and_clear() {
        let first = |used, count, align| find_places(used, count, align).trailing_zeros();
        assert_eq!(first(0, 16, 1), 0);
        assert_eq!(first(1, 16, 1), 1);
        assert_eq!(first(1, 16, 8), 8);
        assert_eq!(find_places(u64::MAX, 1, 1), 0);
        assert_eq!(first(u64::MAX >> 16, 16, 1), 48);
        assert_eq!(find_places(u64::MAX >> 15, 16, 1), 0);
        for used in [
            0,
            1,
            0xf0f0,
            0x7fff_0f00_f00f_0f31,
            u64::MAX << 17,
            u64::MAX - (9 << 20),
        ] {
            for count in 1..=16 {
                for align in [1, 2, 4, 8] {
                    let plain = (0..=64 - count)
                        .step_by(align)
                        .filter(|&first| used & granule_mask(first, count) == 0)
                        .fold(0, |places, first| places | 1 << first);
                    assert_eq!(
                        find_places(used, count, align),
                        plain,
                        "{used:x} {count} {align}"
                    );
                }
            }
        }
    }
}
