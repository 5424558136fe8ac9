//! Rust programs (`tests/bench/rust`) that have the allocator linked in, by its crate: built by
//! cargo once for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_peers::Peer;
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::progress::{say, step};
use byssal_tool::project::{self, Project};
use byssal_tool::run;

use crate::catalogue::{Job, Size};
use crate::programs::{self, Work};

/// A way to build the programs.
struct Build {
    /// The allocator's name in tables.
    name: &'static str,
    /// The package's feature, and the crate whose version counts; none for the system's malloc.
    feature: &'static str,
    package: Option<&'static str>,
}

const BUILDS: [Build; 5] = [
    Build {
        name: "rust-byssal",
        feature: "byssal",
        package: Some("byssal"),
    },
    Build {
        name: "rust-byssal-hardened",
        feature: "byssal-hardened",
        package: Some("byssal"),
    },
    Build {
        name: "rust-system",
        feature: "",
        package: None,
    },
    Build {
        name: "rust-mimalloc",
        feature: "mimalloc",
        package: Some("mimalloc"),
    },
    Build {
        name: "rust-jemalloc",
        feature: "jemalloc",
        package: Some("tikv-jemallocator"),
    },
];

/// A program of the package.
struct Program {
    name: &'static str,
    pattern: &'static str,
    threads: u32,
    quick: &'static [&'static str],
    full: &'static [&'static str],
}

/// `{heap}` is this project's `src/heap`.
const PROGRAMS: [Program; 2] = [
    Program {
        name: "format",
        pattern: "A formatter of Rust: all sources of byssal's heap parsed by syn, kept as trees, \
                  changed, printed by prettyplease.",
        threads: 1,
        quick: &["{heap}", "2"],
        full: &["{heap}", "12"],
    },
    Program {
        name: "service",
        pattern:
            "A service on tokio with two workers: documents put, changed and read by requests \
                  in JSON (serde_json) over unix sockets.",
        threads: 2,
        quick: &["8", "4000"],
        full: &["8", "30000"],
    },
];

/// The names of the programs, and what they do.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROGRAMS
        .iter()
        .map(|program| (program.name, program.pattern))
}

/// The allocators, whether their programs can be built or not.
///
/// # Errors
/// When the package's lock file cannot be read.
pub fn peers(project: &Project) -> Result<Vec<Peer>> {
    let lock = package(project).join("Cargo.lock");
    let lock = project::read_text(&lock)?;
    Ok(BUILDS
        .iter()
        .map(|build| {
            let version = build.package.and_then(|name| locked(&lock, name));
            let ours = build.package == Some("byssal");
            let hardened = build.feature.ends_with("hardened");
            let version = version.unwrap_or("of the host's libc").to_owned();
            Peer::linked(build.name, version, "", ours, hardened)
        })
        .collect())
}

/// The version of a package in a Cargo.lock.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

fn package(project: &Project) -> PathBuf {
    project.root.join("tests/bench/rust")
}

/// Builds the programs with each of the allocators and gives the jobs; what cannot be built goes to
/// `notes`.
///
/// # Errors
/// When a file cannot be written.
pub fn works(
    project: &Project,
    peers: &[Peer],
    size: Size,
    only: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Work>> {
    let wanted = |program: &&Program| only.is_empty() || only.iter().any(|o| o == program.name);
    let chosen: Vec<&Program> = PROGRAMS.iter().filter(wanted).collect();
    let mut built: BTreeMap<&'static str, PathBuf> = BTreeMap::new();
    for peer in peers {
        let build = BUILDS.iter().find(|build| build.name == peer.name);
        let Some(build) = build.filter(|_| !chosen.is_empty()) else {
            continue;
        };
        let place = programs::place(project, peer);
        match one(project, build, &place) {
            Ok(()) => _ = built.insert(peer.name, place),
            Err(e) => {
                let why = e.what.lines().next().unwrap_or_default().to_owned();
                let note = format!("skipped: Rust programs with {}: {why}", peer.name);
                say(&format!("  {note}"));
                notes.push(note);
            }
        }
    }
    let heap = project.root.join("src/heap").display().to_string();
    let work = |program: &Program| {
        let args = match size {
            Size::Quick => program.quick,
            Size::Full => program.full,
        };
        let args: Vec<String> = args.iter().map(|a| a.replace("{heap}", &heap)).collect();
        let job = |place: &Path| Job {
            program: place.join(program.name),
            args: args.clone(),
            ..Job::default()
        };
        Work {
            name: program.name.into(),
            curve: None,
            pattern: program.pattern.into(),
            threads: program.threads,
            real: true,
            jobs: built
                .iter()
                .map(|(name, place)| (*name, job(place)))
                .collect(),
        }
    };
    let works: Vec<Work> = chosen.into_iter().map(work).collect();
    Ok(works.into_iter().filter(|w| !w.jobs.is_empty()).collect())
}

/// Builds the programs with one allocator into a directory. cargo knows what changed.
fn one(project: &Project, build: &Build, place: &Path) -> Result<()> {
    step(&format!("Rust programs with {}", build.name), || {
        let made = project.out.join("bench/rust");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(package(project).join("Cargo.toml"))
            .args(["--features", build.feature, "--target-dir"])
            .arg(&made);
        run::logged(&mut cargo, &project.log("bench-build")).map_err(|e| {
            let what = format!("cargo cannot build them: {}", e.what);
            Error::new(Kind::Step, what)
                .remedy("the crate registry must be in reach once; cargo keeps what it got")
        })?;
        fs::create_dir_all(place).at("making directory", place)?;
        for program in &PROGRAMS {
            let (from, to) = (
                made.join("release").join(program.name),
                place.join(program.name),
            );
            let part = to.with_extension("part");
            fs::copy(&from, &part).at("copying", &from)?;
            fs::rename(&part, &to).at("renaming to", &to)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_allocator_has_the_version_of_the_lock() {
        let project = Project::find(Some(Path::new(env!("CARGO_MANIFEST_DIR"))), None);
        let peers = peers(&project.expect("in the checkout")).expect("the lock");
        let version = |name: &str| {
            let peer = peers.iter().find(|peer| peer.name == name);
            peer.expect("in the list").version.clone()
        };
        assert_eq!(version("rust-byssal"), env!("CARGO_PKG_VERSION"));
        assert!(version("rust-jemalloc").starts_with("0."));
        assert!(version("rust-system").contains("libc"));
    }

    #[test]
    fn a_version_is_found_by_the_whole_name() {
        let lock = "name = \"one-more\"\nversion = \"1\"\n\nname = \"one\"\nversion = \"2\"\n";
        assert_eq!(locked(lock, "one"), Some("2"));
        assert_eq!(locked(lock, "two"), None);
    }
}
