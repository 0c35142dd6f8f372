//! Curves as SVG text.
//!
//! Owns: the three pictures of a run: latency by percentile, answers over time, latency over time.
//! Must never: draw what is not in the findings, or need a font that is not there.
//! Look next: `page`, which puts them into a report.

use crate::findings::{Curve, Findings, Interval, Side};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::Color as _;
use std::fmt::Display;

const DUE: &str = "due";
const FROM_SENDING: &str = "chartgate, from sending";
const SIZE: (u32, u32) = (900, 380);
/// Told apart by people who see colours differently (Okabe and Ito, then Tol), the gate's first.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(136, 34, 85),
    RGBColor(51, 34, 136),
    RGBColor(153, 153, 51),
    RGBColor(170, 68, 153),
];
/// What is no side of its own: the plan, and the gate's latency from sending.
const BESIDE: RGBColor = RGBColor(150, 150, 150);
pub(crate) const FONT: &str = "sans-serif";
/// A latency that is drawn at the least, in milliseconds: the logarithm of nothing cannot be.
const FLOOR_MS: f64 = 0.01;

pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Line = (String, Vec<(f64, f64)>);

pub(crate) fn text(error: impl Display) -> String {
    error.to_string()
}

pub(crate) fn drawn(draw: impl FnOnce(&Canvas<'_>) -> Result<(), String>) -> Result<String, String> {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    canvas.fill(&WHITE).map_err(text)?;
    draw(&canvas)?;
    canvas.present().map_err(text)?;
    drop(canvas);
    Ok(svg)
}

pub(crate) fn colour(number: usize, name: &str) -> RGBColor {
    if name == DUE || name == FROM_SENDING {
        return BESIDE;
    }
    COLOURS.get(number % COLOURS.len()).copied().unwrap_or(RGBColor(0, 0, 0))
}

/// Latency by percentile: each step to the right is a tenth of the answers that are left.
///
/// # Errors
/// When a picture cannot be drawn.
pub(crate) fn percentiles(findings: &Findings) -> Result<String, String> {
    let mut lines: Vec<Line> =
        findings.sides.iter().map(|side| (side.who.clone(), tail(&side.response))).collect();
    if let Some(gate) = findings.sides.first() {
        lines.push((FROM_SENDING.to_owned(), tail(&gate.service)));
    }
    let right = lines.iter().flat_map(|(_, points)| points).map(|point| point.0).fold(2.0, f64::max);
    let (bottom, top) = heights(&lines);
    drawn(|canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..right, (bottom..top).log_scale())
            .map_err(text)?;
        chart
            .configure_mesh()
            .x_labels(12)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|left| percentile(*left))
            .y_label_formatter(&|ms| plain(*ms))
            .x_desc("answers that were as fast, of all")
            .y_desc("milliseconds")
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 13))
            .draw()
            .map_err(text)?;
        for (number, (name, points)) in lines.into_iter().enumerate() {
            let colour = colour(number, &name);
            let series = LineSeries::new(points, colour.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(text)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 13))
            .draw()
            .map_err(text)
    })
}

/// What is due and what is answered, for each second of the run.
///
/// # Errors
/// When a picture cannot be drawn.
pub(crate) fn throughput(findings: &Findings) -> Result<String, String> {
    let series = |side: &Side, count: fn(&Interval) -> u64| {
        over_time(side, |interval| count(interval) as f64 / side.interval_seconds.max(1) as f64)
    };
    let mut lines: Vec<Line> = Vec::new();
    if let Some(gate) = findings.sides.first() {
        lines.push((DUE.to_owned(), series(gate, |interval| interval.due)));
    }
    let answered = findings.sides.iter();
    lines.extend(answered.map(|side| (side.who.clone(), series(side, |interval| interval.answered))));
    let top = lines.iter().flat_map(|(_, points)| points).map(|point| point.1).fold(1.0, f64::max) * 1.1;
    // The plan is drawn last in the list of colours, in grey.
    lines.rotate_left(1);
    drawn(|canvas| timed(canvas, lines, 0.0..top, "requests a second"))
}

/// Latency of the gate's answers by when they were due.
///
/// # Errors
/// When a picture cannot be drawn.
pub(crate) fn latency(findings: &Findings) -> Result<String, String> {
    let Some(gate) = findings.sides.first() else { return Ok(String::new()) };
    let series = |name: &str, of: fn(&Interval) -> f64| {
        (name.to_owned(), over_time(gate, |interval| of(interval).max(FLOOR_MS)))
    };
    let lines = vec![
        series("median", |interval| interval.p50_ms),
        series("99th percentile", |interval| interval.p99_ms),
        series("slowest", |interval| interval.max_ms),
    ];
    let (bottom, top) = heights(&lines);
    drawn(|canvas| timed(canvas, lines, (bottom..top).log_scale(), "milliseconds"))
}

