//! What a program no longer uses goes back by time.
//!
//! What is kept for the next burst is bounded by what is in use (`provider.rs`, `large_cache.rs`),
//! and a purge that comes too early waits for the next free. After a peak that next one may never
//! come. So slow paths of any kind look at the clock now and then; what lay unused from one look
//! to the next goes back. A program that frees and allocates in turn uses all of it in between, and
//! pays nothing.

use crate::config::{DIRTY_PAGES, PRESET, SETTLE_PAUSE};
use crate::heap::Heap;
use crate::pages::Platform;
use crate::process::Process;
use crate::provider::Locked;

impl<P: Platform> Process<P> {
    /// Gives back what came too early for a purge and waited for a free, and what lay unused.
    ///
    /// # Safety
    /// The caller may work on the heap.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn settle_heap(&self, heap: *mut Heap) {
        // SAFETY: by contract.
        unsafe {
            self.limit_idle(heap);
            if (*heap).nests_idle > (*heap).nests_limit {
                self.limit_nests(heap);
            }
            let mut locked = self.lock();
            locked.purge_if_due();
            locked.settle();
        }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Gives back what lay unused since the last look, if that was long enough ago.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle(&mut self) {
        let now = self.process.platform.clock();
        let provider = &mut *self.provider;
        if now.wrapping_sub(provider.settled) < SETTLE_PAUSE {
            return;
        }
        provider.settled = now;
        let idle = provider.least_dirty.saturating_sub(provider.kept_pages);
        // Most of them: a purge gives all back.
        if idle > DIRTY_PAGES / 4 && idle >= provider.dirty_pages / 2 {
            self.purge();
        }
        self.settle_cache();
        let provider = &mut *self.provider;
        provider.least_dirty = provider.dirty_pages;
    }

    /// The same for freed large mappings.
    fn settle_cache(&mut self) {
        let large = &mut self.provider.large;
        // Inaccessible ones are addresses only, and wait for a purpose.
        let idle = if PRESET.seal_freed_large {
            0
        } else {
            large.least_cached
        };
        let keep = large.cached_bytes - idle;
        large.missed = large.missed.saturating_sub(idle);
        while self.provider.large.cached_bytes > keep {
            let oldest = self.provider.large.uncache(0);
            // SAFETY: no list holds it.
            unsafe { self.unmap_large(oldest) };
        }
        let large = &mut self.provider.large;
        large.least_cached = large.cached_bytes;
        large.gone = 0;
    }
}
