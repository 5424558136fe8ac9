//! Extents tell of the memory of large blocks: by address those of live blocks, in lists those of
//! freed mappings. `large.rs` works with them.
//!
//! A freed mapping is unmapped at once, so that a stale pointer faults, unless the program frees
//! and wants large blocks again and again. What is unmapped and soon wanted again earns it a grace:
//! so many bytes of freed blocks, or a `LARGE_TURNS`th for short ones, stay accessible for the next
//! blocks. Such a mapping goes when it serves none for `large_delay` further frees, or from one
//! look at the clock to the next. After `LARGE_ROW` frees in a row all is to be earned anew. One of
//! more than `LARGE_MOST` earns none.

use crate::base::config::{CLASSES, KEEP, LARGE_MOST, PRESET};
use crate::base::fault::{Fault, Found};
use crate::base::places::places;
use crate::base::platform::Platform;
use crate::base::random::Secrets;
use crate::layout::chunk::{Chunk, InCell, CELL};
use crate::layout::group::Group;
use crate::layout::guard::Guard;
use crate::layout::record::Place;
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

/// Buckets that need no mapping.
const FIRST_BUCKETS: usize = 32;

/// Bytes behind a large block that are guarded, as far as its memory goes.
const GUARDED: usize = if PRESET.has_guards() { 128 } else { 16 };

/// Class that picks the canary of large blocks.
const CANARY: usize = CLASSES;

/// Bytes of freed mappings that may be kept, or a 12th of the live ones more, while blocks are
/// freed in a row. Inaccessible ones are addresses only.
pub const KEPT_BYTES: usize = if !PRESET.seal_freed_large {
    KEEP * 10
} else if usize::BITS == 64 {
    1 << 30
} else {
    FEW_ADDRESSES
};

/// Bytes of inaccessible mappings where addresses are few.
const FEW_ADDRESSES: usize = 32 << 20;

/// The memory of a large block, or of one that was freed. It lies in a cell.
#[repr(C, align(64))]
pub struct Extent {
    /// The next one in its bucket or list.
    pub next: Cell<Option<&'static Extent>>,
    /// First byte of the memory and of the block.
    pub base: Cell<*mut u8>,
    /// Bytes of memory that may be used.
    pub len: Cell<usize>,
    /// Bytes of the block.
    pub n: Cell<usize>,
    /// Count of frees when it was freed.
    pub stamp: Cell<u32>,
    /// Whether all bytes are zero, the guard aside.
    pub fresh: Cell<bool>,
    /// Whether calloc asked for the block and took new pages: the next one would do so, too.
    pub cleared: Cell<bool>,
    /// Whether the memory is a run of pages in a chunk.
    pub is_run: Cell<bool>,
    /// Inaccessible pages of the mapping before the memory and behind it. Behind it there are some
    /// if there are any.
    pub guards: Cell<[u8; 2]>,
    /// The bytes left of the cell. Without a field they would be padding, which nobody may write
    /// while a function has a reference to the extent, as one does that returns its cell.
    rest: Cell<MaybeUninit<[u8; 64 - 4 * size_of::<usize>() - 9]>>,
}

// SAFETY: `Extent::write` is the one way to an extent.
unsafe impl InCell for Extent {}

/// A list of freed mappings, oldest first.
pub struct List {
    /// The oldest.
    pub first: Cell<Option<&'static Extent>>,
    last: Cell<Option<&'static Extent>>,
    /// How many.
    pub count: Cell<usize>,
    /// Bytes of their memory.
    pub bytes: Cell<usize>,
}

/// Extents of live large blocks by address, and of freed mappings. Whoever borrows it holds the
/// lock.
pub struct Large {
    first: [Cell<Option<&'static Extent>>; FIRST_BUCKETS],
    /// More buckets, a power of two; None while `first` is enough.
    more: Option<&'static [Cell<Option<&'static Extent>>]>,
    /// Live blocks.
    pub live: usize,
    /// Bytes of memory of those in mappings.
    pub live_bytes: usize,
    /// Those between inaccessible pages.
    pub guarded: usize,
    /// Freed mappings for the next blocks.
    pub kept: List,
    /// Mappings that the system refused to take back, for the next blocks, too.
    pub refused: List,
    /// Of blocks that were freed and whose pages are just given back.
    pub leaving: List,
    /// The fewest bytes in `kept` since `decay` looked last.
    pub least_kept: usize,
    /// Bytes unmapped since then, less those that were wanted again.
    pub gone: usize,
    /// Bytes that were unmapped and soon wanted again, `LARGE_TURNS` times if short: what should be
    /// kept.
    pub missed: usize,
    /// Frees since a block was made.
    pub row: u32,
    /// Frees so far.
    pub frees: u32,
    /// Address of the block in a mapping that was freed last.
    pub last: usize,
    /// Whether the system refused memory once: inaccessible mappings may have been in the way, of
    /// the program's own mappings, too, as they count under limits.
    pub is_short: bool,
}

