//! The musl that was asked for: a version, a tarball or a tree; and its unpacking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;

use crate::error::{At, Error, Kind, Result};
use crate::pins::{Family, Pins, Release};
use crate::progress::tell;
use crate::project::{self, Project};
use crate::target::Target;
use crate::{digest, fetch, run};

/// A musl source that may be patched.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called in names of results: `1.2.6`, or `1.2.6-local-` and some letters for where it lies
    /// when it is not a pinned one.
    pub label: String,
    /// The release it is or says it is.
    pub version: String,
    /// What tells it from others: for a release the pinned hash, be it a tarball or a tree.
    pub identity: String,
    path: PathBuf,
}

/// What configure and make leave at the top of a tree, and git's own: no part of the source.
const NOT_SOURCE: [&str; 4] = ["obj", "lib", "config.mak", ".git"];
/// Files that are named in a warning about a changed tree.
const NAMED: usize = 8;

impl Source {
    /// Whether it is a pinned release.
    pub fn is_pinned(&self) -> bool {
        self.label == self.version
    }

    /// The same, for results that are for a machine.
    #[must_use]
    pub fn labelled(self, target: &Target) -> Self {
        Source {
            label: self.label + &target.suffix(),
            ..self
        }
    }

    /// The tarball or tree itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of it, for messages: the user knows the tree or the tarball, not our copy.
    pub fn named(&self, file: &str) -> String {
        if self.path.is_file() {
            return format!("{}: {file}", self.path.display());
        }
        self.path.join(file).display().to_string()
    }

    /// Finds what `musl` names: a path that exists, or else a version.
    ///
    /// # Errors
    /// `Refused` for versions that are not supported, `Source` when it cannot be had.
    pub fn find(project: &Project, pins: &Pins, musl: &str) -> Result<Self> {
        let family = &pins.musl;
        if looks_like_version(musl) {
            let release = family.release(musl)?;
            let path = fetch::pinned(project, "musl", family, musl)?;
            return Ok(Self::released(release, path));
        }
        let path = Path::new(musl);
        if path.is_file() {
            return Self::from_tarball(project, family, &project::resolved(path)?);
        }
        if path.is_dir() {
            let path = project::resolved(path)?;
            return Self::from_tree(project, family, &path, &path);
        }
        Err(Error::new(Kind::Source, format!("MUSL={musl:?} is neither a version nor a file nor a directory"))
            .remedy("give a version as 1.2.6, the path of a musl tarball (.tar or .tar.gz), or of its unpacked tree"))
    }

