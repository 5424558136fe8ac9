//! Beside the layers: what looks at a whole heap and changes nothing. The libraries ship the dump,
//! musl the description alone, by which others look.

pub mod description;
#[cfg(any(test, feature = "model", feature = "dump"))]
pub mod dump;
#[cfg(any(test, feature = "model", feature = "dump"))]
pub mod format;
