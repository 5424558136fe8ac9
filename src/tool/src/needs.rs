//! Programs that a step needs: found, or installed through the system's package client when that
//! is allowed without a question, or named with the command that installs them.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::musl::{Compiler, Family};
use crate::progress::{step, tell};
use crate::project::{self, Project};
use crate::run;

/// Makes sure that `programs` are there, each of which a Debian package of its name brings.
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
    let why = format!("needed and not installed: {}", missing.join(", "));
    install(project, &missing, &why)?;
    match missing.iter().find(|p| !run::exists(p)) {
        None => Ok(()),
        Some(p) => Err(Error::new(
            Kind::Missing,
            format!("{p} is still not in PATH after installing"),
        )),
    }
}

/// Programs of binutils that musl's make, the gates and the tool itself run.
const BINUTILS: [&str; 5] = ["ar", "ld", "objcopy", "ranlib", "size"];

/// Makes sure that the binutils of the compiler are there, before it fails at the first object.
///
/// # Errors
/// `Missing` when some are not there and may not be installed without asking.
pub fn binutils(project: &Project, compiler: &Compiler) -> Result<()> {
    // clang has an assembler of its own.
    let assembler = Some("as").filter(|_| compiler.family == Family::Gcc);
    let missing = || {
        let names = BINUTILS.into_iter().chain(assembler);
        let programs = names.map(|name| compiler.program(name));
        let missing = programs.filter(|p| !p.as_ref().is_ok_and(|p| run::exists(p)));
        missing.collect::<Result<Vec<_>>>()
    };
    let names = missing()?.join(", ");
    if names.is_empty() {
        return Ok(());
    }
    let target = compiler.target;
    let foreign = target.compilers.first().filter(|_| !target.is_own());
    let package = foreign.map_or("binutils".into(), |triple| {
        format!("binutils-{}", triple.replace('_', "-"))
    });
    let why = format!("needed with CC={} and not installed: {names}", compiler.cc);
    install(project, &[&package], &why)?;
    match missing()?.first() {
        None => Ok(()),
        Some(p) => Err(Error::new(
            Kind::Missing,
            format!("{p} is still not in PATH after installing {package}"),
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
    tell(&format!("  {why}"));
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

/// What the tests need beyond what `make` does: programs, and libclang for bindgen. A test whose
/// need cannot be met says so and is counted as skipped, so a refusal here is only a warning.
///
/// # Errors
/// None but those of output.
pub fn for_tests(project: &Project) -> Result<()> {
    let mut packages = Vec::new();
    for line in project::read_text(&project.root.join("ci/needs.txt"))?.lines() {
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        if let [what, package] = words[..] {
            if !present(what) {
                packages.push(package.to_owned());
            }
        }
    }
    if packages.is_empty() {
        return Ok(());
    }
    packages.dedup();
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    if let Err(e) = install(project, &packages, "needed by tests and not installed") {
        tell(&format!(
            "  warning: {e}; {}",
            e.remedy.as_deref().unwrap_or_default()
        ));
    }
    Ok(())
}

/// A program in `PATH`, or a library whose file name begins so (`lib...`).
fn present(what: &str) -> bool {
    if !what.starts_with("lib") {
        return run::exists(what);
    }
    let triple = run::output(Command::new("cc").arg("-dumpmachine")).unwrap_or_default();
    let multi = format!("/usr/lib/{}", triple.trim());
    for dir in ["/usr/lib", "/usr/lib64", "/usr/local/lib", &multi] {
        let entries = std::fs::read_dir(Path::new(dir))
            .into_iter()
            .flatten()
            .flatten();
        if entries
            .into_iter()
            .any(|e| e.file_name().to_string_lossy().starts_with(what))
        {
            return true;
        }
    }
    false
}
