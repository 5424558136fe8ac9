//! How many misuses each allocator stops in every trial, and who is behind whom.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::allocator::{Allocator, DEFAULT, HARDENED, HARDENED_MALLOC, MALLOCNG};
use crate::catalogue::{Row, Show, SIZES};
use crate::outcome::{Cell, Verdict};
use crate::suite::{Results, HEAPS};
use crate::table::{cells_of, places_name, share, Place};

/// What an allocator stops in one heap: programs with a size, by verdict.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Verdict, usize>);

impl Tally {
    /// Counts an allocator's cells in one of `HEAPS`.
    pub fn new(rows: &[Row], allocator: usize, heap: &str, results: &Results) -> Tally {
        let mut tally = Tally::default();
        for (job, cell) in results {
            let counts = rows[job.row].show == Show::Endings;
            if counts && job.allocator == allocator && job.heap == heap {
                if let Some(verdict) = cell.verdict() {
                    *tally.0.entry(verdict).or_default() += 1;
                }
            }
        }
        tally
    }

    fn of(&self, verdict: Verdict) -> usize {
        self.0.get(&verdict).copied().unwrap_or(0)
    }

    /// Stopped in every trial, late ones included.
    pub fn stopped(&self) -> usize {
        self.of(Verdict::Always) + self.of(Verdict::Late)
    }

    /// All that the allocator can be tried with.
    pub fn all(&self) -> usize {
        self.0.values().sum()
    }
}

/// A line for each allocator: what it stops in every trial, and in some.
pub fn markdown(rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let mut text = String::from(
        "| | cold: stopped in every trial | sometimes | never | warm: stopped in every trial \
         | sometimes | never |\n|---|---|---|---|---|---|---|\n",
    );
    for (index, allocator) in allocators.iter().enumerate() {
        let _ = write!(text, "| {} ({}) |", allocator.column, allocator.way_name());
        for heap in HEAPS {
            let tally = Tally::new(rows, index, heap, results);
            let _ = write!(
                text,
                " {} of {} ({} of them late) | {} | {} |",
                tally.stopped(),
                tally.all(),
                tally.of(Verdict::Late),
                tally.of(Verdict::Sometimes),
                tally.of(Verdict::Never),
            );
        }
        text.push('\n');
    }
    text
}

/// Rows in which one column is behind another, in Markdown; empty if there are none.
fn behind_one(
    (ours, peer): (&str, &str),
    rows: &[Row],
    allocators: &[Allocator],
    results: &Results,
) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mine = cells_of(index, ours, allocators, results);
        let theirs = cells_of(index, peer, allocators, results);
        let mut places: Vec<&Place> = Vec::new();
        let mut values: Vec<(f64, f64)> = Vec::new();
        for (place, cell) in &mine {
            let rival = theirs.iter().find(|(other, _)| other[..2] == place[..2]);
            if let Some(pair) = rival.and_then(|(_, rival)| behind_by(row, cell, rival)) {
                places.push(place);
                values.push(pair);
            }
        }
        if places.is_empty() {
            continue;
        }
        // A row that is not for all sizes names its own, too.
        let sizes = SIZES.map(|(size, _)| Place::from([size, "", ""].map(str::to_owned)));
        let mut all: Vec<&Place> = mine.iter().map(|(place, _)| place).collect();
        if row.sizes.1 > 1 {
            all.extend(&sizes);
        }
        let range = |pick: fn(&(f64, f64)) -> f64| {
            let (mut low, mut high) = (f64::MAX, f64::MIN);
            for value in values.iter().map(pick) {
                (low, high) = (low.min(value), high.max(value));
            }
            let (low, high) = (share(low), share(high));
            if low == high {
                low
            } else {
                format!("{low} to {high}")
            }
        };
        let mut name = places_name(&places, &all);
        if name.is_empty() {
            "everywhere".clone_into(&mut name);
        }
        let _ = writeln!(
            text,
            "| {}: {} | {name} | {} | {} |",
            row.group,
            row.what,
            range(|pair| pair.0),
            range(|pair| pair.1)
        );
    }
    text
}

/// Where byssal is behind whom it is compared with.
pub fn behind(rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let mut text = String::new();
    for pair in [
        (DEFAULT, MALLOCNG),
        (DEFAULT, "glibc"),
        (HARDENED, HARDENED_MALLOC),
        (HARDENED, MALLOCNG),
        (HARDENED, "mimalloc secure"),
    ] {
        let has = |column| allocators.iter().any(|a| a.column == column);
        if !has(pair.0) || !has(pair.1) {
            continue;
        }
        let lines = behind_one(pair, rows, allocators, results);
        let _ = writeln!(text, "\n### {} behind {}\n", pair.0, pair.1);
        if lines.is_empty() {
            text.push_str("Nowhere.\n");
        } else {
            let _ = write!(
                text,
                "| misuse | where | {} | {} |\n|---|---|---|---|\n{lines}",
                pair.0, pair.1
            );
        }
    }
    text
}

/// The worth of a cell and of a peer's, if the first is worse by more than chance explains.
fn behind_by(row: &Row, mine: &Cell, theirs: &Cell) -> Option<(f64, f64)> {
    let pair = match row.show {
        Show::Endings => (mine.worth()?, theirs.worth()?),
        Show::Mode => (1.0 - mine.mode(), 1.0 - theirs.mode()),
        Show::Mean => (1.0 - mine.mean(), 1.0 - theirs.mean()),
    };
    let trials = mine.trials.len().min(theirs.trials.len()) as f64;
    // Three standard deviations of the difference of two shares.
    let spread = |p: f64| p * (1.0 - p) / trials;
    let chance = 3.0 * (spread(pair.0) + spread(pair.1)).sqrt() + 1.0 / trials;
    (pair.0 + chance < pair.1).then_some(pair)
}
