//! What grew between two looks.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;

use crate::look::report::bytes;
use crate::look::view::{Class, View};

/// A number and how it changed.
fn change(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(0) => "=".to_owned(),
        Some(more) => format!("+{}", bytes(more)),
        None => format!("-{}", bytes(before - after)),
    }
}

fn count_change(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(0) => "=".to_owned(),
        Some(more) => format!("+{more}"),
        None => format!("-{}", before - after),
    }
}

/// The classes of two looks that differ in live bytes, those that grew most first.
fn changed_classes(before: &View, after: &View) -> Vec<(Class, Class)> {
    let (old, new) = (before.by_class(), after.by_class());
    let all: BTreeSet<usize> = old.keys().chain(new.keys()).copied().collect();
    let of = |class: usize| {
        let none = Class {
            class,
            stride: byssal_heap::base::size_class::stride(class) as u64,
            ..Class::default()
        };
        let find = |classes: &std::collections::BTreeMap<usize, Class>| {
            classes.get(&class).copied().unwrap_or(none)
        };
        (find(&old), find(&new))
    };
    let mut changed: Vec<(Class, Class)> = all.into_iter().map(of).collect();
    changed.retain(|(old, new)| (old.live, old.blocks) != (new.live, new.blocks));
    changed.sort_by_key(|(old, new)| Reverse(i128::from(new.live) - i128::from(old.live)));
    changed
}

/// A table of the classes that changed from one look to another, so many at most.
fn class_rows(out: &mut String, before: &View, after: &View, most: usize) {
    let _ = writeln!(
        out,
        "{:>8} {:>12} {:>12} {:>11}",
        "slot", "grew by", "blocks", "live"
    );
    for (old, new) in changed_classes(before, after).into_iter().take(most) {
        let _ = writeln!(
            out,
            "{:>8} {:>12} {:>12} {:>11}",
            new.stride,
            change(old.live, new.live),
            count_change(old.blocks, new.blocks),
            bytes(new.live)
        );
    }
}

/// What changed from one look to another, for people.
pub fn text(before: &View, after: &View) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "from {}\n  to {}\n", before.program, after.program);
    let (old, new) = (&before.totals, &after.totals);
    let large = |totals: &crate::look::view::Totals| totals.live.saturating_sub(totals.small_live);
    let rows = [
        ("live", old.live, new.live),
        ("  in slots", old.small_live, new.small_live),
        ("  large", large(old), large(new)),
        ("retained", before.retained.sum(), after.retained.sum()),
        ("slack", before.retained.slack, after.retained.slack),
        (
            "metadata",
            before.retained.metadata,
            after.retained.metadata,
        ),
    ];
    for (name, old, new) in rows {
        let _ = writeln!(
            out,
            "{name:<12}{:>11} {:>11} {:>12}",
            bytes(old),
            bytes(new),
            change(old, new)
        );
    }
    let _ = writeln!(
        out,
        "{:<12}{:>11} {:>11} {:>12}",
        "blocks",
        old.blocks,
        new.blocks,
        count_change(old.blocks, new.blocks)
    );
    out.push('\n');
    class_rows(&mut out, before, after, usize::MAX);
    out
}

/// Classes that a watched table has at most.
const WATCHED: usize = 20;

/// A table of a process that is watched: what it has, and what grew since the first look.
pub fn watched(first: &View, now: &View, since: std::time::Duration) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}, {} s\nlive {} ({})  retained {} ({})  blocks {} ({})",
        now.program,
        since.as_secs(),
        bytes(now.totals.live),
        change(first.totals.live, now.totals.live),
        bytes(now.retained.sum()),
        change(first.retained.sum(), now.retained.sum()),
        now.totals.blocks,
        count_change(first.totals.blocks, now.totals.blocks)
    );
    class_rows(&mut out, first, now, WATCHED);
    out
}
