//! malloc: class, reuse queue, slot.
//!
//! ```text
//! malloc             the class by table; its reuse queue holds more than it should leave:
//!   take_ready                                                            heap/take.rs
//!     Class::take        the oldest slot                                  heap/class.rs
//!     check_freed        the canaries of the tail that it had
//!   place              record and canary of the new block                 heap/take.rs
//! malloc_low         the queue is low:
//!   take_avail         a slot of the current group                        heap/take.rs
//! malloc_slow        it has none, or the queue is to be verified first:
//!   attach             a heap for a thread that has none                  thread.rs
//!   refill             queued groups → other threads' frees → new group   heap/refill.rs
//!     let_go             before long slots take new pages                 heap/put_back.rs
//!     new_group          granules of a span, or a run of pages            heap/groups.rs
//!       take_run           from chunks, or a new chunk                    pages/runs.rs, grow.rs
//!   trim               memory is out: what is kept for later goes         heap/rest.rs
//! malloc_large       above 131,071 bytes: a mapping, or a run             pages/large.rs
//! malloc_no_bytes    an address that nobody may touch                     pages/no_bytes.rs
//! ```

use crate::allocator::Allocator;
use crate::base::config::{PRESET, UNIT};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, MAX_SMALL};
use crate::heap::class::Class;
use crate::heap::heap::MyHeap;
use crate::layout::record::{FIRST_WIDE, MAX_FINE};
use crate::layout::slot::FreeSlot;

/// Largest block of a narrow class, in bytes.
pub(crate) const MAX_NARROW: usize = stride(FIRST_WIDE - 1) - PRESET.guard;

impl<P: Platform> Allocator<P> {
    /// A block of `n` bytes at a multiple of 16; null, and errno, when memory is out or n exceeds
    /// PTRDIFF_MAX. Blocks of 0 bytes are distinct.
    #[inline(always)]
    pub fn malloc(&self, n: usize) -> *mut u8 {
        // 0 wraps: blocks of no bytes go the way of the long ones, at no cost to the others.
        if n.wrapping_sub(1) >= MAX_NARROW {
            return self.malloc_wide(n);
        }
        self.malloc_small(true, n)
    }

    /// malloc of a block that no narrow class holds, or of none.
    #[inline(never)]
    fn malloc_wide(&self, n: usize) -> *mut u8 {
        if n > MAX_SMALL || n <= MAX_NARROW {
            return self.malloc_slow(n);
        }
        self.malloc_small(false, n)
    }

    /// malloc from a size class, whose kind `narrow` tells.
    #[inline(always)]
    fn malloc_small(&self, narrow: bool, n: usize) -> *mut u8 {
        let class = class_of(n);
        // The empty heap has no slots, and is only read.
        let heap = self.mine();
        let state = heap.class(class);
        if !state.has_ready() {
            return if narrow {
                self.malloc_low::<true>(n, state, heap)
            } else {
                self.malloc_low::<false>(n, state, heap)
            };
        }
        let slot = heap.take_ready(narrow, state);
        if !narrow && state.stride() > MAX_FINE {
            return self.place_long(n, heap, state, slot);
        }
        heap.place(narrow, state, slot, n)
    }

    /// Places a block in a slot whose offsets have long steps. Apart, as it takes more registers.
    #[inline(never)]
    fn place_long(&self, n: usize, heap: MyHeap<'_, P>, state: &Class, slot: FreeSlot) -> *mut u8 {
        heap.place(false, state, slot, n)
    }

    /// malloc of a class whose reuse queue is low. Apart, as what it calls at times would have
    /// malloc save registers every time. Those in the queue are verified first: no freed slot waits
    /// for that longer than 16 further mallocs.
    #[inline(never)]
    fn malloc_low<const NARROW: bool>(
        &self,
        n: usize,
        state: &Class,
        heap: MyHeap<'_, P>,
    ) -> *mut u8 {
        if state.avail.get() == 0 || !PRESET.check_at_free && !state.is_verified() {
            return self.malloc_slow(n);
        }
        let Some(slot) = heap.take_avail(NARROW, state) else {
            return self.malloc_slow(n);
        };
        heap.place(NARROW, state, slot, n)
    }

    /// The rest of malloc: classes to be verified or refilled, threads without a heap, large
    /// blocks, blocks of no bytes.
    #[cold]
    #[inline(never)]
    pub(crate) fn malloc_slow(&self, n: usize) -> *mut u8 {
        if n > MAX_SMALL {
            return self.malloc_large(n, 1);
        }
        if n == 0 {
            return self.malloc_no_bytes(UNIT);
        }
        self.malloc_in(class_of(n), n, false)
    }

