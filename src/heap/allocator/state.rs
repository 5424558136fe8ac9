//! The allocator of one process.

use crate::base::config::RUN_PAGE;
use crate::base::platform::Platform;
use crate::heap::heap::{Body, Heaps, MyHeap};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;

/// The allocator of one process: a static in the libraries, many in tests.
#[repr(C)]
pub struct Allocator<P: Platform> {
    /// All heaps, and the memory under them.
    pub(crate) heaps: Heaps<P>,
    /// Room for the body of the first thread's heap, from a page's start on.
    main: MainRoom,
}

/// A heap's body and the way to a page's start. Zero, as a heap without groups is.
#[repr(C, align(64))]
struct MainRoom(UnsafeCell<MaybeUninit<[u8; size_of::<Body>() + RUN_PAGE]>>);

// SAFETY: the room is only ever used as the body that `main_body` gives.
unsafe impl<P: Platform> Sync for Allocator<P> {}

impl<P: Platform> Allocator<P> {
    /// An allocator without any memory. All its bytes are zero (if the platform's are): a static
    /// one takes no room in the file.
    pub const fn new(platform: P) -> Self {
        Allocator {
            heaps: Heaps::new(platform),
            main: MainRoom(UnsafeCell::new(MaybeUninit::zeroed())),
        }
    }

    /// Readies an allocator in zero memory, without moving it over the stack.
    ///
    /// # Safety
    /// `allocator` is zero and valid for writes.
    #[cfg(any(test, feature = "model"))]
    pub(crate) unsafe fn init_for_test(allocator: *mut Self, platform: P) {
        // SAFETY: the caller gives the memory; zero is right for all but this.
        unsafe { (&raw mut (*allocator).heaps.memory.system.platform).write(platform) };
    }

    /// What tells the calling thread's heap from others.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn word(&self) -> usize {
        self.platform().heap_field()
    }

    /// The system underneath.
    pub fn platform(&self) -> &P {
        &self.heaps.memory.system.platform
    }

    /// The calling thread's heap, perhaps the empty one.
    #[inline(always)]
    pub(crate) fn mine(&self) -> MyHeap<'_, P> {
        self.heaps.mine()
    }

    /// Zero memory for the body of the first thread's heap.
    pub(crate) fn main_body(&self) -> *mut Body {
        let room = self.main.0.get().cast::<u8>();
        room.map_addr(|at| at.next_multiple_of(RUN_PAGE)).cast()
    }

    /// Sets errno; null.
    #[cold]
    #[inline(never)]
    pub fn out_of_memory(&self) -> *mut u8 {
        self.platform().out_of_memory();
        ptr::null_mut()
    }
}
