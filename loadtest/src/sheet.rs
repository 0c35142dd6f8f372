//! A report for a browser, put together from what it is given: one file, nothing fetched, no script.
//!
//! Owns: headings, sentences, tables and pictures as HTML.
//! Must never: show text that was not escaped, or ask for anything from elsewhere.
//! Look next: `page`, the report of a scenario; `hostile` and `soak`, which fill this one.

use std::fmt::Write as _;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1180px;margin:24px auto;padding:0 16px;color:#222}\
h1{font-size:24px}h2{font-size:18px;margin-top:32px}table{border-collapse:collapse;font-size:12.5px;display:block;\
overflow-x:auto}th,td{padding:3px 7px;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}\
th:first-child,td:first-child{text-align:left}.good{background:#e5f3e8}.bad{background:#fbe3e0}.doubt{background:#fdf3d7}\
.said{padding:8px 12px;margin:6px 0;border-radius:4px}svg{max-width:100%;height:auto}";

/// How a sentence is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubt,
    Bad,
}

/// A page under way.
pub(crate) struct Sheet(String);

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Sheet {
    pub(crate) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <style>{STYLE}</style></head><body><h1>{title}</h1>"
        ))
    }

    pub(crate) fn say(&mut self, tone: Tone, text: &str) {
        let class = match tone {
            Tone::Plain => "",
            Tone::Good => " class=\"said good\"",
            Tone::Doubt => " class=\"said doubt\"",
            Tone::Bad => " class=\"said bad\"",
        };
        // Writing to a string does not fail.
        let _ = write!(self.0, "<p{class}>{}</p>", escaped(text));
    }

    pub(crate) fn table(&mut self, heading: &str, columns: &[&str], rows: &[Vec<String>]) {
        let head: String = columns.iter().map(|cell| format!("<th>{}</th>", escaped(cell))).collect();
        let _ = write!(self.0, "<h2>{}</h2><table><thead><tr>{head}</tr></thead><tbody>", escaped(heading));
        for row in rows {
            let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            let _ = write!(self.0, "<tr>{cells}</tr>");
        }
        self.0.push_str("</tbody></table>");
    }

    /// `svg` is taken as it is.
    pub(crate) fn picture(&mut self, heading: &str, svg: &str) {
        let _ = write!(self.0, "<h2>{}</h2>{svg}", escaped(heading));
    }

    pub(crate) fn close(mut self) -> String {
        self.0.push_str("</body></html>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_nothing_is_fetched() {
        let mut sheet = Sheet::new("<b>");
        sheet.say(Tone::Bad, "a & b");
        sheet.table("t", &["<c>"], &[vec!["\"d\"".to_owned()]]);
        sheet.picture("p", "<svg></svg>");
        let page = sheet.close();
        for present in
            ["<h1>&lt;b&gt;</h1>", "a &amp; b", "&lt;c&gt;", "&quot;d&quot;", "<svg></svg>", "said bad"]
        {
            assert!(page.contains(present), "{present}");
        }
        for absent in ["<script", "src=", "href=", "<link", "http"] {
            assert!(!page.contains(absent), "{absent}");
        }
    }
}
