//! What the process needs of its libc beyond what all libcs have in common: the same functions that
//! the libraries have in C (`src/abi/library.c`), beside glibc and beside musl. None touches errno.

use crate::base::sync::{AtomicU32, Ordering};
use crate::process::{self, keeping_errno, PROCESS};
use crate::weak::WEAK;
use core::ffi::{c_int, c_long, c_uint, c_void};
use core::ptr;

pub use crate::local::byssal_thread_field;
#[cfg(target_arch = "x86_64")]
pub use crate::local::byssal_thread_heap;

/// How memory of ours is mapped.
const FRESH: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// `len` bytes of new zero memory, at `at` if that is free; mmap's result.
///
/// # Safety
/// None: a new private mapping.
pub unsafe fn byssal_map(at: *mut c_void, len: usize) -> *mut c_void {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private mapping. How long off_t is, the crate libc knows for each libc.
    unsafe { libc::mmap(at, len, access, FRESH, -1, 0) }
}

/// Inaccessible pages in the place of [at, at+len); mmap's result.
///
/// # Safety
/// The range is a mapping of ours that nobody uses.
pub unsafe fn byssal_close(at: *mut c_void, len: usize) -> *mut c_void {
    // SAFETY: the caller gives the range up.
    unsafe { libc::mmap(at, len, libc::PROT_NONE, FRESH | libc::MAP_FIXED, -1, 0) }
}

/// The key whose destructor hands heaps over, and one more; 0 before there is one, and
/// `NO_KEY` when libc has none left.
static KEY: AtomicU32 = AtomicU32::new(0);
const NO_KEY: u32 = u32::MAX;

/// The key, made if need be.
fn key() -> Option<libc::pthread_key_t> {
    // Acquire: what libc keeps of the key is there.
    let mut known = KEY.load(Ordering::Acquire);
    if known == 0 {
        let mut key = 0;
        // SAFETY: a key of our own.
        let made = unsafe { libc::pthread_key_create(&mut key, Some(exiting)) } == 0;
        let new = if made { key + 1 } else { NO_KEY };
        // Release: likewise. Acquire: if another thread was quicker, what it made.
        let entered = KEY.compare_exchange(0, new, Ordering::Release, Ordering::Acquire);
        known = new;
        if let Err(other) = entered {
            known = other;
            if made {
                // SAFETY: nobody knows of it.
                unsafe { libc::pthread_key_delete(key) };
            }
        }
    }
    (known != NO_KEY).then(|| known - 1)
}

/// Whether this thread's heap was handed over, in the word behind the thread's own: no destructor
/// will run for it any more. Below it, frees of the thread before it had a heap, of one slot in
/// four.
const HANDED_OVER: usize = 32;
/// So many of these frees get a thread a heap.
const MANY_FREES: usize = 16;

/// The word behind the thread's own.
fn second_word() -> *mut usize {
    // SAFETY: the variable has two words (`local.rs`).
    unsafe { byssal_thread_field().cast::<usize>().add(1) }
}

/// The destructor of a thread's value of the key: in the thread's last moments.
extern "C" fn exiting(_: *mut c_void) {
    // SAFETY: this thread's own word.
    unsafe { *second_word() = HANDED_OVER };
    PROCESS.thread_exit();
}

/// Sees to it that this thread's heap is abandoned when the thread exits; 0 if that cannot be.
/// Other destructors may run after ours, and behind the last round of them libc frees what it kept
/// for the thread: a value set by then would never be looked at.
///
/// # Safety
/// The thread has a heap, if libc allocates from it here.
pub unsafe fn byssal_tell_exit() -> c_int {
    // SAFETY: this thread's own word.
    if unsafe { *second_word() } == HANDED_OVER {
        return 0;
    }
    let told = keeping_errno(|| {
        // SAFETY: the key is ours; any value that is not null calls its destructor.
        key().is_some_and(
            |key| unsafe { libc::pthread_setspecific(key, (&raw const KEY).cast()) } == 0,
        )
    });
    told as c_int
}

/// Whether a thread without a heap, which frees one of four slots, should get one: not for what
/// libc frees in the last moments of a thread that never allocated.
///
/// # Safety
/// None: only asks and counts.
pub unsafe fn byssal_frees_often() -> c_int {
    // SAFETY: this thread's own word.
    let early_frees = unsafe { &mut *second_word() };
    if *early_frees < MANY_FREES {
        *early_frees += 1;
    }
    (*early_frees == MANY_FREES) as c_int
}

/// Whether libc knows that there is one thread only.
///
/// # Safety
/// None: only asks.
pub unsafe fn byssal_single_threaded() -> c_int {
    // SAFETY: a table that the linker filled. Relaxed: libc changes the byte while there is one
    // thread.
    let byte = unsafe { WEAK.single_threaded };
    byte.is_some_and(|byte| byte.load(Ordering::Relaxed) != 0) as c_int
}

/// The kernel's number of this thread; 0 if it refuses.
///
/// # Safety
/// None: only asks.
pub unsafe fn byssal_thread_id() -> c_uint {
    // SAFETY: only asks.
    let number = keeping_errno(|| unsafe { libc::syscall(libc::SYS_gettid) });
    c_uint::try_from(number).unwrap_or(0)
}

