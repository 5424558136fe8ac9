//! What threads do to lines that they share, counted, and what many cores would make of it: the
//! tables that docs/scaling.md explains. The programs run under a library that counts (feature
//! `count`); times come from runs under the one that ships.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_peers::Peer;
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::progress::say;
use byssal_tool::project::{self, Project};
use byssal_tool::run;

use crate::catalogue::{self, Job};
use crate::measure::Runner;
use crate::model::{Costs, Pattern};
use crate::programs;

/// A row: name, source, arguments by number of threads, and the smallest such number. In the
/// arguments `{t}` is the number of threads, `{pairs}` half of it, `{n}` the operations of each of
/// them, `{all}` the sum. Each thread does as much whatever their number: what a thread's start
/// costs is spread over its life, not over more and more threads.
struct Row(
    &'static str,
    &'static str,
    &'static str,
    u32,
    /* operations of each thread */ u32,
);

const ROWS: [Row; 12] = [
    Row("producer", "producer.c", "{pairs} {all}", 2, 50_000),
    Row("shelf", "shelf.c", "{t} {n} 5", 1, 50_000),
    Row("mailboxes", "mailboxes.c", "{t} {n}", 1, 50_000),
    Row("server", "server.c", "{t} 1000 {n} 10", 1, 100_000),
    Row("requests", "requests.c", "{t} {all}", 1, 100),
    Row("batches-drift", "batches.c", "drift {n} {t}", 1, 50_000),
    Row("random-threads", RANDOM, "skewed 1000 {n} {t}", 1, 50_000),
    Row("sharing-active", SHARING, "active {t} {n} 100", 1, 20_000),
    Row("sharing-passive", SHARING, "passive {t} {n} 100", 1, 20_000),
    Row("scaling-local", "scaling.c", "local {all} {t}", 1, 51_200),
    Row("scaling-random", "scaling.c", "random {all} {t}", 1, 51_200),
    Row(
        "scaling-handoff",
        "scaling.c",
        "handoff {all} {t}",
        1,
        51_200,
    ),
];
const RANDOM: &str = "random_set.c";
const SHARING: &str = "false_sharing.c";

/// The numbers of threads.
const THREADS: [u32; 4] = [1, 2, 16, 64];

/// Runs for a time, of which the shortest counts.
const RUNS: usize = 3;

/// What a run under the counting library noted, by name.
pub struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// Reads what the library wrote: a name and a number a line.
    pub fn parse(text: &str) -> Option<Counts> {
        let line = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let counts: BTreeMap<_, _> = text.lines().map(line).collect::<Option<_>>()?;
        (!counts.is_empty()).then_some(Counts(counts))
    }

    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    fn sum(&self, names: &[&str]) -> f64 {
        names.iter().map(|n| self.get(n)).sum()
    }

    /// Costs of one of `operations`, as the model wants them.
    fn costs(&self, operations: f64) -> Costs {
        let locks = self.get("locks");
        let held = self.get("lock_nanoseconds") - self.get("clock_nanoseconds");
        let writes = [
            "remote_frees",
            "remote_pushes",
            "mail_taken",
            "collected",
            "locks",
        ];
        let calls = ["map", "unmap", "purge", "remap"];
        let rmws = [
            "fetch_or",
            "fetch_and",
            "swap",
            "exchange",
            "exchange_failed",
        ];
        Costs {
            rmws: self.sum(&rmws) / operations,
            fences: self.get("fence") / operations,
            remote_frees: self.get("remote_frees") / operations,
            shared_writes: self.sum(&writes) / operations,
            locks: locks / operations,
            awaited: self.get("locks_awaited") / locks.max(1.0),
            hold: if locks > 0.0 {
                (held / locks).max(0.0)
            } else {
                0.0
            },
            calls: self.sum(&calls) / operations,
        }
    }
}

