//! Where memory from the system lies: chunks in windows behind the program break, mappings apart or
//! at a multiple, and the pool of memory for heaps and tables.

use crate::base::config::{ADDRESS_BITS, CHUNK, PRESET};
use crate::base::platform::Platform;
use crate::layout::chunk::CELL;
use crate::pages::page_heap::Pages;
use core::ptr::{self, NonNull};

/// Windows that are tried for a chunk, each four times as far away as the last one.
const TRIES: usize = 4;

/// Windows from one chunk to the next at most, where they are kept apart.
const DISTANCES: usize = 64;

/// No window behind the break is fit for a chunk.
const NOWHERE: usize = usize::MAX;

/// Bytes of addresses without memory that are left below the mapping of each large block, and with
/// that above the next one.
const APART: usize = 1 << 20;
/// Addresses that such mappings go through before they begin at the top again, and how far at least
/// that is below the stack. Where a machine has fewer addresses, a part of those below it.
const WAY: usize = 1 << if usize::BITS == 64 { 40 } else { 28 };
const FAR: usize = WAY / 32;

impl<P: Platform> Pages<'_, P> {
    /// `len` bytes at the start of a new window.
    pub fn map_window(&mut self, len: usize) -> Option<*mut u8> {
        let mut way = CHUNK;
        for _ in 0..TRIES {
            let at = self.next_window();
            if at == NOWHERE {
                break;
            }
            if self.map_at(at, len) {
                self.next_window = at.wrapping_add(self.distance());
                return Some(ptr::with_exposed_provenance_mut(at));
            }
            if self.no_memory {
                break;
            }
            self.next_window = at.wrapping_add(way);
            way *= 4;
        }
        None
    }

    /// How far the next window is from one that was just taken: a random distance, where the preset
    /// keeps classes apart and there are addresses to spare.
    fn distance(&self) -> usize {
        if PRESET.classes_apart && usize::BITS == 64 {
            CHUNK * (1 + self.choose(DISTANCES))
        } else {
            CHUNK
        }
    }

    /// Where the next window is. The first one leaves the break room: somebody else may move it, or
    /// we do. Under the stack, where programs that are debugged may have their break, there is
    /// none, nor beyond.
    fn next_window(&mut self) -> usize {
        if self.next_window == 0 {
            let (now, here) = (self.platform().program_break(), (&raw const self).addr());
            let mut first = (now.wrapping_add(P::BREAK_ROOM) | (CHUNK - 1)).wrapping_add(1);
            let most = usize::MAX >> (usize::BITS - ADDRESS_BITS);
            if cfg!(target_arch = "riscv64") {
                // With five levels of page tables Linux 5.18 to 6.5 has programs that are moved
                // (PIE) beyond what the pagemap has room for, and the stack at 2^56.
                first &= most;
            }
            let fit = now != 0 && first <= most && here.wrapping_sub(first) > CHUNK << 8;
            self.next_window = if fit { first } else { NOWHERE };
        }
        self.next_window
    }

    /// The address of a page far from the stack, and with it from what the system places by itself,
    /// at random. 0, no wish, on 32 bits, which have no addresses to spare.
    fn far(&self) -> usize {
        if usize::BITS < 64 {
            return 0;
        }
        let page = self.platform().page_size();
        let random = (self.choose(1 << 16) << 16 | self.choose(1 << 16)) * page;
        let here = (&raw const self).addr();
        let far = FAR.min(here / 4);
        (here - far - random % far) & !(page - 1)
    }

    /// Where a mapping of `len` bytes for a large block should lie: far from what the system places
    /// by itself, so that nobody else comes to lie beside it, and below all such before it, so that
    /// addresses are used again late. That is a wish in the call that maps it, and costs none:
    /// where the system does not hear it, the mapping lies beside others. 0, no wish, on 32 bits,
    /// which have no addresses to spare.
    pub fn wish_apart(&mut self, len: usize) -> usize {
        if usize::BITS < 64 {
            return 0;
        }
        let page = self.platform().page_size();
        if self.apart_top == 0 {
            self.apart_top = self.far();
            self.apart_next = self.apart_top;
        } else if self.apart_top.wrapping_sub(self.apart_next) >= WAY.min(self.apart_top / 2) {
            self.apart_next = self.apart_top;
        }
        let at = self.apart_next.wrapping_sub(len);
        self.apart_next = at.wrapping_sub(APART + page);
        at
    }

    /// Maps `len` bytes of memory at `at`, where nothing is. False: somebody is there, or, as
    /// `no_memory` tells then, the system has no more.
    pub fn map_at(&mut self, at: usize, len: usize) -> bool {
        self.no_memory = true;
        if !self.may_owe(1) {
            return false;
        }
        let Some(got) = self.platform().map(at, len) else {
            return false;
        };
        self.no_memory = false;
        let there = got.addr().get() == at;
        // Chunks and the pool find it by its address.
        got.as_ptr().expose_provenance();
        if !there {
            // SAFETY: just mapped, and unused.
            unsafe { self.give_back(got, len) };
        }
        there
    }

    /// `len` bytes where the system has room, at a multiple of `align`, between inaccessible pages;
    /// in the hardened preset far from all else.
    pub fn map_elsewhere(&mut self, len: usize, align: usize) -> Option<*mut u8> {
        let page = self.platform().page_size();
        let wish = if PRESET.has_guard_pages() {
            self.far()
        } else {
            0
        };
        let at = self.map_aligned(wish, len + 2 * page, align, page)?;
        let inside = at.as_ptr().wrapping_add(page);
        shut(self.platform(), at.as_ptr(), page);
        shut(self.platform(), inside.wrapping_add(len), page);
        Some(inside)
    }

    /// Maps `len` bytes, at `wish` if they can be there, of which the one at `lead` (whole pages)
    /// lies at a multiple of `align`, by mapping more and giving the ends back.
    pub fn map_aligned(
        &mut self,
        wish: usize,
        len: usize,
        align: usize,
        lead: usize,
    ) -> Option<NonNull<u8>> {
        let page = self.platform().page_size();
        debug_assert!(lead % page == 0);
        if align <= page {
            return self.platform().map(wish, len);
        }
        let total = len.checked_add(align - page)?;
        if total > isize::MAX as usize || !self.may_owe(2) {
            return None;
        }
        let at = self.platform().map(wish, total)?;
        let first = at.addr().get() + lead;
        let head = first.next_multiple_of(align) - first;
        let behind = total - head - len;
        // SAFETY: both ends are within the mapping just made and unused.
        unsafe {
            let middle = at.add(head);
            if head != 0 {
                self.give_back(at, head);
            }
            if behind != 0 {
                self.give_back(middle.add(len), behind);
            }
            Some(middle)
        }
    }

    /// `bytes` of zero memory for ever, at a multiple of `align`, a cache line or a page: for
    /// heaps and their tables, which no overflow of a block should reach. They lie in windows of
    /// their own; in the hardened preset in mappings of their own between inaccessible pages, each
    /// at a random place.
    pub fn metadata(&mut self, bytes: usize, align: usize) -> Option<*mut u8> {
        let bytes = bytes.next_multiple_of(CELL);
        let page = self.platform().page_size();
        let skipped = self.pool.addr().next_multiple_of(align) - self.pool.addr();
        let mut needed = skipped + bytes;
        if self.pool_left < needed {
            let end = self.pool.addr() + self.pool_left;
            let mut more = (needed - self.pool_left).next_multiple_of(page);
            let apart = PRESET.has_guard_pages();
            if apart || end % CHUNK == 0 || !self.map_at(end, more) {
                needed = bytes;
                more = needed.next_multiple_of(page);
                self.no_memory = false;
                let pool = if apart { None } else { self.map_window(more) };
                self.pool = pool.or_else(|| self.map_elsewhere(more, page))?;
                self.pool_left = 0;
            }
            self.pool_left += more;
        }
        let end = self.pool.wrapping_add(needed);
        self.pool = end;
        self.pool_left -= needed;
        Some(end.wrapping_sub(bytes))
    }
}

/// Makes pages of ours, which nobody uses, inaccessible. If that is refused, what lies around them
/// works nevertheless.
pub fn shut<P: Platform>(platform: &P, at: *mut u8, len: usize) {
    if let Some(at) = NonNull::new(at) {
        // SAFETY: the pages are the caller's and lie in a mapping of ours.
        unsafe { platform.close(at, len) };
    }
}
