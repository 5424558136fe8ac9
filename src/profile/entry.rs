//! What profile.c calls. But for the filters, which each free reads, all of it is called by the
//! holder of profile.c's lock alone.

use crate::filter::Filter;
use crate::report;
use crate::state::{Sample, State};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::slice;

/// The profile of the process.
struct Process(UnsafeCell<State>);

// SAFETY: profile.c calls what uses it with its lock held.
unsafe impl Sync for Process {}

static PROCESS: Process = Process(UnsafeCell::new(State::new(1, 0)));

/// Of pages, and of blocks: profile.c looks into them for each free.
#[no_mangle]
#[allow(non_upper_case_globals)]
static byssal_profile_filters: [Filter; 2] = [Filter::new(), Filter::new()];

/// The profile of the process, for one call.
fn state() -> &'static mut State {
    // SAFETY: each function here asks for it once and lets go of it when it returns, and its caller
    // has the lock: nobody else has it meanwhile.
    unsafe { &mut *PROCESS.0.get() }
}

/// Begins with samples that are `mean` bytes apart in the mean.
#[no_mangle]
extern "C" fn byssal_profile_begin(mean: u64, seed: u64) {
    *state() = State::new(mean, seed);
}

/// Bytes that a thread may allocate until its next sample.
#[no_mangle]
extern "C" fn byssal_profile_distance() -> usize {
    state().distance()
}

/// Notes a sample, and its stack.
///
/// # Safety
/// `stack` holds `depth` addresses.
#[no_mangle]
unsafe extern "C" fn byssal_profile_allocated(
    address: usize,
    size: usize,
    stack: *const usize,
    depth: usize,
) {
    // SAFETY: by this function's contract.
    let stack = unsafe { slice::from_raw_parts(stack, depth) };
    let block = Sample {
        address,
        size,
        site: 0,
    };
    state().allocated(&byssal_profile_filters, block, stack);
}

/// Notes that a block is freed; 1 if it was a sample, which `out` then tells.
///
/// # Safety
/// `out` is valid.
#[no_mangle]
unsafe extern "C" fn byssal_profile_freed(address: usize, out: *mut Sample) -> c_int {
    let Some(block) = state().freed(&byssal_profile_filters, address) else {
        return 0;
    };
    // SAFETY: by this function's contract.
    unsafe { *out = block };
    1
}

/// Notes that a sample was not freed after all.
///
/// # Safety
/// `block` is what `byssal_profile_freed` told.
#[no_mangle]
unsafe extern "C" fn byssal_profile_restore(block: *const Sample) {
    // SAFETY: by this function's contract.
    state().restore(&byssal_profile_filters, unsafe { *block });
}

/// Forgets all samples.
#[no_mangle]
extern "C" fn byssal_profile_reset(seed: u64) {
    state().reset(&byssal_profile_filters, seed);
}

/// Writes all stacks by `put`, which is given bytes and their number, and returns 0 when they
/// cannot be written; 0 then.
#[no_mangle]
extern "C" fn byssal_profile_write(put: extern "C" fn(*const u8, usize) -> c_int) -> c_int {
    let whole = report::write(state(), &mut |text| put(text.as_ptr(), text.len()) != 0);
    c_int::from(whole.is_ok())
}
