//! Heaps without a thread: abandoned when it ends, collected by whoever frees into them, reclaimed
//! by the next thread; and heaps whose threads a fork left behind.
//!
//! ```text
//! exit:    locked: on the list, Abandoned; then, if somebody pushed before: collect as a freer
//! free:    the mailbox says abandoned → locked: claim → collect → locked: more? again; no: unclaim
//!          a small heap stays as it is (warm) while all warm ones are small together
//! reclaim: locked: the first heap that nobody claimed, off the list, Active; then collect
//! fork:    in the child: each other heap that a thread worked on is Orphaned for good
//! ```
//!
//! No free waits in an abandoned heap: its freer finds the heap active (then the ending thread or
//! the one that reclaims looks afterwards), claimed (then the claimant looks again), or collects
//! it.
//!
//! Generic over the heap and the lock: the allocator runs this, and so do the models of
//! `loom_models.rs`.

use crate::base::config::KEEP;
use crate::base::sync::Plain;
use crate::exchange::mailbox::{Life, Mailbox, Node, Sent};

/// Bytes that heaps without a thread may keep together, so that the next threads find them as they
/// were left: for programs that start a thread for each request. One heap keeps half at most.
pub const WARM_BYTES: usize = 4 * KEEP;

/// The right to work on a heap: of its thread, or of whoever claimed it while it has none. There is
/// one at a time for a heap.
pub struct Claim<H: 'static> {
    heap: &'static H,
    /// Whether the heap came to rest before it was abandoned, and nobody counts what it holds.
    is_cold: bool,
}

impl<H> Claim<H> {
    /// The right to a heap that nobody else knows of, or that is this thread's.
    ///
    /// # Safety
    /// Nobody else has the right to this heap, or will get it before this value is gone.
    pub unsafe fn new(heap: &'static H) -> Self {
        Claim {
            heap,
            is_cold: false,
        }
    }

    /// The heap.
    pub fn heap(&self) -> &'static H {
        self.heap
    }

    /// Whether it is claimed among the heaps at rest.
    pub fn is_cold(&self) -> bool {
        self.is_cold
    }
}

/// What the list keeps beside a heap.
struct Place<H: 'static> {
    /// Whether a thread collects for the abandoned heap just now.
    claimed: bool,
    /// Bytes for which it counts among the warm ones; 0 for a heap that came to rest.
    warm: usize,
    /// The next abandoned heap.
    next: Option<&'static H>,
}

/// A heap's place among the abandoned ones. Used by whoever has the list in hand, under the lock.
pub struct Berth<H: 'static>(Plain<Place<H>>);

#[cfg(loom)]
impl<H> Berth<H> {
    /// Of a heap that was never abandoned.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Berth(Plain::new(Place {
            claimed: false,
            warm: 0,
            next: None,
        }))
    }
}

// Not derived: that would ask it of H.
impl<H> Clone for Place<H> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H> Copy for Place<H> {}

/// What the list needs of a heap. Heaps are never freed.
pub trait Tenant: Sized + 'static {
    /// What its mailbox lists.
    type Group: Node;
    /// Frees from elsewhere.
    fn mail(&self) -> &Mailbox<Self::Group>;
    /// Its place among the abandoned ones.
    fn berth(&self) -> &Berth<Self>;
}

/// Heaps without a thread. Whoever borrows the list holds the lock. Warm heaps, abandoned as their
/// threads left them, come first: they are reclaimed first, and none of them stays below cold ones
/// for ever.
pub struct Abandoned<H: 'static> {
    first: Option<&'static H>,
    /// What the warm ones count together.
    warm_bytes: usize,
}

impl<H: Tenant> Abandoned<H> {
    /// None.
    #[allow(clippy::new_without_default)]
    #[cfg(loom)]
    pub fn new() -> Self {
        Abandoned {
            first: None,
            warm_bytes: 0,
        }
    }

    /// Whether there is none, claimed or not.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The place of a heap.
    fn place(&self, heap: &H) -> Place<H> {
        // SAFETY: places are written by `change` only, whose caller borrows the one list alone.
        unsafe { heap.berth().0.get() }
    }

    /// Changes the place of a heap.
    fn change(&mut self, heap: &H, change: impl FnOnce(&mut Place<H>)) {
        let mut place = self.place(heap);
        change(&mut place);
        // SAFETY: the caller borrows the one list alone, and places are used through it only.
        unsafe { heap.berth().0.set(place) };
    }

    /// Enters a heap: one at rest, or, with `warm` bytes to count, as it is. None, and nothing
    /// done, if the warm ones would be too many. The caller must look into its mailbox once more
    /// afterwards.
    fn enter(&mut self, heap: &'static H, warm: usize) -> bool {
        if warm != 0 && self.warm_bytes + warm > WARM_BYTES {
            return false;
        }
        self.warm_bytes += warm;
        let (mut before, mut next) = (None, self.first);
        while let Some(other) = next.filter(|other| warm == 0 && self.place(other).warm != 0) {
            before = next;
            next = self.place(other).next;
        }
        self.change(heap, |place| (place.warm, place.next) = (warm, next));
        self.link(before, Some(heap));
        heap.mail().set_life(Life::Abandoned);
        true
    }

    /// Takes heaps off the list that were orphaned in it: threads claimed them which a fork left
    /// behind. There is no other thread.
    pub fn forget_orphans(&mut self) {
        let (mut before, mut next) = (None, self.first);
        while let Some(heap) = next {
            next = self.place(heap).next;
            if heap.mail().is_orphaned() {
                self.link(before, next);
                self.warm_bytes -= self.place(heap).warm;
                self.change(heap, |place| place.claimed = false);
            } else {
                before = Some(heap);
            }
        }
    }

