//! Makes the jobs: every program, built for the host once and for each musl toolchain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_peers::{Kind as PeerKind, Peer};
use byssal_tool::digest::{self, Inputs, Stamp};
use byssal_tool::error::{At, Result};
use byssal_tool::progress::{say, step};
use byssal_tool::project::{self, Project};
use byssal_tool::run;

use crate::catalogue::{self, Job, Program, ProgramKind, Ready, Real, Size, Target};

/// A row to be measured, with a job for each allocator that it could be built for.
pub struct Work {
    pub name: String,
    pub curve: Option<String>,
    pub pattern: String,
    pub threads: u32,
    pub real: bool,
    /// By the allocator's name.
    pub jobs: BTreeMap<&'static str, Job>,
}

/// The numbers of threads of a scaling program.
fn threads(size: Size) -> &'static [u32] {
    match size {
        Size::Quick => &[1, 2, 16],
        Size::Full => &[1, 2, 4, 16, 64, 256],
    }
}

/// Where what is built for an allocator stays: one place for all of the host.
pub fn place(project: &Project, peer: &Peer) -> PathBuf {
    let name = match peer.kind {
        PeerKind::Preload => "host",
        PeerKind::Static | PeerKind::Linked => peer.name,
    };
    project.out.join("bench/bin").join(name)
}

/// Builds the programs and gives the jobs; what cannot be built goes to `notes`.
///
/// # Errors
/// When a program of ours does not compile.
pub fn all(
    project: &Project,
    peers: &[Peer],
    size: Size,
    only: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Work>> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut works = Vec::new();
    let ours: Vec<Program> = catalogue::read(project)?;
    let ours: Vec<Program> = ours.into_iter().filter(|p| wanted(&p.name)).collect();
    step(&format!("building {} programs", ours.len()), || {
        for program in &ours {
            works.extend(synthetic(project, peers, size, program)?);
        }
        Ok(())
    })?;
    for real in crate::real::programs(project)? {
        if wanted(&real.name) {
            say(&format!("  preparing {}", real.name));
            works.push(one_real(project, peers, size, &real, notes)?);
        }
    }
    works.retain(|w| !w.jobs.is_empty());
    Ok(works)
}

fn synthetic(
    project: &Project,
    peers: &[Peer],
    size: Size,
    program: &Program,
) -> Result<Vec<Work>> {
    let mut built = BTreeMap::new();
    for peer in peers {
        built.insert(peer.name, compile(project, peer, program)?);
    }
    let arguments = program.args.of(size);
    let work = |curve: Option<u32>| Work {
        name: curve.map_or(program.name.clone(), |n| format!("{} {n}", program.name)),
        curve: curve.map(|_| program.name.clone()),
        pattern: program.pattern.clone(),
        threads: curve.unwrap_or(program.threads),
        real: false,
        jobs: built
            .iter()
            .map(|(name, path)| {
                let mut args = arguments.to_vec();
                args.extend(curve.map(|n| n.to_string()));
                let job = Job {
                    program: path.clone(),
                    args,
                    ..Job::default()
                };
                (*name, job)
            })
            .collect(),
    };
    Ok(match program.kind {
        ProgramKind::Synthetic => vec![work(None)],
        ProgramKind::Scaling => threads(size).iter().map(|n| work(Some(*n))).collect(),
    })
}

/// Compiles a program of the catalogue for an allocator, unless nothing changed.
fn compile(project: &Project, peer: &Peer, program: &Program) -> Result<PathBuf> {
    let mut sources = Vec::new();
    for name in &program.sources {
        sources.push(catalogue::source(project, name)?);
    }
    let dest = place(project, peer).join(&program.name);
    let words: Vec<&str> = program.libs.iter().map(String::as_str).collect();
    c_program(project, peer, &sources, &words, &dest)?;
    Ok(dest)
}