/// Builds the library, one that counts or the one that ships.
///
/// # Errors
/// `Step` when cargo fails.
pub fn library(project: &Project, counting: bool) -> Result<PathBuf> {
    let (name, features) = match counting {
        true => ("count", "library,count"),
        false => ("plain", "library"),
    };
    let target = project.root.join("target").join(name);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cmd = Command::new(cargo);
    cmd.args(["rustc", "--locked", "-p", "byssal-abi"])
        .args(["--profile", "archive", "--no-default-features"])
        .args(["--features", features, "--crate-type", "cdylib"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&project.root);
    run::logged(&mut cmd, &project.log("bench-build"))?;
    Ok(target.join("archive/libbyssal_abi.so"))
}

/// Runs the job under the counting library.
///
/// # Errors
/// When it fails, or nothing was counted.
pub fn count(runner: &Runner, host: &Peer, library: &Path, job: &Job) -> Result<(Counts, f64)> {
    let own = tempfile::tempdir_in(&runner.scratch).at("making a directory in", &runner.scratch)?;
    let file = own.path().join("counts");
    let mut job = job.clone();
    for (name, value) in [("LD_PRELOAD", library), ("BYSSAL_COUNTS", &file)] {
        job.env.push((name.into(), value.to_string_lossy().into()));
    }
    let outcome = runner.run(&job, host)?;
    let program = job.program.display();
    if let Some(failure) = outcome.failure {
        return Err(Error::new(Kind::Step, format!("{program}: {failure}")));
    }
    let text = project::read_text(&file)?;
    let wrong = || Error::new(Kind::Step, format!("{program} counted {text:?}"));
    let counts = Counts::parse(&text).ok_or_else(wrong)?;
    Ok((counts, outcome.sample.operations.unwrap_or(f64::NAN)))
}

/// The job of a row with so many threads.
fn job(row: &Row, program: &Path, threads: u32) -> Job {
    let word = |word: &str| {
        word.replace("{t}", &threads.to_string())
            .replace("{pairs}", &(threads / 2).to_string())
            .replace("{n}", &row.4.to_string())
            .replace("{all}", &(row.4 * threads).to_string())
    };
    Job {
        program: program.to_owned(),
        args: row.2.split(' ').map(word).collect(),
        ..Job::default()
    }
}

/// CPU time of an operation in nanoseconds, all of the program: the shortest of some runs.
fn time(runner: &Runner, host: &Peer, library: &Path, job: &Job) -> Result<f64> {
    let mut job = job.clone();
    let library = library.to_string_lossy().into();
    job.env.push(("LD_PRELOAD".into(), library));
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let sample = runner.run(&job, host)?.sample;
        least = least.min(sample.cpu() * 1e9 / sample.operations.unwrap_or(f64::NAN));
    }
    Ok(least)
}

/// Counts and times all rows.
///
/// # Errors
/// When something cannot be built, or a program fails.
pub fn all(project: &Project, host: &Peer, runner: &Runner) -> Result<Vec<Pattern>> {
    let (counting, plain) = (library(project, true)?, library(project, false)?);
    let mut patterns = Vec::new();
    for row in &ROWS {
        let dest = project.out.join("bench/bin/host").join(row.1);
        let dest = dest.with_extension("counts");
        programs::c_program(
            project,
            host,
            &[catalogue::source(project, row.1)?],
            &[],
            &dest,
        )?;
        let mut pattern = Pattern {
            name: row.0,
            nanoseconds: time(runner, host, &plain, &job(row, &dest, row.3))?,
            costs: BTreeMap::new(),
        };
        for threads in THREADS.into_iter().filter(|t| *t >= row.3) {
            let (counts, operations) = count(runner, host, &counting, &job(row, &dest, threads))?;
            pattern.costs.insert(threads, counts.costs(operations));
        }
        say(&format!("  {}", row.0));
        patterns.push(pattern);
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Counts of `counts.c`, which says what it does.
    fn known(project: &Project, library: &Path, pattern: &str, n: u32) -> Counts {
        let own = tempfile::tempdir().unwrap();
        let (program, file) = (own.path().join("counts"), own.path().join("told"));
        let source = project.root.join("tests/bench/extra/counts.c");
        let mut cc = Command::new("gcc");
        cc.args(["-O1", "-fno-builtin", "-pthread", "-o"]);
        assert!(cc.arg(&program).arg(source).status().unwrap().success());
        let mut cmd = Command::new(&program);
        cmd.args([pattern, &n.to_string()]);
        cmd.env("LD_PRELOAD", library).env("BYSSAL_COUNTS", &file);
        assert!(cmd.status().unwrap().success(), "{pattern} {n}");
        Counts::parse(&fs::read_to_string(file).unwrap()).unwrap()
    }

    #[test]
    fn a_known_program_has_known_counts() {
        let project = Project::find(None, None).unwrap();
        let library = library(&project, true).unwrap();
        let (few, many) = (
            known(&project, &library, "own", 1000),
            known(&project, &library, "own", 1_000_000),
        );
        // Where the first chunk lies, and by how many calls, is the kernel's choice.
        let told = |counts: &Counts| {
            let mut told = counts.0.clone();
            told.retain(|name, _| name != "map" && name != "unmap");
            told
        };
        assert_eq!(
            told(&few),
            told(&many),
            "a pair of the own thread counts nothing"
        );
        assert_eq!((many.get("locks"), many.get("remote_frees")), (0.0, 0.0));

        let n = 10_000;
        let counts = known(&project, &library, "other", n);
        assert_eq!(counts.get("remote_frees"), f64::from(n));
        // A bit for each block, one operation for each group of 32 at the best.
        let (masks, pushes) = (counts.get("fetch_or"), counts.get("remote_pushes"));
        assert!(
            masks >= f64::from(n / 32) && masks <= f64::from(n + 10),
            "{masks}"
        );
        assert!(pushes >= f64::from(n / 32) && pushes <= masks, "{pushes}");
        assert!(
            counts.get("swap") > 0.0,
            "the heap changes its life, and is collected"
        );
        assert!(counts.get("locks") > 0.0 && counts.get("locks_awaited") <= counts.get("locks"));
    }

    #[test]
    fn what_is_no_count_is_refused() {
        assert!(Counts::parse("").is_none());
        assert!(Counts::parse("swap x\n").is_none());
        let counts = Counts::parse("swap 3\nlocks 0\n").unwrap();
        assert_eq!(counts.get("swap"), 3.0);
        assert!(counts.get("fence").is_nan());
    }
}
