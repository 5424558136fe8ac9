//! Heaps without a thread: parked when it exits, collected by whoever frees into them, adopted by
//! the next thread; and heaps whose threads a fork left behind.
//!
//! ```text
//! exit:  locked: on the list, Parked; then, if somebody pushed before that: collect (next line)
//! free:  the mailbox says parked → locked: claim → collect → locked: more? again, else unclaim
//! adopt: locked: the first heap that nobody claimed, off the list, Active; then collect
//! fork:  in the child: each other heap that a thread worked on is Dead for good
//! ```
//!
//! No free waits in a parked heap: its freer finds the heap active (then the exiting thread or
//! the adopter looks afterwards), claimed (then the claimant looks again), or collects it.
//!
//! Generic over the heap and the lock: the process runs this, and so do the models of
//! `loom_models.rs`.

use crate::remote::{Life, Mailbox, Node, Sent};
use crate::sync::Plain;
use core::ptr;

/// A heap's place among the parked ones. Provider lock.
pub struct Berth<H> {
    /// Whether a thread collects for the parked heap just now.
    claimed: Plain<bool>,
    next: Plain<*mut H>,
}

impl<H> Berth<H> {
    /// Of a heap that was never parked.
    #[allow(clippy::new_without_default)]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Berth {
            claimed: Plain::new(false),
            next: Plain::new(ptr::null_mut()),
        }
    }

    /// Of a heap that was never parked.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        Berth {
            claimed: Plain::new(false),
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

/// Heaps without a thread. Provider lock.
pub struct Parked<H> {
    first: *mut H,
}

impl<H: Tenant> Parked<H> {
    /// None.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Parked {
            first: ptr::null_mut(),
        }
    }

    /// Enters a heap that the caller works on and will not any more. The caller must look into
    /// its mailbox once more afterwards.
    ///
    /// # Safety
    /// The caller may work on the heap, which is not on the list.
    unsafe fn enter(&mut self, heap: *mut H) {
        // SAFETY: by contract; the lock makes the berth ours.
        unsafe {
            (*heap).berth().next.set(self.first);
            self.first = heap;
            (*heap).mail().set_life(Life::Parked);
        }
    }

    /// Takes a heap that nobody is just collecting off the list; it is active then, and the
    /// caller's, who must collect it. Null if there is none.
    pub fn adopt(&mut self) -> *mut H {
        let mut before: *mut H = ptr::null_mut();
        let mut heap = self.first;
        // SAFETY: heaps live for ever; the lock makes list and berths ours.
        unsafe {
            while !heap.is_null() {
                let next = (*heap).berth().next.get();
                if !(*heap).berth().claimed.get() {
                    if before.is_null() {
                        self.first = next;
                    } else {
                        (*before).berth().next.set(next);
                    }
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

/// Gives slot `bit` of `group` back to `heap`, which owns it and belongs to another thread or
/// none. False: the slot was given back already.
///
/// # Safety
/// As `Mailbox::send`; the heap is not dead.
#[inline(always)]
pub unsafe fn give_back<K: Keeper>(
    keeper: &K,
    heap: *mut K::Heap,
    group: *mut <K::Heap as Tenant>::Group,
    bit: u32,
) -> bool {
    // SAFETY: by contract.
    match unsafe { (*heap).mail().send(group, bit) } {
        Sent::Delivered => true,
        Sent::OwnerParked => {
            // SAFETY: as above.
            unsafe { collect_parked(keeper, heap) };
            true
        }
        Sent::Double => false,
    }
}

/// Ends a thread's work on its heap.
///
/// # Safety
/// The caller may work on the heap, and nobody else knows of it until it is parked.
pub unsafe fn park<K: Keeper>(keeper: &K, heap: *mut K::Heap) {
    // SAFETY: by contract; heaps live for ever.
    unsafe {
        keeper.with_parked(|parked| parked.enter(heap));
        // Frees that came before the change of life found an active heap and left it to us.
        if !(*heap).mail().is_empty() {
            collect_parked(keeper, heap);
        }
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