/// Has each function of a program lie alike, whatever the length of the libc that is linked before
/// it: a loop that crosses a line may take twice the time.
pub const PLACED: &str = "-falign-functions=64";

/// Compiles C files to `dest` with the flags that all programs of the benchmark share.
///
/// # Errors
/// `Step` when the compiler fails.
pub fn c_program(
    project: &Project,
    peer: &Peer,
    sources: &[PathBuf],
    libs: &[&str],
    dest: &Path,
) -> Result<()> {
    let mut inputs = Inputs::new().text("flags", &[&libs.join(" "), PLACED].concat());
    for source in sources {
        inputs = inputs.text("source", &digest::file(source)?);
    }
    // Headers of our own lie beside the sources.
    for entry in fs::read_dir(project.root.join("tests/bench/programs"))
        .into_iter()
        .flatten()
    {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "h") {
            inputs = inputs.text("header", &digest::file(&path)?);
        }
    }
    if peer.kind == PeerKind::Static {
        let libc = peer.cc().with_file_name("../lib/libc.a");
        inputs = inputs.text("libc", &digest::file(&libc)?);
    }
    let name = dest.strip_prefix(&project.out).unwrap_or(dest);
    let name = format!("bench-{}", name.to_string_lossy().replace('/', "-"));
    let stamp = Stamp::new(&project.out, &name, inputs.finish());
    let made = [dest.to_path_buf()];
    if stamp.holds(&made) {
        return Ok(());
    }
    let temp = project::temp_beside(dest)?;
    let part = temp.path().join("program");
    let mut cc = Command::new(peer.cc());
    cc.args(["-std=gnu11", "-O2", "-g", "-fno-builtin-malloc", "-pthread"]);
    cc.arg(PLACED);
    if peer.kind == PeerKind::Static {
        cc.arg("-static");
    }
    cc.args(sources).arg("-o").arg(&part);
    cc.args(libs);
    run::logged(&mut cc, &project.log("bench-build"))?;
    fs::rename(&part, dest).at("renaming to", dest)?;
    stamp.note(&made)
}

fn one_real(
    project: &Project,
    peers: &[Peer],
    size: Size,
    real: &Real,
    notes: &mut Vec<String>,
) -> Result<Work> {
    let mut host: Option<Option<Job>> = None;
    let mut jobs = BTreeMap::new();
    for peer in peers {
        let job = match (peer.kind, &host) {
            (PeerKind::Preload, Some(job)) => job.clone(),
            _ => prepare(project, peer, size, real, notes)?,
        };
        if peer.kind == PeerKind::Preload {
            host = Some(job.clone());
        }
        if let Some(job) = job {
            jobs.insert(peer.name, job);
        }
    }
    Ok(Work {
        name: real.name.clone(),
        curve: None,
        pattern: real.pattern.clone(),
        threads: real.threads,
        real: true,
        jobs,
    })
}

fn prepare(
    project: &Project,
    peer: &Peer,
    size: Size,
    real: &Real,
    notes: &mut Vec<String>,
) -> Result<Option<Job>> {
    let dir = place(project, peer).join(format!("real-{}", real.name));
    fs::create_dir_all(&dir).at("making directory", &dir)?;
    let cc = peer.cc();
    let (target, where_) = match peer.kind {
        PeerKind::Preload | PeerKind::Linked => (Target::Host { cc: &cc }, "the host"),
        PeerKind::Static => (Target::Musl { cc: &cc }, peer.name),
    };
    // One program that cannot be had must not stop the others; it is told at once and in the end.
    let why = match (real.prepare)(project, target, size, &dir) {
        Ok(Ready::Run(job)) => return Ok(Some(job)),
        Ok(Ready::Skip(why)) => why,
        Err(e) => e.what.lines().next().unwrap_or_default().to_owned(),
    };
    let note = format!("skipped: {} on {where_}: {why}", real.name);
    say(&format!("  {note}"));
    notes.push(note);
    Ok(None)
}