    /// A block of `n` bytes in a slot of `class`, which is refilled first if need be; if
    /// `at_start`, at the slot's start, for callers whose alignment the class's slots have. Null,
    /// and errno, when memory is out.
    #[inline(never)]
    pub(crate) fn malloc_in(&self, class: usize, n: usize, at_start: bool) -> *mut u8 {
        let block = match self.filled(class) {
            Some((heap, slot)) => heap.place_any(class, slot, n, at_start),
            None => self.out_of_memory(),
        };
        self.end_loan();
        block
    }

    /// This thread's heap and a slot of `class`; None when memory is out.
    fn filled(&self, class: usize) -> Option<(MyHeap<'_, P>, FreeSlot)> {
        let heap = self.heap_to_use()?;
        if !heap.class(class).has_slot() && !heap.refill(class) {
            // What this heap and the process keep for later may be what is missing.
            heap.trim();
            if !heap.refill(class) {
                return None;
            }
        }
        Some((heap, heap.take_any(class)?))
    }

    /// This thread's heap; attaches one first if it has none, and waits for that if it must. None
    /// when memory is out.
    #[inline(always)]
    fn heap_to_use(&self) -> Option<MyHeap<'_, P>> {
        let heap = self.mine();
        if !heap.is_empty() {
            return Some(heap);
        }
        loop {
            let heap = self.attach();
            if heap.is_some() || !self.heaps.are_numbers_out() {
                return heap;
            }
        }
    }

    /// A block of `n` bytes, more than a slot holds, at a multiple of `align`. Null, and errno,
    /// when memory is out or n exceeds PTRDIFF_MAX.
    #[inline(never)]
    pub(crate) fn malloc_large(&self, n: usize, align: usize) -> *mut u8 {
        if n > isize::MAX as usize {
            return self.out_of_memory();
        }
        if let Some(block) = self.allocate_large(n, align) {
            return block;
        }
        // What is kept for later may be just what the system lacks, but a size that is out of all
        // proportion to it is not worth giving it up.
        let worthwhile = n / 2 <= self.heaps.memory.lock().kept_bytes();
        if worthwhile {
            self.mine().trim();
        }
        let block = self.allocate_large(n, align);
        block.unwrap_or_else(|| self.out_of_memory())
    }

    /// A large block, if there is memory for it.
    #[inline(never)]
    fn allocate_large(&self, n: usize, align: usize) -> Option<*mut u8> {
        let mut locked = self.heaps.memory.lock();
        locked.allocate_large(n, align, n <= MAX_SMALL)
    }

    /// A block of no bytes at a multiple of `align`, at most a page, that nobody may touch. Null,
    /// and errno, when memory is out.
    #[cold]
    pub(crate) fn malloc_no_bytes(&self, align: usize) -> *mut u8 {
        let mut locked = self.heaps.memory.lock();
        let mut block = locked.no_bytes.allocate(&mut locked.pages, align);
        if block.is_none() {
            // What is kept may be what is missing.
            locked.release_kept();
            block = locked.no_bytes.allocate(&mut locked.pages, align);
        }
        drop(locked);
        block.unwrap_or_else(|| self.out_of_memory())
    }

    /// A block of `n` bytes as from malloc, all of them zero.
    #[inline(always)]
    pub fn calloc(&self, n: usize) -> *mut u8 {
        let heap = self.mine();
        if PRESET.zero_on_free || n.wrapping_sub(1) >= MAX_NARROW {
            return self.calloc_any(n);
        }
        let state = heap.class(class_of(n));
        if !state.has_ready() {
            return self.calloc_any(n);
        }
        let block = heap.place(true, state, heap.take_ready(true, state), n);
        // SAFETY: a new block of n bytes.
        unsafe { block.write_bytes(0, n) };
        block
    }

    /// calloc of a block that is not at hand in a narrow class.
    #[inline(never)]
    fn calloc_any(&self, n: usize) -> *mut u8 {
        let block = if n.wrapping_sub(1) >= MAX_NARROW {
            self.malloc_wide(n)
        } else {
            let heap = self.mine();
            self.malloc_low::<true>(n, heap.class(class_of(n)), heap)
        };
        if block.is_null() {
            return block;
        }
        let is_zero = if n > MAX_SMALL {
            self.is_zero(block)
        } else {
            // n tells the kind of its class, without a look at the block.
            PRESET.zero_on_free || n > MAX_NARROW && self.mine().zero.get()
        };
        if !is_zero {
            // SAFETY: a new block of n bytes.
            unsafe { block.write_bytes(0, n) };
        }
        block
    }

    /// Whether the block that this thread just got from malloc is known to be all zero.
    pub fn is_zero(&self, block: *mut u8) -> bool {
        match self.find(block) {
            Some(slot) => slot.class >= FIRST_WIDE && self.mine().zero.get(),
            None => {
                let mut locked = self.heaps.memory.lock();
                locked.is_large_zero(block)
            }
        }
    }
}
