//! The ways byssal reaches a program: how each compiles a C source and starts the result.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::catalogue::{Expect, Link, Program};
use crate::execute::{self, Finished};
use crate::Outcome;

/// One way to put byssal under a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The produced toolchain, `-static`.
    MuslStatic,
    /// The produced toolchain, its libc.so as the loader.
    MuslDynamic,
    /// The produced toolchain, its musl build of libbyssal.so by LD_PRELOAD.
    MuslPreload,
    /// The produced toolchain, `-static`, its musl build of libbyssal.a.
    MuslArchive,
    /// The host's compiler and libc, LD_PRELOAD.
    Preload,
    /// The host's compiler and libc.so, libbyssal.a linked into the program.
    Archive,
    /// The host's compiler, everything static: libbyssal.a before the host's libc.a.
    HostStatic,
    /// The host alone, for the tests of the tests.
    Plain,
}

pub const MUSL: &[Mode] = &[Mode::MuslStatic, Mode::MuslDynamic];
pub const LIBRARY: &[Mode] = &[
    Mode::Preload,
    Mode::Archive,
    Mode::HostStatic,
    Mode::MuslPreload,
    Mode::MuslArchive,
];
pub const ALL: &[Mode] = &[
    Mode::MuslStatic,
    Mode::MuslDynamic,
    Mode::Preload,
    Mode::Archive,
    Mode::HostStatic,
    Mode::MuslPreload,
    Mode::MuslArchive,
];

const REMEDY: &str = "run `make` first (or point BYSSAL_TOOLCHAIN and BYSSAL_LIB at a build)";

/// Flags of every program: builtins off, because compilers elide malloc and free pairs.
const FLAGS: &[&str] = &["-fno-builtin", "-O1", "-g", "-Wall", "-Wextra", "-pthread"];

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::MuslStatic => "musl-static",
            Mode::MuslDynamic => "musl-dynamic",
            Mode::MuslPreload => "musl-preload",
            Mode::MuslArchive => "musl-archive",
            Mode::Preload => "preload",
            Mode::Archive => "archive",
            Mode::HostStatic => "host-static",
            Mode::Plain => "plain",
        }
    }

    pub fn is_static(self) -> bool {
        matches!(
            self,
            Mode::MuslStatic | Mode::MuslArchive | Mode::HostStatic
        )
    }

    pub fn is_musl(self) -> bool {
        use Mode::{MuslArchive, MuslDynamic, MuslPreload, MuslStatic};
        matches!(self, MuslStatic | MuslDynamic | MuslPreload | MuslArchive)
    }

    /// The library that brings byssal into the program, if it is not libc itself.
    fn library(self) -> Option<PathBuf> {
        let name = match self {
            Mode::MuslStatic | Mode::MuslDynamic | Mode::Plain => return None,
            Mode::MuslPreload | Mode::Preload => "libbyssal.so",
            Mode::MuslArchive | Mode::Archive | Mode::HostStatic => "libbyssal.a",
        };
        Some(self.libraries().join(name))
    }

    /// Where the libraries for the mode's libc are, whether it uses them or not.
    fn libraries(self) -> PathBuf {
        if self.is_musl() {
            toolchain().join("lib")
        } else {
            libraries()
        }
    }

    /// The compiler, or what is missing and the remedy.
    pub fn compiler(self, cxx: bool) -> Result<OsString, String> {
        if !self.is_musl() {
            let (variable, default) = if cxx { ("CXX", "g++") } else { ("CC", "gcc") };
            return Ok(std::env::var_os(variable).unwrap_or_else(|| default.into()));
        }
        present(toolchain().join("bin/musl-gcc")).map(PathBuf::into_os_string)
    }

    /// Macros that tell a program where it runs.
    fn defines(self) -> &'static [&'static str] {
        match self {
            Mode::MuslStatic => &["-DON_MUSL", "-DON_STATIC"],
            Mode::MuslDynamic => &["-DON_MUSL"],
            Mode::Preload | Mode::MuslPreload | Mode::Plain => &["-DON_LIBRARY", "-DON_PRELOAD"],
            Mode::Archive => &["-DON_LIBRARY"],
            Mode::HostStatic | Mode::MuslArchive => &["-DON_LIBRARY", "-DON_STATIC"],
        }
    }
}

/// Workspace root: the folder above this package.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The toolchain's prefix.
pub fn toolchain() -> PathBuf {
    std::env::var_os("BYSSAL_TOOLCHAIN")
        .map_or_else(|| root().join("out/musl-1.2.6"), |path| root().join(path))
}

/// Where libbyssal.so and libbyssal.a are.
pub fn libraries() -> PathBuf {
    std::env::var_os("BYSSAL_LIB").map_or_else(|| root().join("out/lib"), |path| root().join(path))
}

/// Emulators of machines with 32 bits.
const NARROW: &[&str] = &[
    "qemu-arm",
    "qemu-mips",
    "qemu-mipsel",
    "qemu-ppc",
    "qemu-riscv32",
];

