//! Chunks come from the system, by the break or a mapping, and go back.

use crate::chunk::{count_set, Chunk, META_END, PAGES};
use crate::config::{CHUNK, RUN_PAGE};
use crate::pages::{Access, Platform};
use crate::provider::Locked;
use crate::provider::FIRST_OPEN;
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
        self.process.enter_chunk(chunk.addr());
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
        if !self.process.is_address(start.checked_add(CHUNK)?) || !platform.move_break(start + open)
        {
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
            Some(chunk)
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
            let Some(at) = self.reserve_aligned(span) else {
                continue;
            };
            let open = need.max(data + FIRST_OPEN).min(span - page_size);
            let open = open.next_multiple_of(page_size);
            // SAFETY: [at, at + span) is our new reservation. The page before the data and the
            // last page stay inaccessible.
            unsafe {
                let first_data = NonNull::new_unchecked(at.as_ptr().add(data));
                if platform.protect(at, data - page_size, Access::ReadWrite)
                    && platform.protect(first_data, open - data, Access::ReadWrite)
                {
                    return Some(Chunk::create(at.as_ptr(), data, open, span - page_size));
                }
                let reserved = at.as_ptr().sub(page_size);
                self.give_back(NonNull::new_unchecked(reserved), span + page_size);
            }
        }
        None
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

    /// Gives an unused chunk's address space back. False: the system refused, it stays in use.
    ///
    /// # Safety
    /// No cell and no run of the chunk is in use.
    pub(crate) unsafe fn unmap_chunk(&mut self, chunk: *mut Chunk) -> bool {
        // SAFETY: by contract; neighbours in the list exist.
        unsafe {
            let header = &mut *chunk;
            let page = self.process.platform.page_size();
            let span = header.limit as usize + page;
            // With the closed page before it, see `reserve_aligned`.
            let reserved = NonNull::new_unchecked(chunk.cast::<u8>().sub(page));
            let dirty = count_set(&header.dirty, 0, PAGES);
            let (next, prev) = (header.next, header.prev);
            self.process.leave_chunk(chunk.addr());
            if !self.process.platform.unmap(reserved, span + page) {
                self.process.enter_chunk(chunk.addr());
                return false;
            }
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
