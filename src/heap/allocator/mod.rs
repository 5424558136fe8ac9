//! Layer 6: what a program calls.
//!
//! It offers [`Allocator`] with malloc, free, realloc, aligned_alloc and malloc_usable_size, the
//! ends of threads and of the program, and fork. It uses all other layers.
//!
//! The call trees of malloc and free stand above them, in `malloc.rs` and `free.rs`.

mod aligned;
mod fork;
mod free;
mod malloc;
mod realloc;
mod state;
mod thread;

#[cfg(all(test, small_constants))]
pub(crate) use fork::MOST_ORPHANS;
pub use state::Allocator;
