//! The allocator as a library, for LD_PRELOAD and for linking: beside the host's libc, and beside
//! the musl that was built.

use std::path::PathBuf;

use crate::build::{Built, Settings};
use crate::error::Result;
use crate::project::Project;

/// A library that was made.
pub struct Library {
    pub what: &'static str,
    pub path: PathBuf,
}

/// # Errors
/// `Step` when one does not build.
pub fn build(_project: &Project, _settings: &Settings, _built: &Built) -> Result<Vec<Library>> {
    Ok(Vec::new())
}
