//! Counts what threads do to lines that they share, for `make counts` and docs/scaling.md: atomic
//! read-modify-writes, locks and how long they are held, frees of others' blocks, calls of the
//! system. The heap depends on it by its feature `count` only: what ships counts nothing.
#![no_std]

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// Atomic read-modify-writes, by kind; the lock's are among them.
    FetchOr,
    FetchAnd,
    Swap,
    Exchange,
    /// Compare-and-exchange that found another value: the line came, nothing was written.
    ExchangeFailed,
    /// Full fences.
    Fence,
    /// The lock under the heaps taken, by a process with threads.
    Lock,
    /// Of these, taken only after it was found held.
    LockAwaited,
    /// Sleeps and wakes of the lock, each a system call.
    LockSleep,
    LockWake,
    /// Time that it was held, and what asking the clock twice added to each.
    LockNanoseconds,
    ClockNanoseconds,
    /// Frees of blocks of another thread's heap. Each writes a record in the group's line.
    RemoteFree,
    /// Groups put on another heap's list, which writes its mailbox's line and two words of the
    /// group's.
    RemotePush,
    /// Times that an owner took its mailbox's list, and groups that it found there.
    MailTaken,
    Collected,
    /// Calls of the system.
    Map,
    Unmap,
    Purge,
    Remap,
}

/// Names in reports, in the order of `Event`.
const NAMES: [&CStr; 20] = [
    c"fetch_or",
    c"fetch_and",
    c"swap",
    c"exchange",
    c"exchange_failed",
    c"fence",
    c"locks",
    c"locks_awaited",
    c"lock_sleeps",
    c"lock_wakes",
    c"lock_nanoseconds",
    c"clock_nanoseconds",
    c"remote_frees",
    c"remote_pushes",
    c"mail_taken",
    c"collected",
    c"map",
    c"unmap",
    c"purge",
    c"remap",
];
const _: () = assert!(NAMES.len() == Event::Remap as usize + 1);

/// A line for each, so that counting disturbs what is timed as little as it can.
#[repr(align(64))]
struct Counter(AtomicU64);
static COUNTERS: [Counter; NAMES.len()] = [const { Counter(AtomicU64::new(0)) }; NAMES.len()];

/// When the lock was taken; 0 while nobody is timed. Written by its holder.
static SINCE: AtomicU64 = AtomicU64::new(0);

/// Adds to a counter. Relaxed, all of them: sums that order nothing.
fn add(event: Event, n: u64) {
    COUNTERS[event as usize].0.fetch_add(n, Ordering::Relaxed);
}

/// Name and value of counter `index`.
pub fn get(index: usize) -> Option<(&'static CStr, u64)> {
    let name = NAMES.get(index)?;
    Some((name, COUNTERS[index].0.load(Ordering::Relaxed)))
}

/// The lock is held from here on; `clock` in nanoseconds.
pub fn hold(clock: impl Fn() -> u64) {
    let before = clock();
    let now = clock();
    add(Event::ClockNanoseconds, now - before);
    SINCE.store(now, Ordering::Relaxed);
}

/// The lock is about to be given back, if it is held.
pub fn release(clock: impl Fn() -> u64) {
    let since = SINCE.swap(0, Ordering::Relaxed);
    if since != 0 {
        add(Event::LockNanoseconds, clock() - since);
    }
}

/// Notes that `event` happened once.
#[inline(always)]
pub fn note(event: Event) {
    add(event, 1);
}

/// The atomics of `core`, counting.
pub mod atomics {
    use super::{note, Event};
    use core::ops::Deref;
    use core::sync::atomic::{self, Ordering};

    /// Counted.
    pub fn fence(order: Ordering) {
        note(Event::Fence);
        atomic::fence(order);
    }

    fn outcome<T>(result: Result<T, T>) -> Result<T, T> {
        note(match result {
            Ok(_) => Event::Exchange,
            Err(_) => Event::ExchangeFailed,
        });
        result
    }

    macro_rules! counted {
        ($name:ident $(<$t:ident>)?, $value:ty) => {
            /// As its namesake in `core`.
            #[repr(transparent)]
            pub struct $name $(<$t>)? (atomic::$name $(<$t>)?);

            impl $(<$t>)? $name $(<$t>)? {
                /// With a first value.
                pub const fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }
                /// Counted.
                #[inline(always)]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    note(Event::Swap);
                    self.0.swap(value, order)
                }
                /// Counted.
                #[inline(always)]
                pub fn compare_exchange(
                    &self,
                    old: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    outcome(self.0.compare_exchange(old, new, success, failure))
                }
                /// Counted.
                #[inline(always)]
                pub fn compare_exchange_weak(
                    &self,
                    old: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    outcome(self.0.compare_exchange_weak(old, new, success, failure))
                }
            }

            /// Loads and stores are not counted.
            impl $(<$t>)? Deref for $name $(<$t>)? {
                type Target = atomic::$name $(<$t>)?;
                #[inline(always)]
                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        };
    }
    counted!(AtomicPtr<T>, *mut T);
    counted!(AtomicU16, u16);
    counted!(AtomicU32, u32);
    counted!(AtomicUsize, usize);

    impl AtomicU32 {
        /// Counted.
        #[inline(always)]
        pub fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
            note(Event::FetchOr);
            self.0.fetch_or(bits, order)
        }
        /// Counted.
        #[inline(always)]
        pub fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
            note(Event::FetchAnd);
            self.0.fetch_and(bits, order)
        }
    }
}
