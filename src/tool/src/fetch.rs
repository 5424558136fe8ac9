//! Gets a pinned tarball: from a cache, from upstream's site, or from the distribution.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest;
use crate::distro;
use crate::download;
use crate::error::{At, Error, Kind, Result};
use crate::pins::{Family, Release};
use crate::progress::{step, tell};
use crate::project::Project;

/// Gives the path of `NAME-VERSION.tar.PACKING` in the cache, downloading it when need be.
///
/// # Errors
/// `Refused` when the version has no pin; `Source` when no way gave a file with the pinned hash.
pub fn pinned(project: &Project, name: &str, family: &Family, version: &str) -> Result<PathBuf> {
    let release = family.release(version)?;
    let file = file_name(name, family, version);
    if let Some(there) = cached(project, &file, release)? {
        return Ok(there);
    }
    let dest = writable(project)?.join(&file);
    step(&format!("fetch {file}"), || {
        download(name, family, release, &dest)
    })?;
    Ok(dest)
}

/// What the tarball of a release is called.
pub fn file_name(name: &str, family: &Family, version: &str) -> String {
    format!("{name}-{version}.tar.{}", family.packing)
}

/// The tarball of a release, if it is in a cache and can be read.
pub fn at_hand(project: &Project, name: &str, family: &Family, version: &str) -> Option<PathBuf> {
    let release = family.release(version).ok()?;
    let file = file_name(name, family, version);
    cached(project, &file, release).ok()?
}

/// The right file in one of the caches. A wrong one counts as none.
fn cached(project: &Project, file: &str, release: &Release) -> Result<Option<PathBuf>> {
    for path in project.caches.iter().map(|dir| dir.join(file)) {
        if !path.is_file() {
            continue;
        }
        let got = digest::file(&path)?;
        if got == release.sha256 {
            return Ok(Some(path));
        }
        tell(&format!(
            "  {} has SHA-256 {got}, not the pinned {}: not used",
            path.display(),
            release.sha256
        ));
    }
    Ok(None)
}

/// The first cache that can be written: that of a checkout which only others may write cannot.
fn writable(project: &Project) -> Result<&Path> {
    let mut first = None;
    for dir in &project.caches {
        match fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir)) {
            Ok(_) => return Ok(dir),
            Err(e) => first = first.or(Some((dir, e))),
        }
    }
    let (dir, e) = first.expect("there is always a cache in out");
    Err(e).at("writing in", dir)
}

/// One way to a file: its name for messages, and what it does.
type Way<'a> = (String, Box<dyn Fn(&Path) -> Result<()> + 'a>);

fn download(name: &str, family: &Family, release: &Release, dest: &Path) -> Result<()> {
    let temp = crate::project::temp_beside(dest)?;
    let part = temp.path().join("part");
    let mut failures = Vec::new();
    for (way, get) in ways(name, family, release)? {
        let result = get(&part).and_then(|()| check(&part, release));
        match result {
            Ok(()) => {
                tell(&format!(
                    "  {}: from {way}, SHA-256 as pinned",
                    dest.display()
                ));
                return fs::rename(&part, dest).at("renaming to", dest);
            }
            Err(e) => failures.push(format!("{way}: {}", e.what)),
        }
    }
    let what = format!(
        "no way led to {name} {}:\n    {}",
        release.version,
        failures.join("\n    ")
    );
    Err(Error::new(Kind::Source, what).remedy(format!(
        "get {name}-{}.tar.{} (SHA-256 {}) by hand and put it at {}",
        release.version,
        family.packing,
        release.sha256,
        dest.display()
    )))
}

/// Upstream's site, then each suite of each archive that the system is configured for.
fn ways<'a>(name: &str, family: &'a Family, release: &'a Release) -> Result<Vec<Way<'a>>> {
    let mut ways: Vec<Way> = Vec::new();
    if let Some(site) = &family.site {
        let url = format!("{site}/{name}-{}.tar.{}", release.version, family.packing);
        ways.push((url.clone(), Box::new(move |part| download::get(&url, part))));
    }
    if !crate::run::exists("apt-get") {
        return Ok(ways);
    }
    let first = release.suite.iter();
    let suites = first.chain(
        family
            .suites
            .iter()
            .filter(|s| Some(*s) != release.suite.as_ref()),
    );
    let archives = distro::archives(Path::new("/etc/apt"))?;
    for suite in suites {
        for archive in archives.clone() {
            let way = format!(
                "source package {}, suite {suite} of {}",
                family.package, archive.uri
            );
            let get = move |part: &Path| {
                distro::get(&archive, suite, &family.package, &release.version, part)
            };
            ways.push((way, Box::new(get)));
        }
    }
    Ok(ways)
}

fn check(part: &Path, release: &Release) -> Result<()> {
    let got = digest::file(part)?;
    if got == release.sha256 {
        return Ok(());
    }
    fs::remove_file(part).at("removing", part)?;
    Err(Error::new(
        Kind::Source,
        format!(
            "gave a file with SHA-256 {got}, not the pinned {}",
            release.sha256
        ),
    ))
}
