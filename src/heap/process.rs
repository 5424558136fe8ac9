//! Everything there is one of in a process.

use crate::config::{CLASSES, MAX_SHARES, PRESET, RUN_PAGE};
use crate::fault::{raise, Found};
use crate::heap::Heap;
use crate::pages::Platform;
use crate::provider::{Locked, Provider};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use crate::windows::Windows;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;

/// Heaps that the first table holds, and each further one.
const FIRST_HEAPS: usize = 8;
const MORE_HEAPS: usize = 512;
/// Further tables, enough for every number of 16 bits.
const TABLES: usize = (1 << 16) / MORE_HEAPS;

/// The state of the allocator in one process: a static in the libraries, many in tests.
///
/// What a small process writes stands together: at the start the provider, and behind it the
/// windows of low addresses, where the chunks of a program that is not moved (PIE) lie.
#[repr(C)]
pub struct Process<P: Platform> {
    provider: UnsafeCell<Provider>,
    /// The system underneath. Its lock is written with what it protects.
    pub platform: P,
    /// Heaps there are.
    heap_count: AtomicUsize,
    /// Secrets, fixed once the first heap is attached. On lines of its own, as the next: every
    /// free of another thread's block reads both, and must not find them with the lock's last
    /// holder.
    secrets: UnsafeCell<Secrets>,
    /// Heaps by number, the first ones. Entries only ever appear.
    first_heaps: [AtomicPtr<Heap>; FIRST_HEAPS],
    /// Where chunks are, or were: their maps stay, see `grow.rs`.
    pub(crate) windows: Windows,
    /// Room for the first thread's heap from a page's start on, so that its counters and the
    /// classes of small blocks lie in one page.
    main: MainRoom,
    /// The heap of a thread that has none: no slots, no groups. Never written.
    empty: Heap,
    /// Tables of further heaps. Entries only ever appear.
    more_heaps: [AtomicPtr<AtomicPtr<Heap>>; TABLES],
}

/// A heap and the way to a page's start. Zero, as a heap without groups is.
#[repr(C, align(64))]
struct MainRoom(UnsafeCell<MaybeUninit<[u8; size_of::<Heap>() + RUN_PAGE]>>);

/// Unpredictable numbers.
#[repr(align(64))]
pub struct Secrets {
    /// Guard bytes, one for each class, then one for runs and large blocks.
    guards: [u8; CLASSES + 2],
    /// For guards that depend on their address: added, then a factor.
    keys: [u64; 2],
    /// State of the generator of unimportant choices.
    seed: u64,
    ready: bool,
}

// SAFETY: the cells are used under the provider lock, by the main heap's owner, or are read only
// once set up.
unsafe impl<P: Platform> Sync for Process<P> {}

impl<P: Platform> Process<P> {
    /// A process without any memory. All its bytes are zero (if the platform's are): a static one
    /// takes no room in the file.
    pub const fn new(platform: P) -> Self {
        Process {
            main: MainRoom(UnsafeCell::new(MaybeUninit::zeroed())),
            secrets: UnsafeCell::new(Secrets {
                guards: [0; CLASSES + 2],
                keys: [0; 2],
                seed: 0,
                ready: false,
            }),
            provider: UnsafeCell::new(Provider::new()),
            platform,
            first_heaps: [const { AtomicPtr::new(ptr::null_mut()) }; FIRST_HEAPS],
            heap_count: AtomicUsize::new(0),
            empty: Heap::EMPTY,
            windows: Windows::new(),
            more_heaps: [const { AtomicPtr::new(ptr::null_mut()) }; TABLES],
        }
    }

    /// Readies a process in zero memory, without moving it over the stack.
    ///
    /// # Safety
    /// `process` is zero and valid for writes.
    #[cfg(any(test, feature = "model"))]
    pub(crate) unsafe fn init_for_test(process: *mut Self, platform: P) {
        // SAFETY: by contract; zero is right for all but these.
        unsafe {
            (&raw mut (*process).platform).write(platform);
            (&raw mut (*process).provider).write(UnsafeCell::new(Provider::new()));
        }
    }

