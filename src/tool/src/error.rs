//! What can go wrong, told so that the reader knows what to do next. Each kind has an exit code.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// Kinds of failure; the value is the exit code of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The system refused something: a file, a directory, a process.
    System = 1,
    /// The arguments make no sense together (clap exits with the same code).
    Usage = 2,
    /// A program that is needed is not installed and could not be installed.
    Missing = 3,
    /// A source could not be had, or is not the one that was pinned.
    Source = 4,
    /// The musl tree is one that the edits do not fit.
    Refused = 5,
    /// A build step failed; its log tells why.
    Step = 6,
    /// A gate of `verify` or a test of `libc-test` failed.
    Gate = 7,
}

/// A failure: what happened, and what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    pub kind: Kind,
    pub what: String,
    pub remedy: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error {
            kind,
            what: what.into(),
            remedy: None,
        }
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Names the file that an I/O error is about, which `std::io::Error` does not.
pub trait At<T> {
    /// # Errors
    /// The same error, with what was being done and to which file.
    fn at(self, doing: &str, path: &Path) -> Result<T>;
}

impl<T, E: Display> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::new(Kind::System, format!("{doing} {}: {e}", path.display())))
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Error::new(Kind::System, e.to_string())
    }
}
