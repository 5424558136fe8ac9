//! Heaps without a thread: abandoned when it ends, collected by whoever frees into them, reclaimed
//! by the next thread; and heaps whose threads a fork left behind.
//!
//! ```text
//! exit:    locked: on the list, Abandoned; then, if somebody pushed before: collect as a freer
//!          a small heap stays as it is (warm) while all warm ones are small together
//! free:    the mailbox says Abandoned → Claimed → collect → Abandoned; more? again
//! reclaim: locked: the first heap that becomes Active, as nobody claims it, off the list; collect
//! fork:    in the child: each other heap that a thread worked on is Orphaned for good
//! ```
//!
//! A freer claims by one exchange, without the lock: a claimed heap stays on the list.
//!
//! No free waits in an abandoned heap: its freer finds the heap active (then the ending thread or
//! the one that reclaims looks afterwards), claimed (then the claimant looks again), or collects
//! it. Each of them changes the life first and looks then, with a fence between; the freer lists
//! its group first and looks at the life then, with a fence between.
//!
//! A fork's child sees of each thread what it did up to some instruction (`heap/orphans.rs`), and
//! of what one learned of another no less: a heap that it finds abandoned nobody was working on.
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
pub struct Claim<H: 'static>(&'static H);

impl<H> Claim<H> {
    /// The right to a heap that nobody else knows of, or that is this thread's.
    ///
    /// # Safety
    /// Nobody else has the right to this heap, or will get it before this value is gone.
    pub unsafe fn new(heap: &'static H) -> Self {
        Claim(heap)
    }

    /// The heap.
    pub fn heap(&self) -> &'static H {
        self.0
    }
}

/// What the list keeps beside a heap.
struct Place<H: 'static> {
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
    /// Asks its thread, from another one, to collect what came back to the heap.
    fn ask(&self);
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

    /// Enters a heap: one at rest (`warm` is 0), or one left as it is, which counts as `warm`
    /// bytes. False, and nothing is done, if the warm ones would then have more than `WARM_BYTES`.
    /// Otherwise the caller must look into its mailbox once more.
    pub fn enter(&mut self, heap: &'static H, warm: usize) -> bool {
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
            let mail = heap.mail();
            if mail.take_over(Life::Abandoned, Life::Active)
                || mail.take_over(Life::Unused, Life::Active)
            {
                self.link(before, place.next);
                self.warm_bytes -= place.warm;
                self.change(heap, |place| place.warm = 0);
                return Some(Claim(heap));
            }
            before = next;
            next = place.next;
        }
        None
    }
}

/// In the child of a fork, for each heap but the caller's: if a thread worked on it, nobody does
/// ever again.
pub fn leave_behind<H: Tenant>(heap: &H) {
    if is_worked_on(heap) {
        heap.mail().set_life(Life::Orphaned);
    }
}

/// Whether a thread works on the heap, as its owner or because it claimed it: its state may be in
/// mid-update.
pub fn is_worked_on<H: Tenant>(heap: &H) -> bool {
    heap.mail().is(Life::Active) || heap.mail().is(Life::Claimed)
}

/// What this protocol needs of the allocator.
pub trait Keeper {
    /// Its heaps.
    type Heap: Tenant;
    /// Runs `work` on the abandoned heaps, under the lock.
    fn with_abandoned<R>(&self, work: impl FnOnce(&mut Abandoned<Self::Heap>) -> R) -> R;
    /// Collects what came back to a heap without a thread.
    fn collect_claimed(&self, claim: &Claim<Self::Heap>);
    /// Puts the complete groups of a heap aside, of which `bytes` bytes wait beyond what may be
    /// listed, if that is too much. The caller does not hold the lock.
    fn put_aside(&self, heap: &'static Self::Heap, bytes: usize);
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
        Sent::Delivered { much, beyond } => {
            if much {
                heap.ask();
            }
            if beyond > 0 {
                keeper.put_aside(heap, beyond);
            }
        }
        Sent::OwnerAbandoned => collect_abandoned(keeper, heap),
        Sent::Double => return false,
    }
    true
}

/// Ends a thread's work on its heap, which is at rest, or keeps its slots at hand and counts as
/// `warm` bytes. Gives the right back if heaps without a thread hold too much already.
pub fn abandon<K: Keeper>(
    keeper: &K,
    claim: Claim<K::Heap>,
    warm: usize,
) -> Option<Claim<K::Heap>> {
    let heap = claim.0;
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
    let mail = heap.mail();
    // If not, its new owner or the thread that claimed it looks into the mailbox after this.
    while mail.take_over(Life::Abandoned, Life::Claimed) {
        keeper.collect_claimed(&Claim(heap));
        mail.set_life(Life::Abandoned);
        if mail.is_empty() {
            return;
        }
    }
}
