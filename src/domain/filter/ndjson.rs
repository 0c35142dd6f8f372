//! Lines of an NDJSON file that comes in pieces.
//!
//! Owns: where a line ends and how long it may be (ndjson.org, specification 1.0).
//! Must never: look into a line, or hold more than one unfinished one.
//! Look next: `parse`, which each line is given to.
//!
//! A line ends with LF, or CR LF; a CR anywhere else and a byte order mark before any line are faults, since
//! readers differ on them. Lines of white space alone are left out.

use super::fault::FilterFault;
use crate::limits::NDJSON_LINE_BYTES_MAX;

/// A splitter that gives the same lines, and the same fault behind them, however the bytes are cut.
pub struct Lines {
    unfinished: Vec<u8>,
    /// Bytes from the start of the file to the unfinished line.
    start: usize,
    fault: Option<FilterFault>,
    line_bytes_max: usize,
}

impl Lines {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(NDJSON_LINE_BYTES_MAX)
    }

    fn bounded(line_bytes_max: usize) -> Self {
        Self { unfinished: Vec::new(), start: 0, fault: None, line_bytes_max }
    }

    /// Takes the next piece and appends the lines it completes to `lines`, without their ends.
    ///
    /// # Errors
    /// `Size` for a line over `limits::NDJSON_LINE_BYTES_MAX`, `Grammar` for a stray CR, `ByteOrderMark`; offsets
    /// are of the line's start. The lines before it were appended; from then on every call fails.
    pub fn feed(&mut self, piece: &[u8], lines: &mut Vec<Vec<u8>>) -> Result<(), FilterFault> {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.extend(line)?;
            self.complete(lines)?;
            rest = behind.get(1..).unwrap_or_default();
        }
        self.extend(rest)
    }

    /// The last line, if the file does not end with a line's end.
    ///
    /// # Errors
    /// As [`Lines::feed`].
    pub fn finish(mut self, lines: &mut Vec<Vec<u8>>) -> Result<(), FilterFault> {
        self.extend(&[])?;
        self.complete(lines)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), FilterFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.unfinished.len() + bytes.len() > self.line_bytes_max {
            return self.fail(FilterFault::Size(self.start));
        }
        self.unfinished.extend_from_slice(bytes);
        Ok(())
    }

    fn complete(&mut self, lines: &mut Vec<Vec<u8>>) -> Result<(), FilterFault> {
        let mut line = std::mem::take(&mut self.unfinished);
        let bytes = line.len();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.starts_with(b"\xef\xbb\xbf") {
            return self.fail(FilterFault::ByteOrderMark);
        }
        if memchr::memchr(b'\r', &line).is_some() {
            return self.fail(FilterFault::Grammar(self.start));
        }
        self.start += bytes + 1;
        if !line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            lines.push(line);
        }
        Ok(())
    }

    fn fail(&mut self, fault: FilterFault) -> Result<(), FilterFault> {
        self.fault = Some(fault);
        self.unfinished = Vec::new();
        Err(fault)
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("start", &self.start).finish_non_exhaustive()
    }
}
