//! The whole heap against a mock system, with `check` after the steps.

use crate::mock::Mock;
use crate::process::Process;
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};

mod blocks;
mod footprint;
mod misuse;
mod random;
mod stress;
mod threads;

/// A process in memory of its own (its window table is too large for a stack).
struct Boxed(*mut Process<Mock>);

impl Boxed {
    fn new(has_break: bool) -> Self {
        Mock::new_thread();
        // SAFETY: all-zero bytes are a valid process but for its platform, which is written here.
        unsafe {
            let process = alloc_zeroed(Layout::new::<Process<Mock>>()).cast::<Process<Mock>>();
            Process::init_for_test(process, Mock::new(has_break));
            Boxed(process)
        }
    }

    fn verify(&self) -> crate::inspect::Summary {
        match self.check() {
            Ok(summary) => summary,
            Err(broken) => {
                let mut dump = String::new();
                let _ = self.dump(&mut dump);
                panic!("{broken}\n{dump}");
            }
        }
    }
}

impl Deref for Boxed {
    type Target = Process<Mock>;
    fn deref(&self) -> &Process<Mock> {
        // SAFETY: made in `new`, freed in `drop`.
        unsafe { &*self.0 }
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        Mock::new_thread();
        // SAFETY: the last use.
        unsafe {
            core::ptr::drop_in_place(&raw mut (*self.0).platform);
            dealloc(self.0.cast(), Layout::new::<Process<Mock>>());
        }
    }
}

// SAFETY: a process is shared by threads.
unsafe impl Send for Boxed {}
// SAFETY: as above.
unsafe impl Sync for Boxed {}

/// A live block of the model.
#[derive(Clone, Copy)]
struct Live {
    at: *mut u8,
    n: usize,
    tag: u8,
}

// SAFETY: tests hand blocks from thread to thread.
unsafe impl Send for Live {}
// SAFETY: as above.
unsafe impl Sync for Live {}

impl Live {
    fn new(at: *mut u8, n: usize, tag: u8) -> Self {
        assert!(!at.is_null());
        assert_eq!(at as usize % 16, 0);
        // SAFETY: a block of n bytes.
        unsafe { at.write_bytes(tag, n) };
        Live { at, n, tag }
    }

    fn verify(&self) {
        self.verify_first(self.n);
    }

    fn verify_first(&self, n: usize) {
        // SAFETY: a live block.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, n) };
        assert!(
            bytes.iter().all(|&b| b == self.tag),
            "contents of a live block changed"
        );
    }
}

/// As many frees as it takes for a freed slot to leave its ring.
fn churn(process: &Boxed, n: usize) {
    for _ in 0..=crate::config::RING {
        // SAFETY: live.
        unsafe { process.free(process.malloc(n)) };
    }
}

/// Whether the action stops with a fault of that name.
fn faults(name: &str, action: impl FnOnce()) -> bool {
    let result = catch_unwind(AssertUnwindSafe(action));
    let message = result
        .err()
        .and_then(|e| e.downcast_ref::<String>().cloned());
    message.is_some_and(|m| m.contains(name))
}
