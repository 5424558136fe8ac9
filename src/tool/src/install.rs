//! Puts the built toolchain into a directory of the system.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use crate::build::Settings;
use crate::core::Preset;
use crate::digest::{Inputs, Stamp};
use crate::error::{At, Error, Kind, Result};
use crate::fetch;
use crate::pins::Pins;
use crate::project::{self, Project};
use crate::tree::Malloc;

/// A toolchain for which all of `make` was done. Installing copies it: often root does that in a
/// user's checkout, where nothing of root's may be left.
pub struct Ready {
    label: String,
    preset: Preset,
    prefix: PathBuf,
    stamp: Stamp,
}

impl Ready {
    /// The toolchain of these settings, finished or not.
    pub fn of(project: &Project, label: &str, preset: Preset) -> Self {
        let prefix = project.published(&Malloc::Byssal.prefix(project, label));
        let inputs = Inputs::new()
            .text("preset", preset.name())
            .text("prefix", &prefix.to_string_lossy());
        Ready {
            label: label.to_owned(),
            preset,
            stamp: Stamp::new(&project.out, &format!("ready-{label}"), inputs.finish()),
            prefix,
        }
    }

    /// Notes that it is finished.
    ///
    /// # Errors
    /// When it is not there.
    pub fn note(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        self.stamp.note(from_ref(&self.prefix))
    }

    /// Whether it is finished, and each of its files is as it was then.
    fn is_there(&self) -> bool {
        self.stamp.holds(from_ref(&self.prefix))
    }

    /// Finds what is built, with the preset that was asked for, or with any.
    ///
    /// # Errors
    /// `Usage` when it is not there or not finished.
    pub fn find(project: &Project, settings: &Settings, preset: Option<Preset>) -> Result<Self> {
        let label = settings.label(project)?;
        let wanted = preset
            .as_ref()
            .map_or(&[Preset::Default, Preset::Hardened][..], from_ref);
        let ready = wanted
            .iter()
            .map(|preset| Ready::of(project, &label, *preset));
        ready.into_iter().find(Ready::is_there).ok_or_else(|| {
            let preset = preset.map(|p| ("PRESET", p.name()));
            let musl = settings.musl.as_deref().map(|m| ("MUSL", m));
            let target = settings.target.as_deref().map(|t| ("TARGET", t));
            let cc = settings.cc.as_deref().filter(|cc| !cc.is_empty()).map(|cc| ("CC", cc));
            let given = [musl, target, cc, preset].into_iter().flatten();
            let words: String = given.map(|(name, value)| format!(" {name}={value}")).collect();
            let what = format!(
                "{} is not there, or is not what a finished `make{words}` leaves; installing builds nothing",
                project
                    .published(&Malloc::Byssal.prefix(project, &label))
                    .display(),
            );
            Error::new(Kind::Usage, what).remedy(format!(
                "run: make{words} (without sudo), then this again"
            ))
        })
    }

    /// Copies the toolchain to `destdir` + `prefix`. Programs linked with it look for the dynamic
    /// linker in `prefix`/lib.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn install(&self, prefix: &Path, destdir: Option<&Path>) -> Result<PathBuf> {
        let dest = destination(prefix, destdir)?;
        may_write(&dest)?;
        let from = &self.prefix;
        merge(from, &dest, &|path| {
            let name = path.strip_prefix(from).unwrap_or(path);
            crate::prefix::renamed(from, name, from, prefix)
        })?;
        Ok(dest)
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "musl {} (preset {})", self.label, self.preset.name())
    }
}

/// Refuses a directory that only another user may write to, before anything is written.
fn may_write(dest: &Path) -> Result<()> {
    let tried = make_dir(dest).and_then(|()| tempfile::tempfile_in(dest));
    tried.map(drop).map_err(|e| {
        let error = Error::new(
            Kind::System,
            format!("cannot write to {}: {e}", dest.display()),
        );
        match e.kind() {
            ErrorKind::PermissionDenied => error.remedy(
                "run: sudo make install, with the same settings; or choose a directory of yours: \
                 make install PREFIX=$HOME/musl",
            ),
            _ => error,
        }
    })
}

/// Makes a directory that everybody may read, whatever the umask is.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    fs::create_dir(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// Where the files go.
fn destination(prefix: &Path, destdir: Option<&Path>) -> Result<PathBuf> {
    let relative = prefix.strip_prefix("/").unwrap_or(prefix);
    Ok(match destdir {
        Some(d) => project::absolute(d)?.join(relative),
        None => prefix.to_path_buf(),
    })
}

/// Refuses a prefix that a toolchain cannot have, before anything is built for it.
///
/// # Errors
/// `Usage` for one that is empty, not absolute or `/`, or that the specs of gcc cannot name; and
/// where the host's own /usr would be written to.
pub fn check_prefix(prefix: &Path, destdir: Option<&Path>) -> Result<()> {
    let why = if prefix.as_os_str().is_empty() {
        "is empty"
    } else if !prefix.is_absolute() {
        "is not absolute"
    } else if project::resolved(prefix)?.parent().is_none() {
        "is the root, where the host's own /bin and /lib are"
    } else if is_hosts(&destination(prefix, destdir)?)? {
        "is the host's own: its headers would be overwritten, and where it is a musl its libc too"
    } else {
        return project::check_path("PREFIX", prefix);
    };
    Err(Error::new(
        Kind::Usage,
        format!("PREFIX={} {why}", prefix.display()),
    )
    .remedy(
        "give a directory of its own by its whole path, such as PREFIX=/usr/local/musl, which is \
         the default; a package may be for /usr, with DESTDIR",
    ))
}

