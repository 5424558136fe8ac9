//! A thread's heap, the right to work on one, and all heaps of a process.

use crate::base::config::{CLASSES, KEEP_SHARES, MOST_HEAPS, PRESET, RUN_PAGE};
use crate::base::decay::{Kept, Pace};
use crate::base::places::places;
use crate::base::platform::Platform;
use crate::base::random::{Generator, GENERATORS};
use crate::base::sync::{AtomicPtr, AtomicUsize, Ordering};
use crate::base::zeroed::Zeroed;
use crate::exchange::abandoned::{Abandoned, Berth, Claim, Tenant};
use crate::exchange::deferred::Deferred;
use crate::exchange::mailbox::Mailbox;
use crate::heap::class::Class;
use crate::layout::chunk::CELL;
use crate::layout::group::{Group, MyGroup, Tag};
use crate::layout::record::FIRST_WIDE;
use crate::layout::slot::Entry;
use crate::layout::span::Span;
use crate::pages::memory::{Locked, Memory};
use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::{self, NonNull};

/// Room for the quarantine in each heap (at least one, for a valid array).
pub const QUARANTINE: usize = if PRESET.quarantine == 0 {
    1
} else {
    PRESET.quarantine
};

/// A heap as everybody knows it, for ever. What it holds is its body.
#[repr(C, align(64))]
pub struct Heap {
    /// Frees from other threads, on a line of its own.
    pub mail: Line<Mailbox<Group>>,
    /// Its place among the abandoned heaps.
    berth: Berth<Heap>,
    /// Its number. Fixed once the heap is entered; used under the lock, and at rest in checks.
    id: Cell<u16>,
    /// The body; null before the heap is entered, and fixed from then on. The body of a heap that
    /// was left without a group is zero memory again, see `Heaps::leave`.
    body: AtomicPtr<Body>,
}

// SAFETY: berth and number are used under the lock, the rest is atomic. The body is for whoever has
// a `MyHeap`, of which one thread has a value at a time; others use atomics in it.
unsafe impl Sync for Heap {}

/// The body of a heap: what belongs to whoever may work on it, at a page's start.
#[repr(C, align(64))]
pub struct Body {
    /// The heap; None for the empty one, before `start`, and in what a fork left of a heap whose
    /// groups went to another.
    heap: Cell<Option<&'static Heap>>,
    /// Number of this heap, as the tag of its groups of class 0; 0 for the empty one. Fixed from
    /// `start` on.
    pub own: Cell<Tag>,
    /// Counts refills, see there.
    pub refills: Cell<u32>,
    /// Whether its thread has it for the time of a call only, see `allocator/thread.rs`.
    pub lent: Cell<bool>,
    /// Whether its body goes with its last group: no thread has it, and nobody counts what it
    /// holds.
    pub cold: Cell<bool>,
    /// Whether the slot of a wide class that malloc took last was never used, and zero.
    pub zero: Cell<bool>,
    /// The thread that has it, or had it last, as the system numbers threads: for people who look.
    pub thread: Cell<u32>,
    /// Bytes of its groups.
    pub bytes: Cell<usize>,
    /// Bytes of those in queues that are empty.
    pub retained: Cell<usize>,
    /// How often it settles, see `settle`.
    pub settled: Pace,
    /// Bytes in free slots of long strides whose pages are dirty.
    pub idle: Kept,
    /// Dirty granules of spans that no group uses.
    pub idle_granules: Kept,
    /// Spans with room.
    pub spans: Cell<Option<&'static Span>>,
    /// Slots of all groups of each class.
    pub slots: [Cell<u32>; CLASSES],
    /// Freed slots of other heaps. Here, as most threads touch no class behind the first two pages.
    pub deferred: Deferred<Group>,
    /// One a class; what a process does not use stays untouched.
    classes: [Class; CLASSES],
    /// Freed slots in quarantine, hardened preset only.
    pub quarantine: [Cell<Entry>; QUARANTINE],
    /// Of choices, hardened preset only.
    pub generator: [Generator; GENERATORS],
}

/// Something on a cache line of its own.
#[repr(align(64))]
pub struct Line<T>(pub T);