/// Any lines over seconds.
///
/// # Errors
/// When a picture cannot be drawn.
pub(crate) fn over_seconds(lines: Vec<(String, Vec<(f64, f64)>)>, unit: &str) -> Result<String, String> {
    let top = lines.iter().flat_map(|(_, points)| points).map(|point| point.1).fold(1.0, f64::max) * 1.1;
    drawn(|canvas| timed(canvas, lines, 0.0..top, unit))
}

fn timed<Y>(canvas: &Canvas<'_>, lines: Vec<Line>, height: Y, unit: &str) -> Result<(), String>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType:
        plotters::coord::ranged1d::Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let right = lines.iter().flat_map(|(_, points)| points).map(|point| point.0).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(canvas)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, height)
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_label_formatter(&|second| plain(*second))
        .y_label_formatter(&|value| plain(*value))
        .x_desc("seconds of the measured time")
        .y_desc(unit)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 13))
        .draw()
        .map_err(text)?;
    for (number, (name, points)) in lines.into_iter().enumerate() {
        let colour = colour(number, &name);
        let series = LineSeries::new(points, colour.stroke_width(2));
        chart
            .draw_series(series)
            .map_err(text)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()
        .map_err(text)
}

/// Intervals as points in time; those after the last request was due are left out.
fn over_time(side: &Side, value: impl Fn(&Interval) -> f64) -> Vec<(f64, f64)> {
    let used = side.intervals.iter().rposition(|interval| interval.due > 0).map_or(0, |last| last + 1);
    let point = |(number, interval): (usize, &Interval)| {
        let seconds = (number as f64 + 0.5) * side.interval_seconds as f64;
        (seconds, value(interval))
    };
    side.intervals.iter().take(used).enumerate().map(point).collect()
}

/// How many tenths of what is left: 1 is 90 %, 2 is 99 %.
fn tail(curve: &Curve) -> Vec<(f64, f64)> {
    let all = curve.count.max(1) as f64;
    // The slowest answer stands for the last half of a request: its place would be infinitely far away.
    let place = |share: f64| -((1.0 - share).max(0.5 / all)).log10();
    curve.points().into_iter().map(|(share, ms)| (place(share), ms.max(FLOOR_MS))).collect()
}

fn heights(lines: &[Line]) -> (f64, f64) {
    let all = || lines.iter().flat_map(|(_, points)| points).map(|point| point.1);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(FLOOR_MS, f64::max));
    (low.min(high).max(FLOOR_MS) / 1.2, high * 1.2)
}

fn percentile(tenths: f64) -> String {
    if (tenths - tenths.round()).abs() > 1e-6 {
        return String::new();
    }
    let share = 100.0 - 100.0 * 10f64.powf(-tenths);
    // As many digits as it takes; more are noise of the arithmetic.
    let written = format!("{share:.6}");
    format!("{} %", written.trim_end_matches('0').trim_end_matches('.'))
}

/// Without digits that say nothing.
pub(crate) fn plain(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 || value <= 0.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::tests::sample;

    #[test]
    fn pictures_hold_every_line_and_its_name() {
        let findings = sample();
        for (svg, lines, names) in [
            (percentiles(&findings).unwrap(), 3, ["chartgate", "nginx", "99.9 %"]),
            (throughput(&findings).unwrap(), 3, ["due", "nginx", "requests a second"]),
            (latency(&findings).unwrap(), 3, ["median", "slowest", "milliseconds"]),
        ] {
            assert!(svg.starts_with("<svg"), "{svg}");
            let drawn = svg.matches("stroke-width=\"2\"").count();
            // Each once as a curve and once in the legend.
            assert_eq!(drawn, 2 * lines, "{svg}");
            assert!(names.iter().all(|name| svg.contains(name)), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_answered_can_be_drawn_too() {
        let mut findings = sample();
        for side in &mut findings.sides {
            (side.response, side.service, side.intervals) = (Curve::default(), Curve::default(), Vec::new());
        }
        assert!(
            percentiles(&findings).is_ok() && throughput(&findings).is_ok() && latency(&findings).is_ok()
        );
    }

    #[test]
    fn percentiles_are_written_with_as_many_nines_as_they_have() {
        let cases =
            [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"), (1.5, "")];
        for (tenths, expected) in cases {
            assert_eq!(percentile(tenths), expected);
        }
    }
}
