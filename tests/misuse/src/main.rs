//! `byssal-misuse`: prints the table of every misuse under byssal and its peers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use byssal_misuse::allocator::{self, root, Allocator};
use byssal_misuse::catalogue::{rows, Row, SIZES};
use byssal_misuse::suite::{self, Results, Trials};
use byssal_misuse::{count, excerpt, short, table};
use clap::Parser;

/// Every misuse of the heap under byssal and its peers, as a Markdown table.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// How often each program is tried, with each size, cold and warm.
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Another allocator, as NAME=LIBRARY: programs of the host get it by LD_PRELOAD.
    #[arg(long, value_name = "NAME=LIBRARY", value_parser = named)]
    preload: Vec<(String, PathBuf)>,
    /// Another allocator, as NAME=COMPILER: what this C compiler links statically has it in its
    /// libc.
    #[arg(long = "static", value_name = "NAME=COMPILER", value_parser = named)]
    linked: Vec<(String, PathBuf)>,
    /// Only rows whose program's name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only columns whose name contains this; several may be given.
    #[arg(long)]
    column: Vec<String>,
    /// Programs at a time.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs nothing: copies the short tables of docs/results/misuse.md to the pages that show them.
    #[arg(long)]
    excerpts: bool,
}

/// The two sides of NAME=FILE. The file must be there: for a missing library the loader only warns,
/// and the host's own allocator would be tried in its name.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("it is not NAME=FILE")?;
    let path = std::path::absolute(file).map_err(|error| error.to_string())?;
    if !path.is_file() {
        return Err(format!("there is no file {file}"));
    }
    Ok((name.to_owned(), path))
}

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The columns that can run here; says which cannot.
fn present(settings: &Settings) -> Vec<Allocator> {
    let mut all = allocator::ours();
    all.extend(allocator::peers());
    for (name, library) in &settings.preload {
        all.push(allocator::preloaded(name, Some(library.clone()), ""));
    }
    for (name, compiler) in &settings.linked {
        let folder = format!("{name}-static").replace('/', "_");
        all.push(allocator::linked(name, compiler.clone(), &folder, ""));
    }
    all.retain(|a| {
        let wanted = &settings.column;
        wanted.is_empty() || wanted.iter().any(|part| a.column.contains(part.as_str()))
    });
    all.retain(|allocator| match allocator.missing() {
        None => true,
        Some(why) => {
            let way = allocator.way_name();
            eprintln!("skipped: {} ({way}): {why}", allocator.column);
            false
        }
    });
    all
}

fn run(settings: &Settings) -> Result<(), String> {
    if settings.excerpts {
        for page in excerpt::stale(true)? {
            eprintln!("tables renewed: {page}");
        }
        return Ok(());
    }
    let start = Instant::now();
    let workers = settings.jobs.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    });
    let rows: Vec<Row> = rows()
        .into_iter()
        .filter(|row| {
            settings
                .only
                .as_ref()
                .is_none_or(|part| row.program.contains(part.as_str()))
        })
        .collect();
    let allocators = present(settings);
    if let Some(why) = allocator::without_cxx() {
        eprintln!("note: {why}");
    }
    let folder = root().join("out/misuse/programs");
    suite::build(&rows, &allocators, &folder, workers)?;
    let jobs = suite::jobs(&rows, &allocators);
    let trials = Trials {
        few: settings.trials,
        many: settings.trials,
    };
    let done = AtomicUsize::new(0);
    let cells = suite::in_parallel(jobs.len(), workers, |index| {
        let cell = suite::run(&jobs[index], &rows, &allocators, &folder, trials);
        // Relaxed: only a count to show.
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        if count % 200 == 0 || count == jobs.len() {
            let seconds = start.elapsed().as_secs();
            eprintln!("{count} of {} cells, {seconds} s", jobs.len());
        }
        cell
    });
    let results = jobs.into_iter().zip(cells).collect();
    print!("{}", page(settings.trials, &rows, &allocators, &results));
    Ok(())
}

/// All tables.
fn page(trials: usize, rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let programs = SIZES.map(|(name, bytes)| format!("{name} {bytes}"));
    format!(
        "{trials} trials of each program, size ({}) and heap (cold, warm).\n\n\
         ## In short\n\n{}\n\
         ## Stopped in every trial\n\n\
         Programs, each size counted by itself. Late ones are stopped by later calls or at exit. A \
         read that sees nothing but zeros, or another filling, counts as stopped. What an allocator \
         has not, as a C++ program that is linked to musl, is not counted.\n\n{}\n{}\n\
         ## Every misuse\n\n{}\n\
         ## Where byssal is behind\n{}",
        programs.join(", "),
        excerpt::marked("misuses", &short::misuses(rows, allocators, results)),
        count::markdown(rows, allocators, results),
        excerpt::marked("allocators", &short::allocators(rows, allocators, results)),
        table::markdown(rows, allocators, results),
        count::behind(rows, allocators, results),
    )
}