impl Tenant for Heap {
    type Group = Group;
    fn mail(&self) -> &Mailbox<Group> {
        &self.mail.0
    }
    fn berth(&self) -> &Berth<Heap> {
        &self.berth
    }
    /// Its next free of a block of its own takes a longer path, see `allocator/free.rs`.
    #[cold]
    fn ask(&self) {
        let classes = self.body().into_iter().flat_map(|body| &body.classes);
        classes.for_each(Class::ask);
    }
}

// SAFETY: atomics of numbers and pointers, and references behind an Option: no free waits.
unsafe impl Zeroed for Heap {}
// SAFETY: cells and atomics of numbers and pointers, and references behind an Option. It is a heap
// without groups: malloc finds every reuse queue empty, and every group is somebody else's.
unsafe impl Zeroed for Body {}
// SAFETY: reached by `MyHeap` only, of which one thread has a value at a time (or reads a heap at
// rest, in checks), and by `Heap::body`, whose users read atomics.
unsafe impl Sync for Body {}

impl Heap {
    /// Where its fields are: body, life; and its size.
    pub const FIELDS: [usize; 3] = places!(Heap: body;
        offset_of!(Heap, mail) + Mailbox::<Group>::LIFE, size_of::<Heap>());

    /// The body; None before the heap is entered.
    fn body(&self) -> Option<&'static Body> {
        // Acquire: what `enter` found in the body is there.
        let body = self.body.load(Ordering::Acquire);
        // SAFETY: `enter` was given it for ever, and zero is a body.
        unsafe { body.as_ref() }
    }

    /// The heap's number.
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// Gives the heap another number, which is wrong.
    #[cfg(test)]
    pub fn renumber(&self, id: u16) {
        self.id.set(id);
    }

    /// Whether nobody can use the heap before it is set up again: it was left without a group, or
    /// it is orphaned, and what it had goes to another, see `orphans.rs`.
    pub fn is_unset(&self) -> bool {
        self.body().is_none_or(|body| body.heap.get().is_none())
    }

    /// Readies an unset heap for `set_up`: what a fork left there goes.
    ///
    /// # Safety
    /// The heap is the caller's.
    pub unsafe fn clear(&self) {
        if self.body().is_some_and(|body| body.own.get().owner() != 0) {
            self.mail.0.forget();
            // SAFETY: the caller has the heap, and zero is a body.
            unsafe { self.body.load(Ordering::Relaxed).write_bytes(0, 1) };
        }
    }

    /// Slots of the current group of a class that malloc may take, of any heap: what another thread
    /// reads may be old, and is good for the name of a fault only.
    pub fn peek_avail(&self, class: usize) -> u32 {
        self.body().map_or(0, |body| {
            let avail = body.classes[class].avail.as_ptr();
            // SAFETY: the field exists; volatile, as the owner may be at work.
            unsafe { avail.read_volatile() }
        })
    }

    /// Shows `look` the slots in a class's reuse queue, of any heap, see `Class::watch`.
    pub fn watch<E>(&self, class: usize, look: impl Fn(*mut u8) -> Result<(), E>) -> Result<(), E> {
        self.body()
            .map_or(Ok(()), |body| body.classes[class].watch(look))
    }

    /// In the only thread of a fork's child: the heap's choices are to be others than the parent's.
    pub fn forget_choices(&self) {
        let generator = self.body().into_iter().flat_map(|body| &body.generator);
        generator.for_each(Generator::forget);
    }

    /// Marks an orphaned heap so.
    pub fn unset(&self) {
        self.body().inspect(|body| body.heap.set(None));
    }
}

/// The right to work on a heap, and the way to everything that heaps share.
///
/// It proves that the caller is the heap's own thread, or claimed the heap while it has none; or
/// that the heap is the empty one, which is read only: it has no slots, no groups, and room for
/// none. A copy must not outlive the right that it was made of.
pub struct MyHeap<'a, P: Platform> {
    body: &'static Body,
    /// What heaps share.
    pub all: &'a Heaps<P>,
    /// It stays in its thread.
    here: PhantomData<*mut ()>,
}

// Not derived: that would ask it of P.
impl<P: Platform> Clone for MyHeap<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform> Copy for MyHeap<'_, P> {}

impl<P: Platform> Deref for MyHeap<'_, P> {
    type Target = Body;
    fn deref(&self) -> &Body {
        self.body
    }
}

