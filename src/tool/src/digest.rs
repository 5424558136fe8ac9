//! SHA-256, of files against pins and of the inputs of a step against those of its last run.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{At, Result};
use crate::project;

/// Hex SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn file(path: &Path) -> Result<String> {
    let mut input = File::open(path).at("opening", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = input.read(&mut buffer).at("reading", path)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Collects the inputs of a step; equal collections have equal digests.
#[derive(Default)]
pub struct Inputs {
    hash: Sha256,
}

impl Inputs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a named value. Lengths are hashed too, so that no two lists run together.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.add(name.as_bytes());
        self.add(value.as_bytes());
        self
    }

    /// Adds the names and contents of all files under `dir` (or of the one file).
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn tree(mut self, root: &Path, relative: &str) -> Result<Self> {
        let top = root.join(relative);
        let below = if top.is_dir() {
            project::files(&top, &is_input)?
        } else {
            vec![PathBuf::new()]
        };
        for file in below {
            // Of the one file itself: nothing is joined to it, not even a slash.
            let name = Path::new(relative).components().chain(file.components());
            let name: PathBuf = name.collect();
            let path = root.join(&name);
            self.add(name.as_os_str().as_encoded_bytes());
            self.add(&fs::read(&path).at("reading", &path)?);
        }
        Ok(self)
    }

    pub fn finish(self) -> String {
        hex(&self.hash.finalize())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }
}

/// Whether a file belongs to a step's inputs: what is hidden does not, nor what cargo made.
fn is_input(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    !name.as_encoded_bytes().starts_with(b".") && name != "target"
}

/// The record that a step has been done: the digest of its inputs and of each file it made.
/// A step whose record still holds need not run again.
pub struct Stamp {
    path: PathBuf,
    inputs: String,
}

impl Stamp {
    pub fn new(out: &Path, step: &str, inputs: String) -> Self {
        Stamp {
            path: out.join("stamps").join(step),
            inputs,
        }
    }

    /// The digest of the inputs.
    pub fn inputs(&self) -> &str {
        &self.inputs
    }

    /// Whether the step ran with these inputs and what it made is still there, unchanged.
    pub fn holds(&self, made: &[PathBuf]) -> bool {
        let record = self.record(made);
        record.is_ok_and(|r| fs::read_to_string(&self.path).is_ok_and(|old| old == r))
    }

    /// Notes that the step is done.
    ///
    /// # Errors
    /// When something that it should have made is not there.
    pub fn note(&self, made: &[PathBuf]) -> Result<()> {
        project::write_file(&self.path, self.record(made)?.as_bytes())
    }

    fn record(&self, made: &[PathBuf]) -> Result<String> {
        let mut record = format!("inputs {}\n", self.inputs);
        for path in made {
            record += &format!("{} {}\n", file(path)?, path.display());
        }
        Ok(record)
    }
}
