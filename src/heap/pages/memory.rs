//! The lock, and everything that its holder has in hand.

use crate::base::decay::Kept;
use crate::base::fault::{raise, Found};
use crate::base::places::places;
use crate::base::platform::Platform;
use crate::base::random::Secrets;
use crate::base::zeroed::Zeroed;
use crate::layout::pagemap::Pagemap;
use crate::pages::extent::Large;
use crate::pages::no_bytes::NoBytes;
use crate::pages::page_heap::{PageHeap, Pages, System};
use core::cell::UnsafeCell;
use core::mem::offset_of;

/// What the lock protects in this layer.
struct Protected {
    pages: PageHeap,
    large: Large,
    no_bytes: NoBytes,
}

// SAFETY: numbers, pointers, and references behind an Option; and the proof that the lock is held,
// which `lock` lends with the page heap.
unsafe impl Zeroed for Protected {}

/// Memory in pages, and the lock over it.
#[repr(C)]
pub struct Memory<P> {
    protected: UnsafeCell<Protected>,
    /// What needs no lock.
    pub system: System<P>,
}

// SAFETY: the cell is reached by `lock` only, which excludes other threads.
unsafe impl<P: Sync> Sync for Memory<P> {}

/// The lock, held: its holder has the objects under it in hand. Dropped, it is released.
pub struct Locked<'a, P: Platform> {
    /// Chunks and runs.
    pub pages: Pages<'a, P>,
    /// Large blocks.
    pub large: &'a mut Large,
    /// Blocks of no bytes.
    pub no_bytes: &'a mut NoBytes,
}

impl<P: Platform> Drop for Locked<'_, P> {
    fn drop(&mut self) {
        self.pages.platform().unlock();
    }
}

impl<P> Memory<P> {
    /// Where its fields are: of the page heap the first chunk, pages in use, free dirty pages; those
    /// of large blocks, whole; of blocks of no bytes closed pages and live blocks; canaries and keys.
    pub const FIELDS: [usize; 8] = {
        let [chunks, used, large, closed, live] = places!(Protected:
            pages.chunks, pages.used_pages, large, no_bytes.closed, no_bytes.live);
        let dirty = offset_of!(Protected, pages.dirty) + Kept::AMOUNT;
        let secrets = offset_of!(Self, system.secrets);
        let [canaries, keys] = Secrets::FIELDS;
        [
            chunks,
            used,
            dirty,
            large,
            closed,
            live,
            secrets + canaries,
            secrets + keys,
        ]
    };
}

impl<P: Platform> Memory<P> {
    /// No memory. All bytes are zero, if the platform's are.
    pub const fn new(platform: P) -> Self {
        Memory {
            protected: UnsafeCell::new(Protected::ZERO),
            system: System {
                platform,
                secrets: Secrets::ZERO,
                pagemap: Pagemap::ZERO,
            },
        }
    }

    /// Takes the lock.
    pub fn lock(&self) -> Locked<'_, P> {
        self.system.platform.lock();
        self.held()
    }

    /// Takes the lock if it comes free within some 20 ms. For callers that may have interrupted its
    /// holder.
    pub fn try_lock(&self) -> Option<Locked<'_, P>> {
        let platform = &self.system.platform;
        let begin = platform.clock();
        while !platform.try_lock() {
            if platform.clock().wrapping_sub(begin) > 20 {
                return None;
            }
            core::hint::spin_loop();
        }
        Some(self.held())
    }

    /// What the lock protects. The caller has just taken it.
    fn held(&self) -> Locked<'_, P> {
        // SAFETY: the lock excludes other users of the cell until `Locked` is dropped, and no
        // thread takes it twice.
        let protected = unsafe { &mut *self.protected.get() };
        Locked {
            pages: Pages {
                system: &self.system,
                state: &mut protected.pages,
            },
            large: &mut protected.large,
            no_bytes: &mut protected.no_bytes,
        }
    }

    /// Does `work` under the lock. A fault that it finds stops the process when the lock is
    /// released.
    #[inline(always)]
    pub fn locked<T>(&self, work: impl FnOnce(&mut Locked<'_, P>) -> Result<T, Found>) -> T {
        let done = work(&mut self.lock());
        raise(done)
    }

    /// Takes the lock if `locked` does not have it yet.
    #[inline(never)]
    pub fn lock_once<'a, 'b>(
        &'a self,
        locked: &'b mut Option<Locked<'a, P>>,
    ) -> &'b mut Locked<'a, P> {
        locked.get_or_insert_with(|| self.lock())
    }
}
