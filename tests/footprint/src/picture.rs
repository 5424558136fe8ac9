//! The picture: a panel a workload, live bytes as an area, what each allocator held as lines.

use crate::table::Column;
use crate::workload::{Moment, WORKLOADS};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// Panels side by side.
const ACROSS: usize = 2;
/// Width and height of a panel in pixels.
const PANEL: (u32, u32) = (620, 300);
/// Colours of the columns, in their order.
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(255, 152, 150),
    RGBColor(127, 0, 0),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(127, 127, 127),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the picture as SVG.
///
/// # Errors
/// What could not be drawn or written.
pub fn draw(columns: &[Column], to: &Path) -> Result<(), Box<dyn Error>> {
    let down = WORKLOADS.len().div_ceil(ACROSS) as u32;
    let size = (PANEL.0 * ACROSS as u32, PANEL.1 * down + 40);
    let root = SVGBackend::new(to, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (legend, panels) = root.split_vertically(40);
    draw_legend(columns, &legend)?;
    let areas = panels.split_evenly((down as usize, ACROSS));
    for ((workload, about), area) in WORKLOADS.iter().zip(areas) {
        draw_panel(columns, workload, &format!("{workload}: {about}"), &area)?;
    }
    root.present()?;
    Ok(())
}

/// Names and colours.
fn draw_legend(columns: &[Column], area: &Area) -> Result<(), Box<dyn Error>> {
    let style = ("sans-serif", 15).into_font();
    area.draw(&Rectangle::new(
        [(20, 12), (40, 26)],
        BLACK.mix(0.15).filled(),
    ))?;
    area.draw(&Text::new("live", (46, 12), style.clone()))?;
    for (i, column) in columns.iter().enumerate() {
        let x = 100 + 135 * i as i32;
        let line = [(x, 19), (x + 20, 19)];
        area.draw(&PathElement::new(line, colour(i).stroke_width(3)))?;
        area.draw(&Text::new(column.name, (x + 26, 12), style.clone()))?;
    }
    Ok(())
}

fn colour(column: usize) -> RGBColor {
    COLOURS[column % COLOURS.len()]
}

/// Time from 0 to 1, and MiB.
fn curve(samples: &[Moment], value: fn(&Moment) -> u64) -> Vec<(f64, f64)> {
    let last = samples.len().saturating_sub(1).max(1) as f64;
    let point = |(i, moment)| (i as f64 / last, value(moment) as f64 / f64::from(1 << 20));
    samples.iter().enumerate().map(point).collect()
}

/// One workload.
fn draw_panel(
    columns: &[Column],
    workload: &str,
    title: &str,
    area: &Area,
) -> Result<(), Box<dyn Error>> {
    let runs: Vec<_> = columns
        .iter()
        .enumerate()
        .filter_map(|(i, column)| {
            let (_, run) = column.runs.iter().find(|(name, _)| *name == workload)?;
            Some((i, run.as_ref().ok()?))
        })
        .collect();
    let Some((_, first)) = runs.first() else {
        return Ok(());
    };
    let top = runs.iter().map(|(_, run)| run.peak.footprint).max();
    let top = top.unwrap_or_default() as f64 / f64::from(1 << 20) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(18)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..1.0, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .x_desc("time")
        .y_desc("MiB")
        .light_line_style(WHITE)
        .draw()?;
    let live = curve(&first.samples, |moment| moment.live);
    chart.draw_series(AreaSeries::new(live, 0.0, BLACK.mix(0.15)))?;
    // The first columns matter most: they are drawn last.
    for (i, run) in runs.iter().rev() {
        let held = curve(&run.samples, |moment| moment.footprint);
        chart.draw_series(LineSeries::new(held, colour(*i).stroke_width(2)))?;
    }
    Ok(())
}
