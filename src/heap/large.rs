//! Blocks above the largest class: a mapping each, a record out of band, and a bounded cache of
//! freed mappings.
//!
//! ```text
//! mapping: | block: n bytes | guard byte | rest of the page | (hardened: inaccessible page) |
//!          ^ base = block
//! ```

use crate::aligned::MAX_RUN_ALIGN;
use crate::config::{
    CHUNK, CLASSES, LARGE_CACHE_BYTES, LARGE_CACHE_ENTRIES, LARGE_CACHE_SHARE, PRESET,
};
use crate::fault::Found;
use crate::meta::Meta;
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;
use core::ptr::{self, NonNull};

/// Buckets that need no mapping.
const FIRST_BUCKETS: usize = 32;

/// calloc clears used mappings below this length, and takes new pages for longer ones.
const PURGE_LEAST: usize = 512 << 10;

/// Class that picks the guard byte of large blocks.
const GUARD: usize = CLASSES;

/// One mapping. It uses a meta's cell.
#[repr(C)]
pub struct Record {
    /// Next record in the bucket; in `stuck`, next of those.
    pub(crate) next: *mut Record,
    /// First byte of the mapping and of the block.
    pub(crate) base: *mut u8,
    /// Bytes of the mapping that may be used.
    pub(crate) len: usize,
    /// Bytes of the block.
    pub(crate) n: usize,
    /// Count of frees when it was cached.
    pub(crate) stamp: u32,
    /// Whether all bytes are zero, the guard aside.
    pub(crate) fresh: bool,
    /// Whether calloc asked for the block and took new pages: the next one would do so, too.
    pub(crate) cleared: bool,
}

/// Records of live blocks by address, and freed mappings. Provider lock.
pub struct Large {
    first: [*mut Record; FIRST_BUCKETS],
    /// More buckets; null while `first` is enough.
    more: *mut *mut Record,
    /// Their number, a power of two.
    more_buckets: usize,
    /// Live blocks and their bytes.
    pub live: usize,
    /// See `live`.
    pub live_bytes: usize,
    /// Freed mappings, oldest first.
    pub(crate) cache: [*mut Record; LARGE_CACHE_ENTRIES],
    /// Entries of `cache` in use.
    pub cached: usize,
    /// Their bytes.
    pub cached_bytes: usize,
    /// The fewest there were since `settle` looked last.
    pub(crate) least_cached: usize,
    /// Bytes unmapped since then, less those that were wanted again.
    pub(crate) gone: usize,
    /// Bytes that were unmapped and soon wanted again: what the cache should have kept.
    pub(crate) missed: usize,
    /// Frees since a block was made.
    pub(crate) row: u32,
    /// Mappings that the system refused to take back.
    pub(crate) stuck: *mut Record,
    /// Frees so far.
    pub(crate) frees: u32,
}

impl Large {
    /// Nothing yet.
    pub const fn new() -> Self {
        Large {
            first: [ptr::null_mut(); FIRST_BUCKETS],
            more: ptr::null_mut(),
            more_buckets: 0,
            live: 0,
            live_bytes: 0,
            cache: [ptr::null_mut(); LARGE_CACHE_ENTRIES],
            cached: 0,
            cached_bytes: 0,
            least_cached: 0,
            gone: 0,
            missed: 0,
            row: 0,
            stuck: ptr::null_mut(),
            frees: 0,
        }
    }

    /// Number of buckets.
    fn buckets(&self) -> usize {
        if self.more.is_null() {
            FIRST_BUCKETS
        } else {
            self.more_buckets
        }
    }

