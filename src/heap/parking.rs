//! Heaps without a thread: parked when it exits, collected by whoever frees into them, adopted by
//! the next thread; and heaps whose threads a fork left behind.
//!
//! ```text
//! exit:  locked: on the list, Parked; then, if somebody pushed before that: collect (next line)
//! free:  the mailbox says parked → locked: claim → collect → locked: more? again, else unclaim
//!        a small heap stays as it is (warm) while all warm ones are small together
//! adopt: locked: the first heap that nobody claimed, off the list, Active; then collect
//! fork:  in the child: each other heap that a thread worked on is Dead for good
//! ```
//!
//! No free waits in a parked heap: its freer finds the heap active (then the exiting thread or
//! the adopter looks afterwards), claimed (then the claimant looks again), or collects it.
//!
//! Generic over the heap and the lock: the process runs this, and so do the models of
//! `loom_models.rs`.

use crate::config::WARM_BYTES;
use crate::remote::{Life, Mailbox, Node, Sent};
use crate::sync::Plain;
use core::ptr;

/// A heap's place among the parked ones. Provider lock.
pub struct Berth<H> {
    /// Whether a thread collects for the parked heap just now.
    claimed: Plain<bool>,
    /// Bytes for which it counts among the warm ones; 0 for a heap that came to rest.
    warm: Plain<usize>,
    next: Plain<*mut H>,
}

impl<H> Berth<H> {
    /// Of a heap that was never parked.
    #[allow(clippy::new_without_default)]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Berth {
            claimed: Plain::new(false),
            warm: Plain::new(0),
            next: Plain::new(ptr::null_mut()),
        }
    }

    /// As if a thread collected for the heap just now.
    ///
    /// # Safety
    /// The heap is parked; no other thread.
    #[cfg(all(test, small_constants, not(loom)))]
    pub unsafe fn claim_for_test(&self) {
        // SAFETY: by contract.
        unsafe { self.claimed.set(true) };
    }

    /// Of a heap that was never parked.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        Berth {
            claimed: Plain::new(false),
            warm: Plain::new(0),
            next: Plain::new(ptr::null_mut()),
        }
    }
}

/// What parking needs of a heap. Heaps are never freed.
pub trait Tenant: Sized {
    /// What its mailbox lists.
    type Group: Node;
    /// Frees from elsewhere.
    fn mail(&self) -> &Mailbox<Self::Group>;
    /// Its place among the parked ones.
    fn berth(&self) -> &Berth<Self>;
}

/// Heaps without a thread. Provider lock. Warm ones, parked as their threads left them, come
/// first: they are adopted first, and none of them stays below cold ones for ever.
pub struct Parked<H> {
    first: *mut H,
    /// What the warm ones count together.
    warm_bytes: usize,
}

impl<H: Tenant> Parked<H> {
    /// None.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Parked {
            first: ptr::null_mut(),
            warm_bytes: 0,
        }
    }

    /// Whether there is none, claimed or not.
    #[cfg(not(loom))]
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Enters a heap that the caller works on and will not any more: one at rest, or, with `warm`
    /// bytes to count, as it is. False, and nothing done, if the warm ones would be too many. The
    /// caller must look into its mailbox once more afterwards.
    ///
    /// # Safety
    /// The caller may work on the heap, which is not on the list.
    #[inline(never)]
    unsafe fn enter(&mut self, heap: *mut H, warm: usize) -> bool {
        if warm != 0 && self.warm_bytes + warm > WARM_BYTES {
            return false;
        }
        self.warm_bytes += warm;
        let mut before: *mut H = ptr::null_mut();
        let mut next = self.first;
        // SAFETY: by contract; the lock makes list and berths ours.
        unsafe {
            while warm == 0 && !next.is_null() && (*next).berth().warm.get() != 0 {
                before = next;
                next = (*next).berth().next.get();
            }
            (*heap).berth().warm.set(warm);
            (*heap).berth().next.set(next);
            self.link(before, heap);
            (*heap).mail().set_life(Life::Parked);
        }
        true
    }

    /// Takes heaps off the list that died in it, claimed by threads which a fork left behind.
    ///
    /// # Safety
    /// The only thread.
    #[cfg(not(loom))]
    pub unsafe fn forget_dead(&mut self) {
        let mut before: *mut H = ptr::null_mut();
        let mut heap = self.first;
        // SAFETY: by contract; heaps live for ever.
        unsafe {
            while !heap.is_null() {
                let next = (*heap).berth().next.get();
                if (*heap).mail().is_dead() {
                    self.link(before, next);
                    self.warm_bytes -= (*heap).berth().warm.get();
                    (*heap).berth().claimed.set(false);
                } else {
                    before = heap;
                }
                heap = next;
            }
        }
    }

    /// Enters a dead heap without groups, as one that was never used.
    ///
    /// # Safety
    /// The only thread; the heap is not on the list.
    #[cfg(not(loom))]
    pub unsafe fn enter_empty(&mut self, heap: *mut H) {
        // SAFETY: by contract.
        unsafe { self.enter(heap, 0) };
        // SAFETY: as above.
        unsafe { (*heap).mail().set_life(Life::Unused) };
    }

    /// Makes `heap` (or null) the one behind `before`, or the first.
    ///
    /// # Safety
    /// `before` is on the list or null.
    unsafe fn link(&mut self, before: *mut H, heap: *mut H) {
        if before.is_null() {
            self.first = heap;
        } else {
            // SAFETY: by contract; the lock makes the berth ours.
            unsafe { (*before).berth().next.set(heap) };
        }
    }

    /// Takes a heap (of all, or of the warm ones) that nobody is just collecting off the list; it is
    /// active then, and the caller's, who must collect it. Null if there is none.
    #[inline(never)]
    pub fn adopt(&mut self, any: bool) -> *mut H {
        let mut before: *mut H = ptr::null_mut();
        let mut heap = self.first;
        // SAFETY: heaps live for ever; the lock makes list and berths ours.
        unsafe {
            while !heap.is_null() && (any || (*heap).berth().warm.get() != 0) {
                let next = (*heap).berth().next.get();
                if !(*heap).berth().claimed.get() {
                    self.link(before, next);
                    self.warm_bytes -= (*heap).berth().warm.get();
                    (*heap).berth().warm.set(0);
                    (*heap).mail().set_life(Life::Active);
                    return heap;
                }
                before = heap;
                heap = next;
            }
        }
        ptr::null_mut()
    }

    /// Lets the caller work on a heap if it is parked. Otherwise its new owner, or the thread that
    /// claimed it, will look into its mailbox after this.
    ///
    /// # Safety
    /// `heap` is a heap.
    unsafe fn claim(&mut self, heap: *mut H) -> bool {
        // SAFETY: life and claim change under the lock only.
        unsafe {
            let claimed = &(*heap).berth().claimed;
            let free = (*heap).mail().life() == Life::Parked as u32 && !claimed.get();
            if free {
                claimed.set(true);
            }
            free
        }
    }

    /// Ends a claim, unless more came in the meantime.
    ///
    /// # Safety
    /// The caller claimed the heap.
    unsafe fn unclaim(&mut self, heap: *mut H) -> bool {
        // SAFETY: by contract.
        unsafe {
            // Whoever pushes and finds the claim has pushed before it took the lock: either we
            // see that here, or it takes the lock after us and claims.
            let done = (*heap).mail().is_empty();
            if done {
                (*heap).berth().claimed.set(false);
            }
            done
        }
    }
}

