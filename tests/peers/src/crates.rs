//! Where cargo keeps the sources of a crate: downloaded if need be, checked against the pinned
//! SHA-256 of Cargo.lock by cargo itself.

use std::path::PathBuf;
use std::process::Command;

use byssal_tool::error::{Error, Kind, Result};
use byssal_tool::project::Project;
use byssal_tool::run;
use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// A crate's sources, only to be read.
pub struct Crate {
    pub version: String,
    pub dir: PathBuf,
}

/// Finds the sources of a crate that `tests/peers/sources` depends on.
///
/// # Errors
/// `Source` when cargo cannot get it.
pub fn find(project: &Project, name: &str) -> Result<Crate> {
    let manifest = project.root.join("tests/peers/sources/Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--manifest-path",
        ])
        .arg(&manifest);
    let text = run::output(&mut cargo).map_err(|e| {
        Error::new(
            Kind::Source,
            format!("cargo cannot get the sources: {}", e.what),
        )
        .remedy("the crate registry must be in reach once; cargo keeps what it got")
    })?;
    let metadata: Metadata = serde_json::from_str(&text)
        .map_err(|e| Error::new(Kind::Source, format!("cargo metadata: {e}")))?;
    let package = metadata.packages.into_iter().find(|p| p.name == name);
    let package = package.ok_or_else(|| {
        Error::new(
            Kind::Source,
            format!("{} names no {name}", manifest.display()),
        )
    })?;
    let dir = package
        .manifest_path
        .parent()
        .unwrap_or(&package.manifest_path);
    Ok(Crate {
        version: package.version,
        dir: dir.to_path_buf(),
    })
}
