//! A curve for people: a Markdown table with its verdicts, and a page for a browser with its pictures.
//!
//! Owns: which numbers people see, and the pictures' axes.
//! Must never: show numbers of a curve that fails or is not valid without saying so first.
//! Look next: `curve`, where they come from; `page` and `picture`, whose style this is.

use super::curve::{Growth, Point, count};
use super::ground::What;
use crate::page::{STYLE, add, escaped, table as page_table};
use crate::picture::{FONT, Line, colour, drawn, plain, text};
use crate::report::{number, table};
use plotters::prelude::{
    ChartBuilder, Circle, IntoLogRange as _, LineSeries, PathElement, RGBColor, SeriesLabelPosition, WHITE,
};
use plotters::style::Color as _;
use std::fmt::Write as _;

const METHOD: &str = "One gate for each point, started anew for it. Everybody who will ask asks once before anything is measured. \
First an open loop: requests at times that were fixed beforehand, at a rate that is the same at every point (for sizes: the same \
bytes a second), latency counted from when a request was due. Then a closed loop, in which each client asks again as soon \
as it has its answer. Processor time and memory are the gate's own process's, from /proc; for the open loop between readings \
while all connections are open already. Every answer of the open loop is searched for withheld values, every answer of the closed \
loop must be as long as in a rehearsal that was searched; afterwards the audit trail must hold each answer, no other, and verify. \
Flat means: from no point to a later one does it rise by more than a half. The median is judged, the 99th percentile is shown: \
one stall of the machine makes it.";

/// The columns of [`cells`].
const COLUMNS: [&str; 16] = [
    "start s",
    "req/s",
    "answers",
    "KB each",
    "p50 ms",
    "p99 ms",
    "CPU us/req",
    "RSS MB",
    "peak MB",
    "clients",
    "closed req/s",
    "MB/s",
    "p50 ms",
    "p99 ms",
    "CPU us/req",
    "peak MB",
];

fn columns(growth: &Growth) -> Vec<&str> {
    std::iter::once(growth.unit.as_str()).chain(COLUMNS).collect()
}

fn cells(what: What, point: &Point) -> Vec<String> {
    let (open, closed) = (&point.open, &point.closed);
    let megabytes = |kib: u64| format!("{:.0}", kib as f64 * 1024.0 / 1e6);
    vec![
        count(point.at),
        format!("{:.1}", point.start_seconds),
        plain(open.per_second),
        open.requests.to_string(),
        format!("{:.1}", open.answer_bytes as f64 / 1e3),
        format!("{:.2}", open.p50_ms),
        format!("{:.2}", open.p99_ms),
        number(open.cpu_us_per_request, 0),
        megabytes(open.resident_kib),
        megabytes(open.peak_kib),
        closed.clients.to_string(),
        plain(closed.per_second),
        number(point.megabytes_per_second(what), 1),
        format!("{:.2}", closed.p50_ms),
        format!("{:.2}", closed.p99_ms),
        number(closed.cpu_us_per_request, 0),
        megabytes(closed.peak_kib),
    ]
}

fn heading(growth: &Growth) -> String {
    let machine = &growth.machine;
    format!(
        "Growth of {}: {}, {} s a point; {} processors ({}), {} MiB; load before: {}; a synced write of 1 KB takes {:.2} ms",
        growth.what,
        growth.protocol,
        growth.seconds,
        machine.processors,
        machine.model,
        machine.memory_mib,
        machine.load_before,
        machine.sync_ms
    )
}

/// What fails, what is in doubt, or that all was checked: each with the kind of the page's box.
fn findings(growth: &Growth) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> =
        growth.misses.iter().map(|miss| ("bad", format!("THE RUN FAILS: {miss}"))).collect();
    lines.extend(growth.doubts.iter().map(|doubt| ("doubt", format!("NOT VALID: {doubt}"))));
    if growth.misses.is_empty() {
        let answers: u64 = growth.points.iter().map(|point| point.audit.answered).sum();
        lines.push((
            "good",
            format!("{answers} answers of the gate, each with its record; nothing withheld crossed; each trail verifies"),
        ));
    }
    lines.extend(growth.notes.iter().map(|note| ("doubt", format!("note: {note}"))));
    lines
}

/// The table and the verdicts, as Markdown.
pub(super) fn markdown(what: What, growth: &Growth) -> String {
    let mut out = heading(growth);
    for (_, line) in findings(growth) {
        // Writing to a string does not fail.
        let _ = write!(out, "\n{line}");
    }
    let rows = table(&columns(growth), growth.points.iter().map(|point| cells(what, point)));
    let _ = write!(out, "\n\n{rows}\n");
    for verdict in &growth.verdicts {
        let _ = write!(out, "\n- {}: {}", verdict.of, verdict.said);
    }
    out
}

