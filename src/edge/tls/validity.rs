//! When a certificate ends.
//!
//! Owns: reading `notAfter` out of a certificate (RFC 5280 section 4.1), for a warning ahead of time.
//! Must never: be what decides whether a certificate is trusted; the TLS library does.
//! Look next: `tls`, which reads the files.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{TlsError, certificates};

/// When the first certificate of a chain ends: a chain is no longer trusted from then on.
///
/// # Errors
/// [`TlsError`] when the file holds no certificate that can be read.
pub fn chain_end(path: &Path) -> Result<Timestamp, TlsError> {
    let chain = certificates(path)?;
    let ends: Option<Vec<Timestamp>> = chain.iter().map(|certificate| end_of(certificate)).collect();
    let end = ends.and_then(|ends| ends.into_iter().min());
    end.ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

/// `notAfter` of a certificate in DER.
fn end_of(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, mut body, _) = element(certificate)?;
    // The version has the tag [0] and may be left out; serial number, signature algorithm and issuer follow.
    if body.first() == Some(&0xa0) {
        body = element(body)?.2;
    }
    for _ in 0..3 {
        body = element(body)?.2;
    }
    let (_, validity, _) = element(body)?;
    let (_, _, after_start) = element(validity)?;
    let (tag, end, _) = element(after_start)?;
    time(tag, std::str::from_utf8(end).ok()?)
}

/// The first element (X.690 section 8.1): tag, content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// RFC 5280 section 4.1.2.5: UTCTime has two digits of the year, from 1950 on; GeneralizedTime has four.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let digits = match tag {
        0x17 => {
            let year: u8 = digits.get(..2)?.parse().ok()?;
            format!("{}{digits}", if year < 50 { "20" } else { "19" })
        }
        0x18 => digits.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &digits).ok()?;
    // 99991231235959Z means no end at all, and lies beyond what can be reckoned with.
    Some(civil.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::tls::fixture::Authority;

    #[test]
    fn the_end_is_read_and_nothing_else_is_taken_for_it() {
        let authority = Authority::new();
        for (year, end) in [(2049, "2049-01-01T00:00:00Z"), (2051, "2051-01-01T00:00:00Z")] {
            let files = authority.issue_until("some", "localhost", year);
            assert_eq!(chain_end(&files.certificate).unwrap(), end.parse().unwrap());
            assert!(chain_end(&files.private_key).is_err());
        }
        assert_eq!(time(0x17, "500101000000Z"), Some("1950-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(time(0x18, "99991231235959Z"), Some(Timestamp::MAX));
        for (tag, text) in
            [(0x17, "5001010000Z"), (0x17, "500101000000"), (0x18, ""), (0x04, "500101000000Z")]
        {
            assert_eq!(time(tag, text), None, "{text}");
        }
        for der in
            [&[][..], &[0x30], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 4, 0x30, 2, 0xa0, 9], &[0x30, 0x80]]
        {
            assert_eq!(end_of(der), None, "{der:?}");
        }
    }
}
