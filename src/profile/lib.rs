//! The heap profile: which call stacks allocated how much, and what of it is live.
//!
//! `libbyssal_profile.so` is the unchanged object of `libbyssal.a`, whose malloc family is renamed,
//! and this crate: `profile.c` has the public malloc family, each function of which counts the
//! bytes down that its thread may allocate until the next sample, and jumps to the allocator's own.
//! So the shipped libraries have no part of it.
//!
//! A sample is a block that holds a sampled byte. Sampled bytes are a Poisson process: the distance
//! from one to the next is exponentially distributed (`chance`). A block of `n` bytes is a sample
//! with the probability `p = 1 - exp(-n / mean)`, whatever was allocated before it, and stands for
//! `1 / p` such blocks: what is estimated of objects and of bytes has no bias.
//!
//! The order of the modules, each of which knows only those before it:
//!
//! - `memory`: arrays in mappings of their own, never from the allocator;
//! - `chance`: distances between samples, and what a sample stands for;
//! - `filter`: whether a freed block may be a sample, for each free;
//! - `sites`: call stacks, and what they allocated;
//! - `live`: the samples that are not freed;
//! - `state`: all of it together; `report`: its text, which the tool reads;
//! - `entry`: what the C side calls: `profile.c`; `file.c`, which writes; `signals.c`; `frames.c`, for musl.
#![cfg_attr(not(test), no_std)]

mod chance;
#[cfg(feature = "library")]
mod entry;
pub mod filter;
mod live;
mod memory;
mod report;
mod sites;
mod state;

pub use chance::Chance;
pub use report::{write, Sink};
pub use state::{Sample, State};

/// Nothing here panics by design. Whoever is asked for memory cannot go on otherwise.
#[cfg(all(feature = "library", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    extern "C" {
        fn abort() -> !;
    }
    // SAFETY: C's abort may be called at any time.
    unsafe { abort() }
}
