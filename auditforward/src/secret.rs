//! A secret in a file of its own.
//!
//! Owns: reading it. Must never: print it, or name anything of it in an error.
//! Look next: `otlp`, `s3`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The text of the file without blanks around it.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<String, String> {
    let fault = |what: String| format!("`{}`: {what}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| fault(error.to_string()))?;
    let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let read = file.take(bound).read_to_string(&mut text);
    read.map_err(|error| fault(error.kind().to_string()))?;
    let text = text.trim();
    if text.is_empty() || text.len() >= bytes_max {
        return Err(fault("is empty, or too long for a secret".to_owned()));
    }
    Ok(text.to_owned())
}
