//! Runs other programs: output to a log file whose name is told when they fail.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{At, Error, Kind, Result};

/// Lines of a log that are shown with a failure.
const SHOWN: usize = 15;

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
    let status = cmd
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
    let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n    ");
    Err(Error::new(
        Kind::Step,
        format!("{} ended with {status}:\n    {tail}", shown(cmd)),
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
    let out = cmd
        .stdin(Stdio::null())
        .output()
        .map_err(|e| cannot_start(cmd, &e))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&out.stderr);
    Err(Error::new(
        Kind::Step,
        format!(
            "{} ended with {}:\n    {}",
            shown(cmd),
            out.status,
            error.trim()
        ),
    ))
}

/// Whether a program of that name is in `PATH` (or is a path that exists).
pub fn exists(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
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

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
