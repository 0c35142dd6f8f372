//! Query text, forms and `Parameters` resources to names and values, decoded exactly once.
//!
//! Owns: `application/x-www-form-urlencoded` as WHATWG describes it, minus its forgiveness: what does
//! not decode cleanly is refused (T-022, T-120); of `Parameters`, plain values by name. Must never: decode twice, repair, or know parameters.
//! Look next: `search/mod.rs`.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

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

/// A `Parameters` resource (R4 parameters.html) of which every part is a name with one primitive value. Anything else in
/// it (`resource`, `part`, extensions, data types) is a field that is not there, and refused; so is a field that
/// stands twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersText {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(default)]
    parameter: Vec<ParameterText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ParameterText {
    name: String,
    value_string: Option<String>,
    value_code: Option<String>,
    value_uri: Option<String>,
    value_url: Option<String>,
    value_canonical: Option<String>,
    value_id: Option<String>,
    value_date: Option<String>,
    value_date_time: Option<String>,
    value_instant: Option<String>,
    value_boolean: Option<bool>,
    value_integer: Option<i32>,
    value_positive_int: Option<u32>,
    value_unsigned_int: Option<u32>,
}

impl ParameterText {
    /// As the query would say it. Which of the primitive types it was said in makes no difference: the text must suit
    /// the parameter.
    fn pair(self) -> Option<Pair> {
        let texts = [
            self.value_string,
            self.value_code,
            self.value_uri,
            self.value_url,
            self.value_canonical,
            self.value_id,
            self.value_date,
            self.value_date_time,
            self.value_instant,
            self.value_boolean.map(|flag| flag.to_string()),
            self.value_integer.map(|number| number.to_string()),
            self.value_positive_int.map(|number| number.to_string()),
            self.value_unsigned_int.map(|number| number.to_string()),
        ];
        let mut values = texts.into_iter().flatten();
        let (value, more) = (values.next()?, values.next());
        let clean = |text: &str, bytes_max| !text.is_empty() && is_clean(text, bytes_max);
        let sound = more.is_none()
            && clean(&self.name, PARAMETER_NAME_BYTES_MAX)
            && clean(&value, PARAMETER_VALUE_BYTES_MAX);
        sound.then_some(Pair { name: self.name, value })
    }
}

/// Adds the parameters of a `Parameters` resource to `pairs`.
pub(in crate::domain::fhir) fn parameters_into(
    pairs: &mut Vec<Pair>,
    resource: &[u8],
) -> Result<(), FhirRefusal> {
    let read: ParametersText =
        serde_json::from_slice(resource).map_err(|_| FhirRefusal::MalformedParameters)?;
    if read.resource_type != "Parameters" {
        return Err(FhirRefusal::MalformedParameters);
    }
    for parameter in read.parameter {
        if pairs.len() >= SEARCH_PARAMETERS_MAX {
            return Err(FhirRefusal::TooManyParameters);
        }
        pairs.push(parameter.pair().ok_or(FhirRefusal::MalformedParameters)?);
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
    // Overlong UTF-8 and lone surrogates already failed.
    if is_clean(&decoded, bytes_max) { Ok(decoded.into_owned()) } else { Err(FhirRefusal::MalformedQuery) }
}

/// The BOM is invisible and nobody types it.
fn is_clean(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(|c| c.is_control() || c == '\u{feff}')
}

/// Every `%` is followed by two hex digits; the decoder alone would let others stand.
fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut bytes = after.bytes();
        let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        hex() && hex()
    })
}
