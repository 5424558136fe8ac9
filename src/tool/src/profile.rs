//! `profile`: runs a program with libbyssal_profile.so, and writes what it tells of the heap in
//! the formats of other tools. docs/profile.md says what is measured.
//!
//! ```text
//! program -> library (src/profile) -> the process writes its file -> raw
//!                                                                     |
//!                              symbols -> merged -> pprof, graph, table
//! ```

pub mod graph;
pub mod library;
pub mod merged;
pub mod pprof;
pub mod program;
pub mod raw;
mod signals;
pub mod symbols;
pub mod table;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::build::{self, Settings};
use crate::error::{At, Error, Kind, Result};
use crate::library::Beside;
use crate::needs;
use crate::progress;
use crate::project::{self, Project};
use graph::What;
use merged::{Files, Profile};
use program::Program;
use raw::Raw;

/// What is to be profiled, and how.
pub struct Request {
    /// Bytes between samples, in the mean.
    pub mean: u64,
    /// The directory to write.
    pub dest: Option<PathBuf>,
    /// One result for each process, not one for all.
    pub each: bool,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Frames of a picture that are narrower, in percent of all, are left out.
const LEAST: f64 = 0.1;

/// Runs the program and writes its profile. Gives the exit code that a shell would, also where the
/// program failed and left no profile.
///
/// # Errors
/// When the program is none that can be profiled, the library does not build, the program succeeded
/// and left no profile, or the results cannot be written.
pub fn run(project: &Project, settings: &Settings, request: &Request) -> Result<u8> {
    let [name, arguments @ ..] = &request.command[..] else {
        return Err(Error::new(Kind::Usage, "no program is named"));
    };
    let program = Program::find(name)?;
    let short = program.path.file_name().unwrap_or_default().to_owned();
    let usual = Path::new("profile").join(&short);
    let dest = project.dest(request.dest.as_deref(), &usual)?;
    let library = library(project, settings, &program)?;
    let temp = project::temp_beside(&dest)?;
    let written = temp.path().join("raw");
    fs::create_dir(&written).at("making directory", &written)?;
    let mut command = Command::new(&program.path);
    command.arg0(name).args(arguments);
    let status = start(&mut command, &library, &written, request.mean)?;
    let all = read(&written)?;
    if all.is_empty() {
        let why = no_profile(&program, status);
        if status.success() {
            return Err(why);
        }
        // Whoever runs it asks first how the program ended.
        progress::failure(&why);
        return Ok(code(status));
    }
    let made = temp.path().join("made");
    let mut modules = Files::new();
    let profile = Profile::of(&all, &mut modules);
    if request.each {
        each(&all, &mut modules, &made)?;
    } else {
        files(&profile, &short.to_string_lossy(), &made)?;
    }
    project::replace_dir(&made, &dest)?;
    project.mark(&dest)?;
    let mut text = told(&all, &profile, &short, status);
    if !program.is_walkable {
        text +=
            "  nobody can walk through its stack frames: link it with -Wl,--eh-frame-hdr, which \
            musl-gcc does not by itself, to see callers\n";
    }
    text += &format!("  written to {}", dest.display());
    // stdout is the program's, and stderr may be a terminal that is gone.
    progress::tell(&text);
    Ok(code(status))
}

/// The library for the program's libc. Built apart from what `byssal build` makes: that may be of
/// another preset, and is replaced as a whole.
fn library(project: &Project, settings: &Settings, program: &Program) -> Result<PathBuf> {
    needs::programs(project, &["cargo", "rustc"])?;
    let name = format!("profile/{}", settings.preset.name());
    let out = project.out.join("build").join(name);
    let own = Project {
        out: out.clone(),
        made: out.clone(),
        ..project.clone()
    };
    let _lock = project.lock()?;
    let library = if program.is_musl {
        let built = build::build(&project.clone().staged(), settings)?;
        let beside = Beside::musl(&built, out.join("musl"));
        library::build(&own, settings, &built.compiler, &beside)?
    } else {
        let compiler = settings.compiler()?;
        let beside = Beside::host(&compiler, out.join("host"));
        library::build(&own, settings, &compiler, &beside)?
    };
    if library
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|b| b" :".contains(b))
    {
        let what = format!("LD_PRELOAD cannot hold the path {}", library.display());
        let remedy = "give --out DIR, a directory without spaces and colons in its path";
        return Err(Error::new(Kind::Usage, what).remedy(remedy));
    }
    Ok(library)
}

