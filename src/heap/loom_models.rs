//! Models of the remote-free protocol under loom: the shipped `Mailbox`, small groups around it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p byssal-heap --release --target-dir target/loom`

use crate::remote::{Life, Mailbox, Node, RemoteMask, Sent};
use crate::sync::AtomicPtr;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// A group: slots with contents that loom watches for races, and what the owner got back.
struct Group {
    mask: RemoteMask,
    link: AtomicPtr<Group>,
    /// One a slot: written by whoever has the block.
    contents: [UnsafeCell<u32>; 2],
    /// Written under the right to work on the heap.
    freed: UnsafeCell<u32>,
}

impl Node for Group {
    fn mask(&self) -> &RemoteMask {
        &self.mask
    }
    fn link(&self) -> &AtomicPtr<Group> {
        &self.link
    }
}

/// A heap: its mailbox, its groups, and the provider lock with the list of parked heaps (is this
/// one in it?).
struct World {
    mail: Mailbox<Group>,
    groups: [Box<Group>; 2],
    parked: Mutex<bool>,
}

// SAFETY: what the cells hold is handed over by the protocol under test; loom reports if not.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<World> {
        let group = || {
            Box::new(Group {
                mask: RemoteMask::new(),
                link: AtomicPtr::new(core::ptr::null_mut()),
                contents: [UnsafeCell::new(0), UnsafeCell::new(0)],
                freed: UnsafeCell::new(0),
            })
        };
        let world = World {
            mail: Mailbox::new(),
            groups: [group(), group()],
            parked: Mutex::new(false),
        };
        world.mail.set_life(Life::Active);
        Arc::new(world)
    }

    fn group(&self, index: usize) -> *mut Group {
        (&raw const *self.groups[index]).cast_mut()
    }

    /// A thread that has the block of `slot` writes it a last time and frees it.
    fn free(&self, group: usize, slot: usize) -> bool {
        // SAFETY: the block is this thread's.
        self.groups[group].contents[slot].with_mut(|p| unsafe { *p += 1 });
        // SAFETY: as above.
        match unsafe { self.mail.send(self.group(group), 1 << slot) } {
            Sent::Delivered => true,
            Sent::OwnerParked => {
                self.collect_parked();
                true
            }
            Sent::Double => false,
            Sent::OwnerDead(_) => unreachable!("nobody forks here"),
        }
    }

    /// As `Process::collect_parked`.
    fn collect_parked(&self) {
        if !core::mem::replace(&mut *self.parked.lock().unwrap(), false) {
            return;
        }
        loop {
            self.collect();
            let mut parked = self.parked.lock().unwrap();
            if self.mail.is_empty() {
                *parked = true;
                return;
            }
        }
    }

    /// By whoever may work on the heap: reuses each slot that came back.
    fn collect(&self) {
        // SAFETY: by contract of this function.
        unsafe {
            self.mail.collect(|group, bits| {
                for slot in 0..2 {
                    if bits & 1 << slot != 0 {
                        (*group).contents[slot].with_mut(|p| *p += 100);
                    }
                }
                (*group).freed.with_mut(|freed| {
                    assert_eq!(*freed & bits, 0, "a slot comes back once");
                    *freed |= bits;
                });
            });
        }
    }

    /// As `Process::thread_exit`.
    fn park(&self) {
        {
            let mut parked = self.parked.lock().unwrap();
            *parked = true;
            self.mail.set_life(Life::Parked);
        }
        if !self.mail.is_empty() {
            self.collect_parked();
        }
    }

    /// As `Process::attach`.
    fn adopt(&self) -> bool {
        let mut parked = self.parked.lock().unwrap();
        if !*parked {
            return false;
        }
        *parked = false;
        self.mail.set_life(Life::Active);
        true
    }

    fn freed(&self, group: usize) -> u32 {
        // SAFETY: all threads have ended.
        self.groups[group].freed.with(|p| unsafe { *p })
    }
}

/// The owner refills while another thread frees two blocks of one group.
#[test]
fn remote_free_against_refill() {
    loom::model(|| {
        let world = World::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                assert!(world.free(0, 0));
                assert!(world.free(0, 1));
            })
        };
        world.collect();
        other.join().unwrap();
        world.collect();
        assert_eq!(world.freed(0), 3, "nothing is lost");
    });
}

/// Two freers, two groups, one owner: pushes race on the list's head.
#[test]
fn two_freers_against_the_owner() {
    loom::model(|| {
        let world = World::new();
        let freers: Vec<_> = (0..2)
            .map(|slot| {
                let world = world.clone();
                thread::spawn(move || {
                    assert!(world.free(0, slot));
                    if slot == 0 {
                        assert!(world.free(1, 0));
                    }
                })
            })
            .collect();
        world.collect();
        for freer in freers {
            freer.join().unwrap();
        }
        world.collect();
        assert_eq!((world.freed(0), world.freed(1)), (3, 1));
    });
}

/// The owner exits while another thread frees: nobody waits for an adopter.
#[test]
fn remote_free_against_thread_exit() {
    // Unbounded it passes as well, in six minutes.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let freers: Vec<_> = (0..2)
            .map(|slot| {
                let world = world.clone();
                thread::spawn(move || assert!(world.free(0, slot)))
            })
            .collect();
        world.park();
        for freer in freers {
            freer.join().unwrap();
        }
        assert_eq!(world.freed(0), 3, "no free waits in a parked heap");
    });
}

/// A parked heap is adopted while another thread frees into it.
#[test]
fn remote_free_against_adoption() {
    loom::model(|| {
        let world = World::new();
        world.park();
        let freer = {
            let world = world.clone();
            thread::spawn(move || assert!(world.free(0, 0)))
        };
        let adopted = world.adopt();
        if adopted {
            world.collect();
        }
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
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let freer = {
            let world = world.clone();
            thread::spawn(move || assert!(world.free(0, 1)))
        };
        let adopter = {
            let world = world.clone();
            thread::spawn(move || {
                let adopted = world.adopt();
                if adopted {
                    world.collect();
                }
                adopted
            })
        };
        world.park();
        freer.join().unwrap();
        if adopter.join().unwrap() {
            world.collect();
        }
        assert_eq!(world.freed(0), 2);
    });
}

/// Two threads free the same slot: exactly one is told so, unless the owner collected between.
#[test]
fn double_free_race() {
    loom::model(|| {
        let world = World::new();
        let freers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                // SAFETY: the misuse under test; the group stays.
                thread::spawn(move || unsafe { world.mail.send(world.group(0), 1) })
            })
            .collect();
        let sent: Vec<_> = freers.into_iter().map(|f| f.join().unwrap()).collect();
        let doubles = sent.iter().filter(|s| **s == Sent::Double).count();
        assert_eq!(doubles, 1, "{sent:?}");
    });
}
