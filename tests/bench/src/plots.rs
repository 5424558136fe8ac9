//! The pictures, as SVG text.

use byssal_tool::error::{Error, Kind, Result};
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use crate::results::{Measure, Mode, Results, Row};

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::System, format!("drawing: {e}"))
}

/// Ours stand out; others take colours that differ also for the colour-blind.
fn colour(results: &Results, allocator: &str) -> RGBColor {
    const OURS: RGBColor = RGBColor(0, 60, 200);
    const OTHERS: [RGBColor; 12] = [
        RGBColor(230, 159, 0),
        RGBColor(0, 158, 115),
        RGBColor(213, 94, 0),
        RGBColor(204, 121, 167),
        RGBColor(86, 180, 233),
        RGBColor(120, 94, 60),
        RGBColor(120, 120, 120),
        RGBColor(170, 170, 30),
        RGBColor(150, 50, 50),
        RGBColor(90, 150, 60),
        RGBColor(140, 100, 200),
        RGBColor(60, 60, 60),
    ];
    let place = results
        .allocators
        .iter()
        .position(|a| a.name == allocator)
        .unwrap_or(0);
    match results.allocators.get(place) {
        Some(a) if a.ours && a.name.ends_with("hardened") => RGBColor(90, 140, 240),
        Some(a) if a.ours => OURS,
        _ => OTHERS[place % OTHERS.len()],
    }
}

/// CPU time of one program, a bar for each allocator.
pub fn bars(results: &Results, row: &Row, mode: Mode) -> Result<String> {
    let all = results.of_mode(mode);
    let names: Vec<&str> = all.iter().rev().map(|a| a.name.as_str()).collect();
    let summaries: Vec<_> = names
        .iter()
        .map(|n| row.cells.get(*n).and_then(|c| c.summary(Measure::Cpu)))
        .collect();
    let most = summaries
        .iter()
        .flatten()
        .map(|s| s.max)
        .fold(0.0, f64::max);
    let mut svg = String::new();
    let height = 60 + 17 * names.len() as u32;
    let root = SVGBackend::with_string(&mut svg, (400, height)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&row.name, ("sans-serif", 15))
        .margin_right(14)
        .x_label_area_size(22)
        .y_label_area_size(150)
        .build_cartesian_2d(
            0.0..(most * 1.05).max(1e-3),
            (0..names.len()).into_segmented(),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_labels(5)
        .y_labels(names.len())
        .y_label_formatter(&|v| match v {
            SegmentValue::CenterOf(i) => (*names.get(*i).unwrap_or(&"")).to_owned(),
            _ => String::new(),
        })
        .label_style(("sans-serif", 11))
        .draw()
        .map_err(failed)?;
    for (i, summary) in summaries.iter().enumerate() {
        let middle = SegmentValue::CenterOf(i);
        let Some(s) = summary else {
            let why = match row.cells.get(names[i]).map(|c| c.failure.is_some()) {
                Some(true) => "failed",
                _ => "not run",
            };
            let text = Text::new(why, (0.0, middle), ("sans-serif", 11));
            chart.draw_series([text]).map_err(failed)?;
            continue;
        };
        let corners = [
            (0.0, SegmentValue::Exact(i)),
            (s.median, SegmentValue::Exact(i + 1)),
        ];
        let mut bar = Rectangle::new(corners, colour(results, names[i]).filled());
        bar.set_margin(3, 3, 0, 0);
        chart.draw_series([bar]).map_err(failed)?;
        let whisker = PathElement::new(vec![(s.min, middle.clone()), (s.max, middle)], BLACK);
        chart.draw_series([whisker]).map_err(failed)?;
    }
    root.present().map_err(failed)?;
    drop(chart);
    drop(root);
    Ok(svg)
}

/// Geometric means of memory over those of time.
pub fn scatter(results: &Results, mode: Mode) -> Result<String> {
    let Some(base) = results.base(mode) else {
        return Ok(String::new());
    };
    let points: Vec<(&str, f64, f64)> = results
        .of_mode(mode)
        .into_iter()
        .filter_map(|a| {
            let mean = |m| Some(results.mean(&a.name, &base.name, m)?.ratio);
            Some((a.name.as_str(), mean(Measure::Cpu)?, mean(Measure::Peak)?))
        })
        .collect();
    let range = |pick: fn(&(&str, f64, f64)) -> f64| {
        let values = points.iter().map(pick);
        0.0..values.fold(1.0f64, f64::max) * 1.25
    };
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (860, 480)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(range(|p| p.1), range(|p| p.2))
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("CPU time")
        .y_desc("peak RSS")
        .label_style(("sans-serif", 12))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (name, x, y) in &points {
        let colour = colour(results, name);
        let dot = EmptyElement::at((*x, *y))
            + Circle::new((0, 0), 5, colour.filled())
            + Text::new((*name).to_owned(), (8, -6), ("sans-serif", 13).into_font());
        chart.draw_series([dot]).map_err(failed)?;
    }
    root.present().map_err(failed)?;
    drop(chart);
    drop(root);
    Ok(svg)
}

/// Operations a second over the number of threads, a line for each allocator.
pub fn curve(results: &Results, name: &str, mode: Mode) -> Result<String> {
    let rows: Vec<&Row> = results
        .rows
        .iter()
        .filter(|r| r.curve.as_deref() == Some(name))
        .collect();
    let lines: Vec<(&str, Vec<(f64, f64)>)> = results
        .of_mode(mode)
        .into_iter()
        .map(|a| {
            let point = |r: &&Row| {
                Some((
                    f64::from(r.threads),
                    r.median(&a.name, Measure::Throughput)? / 1e6,
                ))
            };
            (a.name.as_str(), rows.iter().filter_map(point).collect())
        })
        .collect();
    let values = || {
        lines
            .iter()
            .flat_map(|(_, l)| l.iter().map(|p| p.1))
            .filter(|v| *v > 0.0)
    };
    let most = values().fold(f64::NAN, f64::max);
    if most.is_nan() {
        return Ok(String::new());
    }
    let threads = rows
        .iter()
        .map(|r| f64::from(r.threads))
        .fold(2.0, f64::max);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (860, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{name}: {}", mode.title()), ("sans-serif", 16))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            // Room for the names on the right.
            (1.0..threads * 8.0).log_scale().base(2.0),
            0.0..most * 1.1,
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("threads")
        .y_desc("million operations a second")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(("sans-serif", 12))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (name, points) in lines.iter().filter(|(_, p)| !p.is_empty()) {
        let colour = colour(results, name);
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        let dots = points.iter().map(|p| Circle::new(*p, 3, colour.filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)?;
    drop(chart);
    drop(root);
    Ok(svg)
}
