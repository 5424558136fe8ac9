//! The one allocator of the process, beside a libc: the platform of the libraries and of the Rust
//! crate (`src/rust`), which share this file. What they need of the libc beyond names and types
//! that all libcs agree on is `crate::system`: C in the libraries (`library.c`), Rust in the crate.

use crate::allocator::Allocator;
use crate::base::fault::{self, Fault};
use crate::base::lock::{Futex, Lock};
use crate::base::platform::Platform;
use crate::base::random::weak_seed;
use crate::base::sync::{AtomicU32, AtomicUsize, Ordering};
use crate::inspect::description::Description;
use crate::note;
use crate::system::*;
use crate::word;
use core::ffi::{c_int, c_long, c_void};
use core::fmt::Write;
use core::ptr::{self, NonNull};

/// The system has no more memory.
pub const ENOMEM: c_int = 12;
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
pub struct Host {
    lock: Lock<System>,
    page_size: AtomicUsize,
}

/// The one allocator of the process.
pub static PROCESS: Allocator<Host> = Allocator::new(Host {
    lock: Lock::new(System),
    page_size: AtomicUsize::new(0),
});

/// How to read it from outside.
static DESCRIPTION: Description = Description::of(&PROCESS);

/// Runs `call` and keeps errno.
pub fn keeping_errno<T>(call: impl FnOnce() -> T) -> T {
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
    // SAFETY: only an address.
    unsafe { byssal_thread_field().addr() }
}

/// A clock, for how long the lock is held.
#[cfg(feature = "count")]
fn nanoseconds() -> u64 {
    // SAFETY: only asks.
    unsafe { byssal_nanoseconds() }
}

// SAFETY: ordinary system calls; a real lock; a thread-local word.
unsafe impl Platform for Host {
    /// Programs may move the break: 64 GiB are a fourth of the least that a 64-bit system gives.
    const BREAK_ROOM: usize = if usize::BITS == 64 { 1 << 36 } else { 16 << 20 };
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
                weak_seed((&raw const PROCESS).addr())
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
        // `before_fork` is a handler of every fork.
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
            crate::count::hold(nanoseconds);
        }
    }
    fn try_lock(&self) -> bool {
        !self.threaded() || self.lock.try_lock(this_thread())
    }
    fn unlock(&self) {
        #[cfg(feature = "count")]
        crate::count::release(nanoseconds);
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
        word::get()
    }
    #[inline(always)]
    fn add_heap_field(&self, base: usize) -> usize {
        word::add_to(base)
    }
    fn set_heap_field(&self, value: usize) {
        word::set(value);
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
        // `process_exit` is called by a destructor.
        // A linker that drops what nobody refers to is to keep this.
        core::hint::black_box(&raw const DESCRIPTION);
    }
    fn out_of_memory(&self) {
        set_errno(ENOMEM);
    }
}

/// Sets this thread's errno.
pub fn set_errno(value: c_int) {
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

/// Before a fork. From here to its end this thread may still allocate: other handlers do.
pub fn before_fork() {
    PROCESS.before_fork();
    PROCESS.platform().lock.begin_fork(this_thread());
}

/// After a fork, in the parent.
pub fn after_fork_parent() {
    PROCESS.platform().lock.end_fork();
    PROCESS.after_fork_parent();
}

/// After a fork, in the child.
///
/// # Safety
/// The only thread, right after the fork.
pub unsafe fn after_fork_child() {
    PROCESS.platform().lock.end_fork();
    // SAFETY: the caller says so.
    unsafe { PROCESS.after_fork_child() }
}