    /// Refuses an `out` within the tree that `musl` names, before anything is made there.
    ///
    /// # Errors
    /// `Usage`, with both.
    pub fn check_out(project: &Project, musl: &str) -> Result<()> {
        let path = Path::new(musl);
        if looks_like_version(musl) || !path.is_dir() {
            return Ok(());
        }
        project::check_apart(&project::resolved(path)?, "--out", &project.out)
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

    fn released(release: &Release, path: PathBuf) -> Self {
        Source {
            label: release.version.clone(),
            version: release.version.clone(),
            identity: release.sha256.clone(),
            path,
        }
    }

    fn from_tarball(project: &Project, family: &Family, path: &Path) -> Result<Self> {
        let hash = digest::file(path)?;
        if let Some(release) = family.by_hash(&hash) {
            let release = family.release(&release.version)?;
            return Ok(Self::released(release, path.to_path_buf()));
        }
        let temp = project.scratch()?;
        let tree = unpack(path, temp.path())?;
        Self::from_tree(project, family, &tree, path)
    }

    /// The tree in `dir`, which the user gave as `given`.
    fn from_tree(project: &Project, family: &Family, dir: &Path, given: &Path) -> Result<Self> {
        let version = version_of(dir, given)?;
        let shown = given.display();
        let files = Files::list(dir)?;
        let warning = if let Some(release) = family.release.iter().find(|r| r.version == version) {
            family.release(&version)?;
            match files.unlike(project, family, release)? {
                None => return Ok(Self::released(release, given.to_path_buf())),
                Some(difference) => difference,
            }
        } else if number(&version) < number("1.2.2") {
            return Err(Error::new(
                Kind::Refused,
                format!("{shown} is musl {version}: older than 1.2.2"),
            )
            .remedy(format!("take one of {}", family.supported().join(", "))));
        } else {
            let newest = family.supported()[0];
            format!("is musl {version}, which is not known: it is patched as {newest}")
        };
        tell(&format!(
            "  warning: {shown} {warning}; whether it is sound with byssal is not known"
        ));
        // Two trees of one version are two: by where they lie, so that one that is worked on stays
        // the same.
        let place = digest::Inputs::new()
            .text("path", &shown.to_string())
            .finish();
        Ok(Source {
            label: format!("{version}-local-{}", &place[..8]),
            version,
            identity: files.digest(),
            path: given.to_path_buf(),
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
        let made = NOT_SOURCE.map(|name| self.path.join(name));
        project::copy_tree(&self.path, &tree, &|p| made.iter().any(|m| m == p))?;
        // A link would lead an edit back to a file of the user's, or to nothing.
        for name in project::files(&tree, &|_| true)? {
            let (from, to) = (self.path.join(&name), tree.join(&name));
            if from.is_symlink() && from.is_file() {
                fs::remove_file(&to).at("removing", &to)?;
                fs::copy(&from, &to).at("copying to", &to)?;
            }
        }
        Ok(tree)
    }
}

/// What the tree in `dir` says of itself in VERSION. It becomes part of names.
fn version_of(dir: &Path, given: &Path) -> Result<String> {
    let no_tree = |why: String| {
        Error::new(
            Kind::Refused,
            format!("{} is no musl tree: {why}", given.display()),
        )
        .remedy("give the directory that holds musl's VERSION, configure and src/, or its tarball")
    };
    let text =
        fs::read_to_string(dir.join("VERSION")).map_err(|e| no_tree(format!("VERSION: {e}")))?;
    let version = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+_~".contains(c);
    let good = version.starts_with(|c: char| c.is_ascii_digit())
        && version.len() <= 64
        && version.chars().all(plain);
    if good {
        return Ok(version.to_owned());
    }
    let start: String = version.chars().take(40).collect();
    Err(no_tree(format!(
        "VERSION says {start:?}, which is no version"
    )))
}

/// The files of a tree by name, each with its hash.
struct Files(BTreeMap<String, String>);

impl Files {
    fn list(dir: &Path) -> Result<Self> {
        let is_source = |name: &Path| !NOT_SOURCE.iter().any(|other| name == Path::new(other));
        let files = project::files(dir, &is_source)?.into_iter().map(|name| {
            let path = dir.join(&name);
            // Of a link to a file what it leads to is copied.
            let content = if path.is_symlink() && !path.is_file() {
                let target = fs::read_link(&path).at("reading link", &path)?;
                format!("link to {}", target.display())
            } else {
                digest::file(&path)?
            };
            Ok((name.to_string_lossy().into_owned(), content))
        });
        Ok(Files(files.collect::<Result<_>>()?))
    }

    fn digest(&self) -> String {
        let add = |all: digest::Inputs, (name, hash): (&String, &String)| all.text(name, hash);
        self.0.iter().fold(digest::Inputs::new(), add).finish()
    }

    /// How the files differ from those of the release; `None` when they do not. The release's
    /// tarball is asked only if its hash of the tree does not agree, and not fetched for that.
    fn unlike(
        &self,
        project: &Project,
        family: &Family,
        release: &Release,
    ) -> Result<Option<String>> {
        let version = &release.version;
        if release.tree.as_ref() == Some(&self.digest()) {
            return Ok(None);
        }
        let Some(tarball) = fetch::at_hand(project, "musl", family, version) else {
            return Ok(Some(format!(
                "is not known to be musl {version} as released (`byssal fetch --musl {version}` \
                 gets what it is compared with)"
            )));
        };
        let temp = project.scratch()?;
        let released = Files::list(&unpack(&tarball, temp.path())?)?;
        let names: BTreeSet<_> = self.0.keys().chain(released.0.keys()).collect();
        let mut differ = Vec::new();
        for name in names {
            match (self.0.get(name), released.0.get(name)) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some(_), Some(_)) => differ.push(name.clone()),
                (Some(_), None) => differ.push(format!("{name} (added)")),
                _ => differ.push(format!("{name} (missing)")),
            }
        }
        let more = differ.len().saturating_sub(NAMED);
        let list = differ[..differ.len() - more].join(", ");
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        Ok((!differ.is_empty())
            .then(|| format!("differs from musl {version} as released in {list}{more}")))
    }
}

fn looks_like_version(musl: &str) -> bool {
    musl.contains(|c: char| c.is_ascii_digit())
        && musl.chars().all(|c| c.is_ascii_digit() || c == '.')
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
/// `Source` when it is no tarball; entries that lead outside are refused. `System` when there is no
/// room for it.
pub fn unpack(tarball: &Path, into: &Path) -> Result<PathBuf> {
    let bad = |why: String| damaged(format!("{}: {why}", tarball.display()));
    let failed = |what: String, e: io::Error| {
        refusal(&e, tarball, into).unwrap_or_else(|| bad(format!("{what}: {}", cause(&e))))
    };
    fs::create_dir_all(into).at("making directory", into)?;
    let mut archive = tar::Archive::new(stream(tarball, into)?);
    let (mut top, mut single) = (None, true);
    for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
        let mut entry = entry.map_err(|e| failed("is no tarball".into(), e))?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(|e| bad(e.to_string()))?.into_owned();
        if let Some(Component::Normal(name)) = path.components().next() {
            single &= top.get_or_insert_with(|| name.to_owned()) == name;
        }
        let unpacked = entry.unpack_in(into).map_err(|e| {
            let what = format!("{} cannot be unpacked", path.display());
            failed(what, e)
        })?;
        if !unpacked {
            return Err(bad(format!("the entry {} leads outside", path.display())));
        }
    }
    let top = into.join(top.ok_or_else(|| bad("is empty".into()))?);
    if !single {
        return Ok(into.to_path_buf());
    }
    let kind = fs::symlink_metadata(&top).at("reading", &top)?.file_type();
    if kind.is_symlink() {
        // It may lead to a tree of the user's.
        return Err(
            bad("holds nothing but a link".into()).remedy("pack what the link leads to: tar -chf")
        );
    }
    Ok(if kind.is_dir() {
        top
    } else {
        into.to_path_buf()
    })
}

/// That a tarball is none, and why.
fn damaged(what: String) -> Error {
    Error::new(Kind::Source, what).remedy("the file is damaged or no tarball: get it again")
}

/// What the system may refuse at unpacking any tarball. Others tell of the tarball: of a name that
/// is too long, or of a file where a directory is to be.
const REFUSALS: [libc::c_int; 10] = [
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EFBIG,
    libc::EROFS,
    libc::EACCES,
    libc::EPERM,
    libc::EIO,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
];

/// That the system refused to unpack the tarball in `into`, if that was it.
fn refusal(error: &io::Error, tarball: &Path, into: &Path) -> Option<Error> {
    number_at_bottom(error).filter(|number| REFUSALS.contains(number))?;
    let (tarball, into) = (tarball.display(), into.display());
    let what = format!("unpacking {tarball} in {into}: {}", cause(error));
    Some(Error::new(Kind::System, what).remedy(
        "see that there is room and that you may write there, or name a directory elsewhere: \
         --out DIR",
    ))
}

/// The number of the system's error; what is wrong in a tarball has none.
fn number_at_bottom(error: &(dyn std::error::Error + 'static)) -> Option<libc::c_int> {
    let number = error.downcast_ref().and_then(io::Error::raw_os_error);
    number.or_else(|| error.source().and_then(number_at_bottom))
}

/// What was wrong at the bottom: the errors above name our temporary directory.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

/// How packed files begin, and the program that unpacks those that are not gzip's.
const PACKED: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// The tarball itself, however it is packed. `into` has room for what is unpacked by the way.
fn stream(tarball: &Path, into: &Path) -> Result<Box<dyn Read>> {
    let mut file = File::open(tarball).at("opening", tarball)?;
    let mut magic = [0; 6];
    file.read_exact(&mut magic).map_err(|e| {
        Error::new(
            Kind::Source,
            format!("{}: is no tarball: {e}", tarball.display()),
        )
    })?;
    if let Some((_, program)) = PACKED.iter().find(|(start, _)| magic.starts_with(start)) {
        return unpacked_by(program, tarball, into);
    }
    let file = File::open(tarball).at("opening", tarball)?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        // It may be of several members: some packers work on parts.
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// What `program -dc` makes of the file, by way of an unnamed temporary one in `dir`.
fn unpacked_by(program: &str, tarball: &Path, dir: &Path) -> Result<Box<dyn Read>> {
    let mut plain = tempfile::tempfile_in(dir).at("making a temporary file in", dir)?;
    let mut child = run::neutral(&mut Command::new(program))
        .arg("-dc")
        .arg(tarball)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Error::new(Kind::Missing, format!("cannot run {program}: {e}"))
                .remedy("run: sudo apt-get install xz-utils bzip2")
        })?;
    // Written here and not by the program, which tells of a full disk in its own words.
    let copied = child
        .stdout
        .take()
        .map(|mut out| io::copy(&mut out, &mut plain));
    let ended = child.wait_with_output()?;
    if let Some(Err(e)) = copied {
        return Err(refusal(&e, tarball, dir).unwrap_or_else(|| e.into()));
    }
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(damaged(format!(
            "{program} cannot unpack {}: {}",
            tarball.display(),
            said.trim()
        )));
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
