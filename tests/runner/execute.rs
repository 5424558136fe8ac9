//! Runs a child under a time limit; when it hangs, shows where, then kills it.
//!
//! Output goes to files, not pipes: a forked grandchild that survives must not keep the runner
//! waiting. The child leads a process group, so that the whole family can be looked at and ended.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a child ended and what it printed.
pub struct Finished {
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
    /// Stacks of all processes of the group, when the time limit struck.
    pub hang: Option<String>,
    pub peak_note: String,
}

impl Finished {
    /// Exit code, unless the child was killed by a signal or hung.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The signal that ended the child.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    /// One paragraph for a failure report.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        match (self.status, &self.hang) {
            (_, Some(stacks)) => {
                let _ = writeln!(text, "hung ({}); stacks:\n{stacks}", self.peak_note);
            }
            (Some(status), None) => {
                let _ = writeln!(text, "ended with {status} ({})", self.peak_note);
            }
            (None, None) => text.push_str("did not start\n"),
        }
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !output.trim().is_empty() {
                let _ = writeln!(text, "--- {name}\n{}", tail(output, 4000));
            }
        }
        text
    }
}

/// The last `most` bytes of a text, cut at a character.
fn tail(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// Time limits are multiplied by this, for slow machines and emulators.
fn limit_scale() -> u32 {
    std::env::var("BYSSAL_LIMIT_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// Runs `command` for at most `limit`.
///
/// # Errors
/// The text says what could not be started or read.
pub fn run(mut command: Command, limit: Duration) -> Result<Finished, String> {
    let limit = limit * limit_scale();
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let create = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
    command
        // A program that sees its child hang then leaves the stacks to us.
        .env("BYSSAL_RUNNER", "1")
        .stdin(Stdio::null())
        .stdout(create(&out)?)
        .stderr(create(&err)?)
        .process_group(0);
    let start = Instant::now();
    let mut child = command.spawn().map_err(|e| {
        format!(
            "cannot start {}: {e}",
            command.get_program().to_string_lossy()
        )
    })?;
    let group = child.id();
    let mut status = None;
    while status.is_none() && start.elapsed() < limit {
        status = child.try_wait().map_err(|e| format!("wait: {e}"))?;
        if status.is_none() {
            // Short programs are answered quickly, long ones are not polled to death.
            let pause =
                (start.elapsed() / 20).clamp(Duration::from_micros(500), Duration::from_millis(20));
            std::thread::sleep(pause);
        }
    }
    let elapsed = start.elapsed();
    let hang = status.is_none().then(|| stacks_of_group(group));
    end_group(group);
    if status.is_none() {
        let _ = child.wait();
    }
    let read = |path: &Path| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    Ok(Finished {
        status,
        stdout: read(&out),
        stderr: read(&err),
        hang,
        peak_note: format!(
            "after {:.2} s, limit {} s",
            elapsed.as_secs_f64(),
            limit.as_secs()
        ),
    })
}

/// Kills what is left of the process group that the child led.
fn end_group(group: u32) {
    if let Ok(group) = i32::try_from(group) {
        // SAFETY: kill touches no memory. The group was made for this child; as long as it has
        // members its number is not given to another one, and without members kill fails.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Processes whose process group is `group`, from /proc.
fn members(group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            // "pid (comm) state ppid pgrp …": comm may hold spaces, so count from the last ")".
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                stat.rsplit_once(')')
                    .and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok())
                    == Some(group)
            })
        })
        .collect()
}

/// Stacks of every thread of every process of the group.
fn stacks_of_group(group: u32) -> String {
    let mut text = String::new();
    for pid in members(group).into_iter().take(6) {
        let _ = writeln!(text, "=== process {pid}");
        text.push_str(&gdb_stacks(pid).unwrap_or_else(|| kernel_view(pid)));
    }
    text
}

/// Backtraces by gdb, when there is one and it answers within 20 s.
fn gdb_stacks(pid: u32) -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    let path = folder.path().join("gdb");
    let mut gdb = Command::new("gdb")
        .args([
            "-nx",
            "-batch",
            "-ex",
            "thread apply all backtrace 25",
            "-p",
            &pid.to_string(),
        ])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(File::create(&path).ok()?)
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let start = Instant::now();
    loop {
        match gdb.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if start.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => {
                let _ = gdb.kill();
                let _ = gdb.wait();
                return None;
            }
        }
    }
    let text = fs::read_to_string(&path).ok()?;
    text.contains("Thread ").then_some(text)
}

/// Without gdb: what the kernel tells of each thread.
fn kernel_view(pid: u32) -> String {
    let mut text = String::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return text;
    };
    for task in tasks.flatten() {
        let _ = writeln!(text, "thread {}", task.file_name().to_string_lossy());
        for view in ["wchan", "syscall", "stack"] {
            if let Ok(content) = fs::read_to_string(task.path().join(view)) {
                let _ = writeln!(text, "  {view}: {}", content.trim());
            }
        }
    }
    text
}
