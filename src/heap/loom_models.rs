//! Models under loom of what threads do to each other without a lock, and of the lock itself. They
//! run the shipped `outgoing`, `remote`, `parking` and `lock`; of a group and a heap they keep what these see.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p byssal-heap --release --target-dir target/loom`
//!
//! Each prints how many executions it explored. docs/results/mutants.md tells which of them notice
//! each mutation of the shipped code.

use crate::lock::{Futex, Lock};
use crate::outgoing::Outgoing;
use crate::parking::{self, Berth, Keeper, Parked, Tenant};
use crate::remote::{Life, Mailbox, Node, RemoteMask};
use crate::sync::{AtomicPtr, AtomicU32, Ordering, Plain};
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
}

/// A heap: its mailbox and its place among the parked ones.
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
}

/// A heap with two groups, and the provider lock with the parked heaps.
struct World {
    heap: Box<Heap>,
    groups: [Box<Group>; 2],
    parked: Mutex<Parked<Heap>>,
    /// Double frees that a collection found.
    doubles: Plain<u32>,
}

// SAFETY: what the cells hold is handed over by the protocol under test; loom reports if not.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl Keeper for World {
    type Heap = Heap;

    fn with_parked<R>(&self, work: impl FnOnce(&mut Parked<Heap>) -> R) -> R {
        work(&mut self.parked.lock().unwrap())
    }

    unsafe fn collect_idle(&self, _: *mut Heap) {
        self.collect();
    }
}

