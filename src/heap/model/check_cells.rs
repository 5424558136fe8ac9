//! A part of `check`: nests, and who uses the cells of chunks.

use super::check::{ensure, Broken};
use crate::chunk::{Chunk, CELL, GRANULES, META_END};
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use crate::sync::Ordering;
use core::cell::Cell;

/// Verifies that the used granules of each nest are those that groups lie in.
///
/// # Safety
/// The chunk exists, the process is at rest.
pub(crate) unsafe fn check_nests<P: Platform>(
    process: &Process<P>,
    chunk: *mut Chunk,
) -> Result<(), Broken> {
    for window in 0..GRANULES / 64 {
        // SAFETY: by contract.
        unsafe {
            let cell = Chunk::nest(chunk, window * 64).load(Ordering::Relaxed);
            if cell == 0 {
                continue;
            }
            let nest = Chunk::nest_at(chunk, window * 64);
            ensure(
                (*nest).base as usize == window * 64,
                "a nest fills its window",
            )?;
            if process.is_dead((*nest).owner) {
                continue;
            }
            for bit in 0..64 {
                let entry = Chunk::entry(chunk, window * 64 + bit).load(Ordering::Relaxed);
                let used = (*nest).used & 1 << bit != 0;
                ensure(
                    used == (entry != 0),
                    "a nest's granules are those of its groups",
                )?;
            }
            let listed = (*nest).used != u64::MAX;
            ensure(listed == (*nest).listed, "nests with room are listed")?;
        }
    }
    Ok(())
}

/// Verifies that each cell of a chunk has one use: a group's, a nest's, in a nest's reserve, or free.
/// Returns how many are in use for these; records of large blocks have others.
///
/// # Safety
/// The chunk exists, the process is at rest.
pub(crate) unsafe fn check_cells<P: Platform>(
    process: &Process<P>,
    chunk: *mut Chunk,
) -> Result<usize, Broken> {
    let mut seen = [false; META_END / CELL];
    let count = Cell::new(0);
    let mut mark = |cell: u16| {
        count.set(count.get() + 1);
        let twice = core::mem::replace(&mut seen[cell as usize], true);
        ensure(!twice, "a cell has one use")
    };
    // SAFETY: by contract; cells of the map and of lists exist.
    unsafe {
        let mut last = 0;
        for granule in 0..GRANULES {
            let cell = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
            if cell != 0 && cell != last {
                mark(cell)?;
            }
            last = cell;
        }
        for first in (0..GRANULES).step_by(64) {
            let cell = Chunk::nest(chunk, first).load(Ordering::Relaxed);
            if cell == 0 {
                continue;
            }
            mark(cell)?;
            let nest = Chunk::nest_at(chunk, first);
            let dead = process.is_dead((*nest).owner);
            let (mut spare, mut both, mut cell) = (0, 0, (*nest).cells);
            while !cell.is_null() {
                let entered = (first..first + 64).any(|granule| {
                    let entry = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
                    entry == Chunk::cell_index(cell)
                });
                both += u32::from(entered);
                // See fork.rs: the map may still, or already, lead to one.
                if !(dead && entered && both == 1) {
                    mark(Chunk::cell_index(cell))?;
                }
                spare += 1;
                cell = (*cell).next;
            }
            let counted = dead || spare == (*nest).spare;
            ensure(counted, "spare cells are counted")?;
        }
        let used = count.get();
        Chunk::each_free_cell(chunk, |cell| mark(Chunk::cell_index(cell)))?;
        Ok(used)
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Cells of records: of large blocks, live or not, and of blocks of no bytes.
    pub(crate) fn record_cells(&mut self) -> usize {
        let mut count = self.provider.large.cached;
        self.each_large(|_, _, _| count += 1);
        // SAFETY: the lock is held; records in lists exist.
        unsafe {
            let mut record = self.provider.large.stuck;
            while !record.is_null() {
                count += 1;
                record = (*record).next;
            }
            let mut region = self.provider.zero;
            while !region.is_null() {
                count += 1;
                region = (*region).next;
            }
        }
        count
    }
}
