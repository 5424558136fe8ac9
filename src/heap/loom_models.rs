//! Models under loom of what threads do to each other without a lock, and of the lock itself. They
//! run the shipped `deferred`, `mailbox`, `abandoned` and `lock`; of a group and a heap they keep
//! what these see.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p byssal-heap --release --target-dir target/loom`
//!
//! Each prints how many executions it explored. docs/results/mutants.md lists which of them notice
//! each mutation of the shipped code.

use crate::base::lock::{Futex, Held, Lock};
use crate::base::sync::{AtomicPtr, AtomicU32, Ordering, Plain};
use crate::base::zeroed::Zeroed;
use crate::exchange::abandoned::{self, Abandoned, Berth, Claim, Keeper, Tenant};
use crate::exchange::deferred::Deferred;
use crate::exchange::mailbox::{is_aside, Life, Mailbox, Node, RemoteMask};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use std::sync::atomic::AtomicUsize as Counter;

/// Runs every execution of a model in which threads are interrupted at most `preemptions` times
/// (all executions if None), and prints their number.
fn explore(name: &str, preemptions: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let executions = std::sync::Arc::new(Counter::new(0));
    let counted = executions.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        // Relaxed: a count, outside of the model.
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let executions = executions.load(Ordering::Relaxed);
    let bound = preemptions.map_or("none".to_owned(), |n| n.to_string());
    println!("model {name}: {executions} executions, bound on preemptions: {bound}");
    assert!(executions > 1, "nothing was explored");
}

/// A group: slots with contents that loom watches for races, and what the owner got back.
struct Group {
    mask: RemoteMask,
    link: AtomicPtr<Group>,
    /// One a slot: written by whoever has the block.
    contents: [Plain<u32>; 2],
    /// Written under the right to work on the heap.
    freed: Plain<u32>,
    /// Whether the cell still is this group's. Release writes it: what comes later is a race.
    alive: Plain<bool>,
}

impl Group {
    /// As every use of a group's cell: it must not race with the group's release.
    fn touch(&self) {
        // SAFETY: loom reports if not.
        assert!(unsafe { self.alive.get() }, "a released group is used");
    }
}

impl Node for Group {
    fn mask(&self) -> &RemoteMask {
        self.touch();
        &self.mask
    }
    fn link(&self) -> &AtomicPtr<Group> {
        self.touch();
        &self.link
    }
    fn slots(&self) -> u32 {
        self.touch();
        3
    }
    fn weight(&self) -> usize {
        self.touch();
        1
    }
}

/// A heap: its mailbox and its place among the abandoned ones.
struct Heap {
    mail: Mailbox<Group>,
    berth: Berth<Heap>,
    /// Stands for all of the heap's plain state.
    state: Plain<u32>,
}

impl Tenant for Heap {
    type Group = Group;
    fn mail(&self) -> &Mailbox<Group> {
        &self.mail
    }
    fn berth(&self) -> &Berth<Heap> {
        &self.berth
    }
    fn ask(&self) {}
}

/// A heap with two groups, and the lock with the abandoned heaps.
struct World {
    heap: Box<Heap>,
    groups: [Box<Group>; 2],
    abandoned: Mutex<Abandoned<Heap>>,
    /// Double frees that a collection found.
    doubles: Plain<u32>,
    /// In a process that forks, whether somebody is working on the heap. A fork stops every thread
    /// at its next write, as the system protects the pages: here at the lock before it.
    fork: Option<Mutex<bool>>,
    /// Whether complete groups are put aside at once.
    aside: bool,
}

// SAFETY: what the cells hold is handed over by the protocol under test; loom reports if not.
unsafe impl Sync for World {}
// SAFETY: what the cells hold is handed over by the code under test; loom reports if not.
unsafe impl Send for World {}

impl Keeper for World {
    type Heap = Heap;

    fn with_abandoned<R>(&self, work: impl FnOnce(&mut Abandoned<Heap>) -> R) -> R {
        work(&mut self.abandoned.lock().unwrap())
    }

    fn collect_claimed(&self, _: &Claim<Heap>) {
        self.collect();
    }

    /// As in `heap/aside.rs`, by a freer that completed a group: none may wait.
    fn put_aside(&self, heap: &'static Heap, _: usize) {
        if !self.aside {
            return;
        }
        self.with_abandoned(|_| {
            // SAFETY: the lock is held.
            let held = unsafe { Held::new() };
            if heap.mail.is(Life::Active) {
                heap.mail.put_aside(&held, |group| {
                    // SAFETY: no slot holds a block, and the group is off the list.
                    group
                        .contents
                        .iter()
                        .for_each(|slot| unsafe { slot.set(9) });
                    true
                });
            }
        });
    }
}

