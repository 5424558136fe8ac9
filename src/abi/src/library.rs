//! Beside a libc: the public malloc family, for LD_PRELOAD and for linking.

use crate::{thread, weak_random};
use byssal_heap::allocator::Allocator;
use byssal_heap::base::fault::{self, Fault};
use byssal_heap::base::lock::{Futex, Lock};
use byssal_heap::base::platform::Platform;
use byssal_heap::base::size_class::MAX_SMALL;
use byssal_heap::base::sync::{AtomicU32, AtomicUsize, Ordering};
use byssal_heap::inspect::description::Description;
use byssal_heap::note;
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use core::fmt::Write;
use core::ptr::{self, NonNull};

const ENOMEM: c_int = 12;
const EINVAL: c_int = 22;
const MADV_DONTNEED: c_int = 4;
const MREMAP_MAYMOVE: c_int = 1;
const SC_PAGESIZE: c_int = 30;

extern "C" {
    // The host libc. errno is saved around all of them.
    fn munmap(at: *mut c_void, len: usize) -> c_int;
    fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
    fn mremap(at: *mut c_void, old: usize, new: usize, flags: c_int, ...) -> *mut c_void;
    fn sbrk(by: isize) -> *mut c_void;
    fn sysconf(name: c_int) -> c_long;
    fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize;
    // library.c.
    fn byssal_map(at: *mut c_void, len: usize) -> *mut c_void;
    fn byssal_close(at: *mut c_void, len: usize) -> *mut c_void;
    fn byssal_tell_exit() -> c_int;
    fn byssal_frees_often() -> c_int;
    fn byssal_glibc() -> c_int;
    fn byssal_single_threaded() -> c_int;
    fn byssal_clock() -> c_uint;
    /// The kernel's number of this thread.
    fn byssal_thread_id() -> c_uint;
    fn byssal_errno_swap(value: c_int) -> c_int;
    fn byssal_random() -> *const u8;
    /// `len` bytes that the kernel draws; 0 if it refuses.
    fn byssal_entropy(out: *mut u8, len: usize) -> c_int;
    /// futex(word, operation | private, value) without touching errno.
    fn byssal_futex(word: *const AtomicU32, operation: c_int, value: u32) -> c_long;
}

/// Linux's futex.
struct System;

impl Futex for System {
    fn wait(&self, word: &AtomicU32, value: u32) {
        // SAFETY: FUTEX_WAIT (0) on a word that is there.
        unsafe { byssal_futex(word, 0, value) };
    }
    fn wake(&self, word: &AtomicU32) {
        // SAFETY: FUTEX_WAKE (1), one thread.
        unsafe { byssal_futex(word, 1, 1) };
    }
}

/// The host system.
struct Host {
    lock: Lock<System>,
    page_size: AtomicUsize,
}

/// The one allocator of the process.
static PROCESS: Allocator<Host> = Allocator::new(Host {
    lock: Lock::new(System),
    page_size: AtomicUsize::new(0),
});

/// How to read it from outside.
#[used]
static DESCRIPTION: Description = Description::of(&PROCESS);

/// Runs `call` and keeps errno.
fn keeping_errno<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: this thread's errno.
    let saved = unsafe { byssal_errno_swap(0) };
    let result = call();
    // SAFETY: this thread's errno, once more.
    unsafe { byssal_errno_swap(saved) };
    result
}

/// mmap's and mremap's result.
fn mapped(at: *mut c_void) -> Option<NonNull<u8>> {
    if at.addr() == usize::MAX {
        None
    } else {
        NonNull::new(at.cast())
    }
}

/// Identifies the calling thread: the address of its word, never 0.
fn this_thread() -> usize {
    extern "C" {
        fn byssal_thread_field() -> *mut *mut c_void;
    }
    // SAFETY: only an address.
    unsafe { byssal_thread_field().addr() }
}

/// A clock, for how long the lock is held.
#[cfg(feature = "count")]
fn nanoseconds() -> u64 {
    extern "C" {
        fn byssal_nanoseconds() -> u64;
    }
    // SAFETY: only asks.
    unsafe { byssal_nanoseconds() }
}

/// See library.c.
///
/// # Safety
/// `value` is valid.
#[cfg(feature = "count")]
#[no_mangle]
unsafe extern "C" fn byssal_count(index: usize, value: *mut u64) -> *const c_char {
    let Some((name, count)) = byssal_heap::count::get(index) else {
        return ptr::null();
    };
    // SAFETY: library.c gives a variable of its own.
    unsafe { *value = count };
    name.as_ptr()
}

