//! Inside musl: the platform through glue.c, and the contract's symbols.

use crate::glue_bindings as glue;
use crate::thread;
use byssal_heap::allocator::Allocator;
use byssal_heap::base::config::UNIT;
use byssal_heap::base::platform::Platform;
use byssal_heap::base::random::weak_seed;
use byssal_heap::inspect::description::Description;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

/// musl, as glue.c shows it.
struct Musl;

/// The one allocator of the process. In a section of its own, which the tool renames so that it
/// comes behind all other zero memory: else it parts what musl and the program have there, and a
/// small process touches a page at either end.
#[link_section = ".bss.byssal_process"]
static PROCESS: Allocator<Musl> = Allocator::new(Musl);

/// How to read it from outside.
static DESCRIPTION: Description = Description::of(&PROCESS);

/// Bytes of a page on architectures that have one size only, where it is a constant in musl, too
/// (glue.c compares). Roundings by it then are a mask instead of a call and a division.
const FIXED_PAGE: Option<usize> = if cfg!(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "s390x"
)) {
    Some(4096)
} else {
    None
};

// SAFETY: the glue's functions do what their names say; musl's lock does nothing only while there
// is one thread; the field is zero in each new thread.
unsafe impl Platform for Musl {
    /// musl has no sbrk for programs: the room is for chunks where nothing can be mapped.
    const BREAK_ROOM: usize = 16 << 20;
    const SHORTCUTS: bool = false;
    #[inline(always)]
    fn page_size(&self) -> usize {
        if let Some(size) = FIXED_PAGE {
            return size;
        }
        // SAFETY: no precondition.
        unsafe { glue::__byssal_page_size() }
    }
    fn map(&self, hint: usize, len: usize) -> Option<NonNull<u8>> {
        let hint = ptr::without_provenance_mut(hint);
        // SAFETY: a new private mapping.
        NonNull::new(unsafe { glue::__byssal_map(hint, len) }.cast())
    }
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller gives the range up.
        unsafe { glue::__byssal_unmap(at.as_ptr().cast(), len) == 0 }
    }
    unsafe fn purge(&self, at: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller says that nobody needs what the pages hold.
        unsafe { glue::__byssal_purge(at.as_ptr().cast(), len) == 0 }
    }
    unsafe fn close(&self, at: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller says that nobody needs what the pages hold.
        unsafe { glue::__byssal_close(at.as_ptr().cast(), len) == 0 }
    }
    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller gives the mapping up where it is.
        NonNull::new(unsafe { glue::__byssal_remap(at.as_ptr().cast(), old, new) }.cast())
    }
    fn program_break(&self) -> usize {
        // SAFETY: only asks.
        unsafe { glue::__byssal_break(0) }
    }
    fn move_break(&self, to: usize) -> bool {
        // SAFETY: memory between the old and the new break is nobody else's.
        unsafe { glue::__byssal_break(to) == to }
    }
    fn random(&self) -> [u64; 2] {
        let mut bytes = [[0u8; 8]; 2];
        // SAFETY: sixteen bytes.
        if unsafe { glue::__byssal_random(bytes.as_mut_ptr().cast()) } == 0 {
            return weak_seed((&raw const PROCESS).addr());
        }
        bytes.map(u64::from_ne_bytes)
    }
    fn entropy(&self) -> Option<[u64; 4]> {
        let mut bytes = [[0u8; 8]; 4];
        // SAFETY: 32 bytes.
        let drawn = unsafe { glue::__byssal_entropy(bytes.as_mut_ptr().cast()) };
        (drawn != 0).then(|| bytes.map(u64::from_ne_bytes))
    }
    #[inline(always)]
    fn thread_number(&self) -> u32 {
        // musl tells of a fork only in a process with threads.
        // SAFETY: only asks.
        unsafe { glue::__byssal_thread_number() }
    }
    fn clock(&self) -> u32 {
        // SAFETY: only asks.
        unsafe { glue::__byssal_clock() }
    }
    fn lock(&self) {
        // SAFETY: the heap takes it once at a time.
        unsafe { glue::__byssal_lock() }
    }
    fn try_lock(&self) -> bool {
        // SAFETY: only tries.
        unsafe { glue::__byssal_try_lock() != 0 }
    }
    fn unlock(&self) {
        // SAFETY: held.
        unsafe { glue::__byssal_unlock() }
    }
    unsafe fn reset_lock(&self) {
        // SAFETY: the caller says that there is one thread.
        unsafe { glue::__byssal_reset_lock() }
    }
    fn threaded(&self) -> bool {
        // SAFETY: only asks.
        unsafe { glue::__byssal_threaded() != 0 }
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
    #[inline(always)]
    fn tell_exit(&self) -> bool {
        // musl calls `__malloc_thread_exit` in each exiting thread: nothing to register. Behind that
        // comes at most `exit`, in the last thread, which may keep a heap again.
        true
    }
    #[inline(always)]
    fn frees_often(&self) -> bool {
        true
    }
    fn first_heap(&self) {
        // musl calls `__malloc_process_exit`: nothing to register.
        // A linker that drops what nobody refers to is to keep this.
        core::hint::black_box(&raw const DESCRIPTION);
    }
    fn out_of_memory(&self) {
        // ENOMEM is 12 on all of Linux's architectures.
        // SAFETY: this thread's errno.
        unsafe { *glue::__byssal_errno() = 12 }
    }
}