impl Extent {
    /// Where its fields are: next, base, len, n, whether it is a run.
    pub const FIELDS: [usize; 5] = places!(Extent: next, base, len, n, is_run);

    /// Tells of `len` bytes at `base` from a cell that is the caller's.
    pub fn write(cell: &'static Group, base: *mut u8, len: usize, is_run: bool) -> &'static Extent {
        // SAFETY: a cell has 64 bytes and is aligned to them, nobody uses it as a group until it
        // is returned, and all of the extent is written before it is looked at.
        let extent = unsafe {
            let at = ptr::from_ref(cell).cast_mut().cast::<Extent>();
            at.write(Extent {
                next: Cell::new(None),
                base: Cell::new(base),
                len: Cell::new(len),
                n: Cell::new(0),
                stamp: Cell::new(0),
                fresh: Cell::new(true),
                cleared: Cell::new(false),
                is_run: Cell::new(is_run),
                guards: Cell::new([0; 2]),
                rest: Cell::new(MaybeUninit::uninit()),
            });
            &*at
        };
        base.expose_provenance();
        extent
    }

    /// The cell, to give it back.
    pub fn cell(&'static self) -> &'static Group {
        Chunk::of(self).cell(Chunk::number_of(self))
    }

    /// The guard behind the block, and what it watches: so much as there is room for.
    fn guard(&self, secrets: &Secrets) -> (Guard, Place) {
        let (base, n) = (self.base.get(), self.n.get());
        let end = self.guarded_end();
        let word = if PRESET.has_guards() {
            secrets.guard(base.addr())
        } else {
            u64::from_ne_bytes([secrets.class_canary(CANARY); 8])
        };
        let place = Place {
            offset: 0,
            tail: end - n,
        };
        (Guard::new(base, end, word), place)
    }

    /// Bytes from the memory's start to the guard's end: whole words, as memory is whole pages.
    fn guarded_end(&self) -> usize {
        let end = (self.n.get() + GUARDED).next_multiple_of(8);
        self.len.get().min(end)
    }

    /// The memory as the system knows it.
    pub fn base(&self) -> NonNull<u8> {
        // SAFETY: extents are made of memory that the system or a chunk gave.
        unsafe { NonNull::new_unchecked(self.base.get()) }
    }

    /// Sets the length of the block, not above that of the memory, and writes the guard behind it.
    pub fn set_length(&self, secrets: &Secrets, n: usize) {
        self.n.set(n);
        let (guard, place) = self.guard(secrets);
        // SAFETY: the guard lies in the block's memory, behind the block.
        unsafe { guard.write(place) };
    }

    /// Clears what a live block of other length had behind `n` bytes, and its guard: the program
    /// should see neither when the block is as long again.
    pub fn clear_end(&self, n: usize) {
        let before = self.n.get();
        let (from, to) = (n.min(before), self.guarded_end());
        if from < to {
            // SAFETY: the bytes lie in the block's memory, and behind the shorter of both lengths.
            unsafe { self.base.get().add(from).write_bytes(0, to - from) };
        }
    }

    /// Err if the guard behind the live block was written.
    pub fn check(&self, secrets: &Secrets) -> Result<(), Found> {
        let (guard, place) = self.guard(secrets);
        let checked = guard.check(place);
        checked.map_err(|at| Found(Fault::Overflow, at))
    }

    /// Gives the pages of memory that nobody uses back, which makes it zero.
    pub fn purge<P: Platform>(&self, platform: &P) {
        // SAFETY: the caller has the extent in no use: freed, or just made and not yet the
        // program's.
        let purged = unsafe { platform.purge(self.base(), self.len.get()) };
        self.fresh.set(purged);
    }

    /// First byte behind the memory.
    fn end(&self) -> *mut u8 {
        self.base.get().wrapping_add(self.len.get())
    }

    /// Whether the memory of another one begins where this one's ends, or the other way round.
    pub fn is_beside(&self, other: &Extent) -> bool {
        self.end() == other.base.get() || other.end() == self.base.get()
    }

    /// Takes the memory of another one, beside this one's, over. (Should the system know them as
    /// two mappings, it refuses to resize them: then realloc copies.)
    pub fn join(&self, other: &Extent) {
        let base = self.base.get().min(other.base.get());
        self.base.set(base);
        self.len.set(self.len.get() + other.len.get());
        self.fresh.set(self.fresh.get() && other.fresh.get());
        self.cleared.set(self.cleared.get() && other.cleared.get());
    }

    /// Makes the memory of a freed block in no list inaccessible; where that is refused, clear.
    pub fn seal<P: Platform>(&self, platform: &P) {
        let (base, len) = (self.base(), self.len.get());
        // SAFETY: the program gave the block back, and its mapping is in no list yet.
        unsafe {
            if !platform.close(base, len) && !platform.purge(base, len) {
                base.as_ptr().write_bytes(0, len);
            }
        }
    }
}

impl List {
    /// The extents, oldest first.
    fn iter(&self) -> impl Iterator<Item = &'static Extent> {
        core::iter::successors(self.first.get(), |extent| extent.next.get())
    }

    /// Adds an extent, which is in no list, as the youngest.
    pub fn push(&self, extent: &'static Extent) {
        extent.next.set(None);
        match self.last.replace(Some(extent)) {
            Some(last) => last.next.set(Some(extent)),
            None => self.first.set(Some(extent)),
        }
        self.count.set(self.count.get() + 1);
        self.bytes.set(self.bytes.get() + extent.len.get());
    }

    /// Takes out the one behind `before`, or the oldest.
    fn take_behind(&self, before: Option<&'static Extent>) -> Option<&'static Extent> {
        let link = before.map_or(&self.first, |before| &before.next);
        let extent = link.get()?;
        link.set(extent.next.get());
        if extent.next.get().is_none() {
            self.last.set(before);
        }
        self.count.set(self.count.get() - 1);
        self.bytes.set(self.bytes.get() - extent.len.get());
        Some(extent)
    }

    /// Takes the oldest out.
    pub fn pop(&self) -> Option<&'static Extent> {
        self.take_behind(None)
    }

    /// Takes the shortest one out that holds `len` bytes at a multiple of `align`, of the `most`
    /// oldest. If none of them does, these are the youngest now, for others to be looked at next.
    pub fn take_fit(&self, len: usize, align: usize, most: usize) -> Option<&'static Extent> {
        let (mut before, mut best, mut best_len) = (None, None, usize::MAX);
        for extent in self.iter().take(most) {
            let here = extent.len.get();
            if here >= len && here < best_len && extent.base.get().addr() & (align - 1) == 0 {
                (best, best_len) = (Some(before), here);
            }
            before = Some(extent);
        }
        if best.is_none() {
            self.rotate(before?);
        }
        self.take_behind(best?)
    }

