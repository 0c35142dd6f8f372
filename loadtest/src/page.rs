//! The report for a browser: one file, nothing fetched, no script.
//!
//! Owns: the page's order: verdict, curves, tables, errors, machine and method.
//! Must never: ask for anything from elsewhere, or show text that was not escaped.
//! Look next: `picture`, the curves; `tell`, the same tables.

use crate::findings::Findings;
use crate::{picture, tell};
use std::fmt::Write as _;

pub(crate) const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1080px;margin:24px auto;padding:0 16px;color:#222}\
h1{font-size:24px;margin-bottom:4px}h2{font-size:18px;margin-top:32px}table{border-collapse:collapse;font-size:12.5px;\
display:block;overflow-x:auto}th,td{padding:3px 7px;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}.good{background:#e5f3e8}.bad{background:#fbe3e0}.doubt{background:#fdf3d7}\
.said{padding:8px 12px;margin:6px 0;border-radius:4px}svg{max-width:100%;height:auto}";

const METHOD: &str = "Open loop: when each request goes out was fixed before the run began, from the scenario and the \
seed, and does not depend on any answer. Latency is counted from when a request was due, not from when it was sent, so \
that an answer that keeps others waiting shows in theirs (coordinated omission). \"From sending\" leaves the waiting out. \
\"lag\" is how late the generator itself got to its requests; a run in which it fell behind is not valid. Every answer of \
the gate is searched for withheld values while it is read, its status and length must be what they should be, and after \
the run the audit trail is read: each answer must have its own record with the same status, there may be no other, and \
the trail must verify.";

/// The page.
///
/// # Errors
/// When a picture cannot be drawn.
pub(crate) fn page(findings: &Findings) -> Result<String, String> {
    let title = escaped(&findings.setting.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}: Chartgate under load</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1><p>{}</p>",
        escaped(&findings.setting.about)
    );
    verdict(&mut page, findings);
    let pictures = [
        ("Latency by percentile", picture::percentiles(findings)?),
        ("Requests over time", picture::throughput(findings)?),
        ("Latency over time, by when requests were due", picture::latency(findings)?),
    ];
    table(
        &mut page,
        "Side by side",
        &tell::SIDES,
        findings.sides.iter().map(|side| tell::side_cells(findings, side)),
    );
    for (heading, svg) in pictures {
        add(&mut page, &format!("<h2>{heading}</h2>{svg}"));
    }
    if let Some(gate) = findings.sides.first() {
        table(&mut page, "Requests of the gate", &tell::ROWS, gate.rows.iter().map(tell::row_cells));
    }
    errors(&mut page, findings);
    method(&mut page, findings);
    add(&mut page, "</body></html>\n");
    Ok(page)
}

pub(crate) fn add(page: &mut String, text: &str) {
    page.push_str(text);
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn verdict(page: &mut String, findings: &Findings) {
    for line in tell::verdict(findings) {
        let kind = match line.split_once(':').map(|(word, _)| word) {
            Some("THE RUN FAILS") => "bad",
            Some("NOT VALID") => "doubt",
            Some(_) | None => "good",
        };
        // Writing to a string does not fail.
        let _ = write!(page, "<p class=\"said {kind}\">{}</p>", escaped(&line));
    }
    for note in &findings.notes {
        let _ = write!(page, "<p class=\"said doubt\">{}</p>", escaped(note));
    }
}

pub(crate) fn table(
    page: &mut String,
    heading: &str,
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    let _ = write!(page, "<h2>{heading}</h2><table><thead><tr>{}</tr></thead><tbody>", cells("th", &columns));
    for row in rows {
        let _ = write!(page, "<tr>{}</tr>", cells("td", &row));
    }
    add(page, "</tbody></table>");
}

fn errors(page: &mut String, findings: &Findings) {
    let all = findings.sides.iter().flat_map(|side| side.errors.iter().map(|error| (&side.who, error)));
    let rows: Vec<Vec<String>> =
        all.map(|(who, (what, count))| vec![format!("{who}: {what}"), count.to_string()]).collect();
    if rows.is_empty() {
        add(page, "<h2>Errors</h2><p>None: every request was answered as it should be.</p>");
    } else {
        table(page, "Errors", &["what", "how often"], rows.into_iter());
    }
}

fn method(page: &mut String, findings: &Findings) {
    add(page, "<h2>Machine and method</h2>");
    for line in tell::heading(findings) {
        let _ = write!(page, "<p>{}</p>", escaped(&line));
    }
    let _ = write!(page, "<p>{METHOD}</p>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::tests::sample;

    #[test]
    fn a_page_stands_alone_and_escapes() {
        let mut findings = sample();
        findings.setting.title = "<b>Ward</b>".to_owned();
        findings.sides[0].errors.insert("answered with 503 instead of 200".to_owned(), 4);
        findings.judge();
        let page = page(&findings).unwrap();
        for absent in ["<script", "src=", "href=", "<link", "@import", "url(", "<b>Ward"] {
            assert!(!page.contains(absent), "{absent}");
        }
        // The only addresses are names of XML.
        assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
        assert_eq!(page.matches("<svg").count(), 3);
        for present in ["THE RUN FAILS", "answered with 503", "vital signs", "nginx", "coordinated omission"]
        {
            assert!(page.contains(present), "{present}");
        }
    }
}
