//! The table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::allocator::Allocator;
use crate::catalogue::{Row, Show, SIZES};
use crate::outcome::Cell;
use crate::suite::{Results, HEAPS};

/// A cell's place within its column: size, heap, way.
pub type Place = [String; 3];

/// Columns in order of first appearance.
pub fn columns(allocators: &[Allocator]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for allocator in allocators {
        if !columns.contains(&allocator.column.as_str()) {
            columns.push(&allocator.column);
        }
    }
    columns
}

/// The table in Markdown.
pub fn markdown(rows: &[Row], allocators: &[Allocator], results: &Results) -> String {
    let columns = columns(allocators);
    let mut text = String::new();
    let _ = writeln!(text, "| | {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len() + 1));
    let mut group = "";
    for (index, row) in rows.iter().enumerate() {
        if row.group != group {
            group = row.group;
            let _ = writeln!(text, "| **{group}** |{}", " |".repeat(columns.len()));
        }
        let _ = write!(text, "| {} |", row.what);
        for column in &columns {
            let cells = cells_of(index, column, allocators, results);
            let _ = write!(text, " {} |", merged(row, &cells));
        }
        text.push('\n');
    }
    text
}

/// The cells of one row and column.
pub fn cells_of<'a>(
    row: usize,
    column: &str,
    allocators: &[Allocator],
    results: &'a Results,
) -> Vec<(Place, &'a Cell)> {
    results
        .iter()
        .filter(|(job, _)| job.row == row && allocators[job.allocator].column == column)
        .map(|(job, cell)| {
            let place = [
                SIZES[job.size].0.to_owned(),
                job.heap.to_owned(),
                allocators[job.allocator].way_name().to_owned(),
            ];
            (place, cell)
        })
        .collect()
}

/// A cell's words, most frequent first: what must agree for cells to be shown as one.
fn signature(row: &Row, cell: &Cell) -> Vec<String> {
    match row.show {
        Show::Mode => vec![share(cell.mode())],
        Show::Mean => vec![share(cell.mean())],
        Show::Endings => {
            let mut words: Vec<_> = cell.words().into_iter().collect();
            words.sort_by_key(|(word, count)| (usize::MAX - count, word.clone()));
            words.into_iter().map(|(word, _)| word).collect()
        }
    }
}

/// A share in percent.
pub fn share(part: f64) -> String {
    match part * 100.0 {
        0.0 => "0".to_owned(),
        p if p <= 0.1 => "≤ 0.1 %".to_owned(),
        p if p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// Cells that agree are shown as one, with the places where they hold if not everywhere.
fn merged(row: &Row, cells: &[(Place, &Cell)]) -> String {
    if cells.is_empty() {
        return String::new();
    }
    let mut groups: BTreeMap<Vec<String>, Vec<&(Place, &Cell)>> = BTreeMap::new();
    for cell in cells {
        groups.entry(signature(row, cell.1)).or_default().push(cell);
    }
    let all: Vec<&Place> = cells.iter().map(|(place, _)| place).collect();
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, members)| usize::MAX - members.len());
    let alone = groups.len() == 1;
    let texts = groups.into_iter().map(|(words, members)| {
        let text = pooled(row, &words, &members);
        if alone {
            return text;
        }
        let places: Vec<&Place> = members.iter().map(|(place, _)| place).collect();
        format!("{}: {text}", places_name(&places, &all))
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// The text of cells with the same words: their rates are taken together.
fn pooled(row: &Row, words: &[String], members: &[&(Place, &Cell)]) -> String {
    if row.show != Show::Endings {
        return words.join("");
    }
    if words.is_empty() {
        return "did not run".to_owned();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut latest = 0;
    for (_, cell) in members {
        latest = latest.max(cell.latest());
        for (word, count) in cell.words() {
            *counts.entry(word).or_insert(0) += count;
        }
    }
    let total: usize = counts.values().sum();
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(word, count)| (usize::MAX - count, word.clone()));
    let texts = counts.iter().map(|(word, count)| {
        let word = if word == "later" && latest > 0 {
            format!("≤ {latest} later")
        } else {
            word.clone()
        };
        if *count == total {
            word
        } else {
            format!("{} {word}", share(*count as f64 / total as f64))
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// A short name for some of the places: only the dimensions that tell them from the others.
pub fn places_name(some: &[&Place], all: &[&Place]) -> String {
    let values = |places: &[&Place], dimension: usize| -> BTreeSet<String> {
        places.iter().map(|p| p[dimension].clone()).collect()
    };
    let product: usize = (0..3).map(|d| values(some, d).len()).product();
    if product != some.len() {
        // Not a box: cut it along the first dimension that has several values.
        let cut = (0..3).find(|&d| values(some, d).len() > 1).unwrap_or(0);
        let parts: Vec<String> = ordered(&values(some, cut))
            .iter()
            .map(|value| {
                let part: Vec<&Place> = some.iter().copied().filter(|p| p[cut] == *value).collect();
                places_name(&part, all)
            })
            .collect();
        return parts.join(", ");
    }
    let names: Vec<String> = (0..3)
        .filter(|&d| values(some, d) != values(all, d))
        .map(|d| ordered(&values(some, d)).join("/"))
        .collect();
    names.join(" ")
}

/// Values in the order of the table's words.
fn ordered(values: &BTreeSet<String>) -> Vec<String> {
    let sizes = SIZES.iter().map(|(name, _)| *name);
    let order: Vec<&str> = sizes
        .chain(HEAPS)
        .chain(["static", "dynamic", "preload"])
        .collect();
    let mut values: Vec<String> = values.iter().cloned().collect();
    values.sort_by_key(|value| order.iter().position(|word| word == value));
    values
}
