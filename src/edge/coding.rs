//! Content codings: gzip in, gzip and zstd out.
//!
//! Owns: unfolding a request body within bounds (T-132); compressing an answer that was filtered.
//! Must never: give out a byte beyond the caller's bound, or accept a body that holds anything beside one whole
//! gzip member.
//! Look next: `listener::read_body`, which bounds the compressed form.

use std::fmt;
use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::limits::{GZIP_RATIO_FREE_BYTES, GZIP_RATIO_MAX};

/// A coding that answers may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Why a body was not unfolded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingRefusal {
    /// It holds more bytes than allowed, or unfolds further than honest text does: 413.
    TooLarge,
    /// Not one whole gzip member and nothing else: 400.
    Broken,
}

impl fmt::Display for CodingRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLarge => "the compressed body holds too much",
            Self::Broken => "the body is not one whole gzip member",
        })
    }
}

impl std::error::Error for CodingRefusal {}

/// Bytes unfolded at a time.
const STEP_BYTES: usize = 64 * 1024;

/// The body inside a gzip body of exactly one member (RFC 1952): at most `bytes_max` bytes, and beyond
/// `GZIP_RATIO_FREE_BYTES` at most `GZIP_RATIO_MAX` times `body`'s length. Its checksum and length are checked.
/// Holds no more than the bound and one step in memory.
///
/// # Errors
/// A [`CodingRefusal`].
pub fn decode_gzip(body: &[u8], bytes_max: usize) -> Result<Bytes, CodingRefusal> {
    let honest = body.len().saturating_mul(GZIP_RATIO_MAX).max(GZIP_RATIO_FREE_BYTES);
    let bound = bytes_max.min(honest);
    let mut member = GzDecoder::new(body);
    let mut plain = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let count = member.read(&mut step).map_err(|_| CodingRefusal::Broken)?;
        let Some(fresh @ [_, ..]) = step.get(..count) else { break };
        if plain.len() + fresh.len() > bound {
            return Err(CodingRefusal::TooLarge);
        }
        plain.extend_from_slice(fresh);
    }
    // What stands behind the member, a second member included, would be read by some and not by others.
    if member.into_inner().is_empty() { Ok(Bytes::from(plain)) } else { Err(CodingRefusal::Broken) }
}

impl Coding {
    /// The name in `Content-Encoding`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// `plain` in `coding`, or `None` when that failed: send it as it is then. Takes about 10 ms for a megabyte.
#[must_use]
pub fn encode(coding: Coding, plain: &[u8]) -> Option<Vec<u8>> {
    match coding {
        Coding::Gzip => gzip(plain).ok(),
        Coding::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).ok(),
    }
}

/// Fast ones: a clinician waits for the answer.
const GZIP_LEVEL: u32 = 4;
/// Its window has at most 2 MiB, within the 8 MiB that HTTP clients must take (RFC 9659).
const ZSTD_LEVEL: i32 = 3;

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
    member.write_all(plain)?;
    member.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(plain: &[u8]) -> Vec<u8> {
        encode(Coding::Gzip, plain).unwrap()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn one_whole_member_is_unfolded() {
        let text = br#"{"resourceType":"Patient","id":"p1"}"#;
        for plain in [&text[..], b"", &text.repeat(4000), &noise(300_000)] {
            assert_eq!(decode_gzip(&member(plain), plain.len()).unwrap(), plain);
        }
        // All optional fields of a header: extra, name, comment and checksum of the header.
        let mut named = GzEncoder::new(Vec::new(), Compression::fast());
        named.write_all(text).unwrap();
        let built = flate2::GzBuilder::new().extra(vec![1, 2]).filename("a").comment("b");
        let mut built = built.write(Vec::new(), Compression::best());
        built.write_all(text).unwrap();
        for body in [named.finish().unwrap(), built.finish().unwrap()] {
            assert_eq!(decode_gzip(&body, 1000).unwrap(), &text[..]);
        }
    }

    #[test]
    fn bombs_are_refused() {
        use CodingRefusal::TooLarge;
        let mega = 1024 * 1024;
        let bomb = member(&vec![b' '; 20 * mega]);
        assert!(bomb.len() < 64 * 1024, "a ratio of over 300");
        let cases: [(Vec<u8>, usize, Result<usize, CodingRefusal>); 6] = [
            (bomb.clone(), 64 * mega, Err(TooLarge)),
            (bomb, usize::MAX, Err(TooLarge)),
            // Below the size from which the ratio counts, the caller's bound alone does.
            (member(&vec![b' '; mega]), 64 * mega, Ok(mega)),
            (member(&vec![b' '; mega]), mega - 1, Err(TooLarge)),
            (member(&noise(3 * mega)), 3 * mega, Ok(3 * mega)),
            (member(&noise(3 * mega)), 3 * mega - 1, Err(TooLarge)),
        ];
        for (number, (body, bytes_max, should)) in cases.into_iter().enumerate() {
            assert_eq!(decode_gzip(&body, bytes_max).map(|plain| plain.len()), should, "case {number}");
        }
    }

    #[test]
    fn anything_but_one_whole_member_is_broken() {
        let plain = noise(1000);
        let whole = member(&plain);
        for length in 0..whole.len() {
            let refused = decode_gzip(&whole[..length], 1 << 20);
            assert_eq!(refused, Err(CodingRefusal::Broken), "cut to {length}");
        }
        let zlib = [0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
        let mut wrong = whole.clone();
        // The checksum stands eight bytes before the end, the length four.
        wrong[whole.len() - 8] ^= 1;
        let mut short = whole.clone();
        short[whole.len() - 4] ^= 1;
        let cases = [
            [&whole[..], b"x"].concat(),
            [&whole[..], b"\0"].concat(),
            [&whole[..], &whole[..]].concat(),
            [&whole[..], &member(b"")[..]].concat(),
            member(&whole)[1..].to_vec(),
            br#"{"resourceType":"Patient"}"#.to_vec(),
            zlib.to_vec(),
            encode(Coding::Zstd, &plain).unwrap(),
            wrong,
            short,
        ];
        for (number, body) in cases.iter().enumerate() {
            assert_eq!(decode_gzip(body, 1 << 20), Err(CodingRefusal::Broken), "case {number}");
        }
        // Twice compressed is once unfolded: what is inside is the next reader's affair.
        assert_eq!(decode_gzip(&member(&whole), 1 << 20).unwrap(), whole);
    }

    #[test]
    fn answers_are_shorter_and_the_same() {
        let plain = br#"{"resourceType":"Observation","status":"final"}"#.repeat(1000);
        let zstd = encode(Coding::Zstd, &plain).unwrap();
        let gzip = encode(Coding::Gzip, &plain).unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, plain.len()).unwrap(), plain);
        assert_eq!(decode_gzip(&gzip, plain.len()).unwrap(), plain);
        assert!(zstd.len() < plain.len() / 10 && gzip.len() < plain.len() / 10);
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert!(encode(coding, b"").is_some());
            assert!(["gzip", "zstd"].contains(&coding.token()));
        }
    }
}
