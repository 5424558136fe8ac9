//! Freed mappings of large blocks: kept for a while, cut to size, given back.

use crate::config::{HUGE_PAGE, LARGE_CACHE_AGE, LARGE_CACHE_ENTRIES, PRESET, SETTLE_FREES};
use crate::large::Record;
use crate::pages::{Access, Platform};
use crate::provider::Locked;
use core::ptr::{self, NonNull};

/// Refused mappings that are offered to the system again at each free of a large block.
const STUCK_TRIES: usize = 8;

impl<P: Platform> Locked<'_, P> {
    /// A record from the cache, or from the mappings that could not go back, whose mapping fits.
    pub(crate) fn reuse_large(&mut self, len: usize, align: usize) -> Option<*mut Record> {
        let mut best = None;
        for index in 0..self.provider.large.cached {
            let record = self.provider.large.cache[index];
            // SAFETY: cached records are alive.
            unsafe {
                // An inaccessible page stands behind the whole mapping only, and should stand
                // right behind the block.
                let fits = if PRESET.guard_pages {
                    (*record).len == len
                } else {
                    (*record).len >= len
                };
                let age = self.provider.large.frees.wrapping_sub((*record).stamp);
                if age.checked_sub(PRESET.large_delay).is_none() {
                    // The others are younger still.
                    break;
                }
                let fits = fits && (*record).base.addr() % align == 0;
                if fits && best.is_none_or(|(_, best_len)| (*record).len < best_len) {
                    best = Some((index, (*record).len));
                }
            }
        }
        if let Some((index, _)) = best {
            let record = self.provider.large.uncache(index);
            // SAFETY: the record is ours now.
            return unsafe { self.unseal(record, len) };
        }
        let mut link = &raw mut self.provider.large.stuck;
        // SAFETY: links and records in the list are alive.
        unsafe {
            while !(*link).is_null() {
                let record = *link;
                if (*record).len >= len && (*record).base.addr() % align == 0 {
                    *link = (*record).next;
                    return self.unseal(record, len);
                }
                link = &raw mut (*record).next;
            }
        }
        None
    }

    /// The largest cached mapping, none of which is long enough, made as long by moving its pages:
    /// only what it lacks is new memory. Not one that is less than a quarter.
    pub(crate) fn grow_cached(&mut self, len: usize, align: usize) -> Option<*mut Record> {
        let page_size = self.process.platform.page_size();
        // A guard page would have to move, too.
        if PRESET.guard_pages || align > page_size {
            return None;
        }
        let large = &mut self.provider.large;
        // SAFETY: cached records are alive.
        let (index, longest) = (0..large.cached)
            .map(|index| (index, unsafe { (*large.cache[index]).len }))
            .max_by_key(|&(_, len)| len)?;
        if longest < len / 4 || len < longest {
            return None;
        }
        let record = large.uncache(index);
        // Whole huge pages get an aligned place (Linux 6.7), and so move as they are.
        let huge = self.provider.large.wants_huge(len);
        let whole = if huge {
            len.next_multiple_of(HUGE_PAGE)
        } else {
            len
        };
        let platform = &self.process.platform;
        // SAFETY: the record and its mapping are ours; the end beyond `len` is unused.
        unsafe {
            let base = NonNull::new_unchecked((*record).base);
            let Some(at) = platform.remap(base, longest, whole, true) else {
                self.unmap_large(record);
                return None;
            };
            if huge {
                platform.prefer_huge(at, whole);
            }
            self.provider.large.miss(len - longest);
            (*record).base = at.as_ptr();
            (*record).len = whole;
            if whole > len && platform.unmap(at.add(len), whole - len) {
                (*record).len = len;
            }
        }
        Some(record)
    }

    /// Makes a freed mapping usable for `len` bytes; what is beyond goes back to the cache or the
    /// system.
    ///
    /// # Safety
    /// The record is in no list.
    unsafe fn unseal(&mut self, record: *mut Record, len: usize) -> Option<*mut Record> {
        let platform = &self.process.platform;
        // SAFETY: by contract.
        unsafe {
            let base = NonNull::new_unchecked((*record).base);
            // All of it: the block may grow in place to the end of what the record tells.
            if PRESET.seal_freed_large && !platform.protect(base, (*record).len, Access::ReadWrite)
            {
                self.put_in_cache(record);
                return None;
            }
            // A guard page stands behind the whole mapping only: no splitting then.
            if (*record).len - len > len / 8 && !PRESET.guard_pages {
                self.split(record, len);
            }
            Some(record)
        }
    }

    /// Cuts a record's mapping after `len` bytes.
    ///
    /// # Safety
    /// The record is in no list and its mapping longer.
    unsafe fn split(&mut self, record: *mut Record, len: usize) {
        let Some(cell) = self.any_cell() else { return };
        let rest = cell.cast::<Record>();
        // SAFETY: by contract; the cell is ours.
        unsafe {
            rest.write(Record {
                next: ptr::null_mut(),
                base: (*record).base.add(len),
                len: (*record).len - len,
                n: 0,
                stamp: (*record).stamp,
                fresh: (*record).fresh,
                cleared: (*record).cleared,
            });
            (*record).len = len;
            self.put_in_cache(rest);
        }
    }

    /// Caches or unmaps the mapping of a block that was freed.
    ///
    /// # Safety
    /// The record is of a freed block and in no list.
    pub(crate) unsafe fn retire_large(&mut self, record: *mut Record) {
        // SAFETY: by contract.
        unsafe {
            let base = NonNull::new_unchecked((*record).base);
            let large = &mut self.provider.large;
            large.frees = large.frees.wrapping_add(1);
            (*record).stamp = large.frees;
            large.row = large.row.saturating_add(1);
            (*record).fresh = false;
            if PRESET.seal_freed_large {
                let platform = &self.process.platform;
                (*record).fresh = platform.purge(base, (*record).len);
                if !(*record).fresh {
                    base.as_ptr().write_bytes(0, (*record).len);
                    (*record).fresh = true;
                }
                let _ = platform.protect(base, (*record).len, Access::None);
            } else {
                self.join(record);
            }
            self.put_in_cache(record);
        }
        self.age_cache();
        self.retry_stuck();
        self.purge_if_due();
        if self.provider.large.frees % SETTLE_FREES == 0 {
            self.settle();
        }
    }

    /// Joins a mapping with the cached ones beside it, so that what `split` cut off serves again.
    /// (Should the system know them as two, it refuses to resize them: see `grow_cached`.)
    ///
    /// # Safety
    /// The record is of no live block and in no list.
    unsafe fn join(&mut self, record: *mut Record) {
        let most = self.provider.large.cache_bound();
        for index in (0..self.provider.large.cached).rev() {
            let other = self.provider.large.cache[index];
            // SAFETY: by contract; cached records are alive.
            unsafe {
                let below = (*other).base.addr() + (*other).len == (*record).base.addr();
                let above = (*record).base.addr() + (*record).len == (*other).base.addr();
                if (below || above) && (*record).len + (*other).len <= most {
                    self.provider.large.uncache(index);
                    if below {
                        (*record).base = (*other).base;
                    }
                    (*record).len += (*other).len;
                    (*record).fresh &= (*other).fresh;
                    (*record).cleared &= (*other).cleared;
                    self.return_cell(other.cast());
                }
            }
        }
    }

    /// Puts a record into the cache; older ones make room.
    ///
    /// # Safety
    /// The record is of no live block and in no list.
    unsafe fn put_in_cache(&mut self, record: *mut Record) {
        // SAFETY: by contract.
        unsafe {
            if (*record).len > self.provider.large.cache_bound() {
                return self.unmap_large(record);
            }
            if (*record).cleared && !(*record).fresh {
                // Now instead of when it is used again: tables are often sparse, and in turn.
                let base = NonNull::new_unchecked((*record).base);
                (*record).fresh = self.process.platform.purge(base, (*record).len);
            }
            if self.provider.large.cached == LARGE_CACHE_ENTRIES {
                let oldest = self.provider.large.uncache(0);
                self.unmap_large(oldest);
            }
            let large = &mut self.provider.large;
            large.cache[large.cached] = record;
            large.cached += 1;
            large.cached_bytes += (*record).len;
        }
    }

    /// Unmaps what is too old or too much.
    fn age_cache(&mut self) {
        loop {
            let large = &mut self.provider.large;
            if large.cached == 0 {
                return;
            }
            // SAFETY: cached records are alive.
            let age = large.frees.wrapping_sub(unsafe { (*large.cache[0]).stamp });
            if (PRESET.large_delay == 0 || age <= LARGE_CACHE_AGE)
                && large.cached_bytes <= large.cache_bound()
            {
                return;
            }
            let oldest = large.uncache(0);
            // SAFETY: no list holds it.
            unsafe { self.unmap_large(oldest) };
        }
    }

    /// Unmaps everything that is cached.
    pub fn drop_large_cache(&mut self) {
        while self.provider.large.cached > 0 {
            let oldest = self.provider.large.uncache(0);
            // SAFETY: no list holds it.
            unsafe { self.unmap_large(oldest) };
        }
    }

    /// Gives a mapping back. At the system's limit of mappings it may refuse, since the hole would
    /// make two mappings of one: then only the pages go, and the mapping waits for another use.
    ///
    /// # Safety
    /// The record is of no live block and in no list.
    pub(crate) unsafe fn unmap_large(&mut self, record: *mut Record) {
        let platform = &self.process.platform;
        // SAFETY: by contract.
        unsafe {
            let base = NonNull::new_unchecked((*record).base);
            if platform.unmap(base, (*record).len + self.process.large_margin()) {
                self.provider.large.gone += (*record).len;
                self.return_cell(record.cast());
                return;
            }
            (*record).fresh = platform.purge(base, (*record).len);
            (*record).next = self.provider.large.stuck;
            self.provider.large.stuck = record;
        }
    }

    /// Offers the system again what it refused to take back: some of it, as each is a call.
    fn retry_stuck(&mut self) {
        for _ in 0..STUCK_TRIES {
            let record = self.provider.large.stuck;
            if record.is_null() {
                break;
            }
            // SAFETY: records in the list are alive; this one leaves it here, and comes back if
            // it is refused again.
            unsafe {
                self.provider.large.stuck = (*record).next;
                self.unmap_large(record);
            }
            if self.provider.large.stuck == record {
                return;
            }
        }
        self.retry_owed();
    }
}