// SAFETY: ordinary system calls; a real lock; a thread-local word.
unsafe impl Platform for Host {
    /// Programs may move the break.
    const BREAK_ROOM: usize = if usize::BITS == 64 { 1 << 30 } else { 16 << 20 };
    fn page_size(&self) -> usize {
        // Relaxed: every thread finds the same value.
        match self.page_size.load(Ordering::Relaxed) {
            0 => {
                // SAFETY: no precondition.
                let size = unsafe { sysconf(SC_PAGESIZE) } as usize;
                self.page_size.store(size, Ordering::Relaxed);
                size
            }
            size => size,
        }
    }
    fn map(&self, hint: usize, len: usize) -> Option<NonNull<u8>> {
        note!(Map);
        let hint = ptr::without_provenance_mut(hint);
        // SAFETY: a new private mapping.
        keeping_errno(|| unsafe { mapped(byssal_map(hint, len)) })
    }
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> bool {
        note!(Unmap);
        // SAFETY: the caller gives the range up.
        keeping_errno(|| unsafe { munmap(at.as_ptr().cast(), len) == 0 })
    }
    unsafe fn purge(&self, at: NonNull<u8>, len: usize) -> bool {
        note!(Purge);
        // SAFETY: the caller says that nobody needs what the pages hold.
        keeping_errno(|| unsafe { madvise(at.as_ptr().cast(), len, MADV_DONTNEED) == 0 })
    }
    unsafe fn close(&self, at: NonNull<u8>, len: usize) -> bool {
        note!(Map);
        let at = at.as_ptr().cast();
        // SAFETY: the caller says that nobody needs what the pages hold; they are ours.
        keeping_errno(|| unsafe { byssal_close(at, len) == at })
    }
    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        note!(Remap);
        // SAFETY: the caller gives the mapping up where it is.
        keeping_errno(|| unsafe { mapped(mremap(at.as_ptr().cast(), old, new, MREMAP_MAYMOVE)) })
    }
    fn program_break(&self) -> usize {
        // SAFETY: only asks.
        let now = keeping_errno(|| unsafe { sbrk(0) }).addr();
        if now == usize::MAX {
            0
        } else {
            now
        }
    }
    fn move_break(&self, _: usize) -> bool {
        // The break is the host libc's.
        false
    }
    fn random(&self) -> [u64; 2] {
        // SAFETY: null or sixteen bytes of the kernel's.
        unsafe {
            let bytes = byssal_random();
            if bytes.is_null() {
                weak_random((&raw const PROCESS).addr())
            } else {
                bytes.cast::<[u64; 2]>().read_unaligned()
            }
        }
    }
    fn entropy(&self) -> Option<[u64; 4]> {
        let mut bytes = [[0u8; 8]; 4];
        // SAFETY: 32 bytes.
        let drawn = unsafe { byssal_entropy(bytes.as_mut_ptr().cast(), size_of_val(&bytes)) };
        (drawn != 0).then(|| bytes.map(u64::from_ne_bytes))
    }
    #[inline(always)]
    fn thread_number(&self) -> u32 {
        // library.c has a handler of every fork.
        0
    }
    fn thread_id(&self) -> u32 {
        // SAFETY: only asks.
        unsafe { byssal_thread_id() }
    }
    fn clock(&self) -> u32 {
        // SAFETY: only asks.
        unsafe { byssal_clock() }
    }
    fn lock(&self) {
        if self.threaded() {
            self.lock.lock(this_thread());
            #[cfg(feature = "count")]
            byssal_heap::count::hold(nanoseconds);
        }
    }
    fn try_lock(&self) -> bool {
        !self.threaded() || self.lock.try_lock(this_thread())
    }
    fn unlock(&self) {
        #[cfg(feature = "count")]
        byssal_heap::count::release(nanoseconds);
        self.lock.unlock(this_thread());
    }
    unsafe fn reset_lock(&self) {
        self.lock.reset();
    }
    fn threaded(&self) -> bool {
        // SAFETY: only asks.
        unsafe { byssal_single_threaded() == 0 }
    }
    #[inline(always)]
    fn heap_field(&self) -> usize {
        thread::get()
    }
    #[inline(always)]
    fn add_heap_field(&self, base: usize) -> usize {
        thread::add_to(base)
    }
    fn set_heap_field(&self, value: usize) {
        thread::set(value);
    }
    fn tell_exit(&self) -> bool {
        // SAFETY: the thread has a heap, if this allocates.
        unsafe { byssal_tell_exit() != 0 }
    }
    fn frees_often(&self) -> bool {
        // SAFETY: only asks and counts.
        unsafe { byssal_frees_often() != 0 }
    }
    fn first_heap(&self) {
        // library.c has a destructor.
    }
    fn out_of_memory(&self) {
        set_errno(ENOMEM);
    }
}

/// Sets this thread's errno.
fn set_errno(value: c_int) {
    // SAFETY: this thread's errno.
    unsafe { byssal_errno_swap(value) };
}

/// Text of bounded length for the last message.
struct Line {
    bytes: [u8; 96],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let n = text.len().min(room.len());
        room[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Prints the fault on stderr.
fn report(fault: Fault, address: usize) {
    let mut line = Line {
        bytes: [0; 96],
        len: 0,
    };
    let _ = writeln!(
        line,
        "byssal: fault {}: {} at {address:#x}",
        fault as u32,
        fault.name()
    );
    // SAFETY: plain bytes.
    unsafe { write(2, line.bytes.as_ptr().cast(), line.len) };
}

/// Set when the image is loaded: every fault finds it.
#[used]
#[link_section = ".init_array"]
static SET_REPORT: extern "C" fn() = {
    extern "C" fn set_report() {
        // SAFETY: before the program's own threads.
        unsafe { fault::REPORT = Some(report) };
    }
    set_report
};

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
        let minor = unsafe { super::byssal_glibc() };
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
        None => {
            set_errno(ENOMEM);
            ptr::null_mut()
        }
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
    unsafe { PROCESS.free_sized(p.cast(), 1, n) }
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
    unsafe { PROCESS.free_sized(p.cast(), align, n) }
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

/// See library.c. From here to the end of the fork this thread may still allocate: other
/// handlers do.
#[no_mangle]
extern "C" fn byssal_before_fork() {
    PROCESS.before_fork();
    PROCESS.platform().lock.begin_fork(this_thread());
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_after_fork_parent() {
    PROCESS.platform().lock.end_fork();
    PROCESS.after_fork_parent();
}

/// See library.c.
#[no_mangle]
extern "C" fn byssal_after_fork_child() {
    PROCESS.platform().lock.end_fork();
    // SAFETY: the child's only thread.
    unsafe { PROCESS.after_fork_child() }
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
