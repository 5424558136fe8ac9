//! What may be fetched: `patches/pins.toml`.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::project;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    pub musl: Family,
    pub lua: Family,
}

/// The releases of one upstream project.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The release taken when none is asked for.
    pub default: String,
    /// Where upstream keeps `NAME-VERSION.tar.gz`; absent if only the distribution has this tarball.
    pub site: Option<String>,
    /// How the tarball is packed: what follows `.tar.` in its name.
    #[serde(default = "gz")]
    pub packing: String,
    /// The distribution's source package with the same tarball.
    pub package: String,
    /// Suites of the distribution that may have it.
    pub suites: Vec<String>,
    pub release: Vec<Release>,
}

fn gz() -> String {
    "gz".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub version: String,
    /// The suite known to have this release.
    pub suite: Option<String>,
    pub sha256: String,
    /// SHA-256 over the names and hashes of the unpacked files, to know a tree of it by.
    pub tree: Option<String>,
    /// Why this release is known but not supported.
    pub refused: Option<String>,
}

impl Pins {
    /// # Errors
    /// When the file is not there or not well formed.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("patches/pins.toml");
        let text = project::read_text(&path)?;
        toml::from_str(&text)
            .map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))
    }
}

impl Family {
    pub fn by_hash(&self, sha256: &str) -> Option<&Release> {
        self.release.iter().find(|r| r.sha256 == sha256)
    }

    /// The pin of `version`.
    ///
    /// # Errors
    /// When there is none, or when it is one of those that are refused.
    pub fn release(&self, version: &str) -> Result<&Release> {
        let release = self
            .release
            .iter()
            .find(|r| r.version == version)
            .ok_or_else(|| {
                Error::new(
                    Kind::Refused,
                    format!("there is no pin for version {version}: its content is not known"),
                )
                .remedy(format!(
                    "take one of {}, or give a tarball or a source tree by its path",
                    self.supported().join(", ")
                ))
            })?;
        match &release.refused {
            None => Ok(release),
            Some(why) => Err(Error::new(
                Kind::Refused,
                format!("version {version} is refused: {why}"),
            )
            .remedy(format!("take one of {}", self.supported().join(", ")))),
        }
    }

    /// Versions that are pinned and not refused, newest first.
    pub fn supported(&self) -> Vec<&str> {
        self.release
            .iter()
            .filter(|r| r.refused.is_none())
            .map(|r| r.version.as_str())
            .collect()
    }
}
