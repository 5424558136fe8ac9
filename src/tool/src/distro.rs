//! The distribution's source package as a way to an upstream tarball. The archive's address and
//! key come from the system's own apt configuration; nothing of the system is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{At, Error, Kind, Result};
use crate::{project, run};

/// An archive that the system trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    pub uri: String,
    /// The `Signed-By` of its entry: a key file, or a key in place (then of several lines).
    pub signed_by: Option<String>,
}

/// The archives with a `main` component in the apt configuration at `etc` (`/etc/apt`), in order.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn archives(etc: &Path) -> Result<Vec<Archive>> {
    let mut files = vec![etc.join("sources.list")];
    let parts = etc.join("sources.list.d");
    if parts.is_dir() {
        for entry in fs::read_dir(&parts).at("reading directory", &parts)? {
            files.push(entry.at("reading directory", &parts)?.path());
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.is_file()) {
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => found.extend(from_list(&project::read_text(file)?)),
            Some("sources") => found.extend(from_deb822(&project::read_text(file)?)),
            _ => {}
        }
    }
    let mut unique: Vec<Archive> = Vec::new();
    for archive in found {
        if !unique.contains(&archive) {
            unique.push(archive);
        }
    }
    Ok(unique)
}

/// Lines `deb [options] URI SUITE COMPONENT...`.
fn from_list(text: &str) -> Vec<Archive> {
    text.lines().filter_map(from_line).collect()
}

fn from_line(line: &str) -> Option<Archive> {
    let line = line.split('#').next()?.trim();
    let rest = line
        .strip_prefix("deb-src")
        .or_else(|| line.strip_prefix("deb"))?;
    let mut rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, tail) = after.split_once(']')?;
        let key = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="));
        signed_by = key.map(str::to_owned);
        rest = tail;
    }
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    let usable = is_whole(words.next()?)
        && !uri.starts_with("cdrom:")
        && words.any(|component| component == "main");
    usable.then_some(Archive { uri, signed_by })
}

/// Whether a suite is that of a whole release: the archives of `trixie-security` and the like have
/// a few packages only.
fn is_whole(suite: &str) -> bool {
    !suite.contains('-')
}

/// Stanzas of `Field: value` lines; a value goes on in lines that begin with a blank.
fn from_deb822(text: &str) -> Vec<Archive> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
            continue;
        }
        let Some(fields) = stanzas.last_mut() else {
            continue;
        };
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
        .iter()
        .flat_map(|fields| from_stanza(fields))
        .collect()
}

fn from_stanza(fields: &[(String, String)]) -> Vec<Archive> {
    let get = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    };
    let on = !get("enabled").eq_ignore_ascii_case("no")
        && get("suites").split_whitespace().any(is_whole);
    if !on || !get("components").split_whitespace().any(|c| c == "main") {
        return Vec::new();
    }
    let signed_by = Some(get("signed-by").to_owned()).filter(|s| !s.is_empty());
    let uris = get("uris").split_whitespace();
    uris.map(|uri| Archive {
        uri: uri.to_owned(),
        signed_by: signed_by.clone(),
    })
    .collect()
}

/// A private apt state in a temporary directory.
struct Apt {
    dir: tempfile::TempDir,
}

impl Apt {
    /// Beside `dest`, which is what it is for.
    fn new(archive: &Archive, suite: &str, dest: &Path) -> Result<Self> {
        let apt = Apt {
            dir: project::temp_beside(dest)?,
        };
        for sub in ["parts", "lists/partial", "cache/archives/partial", "got"] {
            let path = apt.dir.path().join(sub);
            fs::create_dir_all(&path).at("making directory", &path)?;
        }
        let mut stanza = format!(
            "Types: deb-src\nURIs: {}\nSuites: {suite}\nComponents: main\n",
            archive.uri
        );
        if let Some(key) = &archive.signed_by {
            stanza += &format!("Signed-By: {key}\n");
        }
        project::write_file(
            &apt.dir.path().join("parts/byssal.sources"),
            stanza.as_bytes(),
        )?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut cmd = Command::new(program);
        let dir = self.dir.path().display();
        for option in [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={dir}/parts"),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "APT::Get::List-Cleanup=false".to_owned(),
        ] {
            cmd.arg("-o").arg(option);
        }
        cmd.env("LC_ALL", "C")
            .current_dir(self.dir.path().join("got"));
        cmd
    }