impl Body {
    /// Where its fields are: heap, thread, deferred frees, classes, quarantine, slots by class, bytes
    /// idle, granules idle; and room of the quarantine.
    pub const FIELDS: [usize; 9] = places!(Body:
        heap, thread, deferred, classes, quarantine, slots;
        offset_of!(Body, idle) + Kept::AMOUNT, offset_of!(Body, idle_granules) + Kept::AMOUNT,
        PRESET.quarantine);
}

impl<'a, P: Platform> MyHeap<'a, P> {
    /// The right of whoever claimed the heap.
    pub fn claimed(claim: &Claim<Heap>, all: &'a Heaps<P>) -> Self {
        MyHeap {
            body: claim.heap().body().unwrap_or(all.empty()),
            all,
            here: PhantomData,
        }
    }

    /// The heap as others know it.
    pub fn heap(self) -> &'static Heap {
        self.heap.get().unwrap_or(self.all.nobody())
    }

    /// The heap's number.
    pub fn id(self) -> u16 {
        self.own.get().owner()
    }

    /// Begins the use of a heap whose body is zero.
    pub fn start(self, claim: &Claim<Heap>) {
        self.heap.set(Some(claim.heap()));
        self.own.set(Tag::new(claim.heap().id(), 0));
    }

    /// The system underneath.
    pub fn platform(self) -> &'a P {
        &self.all.memory.system.platform
    }

    /// A class of the heap.
    pub fn class(self, class: usize) -> &'static Class {
        debug_assert!(class < CLASSES);
        // In 32 bits: in a free, the class comes from a tag by a shift to the right, which falls
        // together with the one to the left here.
        let offset = class as u32 * size_of::<Class>() as u32;
        // SAFETY: classes are made by `class_of`, which gives no other, or are those of groups that
        // heaps own.
        unsafe { &*self.body.classes.as_ptr().byte_add(offset as usize) }
    }

    /// The classes of which the heap has groups, with their numbers: no others have a slot out.
    pub fn classes(self) -> impl Iterator<Item = (usize, &'static Class)> + use<'a, P> {
        (0..CLASSES)
            .filter(move |&class| self.slots[class].get() != 0)
            .map(move |class| (class, self.class(class)))
    }

    /// Whether the group is this heap's, of this class.
    #[inline(always)]
    pub fn owns_of(self, group: &Group, class: usize) -> bool {
        group.tag().class_of(self.own.get()) == class
    }

    /// Whose a group is.
    #[inline(always)]
    pub fn whose(self, group: &'static Group) -> Whose {
        let class = group.tag().class_of(self.own.get());
        // SAFETY: called where the heap owns the group, and nobody else may work on the heap.
        let mine = || unsafe { MyGroup::new(group) };
        if class < FIRST_WIDE {
            Whose::Narrow(mine(), class)
        } else if class < CLASSES {
            Whose::Wide(mine())
        } else {
            Whose::Others
        }
    }

    /// A random number below `bound`, see `Generator`; 0 in presets without choices.
    #[inline(always)]
    pub fn choose(self, bound: usize) -> usize {
        let below = |generator: &Generator| generator.below(bound, self.platform());
        self.generator.first().map_or(0, below)
    }

    /// Whether it is the empty heap.
    pub fn is_empty(self) -> bool {
        ptr::eq(self.body, &self.all.empty)
    }
}

/// Whose a group is to a heap.
pub enum Whose {
    /// Its own, of this narrow class.
    Narrow(MyGroup, usize),
    /// Its own, of a wide class: that the compiler is not to know the number of it here saves
    /// instructions above.
    Wide(MyGroup),
    /// Another's, or nobody's.
    Others,
}

/// Heaps that the first table holds, number 0 for nobody's; and each further one.
const FIRST_HEAPS: usize = 4;
const MORE_HEAPS: usize = 128;
/// Further tables, enough for every number of 16 bits.
const TABLES: usize = (1 << 16) / MORE_HEAPS;

/// Who there is among the heaps. The lock protects it.
pub struct Roster {
    /// Heaps without a thread.
    pub abandoned: Abandoned<Heap>,
    /// Whether heaps that a fork left behind may hold groups without a block, see `orphans.rs`.
    pub orphans: bool,
    /// Number of the orphaned heap that takes over what others have; 0 unless `bury` is at work.
    pub heir: u16,
}

