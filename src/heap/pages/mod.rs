//! Layer 4: memory in pages, under the one lock.
//!
//! It offers [`memory::Memory`], which has the lock, and by it: runs of pages and cells from chunks
//! ([`runs`]), chunks from the system ([`grow`], [`place`]), blocks above the largest class
//! ([`large`]) and blocks of no bytes ([`no_bytes`]). Each is an object of its own; the holder of the
//! lock has all of them in hand ([`memory::Locked`]). It uses layers 1 to 3.

pub mod extent;
pub mod grow;
pub mod large;
pub mod memory;
pub mod no_bytes;
pub mod page_heap;
pub mod place;
pub mod runs;
