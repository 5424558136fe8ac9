//! What is not a program's time: small processes, instructions, memory given back, sizes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use byssal_peers::{Kind as PeerKind, Peer};
use byssal_tool::error::{At, Result};
use byssal_tool::progress::say;
use byssal_tool::project::{self, Project};
use byssal_tool::run;

use crate::catalogue::{Job, Size};
use crate::measure::Runner;
use crate::programs::{self, Work};
use crate::results::{Extra, GivenBack, Pair, Row, SmallProcess, Text};
use crate::statistics;

/// Runs of a small process; its faults vary by one or two.
const SMALL_RUNS: usize = 5;
/// Pairs in the longer of two runs under callgrind, and in the shorter.
const PAIRS: [u64; 2] = [30_000, 10_000];

/// What is counted beside pairs, by `extra/operation.c`: its name for people, the program's name and
/// size for it, and how many of it a turn of the program's loop has.
const OPERATIONS: [(&str, &str, &str, u64); 11] = [
    ("malloc_usable_size", "usable", "64", 1),
    ("realloc in place", "resize", "100", 1),
    ("realloc by 16 to 2048", "grow", "0", 128),
    ("calloc 64", "calloc", "64", 1),
    ("calloc 1000", "calloc", "1000", 1),
    ("aligned_alloc 64", "aligned", "64", 1),
    ("free(NULL)", "null", "0", 1),
    ("batch of 500: 64", "batch", "64", 500),
    ("batch of 500: 400", "batch", "400", 500),
    ("batch of 500: 1500", "batch", "1500", 500),
    ("list of 2000", "list", "0", 2000),
];

/// Builds `extra/NAME.c` for an allocator.
fn build(project: &Project, peer: &Peer, name: &str) -> Result<PathBuf> {
    let source = project.root.join(format!("tests/bench/extra/{name}.c"));
    let dir = match peer.kind {
        PeerKind::Preload => "host",
        PeerKind::Static | PeerKind::Linked => peer.name,
    };
    let dest = project
        .out
        .join("bench/bin")
        .join(dir)
        .join(format!("extra-{name}"));
    programs::c_program(project, peer, &[source], &[], &dest)?;
    Ok(dest)
}