    /// Puts those up to `to`, which is in the list, behind all others.
    fn rotate(&self, to: &'static Extent) {
        if let Some(next) = to.next.take() {
            let first = self.first.replace(Some(next));
            let last = self.last.replace(Some(to));
            last.inspect(|last| last.next.set(first));
        }
    }

    /// Takes the oldest one out that is the right one.
    pub fn take(&self, mut is_right: impl FnMut(&Extent) -> bool) -> Option<&'static Extent> {
        let mut before = None;
        for extent in self.iter() {
            if is_right(extent) {
                return self.take_behind(before);
            }
            before = Some(extent);
        }
        None
    }
}

impl Large {
    /// Where its fields are: the first buckets, the address of further ones with their number behind it
    /// (`inspect/description.rs` has a test of these two), live, the oldest kept mapping, bytes of
    /// them, the oldest refused one; and how many the first buckets are.
    pub const FIELDS: [usize; 7] = places!(Large:
        first, more, live, kept.first, kept.bytes, refused.first;
        FIRST_BUCKETS);

    /// The buckets.
    pub fn buckets(&self) -> &[Cell<Option<&'static Extent>>] {
        self.more.unwrap_or(&self.first)
    }

    /// The bucket of an address.
    pub fn bucket(&self, address: usize) -> &Cell<Option<&'static Extent>> {
        // Fibonacci hashing of the page number (Knuth, vol. 3, 6.4).
        let hash = (address as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let buckets = self.buckets();
        &buckets[hash as usize & (buckets.len() - 1)]
    }

