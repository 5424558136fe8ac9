//! Two runs side by side: what changed by more than the runs themselves vary.

use std::fmt::Write;

use crate::results::{Measure, Results, Row};
use crate::statistics;
use crate::table::number;

/// Tells the change from `a` to `b`, for allocators and programs that both have.
pub fn text(a: &Results, b: &Results) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "from commit {} ({}) to {} ({}); a ratio below 1 is a gain",
        a.machine.commit, a.machine.date, b.machine.commit, b.machine.date
    );
    if a.size != b.size {
        let _ = writeln!(
            out,
            "warning: one run is quick, the other full: their programs differ"
        );
    }
    if a.machine.cpu != b.machine.cpu {
        let _ = writeln!(out, "warning: {} and {}", a.machine.cpu, b.machine.cpu);
    }
    let _ = writeln!(
        out,
        "\n{:<26}{:>8}{:>8}{:>6}",
        "geometric mean", "CPU", "RSS", "rows"
    );
    for allocator in &b.allocators {
        let ratios = |measure| -> Vec<f64> {
            pairs(a, b)
                .filter_map(|(x, y)| change(x, y, &allocator.name, measure))
                .collect()
        };
        let (cpu, peak) = (ratios(Measure::Cpu), ratios(Measure::Peak));
        let mean = |r: &[f64]| statistics::geometric_mean(r).map_or("-".into(), number);
        let name = &allocator.name;
        let _ = writeln!(
            out,
            "{name:<26}{:>8}{:>8}{:>6}",
            mean(&cpu),
            mean(&peak),
            cpu.len()
        );
    }
    let _ = writeln!(out, "\nprograms whose samples lie apart in the two runs:");
    for allocator in &b.allocators {
        for (x, y) in pairs(a, b) {
            for (what, measure) in [("CPU", Measure::Cpu), ("RSS", Measure::Peak)] {
                out += &apart(x, y, &allocator.name, what, measure).unwrap_or_default();
            }
        }
    }
    out
}

fn pairs<'a>(a: &'a Results, b: &'a Results) -> impl Iterator<Item = (&'a Row, &'a Row)> {
    b.programs()
        .filter_map(|y| Some((a.programs().find(|x| x.name == y.name)?, y)))
}

fn change(x: &Row, y: &Row, allocator: &str, measure: Measure) -> Option<f64> {
    let (before, after) = (x.median(allocator, measure)?, y.median(allocator, measure)?);
    (before > 0.0 && after > 0.0).then(|| after / before)
}

fn apart(x: &Row, y: &Row, allocator: &str, what: &str, measure: Measure) -> Option<String> {
    let (before, after) = (x.cells.get(allocator)?, y.cells.get(allocator)?);
    if before.failure != after.failure {
        let told = |f: &Option<String>| f.clone().unwrap_or("passed".into());
        return (measure == Measure::Cpu).then(|| {
            let (f, g) = (told(&before.failure), told(&after.failure));
            format!("  {allocator:<22} {:<26} {f} -> {g}\n", y.name)
        });
    }
    let (s, t) = (before.summary(measure)?, after.summary(measure)?);
    statistics::apart(&s, &t).then(|| {
        let (from, to) = (number(s.median), number(t.median));
        let ratio = number(t.median / s.median);
        format!(
            "  {allocator:<22} {:<26} {what} {from} -> {to}, x{ratio}\n",
            y.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{cell, results};

    #[test]
    fn only_what_lies_apart_is_told() {
        let (a, mut b) = (results(), results());
        b.rows[0].cells.insert("peer".into(), cell(&[1.0, 1.0]));
        b.rows[1].cells.insert("byssal".into(), cell(&[1.1, 1.3]));
        let text = text(&a, &b);
        assert!(text.contains("CPU 2.00 -> 1.00, x0.500"), "{text}");
        assert_eq!(text.matches("CPU 1").count(), 0, "{text}");
    }

    #[test]
    fn a_new_failure_is_told() {
        let (a, mut b) = (results(), results());
        b.rows[0].cells.get_mut("byssal").expect("a cell").failure = Some("signal 4".into());
        assert!(text(&a, &b).contains("passed -> signal 4"));
    }
}