/// What runs the programs of a toolchain for another machine.
fn emulator() -> Option<PathBuf> {
    std::env::var_os("BYSSAL_EMULATOR").map(PathBuf::from)
}

/// What runs the programs of a toolchain for another machine on a system of that machine.
fn guest() -> Option<PathBuf> {
    std::env::var_os("BYSSAL_GUEST").map(PathBuf::from)
}

/// The path itself when it exists, else a text with the remedy.
pub fn present(path: PathBuf) -> Result<PathBuf, String> {
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: {REMEDY}", path.display()))
    }
}

/// Is there a program of this name on the search path?
pub fn on_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Compiles and runs one program in one mode.
pub fn test(program: &Program, mode: Mode) -> Outcome {
    match try_test(program, mode) {
        Ok(outcome) => outcome,
        Err(report) => Outcome::Failed(report),
    }
}

fn try_test(program: &Program, mode: Mode) -> Result<Outcome, String> {
    if program.is_cxx() && !on_path("g++") && std::env::var_os("CXX").is_none() {
        return Ok(Outcome::Skipped("no C++ compiler (g++)".into()));
    }
    if program.is_alone() && emulator().is_some() {
        return Ok(Outcome::Skipped(
            "it looks at the memory of its process, which is the emulator's, too".into(),
        ));
    }
    if program.does_remap() && emulator().is_some_and(|e| NARROW.iter().any(|n| e.ends_with(n))) {
        return Ok(Outcome::Skipped(
            "qemu for 32 bits loses a mapping that it refuses to move".into(),
        ));
    }
    if mode == Mode::HostStatic && !host_has_static_libc() {
        return Ok(Outcome::Skipped(
            "the host has no static libc (libc.a)".into(),
        ));
    }
    if let (true, Some(library)) = (mode.is_musl(), mode.library()) {
        // The toolchain is the product; its libraries are an extra of some builds.
        if toolchain().exists() && !library.exists() {
            return Ok(Outcome::Skipped(format!(
                "this build has no {}",
                library.display()
            )));
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(mode.name())
        .join(program.name().replace('/', "_"));
    let built = build_in(program, mode, folder)?;
    let mut skipped = None;
    for arguments in program.runs() {
        let command = start(&built, mode, arguments)?;
        let shown = format!("{command:?}");
        match run_and_judge(program, command, program.limit())? {
            Outcome::Passed => {}
            Outcome::Skipped(why) => skipped = Some(why),
            Outcome::Failed(report) => {
                return Err(format!(
                    "{report}\nrun: {shown}\nbuilt by: {}",
                    built.commands.join("\n  ")
                ));
            }
        }
    }
    Ok(skipped.map_or(Outcome::Passed, Outcome::Skipped))
}

/// Runs a command of this program for at most `limit` seconds.
///
/// # Errors
/// The text says what could not be started.
pub fn run_and_judge(program: &Program, command: Command, limit: u64) -> Result<Outcome, String> {
    let finished = execute::run(command, Duration::from_secs(limit))?;
    // How qemu says that it failed itself.
    if emulator().is_some() && finished.stderr.contains("ERROR:../") {
        return Ok(Outcome::Skipped("the emulator failed by itself".into()));
    }
    let outcome = judge(program, &finished);
    if program.is_told() && matches!(outcome, Outcome::Passed) {
        print!("{}", finished.stdout);
    }
    Ok(outcome)
}

/// Does the ending of a run match what the program must end in?
fn judge(program: &Program, finished: &Finished) -> Outcome {
    let said = |text: &str| finished.stdout.contains(text);
    let warned = finished.stderr.contains("cannot be preloaded");
    match program.expect() {
        Expect::Success if finished.code() == Some(77) => Outcome::Skipped(
            finished
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix("skipped: "))
                .unwrap_or("no reason given")
                .to_owned(),
        ),
        Expect::Success if finished.code() == Some(0) && !warned => match program.must_say() {
            Some(text) if !said(text) => Outcome::Failed(format!(
                "ended well without printing \"{text}\"\n{}",
                finished.describe()
            )),
            _ => Outcome::Passed,
        },
        Expect::Trap => {
            let trapped = finished.signal().is_some_and(|signal| {
                [libc::SIGILL, libc::SIGTRAP, libc::SIGSEGV, libc::SIGABRT].contains(&signal)
            });
            // Where the trap tells its number (misuse.h), it must be the right one.
            let number = finished
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix("fault "));
            let right = number.is_none_or(|number| {
                number
                    .parse()
                    .is_ok_and(|number| program.faults().contains(&number))
            });
            match (said("armed"), trapped) {
                (true, true) if right => Outcome::Passed,
                (true, true) => Outcome::Failed(format!(
                    "trapped as another fault than {:?}\n{}",
                    program.faults(),
                    finished.describe()
                )),
                (false, _) => Outcome::Failed(format!(
                    "ended before its misuse (nothing said \"armed\")\n{}",
                    finished.describe()
                )),
                (true, false) => Outcome::Failed(format!(
                    "the misuse was not caught\n{}",
                    finished.describe()
                )),
            }
        }
        Expect::Success => Outcome::Failed(finished.describe()),
    }
}

