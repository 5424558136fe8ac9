//! Where things lie: the project, its cache, what it makes; and small file operations on them.

use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{At, Error, Kind, Result};

/// How the names of temporary files and directories begin; the process number follows.
const TEMP: &str = ".byssal-tmp-";
/// A file in a directory that byssal made where the user said, and may replace as a whole.
const MARK: &str = ".byssal";

/// The directories of one checkout of byssal.
#[derive(Clone, Debug)]
pub struct Project {
    /// The directory of the top `Cargo.toml`, `patches/` and `musl-glue/`.
    pub root: PathBuf,
    /// Downloads, by pinned content: each is read, the first that can be written gets new ones.
    pub caches: Vec<PathBuf>,
    /// Everything made, `out/` by default.
    pub out: PathBuf,
    /// Where results are made: `out` itself, or below it until all of them are good (`staged`).
    pub made: PathBuf,
    /// Whether nothing may be written in `out`, not even for a while (`read_only`).
    pub read_only: bool,
}

impl Project {
    /// Finds the project upward from the current directory, or takes `root`.
    ///
    /// # Errors
    /// When there is no project there.
    pub fn find(root: Option<&Path>, out: Option<&Path>) -> Result<Self> {
        let start = match root {
            Some(r) => r.to_path_buf(),
            None => env::current_dir()?,
        };
        let start = fs::canonicalize(&start).at("opening", &start)?;
        let is_root =
            |d: &&Path| d.join("patches/pins.toml").is_file() && d.join("musl-glue").is_dir();
        let root = start.ancestors().find(is_root).ok_or_else(|| {
            Error::new(Kind::Usage, format!("{} is not within a checkout of byssal", start.display()))
                .remedy("run in the checkout, or give --root DIR: the directory that holds patches/pins.toml")
        })?;
        let out = resolved(out.unwrap_or(&root.join("out")))?;
        check_path("the checkout", root)?;
        check_path("--out", &out)?;
        if root.starts_with(&out) {
            let what = format!("--out {} would hold the checkout itself", out.display());
            return Err(Error::new(Kind::Usage, what)
                .remedy("give a directory of its own: `byssal clean` removes it"));
        }
        Ok(Project {
            root: root.to_path_buf(),
            caches: caches(root, &out)?,
            made: out.clone(),
            out,
            read_only: false,
        })
    }

    /// The same project for a run that leaves everything in it as it is.
    #[must_use]
    pub fn read_only(self) -> Self {
        Project {
            read_only: true,
            ..self
        }
    }

    /// A temporary directory for a tree that is only looked at. It is in `out`, where the next run
    /// removes what a killed one has left.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        if self.read_only {
            return Ok(tempfile::tempdir()?);
        }
        temp_beside(&self.out.join("build/scratch"))
    }

    /// The same project, but results are made apart from those that are in use.
    #[must_use]
    pub fn staged(self) -> Self {
        Project {
            made: self.out.join("build/made"),
            ..self
        }
    }

    /// Where what is made at `path` will be found.
    pub fn published(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.made) {
            Ok(relative) => self.out.join(relative),
            Err(_) => path.to_path_buf(),
        }
    }

    /// Waits until no other run of the tool works in the same output directory.
    ///
    /// # Errors
    /// `Usage` for a directory that is somebody else's; when the lock file cannot be made.
    pub fn lock(&self) -> Result<fs::File> {
        if !self.is_own(&self.out) && !self.out.join(".lock").is_file() {
            refuse_foreign("--out", &self.out)?;
        }
        lock_dir(&self.out)
    }

    /// Whether it lies in the checkout's `out`, where everything is byssal's. Where `out` is a
    /// link, it leads to a directory like any other.
    fn is_own(&self, dir: &Path) -> bool {
        dir.starts_with(self.root.join("out"))
    }

    /// Whether it lies where all is byssal's, which the lock has seen to.
    fn has(&self, dest: &Path) -> bool {
        self.is_own(dest) || dest.starts_with(&self.out)
    }

    /// The directory that is to be written: the one that was named, or `usual` in `out`. Refuses to
    /// replace what byssal did not make, before any work is done for it.
    ///
    /// # Errors
    /// `Usage` for a file, for a directory that has something else in it, and for one that holds
    /// all that byssal made.
    pub fn dest(&self, named: Option<&Path>, usual: &Path) -> Result<PathBuf> {
        let dest = resolved(named.unwrap_or(&self.out.join(usual)))?;
        for out in [&self.out, &self.root.join("out")] {
            if out.starts_with(&dest) {
                let what = format!(
                    "--dest {} would replace all that byssal made in {}",
                    dest.display(),
                    out.display()
                );
                return Err(Error::new(Kind::Usage, what).remedy(format!(
                    "give a directory in it: {}",
                    out.join(usual).display()
                )));
            }
        }
        if !self.has(&dest) && !dest.join(MARK).is_file() {
            refuse_foreign("--dest", &dest)?;
        }
        Ok(dest)
    }

    /// Marks what was put at `dest`, so that the next run may replace it.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn mark(&self, dest: &Path) -> Result<()> {
        if self.has(dest) {
            return Ok(());
        }
        let text = "byssal made this directory, and replaces all of it when it is asked again.\n";
        write_file(&dest.join(MARK), text.as_bytes())
    }

    /// Waits until no other run of the tool changes the output directory, and writes nothing there.
    /// `None` when nothing was ever made.
    ///
    /// # Errors
    /// When the lock file cannot be read.
    pub fn lock_to_read(&self) -> Result<Option<fs::File>> {
        let path = self.out.join(".lock");
        loop {
            let file = match fs::File::open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                opened => opened.at("opening", &path)?,
            };
            take(&file, libc::LOCK_SH, &self.out)?;
            if is_at(&file, &path)? {
                return Ok(Some(file));
            }
        }
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.out.join("log").join(format!("{name}.log"))
    }
}

