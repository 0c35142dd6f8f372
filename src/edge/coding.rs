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
