//! Large blocks: above the largest class, or aligned to pages. Each has memory of its own, a
//! mapping or a run of pages in a chunk; freed mappings are kept for a while.
//!
//! ```text
//! default:                       | block: n bytes | 0, canaries | what is left of the page |
//! hardened: | inaccessible pages | block: n bytes | 0, guard | rest | inaccessible pages |
//!                                ^ base = block
//! ```
//!
//! A run that its block fills has no canary. Nor has, in hardened, a mapping between inaccessible
//! pages that its block fills: beyond `MOST_APART` of these mappings are as in the default preset.

use crate::base::config::{
    CHUNK, LARGE_KEPT, LARGE_LONG, LARGE_MOST, LARGE_ROW, LARGE_TURNS, PRESET, RUN_PAGE,
};
use crate::base::fault::Found;
use crate::base::platform::Platform;
use crate::layout::chunk::{Chunk, CELL};
use crate::layout::kind::Kind;
use crate::pages::extent::Extent;
use crate::pages::memory::Locked;
use crate::pages::page_heap::Run;
use crate::pages::place::shut;
use core::ptr::{self, NonNull};

/// Largest alignment of a run in bytes: a chunk has several such places.
const MAX_RUN_ALIGN: usize = CHUNK / 8;

/// calloc clears used memory below this length in bytes, and takes new pages for longer blocks.
const PURGE_LEAST: usize = 512 << 10;

/// Refused mappings that are offered to the system again at each free of a large block.
const REFUSED_TRIES: usize = 8;

/// Freed mappings that malloc looks at for one that fits: of those that are kept there are no more,
/// of refused ones there is any number. Each malloc looks at others.
const LOOKED_AT: usize = 64;

/// Live large blocks beyond which mappings lie where the system puts them, side by side: it counts
/// those as one, and has room for 65,530. And of those between inaccessible pages, which it counts
/// as three, so many at most: they leave more than half of that to all else.
pub const MOST_APART: usize = if cfg!(small_constants) { 128 } else { 8192 };

/// Mappings of as many bytes lie side by side, too: freed ones are joined for longer blocks, and
/// the system has long pages for them.
const LEAST_JOINED: usize = 2 << 20;

/// Bytes of inaccessible pages before a large block, or behind it, at most (a page at least): where
/// addresses are few no more than if pages are short.
const MOST_GUARD: usize = if usize::BITS == 64 {
    usize::MAX
} else {
    PRESET.guard_pages * RUN_PAGE
};

/// Bytes of a freed block whose pages go in one call.
const LEAVING_STEP: usize = 16 << 20;

/// Frees of large blocks between two looks at the clock.
const DECAY_FREES: u32 = 16;

/// What `free_large` did.
pub enum Freed {
    /// Nothing: no large block is there.
    None,
    /// All.
    Whole,
    /// All but giving the memory back.
    But(Leaving),
}

/// The memory of a long block that was freed: its holder's, to give back without the lock, as the
/// system takes a long time for many pages. The addresses are still taken, so nobody else comes to
/// lie there; a fork's child finds the extent in `Large::leaving`.
#[must_use]
pub struct Leaving {
    extent: &'static Extent,
    base: NonNull<u8>,
    len: usize,
}

/// The same block when that is done.
#[must_use]
pub struct Left {
    extent: &'static Extent,
    is_clear: bool,
}

