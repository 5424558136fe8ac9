//! The pinned tarballs of the real programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::fetch;
use byssal_tool::pins::{Family, Pins};
use byssal_tool::project::{self, Project};

/// The pins of one source: of `sources.toml`, or Lua's, which the tool has too.
///
/// # Errors
/// When there are none.
pub fn family(project: &Project, name: &str) -> Result<Family> {
    if name == "lua" {
        return Ok(Pins::read(&project.root)?.lua);
    }
    let path = project.root.join("tests/bench/sources.toml");
    let text = project::read_text(&path)?;
    let mut all: BTreeMap<String, Family> = toml::from_str(&text).at("reading", &path)?;
    all.remove(name).ok_or_else(|| {
        Error::new(
            Kind::Source,
            format!("{} has no pin for {name}", path.display()),
        )
    })
}

/// The tarball of a source, fetched if it is not in the cache.
///
/// # Errors
/// `Source` when no way leads to the pinned bytes.
pub fn tarball(project: &Project, name: &str) -> Result<PathBuf> {
    let family = family(project, name)?;
    fetch::pinned(project, name, &family, &family.default)
}