// SAFETY: numbers, and references behind an Option; no heap is abandoned.
unsafe impl Zeroed for Roster {}

/// All heaps of a process.
///
/// What a small process writes stands together: at the start what the lock protects, and behind it
/// the pagemap of low addresses, where the chunks of a program that is not moved (PIE) lie.
#[repr(C)]
pub struct Heaps<P: Platform> {
    /// The first heaps by number.
    first: [Heap; FIRST_HEAPS],
    roster: UnsafeCell<Roster>,
    /// Heaps there are; also the highest number of a heap.
    count: AtomicUsize,
    /// Pages, large blocks, and the lock.
    pub memory: Memory<P>,
    /// The heap of a thread that has none: no slots, no groups. Never written.
    empty: Body,
    /// Tables of further heaps. They only ever appear.
    more: [AtomicPtr<Heap>; TABLES],
}

// SAFETY: the roster is reached with the lock in hand only; all else is `Sync` itself.
unsafe impl<P: Platform> Sync for Heaps<P> {}

/// Bytes of the whole pages of a body.
pub const BODY_BYTES: usize = size_of::<Body>().next_multiple_of(RUN_PAGE);

impl<P: Platform> Heaps<P> {
    /// Where its fields are: the first heaps, the number of heaps, tables of further ones, memory; and
    /// how many the first are, how many tables there are, and of how many heaps each.
    pub const FIELDS: [usize; 7] = places!(Self: first, count, more, memory;
        FIRST_HEAPS, TABLES, MORE_HEAPS);

    /// No heap. All bytes are zero, if the platform's are.
    pub const fn new(platform: P) -> Self {
        Heaps {
            first: [Heap::ZERO; FIRST_HEAPS],
            roster: UnsafeCell::new(Roster::ZERO),
            count: AtomicUsize::new(0),
            memory: Memory::new(platform),
            empty: Body::ZERO,
            more: [const { AtomicPtr::new(ptr::null_mut()) }; TABLES],
        }
    }

    /// What the lock protects of the heaps.
    pub fn roster<'b>(&self, _: &'b mut Locked<'_, P>) -> &'b mut Roster {
        // SAFETY: the caller has the lock in hand, borrowed alone for as long as the result lives.
        unsafe { &mut *self.roster.get() }
    }