/// Runs the program with the library to its end.
fn start(command: &mut Command, library: &Path, to: &Path, mean: u64) -> Result<ExitStatus> {
    let mut preload = library.as_os_str().to_owned();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command
        .env("LD_PRELOAD", preload)
        .env("BYSSAL_PROFILE", to.join(""))
        .env("BYSSAL_PROFILE_MEAN", mean.to_string());
    signals::run(command)
}

/// The profiles in a directory, by the process, and those of the programs that one process was in
/// their order.
fn read(dir: &Path) -> Result<Vec<Raw>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).at("reading directory", dir)? {
        let path = entry.at("reading directory", dir)?.path();
        if path.extension() == Some(OsStr::new("heap")) {
            paths.push(path);
        }
    }
    // The names end in the time at which the program began, without zeros before it.
    paths.sort_by_cached_key(|path| (path.as_os_str().len(), path.clone()));
    let read = paths.iter().map(|path| Raw::read(path));
    let mut all = read.collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|raw| raw.process);
    Ok(all)
}

fn no_profile(program: &Program, status: ExitStatus) -> Error {
    let what = format!(
        "{} ended with {status}, and left no profile",
        program.path.display()
    );
    Error::new(Kind::System, what).remedy(
        "it ran for less than a quarter of a second and was killed, or became another program, \
         or may not write in the directory of --dest: give it one that it may, and more time",
    )
}

/// Writes the results of each process into a directory of its own in `made`. A process that became
/// the same program anew has several, the later ones with a number.
fn each(all: &[Raw], modules: &mut Files, made: &Path) -> Result<()> {
    for raw in all {
        let program = raw.program.file_name().unwrap_or_default();
        let name = program.to_string_lossy();
        let own = format!("{}-{name}", raw.process);
        let mut dir = made.join(&own);
        let mut number = 1;
        while dir.exists() {
            number += 1;
            dir = made.join(format!("{own}-{number}"));
        }
        let profile = Profile::of(std::slice::from_ref(raw), modules);
        files(&profile, &name, &dir)?;
    }
    Ok(())
}

/// Writes one result into the new directory `dir`.
fn files(profile: &Profile, name: &str, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).at("making directory", dir)?;
    let write = |file: &str, bytes: &[u8]| {
        let path = dir.join(file);
        fs::write(&path, bytes).at("writing", &path)
    };
    write("heap.pb.gz", &pprof::file(profile))?;
    for (what, file) in [(What::Live, "live"), (What::All, "all")] {
        let lines = graph::folded(profile, what);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        write(&format!("{file}.folded"), text.as_bytes())?;
        let svg = graph::svg(&lines, what, name, LEAST)?;
        write(&format!("{file}.svg"), &svg)?;
    }
    Ok(())
}

/// What was found, for a terminal.
fn told(all: &[Raw], profile: &Profile, name: &OsStr, status: ExitStatus) -> String {
    let mut text = format!(
        "byssal profile: {}: {status}; {} process{}, {:.2} s, {} samples, one each {}\n",
        name.to_string_lossy(),
        all.len(),
        if all.len() == 1 { "" } else { "es" },
        profile.nanoseconds as f64 / 1e9,
        profile.samples,
        progress::bytes(profile.mean as f64),
    );
    text += &table::text(profile);
    if profile.samples == 0 {
        text += "  no sample: it allocates less than that, or has a malloc of its own\n";
    }
    for raw in all {
        text += &flaws(raw);
    }
    text
}

/// What a profile does not hold.
fn flaws(raw: &Raw) -> String {
    let mut text = String::new();
    let who = format!("process {} ({})", raw.process, raw.program.display());
    if !raw.is_final {
        text += &format!(
            "  {who} was killed or became another program: \
                its profile is of {:.2} s after its start\n",
            raw.nanoseconds as f64 / 1e9
        );
    }
    if raw.without_stack > 0 {
        text += &format!(
            "  {who}: {} samples had no room for a stack\n",
            raw.without_stack
        );
    }
    if raw.forgotten > 0 {
        text += &format!(
            "  {who}: {} samples had no room among the live ones: give a greater --mean\n",
            raw.forgotten
        );
    }
    text
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