    /// The extent of the live block that starts at `block`.
    pub fn find(&self, block: *mut u8) -> Option<&'static Extent> {
        let first = self.bucket(block.addr()).get();
        let mut chain = core::iter::successors(first, |extent| extent.next.get());
        chain.find(|extent| extent.base.get().addr() == block.addr())
    }

    /// Enters the extent of a live block.
    pub fn insert(&mut self, extent: &'static Extent) {
        let bucket = self.bucket(extent.base.get().addr());
        extent.next.set(bucket.replace(Some(extent)));
        self.live += 1;
        self.live_bytes += extent.len.get() * !extent.is_run.get() as usize;
        self.guarded += (extent.guards.get()[1] != 0) as usize;
    }

    /// Takes the extent of a live block out.
    pub fn remove(&mut self, extent: &'static Extent) {
        let mut link = self.bucket(extent.base.get().addr());
        while let Some(here) = link.get().filter(|here| !ptr::eq(*here, extent)) {
            link = &here.next;
        }
        link.set(extent.next.get());
        self.live -= 1;
        self.live_bytes -= extent.len.get() * !extent.is_run.get() as usize;
        self.guarded -= (extent.guards.get()[1] != 0) as usize;
    }

    /// Bytes that may be kept now.
    pub fn budget(&self) -> usize {
        let share = self.live_bytes / 12;
        if PRESET.seal_freed_large && self.is_short {
            return KEPT_BYTES.min(FEW_ADDRESSES) + share;
        }
        let most = KEPT_BYTES + share;
        if PRESET.seal_freed_large {
            return most;
        }
        // A program that frees and frees goes down from its peak.
        let down = self.missed >> self.row.saturating_sub(2).min(usize::BITS - 1);
        self.missed.min(down.max(most))
    }

    /// Bytes of the longest freed mapping that may be kept now.
    pub fn longest(&self) -> usize {
        if PRESET.seal_freed_large {
            self.budget()
        } else {
            self.budget().min(LARGE_MOST)
        }
    }

    /// Whether `block` was freed last of all, or lies in a freed mapping that is still kept or just
    /// leaving, at a page's start.
    pub fn was_freed<P: Platform>(&self, platform: &P, block: *mut u8) -> bool {
        let inside = |extent: &Extent| {
            block.addr().wrapping_sub(extent.base.get().addr()) < extent.len.get()
        };
        let kept = || self.kept.iter().chain(self.leaving.iter()).any(inside);
        block.addr() % platform.page_size() == 0 && (block.addr() == self.last || kept())
    }

    /// Bytes of freed mappings that are kept.
    #[cfg(any(test, feature = "model", feature = "dump", feature = "stats"))]
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes.get()
    }

    /// Makes `new`, all empty, the buckets.
    pub fn replace_buckets(&mut self, new: &'static [Cell<Option<&'static Extent>>]) {
        let old = self.more.replace(new);
        for bucket in old.into_iter().flatten().chain(&self.first) {
            let mut chain = bucket.take();
            while let Some(extent) = chain {
                chain = extent.next.get();
                let bucket = self.bucket(extent.base.get().addr());
                extent.next.set(bucket.replace(Some(extent)));
            }
        }
    }

    /// Calls `each(base, bytes of memory, bytes of the block, whether in a run)` for each live
    /// block.
    #[cfg(any(test, feature = "model", feature = "dump", feature = "stats"))]
    pub fn each(&self, mut each: impl FnMut(*mut u8, usize, usize, bool)) {
        for bucket in self.buckets() {
            for extent in core::iter::successors(bucket.get(), |extent| extent.next.get()) {
                let (base, len) = (extent.base.get(), extent.len.get());
                each(base, len, extent.n.get(), extent.is_run.get());
            }
        }
    }

    /// Cells in use: of live blocks and of freed mappings.
    #[cfg(any(test, feature = "model"))]
    pub fn cells(&self) -> usize {
        let freed = [&self.kept, &self.refused, &self.leaving];
        self.live + freed.map(|list| list.count.get()).iter().sum::<usize>()
    }
}

const _: () = assert!(size_of::<Extent>() == CELL);
