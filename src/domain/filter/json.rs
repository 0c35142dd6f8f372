//! Strict JSON, read in one pass.
//!
//! Owns: the grammar of RFC 8259, its bounds, and the rule that no object names a member twice.
//! Must never: allocate per value, or let anything pass that another parser might read differently (duplicate names
//! after unescaping, lone surrogates, trailing data).
//! Look next: `walk`, which gives values their FHIR meaning; `quotes`, which says where strings end.

use super::fault::FilterFault;
use super::quotes::{END, Quotes};
use super::text;
use crate::limits;

/// Reads a text from its start to its end.
pub(super) struct Cursor<'c> {
    pub text: &'c str,
    pub bytes: &'c [u8],
    /// The byte that is read next.
    pub at: usize,
    /// The string read last holds escapes.
    pub escaped: bool,
    depth: usize,
    pub quotes: Quotes,
    /// Names R4 does not know, of the objects that are open: start and length, as written.
    names: Vec<(u32, u32)>,
}

/// A byte offset on the tape. INVARIANT: `limits::DOCUMENT_BYTES_MAX` fits 32 bits, so nothing is cut off.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the invariant")]
pub(super) fn offset(at: usize) -> u32 {
    at as u32
}

impl<'c> Cursor<'c> {
    /// At the start.
    pub(super) fn new(text: &'c str) -> Self {
        let (quotes, names) = (Quotes::new(), Vec::new());
        Self { text, bytes: text.as_bytes(), at: 0, escaped: false, depth: 0, quotes, names }
    }

