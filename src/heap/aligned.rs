//! aligned_alloc: slots whose stride is a multiple, or whole pages.

use crate::chunk::Chunk;
use crate::config::{CHUNK, CLASSES, GRANULE, PRESET, RUN_PAGE, UNIT};
use crate::fault::{Fault, Found};
use crate::meta::{Meta, State, CLASS_RUN, NOBODY};
use crate::pages::Platform;
use crate::pointer::Untrusted;
use crate::process::Process;
use crate::provider::{Locked, Run};
use crate::size_class::{class_of, stride, MAX_SMALL};
use core::ptr;

/// Largest alignment that a group of power-of-two stride has, see `group::alignment`.
const MAX_SLOT_ALIGN: usize = RUN_PAGE / 2;
/// Largest alignment of a run: a chunk has several such places.
pub(crate) const MAX_RUN_ALIGN: usize = CHUNK / 8;
/// Class that picks the guard byte of run blocks.
const GUARD: usize = CLASSES + 1;

impl<P: Platform> Process<P> {
    /// A block of `n` bytes at a multiple of `align`, a power of two. Null, and errno, when
    /// memory is out.
    pub fn aligned_alloc(&self, align: usize, n: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if align <= UNIT {
            return self.malloc(n);
        }
        if PRESET.seal_zero_size && n == 0 && align <= self.platform.page_size() {
            return self.zero_alloc(align);
        }
        if n <= MAX_SMALL && align <= MAX_SLOT_ALIGN {
            if let Some(class) = aligned_class(align, n) {
                return self.start_alloc(class, n);
            }
        }
        if n <= MAX_SMALL && align <= MAX_RUN_ALIGN {
            let block = self.run_alloc(align, n);
            if !block.is_null() {
                return block;
            }
        }
        self.large_alloc(n, align)
    }

    /// A block of `n` bytes in whole pages of a chunk; null when there is none.
    pub(crate) fn run_alloc(&self, align: usize, n: usize) -> *mut u8 {
        let pages = run_pages(n);
        let mut locked = self.lock();
        // A run belongs to no heap, but has a guard.
        self.draw_secrets();
        let Some(run) = locked.take_run(pages, (align / RUN_PAGE).max(1)) else {
            return ptr::null_mut();
        };
        // SAFETY: the run is ours; so is the cell.
        unsafe {
            let Some(cell) = locked.take_cell(run.chunk) else {
                locked.return_run(run);
                return ptr::null_mut();
            };
            let first = run.granule();
            let start = run.chunk.addr() + first * GRANULE;
            Meta::init(cell, start, CLASS_RUN, 1, NOBODY, run.fresh);
            (*cell).set(State::Run);
            // Only the first granule: a pointer elsewhere into the run is no block.
            Chunk::enter(run.chunk, first, 1, Chunk::cell_index(cell));
            let block = Meta::base_of(cell);
            self.set_run_length(cell, block, n);
            block
        }
    }

    /// Frees the run block at `block`.
    ///
    /// # Safety
    /// `meta` was found for `block`, and the program does not use it any more.
    pub(crate) unsafe fn free_run(&self, meta: *mut Meta, block: *mut u8) {
        // SAFETY: by contract; it is still that run's.
        self.locked(|locked| unsafe {
            self.check_run(meta, block)?;
            locked.release_run(meta, block);
            Ok(())
        })
    }

    /// Writes down the length of a run's block, and the guard behind it.
    ///
    /// # Safety
    /// `meta` is a run's, `block` its start, and it has the pages for `n` bytes.
    unsafe fn set_run_length(&self, meta: *mut Meta, block: *mut u8, n: usize) {
        // SAFETY: by contract.
        unsafe {
            let pages = run_pages(n);
            *Meta::run_length(meta) = [n, pages];
            if n < pages * RUN_PAGE {
                self.write_guards(GUARD, block.add(n), 1);
            }
        }
    }

    /// Resizes a run's block if it keeps its number of pages. Its length then.
    ///
    /// # Safety
    /// `meta` was found for `block`, and the caller owns the live block.
    pub(crate) unsafe fn resize_run(&self, meta: *mut Meta, block: *mut u8, n: usize) -> usize {
        // SAFETY: by contract; it is still that run's.
        self.locked(|_| unsafe {
            self.check_run(meta, block)?;
            if run_pages(n) == (*Meta::run_length(meta))[1] {
                self.set_run_length(meta, block, n);
            }
            Ok((*Meta::run_length(meta))[0])
        })
    }

    /// Err unless a live block starts at `block` of which `meta` tells, and the byte behind it
    /// stands. Provider lock: without it a run that was found may be freed, and its cell tell of
    /// another.
    ///
    /// # Safety
    /// `meta` was found for `block`.
    unsafe fn check_run(&self, meta: *mut Meta, block: *mut u8) -> Result<(), Found> {
        let pointer = Untrusted::new(block);
        // SAFETY: metas that the map gives are readable; runs come and go under the lock.
        unsafe {
            if pointer.meta(self) != meta || !pointer.starts_run(meta) {
                return Err(Found(Fault::DoubleFree, block.addr()));
            }
            let [n, pages] = *Meta::run_length(meta);
            if n < pages * RUN_PAGE {
                self.check_guards(GUARD, block.add(n), 1)?;
            }
        }
        Ok(())
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Gives the pages of a freed run back.
    ///
    /// # Safety
    /// As `free_run`.
    unsafe fn release_run(&mut self, meta: *mut Meta, block: *mut u8) {
        // SAFETY: by contract.
        unsafe {
            let [_, pages] = *Meta::run_length(meta);
            let chunk = Chunk::around(meta);
            let first = (*meta).first_granule();
            if PRESET.zero_on_free {
                block.write_bytes(0, pages * RUN_PAGE);
            }
            (*meta).set(State::Free);
            Chunk::enter(chunk, first, 1, 0);
            let page = first * GRANULE / RUN_PAGE;
            self.return_run(Run {
                chunk,
                page,
                pages,
                fresh: false,
            });
            self.return_cell(meta);
        }
    }
}

/// Run pages of a block of `n` bytes, at most PTRDIFF_MAX. Whole pages have no guard byte: one
/// more page for it would be too much. The hardened preset pays it.
fn run_pages(n: usize) -> usize {
    let bytes = if PRESET.guard_pages { n + 1 } else { n.max(1) };
    bytes.div_ceil(RUN_PAGE)
}

/// The smallest class whose slots are multiples of `align` and hold `n` bytes and a guard, unless
/// a run of pages is smaller.
fn aligned_class(align: usize, n: usize) -> Option<usize> {
    let class = (class_of(n)..CLASSES).find(|&class| {
        stride(class) % align == 0 && (align <= GRANULE || stride(class).is_power_of_two())
    })?;
    // From a few pages on, whole pages waste less than the next power of two.
    let pages = n.max(1).next_multiple_of(RUN_PAGE);
    (stride(class) <= pages || stride(class) < RUN_PAGE).then_some(class)
}