/// Err unless nothing is at `dir`, or an empty directory. `what` is the option that names it.
fn refuse_foreign(what: &str, dir: &Path) -> Result<()> {
    let refused = |why: String| {
        Err(
            Error::new(Kind::Usage, format!("{what} {}: {why}", dir.display()))
                .remedy("give a directory that is not there yet, or an empty one"),
        )
    };
    match fs::read_dir(dir).map(|mut entries| entries.next()) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            refused("a file is in the way, where a directory is to be".into())
        }
        Err(e) => refused(e.to_string()),
        Ok(None) => Ok(()),
        Ok(Some(first)) => {
            let name = first.at("reading directory", dir)?.file_name();
            refused(format!(
                "byssal did not make what is there ({} and perhaps more), and would remove it",
                name.to_string_lossy()
            ))
        }
    }
}

/// Waits for the lock of a directory and takes it, until the file is dropped.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock_dir(dir: &Path) -> Result<fs::File> {
    let path = dir.join(".lock");
    loop {
        fs::create_dir_all(dir).at("making directory", dir)?;
        let file = fs::File::create(&path).at("opening", &path)?;
        take(&file, libc::LOCK_EX, dir)?;
        if is_at(&file, &path)? {
            return Ok(file);
        }
    }
}

/// Whether the file is the one at `path`: the run that was waited for may have removed it with its
/// directory, and then it keeps nobody out.
fn is_at(file: &fs::File, path: &Path) -> Result<bool> {
    let ours = file.metadata().at("reading", path)?;
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        there => {
            let there = there.at("reading", path)?;
            Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        }
    }
}

/// Waits for a lock of the kind `how` on the lock file of `dir`.
fn take(file: &fs::File, how: libc::c_int, dir: &Path) -> Result<()> {
    let lock = |how| {
        // SAFETY: flock only looks at the descriptor, which `file` keeps open.
        unsafe { libc::flock(file.as_raw_fd(), how) == 0 }
    };
    if !lock(how | libc::LOCK_NB) {
        crate::progress::tell(&format!(
            "  waiting: another byssal works in {}",
            dir.display()
        ));
        if !lock(how) {
            return Err(std::io::Error::last_os_error()).at("locking", dir);
        }
    }
    Ok(())
}

/// `$BYSSAL_CACHE`, or `.cache` of the checkout, which `make clean` leaves alone; the user's own,
/// `$XDG_CACHE_HOME/byssal` or `~/.cache/byssal`; and one in `out`, which can always be written.
fn caches(root: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let given = |name| {
        env::var_os(name)
            .filter(|d| !d.is_empty())
            .map(PathBuf::from)
    };
    let own = match given("BYSSAL_CACHE") {
        Some(dir) => absolute(&dir)?,
        None => root.join(".cache"),
    };
    // A relative path in either has no meaning.
    let users = given("XDG_CACHE_HOME")
        .filter(|d| d.is_absolute())
        .or_else(|| {
            given("HOME")
                .filter(|d| d.is_absolute())
                .map(|d| d.join(".cache"))
        });
    let users = users.map(|d| d.join("byssal"));
    Ok([Some(own), users, Some(out.join("cache"))]
        .into_iter()
        .flatten()
        .collect())
}

