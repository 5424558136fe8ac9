//! Shared libraries for LD_PRELOAD: compiled from a crate's sources, or the distribution's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;

use byssal_tool::digest::{Inputs, Stamp};
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::musl::Compiler;
use byssal_tool::progress::step;
use byssal_tool::project::{self, Project};
use byssal_tool::{needs, run};

use crate::crates::{self, Crate};
use crate::table::{Sources, JEMALLOC_CRATE};
use crate::Peer;

/// What jemalloc's release build does, without C++ (operator new calls malloc then) and without
/// debug information, which makes up most of its build's time.
pub const JEMALLOC_CONFIGURE: &[&str] = &[
    "--disable-cxx",
    "--disable-static",
    "--disable-doc",
    "CFLAGS=-O3 -funroll-loops",
    "EXTRA_CFLAGS=-g0",
];

/// Compiles `sources` to the peer's library, unless it is there with the same inputs.
pub fn sources(
    project: &Project,
    peer: &Peer,
    sources: &Sources,
    compiler: &Compiler,
) -> Result<()> {
    let found = crates::find(project, sources.package)?;
    let dest = dest(peer)?;
    let flags = flags(&found, sources)?;
    let stamp = stamp(project, peer, &found, &flags, compiler)?;
    if stamp.holds(from_ref(&dest)) {
        return Ok(());
    }
    let log = project.log(&format!("peer-{}", peer.name));
    run::fresh_log(&log)?;
    step(&format!("{} {}", peer.name, peer.version), || {
        let temp = project::temp_beside(&dest)?;
        let made = temp.path().join("made.so");
        let mut cc = compile(&found, sources, &flags, &compiler.cc);
        cc.args(["-O3", "-fPIC", "-shared", "-pthread", "-o"])
            .arg(&made);
        run::logged(&mut cc, &log)?;
        std::fs::rename(&made, &dest).at("renaming to", &dest)
    })?;
    stamp.note(from_ref(&dest))
}

/// The compiler with the sources and flags, but for how they are linked and where to.
pub fn compile(found: &Crate, sources: &Sources, flags: &[String], cc: &str) -> Command {
    let mut cmd = Command::new(if sources.cpp { "g++" } else { cc });
    cmd.args(flags).arg("-w");
    for dir in sources.include {
        cmd.arg("-I").arg(found.dir.join(dir));
    }
    cmd.args(sources.files.iter().map(|f| found.dir.join(f)));
    cmd
}

/// The flags of the table and those of the crate's configuration file.
pub fn flags(found: &Crate, sources: &Sources) -> Result<Vec<String>> {
    let mut flags: Vec<String> = sources.flags.iter().map(|f| (*f).to_owned()).collect();
    if let Some(config) = sources.config {
        let text = project::read_text(&found.dir.join(config))?;
        flags.extend(defines(&text));
    }
    Ok(flags)
}

fn defines(config: &str) -> impl Iterator<Item = String> + '_ {
    let lines = config.lines().map(|l| l.split('#').next().unwrap_or(""));
    lines.filter_map(|l| {
        let (name, value) = l.split_once('=')?;
        Some(format!("-D{}={}", name.trim(), value.trim()))
    })
}

/// Builds jemalloc in a copy of its tree.
pub fn jemalloc(project: &Project, peer: &Peer, compiler: &Compiler) -> Result<()> {
    let found = crates::find(project, JEMALLOC_CRATE)?;
    let dest = dest(peer)?;
    let flags: Vec<String> = JEMALLOC_CONFIGURE.iter().map(|f| (*f).to_owned()).collect();
    let stamp = stamp(project, peer, &found, &flags, compiler)?;
    if stamp.holds(from_ref(&dest)) {
        return Ok(());
    }
    let log = project.log(&format!("peer-{}", peer.name));
    run::fresh_log(&log)?;
    step(&format!("{} {}", peer.name, peer.version), || {
        let temp = project::temp_beside(&dest)?;
        let tree = temp.path().join("jemalloc");
        project::copy_tree(&found.dir.join("jemalloc"), &tree, &|_| false)?;
        let configure = tree.join("configure");
        std::fs::copy(found.dir.join("configure/configure"), &configure)
            .at("copying to", &configure)?;
        // The crate's version ends with that of jemalloc, which configure else asks git for.
        let version = found.version.split_once('+').map_or("", |(_, v)| v);
        let mut cmd = Command::new("sh");
        cmd.current_dir(&tree)
            .arg("configure")
            .arg(format!("--with-version={version}"))
            .arg(format!("CC={}", compiler.cc))
            .args(&flags);
        run::logged(&mut cmd, &log)?;
        byssal_tool::musl::make(&tree, &["build_lib_shared"], compiler.jobs, &log)?;
        std::fs::rename(tree.join("lib/libjemalloc.so.2"), &dest).at("renaming to", &dest)
    })?;
    stamp.note(from_ref(&dest))
}

