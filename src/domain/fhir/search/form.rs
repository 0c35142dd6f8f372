//! Query and form text to names and values, decoded exactly once.
//!
//! Owns: `application/x-www-form-urlencoded` as WHATWG describes it, minus its forgiveness: what does
//! not decode cleanly is refused (T-022, T-120). Must never: decode twice, repair, or know parameters.
//! Look next: `search/mod.rs`.

use percent_encoding::percent_decode_str;

use crate::domain::fhir::classify::FhirRefusal;
use crate::limits::{PARAMETER_NAME_BYTES_MAX, PARAMETER_VALUE_BYTES_MAX, SEARCH_PARAMETERS_MAX};

/// One decoded `name=value`. No `Debug`: values are patient data.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::domain::fhir) struct Pair {
    pub(in crate::domain::fhir) name: String,
    pub(in crate::domain::fhir) value: String,
}

/// Adds the pairs of one query string or form to `pairs`. Empty text has none.
pub(in crate::domain::fhir) fn decode_into(pairs: &mut Vec<Pair>, text: &str) -> Result<(), FhirRefusal> {
    if text.is_empty() {
        return Ok(());
    }
    for piece in text.split('&') {
        if pairs.len() >= SEARCH_PARAMETERS_MAX {
            return Err(FhirRefusal::TooManyParameters);
        }
        pairs.push(decode_pair(piece)?);
    }
    Ok(())
}

fn decode_pair(piece: &str) -> Result<Pair, FhirRefusal> {
    let (name, value) = piece.split_once('=').ok_or(FhirRefusal::MalformedQuery)?;
    let name = decode(name, PARAMETER_NAME_BYTES_MAX)?;
    let value = decode(value, PARAMETER_VALUE_BYTES_MAX)?;
    if name.is_empty() {
        return Err(FhirRefusal::MalformedQuery);
    }
    Ok(Pair { name, value })
}

fn decode(text: &str, bytes_max: usize) -> Result<String, FhirRefusal> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') || !has_whole_escapes(text) {
        return Err(FhirRefusal::MalformedQuery);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| FhirRefusal::MalformedQuery)?;
    // Overlong UTF-8 and lone surrogates already failed; the BOM is invisible and nobody types it.
    if decoded.len() > bytes_max || decoded.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return Err(FhirRefusal::MalformedQuery);
    }
    Ok(decoded.into_owned())
}

/// Every `%` is followed by two hex digits; the decoder alone would let others stand.
fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut bytes = after.bytes();
        let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        hex() && hex()
    })
}
