//! A part of `check`: spans, and who uses the cells of chunks.

use super::check::{ensure, Broken};
use crate::allocator::Allocator;
use crate::base::platform::Platform;
use crate::layout::chunk::{Chunk, CELL, CELLS_END, GRANULES};
use crate::layout::span::Span;
use crate::pages::memory::Locked;

/// Whether the owner of a span stayed behind in the parent of a fork.
fn is_orphan<P: Platform>(allocator: &Allocator<P>, span: &Span) -> bool {
    let owner = allocator.heaps.by_id(span.owner.get());
    owner.is_some_and(|owner| owner.mail.0.is_orphaned())
}

/// Verifies that the used granules of each span are those that groups lie in.
pub(crate) fn check_spans<P: Platform>(
    allocator: &Allocator<P>,
    chunk: &'static Chunk,
) -> Result<(), Broken> {
    for first in (0..GRANULES).step_by(64) {
        let Some(span) = chunk.span_at(first) else {
            continue;
        };
        ensure(span.base.get() as usize == first, "a span fills its window")?;
        if is_orphan(allocator, span) {
            continue;
        }
        let used = (0..64).filter(|bit| chunk.cell_at(first + bit) != 0);
        let used = used.fold(0u64, |used, bit| used | 1 << bit);
        ensure(
            used == span.used.get(),
            "a span's granules are those of its groups",
        )?;
        ensure(
            (used != u64::MAX) == span.listed.get(),
            "spans with room are listed",
        )?;
    }
    Ok(())
}

/// Verifies that each cell of a chunk has one use: a group's, a span's, in a span's reserve, or
/// free. Returns how many are in use for these; extents of large blocks have others.
pub(crate) fn check_cells<P: Platform>(
    allocator: &Allocator<P>,
    locked: &Locked<'_, P>,
    chunk: &'static Chunk,
) -> Result<usize, Broken> {
    let mut seen = [false; CELLS_END / CELL];
    let mut count = 0;
    let mut mark = |cell: u16| {
        count += 1;
        let twice = core::mem::replace(&mut seen[cell as usize], true);
        ensure(!twice, "a cell has one use").map(|()| count)
    };
    let mut used = 0;
    let mut last = 0;
    for granule in 0..GRANULES {
        let cell = chunk.cell_at(granule);
        if cell != 0 && cell != last {
            used = mark(cell)?;
        }
        last = cell;
    }
    for first in (0..GRANULES).step_by(64) {
        let Some(span) = chunk.span_at(first) else {
            continue;
        };
        used = mark(Chunk::number_of(span))?;
        let orphan = is_orphan(allocator, span);
        let (mut spare, mut both, mut next) = (0, 0, span.cells.get());
        while let Some(cell) = next {
            let number = Chunk::number_of(cell);
            let entered = (first..first + 64).any(|granule| chunk.cell_at(granule) == number);
            both += u32::from(entered);
            // See orphans.rs: the map may still, or already, lead to one.
            if !(orphan && entered && both == 1) {
                used = mark(number)?;
            }
            spare += 1;
            next = cell.next();
        }
        ensure(
            orphan || spare == span.spare.get(),
            "spare cells are counted",
        )?;
    }
    for cell in locked.pages.header(chunk).free_cells() {
        mark(cell)?;
    }
    Ok(used)
}
