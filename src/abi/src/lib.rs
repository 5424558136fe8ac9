//! The C entry points of byssal: a no_std archive, without any dependency at run time.
//!
//! With the feature `musl` it is the object that goes into libc (its contract is
//! `musl-glue/glue.h`); with `library` it is `libbyssal.so` and `libbyssal.a`.
#![no_std]
// Inline assembly is not stable on these; the tool lets them use it all the same.
#![cfg_attr(
    any(
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "mips",
        target_arch = "mips64"
    ),
    feature(asm_experimental_arch),
    allow(stable_features)
)]

#[cfg(all(feature = "musl", feature = "library"))]
compile_error!("the features `musl` and `library` exclude each other");
#[cfg(not(any(feature = "musl", feature = "library", feature = "assembled")))]
compile_error!("choose the feature `musl` or `library`");

#[cfg(feature = "assembled")]
mod assembled;
#[cfg(feature = "musl")]
#[allow(dead_code)]
mod glue_bindings;
#[cfg(feature = "library")]
mod library;
#[cfg(feature = "musl")]
mod musl;
#[cfg(feature = "library")]
mod process;
#[cfg(feature = "library")]
mod system;
#[cfg(feature = "musl")]
mod thread;
#[cfg(feature = "library")]
mod word;

// As the Rust crate has them: it shares `process.rs` and `word.rs`.
#[cfg(all(feature = "library", feature = "count"))]
use byssal_heap::count;
#[cfg(feature = "library")]
use byssal_heap::{allocator, base, inspect, note};

/// Nothing in the allocator panics by design; if it does, its state is not to be trusted.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    byssal_heap::base::fault::stop(byssal_heap::base::fault::Fault::Corruption, 0)
}