    /// The bucket of an address.
    fn bucket(&mut self, address: usize) -> *mut *mut Record {
        // Fibonacci hashing of the page number (Knuth, vol. 3, 6.4).
        let hash = (address as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = hash as usize & (self.buckets() - 1);
        if self.more.is_null() {
            &raw mut self.first[index]
        } else {
            self.more.wrapping_add(index)
        }
    }

    /// The link that leads to the record of the live block at `address`.
    fn link_to(&mut self, address: usize) -> Option<*mut *mut Record> {
        let mut link = self.bucket(address);
        // SAFETY: links and records in buckets are alive.
        unsafe {
            while !(*link).is_null() {
                if (**link).base.addr() == address {
                    return Some(link);
                }
                link = &raw mut (**link).next;
            }
        }
        None
    }

    /// The record of the live block at `address`.
    fn find(&mut self, address: usize) -> Option<&mut Record> {
        let link = self.link_to(address)?;
        // SAFETY: found records are alive.
        Some(unsafe { &mut **link })
    }

    /// Enters a record of a live block.
    ///
    /// # Safety
    /// The record is complete and in no list.
    unsafe fn insert(&mut self, record: *mut Record) {
        // SAFETY: by contract.
        unsafe {
            let bucket = self.bucket((*record).base.addr());
            (*record).next = *bucket;
            *bucket = record;
            self.live += 1;
            self.live_bytes += (*record).len;
        }
    }

    /// Takes the record that a link leads to out.
    ///
    /// # Safety
    /// `link_to` gave the link.
    unsafe fn unlink(&mut self, link: *mut *mut Record) -> *mut Record {
        // SAFETY: found links and records are alive.
        unsafe {
            let record = *link;
            *link = (*record).next;
            self.live -= 1;
            self.live_bytes -= (*record).len;
            record
        }
    }

    /// Takes entry `index` out of the cache.
    pub(crate) fn uncache(&mut self, index: usize) -> *mut Record {
        let record = self.cache[index];
        self.cache.copy_within(index + 1..self.cached, index);
        self.cached -= 1;
        // SAFETY: cached records are alive.
        self.cached_bytes -= unsafe { (*record).len };
        self.least_cached = self.least_cached.min(self.cached_bytes);
        record
    }

    /// Takes note of new memory for a block: so much of it was given back too early. Never more
    /// than what is live with that block.
    pub(crate) fn miss(&mut self, bytes: usize) {
        let missed = self.gone.min(bytes);
        self.gone -= missed;
        if missed > 0 {
            self.missed = (self.missed + missed).min(self.live_bytes + bytes);
        }
    }

    /// Bytes that the cache may hold now.
    pub(crate) fn cache_bound(&self) -> usize {
        // A program that frees and frees goes down from its peak.
        let missed = self.missed >> self.row.saturating_sub(2).min(usize::BITS - 1);
        missed.max(LARGE_CACHE_BYTES + self.live_bytes / LARGE_CACHE_SHARE)
    }
}

impl<P: Platform> Process<P> {
    /// A block of `n` bytes, more than a slot holds, at a multiple of `align`. Null, and errno,
    /// when memory is out or n exceeds PTRDIFF_MAX.
    pub(crate) fn large_alloc(&self, n: usize, align: usize) -> *mut u8 {
        if n <= isize::MAX as usize {
            let block = self.map_or_run(n, align);
            if !block.is_null() {
                return block;
            }
            // What is retained may be just what the system lacks, but a size that is out of all
            // proportion to it is not worth giving it up.
            let heap = self.heap();
            let worthwhile = n / 2 <= self.lock().retained();
            if worthwhile && !self.is_empty_heap(heap) {
                // SAFETY: the thread's own heap.
                unsafe { self.trim(heap) };
            } else if worthwhile {
                self.lock().release_retained();
            }
            let block = self.map_or_run(n, align);
            if !block.is_null() {
                return block;
            }
        }
        self.platform.out_of_memory();
        ptr::null_mut()
    }

    /// A large block in a mapping of its own; where the system gives none, in a run of pages that
    /// a chunk may still have. Null when there is neither.
    fn map_or_run(&self, n: usize, align: usize) -> *mut u8 {
        if let Some(block) = self.lock().make_large(n, align) {
            return block;
        }
        if n > CHUNK / 2 || align > MAX_RUN_ALIGN {
            return ptr::null_mut();
        }
        self.run_alloc(align, n)
    }

    /// Frees the large block that starts at `block`. False: none does.
    ///
    /// # Safety
    /// The program does not use the block any more.
    pub(crate) unsafe fn large_free(&self, block: *mut u8) -> bool {
        self.locked(|locked| {
            let Some(link) = locked.provider.large.link_to(block.addr()) else {
                return Ok(false);
            };
            // SAFETY: by contract; a block that is found damaged stays alive.
            unsafe {
                self.check_large_end(*link)?;
                let record = locked.provider.large.unlink(link);
                locked.retire_large(record);
            }
            Ok(true)
        })
    }

    /// Bytes of the large block that starts at `block`, if one does.
    pub(crate) fn large_length(&self, block: *mut u8) -> Option<usize> {
        let locked = self.lock();
        let record = locked.provider.large.find(block.addr())?;
        Some(record.n)
    }

