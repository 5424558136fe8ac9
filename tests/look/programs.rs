//! C programs with byssal inside: compiled, started, looked after.

use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How byssal gets into a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Preload,
    Archive,
    Static,
    Dynamic,
    HardenedPreload,
    HardenedStatic,
}

pub const MODES: [Mode; 6] = [
    Mode::Preload,
    Mode::Archive,
    Mode::Static,
    Mode::Dynamic,
    Mode::HardenedPreload,
    Mode::HardenedStatic,
];

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Preload => "preload",
            Mode::Archive => "archive",
            Mode::Static => "musl-static",
            Mode::Dynamic => "musl-dynamic",
            Mode::HardenedPreload => "hardened preload",
            Mode::HardenedStatic => "hardened musl-static",
        }
    }

    /// Whether the program has `byssal_dump_heap`.
    pub fn has_dump(self) -> bool {
        !self.is_musl()
    }

    pub fn is_musl(self) -> bool {
        matches!(self, Mode::Static | Mode::Dynamic | Mode::HardenedStatic)
    }

    fn is_hardened(self) -> bool {
        matches!(self, Mode::HardenedPreload | Mode::HardenedStatic)
    }
}

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn given(variable: &str, default: &str) -> PathBuf {
    root().join(env::var_os(variable).unwrap_or_else(|| default.into()))
}

fn toolchain(mode: Mode) -> PathBuf {
    if mode.is_hardened() {
        given("BYSSAL_HARDENED", "out/hardened/musl-1.2.6")
    } else {
        given("BYSSAL_TOOLCHAIN", "out/musl-1.2.6")
    }
}

fn library(mode: Mode, name: &str) -> PathBuf {
    if mode.is_hardened() {
        // Beside the toolchain of that preset.
        toolchain(mode).join("../lib").join(name)
    } else {
        given("BYSSAL_LIB", "out/lib").join(name)
    }
}

/// A program, and a folder that goes with it.
pub struct Built {
    pub folder: TempDir,
    program: PathBuf,
    preload: Option<PathBuf>,
    emulator: Option<PathBuf>,
}

/// A static program of the toolchain that the environment names, and of its machine. Err says that
/// there is none.
pub fn of_machine(name: &str) -> Result<Built, String> {
    env::var_os("BYSSAL_TOOLCHAIN").ok_or("BYSSAL_TOOLCHAIN names no toolchain")?;
    let emulator = env::var_os("BYSSAL_EMULATOR").map(PathBuf::from);
    compiled(name, Mode::Static).map(|built| Built { emulator, ..built })
}

/// Compiles a source beside this one, stripped: nothing may be found by debug information. Err says
/// what is not built here.
pub fn compiled(name: &str, mode: Mode) -> Result<Built, String> {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("tests/look").join(format!("{name}.c"));
    let program = folder.path().join("program");
    let compiler = if mode.is_musl() {
        toolchain(mode).join("bin/musl-gcc")
    } else {
        PathBuf::from("gcc")
    };
    let mut command = Command::new(&compiler);
    command.args([
        "-O1",
        "-fno-builtin",
        "-pthread",
        "-D_GNU_SOURCE",
        "-s",
        "-o",
    ]);
    command.arg(&program).arg(&source);
    let mut preload = None;
    let mut needed = vec![];
    match mode {
        Mode::Preload | Mode::HardenedPreload => {
            preload = Some(library(mode, "libbyssal.so"));
            needed.extend(preload.clone());
        }
        Mode::Archive => {
            command.arg(library(mode, "libbyssal.a"));
            needed.push(library(mode, "libbyssal.a"));
        }
        Mode::Static | Mode::HardenedStatic => _ = command.arg("-static"),
        Mode::Dynamic => {}
    }
    if mode.is_musl() {
        needed.push(compiler);
    }
    if let Some(missing) = needed.iter().find(|path| !path.exists()) {
        return Err(format!("{} is not there; run `make`", missing.display()));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    Ok(Built {
        folder,
        program,
        preload,
        emulator: None,
    })
}

impl Built {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.emulator.as_ref().unwrap_or(&self.program));
        if self.emulator.is_some() {
            command.arg(&self.program);
        }
        command.args(arguments).current_dir(self.folder.path());
        match &self.preload {
            Some(library) => command.env("LD_PRELOAD", library),
            None => command.env_remove("LD_PRELOAD"),
        };
        command
    }
}

/// A program that has said that it is ready. It ends with this value.
pub struct Running {
    child: Child,
    said: String,
}

