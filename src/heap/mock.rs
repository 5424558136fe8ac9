//! A system for tests: real pages, books on every mapping, and failures on demand.
//!
//! Under Miri the pages are not real ones (`mock/interpreted.rs`).

use crate::base::config::PURGE_PAUSE;
use crate::base::platform::Platform;
use core::ptr::{with_exposed_provenance_mut, NonNull};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::Mutex;

#[cfg(not(miri))]
pub(crate) mod system;
#[cfg(miri)]
#[path = "mock/interpreted.rs"]
pub(crate) mod system;

std::thread_local! {
    static HEAP: Cell<usize> = const { Cell::new(0) };
    static ERRNO: Cell<bool> = const { Cell::new(false) };
    static LATE: Cell<bool> = const { Cell::new(false) };
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
    static TOLD: Cell<bool> = const { Cell::new(false) };
    static NUMBER: Cell<u32> = const { Cell::new(0) };
    /// Bytes of a page of the processes that this thread makes.
    static PAGE_BYTES: Cell<usize> = Cell::new(default_page());
    /// Locks that this thread holds.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    /// The fault whose handler runs.
    static HANDLED: Cell<Option<crate::base::fault::Fault>> = const { Cell::new(None) };
}

/// Bytes of the system's page, as far as the mock minds.
const PAGE: usize = 4096;

/// Bytes of a page, unless a test asks for longer ones: `BYSSAL_PAGE`, or the system's.
fn default_page() -> usize {
    let set = std::env::var("BYSSAL_PAGE").ok();
    set.map_or(PAGE, |text| text.parse().expect("BYSSAL_PAGE is a number"))
}

/// Runs a test whose processes have pages of `bytes`. The mock claims them although the system's
/// own are shorter: mappings lie at multiples, and a call for a part of a page is a bug.
pub fn with_pages(bytes: usize, test: impl FnOnce()) {
    assert!(bytes.is_power_of_two() && bytes >= PAGE);
    let before = PAGE_BYTES.replace(bytes);
    test();
    PAGE_BYTES.set(before);
}

/// What the random choices of the tests depend on: `BYSSAL_SEED`, 0 without one, so that a test
/// does the same each time. `make night` tries many. One that is set is printed once by each
/// thread, for the test that fails.
pub fn seed() -> u64 {
    let Ok(text) = std::env::var("BYSSAL_SEED") else {
        return 0;
    };
    let seed = text.parse().expect("BYSSAL_SEED is a number");
    if !TOLD.replace(true) {
        eprintln!("BYSSAL_SEED={seed}");
    }
    seed
}

/// In place of the trap: a panic. One that `expecting` awaits passes by the panic hook, so that
/// it neither prints nor ends a fuzzer. Before that, what a handler of the signal may do: each
/// fault of each test proves that no lock is held and that the heap is fit for use.
pub fn fault(fault: crate::base::fault::Fault, address: usize) -> ! {
    let text = format!("byssal fault: {} at {address:#x}", fault.name());
    let wrong = if LOCKS.get() != 0 {
        Some("with the lock held")
    } else {
        HANDLED
            .replace(Some(fault))
            .map(|_| "in a handler of another")
    };
    if let Some(wrong) = wrong {
        // Not a panic: whoever expects a fault would take it for one.
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = writeln!(std::io::stderr(), "{text}, {wrong}\n{trace}");
        std::process::abort();
    }
    let errno = ERRNO.get();
    crate::model::handle();
    ERRNO.set(errno);
    HANDLED.set(None);
    if EXPECTED.get() {
        std::panic::resume_unwind(Box::new(text));
    }
    panic!("{text}");
}

/// Whether a handler runs.
pub fn is_handler() -> bool {
    HANDLED.get().is_some()
}

/// Runs an action as a handler of a fault: another one ends the test.
pub fn handling(fault: crate::base::fault::Fault, action: impl FnOnce()) {
    HANDLED.set(Some(fault));
    action();
    HANDLED.set(None);
}

/// Runs an action; the text of the fault or panic that it ended in.
pub fn expecting(action: impl FnOnce()) -> Option<String> {
    let before = EXPECTED.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
    EXPECTED.set(before);
    let payload = result.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.unwrap_or_else(|| "a panic without text".into()))
}