/// Whether it is `/` or `/usr`, by whatever name.
fn is_hosts(dest: &Path) -> Result<bool> {
    let dest = project::resolved(dest)?;
    Ok(dest.parent().is_none() || dest == project::resolved(Path::new("/usr"))?)
}

/// What a file becomes when it is not copied as it is.
type Rewrite<'a> = &'a dyn Fn(&Path) -> Option<Result<String>>;

/// Copies into a directory that may hold other things. Each file is put in place by a rename, so
/// that a libc.so that is in use is never half written.
fn merge(from: &Path, to: &Path, rewrite: Rewrite) -> Result<()> {
    make_dir(to).at("making directory", to)?;
    for entry in fs::read_dir(from).at("reading directory", from)? {
        let source = entry.at("reading directory", from)?.path();
        let dest = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            merge(&source, &dest, rewrite)?;
            continue;
        }
        let temp = project::temp_beside(&dest)?;
        let part = temp.path().join("part");
        let meta = fs::symlink_metadata(&source).at("reading", &source)?;
        if meta.file_type().is_symlink() {
            let target = fs::read_link(&source).at("reading link", &source)?;
            std::os::unix::fs::symlink(target, &part).at("making link", &part)?;
        } else {
            match rewrite(&source) {
                Some(text) => fs::write(&part, text?).at("writing", &part)?,
                None => fs::copy(&source, &part).map(drop).at("copying to", &part)?,
            }
            // For everybody, also where the builder's umask kept others out.
            let executable = meta.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&part, Permissions::from_mode(mode))
                .at("setting the mode of", &part)?;
        }
        fs::rename(&part, &dest).at("renaming to", &dest)?;
    }
    Ok(())
}

/// Removes what was made, in `out`, which the caller has locked; with `cache`, also the tarballs
/// that were downloaded.
///
/// # Errors
/// When something cannot be removed.
pub fn clean(project: &Project, cache: bool) -> Result<()> {
    if project.out == project.root.join("out") {
        // Others' `out` uses it, too.
        let archive = project.root.join("target/archive");
        there(fs::remove_dir_all(&archive)).at("removing", &archive)?;
    }
    remove_locked(&project.out)?;
    let pins = Pins::read(&project.root)?;
    for dir in project.caches.first().into_iter().filter(|_| cache) {
        for (name, family) in [("musl", &pins.musl), ("lua", &pins.lua)] {
            for release in &family.release {
                let file = dir.join(fetch::file_name(name, family, &release.version));
                there(fs::remove_file(&file)).at("removing", &file)?;
            }
        }
        // What else is there stays: a user may have named any directory.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// Removes a directory whose lock the caller has. The lock file goes last: who finds none begins.
fn remove_locked(dir: &Path) -> Result<()> {
    let lock = dir.join(".lock");
    for entry in fs::read_dir(dir).at("reading directory", dir)? {
        let entry = entry.at("reading directory", dir)?;
        let path = entry.path();
        if path == lock {
            continue;
        }
        let removed = match entry.file_type().at("reading", &path)?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        there(removed).at("removing", &path)?;
    }
    there(fs::remove_file(&lock)).at("removing", &lock)?;
    match fs::remove_dir(dir) {
        // Another run has begun.
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => there(removed).at("removing", dir),
    }
}

/// That something is not there is no failure to remove it.
fn there(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_directories_are_no_prefix() {
        let temp = tempfile::tempdir().unwrap();
        for (target, link) in [("/", "root"), ("/usr", "usr")] {
            std::os::unix::fs::symlink(target, temp.path().join(link)).unwrap();
        }
        let temp = temp.path().to_str().unwrap();
        let why = |prefix: &str, destdir: Option<&str>| {
            let checked = check_prefix(Path::new(prefix), destdir.map(Path::new));
            checked.map_err(|e| (e.kind, e.what))
        };
        let refused = |prefix: &str, destdir, part: &str| {
            let (kind, what) = why(prefix, destdir).unwrap_err();
            assert_eq!(kind, Kind::Usage, "{prefix}: {what}");
            assert!(what.contains(part), "{prefix}: {what}");
        };
        for root in [
            "/",
            "/usr/..",
            "/usr/../usr/..",
            "//",
            "/.",
            &format!("{temp}/root"),
        ] {
            refused(root, None, "is the root");
            refused(root, Some(temp), "is the root");
        }
        for usr in [
            "/usr",
            "/usr/",
            "/usr/../usr",
            "/usr/.",
            &format!("{temp}/usr"),
        ] {
            refused(usr, None, "is the host's own");
        }
        // A root before it that is the root.
        for destdir in ["/", "/usr/..", &format!("{temp}/root")] {
            refused("/usr", Some(destdir), "is the host's own");
        }
        assert_eq!(why("/usr", Some(&format!("{temp}/package"))), Ok(()));
        for good in ["/usr/local/musl", "/usr/../opt/musl", temp] {
            assert_eq!(why(good, None), Ok(()), "{good}");
        }
    }
}
