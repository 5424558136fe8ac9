//! `byssal-misuse`: prints the table of every misuse under byssal and its peers.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use byssal_misuse::allocator::{self, root, Allocator};
use byssal_misuse::catalogue::{rows, Row};
use byssal_misuse::suite::{self, Trials};
use byssal_misuse::table;
use clap::Parser;

/// Every misuse of the heap under byssal and its peers, as a Markdown table.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// Trials where chance plays a part.
    #[arg(long, default_value_t = 1000)]
    trials: usize,
    /// Trials where it plays none.
    #[arg(long, default_value_t = 10)]
    few: usize,
    /// Only rows whose program's name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only columns whose name contains this.
    #[arg(long)]
    column: Option<String>,
    /// Programs at a time.
    #[arg(long)]
    jobs: Option<usize>,
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
    all.retain(|a| {
        settings
            .column
            .as_ref()
            .is_none_or(|part| a.column.contains(part.as_str()))
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
    let folder = root().join("out/misuse/programs");
    suite::build(&rows, &allocators, &folder, workers)?;
    let jobs = suite::jobs(&rows, &allocators);
    let trials = Trials {
        few: settings.few,
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
    let text = table::markdown(&rows, &allocators, &results);
    print!("{text}");
    let behind = table::behind(&rows, &allocators, &results);
    println!(
        "\n{}",
        if behind.is_empty() {
            "Behind in no row.\n"
        } else {
            &behind
        }
    );
    Ok(())
}
