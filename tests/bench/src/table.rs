//! The table in the terminal.

use std::fmt::Write;

use crate::results::{Allocator, Cell, Measure, Mode, Results, Row};

/// All of a run as text.
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    let m = &results.machine;
    let _ = writeln!(
        out,
        "\n{}, {} cores; {}; {}; commit {}; {}; {} rounds in {:.0} s",
        m.cpu, m.cores, m.kernel, m.compiler, m.commit, m.date, results.rounds, results.seconds
    );
    for mode in Mode::ALL {
        if results.of_mode(mode).is_empty() {
            continue;
        }
        for (what, measure) in [
            ("CPU seconds (user + system)", Measure::Cpu),
            ("peak RSS, MiB", Measure::Peak),
        ] {
            programs(&mut out, results, mode, what, measure);
        }
        means(&mut out, results, mode);
    }
    curves(&mut out, results);
    instructions(&mut out, results);
    extra(&mut out, results);
    failures(&mut out, results);
    for note in &results.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn short(name: &str) -> String {
    name.chars().take(11).collect()
}

/// Names of allocators over the columns; long ones in a second line.
fn head(out: &mut String, first: &str, allocators: &[&Allocator]) {
    let _ = write!(out, "{first:<26}");
    for a in allocators {
        let name = a
            .name
            .trim_start_matches("musl-")
            .trim_start_matches("rust-")
            .replace("byssal-hardened", "byssal-hard");
        let name = name
            .replace("hardened_malloc", "hmalloc")
            .replace("mimalloc", "mi");
        let _ = write!(out, "{:>12}", short(&name));
    }
    out.push('\n');
}

fn programs(out: &mut String, results: &Results, mode: Mode, what: &str, measure: Measure) {
    let allocators = results.of_mode(mode);
    let _ = writeln!(
        out,
        "\n== {}: {what}; median ±half the spread in %",
        mode.title()
    );
    head(out, "program", &allocators);
    for row in results.programs_of(mode) {
        let _ = write!(out, "{:<26}", row.name.chars().take(25).collect::<String>());
        for a in &allocators {
            let _ = write!(out, "{:>12}", entry(row, &a.name, measure));
        }
        out.push('\n');
    }
}

fn entry(row: &Row, allocator: &str, measure: Measure) -> String {
    let Some(cell) = row.cells.get(allocator) else {
        return "-".into();
    };
    let Some(s) = cell.summary(measure) else {
        return word(cell).into();
    };
    let unit = if measure == Measure::Peak {
        1024.0
    } else {
        1.0
    };
    let half = if s.median > 0.0 {
        50.0 * (s.max - s.min) / s.median
    } else {
        0.0
    };
    format!("{} ±{half:.0}", number(s.median / unit))
}

fn word(cell: &Cell) -> &'static str {
    match cell.failure.as_deref() {
        None => "-",
        Some(f) if f.starts_with("ran longer") => "TIMEOUT",
        Some(f) if f.starts_with("printed") || f.starts_with("did not") => "WRONG",
        Some(_) => "CRASH",
    }
}

/// Three digits that count.
pub fn number(x: f64) -> String {
    match x {
        x if x.abs() >= 100.0 => format!("{x:.0}"),
        x if x.abs() >= 10.0 => format!("{x:.1}"),
        x if x.abs() >= 1.0 => format!("{x:.2}"),
        x => format!("{x:.3}"),
    }
}

fn means(out: &mut String, results: &Results, mode: Mode) {
    let Some(base) = results.base(mode) else {
        return;
    };
    let _ = writeln!(
        out,
        "\n== {}: geometric means, {} = 1 (below 1: better than {})",
        mode.title(),
        base.name,
        base.name
    );
    let _ = writeln!(
        out,
        "{:<26}{:>10}{:>10}{:>10}{:>10}{:>7}",
        "allocator", "CPU", "wall", "RSS", "faults", "rows"
    );
    for a in results.of_mode(mode) {
        let _ = write!(out, "{:<26}", a.name);
        for measure in [Measure::Cpu, Measure::Wall, Measure::Peak, Measure::Faults] {
            let mean = results.mean(&a.name, &base.name, measure);
            let _ = write!(out, "{:>10}", mean.map_or("-".into(), |m| number(m.ratio)));
        }
        let rows = results.mean(&a.name, &base.name, Measure::Cpu);
        let _ = writeln!(out, "{:>7}", rows.map_or(0, |m| m.rows));
    }
}

/// The names of the scaling programs.
pub fn curve_names(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = results
        .rows
        .iter()
        .filter_map(|r| r.curve.as_deref())
        .collect();
    names.dedup();
    names
}

