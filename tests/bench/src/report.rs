//! `report.html`: the same figures with pictures, in one file that needs no network.

use std::fmt::Write;
use std::path::Path;

use byssal_tool::error::Result;
use byssal_tool::project;

use crate::plots;
use crate::results::{Allocator, Cell, Measure, Mode, Results, Row};
use crate::table::{self, number};

const STYLE: &str = "
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{margin-top:2.2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}
td,th{padding:2px 6px;text-align:right;border:1px solid #fff}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
th{font-weight:600;vertical-align:bottom}.bad{background:#444;color:#fff}.none{color:#999}
.ours{font-weight:700}.wide{overflow-x:auto}svg{max-width:100%;height:auto}
.small{display:inline-block;width:400px;vertical-align:top;margin:4px}
pre{font-size:12px;overflow-x:auto;background:#f6f6f6;padding:1em}";

/// # Errors
/// When a picture cannot be drawn or the file cannot be written.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    project::write_file(path, html(results)?.as_bytes())
}

fn html(results: &Results) -> Result<String> {
    let m = &results.machine;
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>byssal beside its peers</title>\
         <style>{STYLE}</style><h1>byssal beside its peers</h1><p>{}, {} cores; {}; {}; commit {}; \
         {}; {} rounds in {:.0} s. Medians of interleaved rounds. How it was measured and how to \
         read it: docs/benchmark.md.</p>",
        escape(&m.cpu),
        m.cores,
        escape(&m.kernel),
        escape(&m.compiler),
        escape(&m.commit),
        escape(&m.date),
        results.rounds,
        results.seconds
    );
    for mode in Mode::ALL {
        if results.of_mode(mode).is_empty() {
            continue;
        }
        let _ = write!(out, "<h2>{}</h2>", mode.title());
        means(&mut out, results, mode);
        out += "<h3>RSS against time (geometric means, byssal = 1; lower left is better)</h3>";
        out += &plots::scatter(results, mode)?;
        for (what, measure) in [("CPU time", Measure::Cpu), ("peak RSS", Measure::Peak)] {
            heat(&mut out, results, mode, what, measure);
        }
        let _ = write!(
            out,
            "<h3>CPU seconds per program (whiskers: lowest and highest)</h3>"
        );
        for row in results.programs_of(mode) {
            let picture = plots::bars(results, row, mode)?;
            let _ = write!(
                out,
                "<div class=small title=\"{}\">{picture}</div>",
                escape(&row.pattern)
            );
        }
    }
    let curves = table::curve_names(results);
    if !curves.is_empty() {
        out += "<h2>Scaling: operations a second by threads</h2>";
        for name in curves {
            for mode in [Mode::Preload, Mode::Static] {
                if !results.of_mode(mode).is_empty() {
                    out += &plots::curve(results, name, mode)?;
                }
            }
        }
    }
    out += "<h2>Allocators</h2>";
    allocators(&mut out, results);
    out += "<h2>Everything as text</h2><pre>";
    out += &escape(&table::text(results));
    out += "</pre></html>";
    Ok(out)
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn means(out: &mut String, results: &Results, mode: Mode) {
    let Some(base) = results.base(mode) else {
        return;
    };
    let _ = write!(
        out,
        "<p>Geometric means, {} = 1; above 1 is worse than {}. A pair's programs are those that \
         both finished rightly.</p><table><tr><th>allocator<th>CPU<th>wall<th>RSS<th>faults\
         <th>programs",
        base.name, base.name
    );
    for a in results.of_mode(mode) {
        let class = if a.ours { " class=ours" } else { "" };
        let _ = write!(out, "<tr{class}><td>{}", escape(&a.name));
        for measure in [Measure::Cpu, Measure::Wall, Measure::Peak, Measure::Faults] {
            let mean = results.mean(&a.name, &base.name, measure);
            coloured(out, mean.map(|m| m.ratio), None, "");
        }
        let rows = results
            .mean(&a.name, &base.name, Measure::Cpu)
            .map_or(0, |m| m.rows);
        let _ = write!(out, "<td>{rows}");
    }
    out.push_str("</table>");
}

/// A cell with a ratio on red (worse than the base) or green (better), deeper with its logarithm.
fn coloured(out: &mut String, ratio: Option<f64>, cell: Option<&Cell>, title: &str) {
    match (ratio, cell.and_then(|c| c.failure.as_deref())) {
        (_, Some(why)) => {
            let _ = write!(out, "<td class=bad title=\"{}\">failed", escape(why));
        }
        (Some(ratio), None) => {
            let depth = (ratio.log2().abs() / 3.0).min(1.0);
            let fade = (255.0 - 150.0 * depth) as u8;
            let colour = if ratio > 1.0 {
                format!("rgb(255,{fade},{fade})")
            } else {
                format!("rgb({fade},{},{fade})", 255 - (25.0 * depth) as u8)
            };
            let shown = number(ratio);
            let _ = write!(
                out,
                "<td style=\"background:{colour}\" title=\"{}\">{shown}",
                escape(title)
            );
        }
        (None, None) => out.push_str("<td class=none>-"),
    }
}

fn heat(out: &mut String, results: &Results, mode: Mode, what: &str, measure: Measure) {
    let Some(base) = results.base(mode) else {
        return;
    };
    let all = results.of_mode(mode);
    let _ = write!(
        out,
        "<h3>{what} as a multiple of {} (red: worse than byssal, green: better, dark: failed)</h3>\
         <div class=wide><table><tr><th>program<th>{}",
        base.name, base.name
    );
    let peers: Vec<&&Allocator> = all.iter().filter(|a| a.name != base.name).collect();
    for a in &peers {
        let _ = write!(out, "<th>{}", escape(&a.name).replace('-', "-<wbr>"));
    }
    for row in results.programs_of(mode) {
        heat_row(out, row, base, &peers, measure);
    }
    out.push_str("</table></div>");
}

fn heat_row(
    out: &mut String,
    row: &Row,
    base: &Allocator,
    peers: &[&&Allocator],
    measure: Measure,
) {
    let (name, pattern) = (escape(&row.name), escape(&row.pattern));
    let kind = if row.real { " (real)" } else { "" };
    let _ = write!(out, "<tr><td title=\"{pattern}\">{name}{kind}");
    let (unit, scale) = match measure {
        Measure::Peak => ("MiB", 1024.0),
        _ => ("s", 1.0),
    };
    match row.cells.get(&base.name) {
        Some(Cell {
            failure: Some(why), ..
        }) => {
            let _ = write!(out, "<td class=bad title=\"{}\">failed", escape(why));
        }
        _ => {
            let shown = row.median(&base.name, measure).map(|m| number(m / scale));
            let _ = write!(out, "<td>{} {unit}", shown.unwrap_or("-".into()));
        }
    }
    for a in peers {
        let cell = row.cells.get(&a.name);
        let title = cell
            .and_then(|c| c.summary(measure))
            .map_or(String::new(), |s| {
                let [m, low, high] = [s.median, s.min, s.max].map(|x| number(x / scale));
                format!("{m} {unit} ({low} to {high})")
            });
        coloured(out, row.ratio(&a.name, &base.name, measure), cell, &title);
    }
}

fn allocators(out: &mut String, results: &Results) {
    out.push_str("<table><tr><th>name<th>version<th>hardened<th>flags");
    for a in &results.allocators {
        let hardened = if a.hardened { "yes" } else { "no" };
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{hardened}<td style=\"text-align:left\">{}",
            escape(&a.name),
            escape(&a.version),
            escape(&a.flags)
        );
    }
    out.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{cell, results};

    #[test]
    fn the_page_needs_no_network_and_names_what_failed() {
        let mut results = results();
        results.rows[0]
            .cells
            .get_mut("peer")
            .expect("a cell")
            .failure = Some("signal <11>".into());
        let mut point = Row {
            name: "curve 2".into(),
            curve: Some("curve".into()),
            pattern: String::new(),
            threads: 2,
            real: false,
            cells: [("byssal".into(), cell(&[1.0]))].into(),
        };
        point.cells.insert("peer".into(), cell(&[3.0]));
        results.rows.push(point);
        let page = html(&results).expect("a page");
        assert!(page.contains("signal &lt;11&gt;"));
        assert!(page.matches("<svg").count() >= 4);
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