impl World {
    /// An active heap; both slots of both groups hold blocks.
    fn new() -> Arc<World> {
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
            parked: Mutex::new(Parked::new()),
            doubles: Plain::new(0),
        };
        world.heap.mail.set_life(Life::Active);
        Arc::new(world)
    }

    fn heap(&self) -> *mut Heap {
        (&raw const *self.heap).cast_mut()
    }

    fn group(&self, index: usize) -> *mut Group {
        (&raw const *self.groups[index]).cast_mut()
    }

    /// A thread that has the block of `slot` writes it a last time and frees it. False: a double
    /// free.
    fn free(&self, group: usize, slot: usize) -> bool {
        // SAFETY: the block is this thread's.
        unsafe {
            self.groups[group].contents[slot].set(7);
            self.give_back(self.group(group), 1 << slot)
        }
    }

    /// # Safety
    /// The group is not released.
    unsafe fn give_back(&self, group: *mut Group, bits: u32) -> bool {
        // SAFETY: by contract.
        unsafe { parking::give_back(self, self.heap(), group, bits) }
    }

    /// A thread writes the blocks of `slots` in the first group a last time, frees them one by one,
    /// and then tells of all at once, as `Process::free_remote` and `tell_all` do. False: a double
    /// free.
    fn free_together(&self, slots: &[usize], write: bool) -> bool {
        let mut outgoing = Outgoing::EMPTY;
        let group = self.group(0);
        for &slot in slots {
            if write {
                // SAFETY: the block is this thread's.
                unsafe { self.groups[0].contents[slot].set(7) };
            }
            assert!(outgoing.start(group).is_none());
            assert!(outgoing.join(group, 1 << slot));
            outgoing.count(16);
        }
        let mut single = true;
        // SAFETY: what is held keeps the group.
        outgoing.take_all(0, |held| unsafe {
            single &= self.give_back(held.node, held.bits);
        });
        single
    }

    /// By whoever may work on the heap: reuses each slot that came back.
    fn collect(&self) {
        // SAFETY: by contract of this function.
        unsafe {
            self.heap.state.set(self.heap.state.get() + 1);
            self.heap.mail.collect(|group, bits| {
                for slot in 0..2 {
                    if bits & 1 << slot != 0 {
                        (*group).contents[slot].set(8);
                    }
                }
                let freed = (*group).freed.get();
                // As `Process::got_back`, which stops the process.
                self.doubles
                    .set(self.doubles.get() + (freed & bits).count_ones());
                (*group).freed.set(freed | bits);
            });
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

    /// As `Process::thread_exit`, the heap at rest.
    fn park(&self) {
        // SAFETY: the caller is the owner.
        assert!(unsafe { parking::park(self, self.heap(), 0) });
    }

    /// The same, the heap as it is.
    fn park_warm(&self) {
        // SAFETY: as above.
        assert!(unsafe { parking::park(self, self.heap(), 1) });
    }

    /// As `Process::attach`.
    fn adopt(&self) -> bool {
        let adopted = !self.with_parked(|parked| parked.adopt(true)).is_null();
        if adopted {
            self.collect();
        }
        adopted
    }

    /// As a call of a thread that keeps no heap. False: the heap is not to be had.
    fn borrow(&self) -> bool {
        let lent = self.adopt();
        if lent {
            self.park_warm();
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

/// The owner exits while two threads free: no free waits for an adopter.
#[test]
fn remote_free_against_thread_exit() {
    explore("remote frees, thread exit", Some(4), || {
        let world = World::new();
        let freers = [0, 1].map(|slot| spawn(&world, move |w| assert!(w.free(0, slot))));
        world.park();
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!(world.freed(0), 3, "no free waits in a parked heap");
    });
}

/// Two threads free into a parked heap: one claims it, the other leaves its bits to it.
#[test]
fn parked_heap_drained_by_freers() {
    explore("parked heap, two freers", None, || {
        let world = World::new();
        world.park();
        let freers = [0, 1].map(|group| spawn(&world, move |w| assert!(w.free(group, 0))));
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!((world.freed(0), world.freed(1)), (1, 1));
        assert!(world.adopt(), "no claim is left");
    });
}

/// A parked heap is adopted while another thread frees into it.
#[test]
fn remote_free_against_adoption() {
    explore("remote free, adoption", None, || {
        let world = World::new();
        world.park();
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let adopted = world.adopt();
        freer.join().unwrap();
        if adopted {
            world.collect();
        }
        assert_eq!(world.freed(0), 1);
    });
}

/// The owner exits, a new thread adopts, another frees, all at once.
#[test]
fn exit_adoption_and_free() {
    explore("remote free, exit, adoption", Some(4), || {
        let world = World::new();
        let freer = spawn(&world, |w| assert!(w.free(0, 1)));
        let adopter = spawn(&world, World::adopt);
        world.park_warm();
        freer.join().unwrap();
        if adopter.join().unwrap() {
            world.collect();
        }
        assert_eq!(world.freed(0), 2);
    });
}

/// Two threads borrow the heap while another frees into it: no free waits, and the heap is not lost.
#[test]
fn loans_against_remote_free() {
    explore("two loans, remote free", Some(3), || {
        let world = World::new();
        world.park();
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let other = spawn(&world, World::borrow);
        world.borrow();
        freer.join().unwrap();
        other.join().unwrap();
        assert_eq!(world.freed(0), 1);
        assert!(world.adopt(), "it is parked again");
    });
}

/// Two threads free the same slot, and nobody collects: exactly one is told so.
#[test]
fn two_remote_frees_of_one_slot() {
    explore("two remote frees of one slot", None, || {
        let world = World::new();
        // SAFETY: the misuse under test; the group stays.
        let freers = [0, 1].map(|_| spawn(&world, |w| unsafe { w.give_back(w.group(0), 1) }));
        let done = freers.map(|freer| freer.join().unwrap());
        assert_ne!(done[0], done[1]);
    });
}

/// The same while the owner collects: the second free is told so, or the collection finds it.
#[test]
fn two_remote_frees_of_one_slot_against_refill() {
    explore("two remote frees of one slot, refill", None, || {
        let world = World::new();
        // SAFETY: the misuse under test; the group stays.
        let freers = [0, 1].map(|_| spawn(&world, |w| unsafe { w.give_back(w.group(0), 1) }));
        world.collect();
        let done = freers.map(|freer| freer.join().unwrap());
        world.collect();
        let told = done.iter().filter(|done| !**done).count() as u32;
        // SAFETY: all threads have ended.
        assert_eq!(told + unsafe { world.doubles.get() }, 1);
    });
}

/// Slots that a thread held back come together, while the owner collects and releases the group as
/// soon as it has all.
#[test]
fn frees_told_together_against_release() {
    explore("frees told together, group release", None, || {
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

/// The same, while another thread frees into the group and the owner exits.
#[test]
fn frees_told_together_against_thread_exit() {
    explore("frees told together, thread exit", Some(4), || {
        let world = World::new();
        let together = spawn(&world, |w| assert!(w.free_together(&[0, 1], true)));
        let alone = spawn(&world, |w| assert!(w.free(1, 0)));
        world.park();
        together.join().unwrap();
        alone.join().unwrap();
        assert_eq!((world.freed(0), world.freed(1)), (3, 1));
    });
}

/// A slot that one thread holds back with another one is freed by a second thread, too: whoever
/// tells later is told so, or the collection finds it.
#[test]
fn a_slot_held_by_two_threads() {
    explore("a slot held by two threads, refill", None, || {
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
/// child does not leave behind nobody works on, and its state is whole.
#[test]
fn fork_against_exit_and_remote_free() {
    explore("fork, exit, remote free", None, || {
        let world = World::new();
        let freer = spawn(&world, |w| assert!(w.free(0, 0)));
        let owner = spawn(&world, |w| {
            w.collect();
            w.park();
        });
        // The provider lock is held over the fork.
        world.with_parked(|_| {
            let heap = world.heap();
            // SAFETY: the lock is held; loom reports if somebody works on the heap.
            unsafe {
                if !parking::worked_on(heap) {
                    (*heap).state.get();
                }
            }
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
// SAFETY: as above.
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