/// A program ready to run.
pub struct Built {
    path: PathBuf,
    folder: PathBuf,
    commands: Vec<String>,
}

/// Compiles a program and its shared objects into a folder of its own.
///
/// # Errors
/// What is missing with the remedy, or the compiler's messages.
pub fn build_in(program: &Program, mode: Mode, folder: PathBuf) -> Result<Built, String> {
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut built = Built {
        path: folder.join("program"),
        folder,
        commands: Vec::new(),
    };
    let mut linked = Vec::new();
    for companion in program.companions() {
        if mode.is_static() {
            continue;
        }
        let library = built.folder.join(format!("lib{}.so", companion.name));
        let mut command = Command::new(mode.compiler(false)?);
        command
            .args(FLAGS)
            .args(mode.defines())
            .args(["-shared", "-fPIC"]);
        command.args(companion.flags);
        command.arg(sources.join("programs").join(companion.source));
        if companion.archive {
            command.arg(present(mode.libraries().join("libbyssal.a"))?);
        }
        compile(command, &library, &mut built.commands)?;
        if companion.link == Link::WithProgram {
            linked.push(library);
        }
    }
    let mut command = Command::new(mode.compiler(program.is_cxx())?);
    command
        .args(FLAGS)
        .args(mode.defines())
        .args(program.flags());
    let loadable = mode.libraries().join("libbyssal.so");
    command.arg(format!("-DLIBBYSSAL=\"{}\"", loadable.display()));
    if mode.is_static() {
        command.arg("-static");
    }
    command.arg(sources.join(program.source())).args(&linked);
    if !linked.is_empty() {
        command.arg("-Wl,-rpath,$ORIGIN");
    }
    if let Some(library) = mode.library() {
        let library = present(library)?;
        if library
            .extension()
            .is_some_and(|extension| extension == "a")
        {
            command.arg(library);
        }
    }
    if !mode.is_musl() {
        command.arg("-ldl");
    }
    let path = built.path.clone();
    compile(command, &path, &mut built.commands)?;
    Ok(built)
}

/// Runs a compiler; the result appears under its name only when complete, so that runs side by
/// side do not disturb each other.
///
/// # Errors
/// The command and the compiler's messages.
pub fn compile(mut command: Command, to: &Path, log: &mut Vec<String>) -> Result<(), String> {
    let part = to.with_extension(format!("part{}", std::process::id()));
    command.arg("-o").arg(&part);
    log.push(format!("{command:?}"));
    let finished = execute::run(command, Duration::from_secs(120))?;
    if finished.code() != Some(0) {
        let command = log.last().cloned().unwrap_or_default();
        return Err(format!(
            "compilation failed: {command}\n{}",
            finished.describe()
        ));
    }
    fs::rename(&part, to).map_err(|e| format!("{}: {e}", to.display()))
}

/// The command that starts a built program.
///
/// # Errors
/// What is missing, with the remedy.
pub fn start(built: &Built, mode: Mode, arguments: &[&str]) -> Result<Command, String> {
    let mut words = Vec::from_iter(guest().or_else(emulator));
    if matches!(mode, Mode::MuslDynamic | Mode::MuslPreload) {
        let loader = present(toolchain().join("lib/libc.so"))?;
        if !interpreter_is(&built.path, &loader) {
            words.push(loader);
        }
    }
    words.push(built.path.clone());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // What the tester's own environment sets for another allocator must not steer ours.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MALLOC_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("LD_PRELOAD")
        .env_remove("GLIBC_TUNABLES");
    if matches!(mode, Mode::Preload | Mode::MuslPreload) {
        command.env("LD_PRELOAD", present(mode.library().unwrap_or_default())?);
    }
    command.args(arguments).current_dir(&built.folder);
    Ok(command)
}

/// Does the program name `loader` (after links) as its interpreter? A toolchain that is not
/// installed may name a path where another musl lives, or none.
fn interpreter_is(program: &Path, loader: &Path) -> bool {
    let Ok(output) = Command::new("readelf").arg("-lW").arg(program).output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = text
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("[Requesting program interpreter: ")
        })
        .map(|rest| rest.trim_end_matches(']'));
    match (named.map(fs::canonicalize), fs::canonicalize(loader)) {
        (Some(Ok(named)), Ok(loader)) => named == loader,
        _ => false,
    }
}

/// Can the host link `-static` at all?
fn host_has_static_libc() -> bool {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "gcc".into());
    // The compiler answers with the bare name when it does not find the file.
    Command::new(compiler)
        .arg("-print-file-name=libc.a")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"/"))
}
