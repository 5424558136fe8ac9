//! The tables, in Markdown, and the targets.

use crate::workload::{Run, WORKLOADS};
use std::fmt::Write as _;

/// What one allocator did in every workload; a text where it could not run.
pub struct Column {
    pub name: &'static str,
    pub ours: bool,
    pub runs: Vec<(&'static str, Result<Run, String>)>,
}

impl Column {
    fn run(&self, workload: &str) -> Option<&Run> {
        self.runs
            .iter()
            .find(|(name, _)| *name == workload)
            .and_then(|(_, run)| run.as_ref().ok())
    }
}

/// Columns of a table: name, and a cell for a run.
type Cell = fn(&Run) -> Option<String>;

/// One table, a row a workload, a column an allocator.
fn table(text: &mut String, title: &str, columns: &[Column], live: Cell, cell: Cell) {
    let _ = writeln!(text, "{title}\n");
    let _ = write!(text, "| workload | live |");
    for column in columns {
        let _ = write!(text, " {} |", column.name);
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(columns.len()));
    for (workload, about) in WORKLOADS {
        let runs: Vec<_> = columns.iter().map(|c| c.run(workload)).collect();
        let Some(first) = runs.iter().flatten().find_map(|run| live(run)) else {
            continue;
        };
        let _ = write!(text, "| {workload}: {about} | {first} |");
        for run in runs {
            let shown = run.and_then(cell).unwrap_or_else(|| "-".to_owned());
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

/// All tables.
pub fn markdown(columns: &[Column]) -> String {
    let mut text = String::new();
    table(
        &mut text,
        "Most bytes held, over the most live bytes:",
        columns,
        |run| Some(mib(run.peak.live)),
        |run| Some(format!("{:.2}", run.peak.ratio())),
    );
    table(
        &mut text,
        "Bytes held over live bytes at the worst moment at which much had been freed:",
        columns,
        |run| run.thin.map(|thin| mib(thin.live)),
        |run| run.thin.map(|thin| format!("{:.2}", thin.ratio())),
    );
    table(
        &mut text,
        "KiB above those at the start when everything is freed: at once / after 30 ms of little work:",
        columns,
        |_| Some("0".to_owned()),
        |run| Some(format!("{} / {}", run.at_once / 1024, run.freed / 1024)),
    );
    for column in columns.iter().filter(|column| column.ours) {
        let worst = column
            .runs
            .iter()
            .filter_map(|(name, run)| Some((run.as_ref().ok()?.bound, *name)))
            .max();
        if let Some((share, workload)) = worst {
            let _ = writeln!(
                text,
                "{}: at most {:.0} % of the stated bound ({workload}).",
                column.name,
                share as f64 / 10.0
            );
        }
    }
    text
}

/// Broken bounds and failed runs of byssal's: each a failure.
pub fn failures(columns: &[Column]) -> Vec<String> {
    let mut failures = Vec::new();
    for column in columns.iter().filter(|column| column.ours) {
        for (workload, run) in &column.runs {
            let name = format!("{workload} with {}", column.name);
            match run {
                Err(why) => failures.push(format!("{name}: {why}")),
                Ok(run) => {
                    failures.extend(run.broken.iter().map(|line| format!("{name}: {line}")));
                    if run.bound > 1000 {
                        failures.push(format!("{name}: {} thousandths of the bound", run.bound));
                    }
                }
            }
        }
    }
    failures
}

/// Where byssal misses its targets: peaks within a tenth of the first column's, a MiB at the end.
pub fn misses(columns: &[Column]) -> Vec<String> {
    let mut misses = Vec::new();
    for column in columns.iter().filter(|column| column.ours) {
        for (workload, _) in WORKLOADS {
            let (Some(run), Some(base)) = (column.run(workload), columns[0].run(workload)) else {
                continue;
            };
            let peak = run.peak.ratio() / base.peak.ratio();
            if peak > 1.1 {
                misses.push(format!(
                    "{workload}, {}: peak {peak:.2} of {}'s",
                    column.name, columns[0].name
                ));
            }
            if run.freed > 1 << 20 {
                misses.push(format!(
                    "{workload}, {}: {} KiB stay",
                    column.name,
                    run.freed / 1024
                ));
            }
        }
    }
    misses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Moment;

    fn column(name: &'static str, ours: bool, run: Run) -> Column {
        Column {
            name,
            ours,
            runs: vec![("robson", Ok(run))],
        }
    }

    #[test]
    fn a_broken_bound_is_a_failure_and_a_fat_peak_a_miss() {
        let run = |footprint, bound| Run {
            peak: Moment {
                live: 100,
                footprint,
            },
            bound,
            ..Run::default()
        };
        let columns = [
            column("base", false, run(100, 2000)),
            column("fit", true, run(105, 1000)),
            column("fat", true, run(150, 1001)),
        ];
        assert_eq!(failures(&columns).len(), 1);
        assert_eq!(misses(&columns), ["robson, fat: peak 1.50 of base's"]);
        assert!(markdown(&columns).contains("| 1.00 | 1.05 | 1.50 |"));
    }
}
