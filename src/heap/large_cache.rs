//! Freed mappings of large blocks: kept for a while, cut to size, given back.

use crate::config::{LARGE_CACHE_AGE, LARGE_CACHE_ENTRIES, PRESET, SETTLE_FREES};
use crate::large::Record;
use crate::pages::Platform;
use crate::provider::Locked;
use core::ptr::{self, NonNull};

/// Refused mappings that are offered to the system again at each free of a large block.
const STUCK_TRIES: usize = 8;

impl<P: Platform> Locked<'_, P> {
    /// A record from the cache, or from the mappings that could not go back, whose mapping fits.
    pub(crate) fn reuse_large(&mut self, len: usize, align: usize) -> Option<*mut Record> {
        // What is inaccessible waits for its turn to go back.
        if PRESET.seal_freed_large {
            return None;
        }
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
            unsafe { self.trim_mapping(record, len) };
            return Some(record);
        }
        let mut link = &raw mut self.provider.large.stuck;
        // SAFETY: links and records in the list are alive.
        unsafe {
            while !(*link).is_null() {
                let record = *link;
                if (*record).len >= len && (*record).base.addr() % align == 0 {
                    *link = (*record).next;
                    self.trim_mapping(record, len);
                    return Some(record);
                }
                link = &raw mut (*record).next;
            }
        }
        None
    }

    /// Puts what a record has beyond `len` bytes back into the cache, if that is much. (A guard page
    /// stands behind the whole mapping only: no splitting then.)
    ///
    /// # Safety
    /// The record is in no list.
    unsafe fn trim_mapping(&mut self, record: *mut Record, len: usize) {
        // SAFETY: by contract.
        unsafe {
            if (*record).len - len > len / 8 && !PRESET.guard_pages {
                self.split(record, len);
            }
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
                let (platform, len) = (&self.process.platform, (*record).len);
                if !platform.close(base, len) && !platform.purge(base, len) {
                    base.as_ptr().write_bytes(0, len);
                }
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
    /// (Should the system know them as two, it refuses to resize them: then realloc copies.)
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