/// A library of the distribution: installs its package if it is not there.
pub fn package(project: &Project, package: &str, file: &str) -> Result<PathBuf> {
    if let Some(path) = installed(file) {
        return Ok(path);
    }
    needs::install(project, &[package], &format!("{file} is not installed"))?;
    installed(file).ok_or_else(|| {
        Error::new(
            Kind::Missing,
            format!("{file} is not there after installing {package}"),
        )
    })
}

/// The library of that name in the places where the loader looks.
pub fn installed(file: &str) -> Option<PathBuf> {
    let triple = run::output(Command::new("gcc").arg("-dumpmachine")).unwrap_or_default();
    let multi = format!("/usr/lib/{}", triple.trim());
    let places = [multi.as_str(), "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let mut paths = places.iter().map(|dir| Path::new(dir).join(file));
    paths.find(|p| p.exists())
}

fn dest(peer: &Peer) -> Result<PathBuf> {
    peer.file
        .clone()
        .ok_or_else(|| Error::new(Kind::Usage, format!("{} has no file", peer.name)))
}

pub fn stamp(
    project: &Project,
    peer: &Peer,
    found: &Crate,
    flags: &[String],
    compiler: &Compiler,
) -> Result<Stamp> {
    // The sources are those of the version: cargo checked their SHA-256 when it unpacked them.
    let inputs = Inputs::new()
        .text("crate", &found.version)
        .text("flags", &flags.join("\n"))
        .text("compiler", &compiler.identity)
        .finish();
    Ok(Stamp::new(
        &project.out,
        &format!("peer-{}", peer.name),
        inputs,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Make, ROWS};

    #[test]
    fn a_configuration_file_becomes_defines() {
        let text = "# a comment\nN_ARENA = 4\n\nZERO_ON_FREE=true # why\n";
        let defines: Vec<String> = defines(text).collect();
        assert_eq!(defines, ["-DN_ARENA=4", "-DZERO_ON_FREE=true"]);
    }

    /// What the table calls a version must be what the lock file brings.
    #[test]
    fn the_table_knows_the_pinned_crates() {
        let text = include_str!("../sources/Cargo.lock");
        let lock: toml::Table = text.parse().expect("Cargo.lock");
        let packages = lock["package"].as_array().expect("packages");
        let pinned = |name: &str| {
            let found = packages.iter().find(|p| p["name"].as_str() == Some(name));
            let found = found.unwrap_or_else(|| panic!("no {name}"));
            assert!(found.get("checksum").is_some(), "{name} has no checksum");
            found["version"].as_str().expect("a version").to_owned()
        };
        assert!(pinned(JEMALLOC_CRATE).contains(crate::table::JEMALLOC_VERSION));
        for row in ROWS {
            if let Make::Sources(sources) | Make::MuslMimalloc(sources) = row.make {
                let (crate_version, ours) = (pinned(sources.package), row.version.unwrap_or(""));
                match sources.package {
                    // mimalloc's crate counts on its own; its table row is checked by the probe.
                    "libmimalloc-sys" => assert_eq!(crate_version, "0.1.49"),
                    "rpmalloc-sys" => {
                        assert_eq!(crate_version.split('+').nth(1), ours.split('+').nth(1))
                    }
                    "scudo-sys" => assert!(ours.contains(&crate_version)),
                    _ => assert!(
                        crate_version.contains(ours),
                        "{}: {crate_version}",
                        row.name
                    ),
                }
            }
        }
    }
}