    /// This thread's heap, perhaps the empty one. The thread's word holds the distance from the
    /// empty heap, so that a new thread's zero needs no test.
    #[inline(always)]
    pub fn heap(&self) -> *mut Heap {
        let empty = &raw const self.empty;
        empty
            .cast_mut()
            .cast::<u8>()
            .wrapping_add(self.platform.heap_field())
            .cast()
    }

    /// Makes `heap` this thread's heap.
    pub fn set_heap(&self, heap: *mut Heap) {
        self.platform
            .set_heap_field(heap.addr().wrapping_sub((&raw const self.empty).addr()));
    }

    /// Whether `heap` is the empty heap.
    #[inline(always)]
    pub fn is_empty_heap(&self, heap: *mut Heap) -> bool {
        ptr::eq(heap, &raw const self.empty)
    }

    /// The empty heap.
    pub fn empty_heap(&self) -> *mut Heap {
        (&raw const self.empty).cast_mut()
    }

    /// The heap of the first thread.
    pub fn main_heap(&self) -> *mut Heap {
        let room = self.main.0.get().cast::<u8>();
        room.map_addr(|at| at.next_multiple_of(RUN_PAGE)).cast()
    }

    /// Whether `address` lies in the window of a chunk.
    #[inline(always)]
    pub fn in_chunk(&self, address: usize) -> bool {
        self.windows.has(address)
    }