/// Bytes of addresses that a mock process with a break has to itself, from the break's start on:
/// first those that the break may move over, then those where wishes are heard.
const ARENA: usize = 1
    << if cfg!(miri) {
        27
    } else if usize::BITS == 64 {
        32
    } else {
        26
    };
const BREAK_SPACE: usize = 16 << 20;
/// Where arenas are looked for: far from the stacks of threads; and the number of places.
const ARENAS: usize = 1 << if usize::BITS == 64 { 44 } else { 30 };
const ARENA_PLACES: usize = if usize::BITS == 64 { 1024 } else { 8 };

/// The calls that the system may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Map,
    Unmap,
    Purge,
    Remap,
    Break,
}

/// Number of kinds of calls.
pub const CALLS: usize = 5;

/// Which calls the system is to refuse: of the kinds in the mask `only`, after `skip` granted ones
/// the next `refuse`.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub only: u32,
    pub skip: usize,
    pub refuse: usize,
}

impl Plan {
    /// Nothing is refused.
    pub const NONE: Plan = Plan {
        only: 0,
        skip: 0,
        refuse: 0,
    };
}

/// The mock system of one process. A test thread uses one process at a time.
pub struct Mock {
    /// Bytes of a page.
    page: usize,
    /// Mappings by start, with their lengths.
    maps: Mutex<BTreeMap<usize, usize>>,
    /// Calls until they start to fail; usize::MAX for never.
    pub calls_left: AtomicUsize,
    /// Whether only one call fails, or all from then on.
    pub fail_once: AtomicBool,
    /// Calls so far.
    pub calls: AtomicUsize,
    /// How often the lock was taken.
    pub locks: AtomicUsize,
    /// What is to be refused beside that.
    pub plan: Mutex<Plan>,
    /// Calls so far, and those that the plan refused, by kind.
    pub asked: [AtomicUsize; CALLS],
    pub refused: [AtomicUsize; CALLS],
    /// Whether there is one thread only.
    pub single: AtomicBool,
    /// Whether there is a break, and behind it room for mappings that are wished for there.
    pub has_break: bool,
    break_start: AtomicUsize,
    break_now: AtomicUsize,
    /// Whether mappings whose wish is not heard lie as far down as they can behind the break.
    pub crowded: AtomicBool,
    /// Whether wishes are heard everywhere, unless somebody is there. (The tests of a process share
    /// its addresses.)
    pub hears: AtomicBool,
    /// How many of them were not, as somebody was there.
    pub unheard: AtomicUsize,
    held: AtomicBool,
    /// The time, which goes on with each question.
    clock: AtomicU32,
    /// Unless it stands still.
    pub frozen: AtomicBool,
    /// How often entropy was asked for, and whether there is none.
    pub drawn: AtomicUsize,
    pub mute: AtomicBool,
}

impl Mock {
    /// A system without limits.
    pub fn new(has_break: bool) -> Self {
        Mock {
            page: PAGE_BYTES.get(),
            maps: Mutex::new(BTreeMap::new()),
            calls_left: AtomicUsize::new(usize::MAX),
            fail_once: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            locks: AtomicUsize::new(0),
            plan: Mutex::new(Plan::NONE),
            asked: [const { AtomicUsize::new(0) }; CALLS],
            refused: [const { AtomicUsize::new(0) }; CALLS],
            single: AtomicBool::new(false),
            has_break,
            break_start: AtomicUsize::new(0),
            break_now: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            unheard: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            clock: AtomicU32::new(0),
            frozen: AtomicBool::new(false),
            drawn: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
        }
    }

