//! `byssal look`: what the heap of a program holds, of a process that runs or of a core. Nothing in
//! the program helps but a description of where what lies, see `descriptor`.
//!
//! ```text
//! process, core_file (memory) -> descriptor -> snapshot -> walk -> summary, fault -> view
//!                                             view -> report, map, dump, compare, JSON
//! ```

pub mod compare;
pub mod core_file;
pub mod descriptor;
pub mod dump;
pub mod fault;
pub mod map;
pub mod memory;
pub mod process;
pub mod report;
pub mod snapshot;
pub mod summary;
pub mod view;
pub mod walk;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use byssal_heap::base::config::CLASSES;

use crate::error::{At, Error, Kind, Result};
use crate::progress::result;
use crate::project::write_named;
use core_file::Core;
use descriptor::Found;
use memory::Memory;
use process::Process;
use snapshot::Snapshot;
use view::{View, FORMAT};
use walk::{Owner, Walk};

/// Times that a process is stopped for a look in which each slot has one state. Its threads may be
/// stopped in the middle of a malloc, and those that do little else mostly are.
const TRIES: usize = 5;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(2);

/// What to show.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A process stays running: what is seen may contradict itself.
    pub no_stop: bool,
    /// As JSON.
    pub json: bool,
    /// What the program's own `byssal_dump_heap` would print.
    pub dump: bool,
    /// A map of the heap goes here.
    pub svg: Option<PathBuf>,
    /// Again and again, with so many seconds between.
    pub watch: Option<f64>,
}

/// A look.
pub struct Look {
    /// What is seen.
    pub view: View,
    snapshot: Snapshot,
    owners: Vec<Owner>,
}

impl Look {
    /// Works a copy of the allocator's state out.
    fn new(memory: &dyn Memory, snapshot: Snapshot) -> Self {
        let threads = memory.threads();
        let mut walk = Walk::of(&snapshot);
        let mut view = summary::of(&snapshot, &mut walk, &threads);
        view.program = memory.name();
        view.at_rest = true;
        view.signal = memory.signal();
        view.fault = fault::describe(memory, &snapshot, &view);
        // A slot that was found damaged is taken out of use and stands nowhere, and each thread may
        // have one in hand.
        let most = threads.len() + usize::from(view.fault.is_some());
        if view.totals.unclear > most as u64 {
            let unclear = view.totals.unclear;
            let what = format!("{unclear} slots are in no place, or in more than one");
            view.problems.push(what);
        }
        let owners = walk.owners;
        Look {
            view,
            snapshot,
            owners,
        }
    }

    /// How much is not as in a heap at rest.
    fn doubts(&self) -> u64 {
        self.view.totals.unclear + self.view.problems.len() as u64
    }

    /// What the program's own `byssal_dump_heap` would print.
    pub fn dump(&self) -> String {
        dump::text(&self.snapshot, &self.owners, &self.view)
    }
}

/// A process, or a core.
enum Subject {
    Process(Process),
    Core(Core),
}

impl Subject {
    fn find(name: &Path) -> Result<Self> {
        match name.to_str().and_then(|text| text.parse().ok()) {
            Some(pid) if pid > 0 && !name.exists() => Process::find(pid).map(Subject::Process),
            _ => Core::open(name).map(Subject::Core),
        }
    }

    fn memory(&self) -> &dyn Memory {
        match self {
            Subject::Process(process) => process,
            Subject::Core(core) => core,
        }
    }

    /// One look.
    fn look(&self, found: &[Found], no_stop: bool) -> Result<Look> {
        match self {
            Subject::Process(process) if !no_stop => look_at_stopped(process, found),
            _ => {
                let memory = self.memory();
                let mut look = Look::new(memory, busiest(memory, found)?);
                look.view.at_rest = matches!(self, Subject::Core(_));
                Ok(look)
            }
        }
    }
}

/// Looks at a process while it is stopped: the one of some looks in which most slots have one state.
fn look_at_stopped(process: &Process, found: &[Found]) -> Result<Look> {
    let mut best: Option<Look> = None;
    for _ in 0..TRIES {
        let start = Instant::now();
        let stopped = process.stop()?;
        let snapshot = busiest(process, found)?;
        // A fault has stopped the program already, and what is around it is read below.
        let is_faulty = snapshot.fault[0] != 0;
        let kept = is_faulty.then_some(stopped);
        let took = start.elapsed();
        let mut look = Look::new(process, snapshot);
        drop(kept);
        look.view.stopped = took.as_micros() as u64;
        let doubts = look.doubts();
        if best.as_ref().is_none_or(|best| doubts < best.doubts()) {
            best = Some(look);
        }
        if doubts == 0 || is_faulty {
            break;
        }
        thread::sleep(PAUSE);
    }
    best.ok_or_else(|| Error::new(Kind::System, "no look was taken"))
}

