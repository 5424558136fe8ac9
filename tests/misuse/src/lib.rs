//! Every misuse of the heap, against byssal and its peers.
//!
//! ```text
//! excerpt    the short tables of the results, copied to the pages that show them
//! table      one cell for each misuse and allocator, in Markdown
//! count      how many misuses each allocator stops in every trial, and who is behind whom
//! short      the most important misuses in few words
//! suite      builds the programs, runs all cells
//! catalogue  the rows: a program, its variant, what byssal promises
//! promise    what a promise means for a cell
//! outcome    what one trial, and many, came to
//! allocator  the columns: how each is compiled for and started
//! ```
//!
//! A row is a program of this folder, see `misuse.h`; it runs itself many times and prints a line
//! of numbers for each trial. Those whose names begin with `cxx_` are linked with `cxx.cpp`.

pub mod allocator;
pub mod catalogue;
pub mod count;
pub mod excerpt;
pub mod outcome;
pub mod promise;
pub mod short;
pub mod suite;
pub mod table;
