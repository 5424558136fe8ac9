//! The fuzzer: bytes become steps, which run against the model (`src/heap/model.rs`), a new
//! process for each input. Anything that contradicts the model panics, and ends the fuzzer.
//!
//! Environment: `BYSSAL_STEPS` prints the steps of each input before it runs.
#![no_main]

use byssal_heap::model::{decode, print, run, Boxed};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

std::thread_local! {
    static RUNNING: RefCell<String> = const { RefCell::new(String::new()) };
}

static INPUTS: AtomicU64 = AtomicU64::new(0);
static STEPS_RUN: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Sums of all inputs, for `ci/fuzz`.
extern "C" fn tell() {
    eprintln!(
        "byssal: {} inputs, {} steps, {} calls, {} misuses named, {} allocations refused",
        INPUTS.load(Relaxed),
        STEPS_RUN.load(Relaxed),
        CALLS.load(Relaxed),
        FAULTS.load(Relaxed),
        REFUSED.load(Relaxed),
    );
}

fn init() {
    // SAFETY: a function for the end of the process.
    unsafe { libc::atexit(tell) };
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        RUNNING.with_borrow(|steps| eprintln!("# steps of this input:\n{steps}# end of steps"));
        abort(panic);
    }));
}

fuzz_target!(init: init(), |data: &[u8]| {
    let (has_break, steps) = decode(data);
    let text = print(&steps);
    if std::env::var_os("BYSSAL_STEPS").is_some() {
        eprint!("{text}");
    }
    RUNNING.set(text);
    let report = run(&Boxed::new(has_break), &steps);
    INPUTS.fetch_add(1, Relaxed);
    STEPS_RUN.fetch_add(steps.len() as u64, Relaxed);
    CALLS.fetch_add(report.calls, Relaxed);
    FAULTS.fetch_add(report.faults, Relaxed);
    REFUSED.fetch_add(report.refused, Relaxed);
});