fn curves(out: &mut String, results: &Results) {
    for name in curve_names(results) {
        let points: Vec<&Row> = results
            .rows
            .iter()
            .filter(|r| r.curve.as_deref() == Some(name))
            .collect();
        let _ = write!(
            out,
            "\n== {name}: operations a second (millions) by threads\n{:<26}",
            ""
        );
        for row in &points {
            let _ = write!(out, "{:>10}", row.threads);
        }
        out.push('\n');
        let ran = |a: &&Allocator| points.iter().any(|row| row.cells.contains_key(&a.name));
        for a in results.allocators.iter().filter(ran) {
            let _ = write!(out, "{:<26}", a.name);
            for row in &points {
                let shown = match row.median(&a.name, Measure::Throughput) {
                    Some(n) => number(n / 1e6),
                    None => row.cells.get(&a.name).map_or("-", word).into(),
                };
                let _ = write!(out, "{shown:>10}");
            }
            out.push('\n');
        }
    }
}

/// Programs whose instructions were counted.
fn instructions(out: &mut String, results: &Results) {
    for mode in Mode::ALL {
        let allocators = results.of_mode(mode);
        let counted = |r: &&Row| {
            let cells = allocators.iter().filter_map(|a| r.cells.get(&a.name));
            cells.clone().any(|c| c.instructions.is_some())
        };
        let rows: Vec<&Row> = results.programs_of(mode).filter(counted).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(
            out,
            "\n== {}: millions of instructions (callgrind)",
            mode.title()
        );
        head(out, "program", &allocators);
        for row in rows {
            let _ = write!(out, "{:<26}", row.name);
            for a in &allocators {
                let count = row.cells.get(&a.name).and_then(|c| c.instructions);
                let shown = count.map_or("-".into(), |n| number(n as f64 / 1e6));
                let _ = write!(out, "{shown:>12}");
            }
            out.push('\n');
        }
    }
}

fn extra(out: &mut String, results: &Results) {
    let extra = &results.extra;
    if !extra.small.is_empty() {
        let _ = writeln!(
            out,
            "\n== small process: system calls, minor faults, anonymous KiB"
        );
    }
    for s in &extra.small {
        let calls = s.calls.map_or("skipped".into(), |n| n.to_string());
        let _ = writeln!(
            out,
            "{:<26}{:>5} blocks{calls:>10}{:>8.0}{:>8.0}",
            s.allocator, s.blocks, s.faults, s.anonymous_kib
        );
    }
    if !extra.pairs.is_empty() {
        let _ = writeln!(
            out,
            "\n== instructions of a malloc and a free, and of others (callgrind, loop included)"
        );
    }
    for p in &extra.pairs {
        let _ = writeln!(
            out,
            "{:<26}{:<22}{:>8.1}",
            p.allocator, p.what, p.instructions
        );
    }
    if !extra.given_back.is_empty() {
        let _ = writeln!(
            out,
            "\n== memory given back: KiB live, at the peak, a second after; \
             madvise + munmap per MiB freed"
        );
    }
    for g in &extra.given_back {
        let calls = g
            .calls_per_mib
            .map_or("skipped".into(), |n| format!("{n:.2}"));
        let _ = writeln!(
            out,
            "{:<26}{:<16}{:>8.0}{:>9.0}{:>9.0}{calls:>9}",
            g.allocator, g.what, g.live, g.peak, g.after
        );
    }
    if !extra.text.is_empty() {
        let _ = writeln!(out, "\n== bytes of a static program: text, data, bss");
    }
    for t in &extra.text {
        let _ = writeln!(
            out,
            "{:<26}{:>9}{:>9}{:>9}",
            t.allocator, t.text, t.data, t.bss
        );
    }
}

fn failures(out: &mut String, results: &Results) {
    for row in &results.rows {
        for (name, cell) in &row.cells {
            if let Some(why) = &cell.failure {
                let _ = writeln!(out, "FAILED: {} under {name}: {why}", row.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn a_failure_is_in_its_cell_and_told_below() {
        let mut results = results();
        results.rows[0]
            .cells
            .get_mut("peer")
            .expect("a cell")
            .failure = Some("signal 11".into());
        let text = text(&results);
        assert!(text.contains("CRASH"), "{text}");
        assert!(text.contains("FAILED: one under peer: signal 11"), "{text}");
    }

    #[test]
    fn means_and_spreads_are_shown() {
        let text = text(&results());
        assert!(text.contains("4.00"), "{text}");
        assert!(text.contains("1.10 ±9"), "{text}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<String> = [0.1234, 1.234, 12.34, 1234.0].map(number).into();
        assert_eq!(shown, ["0.123", "1.23", "12.3", "1234"]);
    }
}
