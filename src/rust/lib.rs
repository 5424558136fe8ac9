//! The allocator byssal as Rust's global allocator: hardened, thread-scalable, `no_std`, no C
//! compiler needed, on Linux beside any libc.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: byssal::Byssal = byssal::Byssal;
//!
//! fn main() {
//!     let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
//!     assert_eq!(squares.iter().sum::<u64>(), 332_833_500);
//! }
//! ```
//!
//! # What it finds
//!
//! Safe Rust has no double free. What `unsafe` code, and C code that is handed Rust's memory, do
//! wrong stops the process by a trap (SIGILL on x86_64), after a line on stderr such as
//! `byssal: fault 1: double free at 0x7f0c2a3f1040`:
//!
//! | fault | |
//! |---|---|
//! | 1 double free | of a block freed before, whose address holds no new one |
//! | 2 invalid pointer | a pointer that is no block's start |
//! | 3 overflow | the byte behind a block was written: found at reuse, at exit at the latest |
//! | 4 write after free | with the feature `hardened` |
//! | 5 size mismatch | `dealloc` with another size, or an alignment that the block has not |
//! | 6 corruption | the allocator's own state contradicts itself |
//!
//! A size mismatch is, for instance, a `Vec` made of another type's parts. The guarantees by
//! number, with what is *not* found, are in byssal's `docs/guarantees.md`.
//!
//! # Features
//!
//! - `hardened`: freed memory is cleared and most writes to it are found, guards stand around all
//!   blocks and are checked at the free itself, slots are reused at random. Slower: see the table
//!   in byssal's `docs/results/bench.md`.
//! - `stats`: adds `stats()`, which tells live, retained and mapped bytes by size class.
//!
//! # What it does in the process
//!
//! - **Only Rust's memory** comes from it. libc's malloc goes on serving C code beside it.
//! - **Threads.** Each has a heap of its own, which is handed over when the thread ends: by the
//!   destructor of a key of `pthread_key_create`, so with any libc. What later destructors of the
//!   same thread still allocate and free works, and is handed over call by call.
//! - **fork.** The child finds every block as it was; handlers of `pthread_atfork` see to it.
//! - **Errors.** Where memory is out a null pointer is returned, which Rust's collections turn into
//!   `alloc::handle_alloc_error`. `errno` is kept by frees.
//! - **Panics.** Nothing here panics by design. If it does, the process aborts: no panic leaves the
//!   allocator.
//! - **The program break** is left alone: all memory is mapped, from 64 GiB behind it on (16 MiB on
//!   32 bits). So far a program's own `sbrk` goes.
//!
//! # Beside byssal's own musl
//!
//! In a static program whose libc is the musl that byssal was built into, and whose C code frees
//! memory, one heap is enough: this crate hands all calls on to libc's. Then the preset is the one
//! that musl was built with, `stats()` has nothing to tell, and `dealloc` finds no wrong size
//! (musl's free does not know any); [`is_libcs`] tells. Beside a *shared* musl of byssal's the
//! crate has a heap of its own, as beside any libc.
//!
//! # Speed of debug builds
//!
//! An allocator without optimisation is slow. For programs that are run unoptimised:
//!
//! ```toml
//! [profile.dev.package.byssal]
//! opt-level = 3
//! ```
//!
//! # Machines
//!
//! Linux with Rust 1.85 or later, on x86_64 and x86, where the tests run. On aarch64, arm and s390x
//! only the way to thread-local variables, which is assembly, was tried (qemu-user); for riscv64 it
//! was only assembled. Other machines are refused when the crate is compiled.
#![no_std]
#![deny(missing_docs)]

// The sources of the heap, of which programs of this crate use what `process` and `own` do.
#[allow(dead_code)]
mod allocator;
#[allow(dead_code)]
mod base;
#[allow(dead_code)]
mod exchange;
#[allow(dead_code)]
mod heap;
#[allow(dead_code)]
mod inspect;
#[allow(dead_code)]
mod layout;
#[allow(dead_code)]
mod pages;

mod libcs;
mod local;
mod own;
#[allow(dead_code)]
mod process;
mod system;
mod weak;
mod word;

use core::alloc::{GlobalAlloc, Layout};

/// The allocator. All values are the same one: that of the process.
///
/// It may be called without being the global allocator, too:
///
/// ```
/// use std::alloc::{GlobalAlloc, Layout};
///
/// let layout = Layout::from_size_align(100, 64).unwrap();
/// // SAFETY: the size is not 0, and the block is freed with the layout it was made with.
/// unsafe {
///     let block = byssal::Byssal.alloc(layout);
///     assert!(!block.is_null() && block.addr() % 64 == 0);
///     block.write(7);
///     byssal::Byssal.dealloc(block, layout);
/// }
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct Byssal;

/// Whether the blocks come from the byssal inside libc instead of this crate's own heap: in static
/// programs whose libc is the musl that byssal was built into, and that has it linked in.
pub fn is_libcs() -> bool {
    libcs::is_there()
}

#[cfg(feature = "stats")]
pub use inspect::stats::{Stats, Usage};

/// What the heap holds, of all threads, by size class: live, retained and mapped bytes. None where
/// libc's byssal serves this crate, see [`is_libcs`].
///
/// Allocates nothing. It takes the allocator's lock, which others need only now and then, for as
/// long as a look at every slot takes. What other threads change meanwhile counts as before, as
/// after, or, where slots come or go just then, in part.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: byssal::Byssal = byssal::Byssal;
///
/// fn main() {
///     let numbers = vec![1u8; 3000];
///     let stats = byssal::stats().unwrap();
///     assert!(stats.class_of(3000).live >= 3000);
///     for (slot, usage) in stats.classes().filter(|(_, usage)| usage.mapped > 0) {
///         println!("{slot} bytes: {usage:?}");
///     }
///     println!("{:?}", stats.total());
///     assert_eq!(numbers[7], 1);
/// }
/// ```
#[cfg(feature = "stats")]
pub fn stats() -> Option<Stats> {
    (!is_libcs()).then(|| process::PROCESS.stats())
}

// SAFETY: blocks are distinct, have the layout's size and alignment, and stay until they are freed;
// no panic leaves what is `extern "C"`, as all of `own` and of libc is.
unsafe impl GlobalAlloc for Byssal {
    /// A block. Alignments up to 16 take malloc's way. Null when memory is out.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if libcs::is_there() {
            // SAFETY: it is.
            return unsafe { libcs::alloc(layout) };
        }
        own::alloc(layout.align(), layout.size())
    }

    /// A block of zeros: new memory of the system's is known to be zero and is not cleared.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if libcs::is_there() {
            // SAFETY: it is.
            return unsafe { libcs::alloc_zeroed(layout) };
        }
        own::alloc_zeroed(layout.align(), layout.size())
    }

    /// Frees a block. Stops the process if `block` is no live block's start, or not one of the
    /// layout's size (fault 5).
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives the block up.
        unsafe {
            if libcs::is_there() {
                return libcs::dealloc(block);
            }
            own::dealloc(block, layout.align(), layout.size())
        }
    }

    /// Resizes a block: in its place where its slot or mapping has room, else it moves, a large one
    /// without a copy (`mremap`). Null when memory is out: then it is unchanged. Stops the process
    /// if `block` is no live block's start, or if it moves and is not of the layout's size (fault
    /// 5).
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller gives the block up, unless null is returned.
        unsafe {
            if libcs::is_there() {
                return libcs::realloc(block, layout, new_size);
            }
            own::realloc(block, layout.align(), layout.size(), new_size)
        }
    }
}