    /// The next byte; zero, which is none of JSON's, at the end.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn bad<T>(&self) -> Result<T, FilterFault> {
        Err(FilterFault::Grammar(self.at))
    }

    #[inline(always)]
    pub(super) fn space(&mut self) {
        if self.peek() <= b' ' {
            self.long_space();
        }
    }

    #[cold]
    #[inline(never)]
    fn long_space(&mut self) {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        while let [b' ', b' ', b' ', b' ', b' ', b' ', b' ', b' ', behind @ ..]
        | [b' ' | b'\n' | b'\r' | b'\t', behind @ ..] = rest
        {
            rest = behind;
        }
        self.at = self.bytes.len() - rest.len();
    }

    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), FilterFault> {
        if self.peek() != byte {
            return self.bad();
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), FilterFault> {
        self.space();
        if self.at < self.bytes.len() { Err(FilterFault::Trailing(self.at)) } else { Ok(()) }
    }

    /// Behind the opening bracket of a container; gives the offset of the bracket.
    #[inline(always)]
    pub(super) fn enter(&mut self) -> Result<usize, FilterFault> {
        if self.depth >= limits::JSON_DEPTH_MAX {
            return Err(FilterFault::Depth(self.at));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(self.at)
    }

    /// How many containers are open.
    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Behind the closing bracket.
    #[inline(always)]
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// Between members or items: false at the end, which `closing` is.
    #[inline(always)]
    pub(super) fn more(&mut self, closing: u8) -> Result<bool, FilterFault> {
        self.space();
        let next = self.peek();
        if next == b',' {
            self.at += 1;
            self.space();
            return Ok(true);
        }
        if next == closing { Ok(false) } else { self.bad() }
    }

    /// A name up to its value. Where it began: its opening quote; where it ended: its closing one.
    #[inline(always)]
    pub(super) fn name(&mut self) -> Result<(usize, usize), FilterFault> {
        let opening = self.at;
        let closing = self.string(limits::KEY_BYTES_MAX)?;
        if self.peek() == b':' {
            self.at += 1;
        } else {
            self.space();
            self.expect(b':')?;
        }
        self.space();
        Ok((opening, closing))
    }

    /// A name ends here, as its closing quote says, and its colon follows.
    #[inline(always)]
    pub(super) fn is_plain_name(&self, closing: usize) -> bool {
        self.bytes.get(closing..).and_then(|rest| rest.first_chunk()) == Some(b"\":")
    }

    /// A string from one quote to another is plain, and not too long.
    #[inline(always)]
    pub(super) fn is_plain_text(&self, opening: usize, closing: usize) -> bool {
        is_plain_text(self.bytes, opening, closing)
    }

    /// From the opening quote past the closing one, whose offset it gives.
    #[inline(always)]
    pub(super) fn string(&mut self, bytes_max: usize) -> Result<usize, FilterFault> {
        if self.peek() != b'"' {
            return self.bad();
        }
        let opening = self.quotes.take(self.bytes);
        let closing = self.quotes.take(self.bytes);
        self.escaped = false;
        let plain = opening == self.at && self.bytes.get(closing) == Some(&b'"');
        let closing = if plain { closing } else { self.rough_string(opening)? };
        if closing - self.at - 1 > bytes_max {
            return Err(FilterFault::Size(self.at + 1));
        }
        self.at = closing + 1;
        Ok(closing)
    }

    /// A string that is not plain, byte by byte.
    #[cold]
    #[inline(never)]
    fn rough_string(&mut self, opening: usize) -> Result<usize, FilterFault> {
        if opening != self.at {
            return self.bad();
        }
        self.at += 1;
        loop {
            self.at += text::plain_run(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    self.escaped = true;
                    self.escape()?;
                }
                _ => return self.bad(),
            }
        }
        let closing = std::mem::replace(&mut self.at, opening);
        self.quotes.skip_to(closing + 1, self.bytes);
        Ok(closing)
    }

    fn escape(&mut self) -> Result<(), FilterFault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let Some(unit) = text::code_unit(rest) else { return self.bad() };
                self.at += if text::is_leading_surrogate(unit) {
                    self.trailing_surrogate()?
                } else if text::is_trailing_surrogate(unit) {
                    return Err(FilterFault::Surrogate(self.at));
                } else {
                    6
                };
            }
            _ => return self.bad(),
        }
        Ok(())
    }

    /// Length of a surrogate pair that begins here.
    fn trailing_surrogate(&self) -> Result<usize, FilterFault> {
        let rest = self.bytes.get(self.at + 6..).unwrap_or_default();
        match text::code_unit(rest) {
            Some(unit) if text::is_trailing_surrogate(unit) => Ok(12),
            _ => Err(FilterFault::Surrogate(self.at)),
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<(), FilterFault> {
        self.at = number(self.bytes, self.at)?;
        Ok(())
    }

    /// `true`, `false` or `null`.
    pub(super) fn literal(&mut self, word: &str) -> Result<(), FilterFault> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return self.bad();
        }
        self.at += word.len();
        Ok(())
    }

    // --- what R4 does not know ----------------------------------------------------------------

    /// Any value at all, from its first byte to behind its last.
    pub(super) fn any(&mut self) -> Result<(), FilterFault> {
        match self.peek() {
            b'{' => self.any_object(),
            b'[' => self.any_array(),
            b'"' => self.string(limits::STRING_BYTES_MAX).map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        }
    }

    fn any_array(&mut self) -> Result<(), FilterFault> {
        self.enter()?;
        if self.peek() != b']' {
            loop {
                self.any()?;
                if !self.more(b']')? {
                    break;
                }
            }
        }
        self.leave();
        Ok(())
    }

    fn any_object(&mut self) -> Result<(), FilterFault> {
        let (start, known) = (self.at, self.names_open());
        self.enter()?;
        if self.peek() != b'}' {
            loop {
                let (opening, closing) = self.name()?;
                self.remember(opening, closing);
                self.any()?;
                if !self.more(b'}')? {
                    break;
                }
            }
        }
        self.leave();
        self.distinct(known, start)
    }

    /// How many unknown names the objects around have; given back to [`Cursor::distinct`] at the end of one.
    #[inline(always)]
    pub(super) fn names_open(&self) -> usize {
        self.names.len()
    }

    /// A name that is to be told from all other unknown ones of its object.
    pub(super) fn remember(&mut self, opening: usize, closing: usize) {
        self.names.push((offset(opening + 1), offset(closing - opening - 1)));
    }

    /// No name twice (T-117), compared after unescaping (T-118). `start` is the object's.
    #[inline(always)]
    pub(super) fn distinct(&mut self, open: usize, start: usize) -> Result<(), FilterFault> {
        if self.names.len() <= open + 1 {
            self.names.truncate(open);
            return Ok(());
        }
        self.distinct_many(open, start)
    }

    #[cold]
    #[inline(never)]
    fn distinct_many(&mut self, open: usize, start: usize) -> Result<(), FilterFault> {
        let written = |&(at, len): &(u32, u32)| self.text.get(at as usize..at as usize + len as usize);
        let names = self.names.get(open..).unwrap_or_default().iter();
        let mut names: Vec<_> = names.map(|name| text::unescape(written(name).unwrap_or_default())).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        self.names.truncate(open);
        if twice { Err(FilterFault::Duplicate(start)) } else { Ok(()) }
    }
}

