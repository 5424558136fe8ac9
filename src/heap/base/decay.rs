//! When what is kept for later goes back: one policy for all kinds of it.
//!
//! Free memory of each kind (dirty free pages, pages of free slots, of free granules in spans,
//! freed large mappings) is kept for the next burst up to a budget: a floor, or a share of what is
//! in use if that is more. Beyond it the memory goes back, but once in `PURGE_PAUSE` only, unless a
//! quarter of what was in use at the last purge is gone: a program that frees and allocates the
//! same memory again and again pays for its pages once in that time. Within it, what lay unused
//! from one look at the clock to the next goes back, too (`DECAY_PAUSE`): after a peak no further
//! free may come. A heap of which little is left gives back what it keeps beyond that little, as
//! often (`heap/put_back.rs`).

use crate::base::config::PURGE_PAUSE;
use crate::base::platform::Platform;
use crate::base::zeroed::Zeroed;
use core::cell::Cell;
use core::mem::offset_of;

/// Questions above a budget that do not look at the clock after one that came too early.
const SKIP: u32 = 15;

/// How often something is given back, and what was in use then.
pub struct Pace {
    /// The clock, in milliseconds, at the last purge that was due by time, not as much was gone.
    last: Cell<u32>,
    /// What was in use at the last purge; where that had grown, an eighth of the growth more than
    /// before.
    used: Cell<usize>,
    /// See `SKIP`.
    skip: Cell<u32>,
}

/// What is kept of one kind, in a unit of its own.
pub struct Kept {
    amount: Cell<usize>,
    /// Nobody asks whether it is too much up to this amount.
    limit: Cell<usize>,
    /// The least there was since `take_least`.
    least: Cell<usize>,
    /// When some of it was given back.
    pub pace: Pace,
}

// SAFETY: cells of numbers, here and below.
unsafe impl Zeroed for Pace {}
// SAFETY: see above.
unsafe impl Zeroed for Kept {}

impl Kept {
    /// Where the amount is.
    pub const AMOUNT: usize = offset_of!(Kept, amount);

    /// How much is kept.
    pub fn amount(&self) -> usize {
        self.amount.get()
    }

    /// So much more is kept.
    pub fn add(&self, amount: usize) {
        self.amount.set(self.amount.get() + amount);
    }

    /// So much less is kept.
    pub fn sub(&self, amount: usize) {
        self.amount.set(self.amount.get() - amount);
    }

    /// Notes the least amount. Callers that take in a row note it once.
    pub fn note_least(&self) {
        self.least.set(self.least.get().min(self.amount.get()));
    }

    /// What lay unused since this was asked last.
    pub fn take_least(&self) -> usize {
        self.note_least();
        self.least.replace(self.amount.get())
    }

    /// Whether somebody should ask if it is too much.
    pub fn is_over(&self) -> bool {
        self.amount.get() > self.limit.get()
    }

    /// Lets nobody ask up to this amount.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }
}

impl Pace {
    /// Lets the next question look at the clock, whatever the last answer was.
    pub fn ask(&self) -> &Self {
        self.skip.set(0);
        self
    }

    /// Whether a quarter of what was in use at the last purge is gone.
    pub fn has_fallen(&self, used: usize) -> bool {
        used < self.used.get() - self.used.get() / 4
    }

    /// Whether a purge may be now, when so much is in use. True counts as a purge.
    pub fn is_due<P: Platform>(&self, platform: &P, used: usize) -> bool {
        if !self.has_fallen(used) {
            if self.skip.get() > 0 {
                self.skip.set(self.skip.get() - 1);
                return false;
            }
            let now = platform.clock();
            if now.wrapping_sub(self.last.get()) < PURGE_PAUSE {
                self.skip.set(SKIP);
                return false;
            }
            let first = self.last.replace(now) == 0;
            if !first && used > self.used.get() {
                // Slowly, as what was less a moment ago may be so again.
                self.used
                    .set(self.used.get() + (used - self.used.get()) / 8);
                return true;
            }
        }
        self.used.set(used);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mock::Mock;
    use std::sync::atomic::Ordering;

    /// A system whose clock stands, a pause after its start.
    fn frozen() -> Mock {
        let system = Mock::new(false);
        system.frozen.store(true, Ordering::Relaxed);
        system.pass(PURGE_PAUSE);
        system
    }

    #[test]
    fn a_purge_comes_once_in_a_pause() {
        let (system, pace) = (frozen(), Pace::ZERO);
        assert!(pace.is_due(&system, 100));
        assert!(!pace.is_due(&system, 100));
        system.pass(PURGE_PAUSE);
        // The clock is not looked at for a while after it said no.
        let asked = (0..).take_while(|_| !pace.is_due(&system, 100)).count();
        assert_eq!(asked as u32, SKIP);
        system.pass(PURGE_PAUSE);
        assert!(pace.is_due(&system, 100));
        assert!(!pace.is_due(&system, 100));
        system.pass(PURGE_PAUSE);
        assert!(pace.ask().is_due(&system, 100), "who asks anew is told");
    }

    #[test]
    fn a_purge_comes_at_once_when_a_quarter_is_gone() {
        let (system, pace) = (frozen(), Pace::ZERO);
        assert!(pace.is_due(&system, 100));
        assert!(!pace.is_due(&system, 75));
        assert!(pace.is_due(&system, 74));
        assert!(!pace.is_due(&system, 56), "a quarter of what is left");
        // What is more in use counts for an eighth.
        system.pass(PURGE_PAUSE);
        assert!(pace.ask().is_due(&system, 1000));
        assert!(!pace.has_fallen(142) && pace.has_fallen(141));
    }

    #[test]
    fn what_lay_unused_is_the_least_since_the_last_look() {
        let kept = Kept::ZERO;
        kept.add(10);
        assert_eq!(kept.take_least(), 0, "there was none");
        assert_eq!(kept.take_least(), 10);
        kept.sub(7);
        kept.note_least();
        kept.add(5);
        assert_eq!((kept.amount(), kept.take_least()), (8, 3));
        assert_eq!(kept.take_least(), 8);
    }

    #[test]
    fn nobody_asks_up_to_the_limit() {
        let kept = Kept::ZERO;
        kept.add(5);
        assert!(kept.is_over());
        kept.set_limit(5);
        assert!(!kept.is_over());
        kept.add(1);
        assert!(kept.is_over());
    }
}