/// The copy of the allocator that most pages are of: a program may have a second one that it does
/// not use.
fn busiest(memory: &dyn Memory, found: &[Found]) -> Result<Snapshot> {
    let pages = |found: &Found| {
        let at = found.state + u64::from(found.numbers.memory[1]);
        let bytes = memory.bytes(at, found.numbers.word.into());
        bytes.map_or(0, |bytes| descriptor::number(&bytes, found.is_big))
    };
    let busiest = found.iter().max_by_key(|found| pages(found));
    let none = || Error::new(Kind::Usage, format!("{}: no allocator", memory.name()));
    Snapshot::take(memory, *busiest.ok_or_else(none)?)
}

/// Looks once at a process, by its number, or at the core in a file.
///
/// # Errors
/// When it cannot be read, or has no allocator of ours inside.
pub fn once(name: &Path, no_stop: bool) -> Result<Look> {
    let subject = Subject::find(name)?;
    let found = descriptor::find(subject.memory())?;
    subject.look(&found, no_stop)
}

/// Looks as wished, and prints.
///
/// # Errors
/// As `once`, and when what is asked for cannot be written.
pub fn show(name: &Path, wishes: &Wishes) -> Result<()> {
    let subject = Subject::find(name)?;
    let found = descriptor::find(subject.memory())?;
    if let Some(seconds) = wishes.watch {
        return watch(&subject, &found, wishes, seconds);
    }
    let look = subject.look(&found, wishes.no_stop)?;
    if let Some(svg) = &wishes.svg {
        write_named(svg, map::svg(&look.view).as_bytes())?;
    }
    let text = if wishes.json {
        json(&look.view)?
    } else if wishes.dump {
        look.dump()
    } else {
        report::text(&look.view)
    };
    result(&text).map(drop)
}

fn json(view: &View) -> Result<String> {
    let text = serde_json::to_string_pretty(view);
    let text = text.map_err(|e| Error::new(Kind::System, format!("cannot write JSON: {e}")))?;
    Ok(text + "\n")
}

/// What grew from one file of `--json` to another.
///
/// # Errors
/// When they are no such files.
pub fn diff(before: &Path, after: &Path) -> Result<()> {
    result(&compare::text(&read(before)?, &read(after)?)).map(drop)
}

fn read(path: &Path) -> Result<View> {
    let text = fs::read_to_string(path).at("reading", path)?;
    let remedy = "write it by `byssal look --json`";
    let wrong = |why: &dyn std::fmt::Display| {
        let what = format!(
            "{}: not what `byssal look --json` writes: {why}",
            path.display()
        );
        Error::new(Kind::Usage, what).remedy(remedy)
    };
    let view: View = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    if let Some(class) = view.classes.iter().find(|class| class.class >= CLASSES) {
        return Err(wrong(&format!("there is no size class {}", class.class)));
    }
    if view.format != FORMAT {
        let what = format!(
            "{}: its format is {}, this tool reads {FORMAT}",
            path.display(),
            view.format
        );
        return Err(Error::new(Kind::Usage, what).remedy(remedy));
    }
    Ok(view)
}

/// Looks again and again until the process ends.
fn watch(subject: &Subject, found: &[Found], wishes: &Wishes, seconds: f64) -> Result<()> {
    let Subject::Process(process) = subject else {
        return Err(Error::new(Kind::Usage, "a core does not change")
            .remedy("leave --watch out, or give the number of a process"));
    };
    let pause = Duration::from_secs_f64(seconds);
    let first = subject.look(found, wishes.no_stop)?;
    let begin = Instant::now();
    let mut last = first.view;
    let first = last.clone();
    loop {
        let is_read = if wishes.json {
            let text = serde_json::to_string(&last).unwrap_or_default();
            result(&(text + "\n"))?
        } else {
            let clear = if io::stdout().is_terminal() {
                "\x1b[H\x1b[J"
            } else {
                ""
            };
            result(&format!(
                "{clear}{}",
                compare::watched(&first, &last, begin.elapsed())
            ))?
        };
        thread::sleep(pause);
        if !is_read || !process.is_alive() {
            return Ok(());
        }
        match subject.look(found, wishes.no_stop) {
            Ok(look) => last = look.view,
            // It ended while it was looked at.
            Err(_) if !process.is_alive() => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
