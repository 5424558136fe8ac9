//! What docs/guarantees.md promises of each misuse, in every way byssal reaches a program: a
//! reduced run of `make misuse`, in which each cell must end as the catalogue says, by the fault it
//! names.

use std::path::Path;

use byssal_misuse::allocator::{ours, Allocator, DEFAULT, HARDENED};
use byssal_misuse::catalogue::{rows, Row};
use byssal_misuse::outcome::Cell;
use byssal_misuse::promise::Expect;
use byssal_misuse::suite::{self, Trials};

/// Few, but all sizes and heaps; `make misuse` runs 100.
const TRIALS: Trials = Trials { few: 3, many: 25 };

/// Runs all rows under one preset; the failures.
fn failures(column: &str, rows: &[Row]) -> Vec<String> {
    let mut allocators: Vec<Allocator> = ours();
    allocators.retain(|allocator| allocator.column == column);
    if let Some(why) = allocators.iter().find_map(Allocator::missing) {
        // The default one is what `make` has built, the other what `make check` builds.
        assert_ne!(column, DEFAULT, "{why}");
        println!("skipped: {why}");
        return Vec::new();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misuse");
    if let Err(messages) = suite::build(rows, &allocators, &folder, 2) {
        return vec![messages];
    }
    let jobs = suite::jobs(rows, &allocators);
    let cells = suite::in_parallel(jobs.len(), 2, |index| {
        suite::run(&jobs[index], rows, &allocators, &folder, TRIALS)
    });
    let hardened = column == HARDENED;
    let judge = |(job, cell): (&suite::Job, &Cell)| {
        let row = &rows[job.row];
        let broken = row.expect(hardened, job.size).broken(cell)?;
        let way = allocators[job.allocator].way_name();
        Some(format!(
            "{column} {way}: {} {} (MISUSE_TRIALS={} {} {} {} {}): {broken}",
            row.group,
            row.what,
            TRIALS.few,
            row.program,
            row.bytes[job.size],
            job.heap,
            row.variant
        ))
    };
    jobs.iter().zip(&cells).filter_map(judge).collect()
}

#[test]
fn default_keeps_its_promises() {
    let failures = failures(DEFAULT, &rows());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn hardened_keeps_its_promises() {
    let failures = failures(HARDENED, &rows());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The check itself can fail: an overflow is not stopped as a double free, nor at the access.
#[test]
fn a_broken_promise_is_noticed() {
    let mut wrong = rows();
    wrong.retain(|row| row.program == "overflow_byte");
    for expect in [
        Expect::Caught(byssal_misuse::outcome::Stage::Exit, &[1]),
        Expect::Protected,
    ] {
        let wrong: Vec<Row> = wrong.iter().map(|row| row.promise(expect)).collect();
        assert_eq!(failures(DEFAULT, &wrong).len(), 3 * 3 * 2);
    }
}

/// README.md and docs/guarantees.md show tables of the last results.
#[test]
fn short_tables_are_those_of_the_results() {
    let stale = byssal_misuse::excerpt::stale(false).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        stale.is_empty(),
        "tables differ from docs/results/misuse.md in {}; run: cargo run -p byssal-misuse -- --excerpts",
        stale.join(", ")
    );
}
