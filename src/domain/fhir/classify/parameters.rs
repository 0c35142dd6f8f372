//! The parameters of a request, taken one by one; what is left in the end was not understood.
//!
//! Owns: the parameters that many interactions share, and the syntax of their values. Must never: pass over
//! a parameter (P6). Look next: `ranges` and `operations`, which take what they know.

use super::refusal::FhirRefusal;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::{Pair, decode_into, is_date, parameters_into};
use crate::domain::fhir::shape::Shape;
use crate::limits::SEARCH_COUNT_MAX;

/// Official parameters that mean something elsewhere, so that a refusal can name them.
const ELSEWHERE: [&str; 12] = [
    "_summary",
    "_elements",
    "_count",
    "_total",
    "_sort",
    "_include",
    "_revinclude",
    "_contained",
    "_containedType",
    "_type",
    "_since",
    "_at",
];

/// Decoded parameters not yet taken, in the order given.
pub(super) struct Parameters {
    pairs: Vec<Pair>,
}

impl Parameters {
    /// Query text, decoded once.
    pub(super) fn decode(query: &str) -> Result<Self, FhirRefusal> {
        let mut pairs = Vec::new();
        decode_into(&mut pairs, query)?;
        Ok(Self { pairs })
    }

    /// Adds those of a form: URL and form are one list (T-020).
    pub(super) fn and_form(&mut self, form: &[u8]) -> Result<(), FhirRefusal> {
        let text = std::str::from_utf8(form).map_err(|_| FhirRefusal::MalformedQuery)?;
        decode_into(&mut self.pairs, text)
    }

    /// Adds those of a `Parameters` resource: what an operation is asked by POST is one list with its URL.
    pub(super) fn and_resource(&mut self, resource: &[u8]) -> Result<(), FhirRefusal> {
        parameters_into(&mut self.pairs, resource)
    }

    /// What has not been taken.
    pub(super) fn rest(&self) -> &[Pair] {
        &self.pairs
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|pair| pair.name == name)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), FhirRefusal> {
        match self.pairs.first() {
            None => Ok(()),
            Some(pair) => Err(ELSEWHERE
                .iter()
                .find(|name| **name == pair.name)
                .map_or(FhirRefusal::UnknownParameter, |name| FhirRefusal::ParameterNotSupported(name))),
        }
    }

    /// A parameter that may stand once.
    pub(super) fn single(&mut self, name: &'static str) -> Result<Option<String>, FhirRefusal> {
        let mut found = self.every(name);
        match (found.pop(), found.is_empty()) {
            (last, true) => Ok(last),
            (_, false) => Err(FhirRefusal::RepeatedParameter(name)),
        }
    }

    /// All values of a parameter that may repeat.
    pub(super) fn every(&mut self, name: &str) -> Vec<String> {
        self.pairs.extract_if(.., |pair| pair.name == name).map(|pair| pair.value).collect()
    }

    /// A single value that must look right.
    pub(super) fn checked(
        &mut self,
        name: &'static str,
        fits: impl FnOnce(&str) -> bool,
    ) -> Result<Option<String>, FhirRefusal> {
        match self.single(name)? {
            Some(value) if !fits(&value) => Err(FhirRefusal::MalformedValue(name)),
            value => Ok(value),
        }
    }

    /// `true` or `false`; absent is `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, FhirRefusal> {
        Ok(self.checked(name, is_boolean)?.is_some_and(|value| value == "true"))
    }

    /// `_count`, lowered to the bound as in a search.
    pub(super) fn count(&mut self) -> Result<Option<u32>, FhirRefusal> {
        let count = self.checked("_count", is_positive)?;
        Ok(count.and_then(|count| count.parse().ok()).map(|count: u32| count.min(SEARCH_COUNT_MAX)))
    }

    /// `_type`: names of R4 types, separated by commas; ordered, without repeats. None: not given.
    pub(super) fn types(&mut self) -> Result<Option<Vec<ResourceType>>, FhirRefusal> {
        let Some(list) = self.single("_type")? else { return Ok(None) };
        let types: Option<Vec<_>> = list.split(',').map(ResourceType::from_name).collect();
        let mut types = types.ok_or(FhirRefusal::MalformedValue("_type"))?;
        types.sort_unstable();
        types.dedup();
        Ok(Some(types))
    }

    /// `_elements` and `_summary`, as far as they say something about one of `types`.
    pub(super) fn shape(&mut self, types: &[ResourceType]) -> Result<Shape, FhirRefusal> {
        let elements = self.single("_elements")?;
        let summary = self.single("_summary")?;
        let asked = if elements.is_some() { "_elements" } else { "_summary" };
        Shape::read(elements.as_deref(), summary.as_deref(), types).ok_or(FhirRefusal::MalformedValue(asked))
    }

    /// As [`Parameters::shape`], where there is nothing to count.
    pub(super) fn shape_of_records(&mut self, types: &[ResourceType]) -> Result<Shape, FhirRefusal> {
        match self.shape(types)? {
            Shape::Count => Err(FhirRefusal::MalformedValue("_summary")),
            shape => Ok(shape),
        }
    }
}

pub(super) fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "false")
}

/// 1 to 999,999,999, without leading zeros.
pub(super) fn is_positive(text: &str) -> bool {
    is_number(text) && text != "0"
}

/// 0 to 999,999,999, without leading zeros.
pub(super) fn is_number(text: &str) -> bool {
    (1..=9).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

/// R4's dateTime at any precision.
pub(super) fn is_date_time(text: &str) -> bool {
    is_date(text)
}

/// R4's date: no time.
pub(super) fn is_plain_date(text: &str) -> bool {
    is_date(text) && !text.contains('T')
}

/// R4's instant: a time to the second at least, with its zone.
pub(super) fn is_instant(text: &str) -> bool {
    let zoned = |time: &str| {
        let clock = time.split(['Z', '+', '-']).next().unwrap_or(time);
        clock.len() < time.len() && clock.matches(':').count() == 2
    };
    is_date(text) && text.split_once('T').is_some_and(|(_, time)| zoned(time))
}

/// R4's code: no white space at either end, and no more than one space within.
pub(super) fn is_code(text: &str) -> bool {
    is_text(text) && text.trim() == text && !text.contains("  ")
}

/// R4's uri: no white space anywhere.
pub(super) fn is_uri(text: &str) -> bool {
    is_text(text) && !text.contains(char::is_whitespace)
}

/// A language tag (BCP 47), by its alphabet.
pub(super) fn is_language(text: &str) -> bool {
    (1..=35).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Anything but nothing. Control characters do not decode, and the length is bounded there.
pub(super) fn is_text(text: &str) -> bool {
    !text.trim().is_empty()
}
