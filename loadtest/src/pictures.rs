//! `loadtest pictures PAGE --into FOLDER`: the pictures of a report as files of their own, for documents.
//!
//! Owns: finding them in a page of ours, and their names. Must never: change a picture, or take one from a page that asks for
//! anything from elsewhere.
//! Look next: `sheet` and `page`, which write these pages; `picture`, which draws.

use crate::Failure;
use clap::Args;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `pictures PAGE --into FOLDER`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What `--html` wrote
    page: PathBuf,
    /// Where each picture becomes a file, named after the page and its heading
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
}

/// Writes the pictures and prints their paths.
///
/// # Errors
/// Wrong use when the page cannot be read or holds none; a miss when a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let shown = options.page.display();
    let page = fs::read_to_string(&options.page)
        .map_err(|error| Failure::WrongUse(format!("{shown}: {}", error.kind())))?;
    let found = pictures(&page);
    if found.is_empty() {
        return Err(Failure::WrongUse(format!("{shown}: holds no picture (hint: a file that --html wrote)")));
    }
    let stem = options.page.file_stem().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(&options.into).map_err(|error| Failure::Miss(error.to_string()))?;
    for (heading, svg) in found {
        let path = options.into.join(format!("{}.svg", named(&format!("{stem} {heading}"))));
        write(&path, svg)?;
    }
    Ok(())
}

fn write(path: &Path, svg: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Miss(format!("{}: {error}", path.display()));
    fs::write(path, format!("{svg}\n")).map_err(failed)?;
    writeln!(std::io::stdout().lock(), "{}", path.display()).map_err(failed)
}

/// Each picture with the heading above it.
fn pictures(page: &str) -> Vec<(&str, &str)> {
    const BEGIN: &str = "</h2><svg";
    const END: &str = "</svg>";
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let heading = before.rsplit_once("<h2>").map_or("", |(_, heading)| heading);
        let Some(inside) = after.find(END) else { break };
        // The tag that was split off is put back by where it stands in the page.
        let start = page.len() - after.len() - "<svg".len();
        let end = page.len() - after.len() + inside + END.len();
        found.extend(page.get(start..end).map(|svg| (heading, svg)));
        rest = page.get(end..).unwrap_or_default();
    }
    found
}

/// Small letters and digits, everything else a single hyphen.
fn named(text: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { ' ' };
    text.chars().map(letter).collect::<String>().split_whitespace().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::Sheet;

    #[test]
    fn pictures_are_found_whole_with_their_headings() {
        let mut sheet = Sheet::new("a day");
        sheet.picture("Memory, MiB", "<svg width=\"1\"><g></g></svg>");
        sheet.table("rows", &["a"], &[]);
        sheet.picture("Latency", "<svg></svg>");
        let page = sheet.close();
        let expected = vec![("Memory, MiB", "<svg width=\"1\"><g></g></svg>"), ("Latency", "<svg></svg>")];
        assert_eq!(pictures(&page), expected);
        assert_eq!(named("soak Memory, MiB"), "soak-memory-mib");
    }

    #[test]
    fn a_page_without_any_has_none() {
        for page in ["", "<svg></svg>", "<h2>a</h2><svg>"] {
            assert_eq!(pictures(page), vec![], "{page}");
        }
    }
}
