//! Every misuse of the heap, against byssal and its peers.
//!
//! ```text
//! table      one cell for each misuse and allocator, in Markdown; who is behind whom
//! suite      builds the programs, runs all cells
//! catalogue  the rows: a program, its variant, what byssal promises
//! outcome    what one trial, and many, came to
//! allocator  the columns: how each is compiled for and started
//! ```
//!
//! A row is a program of this folder, see `misuse.h`; it runs itself many times and prints a line
//! of numbers for each trial.

pub mod allocator;
pub mod catalogue;
pub mod outcome;
pub mod suite;
pub mod table;