impl World {
    /// An active heap; both slots of both groups hold blocks.
    fn new() -> Arc<World> {
        Arc::new(World::with(None, false))
    }

    /// The same, in a process that forks, or one where freers put complete groups aside.
    fn with(fork: Option<Mutex<bool>>, aside: bool) -> World {
        let group = || {
            Box::new(Group {
                mask: RemoteMask::new(),
                link: AtomicPtr::new(core::ptr::null_mut()),
                contents: [Plain::new(0), Plain::new(0)],
                freed: Plain::new(0),
                alive: Plain::new(true),
            })
        };
        let world = World {
            heap: Box::new(Heap {
                mail: Mailbox::new(),
                berth: Berth::new(),
                state: Plain::new(0),
            }),
            groups: [group(), group()],
            abandoned: Mutex::new(Abandoned::new()),
            doubles: Plain::new(0),
            fork,
            aside,
        };
        world.heap.mail.set_life(Life::Active);
        world
    }

    fn heap(&self) -> &'static Heap {
        // SAFETY: the world outlives its threads, and nobody keeps the heap beyond it.
        unsafe { &*&raw const *self.heap }
    }

    fn group(&self, index: usize) -> &'static Group {
        // SAFETY: the world outlives its threads, and nobody keeps the group beyond it.
        unsafe { &*&raw const *self.groups[index] }
    }

    /// A thread that has the block of `slot` writes it a last time and frees it. False: a double
    /// free.
    fn free(&self, group: usize, slot: usize) -> bool {
        // SAFETY: the block is this thread's.
        unsafe { self.groups[group].contents[slot].set(7) };
        self.give_back(self.group(group), 1 << slot)
    }

    fn give_back(&self, group: &'static Group, bits: u32) -> bool {
        abandoned::give_back(self, self.heap(), group, bits)
    }

    /// A thread writes the blocks of `slots` in the first group a last time, frees them one by one,
    /// and then sends all at once, as `Allocator::free_remote` and `MyHeap::flush` do. False: a
    /// double free.
    fn free_together(&self, slots: &[usize], write: bool) -> bool {
        let deferred = Deferred::ZERO;
        let group = self.group(0);
        for &slot in slots {
            if write {
                // SAFETY: the block is this thread's.
                unsafe { self.groups[0].contents[slot].set(7) };
            }
            assert!(deferred.start(group).is_none());
            assert!(deferred.join(group, 1 << slot));
            deferred.count(16);
        }
        let mut single = true;
        deferred.take_all(0, |group, bits| single &= self.give_back(group, bits));
        single
    }

    /// By whoever may work on the heap: reuses each slot that came back.
    fn collect(&self) {
        self.note_work(true);
        // SAFETY: the caller may work on the heap, and slots that came back are nobody else's.
        unsafe {
            self.heap.state.set(self.heap.state.get() + 1);
            self.heap.mail.collect(0, |group, bits| {
                for slot in 0..2 {
                    if bits & 1 << slot != 0 {
                        group.contents[slot].set(8);
                    }
                }
                let freed = group.freed.get();
                // As `MyHeap::got_back`, which stops the process.
                self.doubles
                    .set(self.doubles.get() + (freed & bits).count_ones());
                group.freed.set(freed | bits);
            });
        }
        if self.heap.mail.has_aside() {
            self.collect_aside();
        }
        self.note_work(false);
    }

    /// The same of groups that freers put aside.
    fn collect_aside(&self) {
        let groups = self.with_abandoned(|_| {
            // SAFETY: the lock is held.
            self.heap.mail.take_aside(unsafe { &Held::new() })
        });
        for group in groups {
            // SAFETY: nobody else asks; what may be wrong loom reports.
            let aside = is_aside(group, unsafe { &Held::new() });
            assert!(
                group.mask.peek() == 0 && !aside,
                "it is a group like others"
            );
            // SAFETY: the caller may work on the heap, and what was aside is nobody else's.
            unsafe {
                group.contents.iter().for_each(|slot| slot.set(8));
                self.doubles
                    .set(self.doubles.get() + group.freed.get().count_ones());
                group.freed.set(3);
            }
        }
    }

    /// Notes that somebody begins or ends work on the heap.
    fn note_work(&self, works: bool) {
        if let Some(fork) = &self.fork {
            *fork.lock().unwrap() = works;
        }
    }

    /// As the owner does when it finds a group empty. Whether it was.
    fn release_if_empty(&self, group: usize) -> bool {
        // SAFETY: the caller may work on the heap.
        unsafe {
            let group = &self.groups[group];
            let empty = group.freed.get() == 3;
            if empty {
                group.alive.set(false);
            }
            empty
        }
    }

    /// As `Allocator::thread_exit`, the heap at rest, or with `warm` bytes as it is.
    fn abandon(&self, warm: usize) {
        // SAFETY: the caller is the owner.
        let claim = unsafe { Claim::new(self.heap()) };
        assert!(abandoned::abandon(self, claim, warm).is_none());
    }

    /// As `Allocator::attach`.
    fn reclaim(&self) -> bool {
        let claim = self.with_abandoned(|abandoned| abandoned.reclaim(true));
        if claim.is_some() {
            self.collect();
        }
        claim.is_some()
    }

    /// As a call of a thread that keeps no heap. False: the heap is not to be had.
    fn borrow(&self) -> bool {
        let lent = self.reclaim();
        if lent {
            self.abandon(1);
        }
        lent
    }

    fn freed(&self, group: usize) -> u32 {
        // SAFETY: all threads have ended, or the caller owns the heap.
        unsafe { self.groups[group].freed.get() }
    }
}