    /// Lets so many milliseconds go by.
    pub fn pass(&self, milliseconds: u32) {
        self.clock.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// This thread has no heap.
    pub fn new_thread() {
        HEAP.set(0);
        LATE.set(false);
    }

    /// Nobody will call `thread_exit` in this thread any more.
    pub fn late() {
        LATE.set(true);
    }

    /// This thread has that number, as in the child of a fork that no handler was told of.
    pub fn number(number: u32) {
        NUMBER.set(number);
    }

    /// Whether errno was set since the last question.
    pub fn take_errno() -> bool {
        ERRNO.replace(false)
    }

    /// Bytes mapped now, reservations included.
    pub fn mapped(&self) -> usize {
        self.maps.lock().unwrap().values().sum()
    }

    /// Whether the process has a mapping around `at`, accessible or not. The system would tell of
    /// those of other tests, too, which come and go meanwhile.
    pub fn is_mapped(&self, at: *mut u8) -> bool {
        let maps = self.maps.lock().unwrap();
        let below = maps.range(..=at.addr()).next_back();
        below.is_some_and(|(&start, &len)| at.addr() < start + len)
    }

    /// Counts a call; whether it may succeed.
    fn may(&self, call: Call) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.asked[call as usize].fetch_add(1, Ordering::Relaxed);
        if self.planned(call) {
            self.refused[call as usize].fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let left = self.calls_left.load(Ordering::Relaxed);
        if left == usize::MAX {
            return true;
        }
        if left > 0 {
            self.calls_left.store(left - 1, Ordering::Relaxed);
            return true;
        }
        if self.fail_once.load(Ordering::Relaxed) {
            self.calls_left.store(usize::MAX, Ordering::Relaxed);
        }
        false
    }

    /// Whether the plan refuses this call.
    fn planned(&self, call: Call) -> bool {
        let mut plan = self.plan.lock().unwrap();
        if plan.only & 1 << call as u32 == 0 || plan.refuse == 0 {
            return false;
        }
        if plan.skip > 0 {
            plan.skip -= 1;
            return false;
        }
        plan.refuse -= 1;
        true
    }

    /// Panics unless [at, at + len) is whole pages: the system would refuse the call, or take what
    /// lies around for a part of it.
    fn expect_pages(&self, at: usize, len: usize) {
        let whole = at % self.page == 0 && len % self.page == 0 && len > 0;
        assert!(whole, "{len:#x} bytes at {at:#x} are not whole pages");
    }

    /// New memory at a multiple of a page, at `hint` if nothing is there.
    fn map_pages(&self, hint: usize, len: usize) -> Option<NonNull<u8>> {
        let at = system::map(hint, len)?;
        if at.addr().get() % self.page == 0 {
            return Some(at);
        }
        // The system's own pages are shorter: more is mapped, and the ends go back.
        let more = self.page - PAGE;
        // SAFETY: just mapped, and nobody uses it; the ends, too.
        unsafe {
            system::unmap(at.addr().get(), len);
            let at = system::map(0, len + more)?.addr().get();
            let first = at.next_multiple_of(self.page);
            for (from, to) in [(at, first), (first + len, at + len + more)] {
                if from < to {
                    system::unmap(from, to - from);
                }
            }
            NonNull::new(with_exposed_provenance_mut(first))
        }
    }

    /// Removes [at, at + len) from the books; every byte must be in them.
    fn forget(&self, at: usize, len: usize) {
        let mut maps = self.maps.lock().unwrap();
        // Neighbouring mappings are one range.
        let mut from = at;
        while from < at + len {
            let (&start, &length) = maps.range(..=from).next_back().expect("unmap of nothing");
            assert!(from < start + length, "unmap beyond a mapping");
            maps.remove(&start);
            if start < from {
                maps.insert(start, from - start);
            }
            if at + len < start + length {
                maps.insert(at + len, start + length - at - len);
            }
            from = start + length;
        }
    }

    /// Whether [at, at + len) lies where wishes are heard, and nothing is there.
    fn is_free(&self, at: usize, len: usize) -> bool {
        let start = self.break_start.load(Ordering::Relaxed);
        let maps = self.maps.lock().unwrap();
        let below = maps.range(..at + len).next_back();
        start != 0
            && (start + BREAK_SPACE..start + ARENA - len).contains(&at)
            && below.is_none_or(|(&below, &length)| below + length <= at)
    }

    /// Gives [at, at + len), which is in the books no more, back. Addresses of the arena stay this
    /// process's.
    ///
    /// # Safety
    /// Nobody uses the mapping.
    unsafe fn give_back(&self, at: usize, len: usize) -> bool {
        // SAFETY: the caller says so.
        unsafe {
            if self.is_arena(at) {
                system::shut(at, len)
            } else {
                system::unmap(at, len)
            }
        }
    }

    /// Whether the address is one of the arena's.
    fn is_arena(&self, at: usize) -> bool {
        let start = self.break_start.load(Ordering::Relaxed);
        start != 0 && (start..start + ARENA).contains(&at)
    }

    fn holds(&self, at: usize, len: usize) -> bool {
        let start = self.break_start.load(Ordering::Relaxed);
        if start != 0 && at >= start && at + len <= start + BREAK_SPACE {
            return true;
        }
        let maps = self.maps.lock().unwrap();
        // Neighbouring mappings are one range.
        let mut from = at;
        while from < at + len {
            match maps.range(..=from).next_back() {
                Some((&start, &length)) if from < start + length => from = start + length,
                _ => return false,
            }
        }
        true
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        for (&at, &len) in self.maps.lock().unwrap().iter() {
            if !self.is_arena(at) {
                // SAFETY: the process that used the mapping is gone.
                unsafe { system::unmap(at, len) };
            }
        }
        let start = self.break_start.load(Ordering::Relaxed);
        if start != 0 {
            // SAFETY: the process that used the arena is gone.
            unsafe { system::unmap(start, ARENA) };
        }
    }
}

/// Addresses for the break of a process and what lies behind it: where they are far from stacks, if
/// the processes of other tests leave a place. Elsewhere there may be none behind the break.
fn reserve_arena() -> Option<usize> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    for _ in 1..ARENA_PLACES {
        let hint = ARENAS + MADE.fetch_add(1, Ordering::Relaxed) % ARENA_PLACES * 2 * ARENA;
        let at = system::reserve(hint, ARENA)?.addr().get();
        if at == hint || cfg!(miri) {
            return Some(at);
        }
        // SAFETY: just reserved, and nobody uses it.
        unsafe { system::unmap(at, ARENA) };
    }
    Some(system::reserve(0, ARENA)?.addr().get())
}

