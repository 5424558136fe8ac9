//! The most important misuses in few words, for pages that are not about them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::allocator::Allocator;
use crate::catalogue::{Row, SIZES};
use crate::count::Tally;
use crate::outcome::{Cell, Ending, Stage};
use crate::suite::{Results, HEAPS};
use crate::table::{cells_of, columns, share};

/// A line of the short table, and the programs whose trials it takes together.
struct Line {
    what: &'static str,
    programs: &'static [&'static str],
    /// Only these variants; all if empty.
    variants: &'static [u64],
}

const fn line(what: &'static str, programs: &'static [&'static str]) -> Line {
    Line {
        what,
        programs,
        variants: &[],
    }
}

const DOUBLE: Line = line(
    "double free, address not given out again",
    &[
        "double_free",
        "double_free_later",
        "double_free_remote",
        "double_free_by_other",
        "double_free_two_threads",
        "double_free_realloc",
    ],
);
const INVALID: Line = line(
    "invalid free",
    &[
        "free_odd",
        "free_misaligned",
        "free_interior",
        "free_stack",
        "free_global",
        "free_unmapped",
        "free_mapped",
        "free_wild",
        "free_chunk_end",
        "free_metadata",
        "free_aligned_raw",
    ],
);
const TEXT: Line = line("overflow by text", &["overflow_byte", "overflow_tail"]);
const WRITTEN: Line = line("write after free", &["write_freed"]);
const LINES: &[Line] = &[
    DOUBLE,
    INVALID,
    TEXT,
    line("overflow by strcpy's NUL", &["overflow_string"]),
    line("one byte 8 behind the end", &["overflow_at"]).only(&[8]),
    line("underflow", &["underflow"]),
    WRITTEN,
    line("write after free, memory not used again", &["write_idle"]),
    line("read after free", &["read_freed"]),
    line("old contents in a new block", &["contents"]).only(&[0, 1, 3, 4, 5]),
    line("string without end shows the guard", &["unterminated"]).only(&[0]),
    line("write to a block of 0 bytes", &["zero_size"]).only(&[0, 10, 20, 30]),
    line("read of a block of 0 bytes", &["zero_size"]).only(&[1, 11, 21, 31]),
    line("C++ delete with a wrong size", &["cxx_delete"]),
];

impl Line {
    const fn only(self, variants: &'static [u64]) -> Self {
        Line { variants, ..self }
    }

    /// The cell of one column.
    fn cell(
        &self,
        column: &str,
        rows: &[Row],
        allocators: &[Allocator],
        results: &Results,
    ) -> String {
        // By size: warm and cold, and all ways, together.
        let mut sizes = SIZES.map(|_| Cell::default());
        for (index, row) in rows.iter().enumerate() {
            let variant = self.variants.is_empty() || self.variants.contains(&row.variant);
            if !variant || !self.programs.contains(&row.program) {
                continue;
            }
            for (place, cell) in cells_of(index, column, allocators, results) {
                let size = SIZES.iter().position(|(name, _)| *name == place[0]);
                let trials = cell.trials.iter();
                let trials = trials.filter(|trial| trial.ending != Ending::Skipped);
                sizes[size.unwrap_or(0)].trials.extend(trials);
            }
        }
        let mut texts: Vec<(Vec<&str>, String)> = Vec::new();
        for ((name, _), cell) in SIZES.iter().zip(&sizes) {
            if cell.trials.is_empty() {
                continue;
            }
            let text = words(cell);
            match texts.iter_mut().find(|(_, other)| *other == text) {
                Some((names, _)) => names.push(name),
                None => texts.push((vec![name], text)),
            }
        }
        match &texts[..] {
            [] => "n/a".to_owned(),
            [(_, text)] => text.clone(),
            _ => {
                let parts = texts.iter();
                let parts = parts.map(|(names, text)| format!("{}: {text}", names.join("/")));
                parts.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// What stopped the trials, most frequent first, and how many if not all of them.
fn words(cell: &Cell) -> String {
    let mut counts: BTreeMap<(bool, String), usize> = BTreeMap::new();
    // What changes nothing tells something only where that is all.
    let all_harmless = !cell.trials.iter().any(|trial| trial.ending.counts());
    let trials = || {
        let trials = cell.trials.iter();
        trials.filter(|trial| all_harmless || trial.ending.counts())
    };
    for trial in trials() {
        let word = match trial.ending {
            Ending::Check {
                stage: Stage::Later,
                ..
            } if cell.latest() > 0 => format!("≤ {} later", cell.latest()),
            Ending::Crash(_) => "wild access".to_owned(),
            other => other.word().replace('*', ""),
        };
        *counts.entry((trial.ending.is_stopped(), word)).or_default() += 1;
    }
    let all = trials().count();
    let list = |stopped: bool| {
        let counts = counts.iter();
        let mut found: Vec<_> = counts.filter(|((good, _), _)| *good == stopped).collect();
        found.sort_by_key(|(_, count)| usize::MAX - **count);
        let sum: usize = found.iter().map(|(_, count)| **count).sum();
        // A word for fewer than one trial in twenty tells little.
        found.retain(|(_, count)| **count * 20 >= sum);
        let names: Vec<&str> = found.iter().map(|((_, word), _)| word.as_str()).collect();
        (sum, names.join(" or "))
    };
    let ((stopped, how), (_, else_what)) = (list(true), list(false));
    match stopped {
        0 => else_what,
        n if n == all => how,
        n => format!("{} {how}", share(n as f64 / all as f64)),
    }
}

/// Misuses down, allocators across.
pub fn misuses(rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let columns = columns(allocators);
    let mut text = format!(
        "| | {} |\n|{}\n",
        columns.join(" | "),
        "---|".repeat(columns.len() + 1)
    );
    for heap in HEAPS {
        let _ = write!(text, "| stopped in every trial, {heap} |");
        for column in &columns {
            let _ = write!(
                text,
                " {} |",
                stopped(column, heap, rows, allocators, results)
            );
        }
        text.push('\n');
    }
    for line in LINES {
        let _ = write!(text, "| {} |", line.what);
        for column in &columns {
            let _ = write!(text, " {} |", line.cell(column, rows, allocators, results));
        }
        text.push('\n');
    }
    text
}

/// Allocators down, a few misuses across.
pub fn allocators(rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let mut text = String::from(
        "| | misuses stopped, cold | warm | double free | overflow by text | write after free |\n\
         |---|---|---|---|---|---|\n",
    );
    for column in columns(allocators) {
        let _ = write!(text, "| {column} |");
        for heap in HEAPS {
            let _ = write!(
                text,
                " {} |",
                stopped(column, heap, rows, allocators, results)
            );
        }
        for line in [DOUBLE, TEXT, WRITTEN] {
            let _ = write!(text, " {} |", line.cell(column, rows, allocators, results));
        }
        text.push('\n');
    }
    text
}

/// How much of all a column stops in every trial, in the first of its ways: static, if it has that.
fn stopped(
    column: &str,
    heap: &str,
    rows: &[Row],
    allocators: &[Allocator],
    results: &Results,
) -> String {
    let Some(index) = allocators.iter().position(|a| a.column == column) else {
        return String::new();
    };
    let tally = Tally::new(rows, index, heap, results);
    format!("{} of {}", tally.stopped(), tally.all())
}