fn spawn<R: 'static>(world: &Arc<World>, run: impl FnOnce(&World) -> R + 'static) -> JoinHandle<R> {
    let world = world.clone();
    thread::spawn(move || run(&world))
}

/// The owner refills while another thread frees two blocks of one group.
#[test]
fn remote_free_against_refill() {
    explore("remote free, refill", None, || {
        let world = World::new();
        let other = spawn(&world, |w| assert!(w.free(0, 0) && w.free(0, 1)));
        world.collect();
        other.join().unwrap();
        world.collect();
        assert_eq!(world.freed(0), 3, "nothing is lost");
    });
}

/// Two freers, two groups, one owner: pushes race on the list's head.
#[test]
fn two_freers_against_the_owner() {
    explore("two freers, owner", None, || {
        let world = World::new();
        let one = spawn(&world, |w| assert!(w.free(0, 0) && w.free(1, 0)));
        let two = spawn(&world, |w| assert!(w.free(0, 1)));
        world.collect();
        one.join().unwrap();
        two.join().unwrap();
        world.collect();
        assert_eq!((world.freed(0), world.freed(1)), (3, 1));
    });
}

/// The owner releases a group as soon as it has all slots back, while the freers of its slots may
/// not have returned.
#[test]
fn release_against_late_remote_frees() {
    explore("group release, late remote frees", None, || {
        let world = World::new();
        let freers = [0, 1].map(|slot| spawn(&world, move |w| assert!(w.free(0, slot))));
        let mut released = false;
        for _ in 0..2 {
            world.collect();
            released = released || world.release_if_empty(0);
        }
        for freer in freers {
            freer.join().unwrap();
        }
        if !released {
            world.collect();
            assert!(world.release_if_empty(0), "both slots came back");
        }
    });
}

/// The owner exits while two threads free: no free waits for one that reclaims.
#[test]
fn remote_free_against_thread_exit() {
    explore("remote frees, thread exit", Some(4), || {
        let world = World::new();
        let freers = [0, 1].map(|slot| spawn(&world, move |w| assert!(w.free(0, slot))));
        world.abandon(0);
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!(world.freed(0), 3, "no free waits in an abandoned heap");
    });
}

/// Two threads free into an abandoned heap: one claims it, the other leaves its bits to it.
#[test]
fn abandoned_heap_drained_by_freers() {
    explore("abandoned heap, two freers", None, || {
        let world = World::new();
        world.abandon(0);
        let freers = [0, 1].map(|group| spawn(&world, move |w| assert!(w.free(group, 0))));
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!((world.freed(0), world.freed(1)), (1, 1));
        assert!(world.reclaim(), "no claim is left");
    });
}

/// An abandoned heap is reclaimed while another thread frees into it.
#[test]
fn remote_free_against_reclaim() {
    explore("remote free, reclaim", None, || {
        let world = World::new();
        world.abandon(0);
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let reclaimed = world.reclaim();
        freer.join().unwrap();
        if reclaimed {
            world.collect();
        }
        assert_eq!(world.freed(0), 1);
    });
}