    /// The package's version in the suite whose upstream part is `version`.
    fn version(&self, package: &str, version: &str) -> Result<String> {
        run::last_word(self.command("apt-get").args(["-q", "update"]))?;
        let mut show = self.command("apt-cache");
        let shown = run::last_word(show.args(["showsrc", "--only-source", package]))?;
        let versions: Vec<&str> = shown
            .lines()
            .filter_map(|l| l.strip_prefix("Version: "))
            .collect();
        let same = versions.iter().find(|v| upstream_part(v) == version);
        same.map(|v| (*v).to_owned()).ok_or_else(|| {
            Error::new(
                Kind::Source,
                format!("has {package} {}, not {version}", versions.join(", ")),
            )
        })
    }
}

/// `1.2.3` of `2:1.2.3-1+deb12u1`.
fn upstream_part(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, v)| v);
    version.rsplit_once('-').map_or(version, |(v, _)| v)
}

/// Downloads the upstream tarball of `package` `version` from `suite` of `archive` to `dest`.
///
/// # Errors
/// `Source` when apt cannot reach the archive or the suite has another version.
pub fn get(
    archive: &Archive,
    suite: &str,
    package: &str,
    version: &str,
    dest: &Path,
) -> Result<()> {
    let apt = Apt::new(archive, suite, dest)?;
    let full = apt.version(package, version)?;
    let mut source = apt.command("apt-get");
    source.args([
        "-q",
        "source",
        "--download-only",
        "--tar-only",
        &format!("{package}={full}"),
    ]);
    run::last_word(&mut source)?;
    let got = tarball_in(&apt.dir.path().join("got"))?;
    fs::copy(&got, dest).at("copying to", dest)?;
    Ok(())
}

fn tarball_in(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).at("reading directory", dir)? {
        let path = entry.at("reading directory", dir)?.path();
        if path.to_string_lossy().contains(".orig.tar.") {
            return Ok(path);
        }
    }
    Err(Error::new(
        Kind::Source,
        "apt-get source left no upstream tarball",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries_give_address_and_key() {
        let text = "# a comment\n\
            deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main contrib\n\
            deb-src http://b.example/debian sid main # why\n\
            deb http://c.example/x stable other\n\
            deb cdrom:[disc]/ trixie main\n\
            deb http://s.example/security trixie-security main\n\
            debug http://d.example/ x main\n";
        let want = [
            ("http://a.example/debian", Some("/k.gpg")),
            ("http://b.example/debian", None),
        ];
        let got = from_list(text);
        let got: Vec<_> = got
            .iter()
            .map(|a| (a.uri.as_str(), a.signed_by.as_deref()))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn deb822_stanzas_give_every_address_with_its_key() {
        let text = "Types: deb\n# mirror\nURIs: http://a.example/d http://b.example/d\nSuites: x\n\
            Components: main\nSigned-By:\n -----BEGIN-----\n .\n mQ\n\nTypes: deb\nURIs: http://c.example\n\
            Suites: x\nComponents: main\nEnabled: no\n\nURIs: http://e.example\nComponents: other\n";
        let got = from_deb822(text);
        assert_eq!(got.len(), 2);
        assert_eq!(got[1].uri, "http://b.example/d");
        assert_eq!(
            got[0].signed_by.as_deref(),
            Some("\n -----BEGIN-----\n .\n mQ")
        );
    }

    #[test]
    fn upstream_part_of_package_versions() {
        assert_eq!(upstream_part("1.2.5-3"), "1.2.5");
        assert_eq!(upstream_part("1:5.4.4-3+deb12u1"), "5.4.4");
        assert_eq!(upstream_part("7"), "7");
    }
}