/// Refuses a path that a toolchain there could not name: in the specs of gcc a backslash quotes
/// everything but these, and Rust's and make's lists are of lines and of UTF-8.
///
/// # Errors
/// `Usage`, with what is in the way.
pub fn check_path(what: &str, path: &Path) -> Result<()> {
    let wrong = match path.to_str() {
        None => Some("bytes that are not UTF-8".to_owned()),
        Some(text) => text
            .chars()
            .find(|&c| c.is_control() || "#;{}".contains(c))
            .map(|c| format!("the character {c:?}")),
    };
    match wrong {
        None => Ok(()),
        Some(wrong) => Err(Error::new(
            Kind::Usage,
            format!("{what}: the path {path:?} has {wrong}, which the specs of gcc cannot carry"),
        )
        .remedy("take another directory; spaces and quotes are no hindrance")),
    }
}

/// Absolute without resolving links and without asking that the file exists.
///
/// # Errors
/// When there is no current directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("resolving", path)
}

/// The one name of a place: absolute, without `..`, and without links as far as it is there. What
/// is not there yet is below what is, and where a link leads to nothing, there. Of two such names
/// the text says whether one place lies in the other.
///
/// # Errors
/// `Usage` for a `..` behind a directory that is not there.
pub fn resolved(path: &Path) -> Result<PathBuf> {
    let whole: PathBuf = absolute(path)?.components().collect();
    for there in whole.ancestors() {
        let rest = whole.strip_prefix(there).unwrap_or(Path::new(""));
        match fs::canonicalize(there) {
            Ok(_) if rest.components().any(|c| c == Component::ParentDir) => {
                let what = format!("{}: a `..` is behind what is not there", path.display());
                return Err(Error::new(Kind::Usage, what).remedy("give a path without `..`"));
            }
            Ok(real) => return Ok(real.components().chain(rest.components()).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if let (Ok(target), Some(parent)) = (fs::read_link(there), there.parent()) {
                    return resolved(&parent.join(target).join(rest));
                }
            }
            // Whoever may not look there may not write there either.
            Err(_) => {}
        }
    }
    Ok(whole)
}

/// A temporary directory in the same directory as `dest`, so that a rename finishes the work and
/// an interrupted run leaves nothing under a final name.
///
/// # Errors
/// When it cannot be made.
pub fn temp_beside(dest: &Path) -> Result<tempfile::TempDir> {
    let parent = dest.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).at("making directory", parent)?;
    sweep(parent);
    tempfile::Builder::new()
        .prefix(&format!("{TEMP}{}-", std::process::id()))
        .tempdir_in(parent)
        .at("making a temporary directory in", parent)
}

/// Removes temporary files and directories of runs that were killed; whoever is alive keeps theirs.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Some(pid) = name
            .strip_prefix(TEMP)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            // Another run may be sweeping too; what is left, the next one takes.
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

/// Puts the finished directory `made` at `dest`, in place of what was there.
///
/// # Errors
/// When a rename fails; then what was at `dest` is there still.
pub fn replace_dir(made: &Path, dest: &Path) -> Result<()> {
    if let Some(parent) = dest.parent() {
        fs::create_dir_all(parent).at("making directory", parent)?;
    }
    if !dest.exists() {
        return fs::rename(made, dest).at("renaming to", dest);
    }
    let aside = temp_beside(dest)?;
    let old = aside.path().join("old");
    fs::rename(made, &old).at("renaming to", &old)?;
    // In one step, so that whoever is killed here leaves the old or the new one.
    exchange(&old, dest).at("renaming to", dest)
}

/// Two directories of one file system change places.
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    let name = |p: &Path| std::ffi::CString::new(p.as_os_str().as_encoded_bytes());
    let (from, to) = (name(a)?, name(b)?);
    // SAFETY: both are strings with a NUL at the end that live until the call returns.
    let failed = unsafe {
        let (here, how) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
        libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), how) != 0
    };
    if !failed {
        return Ok(());
    }
    // Some network file systems cannot: then in two steps.
    let third = a.with_extension("gone");
    fs::rename(b, &third)?;
    fs::rename(a, b).or_else(|e| fs::rename(&third, b).and(Err(e)))
}

/// Writes a whole file by way of a temporary one beside it.
///
/// # Errors
/// When writing or renaming fails; then `dest` is as it was.
pub fn write_file(dest: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let parent = dest.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).at("making directory", parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{TEMP}{}-", std::process::id()))
        .tempfile_in(parent)
        .at("writing in", parent)?;
    file.write_all(bytes).at("writing", dest)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file()
        .set_permissions(mode)
        .at("setting the mode of", dest)?;
    file.persist(dest).at("writing", dest)?;
    Ok(())
}

