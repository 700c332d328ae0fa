//! Rows as pictures: SVG text that a page can hold.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use super::figures::Row;

/// Width and height of one picture.
const SIZE: (u32, u32) = (520, 260);
const FONT: &str = "sans-serif";

/// Of the configuration in this place of the list; those of one kind look alike.
pub(super) fn colour(configuration: &str) -> RGBColor {
    let kinds = [
        ("outside", RGBColor(140, 180, 220)),
        ("inside, 10 ", RGBColor(60, 120, 200)),
        ("inside, 1000 ", RGBColor(30, 80, 160)),
        ("inside", RGBColor(10, 40, 110)),
        ("landlock, 10 ", RGBColor(240, 170, 80)),
        ("landlock", RGBColor(210, 120, 30)),
        ("apparmor, 10 ", RGBColor(130, 190, 120)),
        ("apparmor", RGBColor(60, 140, 60)),
    ];
    kinds
        .iter()
        .find(|(start, _)| configuration.starts_with(start))
        .map_or(RGBColor(150, 150, 150), |(_, colour)| *colour)
}

/// What each configuration adds to one operation, with the noise as a line.
pub(super) fn bars(operation: &str, rows: &[&Row]) -> Result<String> {
    let tops = rows.iter().flat_map(|row| [row.added + row.noise, row.added - row.noise]);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(operation, (FONT, 15))
            .margin(6)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..rows.len() as f64, range(tops))?;
        chart.configure_mesh().disable_x_mesh().disable_x_axis().y_label_formatter(&whole).draw()?;
        for (place, row) in rows.iter().enumerate() {
            let (left, right) = (place as f64 + 0.12, place as f64 + 0.88);
            let middle = place as f64 + 0.5;
            let bar = Rectangle::new([(left, 0.0), (right, row.added)], colour(&row.configuration).filled());
            chart.draw_series([bar])?;
            let noise = [(middle, row.added - row.noise), (middle, row.added + row.noise)];
            chart.draw_series([PathElement::new(noise, BLACK)])?;
            let label = (left, row.added.max(0.0) + row.noise);
            chart.draw_series([
                EmptyElement::at(label) + Text::new(format!("{:+.0}", row.added), (0, -14), (FONT, 12))
            ])?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// A line: its name and its points.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) points: Vec<(f64, f64)>,
}

/// What is added, over what `axis` says: the depth of a path, or with `log` the number of rules.
pub(super) fn lines(title: &str, axis: &str, lines: &[Line], log: bool) -> Result<String> {
    let ys = range(lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)));
    let xs: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)).collect();
    let most = xs.iter().copied().fold(1.0, f64::max);
    let least = xs.iter().copied().fold(most, f64::min);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.caption(title, (FONT, 15)).margin(6).y_label_area_size(64).x_label_area_size(36);
        // The two kinds of axis are two types.
        macro_rules! draw {
            ($xs:expr) => {{
                let mut chart = builder.build_cartesian_2d($xs, ys)?;
                let (across, up) = (&whole, &whole);
                chart.configure_mesh().x_desc(axis).x_label_formatter(across).y_label_formatter(up).draw()?;
                for line in lines {
                    chart.draw_series(LineSeries::new(
                        line.points.iter().copied(),
                        line.colour.stroke_width(2),
                    ))?;
                    let dot = |point: &(f64, f64)| Circle::new(*point, 3, line.colour.filled());
                    chart.draw_series(line.points.iter().map(dot))?;
                }
            }};
        }
        if log {
            draw!((least * 0.8..most * 1.25).log_scale());
        } else {
            draw!(0.0..most + 1.0);
        }
        area.present()?;
    }
    Ok(svg)
}

fn whole(number: &f64) -> String {
    format!("{number:.0}")
}

/// From zero, or below, to somewhat above the greatest.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((0.0_f64, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let room = (high - low) * 0.12;
    let below = if low < 0.0 { room } else { 0.0 };
    low - below..high + room
}