fn job(program: &Path, args: &[&str]) -> Job {
    Job {
        program: program.to_path_buf(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..Job::default()
    }
}

/// All but the instructions of programs. What an allocator fails at is told in `notes`.
///
/// # Errors
/// When a program of ours does not compile.
pub fn all(
    project: &Project,
    peers: &[Peer],
    size: Size,
    runner: &Runner,
    notes: &mut Vec<String>,
) -> Result<Extra> {
    let mut extra = Extra::default();
    for (tool, what) in [("strace", "system calls"), ("valgrind", "instructions")] {
        if !run::exists(tool) {
            let note = format!("skipped: {what}: no {tool} (apt-get install {tool})");
            say(&format!("  {note}"));
            notes.push(note);
        }
    }
    let begin = Instant::now();
    for (done, peer) in peers.iter().enumerate() {
        let took = begin.elapsed().as_secs_f64();
        let left = match done {
            0 => String::new(),
            _ => format!(
                "; about {:.0} s left",
                took / done as f64 * (peers.len() - done) as f64
            ),
        };
        say(&format!(
            "  [{}/{}] {}: small process, instructions, memory given back{left}",
            done + 1,
            peers.len(),
            peer.name
        ));
        small(project, peer, runner, &mut extra.small, notes)?;
        if run::exists("valgrind") {
            pairs(project, peer, runner, &mut extra.pairs, notes)?;
        }
        given_back(project, peer, size, runner, &mut extra.given_back, notes)?;
        if peer.kind == PeerKind::Static {
            extra
                .text
                .extend(text(peer, &build(project, peer, "pair")?)?);
        }
    }
    Ok(extra)
}

fn small(
    project: &Project,
    peer: &Peer,
    runner: &Runner,
    found: &mut Vec<SmallProcess>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let program = build(project, peer, "small")?;
    for blocks in [0u32, 1, 1000] {
        let count = blocks.to_string();
        let args: &[&str] = if blocks == 0 {
            &[&count]
        } else {
            &[&count, "free"]
        };
        let job = job(&program, args);
        let mut printed: Vec<Vec<f64>> = Vec::new();
        for _ in 0..SMALL_RUNS {
            let outcome = runner.run(&job, peer)?;
            if let Some(why) = outcome.failure {
                notes.push(format!(
                    "small process, {blocks} blocks, {}: {why}",
                    peer.name
                ));
                return Ok(());
            }
            printed.push(numbers(&outcome.output));
        }
        let median = |i: usize| {
            let values: Vec<f64> = printed.iter().filter_map(|p| p.get(i).copied()).collect();
            statistics::median(&values).unwrap_or(f64::NAN)
        };
        // The program's own look at itself, and its start and end, are not the allocator's.
        let own = [
            "getrusage",
            "open",
            "openat",
            "read",
            "write",
            "execve",
            "exit_group",
        ];
        found.push(SmallProcess {
            allocator: peer.name.to_owned(),
            blocks,
            calls: calls(peer, &job, runner, &[], |name| !own.contains(&name))?,
            faults: median(0),
            anonymous_kib: median(1),
        });
    }
    Ok(())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace()
        .map_while(|w| w.parse().ok())
        .collect()
}

/// Words that start a program under a tool with the allocator for the program alone.
fn preload(peer: &Peer) -> Option<&Path> {
    match peer.kind {
        PeerKind::Preload => peer.file.as_deref(),
        PeerKind::Static | PeerKind::Linked => None,
    }
}

/// System calls of a run, by strace; `None` without strace.
fn calls(
    peer: &Peer,
    job: &Job,
    runner: &Runner,
    options: &[&str],
    counts: impl Fn(&str) -> bool,
) -> Result<Option<u64>> {
    if !run::exists("strace") {
        return Ok(None);
    }
    let temp =
        tempfile::tempdir_in(&runner.scratch).at("making a directory in", &runner.scratch)?;
    let log = temp.path().join("calls");
    let mut cmd = Command::new("strace");
    cmd.args(["-f", "-qq"]).args(options).arg("-o").arg(&log);
    if let Some(library) = preload(peer) {
        cmd.arg("-E")
            .arg(format!("LD_PRELOAD={}", library.display()));
    }
    cmd.arg(&job.program)
        .args(&job.args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = cmd.status().at("starting", Path::new("strace"))?;
    if !status.success() {
        return Ok(None);
    }
    Ok(Some(count(&project::read_text(&log)?, counts)))
}

/// Counts lines of strace's log: `PID NAME(...`.
fn count(log: &str, counts: impl Fn(&str) -> bool) -> u64 {
    let name = |line: &str| {
        let call = line.split_once(char::is_whitespace)?.1.trim_start();
        let name = call.split_once('(')?.0;
        counts(name).then_some(())
    };
    log.lines().filter_map(name).count() as u64
}

fn pairs(
    project: &Project,
    peer: &Peer,
    runner: &Runner,
    found: &mut Vec<Pair>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let pair = build(project, peer, "pair")?;
    let operation = build(project, peer, "operation")?;
    let mut rows = vec![
        ("64 bytes", &pair, vec![], 1),
        ("mixed to 1024 bytes", &pair, vec!["mixed"], 1),
    ];
    for (what, name, size, times) in OPERATIONS {
        rows.push((what, &operation, vec![name, size], times));
    }
    for (what, program, more, times) in rows {
        let mut counted = Vec::new();
        for n in PAIRS {
            let n = (n / times).to_string();
            let args: Vec<&str> = std::iter::once(n.as_str()).chain(more.clone()).collect();
            counted.push(callgrind(
                peer,
                &job(program, &args),
                runner,
                Duration::from_secs(60),
            )?);
        }
        let times = (PAIRS[0] / times - PAIRS[1] / times) * times;
        let (long, short) = match &counted[..] {
            [Ok(long), Ok(short)] => (*long, *short),
            [Err(why), _] | [_, Err(why)] => {
                notes.push(format!("instructions, {what}, {}: {why}", peer.name));
                continue;
            }
            _ => continue,
        };
        found.push(Pair {
            allocator: peer.name.to_owned(),
            what: what.to_owned(),
            instructions: (long as f64 - short as f64) / times as f64,
        });
    }
    Ok(())
}

/// Instructions of a run by callgrind, or why the program fails under it (snmalloc, for one, wants
/// more address space than valgrind has).
///
/// # Errors
/// When the launcher cannot be started.
pub fn callgrind(
    peer: &Peer,
    job: &Job,
    runner: &Runner,
    limit: Duration,
) -> Result<std::result::Result<u64, String>> {
    let temp =
        tempfile::tempdir_in(&runner.scratch).at("making a directory in", &runner.scratch)?;
    let out = temp.path().join("callgrind");
    let tool = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    let runner = Runner {
        launcher: runner.launcher.clone(),
        scratch: runner.scratch.clone(),
        limit,
    };
    let outcome = runner.run_under(job, peer, &tool)?;
    if let Some(why) = outcome.failure {
        return Ok(Err(why));
    }
    let text = fs::read(&out).unwrap_or_default();
    let total = totals(&String::from_utf8_lossy(&text));
    Ok(total.ok_or_else(|| "callgrind wrote no sum".to_owned()))
}

/// `totals: N` of callgrind's file.
fn totals(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("totals:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn given_back(
    project: &Project,
    peer: &Peer,
    size: Size,
    runner: &Runner,
    found: &mut Vec<GivenBack>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let program = build(project, peer, "giveback")?;
    let both = [
        ("all freed", &[][..]),
        ("1 of 100 kept", &["scattered"][..]),
    ];
    let count = if size == Size::Quick { 1 } else { 2 };
    for (what, args) in &both[..count] {
        let job = job(&program, args);
        let outcome = runner.run(&job, peer)?;
        let printed = numbers(&outcome.output);
        let (None, [live, peak, after, freed]) = (&outcome.failure, &printed[..]) else {
            let why = outcome.failure.unwrap_or("printed too little".into());
            notes.push(format!("memory given back, {what}, {}: {why}", peer.name));
            continue;
        };
        let only = ["-e", "trace=madvise,munmap"];
        let calls = calls(peer, &job, runner, &only, |name| {
            ["madvise", "munmap"].contains(&name)
        })?;
        found.push(GivenBack {
            allocator: peer.name.to_owned(),
            what: (*what).to_owned(),
            live: *live,
            peak: *peak,
            after: *after,
            calls_per_mib: calls.map(|n| n as f64 / (freed / 1024.0)),
        });
    }
    Ok(())
}

fn text(peer: &Peer, program: &Path) -> Result<Option<Text>> {
    let printed = run::output(Command::new("size").arg(program))?;
    let row = numbers(printed.lines().nth(1).unwrap_or_default());
    let [text, data, bss, ..] = row[..] else {
        return Ok(None);
    };
    Ok(Some(Text {
        allocator: peer.name.to_owned(),
        text: text as u64,
        data: data as u64,
        bss: bss as u64,
    }))
}

/// Counts instructions of the programs with their present arguments, the shortest first, until the
/// time is up; by perf where the machine counts them for it, else by callgrind.
///
/// # Errors
/// When the launcher cannot be started.
pub fn instructions(
    works: &[Work],
    rows: &mut [Row],
    peers: &[Peer],
    runner: &Runner,
    time: Duration,
    notes: &mut Vec<String>,
) -> Result<()> {
    if !run::exists("valgrind") {
        return Ok(());
    }
    let end = Instant::now() + time;
    let seconds = |row: &Row| {
        let cells = row.cells.values().filter_map(|c| c.samples.first());
        cells.map(|s| s.cpu()).fold(0.0, f64::max)
    };
    let mut order: Vec<usize> = (0..works.len())
        .filter(|i| works[*i].threads == 1 && works[*i].curve.is_none() && !works[*i].real)
        .collect();
    order.sort_by(|a, b| seconds(&rows[*a]).total_cmp(&seconds(&rows[*b])));
    let mut done = 0;
    for i in &order {
        // callgrind takes about fifty times as long as the program alone.
        let cells = rows[*i].cells.values().filter_map(|c| c.samples.first());
        let takes = Duration::from_secs_f64(cells.map(|s| s.cpu() * 60.0 + 1.0).sum());
        if Instant::now() + takes > end {
            break;
        }
        for peer in peers {
            let Some(job) = works[*i].jobs.get(peer.name) else {
                continue;
            };
            let counted = callgrind(peer, job, runner, Duration::from_secs(120))?;
            if let Some(cell) = rows[*i].cells.get_mut(peer.name) {
                cell.instructions = counted.ok();
            }
        }
        done += 1;
        say(&format!("  instructions of {} counted", works[*i].name));
    }
    if done < order.len() {
        notes.push(format!(
            "instructions (callgrind): the {done} shortest of {} single-threaded programs, for \
             want of time",
            order.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace_are_counted_by_name() {
        let log = "12 brk(NULL) = 0x1\n12 madvise(0x1, 4096, MADV_DONTNEED) = 0\n\
            12 +++ exited with 0 +++\n13 munmap(0x2, 4096) = 0\n";
        assert_eq!(count(log, |name| name != "brk"), 2);
        assert_eq!(count(log, |_| true), 3);
    }

    #[test]
    fn callgrinds_sum_is_found() {
        assert_eq!(
            totals("version: 1\nfn=main\n1 2\n\ntotals: 12345\n"),
            Some(12345)
        );
        assert_eq!(totals("events: Ir\n"), None);
    }
}