// SAFETY: real pages, a real lock, a thread-local word.
unsafe impl Platform for Mock {
    const BREAK_ROOM: usize = BREAK_SPACE;
    fn page_size(&self) -> usize {
        self.page
    }
    fn clock(&self) -> u32 {
        let pause = if self.frozen.load(Ordering::Relaxed) {
            0
        } else {
            PURGE_PAUSE
        };
        self.clock
            .fetch_add(pause, Ordering::Relaxed)
            .wrapping_add(pause)
    }
    fn map(&self, hint: usize, len: usize) -> Option<NonNull<u8>> {
        self.expect_pages(hint, len);
        if !self.may(Call::Map) {
            return None;
        }
        let mut hint = hint;
        if self.crowded.load(Ordering::Relaxed) && !self.is_free(hint, len) {
            let start = self.break_start.load(Ordering::Relaxed) + BREAK_SPACE;
            let start = start.next_multiple_of(self.page);
            let maps = self.maps.lock().unwrap().clone();
            let behind = maps.range(start..).map(|(&at, &len)| at + len);
            let free = [start].into_iter().chain(behind);
            hint = free
                .into_iter()
                .find(|&at| self.is_free(at, len))
                .unwrap_or(0);
        }
        let at = if self.is_free(hint, len) {
            // SAFETY: in the arena, and nothing is there.
            let opened = unsafe { system::open(hint, len) };
            opened.then(|| NonNull::new(with_exposed_provenance_mut(hint)).unwrap())?
        } else {
            let wish = if self.hears.load(Ordering::Relaxed) {
                hint
            } else {
                0
            };
            let at = self.map_pages(wish, len)?;
            let missed = wish != 0 && at.as_ptr() as usize != wish;
            self.unheard.fetch_add(missed as usize, Ordering::Relaxed);
            at
        };
        self.maps.lock().unwrap().insert(at.as_ptr() as usize, len);
        Some(at)
    }
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> bool {
        self.expect_pages(at.addr().get(), len);
        assert!(
            self.holds(at.as_ptr() as usize, len),
            "unmap of foreign memory"
        );
        if !self.may(Call::Unmap) {
            return false;
        }
        let address = at.as_ptr() as usize;
        self.forget(address, len);
        // SAFETY: the caller says that nobody uses the mapping.
        unsafe { self.give_back(address, len) }
    }
    unsafe fn purge(&self, at: NonNull<u8>, len: usize) -> bool {
        self.expect_pages(at.addr().get(), len);
        assert!(
            self.holds(at.as_ptr() as usize, len),
            "purge of foreign memory"
        );
        // SAFETY: the caller needs nothing of what the pages hold.
        self.may(Call::Purge) && unsafe { system::purge(at.as_ptr() as usize, len) }
    }
    unsafe fn close(&self, at: NonNull<u8>, len: usize) -> bool {
        self.expect_pages(at.addr().get(), len);
        assert!(
            self.holds(at.as_ptr() as usize, len),
            "closing foreign memory"
        );
        // SAFETY: the caller says that nobody uses the pages.
        self.may(Call::Map) && unsafe { system::shut(at.as_ptr() as usize, len) }
    }
    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        self.expect_pages(at.addr().get(), old);
        self.expect_pages(at.addr().get(), new);
        if !self.may(Call::Remap) {
            return None;
        }
        let moved = if self.page == PAGE && !self.is_arena(at.as_ptr() as usize) {
            // SAFETY: the caller uses only what this gives.
            unsafe { system::remap(at.as_ptr() as usize, old, new) }?
        } else {
            // The system would move it to where a page of its own begins, or out of the arena.
            let moved = self.map_pages(0, new)?;
            // SAFETY: both have so many bytes, and the caller uses the first no more.
            unsafe {
                core::ptr::copy_nonoverlapping(at.as_ptr(), moved.as_ptr(), old.min(new));
                self.give_back(at.as_ptr() as usize, old);
            }
            moved
        };
        self.forget(at.as_ptr() as usize, old);
        self.maps
            .lock()
            .unwrap()
            .insert(moved.as_ptr() as usize, new);
        Some(moved)
    }
    fn program_break(&self) -> usize {
        if !self.has_break {
            return 0;
        }
        if self.break_start.load(Ordering::Relaxed) == 0 {
            let Some(at) = reserve_arena() else {
                return 0;
            };
            self.break_start.store(at, Ordering::Relaxed);
            // Anywhere in a chunk.
            self.break_now.store(at + 0x5000, Ordering::Relaxed);
        }
        self.break_now.load(Ordering::Relaxed)
    }
    fn move_break(&self, to: usize) -> bool {
        let start = self.break_start.load(Ordering::Relaxed);
        if !self.may(Call::Break) || to > start + BREAK_SPACE {
            return false;
        }
        let now = self.break_now.load(Ordering::Relaxed);
        // SAFETY: within the space of the break, and not opened so far.
        let moved = unsafe { system::open(now, to - now) };
        if moved {
            self.break_now.store(to, Ordering::Relaxed);
        }
        moved
    }
    fn random(&self) -> [u64; 2] {
        [0x0123_4567_89ab_cdef ^ seed(), 42]
    }
    fn entropy(&self) -> Option<[u64; 4]> {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed) as u64;
        (!self.mute.load(Ordering::Relaxed)).then_some([seed(), drawn, 1, 2])
    }
    fn thread_number(&self) -> u32 {
        NUMBER.get()
    }
    fn lock(&self) {
        self.locks.fetch_add(1, Ordering::Relaxed);
        // Acquire and release: an ordinary spin lock, enough for tests.
        while self.held.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        LOCKS.set(LOCKS.get() + 1);
    }
    fn try_lock(&self) -> bool {
        let taken = !self.held.swap(true, Ordering::Acquire);
        LOCKS.set(LOCKS.get() + taken as usize);
        taken
    }
    fn unlock(&self) {
        assert!(self.held.swap(false, Ordering::Release));
        LOCKS.set(LOCKS.get() - 1);
    }
    unsafe fn reset_lock(&self) {
        self.held.store(false, Ordering::Release);
        LOCKS.set(0);
    }
    fn threaded(&self) -> bool {
        !self.single.load(Ordering::Relaxed)
    }
    fn heap_field(&self) -> usize {
        HEAP.get()
    }
    fn set_heap_field(&self, value: usize) {
        HEAP.set(value);
    }
    fn tell_exit(&self) -> bool {
        !LATE.get()
    }
    fn frees_often(&self) -> bool {
        !LATE.get()
    }
    fn first_heap(&self) {}
    fn out_of_memory(&self) {
        ERRNO.set(true);
    }
}
