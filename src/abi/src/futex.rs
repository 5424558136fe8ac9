//! The lock of the libraries: one word, a system call only when threads meet.
#![cfg(feature = "library")]

use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const AWAITED: u32 = 2;

/// Tries before a thread sleeps: a critical section is a few hundred instructions.
const SPINS: usize = 100;

extern "C" {
    /// futex(word, operation | private, value) without touching errno, see library.c.
    fn byssal_futex(word: *const AtomicU32, operation: c_int, value: u32) -> c_long;
}

/// A mutual exclusion lock (after Drepper, "Futexes are tricky", mutex2).
pub struct Lock(AtomicU32);

impl Lock {
    /// A free lock.
    pub const fn new() -> Self {
        Lock(AtomicU32::new(FREE))
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) {
        // Acquire: what the last holder wrote.
        if self
            .0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..SPINS {
            // Relaxed: only a hint; the exchange acquires.
            if self.0.load(Ordering::Relaxed) == FREE
                && self
                    .0
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        // Acquire: as above.
        while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
            // SAFETY: FUTEX_WAIT (0) on our own word.
            unsafe { byssal_futex(&self.0, 0, AWAITED) };
        }
    }

    /// Releases the lock, if it is held: it is not when the process had one thread only.
    #[inline]
    pub fn unlock(&self) {
        // Release: what we wrote, for the next holder.
        if self.0.swap(FREE, Ordering::Release) == AWAITED {
            // SAFETY: FUTEX_WAKE (1) on our own word.
            unsafe { byssal_futex(&self.0, 1, 1) };
        }
    }

    /// Frees the lock, in the only thread of a forked child.
    pub fn reset(&self) {
        // Relaxed: there is no other thread.
        self.0.store(FREE, Ordering::Relaxed);
    }
}
