//! Gates about the hooks. The object that is handed out carries no counters for tests; instead a
//! copy of the program (or of libc.so) gets an illegal instruction at the hook, and must die in
//! it exactly when the hook should be reached.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{judged, Finding, Subject};
use crate::elf::Elf;
use crate::error::{Error, Kind, Result};
use crate::run;

const THREAD_HOOK: &str = "__malloc_thread_exit";
const FORK_HOOK: &str = "__malloc_atfork";
const WAYS: [&str; 4] = ["return", "exit", "cancel", "detached"];
const SIGILL: i32 = 4;

/// How a run ended.
fn ending(subject: &Subject, program: &[&Path], way: &str) -> Result<String> {
    let mut cmd = subject.command(program[0]);
    cmd.args(&program[1..])
        .arg(way)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = cmd
        .status()
        .map_err(|e| Error::new(Kind::Gate, format!("{}: {e}", run::shown(&cmd))))?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => "ends well".into(),
        (_, Some(SIGILL)) => "trapped".into(),
        _ => status.to_string(),
    })
}

/// The plain program must end well in every way; the one with the trap must die in `reach` only.
fn reached(
    subject: &Subject,
    [plain, trapped]: [&[&Path]; 2],
    reach: &[&str],
    others: &[&str],
) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut good = true;
    for way in reach.iter().chain(others) {
        let (normal, marked) = (ending(subject, plain, way)?, ending(subject, trapped, way)?);
        let want = if reach.contains(way) {
            "trapped"
        } else {
            "ends well"
        };
        good &= normal == "ends well" && marked == want;
        let note = if normal == "ends well" {
            String::new()
        } else {
            format!(" (without trap: {normal})")
        };
        evidence.push(format!("{way} {marked}{note}"));
    }
    Ok(judged(
        good,
        format!("with a trap on the hook: {}", evidence.join(", ")),
    ))
}

fn static_with_trap(subject: &Subject, hook: &str) -> Result<(PathBuf, PathBuf)> {
    let plain = subject.compile(&subject.built.byssal.prefix, "hooks", &["-static"])?;
    let trapped = subject.work.join(format!("static-{hook}"));
    Elf::read(&plain)?.with_trap_at(hook, &trapped)?;
    Ok((plain, trapped))
}

/// The program, libc.so as its loader, and a libc.so with the trap.
fn dynamic_with_trap(subject: &Subject, hook: &str) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let plain = subject.compile(&subject.built.byssal.prefix, "hooks", &[])?;
    let libc = subject.built.byssal.prefix.join("lib/libc.so");
    let trapped = subject.work.join(format!("libc-{hook}.so"));
    Elf::read(&libc)?.with_trap_at(hook, &trapped)?;
    Ok((plain, libc, trapped))
}

pub fn exits_static(subject: &Subject) -> Result<Finding> {
    let (plain, trapped) = static_with_trap(subject, THREAD_HOOK)?;
    reached(subject, [&[&plain], &[&trapped]], &WAYS, &["none"])
}

pub fn exits_dynamic(subject: &Subject) -> Result<Finding> {
    let (program, libc, trapped) = dynamic_with_trap(subject, THREAD_HOOK)?;
    reached(
        subject,
        [&[&libc, &program], &[&trapped, &program]],
        &WAYS,
        &["none"],
    )
}

pub fn forks(subject: &Subject) -> Result<Finding> {
    let (plain, trapped) = static_with_trap(subject, FORK_HOOK)?;
    let first = reached(
        subject,
        [&[&plain], &[&trapped]],
        &["fork"],
        &["none", "return"],
    )?;
    let (program, libc, trapped) = dynamic_with_trap(subject, FORK_HOOK)?;
    let second = reached(
        subject,
        [&[&libc, &program], &[&trapped, &program]],
        &["fork"],
        &["none", "return"],
    )?;
    Ok(match (first, second) {
        (Finding::Passed(a), Finding::Passed(b)) => {
            Finding::Passed(format!("static: {a}; dynamic: {b}"))
        }
        (Finding::Failed(a), _) => Finding::Failed(format!("static: {a}")),
        (_, other) => other,
    })
}

/// What a thousand threads of 256 KB may keep resident, at most, beyond what ten do: in KB. The
/// heaps of all would be 256,000.
const KEPT: i64 = 4096;

pub fn bounded(subject: &Subject) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut good = true;
    for flags in [&["-static"][..], &[]] {
        let program = subject.compile(&subject.built.byssal.prefix, "many_threads", flags)?;
        let printed = run::output(&mut subject.command(&program))?;
        let numbers: Vec<i64> = printed
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [early, late] = numbers[..] else {
            return Ok(Finding::Failed(format!(
                "{} printed {printed:?}",
                program.display()
            )));
        };
        good &= early > 0 && late - early <= KEPT;
        let kind = if flags.is_empty() {
            "dynamic"
        } else {
            "static"
        };
        evidence.push(format!(
            "{kind}: {early} KB resident after 10 threads, {late} after 1000"
        ));
    }
    Ok(judged(good, evidence.join("; ")))
}