/// Milliseconds of a clock that only goes on, coarse to a few of them. Where a filter of system
/// calls refuses to tell, each question counts as 10 ms.
///
/// # Safety
/// None: only asks.
pub unsafe fn byssal_clock() -> c_uint {
    static REFUSALS: AtomicU32 = AtomicU32::new(0);
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let clock = libc::CLOCK_MONOTONIC_COARSE;
    // SAFETY: a variable of our own.
    let refused = keeping_errno(|| unsafe { libc::clock_gettime(clock, &mut now) }) != 0;
    if refused {
        // Relaxed: a number that orders nothing.
        return REFUSALS.fetch_add(1, Ordering::Relaxed).wrapping_mul(10);
    }
    (now.tv_sec as u32)
        .wrapping_mul(1000)
        .wrapping_add((now.tv_nsec / 1_000_000) as u32)
}

/// Sets errno; the value before.
///
/// # Safety
/// None: this thread's errno.
pub unsafe fn byssal_errno_swap(value: c_int) -> c_int {
    // SAFETY: this thread's errno.
    unsafe { libc::__errno_location().replace(value) }
}

/// Sixteen bytes of the kernel's, or null.
///
/// # Safety
/// None: only asks.
pub unsafe fn byssal_random() -> *const u8 {
    // SAFETY: only asks.
    ptr::with_exposed_provenance(unsafe { libc::getauxval(libc::AT_RANDOM) } as usize)
}

/// `len` bytes that the kernel draws for this call, without waiting; 0 if it refuses.
///
/// # Safety
/// `out` has room for them.
pub unsafe fn byssal_entropy(out: *mut u8, len: usize) -> c_int {
    // SAFETY: the caller gives the room.
    let drawn = keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_getrandom, out, len, libc::GRND_NONBLOCK)
    });
    (drawn == len as c_long) as c_int
}

/// futex(word, operation | private, value).
///
/// # Safety
/// A waiting or a waking operation.
pub unsafe fn byssal_futex(word: *const AtomicU32, operation: c_int, value: u32) -> c_long {
    let none = ptr::null::<libc::timespec>();
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a word that is there, and no time limit.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word, operation, value, none, 0, 0) })
}

/// Before a fork. glibc's lock of the list of streams comes first: fork takes it after this
/// handler, while its holder may wait for a stream whose holder allocates.
extern "C" fn before_fork() {
    // SAFETY: a table that the linker filled; glibc's function, which its unlocking below follows.
    unsafe { WEAK.io_list_lock.into_iter().for_each(|lock| lock()) };
    process::before_fork();
}

/// After a fork, in the parent.
extern "C" fn after_fork_parent() {
    process::after_fork_parent();
    // SAFETY: see `before_fork`.
    unsafe { WEAK.io_list_unlock.into_iter().for_each(|unlock| unlock()) };
}

/// After a fork, in the child.
extern "C" fn after_fork_child() {
    // SAFETY: libc calls it in the child's only thread.
    unsafe { process::after_fork_child() };
    // SAFETY: see `before_fork`; nobody else holds the lock.
    unsafe { WEAK.io_list_resetlock.into_iter().for_each(|reset| reset()) };
}

/// Called when the image is loaded, and when the program ends by exit.
#[used]
#[link_section = ".init_array"]
static START: extern "C" fn() = start;
#[used]
#[link_section = ".fini_array"]
static FINISH: extern "C" fn() = finish;

extern "C" fn start() {
    if crate::is_libcs() {
        return;
    }
    stay();
    // Now: what other handlers of forks do comes between ours, and keys of the program later.
    keeping_errno(|| {
        key();
        // SAFETY: functions that stay, see `stay`.
        unsafe {
            libc::pthread_atfork(
                Some(before_fork),
                Some(after_fork_parent),
                Some(after_fork_child),
            )
        }
    });
}

extern "C" fn finish() {
    PROCESS.process_exit();
}

/// A plug-in with this allocator stays when glibc's dlclose closes it: threads that used it have a
/// destructor here, and blocks of it may live. musl unloads nothing. (Static programs have no
/// dlopen, and nothing to unload.)
fn stay() {
    // SAFETY: a table that the linker filled.
    let loader = unsafe { (WEAK.dladdr, WEAK.dlopen, WEAK.dlerror) };
    let (Some(dladdr), Some(dlopen), Some(dlerror)) = loader else {
        return;
    };
    if cfg!(target_env = "musl") {
        return;
    }
    let object = |address: *const c_void| {
        let mut about = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: dladdr only looks; all zeros are what it need not change.
        unsafe {
            let known = dladdr(address, about.as_mut_ptr()) != 0;
            known.then(|| about.assume_init())
        }
    };
    // SAFETY: only asks for the program's own headers.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    let own = object((&raw const KEY).cast());
    let program = object(ptr::with_exposed_provenance(headers));
    let Some(own) = own else { return };
    if program.is_some_and(|program| program.dli_fbase == own.dli_fbase) {
        return;
    }
    let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the object is loaded; a failure leaves a message that is taken away.
    unsafe {
        if dlopen(own.dli_fname, flags).is_null() {
            dlerror();
        }
    }
}
