//! The musl that was asked for: a version, a tarball or a tree; and its unpacking.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;

use crate::error::{At, Error, Kind, Result};
use crate::pins::{Family, Pins};
use crate::progress::say;
use crate::project::{self, Project};
use crate::{digest, fetch};

/// A musl source that may be patched.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called in names of results: `1.2.6`, or `1.2.6-local` when it is not a pinned one.
    pub label: String,
    /// The release it is or says it is.
    pub version: String,
    /// Its content is that of a pinned release.
    pub pinned: bool,
    path: PathBuf,
}

impl Source {
    /// The tarball or tree itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finds what `musl` names: a path that exists, or else a version.
    ///
    /// # Errors
    /// `Refused` for versions that are not supported, `Source` when it cannot be had.
    pub fn find(project: &Project, pins: &Pins, musl: &str) -> Result<Self> {
        let path = Path::new(musl);
        if looks_like_version(musl) {
            let path = fetch::pinned(project, "musl", &pins.musl, musl)?;
            return Ok(Source {
                label: musl.into(),
                version: musl.into(),
                pinned: true,
                path,
            });
        }
        if path.is_file() {
            return Self::from_tarball(&pins.musl, path);
        }
        if path.is_dir() {
            return Self::from_tree(&pins.musl, path);
        }
        Err(Error::new(Kind::Source, format!("{musl} is neither a version nor a file nor a directory"))
            .remedy("give a version as 1.2.6, the path of a musl tarball (.tar or .tar.gz), or of its unpacked tree"))
    }

    /// The label that `find` would give it. A version is not fetched for that.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn label(project: &Project, pins: &Pins, musl: &str) -> Result<String> {
        if looks_like_version(musl) {
            return Ok(pins.musl.release(musl)?.version.clone());
        }
        Ok(Self::find(project, pins, musl)?.label)
    }

    fn from_tarball(family: &Family, path: &Path) -> Result<Self> {
        let hash = digest::file(path)?;
        if let Some(release) = family.by_hash(&hash) {
            let version = family.release(&release.version)?.version.clone();
            return Ok(Source {
                label: version.clone(),
                version,
                pinned: true,
                path: path.to_path_buf(),
            });
        }
        let temp = tempfile::tempdir()?;
        let tree = unpack(path, temp.path())?;
        let mut source = Self::from_tree(family, &tree)?;
        source.path = project::absolute(path)?;
        say(&format!(
            "  warning: {} (SHA-256 {hash}) is not a pinned release",
            path.display()
        ));
        Ok(source)
    }

    fn from_tree(family: &Family, path: &Path) -> Result<Self> {
        let file = path.join("VERSION");
        let version = fs::read_to_string(&file).map_err(|e| {
            Error::new(
                Kind::Refused,
                format!(
                    "{} is no musl tree: {}: {e}",
                    path.display(),
                    file.display()
                ),
            )
            .remedy("give the directory that holds musl's VERSION, configure and src/")
        })?;
        let version = version.trim().to_owned();
        if let Some(release) = family.release.iter().find(|r| r.version == version) {
            family.release(&release.version)?;
        } else if number(&version) < number("1.2.2") {
            return Err(Error::new(
                Kind::Refused,
                format!("{} is musl {version}: older than 1.2.2", path.display()),
            )
            .remedy(format!("take one of {}", family.supported().join(", "))));
        } else {
            say(&format!(
                "  warning: musl {version} is not known; it is patched as {}",
                family.supported()[0]
            ));
        }
        let path = project::absolute(path)?;
        Ok(Source {
            label: format!("{version}-local"),
            version,
            pinned: false,
            path,
        })
    }

    /// Lays the pristine tree under `into` and gives its directory.
    ///
    /// # Errors
    /// When it cannot be unpacked or copied.
    pub fn lay(&self, into: &Path) -> Result<PathBuf> {
        if self.path.is_file() {
            return unpack(&self.path, into);
        }
        let tree = into.join(format!("musl-{}", self.label));
        let made = ["obj", "lib", "config.mak", ".git"].map(|name| self.path.join(name));
        project::copy_tree(&self.path, &tree, &|p| made.iter().any(|m| m == p))?;
        Ok(tree)
    }

    /// What tells this source from others: the hash of the tarball, or of all files of the tree.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn identity(&self) -> Result<String> {
        if self.path.is_file() {
            return digest::file(&self.path);
        }
        Ok(digest::Inputs::new().tree(&self.path, "")?.finish())
    }
}

fn looks_like_version(musl: &str) -> bool {
    !musl.is_empty() && musl.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The numbers of a version such as `1.2.6`, for comparison.
fn number(version: &str) -> Vec<u32> {
    version
        .split(['.', '-', '+'])
        .map_while(|part| part.parse().ok())
        .collect()
}

/// Unpacks a tarball; gives the one directory that it holds, or `into` when it has more at its top.
///
/// # Errors
/// `Source` when it is no tarball; entries that lead outside are refused.
pub fn unpack(tarball: &Path, into: &Path) -> Result<PathBuf> {
    let bad = |why: String| Error::new(Kind::Source, format!("{}: {why}", tarball.display()));
    fs::create_dir_all(into).at("making directory", into)?;
    let mut archive = tar::Archive::new(stream(tarball)?);
    let (mut top, mut single) = (None, true);
    for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
        let mut entry = entry.map_err(|e| bad(format!("is no tarball: {e}")))?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(|e| bad(e.to_string()))?.into_owned();
        if let Some(Component::Normal(name)) = path.components().next() {
            single &= top.get_or_insert_with(|| name.to_owned()) == name;
        }
        if !entry.unpack_in(into).at("unpacking", tarball)? {
            return Err(bad(format!("the entry {} leads outside", path.display())));
        }
    }
    let top = into.join(top.ok_or_else(|| bad("is empty".into()))?);
    Ok(if single && top.is_dir() {
        top
    } else {
        into.to_path_buf()
    })
}

/// How packed files begin, and the program that unpacks those that are not gzip's.
const PACKED: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// The tarball itself, however it is packed.
fn stream(tarball: &Path) -> Result<Box<dyn Read>> {
    let mut file = File::open(tarball).at("opening", tarball)?;
    let mut magic = [0; 6];
    file.read_exact(&mut magic).map_err(|e| {
        Error::new(
            Kind::Source,
            format!("{}: is no tarball: {e}", tarball.display()),
        )
    })?;
    if let Some((_, program)) = PACKED.iter().find(|(start, _)| magic.starts_with(start)) {
        return unpacked_by(program, tarball);
    }
    let file = File::open(tarball).at("opening", tarball)?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// What `program -dc` makes of the file, by way of an unnamed temporary one.
fn unpacked_by(program: &str, tarball: &Path) -> Result<Box<dyn Read>> {
    let mut plain = tempfile::tempfile()?;
    let status = Command::new(program)
        .arg("-dc")
        .arg(tarball)
        .stdout(plain.try_clone()?)
        .status()
        .map_err(|e| {
            Error::new(Kind::Missing, format!("cannot run {program}: {e}"))
                .remedy("run: sudo apt-get install xz-utils bzip2")
        })?;
    if !status.success() {
        let what = format!("{program} cannot unpack {}: {status}", tarball.display());
        return Err(Error::new(Kind::Source, what));
    }
    plain.rewind()?;
    Ok(Box::new(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(number("1.2.10") > number("1.2.9"));
        assert!(number("1.1.24") < number("1.2.2"));
        assert!(number("1.2.6-git") >= number("1.2.6"));
    }
}