impl Leaving {
    /// Gives the pages back, some at a time: whoever maps or unmaps anything waits for a call.
    pub fn give_back<P: Platform>(self, platform: &P) -> Left {
        let mut is_clear = true;
        for at in (0..self.len).step_by(LEAVING_STEP) {
            let len = LEAVING_STEP.min(self.len - at);
            // SAFETY: `free_large` took the block out of the live ones, and its mapping stays
            // until `free_left` has this value's successor.
            is_clear &= unsafe { platform.purge(self.base.add(at), len) };
        }
        let extent = self.extent;
        Left { extent, is_clear }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// A block of `n` bytes at a multiple of `align`: in a mapping, or in a run of pages if there
    /// is none, or first of all if it is small. None when there is neither.
    pub fn allocate_large(&mut self, n: usize, align: usize, small: bool) -> Option<*mut u8> {
        self.pages.draw_secrets();
        let mut extent = None;
        if small {
            extent = self.in_run(n, align);
        }
        extent = extent.or_else(|| self.in_mapping(n, align));
        if !small {
            extent = extent.or_else(|| self.in_run(n, align));
        }
        let extent = extent?;
        if !extent.is_run.get() {
            self.large.row = 0;
        }
        extent.cleared.set(false);
        extent.set_length(&self.pages.system.secrets, n);
        self.large.insert(extent);
        self.grow_buckets();
        Some(extent.base.get())
    }

    /// An extent in a run of pages.
    fn in_run(&mut self, n: usize, align: usize) -> Option<&'static Extent> {
        if n > CHUNK / 2 || align > MAX_RUN_ALIGN {
            return None;
        }
        let run = self
            .pages
            .take_run(Kind::COMMON, run_pages(n), (align / RUN_PAGE).max(1))?;
        let Some(cell) = self.pages.take_cell(run.chunk) else {
            self.pages.return_run(run);
            return None;
        };
        let extent = Extent::write(cell, run.start(), run.pages * RUN_PAGE, true);
        extent.fresh.set(run.fresh);
        Some(extent)
    }

