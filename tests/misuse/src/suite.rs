//! Builds the programs and runs the cells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::allocator::Allocator;
use crate::catalogue::{Row, Show};
use crate::outcome::{Cell, Ending, Trial};

/// Heaps: the block alone, or among others.
pub const HEAPS: [&str; 2] = ["cold", "warm"];

/// A program that hung so often is tried no more, as `misuse.h` says.
const HANGS: usize = 3;

/// How often a program is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trials {
    /// Where each trial should come out the same.
    pub few: usize,
    /// Where chance plays a part, or where the few came out differently.
    pub many: usize,
}

/// One cell to fill.
#[derive(Clone, Debug)]
pub struct Job {
    pub row: usize,
    pub allocator: usize,
    /// Which of `SIZES`.
    pub size: usize,
    pub heap: &'static str,
}

/// Cells by row and allocator, each with its size and heap.
pub type Results = Vec<(Job, Cell)>;

/// All cells of these rows under these allocators.
pub fn jobs(rows: &[Row], allocators: &[Allocator]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (row, each) in rows.iter().enumerate() {
        for allocator in 0..allocators.len() {
            for size in each.sizes.0..each.sizes.1 {
                for heap in HEAPS {
                    jobs.push(Job {
                        row,
                        allocator,
                        size,
                        heap,
                    });
                }
            }
        }
    }
    jobs
}

/// Compiles every program that the rows need for every allocator, `workers` at a time.
///
/// # Errors
/// The compiler's messages.
pub fn build(
    rows: &[Row],
    allocators: &[Allocator],
    folder: &Path,
    workers: usize,
) -> Result<(), String> {
    let programs: BTreeSet<&str> = rows.iter().map(|row| row.program).collect();
    let folders: BTreeMap<&str, &Allocator> =
        allocators.iter().map(|a| (a.folder.as_str(), a)).collect();
    let mut steps = Vec::new();
    for (name, allocator) in folders {
        let to = folder.join(name);
        fs::create_dir_all(&to).map_err(|e| format!("{}: {e}", to.display()))?;
        for program in &programs {
            steps.extend(allocator.compile(program, &to));
        }
    }
    let steps: Vec<_> = steps.into_iter().map(Mutex::new).collect();
    let errors = in_parallel(steps.len(), workers, |index| {
        let mut step = steps[index].lock().map_err(|_| "poisoned".to_owned())?;
        let output = step.output().map_err(|e| format!("{step:?}: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{step:?}\n{text}"))
    });
    errors.into_iter().collect()
}

/// Does `work` for every index below `count`, `workers` at a time.
pub fn in_parallel<T: Send>(
    count: usize,
    workers: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| loop {
                // Relaxed: only a ticket.
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                let result = work(index);
                if let Ok(mut done) = done.lock() {
                    done.push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Runs one cell.
pub fn run(
    job: &Job,
    rows: &[Row],
    allocators: &[Allocator],
    folder: &Path,
    trials: Trials,
) -> Cell {
    let row = &rows[job.row];
    let first = if row.chance { trials.many } else { trials.few };
    let mut cell = run_trials(job, row, &allocators[job.allocator], folder, first);
    // What was thought certain is not: how often?
    if row.show == Show::Endings && first < trials.many && cell.words().len() > 1 {
        cell = run_trials(job, row, &allocators[job.allocator], folder, trials.many);
    }
    cell
}

fn run_trials(job: &Job, row: &Row, allocator: &Allocator, folder: &Path, trials: usize) -> Cell {
    let program: PathBuf = folder.join(&allocator.folder).join(row.program);
    if allocator.compile(row.program, folder).is_none() {
        return Cell {
            trials: vec![Trial {
                ending: Ending::Skipped,
                count: 0,
                value: 0,
            }],
            said: "no C++ here".to_owned(),
        };
    }
    let mut command = allocator.start(&program);
    command
        .arg(row.bytes[job.size].to_string())
        .arg(job.heap)
        .arg(row.variant.to_string())
        .env("MISUSE_TRIALS", trials.to_string());
    match command.output() {
        Ok(output) => {
            let mut cell = Cell::parse(&String::from_utf8_lossy(&output.stdout));
            if cell.trials.len() != trials && cell.hangs() < HANGS {
                cell.said.push_str(&String::from_utf8_lossy(&output.stderr));
                cell.trials.clear();
            }
            cell
        }
        Err(error) => Cell {
            trials: Vec::new(),
            said: format!("{command:?}: {error}"),
        },
    }
}
