//! One run of one program: started by the tiny launcher, judged by its output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use byssal_peers::{Kind as PeerKind, Peer};
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::project::{self, Project};
use byssal_tool::run;
use sha2::{Digest, Sha256};

use crate::catalogue::{Check, Job};
use crate::results::Sample;

/// Builds the launcher: static and by musl, so that its own memory is next to nothing.
///
/// # Errors
/// When it does not compile.
pub fn launcher(project: &Project, cc: &Path) -> Result<PathBuf> {
    let dest = project.out.join("bench/bin/launch");
    let log = project.log("bench-build");
    let temp = project::temp_beside(&dest)?;
    let made = temp.path().join("launch");
    let mut cmd = Command::new(cc);
    cmd.args(["-std=gnu11", "-Os", "-static", "-Wall", "-Wextra"])
        .arg(project.root.join("tests/bench/launcher/launch.c"))
        .arg("-o")
        .arg(&made);
    run::logged(&mut cmd, &log)?;
    fs::rename(&made, &dest).at("renaming to", &dest)?;
    Ok(dest)
}

/// What a run printed and cost, or how it went wrong.
pub struct Outcome {
    pub sample: Sample,
    /// Standard output without what differs from run to run.
    pub output: String,
    pub failure: Option<String>,
}

pub struct Runner {
    pub launcher: PathBuf,
    /// For results and output of runs.
    pub scratch: PathBuf,
    pub limit: Duration,
}

impl Runner {
    /// Runs the job with the allocator. A program that fails is an outcome, not an error.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn run(&self, job: &Job, peer: &Peer) -> Result<Outcome> {
        self.run_under(job, peer, &[])
    }

    /// As `run`, with words (of a tool that counts something) before the program.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn run_under(&self, job: &Job, peer: &Peer, tool: &[String]) -> Result<Outcome> {
        let own = tempfile::tempdir_in(&self.scratch).at("making a directory in", &self.scratch)?;
        let (result, output) = (own.path().join("result"), own.path().join("output"));
        let errors = own.path().join("errors");
        let directory = own.path().join("work");
        fs::create_dir(&directory).at("making directory", &directory)?;
        let stdin = match &job.stdin {
            Some(path) => Stdio::from(File::open(path).at("opening", path)?),
            None => Stdio::null(),
        };
        let mut cmd = Command::new(&self.launcher);
        cmd.arg(&result)
            .arg(self.limit.as_secs().max(1).to_string())
            .args(tool)
            .arg(&job.program)
            .args(&job.args)
            .current_dir(job.directory.as_ref().unwrap_or(&directory))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .env("TMPDIR", &directory)
            .env("HOME", &directory)
            .envs(job.env.iter().map(|(k, v)| (k, v)))
            .stdin(stdin)
            .stdout(File::create(&output).at("opening", &output)?)
            .stderr(File::create(&errors).at("opening", &errors)?);
        if let (PeerKind::Preload, Some(library)) = (peer.kind, &peer.file) {
            cmd.env("LD_PRELOAD", library);
        }
        let status = cmd.status().at("starting", &self.launcher)?;
        if !status.success() {
            let what = format!("the launcher ended with {status}");
            return Err(Error::new(Kind::System, what));
        }
        let text = project::read_text(&result)?;
        let (code, mut sample) = parse(&text)
            .ok_or_else(|| Error::new(Kind::System, format!("the launcher wrote {text:?}")))?;
        let bytes = fs::read(&output).at("reading", &output)?;
        let printed = String::from_utf8_lossy(&bytes);
        sample.operations = operations(&printed);
        let failure = failed(code, self.limit, &fs::read(&errors).unwrap_or_default())
            .or_else(|| wrong(&job.check, &bytes));
        Ok(Outcome {
            sample,
            output: steady(&printed),
            failure,
        })
    }
}