    /// Takes the provider lock.
    pub fn lock(&self) -> Locked<'_, P> {
        self.platform.lock();
        // SAFETY: the lock excludes other users of the cell; `Locked` releases it when dropped.
        let provider = unsafe { &mut *self.provider.get() };
        Locked {
            process: self,
            provider,
        }
    }

    /// Does `work` under the provider lock. A fault that it finds stops the process when the lock is
    /// released.
    #[inline(always)]
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&mut Locked<'_, P>) -> Result<T, Found>) -> T {
        let done = work(&mut self.lock());
        raise(done)
    }

    /// Takes the provider lock if `locked` does not have it yet.
    #[inline(never)]
    pub(crate) fn lock_once<'a, 'b>(
        &'a self,
        locked: &'b mut Option<Locked<'a, P>>,
    ) -> &'b mut Locked<'a, P> {
        locked.get_or_insert_with(|| self.lock())
    }

    /// Heap number `id`.
    #[inline(always)]
    pub fn heap_by_id(&self, id: u16) -> *mut Heap {
        let id = id as usize;
        // Acquire: the heap was set up before it was entered.
        if id < FIRST_HEAPS {
            return self.first_heaps[id].load(Ordering::Acquire);
        }
        let more = self.more_heaps[(id - FIRST_HEAPS) / MORE_HEAPS].load(Ordering::Acquire);
        // SAFETY: numbers are given out after their table exists; tables stay.
        unsafe { (*more.add((id - FIRST_HEAPS) % MORE_HEAPS)).load(Ordering::Acquire) }
    }

    /// Enters `heap` as number `id`. Provider lock. False when there is no room for more.
    pub(crate) fn enter_heap(
        &self,
        id: usize,
        heap: *mut Heap,
        table: impl FnOnce() -> Option<*mut u8>,
    ) -> bool {
        if id < FIRST_HEAPS {
            self.first_heaps[id].store(heap, Ordering::Release);
            return true;
        }
        let Some(slot) = self.more_heaps.get((id - FIRST_HEAPS) / MORE_HEAPS) else {
            return false;
        };
        let mut more = slot.load(Ordering::Relaxed);
        if more.is_null() {
            let Some(new) = table() else { return false };
            more = new.cast();
            slot.store(more, Ordering::Release);
        }
        // SAFETY: the table has MORE_HEAPS zero entries.
        unsafe { (*more.add((id - FIRST_HEAPS) % MORE_HEAPS)).store(heap, Ordering::Release) };
        true
    }

    /// Notes how many heaps there are. Provider lock.
    pub(crate) fn count_heaps(&self, count: usize) {
        // Relaxed: a number that orders nothing.
        self.heap_count.store(count, Ordering::Relaxed);
    }

    /// Heaps there are.
    pub(crate) fn heap_total(&self) -> usize {
        // Relaxed: as above.
        self.heap_count.load(Ordering::Relaxed)
    }

    /// What one heap may keep for later of an allowance for all: many threads together are not to
    /// hold many times what one may, few are not to run short.
    pub(crate) fn share(&self, allowance: usize) -> usize {
        // Relaxed: as above.
        allowance / self.heap_total().clamp(1, MAX_SHARES)
    }

    /// Bytes of a further table of heaps.
    pub(crate) const HEAP_TABLE_BYTES: usize = MORE_HEAPS * size_of::<AtomicPtr<Heap>>();

    /// Draws the secrets, once. Provider lock, before the first heap is attached.
    pub(crate) fn draw_secrets(&self) {
        // SAFETY: the lock is held, and no thread reads them before a heap is attached.
        let secrets = unsafe { &mut *self.secrets.get() };
        if secrets.ready {
            return;
        }
        let [a, b] = self.platform.random();
        secrets.seed = a ^ b.rotate_left(32);
        for guard in &mut secrets.guards {
            *guard = guard_byte(next_random(&mut secrets.seed));
        }
        secrets.keys = [
            next_random(&mut secrets.seed),
            next_random(&mut secrets.seed) | 1,
        ];
        secrets.ready = true;
    }

    /// The guard byte of `class`, unless guards depend on their addresses; see `guard_byte`.
    #[inline(always)]
    pub(crate) fn class_guard(&self, class: usize) -> u8 {
        // SAFETY: fixed once the first heap is attached, and only heaps make blocks. The class
        // is below CLASSES + 2 by construction.
        unsafe {
            (&raw const (*self.secrets.get()).guards)
                .cast::<u8>()
                .add(class)
                .read()
        }
    }

    /// The guard byte of a block of `class` at `address`.
    #[inline(always)]
    pub fn guard(&self, class: usize, address: usize) -> u8 {
        if !PRESET.guard_by_address {
            return self.class_guard(class);
        }
        // Multiply-shift hashing (Dietzfelbinger et al. 1997) with a secret factor: the guards of
        // two addresses tell little about a third.
        // SAFETY: as above.
        let [add, factor] = unsafe { (&raw const (*self.secrets.get()).keys).read() };
        guard_byte((address as u64).wrapping_add(add).wrapping_mul(factor))
    }

    /// A seed for a new heap's choices. Provider lock.
    pub(crate) fn draw_seed(&self) -> u64 {
        // SAFETY: the lock is held.
        unsafe { next_random(&mut (*self.secrets.get()).seed) | 1 }
    }
}

/// The guard byte that the upper bits of a random number pick: odd, above 0x80, and not 0xff, so
/// that no NUL, no ASCII text, no even byte and no -1 passes for it. Any other byte, 63 of them,
/// does with probability 1/63.
#[inline(always)]
fn guard_byte(random: u64) -> u8 {
    (0x81 + 2 * (((random >> 32) * GUARDS) >> 32)) as u8
}

/// Number of different guard bytes.
const GUARDS: u64 = 63;

/// splitmix64 (Steele, Lea, Flood 2014): a full-period mix of a counter, for choices that need
/// not withstand an attacker who sees its outputs.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn guards_are_odd_above_ascii_and_not_all_ones() {
        assert_eq!(guard_byte(0), 0x81);
        assert_eq!(guard_byte(u64::MAX), 0xfd);
        let mut seen = [0u32; 256];
        let mut seed = 1;
        for _ in 0..100 * GUARDS {
            seen[guard_byte(next_random(&mut seed)) as usize] += 1;
        }
        for (byte, &count) in seen.iter().enumerate() {
            let allowed = byte >= 0x81 && byte % 2 == 1 && byte != 0xff;
            assert_eq!(count > 0, allowed, "{byte:#x} came {count} times");
        }
    }
}