/// See glue.h.
#[no_mangle]
extern "C" fn __libc_malloc_impl(n: usize) -> *mut c_void {
    PROCESS.malloc(n).cast()
}

/// See glue.h.
///
/// # Safety
/// C's contract of free.
#[no_mangle]
unsafe extern "C" fn __libc_free(p: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { PROCESS.free(p.cast()) }
}

/// See glue.h.
///
/// # Safety
/// C's contract of realloc.
#[no_mangle]
unsafe extern "C" fn __libc_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the caller gives `p` up and uses what is returned, unless that is null.
    unsafe {
        let relocate = |usable| relocate(p, n, usable).cast();
        let malloc = |n| __libc_malloc_impl(n).cast();
        PROCESS.resize_rest(p.cast(), n, malloc, relocate).cast()
    }
}

/// realloc of a block that does not stay, of which the program may have used `usable` bytes. The
/// one copy of malloc and of free serve here, too: they are all in line.
///
/// # Safety
/// C's contract of realloc.
#[inline(never)]
unsafe fn relocate(p: *mut c_void, n: usize, usable: usize) -> *mut c_void {
    let malloc = |n| __libc_malloc_impl(n).cast();
    // SAFETY: see `__libc_realloc`.
    unsafe {
        let free = |p: *mut u8| __libc_free(p.cast());
        let new = PROCESS.relocate(p.cast(), n, usable, malloc, free);
        new.cast()
    }
}

/// See glue.h.
#[no_mangle]
extern "C" fn __malloc_allzerop(p: *mut c_void) -> c_int {
    PROCESS.is_zero(p.cast()) as c_int
}

/// See glue.h.
#[no_mangle]
extern "C" fn __malloc_atfork(who: c_int) {
    match who {
        0 => PROCESS.after_fork_parent(),
        // SAFETY: musl calls this in the child's only thread, before fork returns.
        1.. => unsafe { PROCESS.after_fork_child() },
        _ => PROCESS.before_fork(),
    }
}

/// See glue.h.
#[no_mangle]
extern "C" fn __malloc_thread_exit() {
    PROCESS.thread_exit();
}

/// See glue.h.
#[no_mangle]
extern "C" fn __malloc_process_exit() {
    PROCESS.process_exit();
}

/// See glue.h.
#[no_mangle]
extern "C" fn __byssal_aligned_alloc(align: usize, n: usize) -> *mut c_void {
    // 0 is as good as 1, as musl's own malloc has it.
    if align & align.wrapping_sub(1) != 0 {
        // EINVAL is 22 on all of Linux's architectures.
        // SAFETY: this thread's errno.
        unsafe { *glue::__byssal_errno() = 22 };
        return ptr::null_mut();
    }
    // As in realloc.
    if align <= UNIT {
        return __libc_malloc_impl(n);
    }
    PROCESS.aligned_alloc(align, n).cast()
}

/// See glue.h.
#[no_mangle]
extern "C" fn __byssal_usable_size(p: *mut c_void) -> usize {
    PROCESS.usable_size(p.cast())
}

// The definitions above against the header's declarations.
const _: () = {
    const fn same<T: Copy>(_: T, _: T) {}
    type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
    type Free = unsafe extern "C" fn(*mut c_void);
    type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
    type Ask = unsafe extern "C" fn(*mut c_void) -> c_int;
    type Atfork = unsafe extern "C" fn(c_int);
    type Exit = unsafe extern "C" fn();
    type Aligned = unsafe extern "C" fn(usize, usize) -> *mut c_void;
    type Usable = unsafe extern "C" fn(*mut c_void) -> usize;
    same::<Malloc>(glue::__libc_malloc_impl, __libc_malloc_impl);
    same::<Free>(glue::__libc_free, __libc_free);
    same::<Realloc>(glue::__libc_realloc, __libc_realloc);
    same::<Ask>(glue::__malloc_allzerop, __malloc_allzerop);
    same::<Atfork>(glue::__malloc_atfork, __malloc_atfork);
    same::<Exit>(glue::__malloc_thread_exit, __malloc_thread_exit);
    same::<Exit>(glue::__malloc_process_exit, __malloc_process_exit);
    same::<Aligned>(glue::__byssal_aligned_alloc, __byssal_aligned_alloc);
    same::<Usable>(glue::__byssal_usable_size, __byssal_usable_size);
};
