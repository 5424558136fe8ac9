//! What the libraries need of their libc and have in C: `library.c`. None touches errno.

use crate::base::sync::AtomicU32;
use core::ffi::{c_int, c_long, c_uint, c_void};

extern "C" {
    /// `len` bytes of new zero memory, at `at` if that is free; mmap's result.
    pub fn byssal_map(at: *mut c_void, len: usize) -> *mut c_void;
    /// Inaccessible pages in the place of [at, at+len); mmap's result.
    pub fn byssal_close(at: *mut c_void, len: usize) -> *mut c_void;
    /// Sees to it that this thread's heap is abandoned when the thread exits; 0 if that cannot be.
    pub fn byssal_tell_exit() -> c_int;
    /// Whether this thread, which has no heap and frees a slot, is to get one.
    pub fn byssal_frees_often() -> c_int;
    /// The second number of glibc's version; -1 beside another libc.
    pub fn byssal_glibc() -> c_int;
    /// Whether libc knows that there is one thread only.
    pub fn byssal_single_threaded() -> c_int;
    /// Milliseconds of a clock that only goes on.
    pub fn byssal_clock() -> c_uint;
    /// The kernel's number of this thread; 0 if it refuses.
    pub fn byssal_thread_id() -> c_uint;
    /// Sets errno; the value before.
    pub fn byssal_errno_swap(value: c_int) -> c_int;
    /// Sixteen bytes of the kernel's, or null.
    pub fn byssal_random() -> *const u8;
    /// `len` bytes that the kernel draws for this call; 0 if it refuses.
    pub fn byssal_entropy(out: *mut u8, len: usize) -> c_int;
    /// futex(word, operation | private, value).
    pub fn byssal_futex(word: *const AtomicU32, operation: c_int, value: u32) -> c_long;
    /// The address of this thread's word for the allocator.
    pub fn byssal_thread_field() -> *mut *mut c_void;
    /// This thread's word itself, where `word.rs` can reach it without a call.
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    pub static byssal_thread_heap: usize;
    /// Nanoseconds of this thread's own time.
    #[cfg(feature = "count")]
    pub fn byssal_nanoseconds() -> u64;
}
