//! Adversarial workloads whose live bytes are known at every moment, run under byssal and others.
//!
//! Layers, one direction:
//!
//! ```text
//! main, quick   `make footprint`; the short form in `cargo test`
//! table picture what is shown
//! workload      compiles and runs a program of programs/, reads what it says
//! allocator     what is compared, and where each lies
//! ```
//!
//! docs/footprint.md tells the method.

pub mod allocator;
pub mod picture;
pub mod table;
pub mod workload;
