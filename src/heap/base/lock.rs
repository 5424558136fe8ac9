//! A lock for platforms whose libc lends none: one word, a system call only when threads meet; and
//! what makes it one that can be held over a fork.
//!
//! ```text
//! prepare handler:  lock, then remember the thread: until the fork is over its own calls pass
//! in the parent:    forget the thread, unlock
//! in the child:     forget the thread, reset: those who wait for it are not here
//! ```

use crate::base::sync::{AtomicU32, AtomicUsize, Ordering};
use crate::note;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const AWAITED: u32 = 2;

/// Tries before a thread sleeps: a critical section is a few hundred instructions. A model tries
/// once: to it, one try is like any other.
const SPINS: usize = if cfg!(loom) { 1 } else { 100 };

/// Proof that its holder has the lock under the heaps: there is one value for each time the lock is
/// taken, and it goes before the lock does.
pub struct Held(());

impl Held {
    /// The proof.
    ///
    /// # Safety
    /// The value is lent to whoever holds the lock only, or there is one thread.
    pub const unsafe fn new() -> Self {
        Held(())
    }
}

/// The system's waiting room (Linux: futex).
pub trait Futex {
    /// Sleeps until woken, unless `word` is not `value`. May return without cause.
    fn wait(&self, word: &AtomicU32, value: u32);
    /// Wakes one that sleeps on `word`.
    fn wake(&self, word: &AtomicU32);
}

/// A mutual exclusion lock (after Drepper, "Futexes are tricky", mutex2) that a thread may hold
/// over a fork.
pub struct Lock<F> {
    word: AtomicU32,
    /// The thread that holds the lock over a fork; 0 for none.
    forking: AtomicUsize,
    futex: F,
}

impl<F: Futex> Lock<F> {
    /// A free lock.
    #[cfg(not(loom))]
    pub const fn new(futex: F) -> Self {
        Lock {
            word: AtomicU32::new(FREE),
            forking: AtomicUsize::new(0),
            futex,
        }
    }

    /// A free lock.
    #[cfg(loom)]
    pub fn new(futex: F) -> Self {
        Lock {
            word: AtomicU32::new(FREE),
            forking: AtomicUsize::new(0),
            futex,
        }
    }

    /// The lock as a fork's child finds it.
    #[cfg(all(test, loom))]
    pub fn copy(&self, futex: F) -> Self {
        Lock {
            word: AtomicU32::new(self.word.load(Ordering::Relaxed)),
            forking: AtomicUsize::new(self.forking.load(Ordering::Relaxed)),
            futex,
        }
    }

    /// Takes the lock, unless the calling thread `thread` holds it over a fork.
    #[inline]
    pub fn lock(&self, thread: usize) {
        // Relaxed: the word can only equal ours if this very thread stored it.
        if self.forking.load(Ordering::Relaxed) == thread {
            return;
        }
        note!(Lock);
        // Acquire: what the last holder wrote.
        if self
            .word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.wait();
        }
    }

    /// Takes the lock if it is free, or if `thread` holds it over a fork. Whether it did.
    pub fn try_lock(&self, thread: usize) -> bool {
        // Relaxed and acquire: as in `lock`.
        self.forking.load(Ordering::Relaxed) == thread
            || self
                .word
                .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[cold]
    fn wait(&self) {
        note!(LockAwaited);
        for _ in 0..SPINS {
            // Relaxed: only a hint; the exchange acquires.
            if self.word.load(Ordering::Relaxed) == FREE
                && self
                    .word
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        // Acquire: what the last holder wrote. Whoever slept cannot know whether others still do:
        // it holds the lock as awaited.
        while self.word.swap(AWAITED, Ordering::Acquire) != FREE {
            note!(LockSleep);
            self.futex.wait(&self.word, AWAITED);
        }
    }

    /// Releases the lock, if it is held: it is not when the process had one thread only.
    #[inline]
    pub fn unlock(&self, thread: usize) {
        // Relaxed, both: `forking` can only equal ours if this very thread stored it; and whoever
        // holds the lock wrote the word itself. A process with one thread is spared the exchange.
        let forking = self.forking.load(Ordering::Relaxed) == thread;
        if forking || self.word.load(Ordering::Relaxed) == FREE {
            return;
        }
        // Release: what we wrote, for the next holder.
        if self.word.swap(FREE, Ordering::Release) == AWAITED {
            note!(LockWake);
            self.futex.wake(&self.word);
        }
    }

    /// From here on, the lock held, `thread` (not 0) passes it: other handlers of the fork
    /// allocate.
    pub fn begin_fork(&self, thread: usize) {
        // Relaxed: only the same thread, or its copy in the child, looks for it.
        self.forking.store(thread, Ordering::Relaxed);
    }

    /// The end of `begin_fork`, in parent and child.
    pub fn end_fork(&self) {
        self.forking.store(0, Ordering::Relaxed);
    }

    /// Frees the lock, in the only thread of a forked child.
    pub fn reset(&self) {
        // Relaxed: there is no other thread.
        self.word.store(FREE, Ordering::Relaxed);
    }
}