impl Running {
    pub fn start(built: &Built, arguments: &[&str]) -> Self {
        let mut command = built.command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let out = child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while !said.ends_with('\n') {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended early: {said:?}");
            said.push(char::from(byte[0]));
        }
        assert!(said.starts_with("ready"), "{said:?}");
        Running { child, said }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its number, for the tool.
    pub fn name(&self) -> String {
        self.child.id().to_string()
    }

    /// The numbers that it told.
    pub fn numbers(&self) -> Vec<u64> {
        let words = self.said.split_whitespace().skip(1);
        words.map(|word| word.parse().unwrap()).collect()
    }

    /// The letter of its state.
    fn state(&self) -> char {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let state = text
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim_start().chars().next());
        state.unwrap_or('X')
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state(), 'R' | 'S' | 'D')
    }

    /// Waits until its state is this one.
    pub fn wait_for(&self, state: char) {
        let begin = Instant::now();
        while self.state() != state {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{}, not {state}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Who traces its threads: "0" for each that nobody does.
    pub fn tracers(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
        let tracer = |status: String| {
            let word = status.split("TracerPid:").nth(1)?.split_whitespace().next();
            word.map(str::to_owned)
        };
        let tasks = tasks.map(|task| task.unwrap());
        tasks.filter_map(|task| tracer(status(task))).collect()
    }

    /// Numbers of its children.
    pub fn children(&self) -> Vec<i32> {
        let list = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = fs::read_to_string(list).unwrap_or_default();
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Err with the reason why a program that ends by a signal leaves no core in its folder.
pub fn cores() -> Result<(), String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    if pattern.is_empty() || pattern.starts_with('|') || pattern.contains(['/', '%']) {
        return Err(format!(
            "the kernel's core_pattern is {pattern:?}, not a plain name"
        ));
    }
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a variable of our own.
    unsafe { libc::getrlimit(libc::RLIMIT_CORE, &mut limit) };
    if limit.rlim_max != libc::RLIM_INFINITY {
        return Err(format!("cores are limited to {} bytes", limit.rlim_max));
    }
    Ok(())
}

/// Runs a program that ends by a signal: what it printed, and its core.
pub fn core_of(built: &Built, arguments: &[&str]) -> (String, PathBuf) {
    let (printed, core) = core_if_any(built, arguments);
    (
        printed,
        core.unwrap_or_else(|| panic!("{arguments:?}: no core")),
    )
}

/// Runs a program that may end by a signal: what it printed, and its core if it did.
pub fn core_if_any(built: &Built, arguments: &[&str]) -> (String, Option<PathBuf>) {
    let core = || {
        let entries = fs::read_dir(built.folder.path()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
        // An emulator writes that of its program, and its own is written by the kernel as ever.
        let is_core = |path: &PathBuf| match &built.emulator {
            Some(_) => path.extension().is_some_and(|end| end == "core"),
            None => path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("core")),
        };
        entries.map(name).find(is_core)
    };
    while let Some(old) = core() {
        fs::remove_file(old).unwrap();
    }
    let mut command = built.command(arguments);
    // SAFETY: only a system call, in the child before it becomes the program.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: libc::RLIM_INFINITY,
                rlim_max: libc::RLIM_INFINITY,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &limit);
            Ok(())
        });
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let core = core().filter(|_| built.emulator.is_some() || output.status.core_dumped());
    (String::from_utf8_lossy(&output.stdout).into_owned(), core)
}

/// The tool: beside the tests' own programs, in the same profile.
fn tool_path() -> PathBuf {
    let own = env::current_exe().unwrap();
    let path = own.parent().unwrap().join("../byssal");
    assert!(
        path.exists(),
        "{} is not there; run `cargo build -p byssal-tool`",
        path.display()
    );
    path
}

/// Runs the tool: exit code and what it printed.
pub fn tool(arguments: &[&str]) -> (i32, String) {
    outcome(Command::new(tool_path()).args(arguments))
}

/// The same, as a user without rights. A copy, as that user may not reach the checkout; by another
/// process, as a file that this one writes may be held open by a child that another test starts.
pub fn tool_as_nobody(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("byssal");
    let copied = Command::new("cp").arg(tool_path()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), all).unwrap();
    outcome(
        Command::new(&copy)
            .args(arguments)
            .uid(65534)
            .gid(65534)
            .current_dir("/"),
    )
}

fn outcome(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// Each of the words stands in the text.
pub fn refuse(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}