/// A string from one quote to another is plain, and not too long.
#[inline(always)]
pub(super) fn is_plain_text(bytes: &[u8], opening: usize, closing: usize) -> bool {
    bytes.get(closing) == Some(&b'"') && closing.wrapping_sub(opening) <= limits::STRING_BYTES_MAX
}

/// Behind the number that begins there. RFC 8259 section 6: no leading zero, no bare point, no plus sign.
#[inline(always)]
pub(super) fn number(bytes: &[u8], start: usize) -> Result<usize, FilterFault> {
    let peek = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut at = start;
    if peek(at) == b'-' {
        at += 1;
    }
    at = if peek(at) == b'0' { at + 1 } else { digits(bytes, at)? };
    if peek(at) == b'.' {
        at = digits(bytes, at + 1)?;
    }
    if matches!(peek(at), b'e' | b'E') {
        at += 1;
        if matches!(peek(at), b'+' | b'-') {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    if at - start > limits::NUMBER_BYTES_MAX { Err(FilterFault::Size(start)) } else { Ok(at) }
}

/// Behind the digits that begin there.
#[inline(always)]
fn digits(bytes: &[u8], start: usize) -> Result<usize, FilterFault> {
    let mut at = start;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let many = leading_digits(u64::from_le_bytes(*eight));
        at += many;
        if many < size_of::<u64>() {
            return if at == start { Err(FilterFault::Grammar(start)) } else { Ok(at) };
        }
    }
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at == start { Err(FilterFault::Grammar(start)) } else { Ok(at) }
}

/// How many of the eight bytes are digits, up to the first that is none.
#[inline(always)]
fn leading_digits(eight: u64) -> usize {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    // A digit is 0x30 to 0x39: less 0x30 it fits four bits, and still does with six added. Carries only reach bytes
    // behind one that is no digit.
    let less = eight ^ (0x30 * EACH);
    let high = (less | less.wrapping_add(6 * EACH)) & (0xf0 * EACH);
    (high.trailing_zeros() / u8::BITS) as usize
}

/// The first fault of a text as JSON, whatever FHIR makes of it.
pub(super) fn fault(text: &str) -> Option<FilterFault> {
    let mut cursor = Cursor::new(text);
    cursor.space();
    cursor.any().and_then(|()| cursor.end()).err()
}

/// What the member of that name says, as written, if it is a string, and the text is JSON as far as it is read.
pub(super) fn look_up<'t>(text: &'t str, object: usize, wanted: &str) -> Option<&'t str> {
    let mut ahead = Ahead { bytes: text.as_bytes(), at: object + 1 };
    loop {
        ahead.blanks();
        let (from, to) = ahead.string()?;
        let name = text::unescape(text.get(from..to)?);
        ahead.blanks();
        if name == wanted {
            let (from, to) = ahead.string()?;
            return text.get(from..to);
        }
        ahead.value()?;
    }
}

/// Passes over JSON without checking it: whoever asks comes by again.
struct Ahead<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Ahead<'_> {
    /// White space, commas and colons.
    fn blanks(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|byte| b" \n\r\t,:".contains(byte)).count();
    }

    /// What is between the quotes of the string here.
    fn string(&mut self) -> Option<(usize, usize)> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let from = self.at + 1;
        self.at = from;
        loop {
            self.at += text::plain_run(self.bytes.get(self.at..)?);
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some((from, self.at - 1))
    }

    fn value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' if depth == 0 => return Some(()),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

const _: () = assert!(limits::DOCUMENT_BYTES_MAX < END);
