//! Beside the layers: what looks at a whole heap and changes nothing. musl has the description
//! alone, by which others look; the libraries ship the dump, the Rust crate the sums.

pub mod description;
#[cfg(any(test, feature = "model", feature = "dump"))]
pub mod dump;
#[cfg(any(test, feature = "model", feature = "dump", feature = "stats"))]
pub mod format;
#[cfg(any(test, feature = "model", feature = "dump", feature = "stats"))]
pub mod groups;
#[cfg(any(test, feature = "stats"))]
pub mod stats;
