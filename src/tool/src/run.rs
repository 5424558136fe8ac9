//! Runs other programs: output to a log file whose name is told when they fail.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{At, Error, Kind, Result};

/// Lines of a log that are shown with a failure, and characters of each.
const SHOWN: usize = 15;
const WIDTH: usize = 300;

/// What programs would take from the caller's environment and do something else than here: make and
/// what its user set for it, compilers and their searches, the shell, packers, what is loaded into
/// each program. Flags for a build of the user's own are among them.
const NOT_INHERITED: [&str; 62] = [
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "GNUMAKEFLAGS",
    "MAKEFILES",
    "PREFIX",
    "DESTDIR",
    "CC",
    "CXX",
    "CPP",
    "AR",
    "AS",
    "LD",
    "NM",
    "RANLIB",
    "OBJCOPY",
    "STRIP",
    "ARFLAGS",
    "HOST_CC",
    "TARGET_CC",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "ASFLAGS",
    "LDLIBS",
    "HOST_CFLAGS",
    "TARGET_CFLAGS",
    "LIBCC",
    "CROSS_COMPILE",
    "REALGCC",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "LIBRARY_PATH",
    "LD_RUN_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "SUNPRO_DEPENDENCIES",
    "GCC_COMPARE_DEBUG",
    "CCC_OVERRIDE_OPTIONS",
    "LDEMULATION",
    "GNUTARGET",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_INCREMENTAL",
    "CARGO_BUILD_INCREMENTAL",
    "LD_PRELOAD",
    "LD_AUDIT",
    "CDPATH",
    "ENV",
    "BASH_ENV",
    "POSIXLY_CORRECT",
    "GREP_OPTIONS",
    "TAR_OPTIONS",
    "XZ_OPT",
    "XZ_DEFAULTS",
];
/// The same of all names that begin so.
const NOR_BEGINNING: [&str; 4] = ["CARGO_PROFILE_", "CFLAGS_", "CC_", "AR_"];

/// Takes out of the command's environment what the caller did not set for it by name, and has it
/// speak the language that its output is read in.
pub fn neutral(cmd: &mut Command) -> &mut Command {
    let gone = |name: &OsStr| {
        let name = name.to_string_lossy();
        NOT_INHERITED.contains(&&*name) || NOR_BEGINNING.iter().any(|b| name.starts_with(b))
    };
    let set: Vec<_> = cmd.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        if gone(&name) && !set.contains(&name) {
            cmd.env_remove(name);
        }
    }
    if !set.iter().any(|name| name == "LC_ALL") {
        cmd.env("LC_ALL", "C");
    }
    cmd
}

/// Flags for compilers in the environment that are not used, for a word about it.
pub fn unused_flags() -> Vec<&'static str> {
    let names = ["CFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "LIBRARY_PATH"];
    let set = |name: &&str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    names.into_iter().filter(set).collect()
}

/// Fit for a terminal: a file name or what a program said may hold control characters.
pub fn printable(text: &str) -> String {
    let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars()
        .map(|c| if plain(c) { c } else { '?' })
        .collect()
}

/// Lines that a program said, for the middle of a message: indented, and no line without end.
fn excerpt<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for line in lines {
        out += "\n    ";
        out.extend(line.chars().take(WIDTH));
        if line.chars().nth(WIDTH).is_some() {
            out += " ...";
        }
    }
    out
}

/// Runs `cmd` with its output appended to `log`.
///
/// # Errors
/// `Step` when it cannot be started or exits with a failure; tells the end of the log.
pub fn logged(cmd: &mut Command, log: &Path) -> Result<()> {
    let parent = log.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).at("making directory", parent)?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .at("opening", log)?;
    writeln!(file, "+ {}", shown(cmd)).at("writing", log)?;
    let to_stderr = file.try_clone().at("opening", log)?;
    let status = neutral(cmd)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(to_stderr)
        .status();
    let status = status.map_err(|e| cannot_start(cmd, &e))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = excerpt(lines[lines.len().saturating_sub(SHOWN)..].iter().copied());
    Err(Error::new(
        Kind::Step,
        format!("{} ended with {status}:{tail}", shown(cmd)),
    )
    .remedy(format!("the whole output is in {}", log.display())))
}

/// Starts a log anew, so that it tells of this run only.
///
/// # Errors
/// When the file cannot be written.
pub fn fresh_log(log: &Path) -> Result<()> {
    crate::project::write_file(log, b"")
}

/// Runs `cmd` and gives what it printed on standard output.
///
/// # Errors
/// `Step` when it cannot be started or exits with a failure; tells its standard error.
pub fn output(cmd: &mut Command) -> Result<String> {
    let out = neutral(cmd)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| cannot_start(cmd, &e))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&out.stderr);
    let error = excerpt(error.trim().lines());
    Err(Error::new(
        Kind::Step,
        format!("{} ended with {}:{error}", shown(cmd), out.status),
    ))
}

/// Runs `cmd`; when it fails, what it said last is all that is told of it.
///
/// # Errors
/// `Source` when it cannot be started or exits with a failure.
pub fn last_word(cmd: &mut Command) -> Result<String> {
    let program = cmd.get_program().to_string_lossy().into_owned();
    output(cmd).map_err(|e| {
        let last = e.what.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("");
        Error::new(Kind::Source, format!("{program}: {}", last.trim()))
    })
}

/// Whether a program of that name is in `PATH` (or is a path that exists).
pub fn exists(program: &str) -> bool {
    found(program).is_some()
}

/// The file of a program: the first of that name in `PATH`, or the path that it is.
pub fn found(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let files = std::env::split_paths(&path).map(|dir| dir.join(program));
    files.into_iter().find(|file| file.is_file())
}

fn cannot_start(cmd: &Command, e: &std::io::Error) -> Error {
    let program = cmd.get_program().to_string_lossy();
    Error::new(Kind::Missing, format!("cannot run {program}: {e}"))
        .remedy(format!("install {program}, or put it in PATH"))
}

/// A command as a person would type it.
pub fn shown(cmd: &Command) -> String {
    let words = std::iter::once(cmd.get_program()).chain(cmd.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// A word as a shell would take it.
pub fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
