//! What the operator wrote, turned into what the program needs.
//!
//! Owns: the configuration file's shape (`raw`) and its meaning (`settings`).
//! Must never: start anything, or hold a setting that a room could misread; a room's own settings are
//! valid when they exist. Unknown keys are refused and every problem is reported at once.
//! Look next: `app`, which hands each room its settings.

pub mod care;
pub mod clients;
mod parameters;
pub mod policies;
mod problem;
mod raw;
pub mod section;
mod sessions;
pub mod settings;
pub mod witness;

pub use problem::Problem;
pub use raw::document;
pub use settings::Settings;

use std::path::Path;

/// Reads and checks the configuration file at `path`; relative paths in it are relative to its folder.
///
/// # Errors
/// Every problem found, each with file, line and column where it has one.
pub fn load(path: &Path) -> Result<Settings, Vec<Problem>> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Problem::whole_file(&shown, format!("cannot be read: {}", error.kind()))])?;
    parse(&shown, &text, path.parent().unwrap_or_else(|| Path::new("")))
}

/// Checks configuration `text`; `file` is its name in problems, `folder` what its paths are relative to.
///
/// # Errors
/// Every problem found.
pub fn parse(file: &str, text: &str, folder: &Path) -> Result<Settings, Vec<Problem>> {
    let (raw, mut problems) = raw::read(file, text);
    let settings = raw.and_then(|raw| settings::build(raw, folder, &mut problems));
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        Some(_) | None => Err(Problem::sorted(problems)),
    }
}
