//! Programs that a step needs: found, or installed through the system's package client when that
//! is allowed without a question, or named with the command that installs them.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::progress::{say, step};
use crate::project::Project;
use crate::run;

/// A program and the Debian package that brings it.
const PACKAGES: [(&str, &str); 11] = [
    ("ar", "binutils"),
    ("cargo", "cargo"),
    ("gcc", "gcc"),
    ("git", "git"),
    ("make", "make"),
    ("nm", "binutils"),
    ("objcopy", "binutils"),
    ("objdump", "binutils"),
    ("patch", "patch"),
    ("python3", "python3"),
    ("rustc", "rustc"),
];

/// Makes sure that `programs` are there.
///
/// # Errors
/// `Missing` when one is not there and may not be installed without asking.
pub fn programs(project: &Project, programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|p| !run::exists(p))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing
        .iter()
        .map(|p| {
            PACKAGES
                .iter()
                .find(|(name, _)| name == p)
                .map_or(*p, |(_, package)| *package)
        })
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let why = format!("needed and not installed: {}", missing.join(", "));
    install(project, &packages, &why)?;
    match missing.iter().find(|p| !run::exists(p)) {
        None => Ok(()),
        Some(p) => Err(Error::new(
            Kind::Missing,
            format!("{p} is still not in PATH after installing"),
        )),
    }
}

/// Installs Debian packages, as root or through a sudo that asks nothing.
///
/// # Errors
/// `Missing`, with the command to run, when neither is possible or the installation fails.
pub fn install(project: &Project, packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = || {
        Error::new(Kind::Missing, why.to_owned()).remedy(format!(
            "run: sudo apt-get install --no-install-recommends {list}"
        ))
    };
    let Some(prefix) = privilege().filter(|_| run::exists("apt-get")) else {
        return Err(by_hand());
    };
    let log = project.log("apt");
    say(&format!("  {why}"));
    step(&format!("apt-get install {list}"), || {
        let apt = |args: &[&str]| {
            let mut cmd = Command::new(prefix[0]);
            cmd.args(&prefix[1..])
                .args(args)
                .env("DEBIAN_FRONTEND", "noninteractive");
            run::logged(&mut cmd, &log)
        };
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(packages);
        // A machine whose lists were never read cannot install at once.
        apt(&args).or_else(|_| apt(&["update"]).and_then(|()| apt(&args)))
    })
    .map_err(|e| Error {
        what: format!("{why}; {}", e.what),
        ..by_hand()
    })
}

/// The words before `install`: apt-get itself for root, or through sudo when it asks nothing.
fn privilege() -> Option<&'static [&'static str]> {
    let root = run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        return Some(&["apt-get"]);
    }
    let sudo =
        run::exists("sudo") && run::output(Command::new("sudo").args(["-n", "true"])).is_ok();
    sudo.then_some(&["sudo", "-n", "apt-get"])
}

/// Whether a file that a development package brings is there.
pub fn has_file(path: &str) -> bool {
    Path::new(path).exists()
}
