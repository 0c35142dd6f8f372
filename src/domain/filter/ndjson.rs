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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Found = (Vec<String>, Result<(), FilterFault>);

    fn split(pieces: &[&[u8]], line_bytes_max: usize) -> Found {
        let (mut splitter, mut lines) = (Lines::bounded(line_bytes_max), Vec::new());
        let fed = pieces.iter().try_for_each(|piece| splitter.feed(piece, &mut lines));
        let ended = fed.and_then(|()| splitter.finish(&mut lines));
        (lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect(), ended)
    }

    /// A file, its lines, and the fault behind them.
    const CASES: [(&str, &[&str], Option<FilterFault>); 12] = [
        ("", &[], None),
        ("{}", &["{}"], None),
        ("{}\n", &["{}"], None),
        ("{}\r\n[]\r\n", &["{}", "[]"], None),
        ("\n\n {}\n \t\r\n\n", &[" {}"], None),
        ("{}\r", &["{}"], None),
        ("1\n{\r}\n2\n", &["1"], Some(FilterFault::Grammar(2))),
        ("1\n2\r\r\n", &["1"], Some(FilterFault::Grammar(2))),
        ("\u{feff}{}\n", &[], Some(FilterFault::ByteOrderMark)),
        ("1\n\u{feff}{}\n", &["1"], Some(FilterFault::ByteOrderMark)),
        ("12345678\n123456789\n1\n", &["12345678"], Some(FilterFault::Size(9))),
        ("1\n123456789", &["1"], Some(FilterFault::Size(2))),
    ];

    #[test]
    fn lines_end_one_way_and_have_a_bound() {
        for (file, lines, fault) in CASES {
            let found = split(&[file.as_bytes()], 8);
            assert_eq!(
                found,
                (lines.iter().map(|&line| line.to_owned()).collect(), fault.map_or(Ok(()), Err)),
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_fault_is_the_end() {
        let (mut splitter, mut lines) = (Lines::bounded(1), Vec::new());
        assert_eq!(splitter.feed(b"123", &mut lines), Err(FilterFault::Size(0)));
        assert_eq!(splitter.feed(b"\n1\n", &mut lines), Err(FilterFault::Size(0)));
        assert_eq!(splitter.finish(&mut lines), Err(FilterFault::Size(0)));
        assert!(lines.is_empty());
    }

    proptest! {
        #[test]
        fn every_way_of_cutting_gives_the_same_lines(
            letters in proptest::collection::vec(proptest::sample::select(b"ab\n\n\r {\xef\xbb\xbf".as_slice()), 0..60),
            cuts in proptest::collection::vec(0_usize..60, 0..8),
        ) {
            let file = String::from_utf8_lossy(&letters).into_owned().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(file.len())).collect();
            cuts.extend([0, file.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &file[pair[0]..pair[1]]).collect();
            let file = String::from_utf8(file.clone()).ok().map(|_| file.as_slice()).unwrap();
            let safe = |bytes: &[&[u8]]| {
                let (mut splitter, mut lines) = (Lines::bounded(12), Vec::new());
                let fed = bytes.iter().try_for_each(|piece| splitter.feed(piece, &mut lines));
                let ended = fed.and_then(|()| splitter.finish(&mut lines));
                (lines, ended)
            };
            prop_assert_eq!(safe(&pieces), safe(&[file]));
        }
    }
}
