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

/// The record that a step has been done: the digest of its inputs and of each file it made, and
/// where a directory is made as a whole, of each file in it.
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

    /// Whether the step ran with these inputs and what it made is still there, unchanged: files,
    /// and of a directory each file that it had then. What a user has put beside them is not asked.
    pub fn holds(&self, made: &[PathBuf]) -> bool {
        let Some(files) = self.recorded() else {
            return false;
        };
        let is_there = |top: &PathBuf| files.iter().any(|(_, path)| path.starts_with(top));
        made.iter().all(is_there)
            && files.iter().all(|(was, path)| {
                made.iter().any(|top| path.starts_with(top))
                    && content(path).is_ok_and(|is| is == *was)
            })
    }

    /// The files of a record with these inputs, each behind what was in it.
    fn recorded(&self) -> Option<Vec<(String, PathBuf)>> {
        let record = fs::read_to_string(&self.path).ok()?;
        let files = record.strip_prefix(&self.head())?.lines();
        let parted = files.map(|line| {
            let (was, path) = line.split_once(' ')?;
            Some((was.to_owned(), path.into()))
        });
        parted.collect()
    }

    /// Notes that the step is done.
    ///
    /// # Errors
    /// When something that it should have made is not there.
    pub fn note(&self, made: &[PathBuf]) -> Result<()> {
        project::write_file(&self.path, self.record(made)?.as_bytes())
    }

    fn record(&self, made: &[PathBuf]) -> Result<String> {
        let mut record = self.head();
        for top in made {
            let below = if top.is_dir() {
                project::files(top, &|_| true)?
            } else {
                vec![PathBuf::new()]
            };
            for name in below {
                // As in `Inputs::tree`: nothing is joined to the one file itself.
                let path: PathBuf = top.components().chain(name.components()).collect();
                record += &format!("{} {}\n", content(&path)?, path.display());
            }
        }
        Ok(record)
    }

    fn head(&self) -> String {
        format!("inputs {}\n", self.inputs)
    }
}

/// The hash of a file; of a link that of its text, as it may lead to a directory or to nothing.
fn content(path: &Path) -> Result<String> {
    if !path.is_symlink() {
        return file(path);
    }
    let target = fs::read_link(path).at("reading link", path)?;
    Ok(Inputs::new()
        .text("link", &target.to_string_lossy())
        .finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_while_each_file_of_a_directory_is_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("made");
        let [file, link] = ["sub/file", "link"].map(|name| dir.join(name));
        let write = |file: &Path, text: &str| project::write_file(file, text.as_bytes()).unwrap();
        write(&file, "made");
        std::os::unix::fs::symlink("sub", &link).unwrap();
        let stamp = |inputs: &str| Stamp::new(temp.path(), "step", inputs.to_owned());
        let holds = |inputs: &str, made: &Path| stamp(inputs).holds(&[made.to_path_buf()]);
        assert!(!holds("1", &dir));
        stamp("1").note(std::slice::from_ref(&dir)).unwrap();
        assert!(holds("1", &dir));
        assert!(!holds("2", &dir) && !holds("1", &temp.path().join("other")));
        assert!(!holds("1", &file), "more was made than that");
        write(&dir.join("sub/mine"), "of the user's");
        assert!(holds("1", &dir));
        write(&file, "changed");
        assert!(!holds("1", &dir));
        fs::remove_file(&file).unwrap();
        assert!(!holds("1", &dir));
        write(&file, "made");
        assert!(holds("1", &dir));
        fs::remove_file(&link).unwrap();
        assert!(!holds("1", &dir));
    }
}