    /// Whether `block` lies in a freed mapping that is still cached, at a page's start.
    pub(crate) fn large_was_freed(&self, block: *mut u8) -> bool {
        let locked = self.lock();
        let large = &*locked.provider;
        // SAFETY: cached records are alive.
        large.large.cache[..large.large.cached]
            .iter()
            .any(|r| unsafe { block.addr().wrapping_sub((**r).base.addr()) < (**r).len })
            && block.addr() % self.platform.page_size() == 0
    }

    /// Whether the large block at `block`, fresh from malloc, is all zero. A long one is made so:
    /// who asks would else write all of it, and tables are often sparse.
    pub(crate) fn large_is_zero(&self, block: *mut u8) -> bool {
        let locked = self.lock();
        let Some(record) = locked.provider.large.find(block.addr()) else {
            return false;
        };
        record.cleared = record.len >= PURGE_LEAST;
        if !record.fresh && record.cleared {
            // SAFETY: the block holds nothing yet but its guard.
            unsafe {
                let base = NonNull::new_unchecked(record.base);
                record.fresh = self.platform.purge(base, record.len);
                self.write_large_guard(record);
            }
        }
        record.fresh
    }

    /// Resizes the large block at `block` to `n` bytes, more than a slot holds, perhaps moving its
    /// pages. Null: it is unchanged, or no large block is there.
    ///
    /// # Safety
    /// The program's use of the old address ends on success.
    pub(crate) unsafe fn large_resize(&self, block: *mut u8, n: usize) -> *mut u8 {
        self.locked(|locked| {
            let Some(link) = locked.provider.large.link_to(block.addr()) else {
                return Ok(ptr::null_mut());
            };
            // SAFETY: the record is of a live block, and of the same one when it is entered again.
            unsafe {
                let record = *link;
                self.check_large_end(record)?;
                let Some(len) = self.mapping_len(n) else {
                    return Ok(ptr::null_mut());
                };
                // What grows stays in its mapping while that holds it.
                if len > (*record).len || len < (*record).len && n < (*record).n {
                    locked.provider.large.unlink(link);
                    let resized = locked.resize_mapping(record, len);
                    locked.provider.large.insert(record);
                    if !resized {
                        return Ok(ptr::null_mut());
                    }
                }
                (*record).n = n;
                (*record).fresh = false;
                self.write_large_guard(record);
                Ok((*record).base)
            }
        })
    }

    /// Bytes of a mapping that holds a block of `n` bytes and its guard. None if it would be
    /// longer than PTRDIFF_MAX, which libc maps for nobody.
    fn mapping_len(&self, n: usize) -> Option<usize> {
        let page_size = self.platform.page_size();
        let most = isize::MAX as usize - page_size - self.large_margin();
        (n < most).then(|| (n + 1).next_multiple_of(page_size))
    }

    /// Bytes of the inaccessible part behind each mapping.
    pub(crate) fn large_margin(&self) -> usize {
        if PRESET.guard_pages {
            self.platform.page_size()
        } else {
            0
        }
    }

    /// Writes the guard byte behind a large block.
    ///
    /// # Safety
    /// The record is of a live block.
    unsafe fn write_large_guard(&self, record: *mut Record) {
        // SAFETY: n is below the mapping's length.
        unsafe { self.write_guards(GUARD, (*record).base.add((*record).n), 1) };
    }