    /// An extent in a mapping that was kept, or a new one.
    fn in_mapping(&mut self, n: usize, align: usize) -> Option<&'static Extent> {
        let guards = self.draw_guards();
        let len = self.mapping_len(n, guards)?;
        let mut extent = self.in_freed(len, align, LOOKED_AT);
        extent = extent.or_else(|| self.in_new_mapping(len, align, guards));
        // Where the system has no more, of all refused ones.
        extent.or_else(|| self.in_freed(len, align, usize::MAX))
    }

    /// An extent in a mapping that was kept or refused, of so many of the oldest of each.
    fn in_freed(&mut self, len: usize, align: usize, most: usize) -> Option<&'static Extent> {
        if PRESET.seal_freed_large {
            // What is inaccessible waits for its turn to go back.
            return None;
        }
        let large = &mut *self.large;
        let kept = large.kept.take_fit(len, align, most);
        large.least_kept = large.least_kept.min(large.kept.bytes.get());
        let extent = kept.or_else(|| large.refused.take_fit(len, align, most))?;
        self.split(extent, len);
        Some(extent)
    }

    /// An extent in a new mapping.
    fn in_new_mapping(
        &mut self,
        len: usize,
        align: usize,
        guards: [u8; 2],
    ) -> Option<&'static Extent> {
        let large = &mut *self.large;
        // So much was given back too early: never more than what is live with that block.
        let missed = if len <= LARGE_MOST {
            large.gone.min(len)
        } else {
            0
        };
        large.gone -= missed;
        if missed > 0 {
            let turns = if len < LARGE_LONG { LARGE_TURNS } else { 1 };
            large.missed = (large.missed + missed.div_ceil(turns)).min(large.live_bytes + len);
        }
        let cell = self.pages.any_cell()?;
        let Some(at) = self.map_guarded(len, align, guards) else {
            self.pages.return_cell(cell);
            return None;
        };
        let extent = Extent::write(cell, at.as_ptr(), len, false);
        extent.guards.set(guards);
        Some(extent)
    }

    /// `len` bytes of new memory at a multiple of `align`, between so many inaccessible pages. (If
    /// these are refused, the block is still a good block.)
    fn map_guarded(&mut self, len: usize, align: usize, guards: [u8; 2]) -> Option<NonNull<u8>> {
        let [before, behind] = self.guard_bytes(guards);
        let whole = before + len + behind;
        let mut wish = 0;
        if (len < LEAST_JOINED || PRESET.has_guard_pages()) && self.large.live < MOST_APART {
            // What `map_aligned` maps more, it needs there, too.
            let page = self.pages.platform().page_size();
            wish = self
                .pages
                .wish_apart(whole.saturating_add(align.saturating_sub(page)));
        }
        let at = self.pages.map_aligned(wish, whole, align, before)?;
        if behind == 0 {
            return Some(at);
        }
        shut(self.pages.platform(), at.as_ptr(), before);
        let base = at.as_ptr().wrapping_add(before);
        shut(self.pages.platform(), base.wrapping_add(len), behind);
        NonNull::new(base)
    }

    /// Keeps what an extent in no list has beyond `len` bytes apart, if that is much. (Inaccessible
    /// pages would stand behind the whole mapping only, and should stand right behind the block.)
    fn split(&mut self, extent: &'static Extent, len: usize) {
        let more = extent.len.get() - len;
        if more <= len / 8 || PRESET.has_guard_pages() {
            return;
        }
        let Some(cell) = self.pages.any_cell() else {
            return;
        };
        let behind = Extent::write(cell, extent.base.get().wrapping_add(len), more, false);
        behind.stamp.set(extent.stamp.get());
        behind.fresh.set(extent.fresh.get());
        behind.cleared.set(extent.cleared.get());
        extent.len.set(len);
        self.keep(behind);
    }

    /// Whether the large block at `block`, fresh from malloc, is all zero. A long one is made so:
    /// who asks would else write all of it, and tables are often sparse.
    pub fn is_large_zero(&mut self, block: *mut u8) -> bool {
        let Some(extent) = self.large.find(block) else {
            return false;
        };
        let long = extent.len.get() >= PURGE_LEAST && !extent.is_run.get();
        extent.cleared.set(long);
        if long && !extent.fresh.get() {
            extent.purge(self.pages.platform());
            extent.set_length(&self.pages.system.secrets, extent.n.get());
        }
        extent.fresh.get()
    }

    /// Resizes the large block at `block` to `n` bytes, perhaps moving its pages, if that stays
    /// large (`stays` says so of `n`). Where it is now, or null: it is unchanged; and its length
    /// before. None: no large block is there.
    pub fn resize_large(
        &mut self,
        block: *mut u8,
        n: usize,
        stays: bool,
    ) -> Result<Option<(*mut u8, usize)>, Found> {
        let Some(extent) = self.large.find(block) else {
            return Ok(None);
        };
        let before = extent.n.get();
        let mut resized = stays;
        if extent.is_run.get() {
            let same = run_pages(n) * RUN_PAGE == extent.len.get();
            resized = same && n != 0;
        }
        if resized {
            extent.check(&self.pages.system.secrets)?;
            resized = extent.is_run.get() || self.resize_mapping(extent, n);
        }
        if !resized {
            return Ok(Some((ptr::null_mut(), before)));
        }
        extent.fresh.set(false);
        extent.clear_end(n);
        extent.set_length(&self.pages.system.secrets, n);
        Ok(Some((extent.base.get(), before)))
    }

    /// Lets the mapping of a live block hold `n` bytes. False: it does not.
    fn resize_mapping(&mut self, extent: &'static Extent, n: usize) -> bool {
        let Some(len) = self.mapping_len(n, extent.guards.get()) else {
            return false;
        };
        let old = extent.len.get();
        // What grows stays in its mapping while that holds it.
        if len == old || len < old && n >= extent.n.get() {
            return true;
        }
        self.large.remove(extent);
        let resized = self.remap(extent, len);
        self.large.insert(extent);
        resized
    }

    /// Resizes the mapping of an extent in no list to `len` bytes, another number than it has.
    /// False: it is unchanged, too short.
    fn remap(&mut self, extent: &Extent, len: usize) -> bool {
        let (old, base) = (extent.len.get(), extent.base());
        let platform = self.pages.platform();
        let [_, behind] = self.guard_bytes(extent.guards.get());
        if len < old {
            // First what is behind the new inaccessible pages: if it may not go, nothing has
            // changed, and the block, smaller now, keeps its mapping.
            // SAFETY: what goes lies behind the block, which is to be `len` bytes at most.
            if !unsafe { platform.unmap(base.add(len + behind), old - len) } {
                return true;
            }
            if behind != 0 {
                shut(platform, base.as_ptr().wrapping_add(len), behind);
            }
        } else if behind != 0 {
            return self.remap_guarded(extent, len);
        } else {
            // SAFETY: the mapping is the extent's; the old place is not used again.
            let Some(moved) = (unsafe { platform.remap(base, old, len) }) else {
                return false;
            };
            extent.base.set(moved.as_ptr());
        }
        extent.len.set(len);
        true
    }

    /// Moves the memory of an extent in no list to a longer mapping between inaccessible pages.
    /// False: it stays where it is. A short block stays, too: to copy it costs little, and its old
    /// address waits with those of freed ones then.
    fn remap_guarded(&mut self, extent: &Extent, len: usize) -> bool {
        let (old, base) = (extent.len.get(), extent.base());
        if old < LARGE_LONG || !self.pages.may_owe(2) {
            return false;
        }
        let mut guards = self.draw_guards();
        let [before, behind] = self.guard_bytes(guards);
        // SAFETY: the mapping is the extent's; the old place is not used again.
        let moved = unsafe { self.pages.platform().remap(base, old, len + behind) };
        let Some(moved) = moved else {
            return false;
        };
        let [old_before, old_behind] = self.guard_bytes(extent.guards.get());
        // SAFETY: the inaccessible pages stayed where the memory was, as it had to move for them.
        unsafe {
            if old_before > 0 {
                self.pages.give_back(base.sub(old_before), old_before);
            }
            self.pages.give_back(base.add(old), old_behind);
        }
        let front = moved.as_ptr().wrapping_sub(before);
        if self.pages.map_at(front.addr(), before) {
            shut(self.pages.platform(), front, before);
        } else {
            // Somebody is there.
            guards[0] = 0;
        }
        shut(
            self.pages.platform(),
            moved.as_ptr().wrapping_add(len),
            behind,
        );
        extent.guards.set(guards);
        extent.base.set(moved.as_ptr());
        extent.len.set(len);
        true
    }

    /// Frees the large block that starts at `block`, all but the memory of a long one that is not
    /// to be kept: see `Leaving`. A block that is found damaged stays alive.
    pub fn free_large(&mut self, block: *mut u8) -> Result<Freed, Found> {
        let Some(extent) = self.large.find(block) else {
            return Ok(Freed::None);
        };
        extent.check(&self.pages.system.secrets)?;
        self.large.remove(extent);
        if extent.is_run.get() {
            if PRESET.zero_on_free {
                // SAFETY: the program gave the block back, and the run is not returned yet.
                unsafe { block.write_bytes(0, extent.len.get()) };
            }
            self.pages.return_run(run_of(extent));
            self.pages.return_cell(extent.cell());
            return Ok(Freed::Whole);
        }
        self.large.frees = self.large.frees.wrapping_add(1);
        self.large.row = self.large.row.saturating_add(1);
        if self.large.row > LARGE_ROW {
            self.large.missed = 0;
        }
        self.large.last = block.addr();
        extent.stamp.set(self.large.frees);
        extent.fresh.set(false);
        let len = extent.len.get();
        let goes = PRESET.seal_freed_large || len > self.large.longest();
        if goes && len >= LARGE_LONG && self.pages.platform().threaded() {
            self.large.leaving.push(extent);
            let base = extent.base();
            return Ok(Freed::But(Leaving { extent, base, len }));
        }
        self.free_mapping(extent);
        Ok(Freed::Whole)
    }

    /// Frees the rest of a large block, whose memory is given back now, unless the system refused.
    pub fn free_left(&mut self, left: Left) {
        if let Some(extent) = self.large.leaving.take(|other| ptr::eq(other, left.extent)) {
            extent.fresh.set(left.is_clear);
            self.free_mapping(extent);
        }
    }

    /// In the child of a fork: frees what other threads were just giving back.
    pub fn free_leaving(&mut self) {
        while let Some(extent) = self.large.leaving.pop() {
            self.free_mapping(extent);
        }
    }

    /// Frees a mapping in no list, which holds no block any more: it is kept, or goes, and with it
    /// what is too old now.
    fn free_mapping(&mut self, extent: &'static Extent) {
        if PRESET.seal_freed_large {
            extent.seal(self.pages.platform());
        } else {
            self.join(extent);
        }
        self.keep(extent);
        self.drop_old();
        self.retry_refused();
        self.pages.purge_if_due();
        if self.large.frees % DECAY_FREES == 0 {
            self.decay();
        }
    }

    /// Joins the mapping of a freed block with those beside it that are kept: what `split` cut off
    /// serves again.
    fn join(&mut self, extent: &'static Extent) {
        let most = self.large.longest();
        let fits =
            |other: &Extent| extent.is_beside(other) && extent.len.get() + other.len.get() <= most;
        while let Some(other) = self.large.kept.take(fits) {
            extent.join(other);
            self.pages.return_cell(other.cell());
        }
    }

    /// Keeps the mapping of a block that was freed, if that is not too much.
    fn keep(&mut self, extent: &'static Extent) {
        if extent.len.get() > self.large.longest() {
            self.unmap(extent);
            return;
        }
        if extent.cleared.get() && !extent.fresh.get() && !PRESET.seal_freed_large {
            // Now instead of when it is used again: tables are often sparse, and in turn.
            extent.purge(self.pages.platform());
        }
        self.large.kept.push(extent);
    }

    /// Unmaps what is too old or too much.
    fn drop_old(&mut self) {
        if PRESET.seal_freed_large {
            return self.drop_sealed();
        }
        while let Some(oldest) = self.large.kept.first.get() {
            let age = self.large.frees.wrapping_sub(oldest.stamp.get());
            if age <= PRESET.large_delay
                && self.large.kept.bytes.get() <= self.large.budget()
                && self.large.kept.count.get() <= LARGE_KEPT
            {
                return;
            }
            self.drop_kept(self.large.kept.bytes.get() - 1);
        }
    }

    /// Unmaps inaccessible mappings while there are too many: each time one of the older half, so
    /// that nobody can tell when the addresses of a freed block serve again.
    fn drop_sealed(&mut self) {
        let most = self.large.budget();
        while self.large.kept.count.get() > LARGE_KEPT || self.large.kept.bytes.get() > most {
            let half = self.large.kept.count.get().div_ceil(2);
            let mut before = self.pages.choose(half);
            let dropped = self.large.kept.take(|_| {
                let found = before == 0;
                before = before.saturating_sub(1);
                found
            });
            if let Some(dropped) = dropped {
                self.unmap(dropped);
            }
        }
    }

    /// Unmaps the oldest mappings that are kept, until there are no more bytes than `most`.
    fn drop_kept(&mut self, most: usize) {
        while self.large.kept.bytes.get() > most {
            if let Some(oldest) = self.large.kept.pop() {
                self.unmap(oldest);
            }
        }
        self.large.least_kept = self.large.least_kept.min(self.large.kept.bytes.get());
    }

    /// Gives a mapping in no list back. At the system's limit of mappings it may refuse, since the
    /// hole would make two mappings of one: then only the pages go, and the mapping waits for
    /// another use. Whether it went.
    fn unmap(&mut self, extent: &'static Extent) -> bool {
        let (platform, len) = (self.pages.platform(), extent.len.get());
        let [before, behind] = self.guard_bytes(extent.guards.get());
        // SAFETY: the extent is of no live block, so nothing uses the mapping.
        if unsafe { platform.unmap(extent.base().sub(before), before + len + behind) } {
            self.large.gone += len;
            self.pages.return_cell(extent.cell());
            return true;
        }
        extent.purge(platform);
        self.large.refused.push(extent);
        false
    }

    /// Offers the system again what it refused to take back: some of it, as each is a call.
    fn retry_refused(&mut self) {
        for _ in 0..REFUSED_TRIES {
            let Some(refused) = self.large.refused.pop() else {
                break;
            };
            if !self.unmap(refused) {
                return;
            }
        }
        self.pages.retry_owed();
    }

    /// Makes eight times as many buckets when chains get long. Without memory they stay long.
    fn grow_buckets(&mut self) {
        let old = self.large.buckets().len();
        if self.large.live <= 2 * old {
            return;
        }
        let count = (8 * old).max(512);
        let Some(new) = self
            .pages
            .metadata(count * size_of::<Option<&Extent>>(), CELL)
        else {
            return;
        };
        // SAFETY: the memory has room for so many, for ever, and zero bytes are empty buckets.
        let new = unsafe { core::slice::from_raw_parts(new.cast(), count) };
        self.large.replace_buckets(new);
    }

    /// Gives up all that this layer keeps for later, as memory is out.
    pub fn release_kept(&mut self) {
        self.large.is_short = true;
        self.drop_kept(0);
        self.pages.drop_idle_chunks(0);
        self.pages.purge();
    }

    /// No more bytes than these could come back by that.
    pub fn kept_bytes(&self) -> usize {
        self.pages.retained() + self.large.kept.bytes.get()
    }

    /// Gives back what lay unused since the last look, if that was long enough ago.
    #[cold]
    #[inline(never)]
    pub fn decay(&mut self) {
        if !self.pages.decay() {
            return;
        }
        // Inaccessible mappings are addresses only, and wait for a purpose.
        if !PRESET.seal_freed_large {
            let unused = self.large.least_kept;
            self.large.missed = self.large.missed.saturating_sub(unused);
            self.drop_kept(self.large.kept.bytes.get() - unused);
        }
        self.large.least_kept = self.large.kept.bytes.get();
        self.large.gone = 0;
    }

    /// Bytes of memory that hold a block of `n` bytes and, if no inaccessible page is to be behind
    /// it, its canary. None if they would be more than PTRDIFF_MAX, which libc maps for nobody.
    fn mapping_len(&self, n: usize, guards: [u8; 2]) -> Option<usize> {
        let page = self.pages.platform().page_size();
        let most = isize::MAX as usize - page - 2 * PRESET.guard_pages * page;
        let bytes = if PRESET.has_guard_pages() && guards[1] != 0 {
            n.max(1)
        } else {
            n + 1
        };
        (n < most).then(|| bytes.next_multiple_of(page))
    }

    /// How many inaccessible pages a mapping has before its memory and behind it. None beyond a
    /// number of live ones that have any: what the system counts is the program's, too.
    fn draw_guards(&self) -> [u8; 2] {
        if self.large.guarded >= MOST_APART {
            return [0; 2];
        }
        let fit = (MOST_GUARD / self.pages.platform().page_size()).max(1);
        [(); 2].map(|_| match PRESET.guard_pages {
            0 => 0,
            most => 1 + self.pages.choose(most.min(fit)) as u8,
        })
    }

    /// Bytes of so many pages.
    fn guard_bytes(&self, guards: [u8; 2]) -> [usize; 2] {
        if !PRESET.has_guard_pages() {
            return [0; 2];
        }
        guards.map(|pages| pages as usize * self.pages.platform().page_size())
    }
}

/// The run of pages that an extent lies in.
fn run_of(extent: &Extent) -> Run {
    let address = extent.base.get().addr();
    Run {
        // SAFETY: a run lies in a chunk.
        chunk: unsafe { Chunk::around(address) },
        page: address % CHUNK / RUN_PAGE,
        pages: extent.len.get() / RUN_PAGE,
        fresh: false,
    }
}

/// Run pages of a block of `n` bytes, at most PTRDIFF_MAX. Whole pages have no canary: one more
/// page for it would be too much. The hardened preset pays it.
fn run_pages(n: usize) -> usize {
    let bytes = if PRESET.has_guard_pages() {
        n + 1
    } else {
        n.max(1)
    };
    bytes.div_ceil(RUN_PAGE)
}