/// The owner exits, a new thread reclaims, another frees, all at once.
#[test]
fn exit_reclaim_and_free() {
    explore("remote free, exit, reclaim", Some(4), || {
        let world = World::new();
        let freer = spawn(&world, |w| assert!(w.free(0, 1)));
        let reclaimer = spawn(&world, World::reclaim);
        world.abandon(1);
        freer.join().unwrap();
        if reclaimer.join().unwrap() {
            world.collect();
        }
        assert_eq!(world.freed(0), 2);
    });
}

/// Two threads borrow the heap while another frees into it: no free waits, and the heap is not
/// lost.
#[test]
fn loans_against_remote_free() {
    explore("two loans, remote free", Some(3), || {
        let world = World::new();
        world.abandon(0);
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let other = spawn(&world, World::borrow);
        world.borrow();
        freer.join().unwrap();
        other.join().unwrap();
        assert_eq!(world.freed(0), 1);
        assert!(world.reclaim(), "it is abandoned again");
    });
}

/// Two threads free the same slot, and nobody collects: exactly one is told so.
#[test]
fn two_remote_frees_of_one_slot() {
    explore("two remote frees of one slot", None, || {
        let world = World::new();
        let freers = [0, 1].map(|_| spawn(&world, |w| w.give_back(w.group(0), 1)));
        let done = freers.map(|freer| freer.join().unwrap());
        assert_ne!(done[0], done[1]);
    });
}

/// Two threads free the same slot while the owner collects: the second free is told so, or the
/// collection finds it.
#[test]
fn two_remote_frees_of_one_slot_against_refill() {
    explore("two remote frees of one slot, refill", None, || {
        let world = World::new();
        let freers = [0, 1].map(|_| spawn(&world, |w| w.give_back(w.group(0), 1)));
        world.collect();
        let done = freers.map(|freer| freer.join().unwrap());
        world.collect();
        let told = done.iter().filter(|done| !**done).count() as u32;
        // SAFETY: all threads have ended.
        assert_eq!(told + unsafe { world.doubles.get() }, 1);
    });
}

/// Two threads complete a group, which is put aside, while the owner collects and releases it as
/// soon as it has all; a third slot is freed meanwhile, whose group is listed again.
#[test]
fn groups_put_aside_against_the_owner() {
    explore("groups put aside, owner", Some(3), || {
        let world = Arc::new(World::with(None, true));
        let one = spawn(&world, |w| assert!(w.free(1, 0) && w.free(0, 0)));
        let two = spawn(&world, |w| assert!(w.free(0, 1)));
        world.collect();
        let released = world.release_if_empty(0);
        one.join().unwrap();
        two.join().unwrap();
        world.collect();
        assert!(
            released || world.release_if_empty(0),
            "both slots came back"
        );
        assert_eq!(world.freed(1), 1, "what was listed again is found");
    });
}

/// The owner exits while a group of its is put aside: nothing waits in the abandoned heap.
#[test]
fn groups_put_aside_against_thread_exit() {
    explore("groups put aside, thread exit", Some(4), || {
        let world = Arc::new(World::with(None, true));
        let freers = [0, 1].map(|slot| spawn(&world, move |w| assert!(w.free(0, slot))));
        world.abandon(0);
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!(world.freed(0), 3, "no group waits in an abandoned heap");
        assert!(world.reclaim(), "no claim is left");
    });
}

/// Slots that a thread deferred come together, while the owner collects and releases the group as
/// soon as it has all.
#[test]
fn frees_sent_together_against_release() {
    explore("frees sent together, group release", None, || {
        let world = World::new();
        let freer = spawn(&world, |w| assert!(w.free_together(&[0, 1], true)));
        world.collect();
        let released = world.release_if_empty(0);
        freer.join().unwrap();
        if !released {
            world.collect();
            assert!(world.release_if_empty(0), "both slots came back");
        }
    });
}

/// Slots that a thread deferred come together, while another thread frees and the owner exits.
#[test]
fn frees_sent_together_against_thread_exit() {
    explore("frees sent together, thread exit", Some(4), || {
        let world = World::new();
        let together = spawn(&world, |w| assert!(w.free_together(&[0, 1], true)));
        let alone = spawn(&world, |w| assert!(w.free(1, 0)));
        world.abandon(0);
        together.join().unwrap();
        alone.join().unwrap();
        assert_eq!((world.freed(0), world.freed(1)), (3, 1));
    });
}

