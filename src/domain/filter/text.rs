//! JSON strings: finding their end, reading and writing escapes.
//!
//! Owns: the byte rules of RFC 8259 section 7.
//! Must never: change a string that is copied; only what is compared is unescaped.
//! Look next: `scan`, which has checked every string that is unescaped here.

use std::borrow::Cow;

/// Bytes from the start that are neither quote, backslash nor control character.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let mut run = 0;
    for chunk in bytes.chunks_exact(8) {
        let Ok(word) = <[u8; 8]>::try_from(chunk) else { break };
        let special = special_bytes(u64::from_le_bytes(word));
        if special != 0 {
            return run + (special.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    let rest = bytes.get(run..).unwrap_or_default();
    run + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
}

/// High bit set in each byte that ends a plain run. A borrow can set it too high up, never too low,
/// so the lowest set bit is exact.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5c);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_slash = slash.wrapping_sub(ONES) & !slash;
    (below_space | is_quote | is_slash) & HIGHS
}

/// The code unit of a `\uXXXX` escape that `bytes` begins with.
pub(super) fn code_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}

pub(super) fn is_leading_surrogate(unit: u32) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

pub(super) fn is_trailing_surrogate(unit: u32) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

/// What a scanned string says. Borrowed when there are no escapes, which is nearly always.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut plain = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = unescape_one(escape, &mut plain);
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Reads one escape, its backslash gone, and returns what follows it.
fn unescape_one<'a>(escape: &'a str, plain: &mut String) -> &'a str {
    let mut letters = escape.chars();
    match letters.next() {
        Some('u') => return unescape_unit(escape, plain),
        Some('b') => plain.push('\u{8}'),
        Some('f') => plain.push('\u{c}'),
        Some('n') => plain.push('\n'),
        Some('r') => plain.push('\r'),
        Some('t') => plain.push('\t'),
        Some(other) => plain.push(other),
        None => {}
    }
    letters.as_str()
}

fn unescape_unit<'a>(escape: &'a str, plain: &mut String) -> &'a str {
    let hex =
        |from: usize| escape.get(from..from + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let lead = hex(1).unwrap_or(0xfffd);
    let (code, len) = match hex(7) {
        Some(trail) if is_leading_surrogate(lead) && is_trailing_surrogate(trail) => {
            (0x10000 + ((lead - 0xd800) << 10) + (trail - 0xdc00), 11)
        }
        _ => (lead, 5),
    };
    plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    escape.get(len..).unwrap_or_default()
}

/// Writes `plain` as a JSON string, quotes included, with the short escapes where there are any (RFC 8259 section 7).
pub(super) fn write_string(plain: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in plain.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0x08 => out.extend(*b"\\b"),
            b'\t' => out.extend(*b"\\t"),
            b'\n' => out.extend(*b"\\n"),
            0x0c => out.extend(*b"\\f"),
            b'\r' => out.extend(*b"\\r"),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