/// Writes a file that the user names. What is no plain file, such as a device or a pipe, stays what
/// it is and is written to.
///
/// # Errors
/// `Usage` when its directory is not there; when writing fails, and then a plain file is as it was.
pub fn write_named(dest: &Path, bytes: &[u8]) -> Result<()> {
    let dest = absolute(dest)?;
    let parent = dest.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        let what = format!(
            "{}: there is no directory {}",
            dest.display(),
            parent.display()
        );
        return Err(Error::new(Kind::Usage, what).remedy("make it, or give another file"));
    }
    match fs::metadata(&dest) {
        Ok(meta) if !meta.is_file() => fs::write(&dest, bytes).at("writing", &dest),
        _ => write_file(&dest, bytes),
    }
}

/// # Errors
/// When the file cannot be read as UTF-8 text.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).at("reading", path)
}

/// Files below a directory that `wanted` says so of, by their paths there and in their order; of a
/// directory that is not wanted none. Links are files.
///
/// # Errors
/// When a directory cannot be read.
pub fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut next = vec![PathBuf::new()];
    while let Some(below) = next.pop() {
        let here = dir.join(&below);
        for entry in fs::read_dir(&here).at("reading directory", &here)? {
            let entry = entry.at("reading directory", &here)?;
            let name = below.join(entry.file_name());
            if !wanted(&name) {
                continue;
            }
            if entry.file_type().at("reading", &entry.path())?.is_dir() {
                next.push(name);
            } else {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Refuses a directory within a tree that will be copied there: that would have no end. `what` is
/// the option that names it.
///
/// # Errors
/// `Usage`, with both.
pub fn check_apart(tree: &Path, what: &str, dir: &Path) -> Result<()> {
    if !resolved(dir)?.starts_with(resolved(tree)?) {
        return Ok(());
    }
    let (dir, tree) = (dir.display(), tree.display());
    let why = format!("{what} {dir} lies in {tree}, which would be copied into itself");
    Err(Error::new(Kind::Usage, why)
        .remedy(format!("give a directory outside of {tree} for {what}")))
}

/// Copies a tree: files, symbolic links as they are, and directories; `skip` names what is left out.
///
/// # Errors
/// When something cannot be read or written, and `Usage` when `to` lies in `from`.
pub fn copy_tree(from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
    check_apart(from, "the copy", to)?;
    copy_below(from, to, skip)
}

fn copy_below(from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
    fs::create_dir_all(to).at("making directory", to)?;
    for entry in fs::read_dir(from).at("reading directory", from)? {
        let source = entry.at("reading directory", from)?.path();
        if skip(&source) {
            continue;
        }
        let dest = to.join(source.file_name().unwrap_or_default());
        let kind = fs::symlink_metadata(&source)
            .at("reading", &source)?
            .file_type();
        if kind.is_dir() {
            copy_below(&source, &dest, skip)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&source).at("reading link", &source)?;
            std::os::unix::fs::symlink(target, &dest).at("making link", &dest)?;
        } else {
            fs::copy(&source, &dest).at("copying to", &dest)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_place_has_one_name() {
        let temp = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(temp.path()).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        for (target, link) in [("a/b", "link"), ("a/new", "ahead"), ("round", "round")] {
            symlink(target, top.join(link)).unwrap();
        }
        for (path, name) in [
            ("a/b/../b/", "a/b"),
            ("a/b/../..", ""),
            ("a/./b/new/x", "a/b/new/x"),
            ("link/..", "a"),
            ("link/new", "a/b/new"),
            ("ahead/x", "a/new/x"),
            ("round/x", "round/x"),
        ] {
            let want: PathBuf = top.join(name).components().collect();
            assert_eq!(resolved(&top.join(path)).unwrap(), want, "{path}");
        }
        for path in ["new/..", "a/new/../b", "ahead/../b"] {
            let error = resolved(&top.join(path)).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{path}");
        }
    }

    #[test]
    fn no_tree_is_copied_into_itself() {
        let temp = tempfile::tempdir().unwrap();
        let [tree, link] = ["tree", "link"].map(|name| temp.path().join(name));
        fs::create_dir(&tree).unwrap();
        symlink(&tree, &link).unwrap();
        for to in [&tree, &tree.join("a/b"), &link.join("a")] {
            let error = copy_tree(&tree, to, &|_| false).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{}", error.what);
        }
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
        copy_tree(&link, &temp.path().join("tree-2"), &|_| false).unwrap();
    }
}
