//! Chunks come from the system, by the break or a mapping, and go back.
//!
//! **Where the windows say that a chunk is, a header and a map can be read, for ever.** free and its
//! like look there without a lock, for any pointer; and it may be that of a live large block, whose
//! mapping shares the window with a chunk that another thread gives back at this moment. So of a
//! chunk that goes, the header and the map stay mapped (of 28 KiB, with a closed page on either side,
//! one page stays memory), and its window stays entered. The map is all zero then: each entry leads to the header's pseudo-meta.
//! The cells behind the map go with the data, since only other entries lead to them, and each such
//! entry keeps the chunk. The next chunk is made where one went, if what lay behind its map is free
//! again; so there are no more such places than were in use or in somebody's way at one time.

use crate::chunk::{self, Chunk, MAP_END, META_END, PAGES};
use crate::config::{CHUNK, RUN_PAGE};
use crate::pages::{Access, Platform};
use crate::provider::Locked;
use crate::provider::FIRST_OPEN;
use crate::windows::Leaf;
use core::ptr::{self, NonNull};

impl<P: Platform> Locked<'_, P> {
    /// A new chunk with room for a run of `pages`, from the break or from a mapping.
    pub fn make_chunk(&mut self, pages: usize, align: usize) -> Option<*mut Chunk> {
        let page_size = self.process.platform.page_size();
        let data = META_END.next_multiple_of(page_size) + page_size;
        let data = data.next_multiple_of(RUN_PAGE);
        let need = (data + pages * RUN_PAGE).next_multiple_of(align * RUN_PAGE)
            + if align > 1 { pages * RUN_PAGE } else { 0 };
        if need > CHUNK - page_size {
            return None;
        }
        let chunk = self
            .chunk_from_break(data, need)
            .or_else(|| self.map_chunk(data, need))?;
        let provider = &mut *self.provider;
        provider.sequence += 1;
        // SAFETY: the chunk is new and ours; `last` is null or in the list.
        unsafe {
            (*chunk).sequence = provider.sequence;
            (*chunk).prev = provider.last;
            if provider.last.is_null() {
                provider.chunks = chunk;
            } else {
                (*provider.last).next = chunk;
            }
            if !(*chunk).is_break {
                provider.idle_chunks += 1;
            }
        }
        provider.last = chunk;
        for roomy in provider.roomy.iter_mut().filter(|roomy| roomy.is_null()) {
            *roomy = chunk;
        }
        Some(chunk)
    }

    /// The first chunk, on the heap segment that the kernel has ready: two calls and no mapping.
    fn chunk_from_break(&mut self, data: usize, need: usize) -> Option<*mut Chunk> {
        let platform = &self.process.platform;
        if core::mem::replace(&mut self.provider.break_tried, true) {
            return None;
        }
        let now = platform.program_break();
        if now == 0 {
            return None;
        }
        let start = now.checked_next_multiple_of(CHUNK)?;
        let open = need
            .max(data + FIRST_OPEN)
            .next_multiple_of(platform.page_size());
        let limit = CHUNK - platform.page_size();
        if !platform.move_break(start.checked_add(open)?) {
            return None;
        }
        let at = ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the kernel just gave us [start, start + open), all zero. The page before the
        // data becomes a guard; without it (should that fail) the chunk works all the same.
        unsafe {
            let guard = NonNull::new_unchecked(at.add(data - platform.page_size()));
            platform.protect(guard, platform.page_size(), Access::None);
            let chunk = Chunk::create(at, data, open, limit);
            (*chunk).is_break = true;
            self.enter(chunk).then_some(chunk)
        }
    }

    /// A chunk from a reservation. The first one reserves a quarter only, for processes under a
    /// tight limit of address space; later ones take what there is.
    fn map_chunk(&mut self, data: usize, need: usize) -> Option<*mut Chunk> {
        let platform = &self.process.platform;
        let page_size = platform.page_size();
        let small = (CHUNK / 4).max((need + page_size).next_multiple_of(page_size));
        let half = small.max(CHUNK / 2);
        let spans: &[usize] = if self.provider.chunks.is_null() {
            &[small]
        } else {
            &[CHUNK, half, small]
        };
        for &span in spans {
            if !self.may_owe(1) {
                return None;
            }
            let old = self.reserve_vacant(span);
            let Some(at) = old.or_else(|| self.reserve_aligned(span)) else {
                continue;
            };
            let open = need.max(data + FIRST_OPEN).min(span - page_size);
            let open = open.next_multiple_of(page_size);
            // SAFETY: [at, at + span) is our new reservation, or was a chunk's and is so again. The
            // page before the data and the last page stay inaccessible.
            unsafe {
                let first_data = NonNull::new_unchecked(at.as_ptr().add(data));
                if platform.protect(at, data - page_size, Access::ReadWrite)
                    && platform.protect(first_data, open - data, Access::ReadWrite)
                {
                    let chunk = Chunk::create(at.as_ptr(), data, open, span - page_size);
                    if self.enter(chunk) {
                        return Some(chunk);
                    }
                }
                let mut reserved = at.sub(page_size);
                if old.is_some() {
                    self.add_vacant(at.as_ptr().cast());
                    reserved = at.add(self.kept());
                }
                let end = at.add(span);
                self.give_back(reserved, end.addr().get() - reserved.addr().get());
            }
        }
        None
    }

    /// Bytes that stay of a chunk that goes: up to the end of a closed page behind the map.
    pub(crate) fn kept(&self) -> usize {
        let page = self.process.platform.page_size();
        MAP_END.next_multiple_of(page) + page
    }

    /// Enters a chunk of which only header and map are left.
    ///
    /// # Safety
    /// It is such a chunk, in no list.
    unsafe fn add_vacant(&mut self, chunk: *mut Chunk) {
        // SAFETY: by contract; the lock makes its header ours.
        unsafe { (*chunk).next = self.provider.vacant };
        self.provider.vacant = chunk;
    }

    /// `span` bytes of address space where a chunk was, unused behind its map.
    fn reserve_vacant(&mut self, span: usize) -> Option<NonNull<u8>> {
        let (kept, mut before) = (self.kept(), ptr::null_mut::<Chunk>());
        let mut chunk = self.provider.vacant;
        while !chunk.is_null() && self.may_owe(1) {
            let place = chunk.addr() + kept;
            let at = (self.process.platform).map(place, span - kept, Access::None)?;
            // SAFETY: headers of vacant chunks stay, and the lock makes them ours; just mapped and
            // unused.
            unsafe {
                let next = (*chunk).next;
                if at.addr().get() == place {
                    if before.is_null() {
                        self.provider.vacant = next;
                    } else {
                        (*before).next = next;
                    }
                    return NonNull::new(chunk.cast());
                }
                self.give_back(at, span - kept);
                (before, chunk) = (chunk, next);
            }
        }
        None
    }

    /// Enters a new chunk's window: from now on its map is looked at. False: no room for a leaf.
    fn enter(&mut self, chunk: *mut Chunk) -> bool {
        let windows = &self.process.windows;
        windows.enter(chunk.addr(), || self.metadata(size_of::<Leaf>()))
    }

    /// `span` bytes of inaccessible address space at a chunk's alignment, behind one more page that
    /// stays so: a mapping of somebody else may end there and must not overflow into the header.
    fn reserve_aligned(&mut self, span: usize) -> Option<NonNull<u8>> {
        let page = self.process.platform.page_size();
        let len = span + page;
        // Below the last chunk there is often room, as the kernel maps downwards: one call.
        // Else the kernel says where there is room, and an aligned place near it is tried: unlike
        // mapping more and trimming that takes no more address space than the chunk.
        let mut hint = match self.provider.last.addr() {
            0 => 0,
            last => last.wrapping_sub(CHUNK + page),
        };
        for _ in 0..2 {
            if !self.may_owe(1) {
                return None;
            }
            let Some(at) = self.process.platform.map(hint, len, Access::None) else {
                continue;
            };
            let first = at.addr().get() + page;
            // SAFETY: within the mapping; or just mapped and unused.
            unsafe {
                if first % CHUNK == 0 {
                    return Some(at.add(page));
                }
                self.give_back(at, len);
            }
            hint = (first & !(CHUNK - 1)) - page;
        }
        let at = self.map_aligned(len, CHUNK, page, Access::None)?;
        // SAFETY: within the mapping.
        Some(unsafe { at.add(page) })
    }

    /// Gives an unused chunk back but for its header and map. False: the system refused, it stays in
    /// use.
    ///
    /// # Safety
    /// No cell and no run of the chunk is in use.
    pub(crate) unsafe fn vacate(&mut self, chunk: *mut Chunk) -> bool {
        // SAFETY: by contract; neighbours in the list exist.
        unsafe {
            let header = &mut *chunk;
            let platform = &self.process.platform;
            let (page, kept) = (platform.page_size(), self.kept());
            let at = NonNull::new_unchecked(chunk.cast::<u8>());
            if !platform.unmap(at.add(kept), header.limit as usize + page - kept) {
                return false;
            }
            // Another mapping may come to lie behind: an underflow should not reach the map. The map
            // is zero before and after its pages go. Either works all the same if it is refused.
            let last = kept - page;
            platform.protect(at.add(last), page, Access::None);
            if last > page {
                platform.purge(at.add(page), last - page);
            }
            let dirty = chunk::set(&mut header.dirty, 0, PAGES, false);
            let (next, prev) = (header.next, header.prev);
            self.forget_dirty(dirty);
            self.provider.idle_chunks -= 1;
            let before = if prev.is_null() {
                &mut self.provider.chunks
            } else {
                &mut (*prev).next
            };
            *before = next;
            if next.is_null() {
                self.provider.last = prev;
            } else {
                (*next).prev = prev;
            }
            for roomy in self
                .provider
                .roomy
                .iter_mut()
                .filter(|roomy| **roomy == chunk)
            {
                *roomy = next;
            }
            self.add_vacant(chunk);
        }
        true
    }

    /// Maps `len` bytes of which the one at `lead` (whole pages) lies at a multiple of `align`, by
    /// mapping more and giving the ends back.
    pub fn map_aligned(
        &mut self,
        len: usize,
        align: usize,
        lead: usize,
        access: Access,
    ) -> Option<NonNull<u8>> {
        let platform = &self.process.platform;
        let page_size = platform.page_size();
        debug_assert!(lead % page_size == 0);
        if align <= page_size {
            return platform.map(0, len, access);
        }
        if !self.may_owe(2) {
            return None;
        }
        let platform = &self.process.platform;
        let total = len.checked_add(align - page_size)?;
        if total > isize::MAX as usize {
            return None;
        }
        let at = platform.map(0, total, access)?;
        let first = at.addr().get() + lead;
        let head = first.next_multiple_of(align) - first;
        let rest = total - head - len;
        // SAFETY: the parts are within the mapping just made and unused.
        unsafe {
            let middle = at.add(head);
            if head != 0 {
                self.give_back(at, head);
            }
            if rest != 0 {
                self.give_back(middle.add(len), rest);
            }
            Some(middle)
        }
    }
}
