//! The tool of byssal: puts the allocator into musl.
//!
//! The way of the data, one file a step, each step to be run again at any time:
//!
//! ```text
//! pins -> fetch (download, distro) -> source -> edit -> series
//!                                                ^
//!       target -> core (rustc) -> assembly -> cores
//!                                                |
//!     tree (musl: configure, make) -> prefix -> library -> verify, sample, libc_test -> publish, install
//!                                                    \-> profile (of a program that is run)
//! ```
//!
//! `look` stands beside them: it reads the heap of any program that has byssal inside.
//!
//! `error`, `project`, `progress`, `run` and `digest` serve all of them and know none.

pub mod assembly;
#[cfg(feature = "bindings")]
pub mod bindings;
pub mod build;
pub mod core;
pub mod cores;
pub mod digest;
pub mod dist;
pub mod distro;
pub mod download;
pub mod edit;
pub mod elf;
pub mod error;
pub mod fetch;
pub mod install;
pub mod job;
pub mod libc_test;
pub mod library;
pub mod look;
pub mod musl;
pub mod needs;
pub mod pins;
pub mod prefix;
pub mod profile;
pub mod progress;
pub mod project;
pub mod run;
pub mod sample;
pub mod series;
pub mod source;
pub mod target;
pub mod tree;
pub mod verify;
