//! Beside a libc: the public malloc family, for LD_PRELOAD and for linking.

use crate::base::platform::Platform;
use crate::base::size_class::MAX_SMALL;
use crate::process::{self, keeping_errno, set_errno, ENOMEM, PROCESS};
use core::ffi::{c_char, c_int, c_void};
use core::fmt::Write;
use core::ptr::{self, NonNull};

const EINVAL: c_int = 22;

/// See library.c.
///
/// # Safety
/// `value` is valid.
#[cfg(feature = "count")]
#[no_mangle]
unsafe extern "C" fn byssal_count(index: usize, value: *mut u64) -> *const c_char {
    let Some((name, count)) = crate::count::get(index) else {
        return ptr::null();
    };
    // SAFETY: library.c gives a variable of its own.
    unsafe { *value = count };
    name.as_ptr()
}

/// C's malloc.
#[no_mangle]
extern "C" fn malloc(n: usize) -> *mut c_void {
    PROCESS.malloc(n).cast()
}

/// C's calloc.
#[no_mangle]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some(n) = count.checked_mul(size) else {
        return PROCESS.out_of_memory().cast();
    };
    PROCESS.calloc(n).cast()
}

/// C's free.
///
/// # Safety
/// C's contract.
#[no_mangle]
unsafe extern "C" fn free(p: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { PROCESS.free(p.cast()) }
}

/// What the host's libc does where libcs differ: programs rely on it. Measured on glibc 2.36 and
/// musl 1.2.6; the change of glibc 2.38 stands in its NEWS.
mod host {
    /// Which realloc, given a block and size 0.
    #[derive(PartialEq)]
    pub enum Zero {
        /// Frees it and returns null; errno stays.
        Frees,
        /// Gives a block of 0 bytes.
        Resizes,
    }

    /// The second number of glibc's version; None beside another libc.
    fn glibc() -> Option<i32> {
        // SAFETY: only asks.
        let minor = unsafe { crate::system::byssal_glibc() };
        (minor >= 0).then_some(minor)
    }

    /// See `Zero`.
    pub fn realloc_to_zero() -> Zero {
        match glibc() {
            Some(_) => Zero::Frees,
            None => Zero::Resizes,
        }
    }

    /// The alignment that aligned_alloc gives for `align`; None: EINVAL.
    pub fn aligned_alloc(align: usize) -> Option<usize> {
        match glibc() {
            Some(..38) => rounded(align),
            Some(_) => align.is_power_of_two().then_some(align),
            None => powers(align),
        }
    }

    /// The same for memalign.
    pub fn memalign(align: usize) -> Option<usize> {
        match glibc() {
            Some(_) => rounded(align),
            None => powers(align),
        }
    }

    /// The next power of two.
    fn rounded(align: usize) -> Option<usize> {
        align.checked_next_power_of_two()
    }

    /// Powers of two, and 0 as the least alignment.
    fn powers(align: usize) -> Option<usize> {
        let align = align.max(1);
        align.is_power_of_two().then_some(align)
    }
}

/// C's realloc.
///
/// # Safety
/// C's contract.
#[no_mangle]
unsafe extern "C" fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the caller gives `p` up and uses what is returned, unless that is null: then
    // `p` stays, or n was 0.
    unsafe {
        let relocate = |usable| relocate(p, n, usable).cast();
        let other = || {
            if n > MAX_SMALL {
                return resize_large(p, n).cast();
            }
            resize_wide(p, n).cast()
        };
        PROCESS.resize(true, p.cast(), n, relocate, other).cast()
    }
}

/// realloc to a size of a wide class, or of any block whatever.
///
/// # Safety
/// C's contract of realloc.
#[inline(never)]
unsafe fn resize_wide(p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: see `realloc`.
    unsafe {
        let relocate = |usable| relocate(p, n, usable).cast();
        let rest = || resize_rest(p, n).cast();
        PROCESS.resize(false, p.cast(), n, relocate, rest).cast()
    }
}

/// realloc of a block that does not stay, of which the program may have used `usable` bytes.
///
/// # Safety
/// C's contract of realloc.
#[inline(never)]
unsafe fn relocate(p: *mut c_void, n: usize, usable: usize) -> *mut c_void {
    let malloc = |n| malloc(n).cast();
    // SAFETY: see `realloc`.
    unsafe {
        let free = |p: *mut u8| free(p.cast());
        let new = PROCESS.relocate(p.cast(), n, usable, malloc, free);
        new.cast()
    }
}

/// realloc to a size beyond all classes.
///
/// # Safety
/// C's contract of realloc.
#[inline(never)]
unsafe fn resize_large(p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: see `realloc`.
    unsafe {
        let relocate = |usable| relocate(p, n, usable).cast();
        let rest = || resize_rest(p, n).cast();
        PROCESS.resize_large(p.cast(), n, relocate, rest).cast()
    }
}

/// realloc of a block of another class or of none, or of another thread, or of null.
///
/// # Safety
/// C's contract of realloc.
#[inline(never)]
unsafe fn resize_rest(p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: see `realloc`.
    unsafe {
        if n == 0 && !p.is_null() && host::realloc_to_zero() == host::Zero::Frees {
            free(p);
            return ptr::null_mut();
        }
        let malloc = |n| malloc(n).cast();
        let relocate = |usable| relocate(p, n, usable).cast();
        PROCESS.resize_rest(p.cast(), n, malloc, relocate).cast()
    }
}