/// What parking needs of the process.
pub trait Keeper {
    /// Its heaps.
    type Heap: Tenant;
    /// Runs `work` on the parked heaps, under the provider lock.
    fn with_parked<R>(&self, work: impl FnOnce(&mut Parked<Self::Heap>) -> R) -> R;
    /// Collects what came back to a heap without a thread.
    ///
    /// # Safety
    /// The caller may work on the heap.
    unsafe fn collect_idle(&self, heap: *mut Self::Heap);
}

/// Gives slots `bits` of `group` back to `heap`, which owns it and belongs to another thread or
/// none. False: one of them was given back already.
///
/// # Safety
/// As `Mailbox::send`; the heap is not dead.
#[inline(always)]
pub unsafe fn give_back<K: Keeper>(
    keeper: &K,
    heap: *mut K::Heap,
    group: *mut <K::Heap as Tenant>::Group,
    bits: u32,
) -> bool {
    // SAFETY: by contract.
    match unsafe { (*heap).mail().send(group, bits) } {
        Sent::Delivered => true,
        Sent::OwnerParked => {
            // SAFETY: as above.
            unsafe { collect_parked(keeper, heap) };
            true
        }
        Sent::Double => false,
    }
}

/// Ends a thread's work on its heap, which is at rest, or keeps its slots at hand and counts as
/// `warm` bytes. False: heaps without a thread hold too much already; it is not parked.
///
/// # Safety
/// The caller may work on the heap, and nobody else knows of it until it is parked.
pub unsafe fn park<K: Keeper>(keeper: &K, heap: *mut K::Heap, warm: usize) -> bool {
    // SAFETY: by contract; heaps live for ever.
    unsafe {
        let parked = keeper.with_parked(|parked| parked.enter(heap, warm));
        // Frees that came before the change of life found an active heap and left it to us.
        if parked && !(*heap).mail().is_empty() {
            collect_parked(keeper, heap);
        }
        parked
    }
}

/// Collects what came back to a parked heap, by whoever freed it.
///
/// # Safety
/// `heap` is a heap.
#[cold]
pub unsafe fn collect_parked<K: Keeper>(keeper: &K, heap: *mut K::Heap) {
    // SAFETY: claimed and parked: nobody else works on it.
    unsafe {
        if !keeper.with_parked(|parked| parked.claim(heap)) {
            return;
        }
        loop {
            keeper.collect_idle(heap);
            if keeper.with_parked(|parked| parked.unclaim(heap)) {
                return;
            }
        }
    }
}

/// Whether a thread works on the heap, as its owner or because it claimed it: its state may be in
/// mid-update.
///
/// # Safety
/// `heap` is a heap; provider lock.
pub unsafe fn worked_on<H: Tenant>(heap: *mut H) -> bool {
    // SAFETY: by contract.
    unsafe { (*heap).mail().life() == Life::Active as u32 || (*heap).berth().claimed.get() }
}

/// In the child of a fork, for each heap but the caller's: if a thread worked on it, nobody does
/// ever again.
///
/// # Safety
/// The process has one thread, which does not work on the heap.
pub unsafe fn leave_behind<H: Tenant>(heap: *mut H) {
    // SAFETY: by contract.
    unsafe {
        if worked_on(heap) {
            (*heap).mail().set_life(Life::Dead);
        }
    }
}
