//! The gates: what must hold of every toolchain that is handed out. Each is printed with its
//! evidence, passed or failed.

mod code;
mod library;
mod programs;
mod threads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::Built;
use crate::error::{At, Error, Kind, Result};
use crate::progress::say;
use crate::project::Project;
use crate::run;
use crate::target::Target;

/// What a gate found.
pub enum Finding {
    Passed(String),
    Failed(String),
    /// Why it cannot be looked at on this machine.
    Skipped(String),
}

/// Passed or failed, with the same evidence.
fn judged(good: bool, evidence: impl Into<String>) -> Finding {
    if good {
        Finding::Passed(evidence.into())
    } else {
        Finding::Failed(evidence.into())
    }
}

/// What the gates look at.
pub struct Subject<'a> {
    pub project: &'a Project,
    pub built: &'a Built,
    /// A directory of its own, gone when all is well: else the evidence names files in it.
    pub work: PathBuf,
}

impl Subject<'_> {
    pub fn log(&self) -> PathBuf {
        self.project.log("verify")
    }

    /// A command that runs a program of the target.
    fn command(&self, program: &Path) -> Command {
        self.built.compiler.target.command(program)
    }

    /// Compiles one of the programs in `src/tool/probes` with a prefix's wrapper.
    fn compile(&self, prefix: &Path, name: &str, flags: &[&str]) -> Result<PathBuf> {
        let kind = prefix.strip_prefix(&self.project.out).unwrap_or(prefix);
        let kind = kind.to_string_lossy().replace('/', "-");
        let program = self.work.join(format!("{name}{}-{kind}", flags.concat()));
        let source = self.project.root.join(format!("src/tool/probes/{name}.c"));
        let mut cc = Command::new(prefix.join(self.built.compiler.wrapper()));
        // A directory that is no part of the toolchain: the wrapper must work from anywhere.
        cc.current_dir(&self.work)
            .args(["-std=gnu11", "-O1", "-fno-builtin"])
            .args(flags);
        cc.arg("-o").arg(&program).arg(source);
        run::logged(&mut cc, &self.log())?;
        Ok(program)
    }
}

fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("removing", dir),
        _ => Ok(()),
    }
}

/// What a gate is called, what it does with programs of the target, and itself.
type Gate = (&'static str, Needs, fn(&Subject) -> Result<Finding>);

/// What a gate needs of the machine.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    /// Programs of the target run.
    Run,
    /// They run without an emulator, whose memory would count.
    Alone,
}

impl Needs {
    /// Why the gate cannot be looked at here.
    fn missing(self, target: &Target) -> Option<String> {
        match (self, target.emulator()) {
            (Needs::Nothing, _) | (_, Ok(None)) | (Needs::Run, Ok(Some(_))) => None,
            (Needs::Alone, Ok(Some(emulator))) => {
                Some(format!("the memory of {emulator} would count"))
            }
            (_, Err(why)) => Some(why),
        }
    }
}

const GATES: [Gate; 16] = [
    (
        "libc.so has no TLS segment",
        Needs::Nothing,
        library::no_tls,
    ),
    (
        "libc.so has no text relocations",
        Needs::Nothing,
        library::no_text_relocations,
    ),
    (
        "libc.so has no constructors",
        Needs::Nothing,
        library::no_constructors,
    ),
    (
        "libc.so exports what stock musl exports",
        Needs::Nothing,
        library::same_exports,
    ),
    (
        "the core's text is what the compiler made",
        Needs::Nothing,
        library::same_code,
    ),
    (
        "the core needs and defines only what is listed",
        Needs::Nothing,
        library::core_contract,
    ),
    (
        "libc.so takes malloc and its hooks from the core",
        Needs::Nothing,
        library::hooks_are_ours,
    ),
    (
        "an empty static program grows by a call in exit alone",
        Needs::Run,
        programs::empty,
    ),
    (
        "a program that only mallocs gets what its preset promises",
        Needs::Run,
        programs::only_malloc,
    ),
    (
        "a static program that frees grows by little",
        Needs::Run,
        programs::cost,
    ),
    (
        "a static program with its own malloc links and runs",
        Needs::Run,
        programs::own_malloc,
    ),
    (
        "the other kind of compiler (PIE or not) builds it too",
        Needs::Run,
        programs::other_kind,
    ),
    (
        "the thread hook is reached, static",
        Needs::Run,
        threads::exits_static,
    ),
    (
        "the thread hook is reached, dynamic",
        Needs::Run,
        threads::exits_dynamic,
    ),
    (
        "the fork hook is reached, static and dynamic",
        Needs::Run,
        threads::forks,
    ),
    (
        "what 1000 threads leave is used again",
        Needs::Alone,
        threads::bounded,
    ),
];

/// Runs every gate and prints each. Gives what was printed; the last line has the counts.
///
/// # Errors
/// `Gate` when one failed.
pub fn all(project: &Project, built: &Built) -> Result<String> {
    let work = project.out.join("verify");
    clear(&work)?;
    fs::create_dir_all(&work).at("making directory", &work)?;
    let subject = Subject {
        project,
        built,
        work,
    };
    run::fresh_log(&subject.log())?;
    say(&format!("verify {}", built.byssal.prefix.display()));
    let mut lines = Vec::new();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, needs, gate) in GATES {
        let finding = match needs.missing(built.compiler.target) {
            Some(why) => Finding::Skipped(why),
            None => gate(&subject).unwrap_or_else(|e| Finding::Failed(e.to_string())),
        };
        let (count, word, evidence) = match finding {
            Finding::Passed(evidence) => (&mut passed, "passed ", evidence),
            Finding::Failed(evidence) => (&mut failed, "FAILED ", evidence),
            Finding::Skipped(why) => (&mut skipped, "skipped:", why),
        };
        *count += 1;
        let line = format!("  {word} {name}: {evidence}");
        say(&line);
        lines.push(line);
    }
    let count = format!("{passed} gates passed, {failed} failed, {skipped} skipped");
    say(&format!("  {count}"));
    lines.push(count.clone());
    if failed == 0 {
        clear(&subject.work)?;
        return Ok(lines.join("\n"));
    }
    Err(
        Error::new(Kind::Gate, format!("verify: {count}")).remedy(format!(
            "the lines marked FAILED say what was found; {} has the rest",
            subject.log().display()
        )),
    )
}