/// The page for a browser: one file that asks for nothing else.
///
/// # Errors
/// When a picture cannot be drawn.
pub(super) fn page(what: What, growth: &Growth) -> Result<String, String> {
    let title = escaped(&format!("Growth of {}", growth.what));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}: Chartgate</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    for (kind, line) in findings(growth) {
        let _ = write!(page, "<p class=\"said {kind}\">{}</p>", escaped(&line));
    }
    for verdict in &growth.verdicts {
        let kind = if verdict.good { "good" } else { "bad" };
        let _ =
            write!(page, "<p class=\"said {kind}\">{}: {}</p>", escaped(&verdict.of), escaped(&verdict.said));
    }
    page_table(&mut page, "Points", &columns(growth), growth.points.iter().map(|point| cells(what, point)));
    for (heading, svg) in pictures(what, growth)? {
        let _ = write!(page, "<h2>{heading}</h2>{svg}");
    }
    let _ = write!(page, "<h2>Machine and method</h2><p>{}</p><p>{METHOD}</p>", escaped(&heading(growth)));
    add(&mut page, "</body></html>\n");
    Ok(page)
}

fn pictures(what: What, growth: &Growth) -> Result<Vec<(&'static str, String)>, String> {
    let series = |name: &str, value: &dyn Fn(&Point) -> Option<f64>| -> Line {
        let point = |point: &Point| Some((point.at.max(1) as f64, value(point)?));
        (name.to_owned(), growth.points.iter().filter_map(point).collect())
    };
    let megabytes = |kib: u64| Some(kib as f64 * 1024.0 / 1e6);
    let cost = match what {
        What::Size => "microseconds of a megabyte",
        What::Connections | What::Policies | What::People | What::Trail => "microseconds of a request",
    };
    let drawings = [
        ("Processor time", cost, vec![series("processor time", &|point| point.cost(what))]),
        (
            "Latency at a fixed rate",
            "milliseconds",
            vec![
                series("median", &|point| Some(point.open.p50_ms)),
                series("99th percentile", &|point| Some(point.open.p99_ms)),
            ],
        ),
        (
            "Throughput of a closed loop",
            if what == What::Size { "megabytes a second" } else { "requests a second" },
            vec![series("closed loop", &|point| {
                Some(point.megabytes_per_second(what).unwrap_or(point.closed.per_second))
            })],
        ),
        (
            "Memory",
            "megabytes resident",
            vec![
                series("open loop", &|point| megabytes(point.open.resident_kib)),
                series("open loop, the most", &|point| megabytes(point.open.peak_kib)),
                series("closed loop, the most", &|point| megabytes(point.closed.peak_kib)),
            ],
        ),
    ];
    let drawn =
        drawings.into_iter().map(|(heading, y, lines)| Ok((heading, picture(lines, &growth.unit, y)?)));
    drawn.collect()
}

/// From zero up, over the quantity's logarithm: what is flat lies level.
fn picture(lines: Vec<Line>, x: &str, y: &str) -> Result<String, String> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let left = all().map(|point| point.0).fold(f64::MAX, f64::min).min(1e12);
    let right = all().map(|point| point.0).fold(left * 10.0, f64::max);
    let top = all().map(|point| point.1).fold(0.001, f64::max) * 1.15;
    drawn(|canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left / 1.2..right * 1.2).log_scale(), 0.0..top)
            .map_err(text)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|at| short(*at))
            .y_label_formatter(&|value| plain(*value))
            .x_desc(x)
            .y_desc(y)
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 13))
            .draw()
            .map_err(text)?;
        for (number, (name, points)) in lines.iter().enumerate() {
            let colour = colour(number, name);
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))
                .map_err(text)?;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(text)?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 13))
            .draw()
            .map_err(text)
    })
}

/// A place on the axis of a quantity.
fn short(at: f64) -> String {
    match at {
        at if at >= 1e6 => format!("{}M", plain(at / 1e6)),
        at if at >= 1e3 => format!("{}k", plain(at / 1e3)),
        at => plain(at),
    }
}

#[cfg(test)]
mod tests {
    use super::super::curve::tests::sample;
    use super::*;

    #[test]
    fn tables_and_pictures_hold_every_point_and_the_verdict() {
        let mut growth = sample(&[(10, 200.0), (100, 210.0), (10_000, 900.0)]);
        growth.judge(What::Policies);
        let told = markdown(What::Policies, &growth);
        for present in ["| policies |", "| 10k", "NOT FLAT", "each trail verifies", "3000 answers"] {
            assert!(told.contains(present), "{present}: {told}");
        }
        let page = page(What::Policies, &growth).unwrap();
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("NOT FLAT") && page.contains("10k"), "{page}");
        for absent in ["<script", "src=", "href=", "<link", "@import", "url(", "NaN"] {
            assert!(!page.contains(absent), "{absent}");
        }
        assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
    }

    #[test]
    fn a_curve_that_fails_says_so_before_its_numbers() {
        let mut growth = sample(&[(0, 200.0)]);
        growth.points[0].audit.verifies = false;
        growth.points[0].judge();
        growth.judge(What::Trail);
        let told = markdown(What::Trail, &growth);
        assert!(told.find("THE RUN FAILS").unwrap() < told.find("| start s").unwrap(), "{told}");
        assert!(!told.contains("each trail verifies"), "{told}");
        assert!(page(What::Trail, &growth).unwrap().contains("THE RUN FAILS"));
    }
}