    /// Err if the byte behind a large block was written.
    ///
    /// # Safety
    /// The record is of a live block.
    unsafe fn check_large_end(&self, record: *mut Record) -> Result<(), Found> {
        // SAFETY: n is below the mapping's length.
        unsafe { self.check_guards(GUARD, (*record).base.add((*record).n), 1) }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// A large block.
    fn make_large(&mut self, n: usize, align: usize) -> Option<*mut u8> {
        self.process.draw_secrets();
        let len = self.process.mapping_len(n)?;
        let record = match self.reuse_large(len, align) {
            Some(record) => record,
            None => self.map_large(len, align)?,
        };
        // SAFETY: the record's mapping is ours and holds n bytes and the guard.
        unsafe {
            (*record).n = n;
            (*record).cleared = false;
            self.process.write_large_guard(record);
            self.provider.large.insert(record);
            self.provider.large.row = 0;
            self.grow_buckets();
            Some((*record).base)
        }
    }

    /// A record with a fresh mapping.
    fn map_large(&mut self, len: usize, align: usize) -> Option<*mut Record> {
        self.provider.large.miss(len);
        let margin = self.process.large_margin();
        let record = self.any_cell()?.cast::<Record>();
        let mapped = self.map_aligned(len + margin, align, 0);
        // SAFETY: the cell is ours; the mapping is new.
        unsafe {
            let Some(at) = mapped else {
                self.return_cell(record.cast());
                return None;
            };
            record.write(Record {
                next: ptr::null_mut(),
                base: at.as_ptr(),
                len,
                n: 0,
                stamp: 0,
                fresh: true,
                cleared: false,
            });
            self.close_margin(record);
        }
        Some(record)
    }

    /// Resizes a record's mapping to `len` bytes, another number than it has. If an inaccessible
    /// page stands behind it, it moves to grow, as that page is in the way; a new one is closed.
    ///
    /// # Safety
    /// The record is in no list, its mapping live.
    unsafe fn resize_mapping(&mut self, record: *mut Record, len: usize) -> bool {
        let margin = self.process.large_margin();
        let platform = &self.process.platform;
        // SAFETY: by contract; what goes lies behind the block, or is the old margin.
        unsafe {
            let base = NonNull::new_unchecked((*record).base);
            let old = (*record).len;
            if len < old {
                // First what is behind the new margin: if it may not go, nothing has changed, and
                // the block, smaller now, keeps its mapping.
                if !platform.unmap(base.add(len + margin), old - len) {
                    return true;
                }
            } else {
                if margin != 0 && !self.may_owe(1) {
                    return false;
                }
                let platform = &self.process.platform;
                let Some(moved) = platform.remap(base, old, len + margin) else {
                    return false;
                };
                if margin != 0 && moved != base {
                    self.give_back(base.add(old), margin);
                }
                (*record).base = moved.as_ptr();
            }
            (*record).len = len;
            self.close_margin(record);
        }
        true
    }

    /// Makes the page behind a mapping inaccessible, if the preset says so. Refused, the block is
    /// still a good block.
    ///
    /// # Safety
    /// The mapping is the record's, and so is its margin.
    unsafe fn close_margin(&self, record: *mut Record) {
        let margin = self.process.large_margin();
        if margin != 0 {
            // SAFETY: by contract.
            unsafe {
                let end = NonNull::new_unchecked((*record).base.add((*record).len));
                self.process.platform.close(end, margin);
            }
        }
    }

    /// Doubles the buckets when chains get long. Without memory for it they stay long.
    fn grow_buckets(&mut self) {
        let large = &mut self.provider.large;
        if large.live <= 2 * large.buckets() || !self.may_owe(1) {
            return;
        }
        let large = &mut self.provider.large;
        let platform = &self.process.platform;
        let bytes = |count: usize| {
            (count * size_of::<*mut Record>()).next_multiple_of(platform.page_size())
        };
        let (old, old_count) = (large.more, large.buckets());
        let count = (8 * old_count).max(512);
        let Some(new) = platform.map(0, bytes(count)) else {
            return;
        };
        let old_first = large.first;
        large.more = new.as_ptr().cast();
        large.more_buckets = count;
        let old_buckets = if old.is_null() {
            old_first.as_ptr()
        } else {
            old.cast_const()
        };
        for index in 0..old_count {
            // SAFETY: the old buckets and their records are alive.
            unsafe {
                let mut record = *old_buckets.add(index);
                while !record.is_null() {
                    let next = (*record).next;
                    let bucket = large.bucket((*record).base.addr());
                    (*record).next = *bucket;
                    *bucket = record;
                    record = next;
                }
            }
        }
        let old_bytes = bytes(old_count);
        if let Some(old) = NonNull::new(old) {
            // SAFETY: nothing refers to the old buckets.
            unsafe { self.give_back(old.cast(), old_bytes) };
        }
    }

    /// Calls `each(base, n)` for every live large block.
    pub fn each_large(&mut self, mut each: impl FnMut(*mut u8, usize, usize)) {
        let large = &mut self.provider.large;
        for index in 0..large.buckets() {
            // SAFETY: buckets and records in them are alive.
            unsafe {
                let mut record = if large.more.is_null() {
                    large.first[index]
                } else {
                    *large.more.add(index)
                };
                while !record.is_null() {
                    each((*record).base, (*record).len, (*record).n);
                    record = (*record).next;
                }
            }
        }
    }
}

const _: () = assert!(size_of::<Record>() <= size_of::<Meta>());