    /// The calling thread's heap, perhaps the empty one. The thread's word holds the distance from
    /// the empty heap, so that a new thread's zero needs no test.
    #[inline(always)]
    pub fn mine(&self) -> MyHeap<'_, P> {
        // By the classes, the part that malloc and free need: to what has an address of its own the
        // compiler adds distances one by one.
        let empty = (&raw const self.empty.classes).expose_provenance();
        let classes = self.memory.system.platform.add_heap_field(empty);
        let classes = ptr::with_exposed_provenance::<u8>(classes);
        let body = classes.wrapping_sub(offset_of!(Body, classes));
        MyHeap {
            // SAFETY: `set_mine` wrote a body's distance, or none was written: bodies stay for
            // ever, and this thread has the right to the one in its word.
            body: unsafe { &*body.cast::<Body>() },
            all: self,
            here: PhantomData,
        }
    }

    /// Makes `heap`, which the caller has the right to, the calling thread's heap; None: the empty
    /// one.
    pub fn set_mine(&self, heap: Option<&'static Heap>) {
        let body = heap.and_then(Heap::body).unwrap_or(self.empty());
        let distance = (ptr::from_ref(body).expose_provenance())
            .wrapping_sub((&raw const self.empty).expose_provenance());
        self.memory.system.platform.set_heap_field(distance);
    }

    /// The empty heap.
    fn empty(&self) -> &'static Body {
        // SAFETY: it is a part of the process, which lives for ever.
        unsafe { &*ptr::from_ref(&self.empty) }
    }

    /// The empty heap as others know it: it has no number and owns nothing.
    fn nobody(&self) -> &'static Heap {
        // SAFETY: it is a part of the process, which lives for ever.
        unsafe { &*ptr::from_ref(&self.first[0]) }
    }

    /// Heap number `id`. None before it is entered, and for numbers of no heap.
    #[inline(never)]
    pub fn by_id(&self, id: u16) -> Option<&'static Heap> {
        let heap = self.heap_at(id as usize)?;
        (!heap.body.load(Ordering::Relaxed).is_null()).then_some(heap)
    }

    /// Where heap number `id` is, or will be if there is a table for it.
    fn heap_at(&self, id: usize) -> Option<&'static Heap> {
        let Some(further) = id.checked_sub(FIRST_HEAPS) else {
            // SAFETY: it is a part of the process, which lives for ever.
            return Some(unsafe { &*ptr::from_ref(&self.first[id]) });
        };
        // Acquire: the table's memory is there.
        let more = self.more[further / MORE_HEAPS].load(Ordering::Acquire);
        if more.is_null() {
            return None;
        }
        // SAFETY: a table, which stays once it is entered.
        Some(unsafe { &*more.add(further % MORE_HEAPS) })
    }

    /// The owner of a group that a heap owns: the empty heap for any other.
    pub fn owner_of(&self, group: &Group) -> &'static Heap {
        self.by_id(group.owner()).unwrap_or(self.nobody())
    }

    /// Heaps that there are, in the order of their numbers.
    pub fn each(&self) -> impl Iterator<Item = &'static Heap> + '_ {
        (1..=self.count()).filter_map(|id| self.by_id(id as u16))
    }

    /// A heap with the next number, which nobody knows of before `count` has it. `body` gives
    /// memory for its body. None when memory or numbers are out.
    pub fn enter(
        &self,
        locked: &mut Locked<'_, P>,
        body: impl FnOnce(&mut Locked<'_, P>) -> Option<*mut Body>,
    ) -> Option<&'static Heap> {
        let id = self.count() + 1;
        if id > MOST_HEAPS {
            return None;
        }
        if self.heap_at(id).is_none() {
            let table = locked
                .pages
                .metadata(MORE_HEAPS * size_of::<Heap>(), CELL)?;
            let more = &self.more[(id - FIRST_HEAPS) / MORE_HEAPS];
            // Release: see `heap_at`.
            more.store(table.cast(), Ordering::Release);
        }
        let heap = self.heap_at(id)?;
        heap.id.set(id as u16);
        // Release: see `Heap::body`.
        heap.body.store(body(locked)?, Ordering::Release);
        // Relaxed: a number that orders nothing.
        self.count.store(id, Ordering::Relaxed);
        Some(heap)
    }

    /// Whether the bodies of heaps behind the first fill pages of the system, so that each can go
    /// alone. Longer pages hold several: to give each its own would cost more than a body.
    pub fn have_bodies_pages(&self) -> bool {
        BODY_BYTES % self.memory.system.platform.page_size() == 0
    }

    /// Lets the body of a heap that no thread has any more be zero memory again, if the heap has no
    /// group: the next thread sets it up anew.
    pub fn leave(&self, claim: &Claim<Heap>) {
        let heap = MyHeap::claimed(claim, self);
        let is_bare = heap.bytes.get() == 0 && heap.spans.get().is_none();
        // The first one's body is a part of the process.
        let has_pages = claim.heap().id() != 1 && self.have_bodies_pages();
        let body = NonNull::new(claim.heap().body.load(Ordering::Relaxed).cast());
        if let Some(body) = body.filter(|_| is_bare && has_pages) {
            // Refused, all stays as it is.
            // SAFETY: nobody else works on the heap, zero is a body, and `attach` gave it whole
            // pages.
            unsafe { heap.platform().purge(body, BODY_BYTES) };
        }
    }

    /// Heaps there are. Relaxed: a number that orders nothing.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether no further heap can be made. Then one at least is abandoned, or lent for a call.
    pub fn are_numbers_out(&self) -> bool {
        self.count() >= MOST_HEAPS
    }

    /// What one heap may keep for later of an allowance for all: many threads together are not to
    /// hold many times what one may, few are not to run short.
    pub fn share(&self, allowance: usize) -> usize {
        allowance / self.count().clamp(1, KEEP_SHARES)
    }

    /// Whether the owner of a group stayed behind in the parent of a fork.
    #[inline(never)]
    pub fn is_orphan(&self, group: &Group) -> bool {
        self.owner_of(group).mail.0.is_orphaned()
    }
}
