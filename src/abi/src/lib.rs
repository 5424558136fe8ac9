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
#[cfg(not(feature = "assembled"))]
mod thread;

/// Nothing in the allocator panics by design; if it does, its state is not to be trusted.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    byssal_heap::base::fault::stop(byssal_heap::base::fault::Fault::Corruption, 0)
}

/// Seeds from what differs between processes without the kernel's help: where things lie.
#[cfg(not(feature = "assembled"))]
fn weak_random(somewhere: usize) -> [u64; 2] {
    let local = 0u8;
    let stack = (&raw const local).addr() as u64;
    [
        stack.rotate_left(17) ^ somewhere as u64,
        stack.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ]
}