    /// Enters an orphaned heap that has no groups any more and is not on the list, as one that was
    /// never used. There is no other thread.
    pub fn enter_unused(&mut self, heap: &'static H) {
        self.enter(heap, 0);
        heap.mail().set_life(Life::Unused);
    }

    /// Makes `heap` the one behind `before`, or the first.
    fn link(&mut self, before: Option<&'static H>, heap: Option<&'static H>) {
        match before {
            None => self.first = heap,
            Some(before) => self.change(before, |place| place.next = heap),
        }
    }

    /// Takes a heap (of all, or of the warm ones) that nobody is just collecting off the list. It
    /// is active then, and the caller must collect it.
    #[inline(never)]
    pub fn reclaim(&mut self, any: bool) -> Option<Claim<H>> {
        let (mut before, mut next) = (None, self.first);
        while let Some(heap) = next {
            let place = self.place(heap);
            if !any && place.warm == 0 {
                break;
            }
            if !place.claimed {
                self.link(before, place.next);
                self.warm_bytes -= place.warm;
                self.change(heap, |place| place.warm = 0);
                heap.mail().set_life(Life::Active);
                return Some(Claim {
                    heap,
                    is_cold: false,
                });
            }
            before = next;
            next = place.next;
        }
        None
    }

    /// The right to a heap, if it is abandoned and free to claim. Otherwise its new owner, or the
    /// thread that claimed it, will look into its mailbox after this.
    fn claim(&mut self, heap: &'static H) -> Option<Claim<H>> {
        let place = self.place(heap);
        if !heap.mail().is(Life::Abandoned) || place.claimed {
            return None;
        }
        self.change(heap, |place| place.claimed = true);
        Some(Claim {
            heap,
            is_cold: place.warm == 0,
        })
    }

    /// Ends a claim, unless more came in the meantime.
    fn unclaim(&mut self, claim: Claim<H>) -> Option<Claim<H>> {
        // Whoever pushes and finds the claim has pushed before it took the lock: either we see that
        // here, or it takes the lock after us and claims.
        if !claim.heap.mail().is_empty() {
            return Some(claim);
        }
        self.change(claim.heap, |place| place.claimed = false);
        None
    }

    /// Whether a thread works on the heap, as its owner or because it claimed it: its state may be
    /// in mid-update.
    pub fn worked_on(&self, heap: &H) -> bool {
        heap.mail().is(Life::Active) || self.place(heap).claimed
    }

    /// In the child of a fork, for each heap but the caller's: if a thread worked on it, nobody
    /// does ever again.
    pub fn leave_behind(&mut self, heap: &H) {
        if self.worked_on(heap) {
            heap.mail().set_life(Life::Orphaned);
        }
    }

    /// As if a thread collected for the heap just now.
    #[cfg(all(test, small_constants, not(loom)))]
    pub fn claim_for_test(&mut self, heap: &H) {
        self.change(heap, |place| place.claimed = true);
    }
}

/// What this protocol needs of the allocator.
pub trait Keeper {
    /// Its heaps.
    type Heap: Tenant;
    /// Runs `work` on the abandoned heaps, under the lock.
    fn with_abandoned<R>(&self, work: impl FnOnce(&mut Abandoned<Self::Heap>) -> R) -> R;
    /// Asks the thread of a heap to collect what came back to it.
    fn ask(&self, heap: &'static Self::Heap);
    /// Collects what came back to a heap without a thread.
    fn collect_claimed(&self, claim: &Claim<Self::Heap>);
}

/// Gives slots `bits` of `group` back to `heap`, which owns it, belongs to another thread or none,
/// and is not orphaned. False: one of them was given back already. See `Mailbox::send`.
#[inline(always)]
pub fn give_back<K: Keeper>(
    keeper: &K,
    heap: &'static K::Heap,
    group: &'static <K::Heap as Tenant>::Group,
    bits: u32,
) -> bool {
    match heap.mail().send(group, bits) {
        Sent::Delivered => true,
        Sent::Much => {
            keeper.ask(heap);
            true
        }
        Sent::OwnerAbandoned => {
            collect_abandoned(keeper, heap);
            true
        }
        Sent::Double => false,
    }
}

/// Ends a thread's work on its heap, which is at rest, or keeps its slots at hand and counts as
/// `warm` bytes. Gives the right back if heaps without a thread hold too much already.
pub fn abandon<K: Keeper>(
    keeper: &K,
    claim: Claim<K::Heap>,
    warm: usize,
) -> Option<Claim<K::Heap>> {
    let heap = claim.heap;
    if !keeper.with_abandoned(|abandoned| abandoned.enter(heap, warm)) {
        return Some(claim);
    }
    // Frees that came before the change of life found an active heap and left it to us.
    if !heap.mail().is_empty() {
        collect_abandoned(keeper, heap);
    }
    None
}

/// Collects what came back to an abandoned heap, by whoever freed it.
#[cold]
pub fn collect_abandoned<K: Keeper>(keeper: &K, heap: &'static K::Heap) {
    let mut claim = keeper.with_abandoned(|abandoned| abandoned.claim(heap));
    while let Some(claimed) = claim {
        keeper.collect_claimed(&claimed);
        claim = keeper.with_abandoned(|abandoned| abandoned.unclaim(claimed));
    }
}