/// A slot whose free one thread defers with another one is freed by a second thread, too: whoever
/// sends later is told so, or the collection finds it.
#[test]
fn a_slot_deferred_by_two_threads() {
    explore("a slot deferred by two threads, refill", None, || {
        let world = World::new();
        let both = spawn(&world, |w| w.free_together(&[0, 1], false));
        let one = spawn(&world, |w| w.free_together(&[0], false));
        world.collect();
        let done = [both.join().unwrap(), one.join().unwrap()];
        world.collect();
        let told = done.iter().filter(|done| !**done).count() as u32;
        // SAFETY: all threads have ended.
        assert_eq!(told + unsafe { world.doubles.get() }, 1);
    });
}

/// A fork while the owner exits and another thread frees, perhaps claiming the heap: what the
/// child does not leave behind nobody was working on.
#[test]
fn fork_against_exit_and_remote_free() {
    explore("fork, exit, remote free", None, || {
        let world = Arc::new(World::with(Some(Mutex::new(false)), false));
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let owner = spawn(&world, |w| {
            w.collect();
            w.abandon(0);
        });
        // The lock is held over the fork.
        world.with_abandoned(|_| {
            let works = world.fork.as_ref().unwrap().lock().unwrap();
            assert!(!*works || abandoned::is_worked_on(world.heap()));
        });
        freer.join().unwrap();
        owner.join().unwrap();
        assert_eq!(world.freed(0), 1);
    });
}

/// futex(2): the comparison and going to sleep are one step.
#[derive(Default)]
struct Room {
    door: Mutex<()>,
    bell: Condvar,
}

impl Futex for Arc<Room> {
    fn wait(&self, word: &AtomicU32, value: u32) {
        let inside = self.door.lock().unwrap();
        if word.load(Ordering::Relaxed) == value {
            drop(self.bell.wait(inside).unwrap());
        }
    }
    fn wake(&self, _: &AtomicU32) {
        let _inside = self.door.lock().unwrap();
        self.bell.notify_one();
    }
}

/// The library's lock, and two numbers that are equal whenever nobody holds it.
struct Locked {
    lock: Lock<Arc<Room>>,
    numbers: [Plain<u32>; 2],
}

// SAFETY: the lock under test hands the numbers over; loom reports if not.
unsafe impl Sync for Locked {}
// SAFETY: what the cells hold is handed over by the code under test; loom reports if not.
unsafe impl Send for Locked {}

impl Locked {
    fn new() -> Arc<Locked> {
        Arc::new(Locked {
            lock: Lock::new(Arc::new(Room::default())),
            numbers: [Plain::new(0), Plain::new(0)],
        })
    }

    fn add(&self, thread: usize) {
        self.lock.lock(thread);
        for number in &self.numbers {
            // SAFETY: the lock is held.
            unsafe { number.set(number.get() + 1) };
        }
        self.lock.unlock(thread);
    }

    fn read(&self) -> [u32; 2] {
        // SAFETY: the lock is held, or all threads have ended.
        self.numbers
            .each_ref()
            .map(|number| unsafe { number.get() })
    }
}

/// Three threads take the lock: one at a time, and whoever sleeps is woken.
#[test]
fn lock_excludes_and_wakes() {
    explore("lock, three threads", Some(3), || {
        let shared = Locked::new();
        let others = [2, 3].map(|thread| {
            let shared = shared.clone();
            thread::spawn(move || shared.add(thread))
        });
        shared.add(1);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.read(), [3, 3]);
    });
}

/// A fork while two threads are busy with the lock: parent and child find the state at rest, other
/// handlers of the fork may use the lock's owner, the child's copy works, and no thread of the
/// parent is forgotten.
#[test]
fn fork_holds_the_lock() {
    explore("lock, fork", Some(2), || {
        let shared = Locked::new();
        let others = [2, 3].map(|thread| {
            let shared = shared.clone();
            thread::spawn(move || shared.add(thread))
        });
        // As `byssal_before_fork` and another prepare handler that allocates.
        shared.lock.lock(1);
        shared.lock.begin_fork(1);
        shared.add(1);
        // The child: a copy of everything, one thread.
        let child = Locked {
            lock: shared.lock.copy(Arc::new(Room::default())),
            numbers: shared.read().map(Plain::new),
        };
        shared.lock.end_fork();
        shared.lock.unlock(1);
        // As `byssal_after_fork_child`.
        child.lock.end_fork();
        child.lock.reset();
        child.add(1);
        let [a, b] = child.read();
        assert_eq!(a, b, "the fork saw state in mid-update");
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.read(), [3, 3]);
    });
}