/// POSIX-2024's reallocarray.
///
/// # Safety
/// C's contract of realloc.
#[no_mangle]
unsafe extern "C" fn reallocarray(p: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: what this caller promises of `p` is what realloc asks for.
        Some(n) => unsafe { realloc(p, n) },
        // SAFETY: likewise. More than there can be: p is looked at all the same.
        None => unsafe { realloc(p, usize::MAX) },
    }
}

/// C's aligned_alloc: any size.
#[no_mangle]
extern "C" fn aligned_alloc(align: usize, n: usize) -> *mut c_void {
    if align.is_power_of_two() {
        // All libcs agree.
        return PROCESS.aligned_alloc(align, n).cast();
    }
    aligned_odd(align, n)
}

/// aligned_alloc for an alignment that is no power of two.
#[inline(never)]
fn aligned_odd(align: usize, n: usize) -> *mut c_void {
    aligned(host::aligned_alloc(align), n)
}

/// The old name of aligned_alloc.
#[no_mangle]
extern "C" fn memalign(align: usize, n: usize) -> *mut c_void {
    aligned(host::memalign(align), n)
}

/// A block at a multiple of `align`; EINVAL without one.
fn aligned(align: Option<usize>, n: usize) -> *mut c_void {
    let Some(align) = align else {
        set_errno(EINVAL);
        return ptr::null_mut();
    };
    PROCESS.aligned_alloc(align, n).cast()
}

/// POSIX's posix_memalign: returns the error, leaves errno and, on failure, *out alone.
///
/// # Safety
/// `out` is valid for a pointer.
#[no_mangle]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, n: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return EINVAL;
    }
    let block = keeping_errno(|| PROCESS.aligned_alloc(align, n));
    if block.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller gives a pointer to a pointer that may be written.
    unsafe { *out = block.cast() };
    0
}

/// A block at a page's start.
#[no_mangle]
extern "C" fn valloc(n: usize) -> *mut c_void {
    aligned(Some(PROCESS.platform().page_size()), n)
}

/// Whole pages.
#[no_mangle]
extern "C" fn pvalloc(n: usize) -> *mut c_void {
    match n.checked_next_multiple_of(PROCESS.platform().page_size()) {
        Some(n) => valloc(n),
        None => {
            set_errno(ENOMEM);
            ptr::null_mut()
        }
    }
}

/// Bytes that may be used at `p`.
#[no_mangle]
extern "C" fn malloc_usable_size(p: *mut c_void) -> usize {
    PROCESS.usable_size(p.cast())
}

/// C23's free_sized.
///
/// # Safety
/// C's contract.
#[no_mangle]
unsafe extern "C" fn free_sized(p: *mut c_void, n: usize) {
    // SAFETY: the caller gives the block up.
    unsafe { PROCESS.free_sized(p.cast(), n) }
}

/// C23's free_aligned_sized.
///
/// # Safety
/// C's contract.
#[no_mangle]
unsafe extern "C" fn free_aligned_sized(p: *mut c_void, align: usize, n: usize) {
    // What aligned_alloc would have made of it; no block was asked for with what it refuses.
    let align = host::aligned_alloc(align).unwrap_or(0);
    // SAFETY: the caller gives the block up.
    unsafe { PROCESS.free_aligned_sized(p.cast(), align, n) }
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_thread_exit() {
    PROCESS.thread_exit();
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_process_exit() {
    PROCESS.process_exit();
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_before_fork() {
    process::before_fork();
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_after_fork_parent() {
    process::after_fork_parent();
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_after_fork_child() {
    // SAFETY: library.c calls it in the child's only thread.
    unsafe { process::after_fork_child() }
}

/// A growing text in a mapping of its own.
struct Text {
    at: NonNull<u8>,
    len: usize,
    mapped: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        if self.len + text.len() > self.mapped {
            let new = (2 * self.mapped).max((self.len + text.len()).next_power_of_two());
            // SAFETY: the text's own mapping.
            let moved = unsafe { PROCESS.platform().remap(self.at, self.mapped, new) };
            self.at = moved.ok_or(core::fmt::Error)?;
            self.mapped = new;
        }
        // SAFETY: there is room.
        unsafe {
            let to = self.at.as_ptr().add(self.len);
            ptr::copy_nonoverlapping(text.as_ptr(), to, text.len());
        }
        self.len += text.len();
        Ok(())
    }
}

/// The heap's dump, in a mapping that the caller unmaps; null when memory is out.
///
/// # Safety
/// Both pointers are valid.
#[no_mangle]
unsafe extern "C" fn byssal_dump(len: *mut usize, mapped: *mut usize) -> *mut c_char {
    const FIRST: usize = 1 << 16;
    let Some(at) = PROCESS.platform().map(0, FIRST) else {
        return ptr::null_mut();
    };
    let mut text = Text {
        at,
        len: 0,
        mapped: FIRST,
    };
    let whole = PROCESS.dump(&mut text).is_ok();
    // SAFETY: the mapping is the text's own; library.c gives two variables of its own.
    unsafe {
        if !whole {
            PROCESS.platform().unmap(text.at, text.mapped);
            return ptr::null_mut();
        }
        *len = text.len;
        *mapped = text.mapped;
    }
    text.at.as_ptr().cast()
}