/// What the launcher wrote: how the program ended, and the sample.
fn parse(text: &str) -> Option<(i32, Sample)> {
    let mut words = text.split_whitespace();
    let code = words.next()?.parse().ok()?;
    let numbers: Vec<f64> = words.map_while(|w| w.parse().ok()).collect();
    let [wall, user, system, peak, minor_faults, major_faults] = numbers[..] else {
        return None;
    };
    let sample = Sample {
        wall: wall * 1e-6,
        user: user * 1e-6,
        system: system * 1e-6,
        peak,
        minor_faults,
        major_faults,
        operations: None,
    };
    Some((code, sample))
}

fn failed(code: i32, limit: Duration, errors: &[u8]) -> Option<String> {
    let what = match code {
        0 => return None,
        -1 => return Some(format!("ran longer than {} s", limit.as_secs())),
        127 => "could not be started".to_owned(),
        129.. => format!("signal {}", code - 128),
        _ => format!("exit {code}"),
    };
    let errors = String::from_utf8_lossy(errors);
    let last = errors.lines().rfind(|l| !l.trim().is_empty());
    Some(match last {
        Some(line) => format!("{what}: {}", line.chars().take(120).collect::<String>()),
        None => what,
    })
}

/// Why this output is not the right one, as far as one run can tell.
fn wrong(check: &Check, output: &[u8]) -> Option<String> {
    match check {
        Check::SameOutput => None,
        Check::Line(line) => {
            let text = String::from_utf8_lossy(output);
            let there = text.lines().any(|l| l == line);
            (!there).then(|| format!("did not print {line:?}"))
        }
        Check::Sha256(wanted) => {
            let hash = Sha256::digest(output);
            let got: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            (got != *wanted).then(|| format!("printed what has SHA-256 {got}"))
        }
    }
}

/// The value of `ops=N`, anywhere in the output.
fn operations(output: &str) -> Option<f64> {
    let mut values = output
        .split_whitespace()
        .filter_map(|w| w.strip_prefix("ops="));
    values.next()?.parse().ok()
}

fn steady(output: &str) -> String {
    let words = |line: &str| {
        let kept: Vec<&str> = line
            .split_whitespace()
            .filter(|w| !w.starts_with("ops="))
            .collect();
        kept.join(" ")
    };
    let lines: Vec<String> = output
        .lines()
        .map(words)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_line_is_read() {
        let (code, sample) = parse("139 1500000 1000000 250000 2048 10 1\n").expect("a sample");
        assert_eq!((code, sample.wall, sample.cpu()), (139, 1.5, 1.25));
        assert_eq!((sample.peak, sample.minor_faults), (2048.0, 10.0));
        assert!(parse("0 1 2 3").is_none());
    }

    #[test]
    fn a_signal_a_code_and_a_late_one_are_told_apart() {
        let limit = Duration::from_secs(9);
        assert_eq!(failed(0, limit, b""), None);
        assert_eq!(failed(139, limit, b"").as_deref(), Some("signal 11"));
        assert_eq!(
            failed(2, limit, b"bad sum\n\n").as_deref(),
            Some("exit 2: bad sum")
        );
        assert!(failed(-1, limit, b"").is_some_and(|f| f.contains("longer than 9 s")));
    }

    #[test]
    fn operations_do_not_make_outputs_differ() {
        assert_eq!(operations("sum 17 ops=200\n"), Some(200.0));
        assert_eq!(steady("sum 17 ops=200\n"), steady("sum 17\nops=300\n"));
        assert_ne!(steady("sum 17\n"), steady("sum 18\n"));
    }

    #[test]
    fn a_line_that_is_missing_is_wrong() {
        let check = Check::Line("workload ok".into());
        assert_eq!(wrong(&check, b"x\nworkload ok\n"), None);
        assert!(wrong(&check, b"workload\n").is_some());
        assert!(wrong(&Check::Sha256("00".into()), b"").is_some());
    }
}
