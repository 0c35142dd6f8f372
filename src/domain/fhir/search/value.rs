//! Search values: FHIR's separators and escapes, and what each parameter type lets stand.
//!
//! Owns: [`SearchValue`], which prints exactly one text and reads it back as itself (T-023).
//! Must never: guess. A backslash before anything but a separator, an empty list item or a number
//! that is not one is refused. Source: R4 search.html, sections 3.1.1.4.1 (escaping) and 3.1.1.4.3 to
//! 3.1.1.4.16 (types).
//! Look next: `search/name.rs` for the other side of the `=`.

use std::fmt;

use super::modifier::Modifier;
use crate::domain::fhir::interaction::is_id;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::{ResourceType, SearchType};
use crate::limits::SEARCH_ALTERNATIVES_MAX;

/// A comma list of `$` tuples of `|` parts, unescaped. No `Debug`: patient data.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::domain::fhir) struct SearchValue {
    alternatives: Vec<Vec<Component>>,
}

/// One component of a composite, or the whole of any other value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Component {
    parts: Vec<String>,
}

impl SearchValue {
    /// Reads decoded text. `None` for an escape that is none, an empty item, or too many items.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::default();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => reader.literal(characters.next().filter(|next| is_separator(*next))?),
                ',' => reader.end_alternative(),
                '$' => reader.end_component(),
                '|' => reader.end_part(),
                other => reader.literal(other),
            }
        }
        reader.end_alternative();
        let alternatives = reader.alternatives;
        let bounded = alternatives.len() <= SEARCH_ALTERNATIVES_MAX;
        let filled = alternatives.iter().flatten().all(Component::is_filled);
        (bounded && filled).then_some(Self { alternatives })
    }

    /// True when every alternative is a value of this parameter type under this modifier.
    /// `components` are the types of a composite's components, else empty.
    pub(super) fn fits(&self, kind: SearchType, modifier: Modifier, components: &[SearchType]) -> bool {
        if modifier == Modifier::Missing && self.alternatives.len() != 1 {
            return false;
        }
        self.alternatives.iter().all(|tuple| match (kind, modifier) {
            (SearchType::Composite, Modifier::Absent) => {
                tuple.len() == components.len()
                    && tuple.iter().zip(components).all(|(one, kind)| one.fits(*kind, modifier))
            }
            _ => matches!(tuple.as_slice(), [one] if one.fits(kind, modifier)),
        })
    }

    /// Turns `https://public-base/Type/id` into `Type/id` where a reference stands: upstream knows itself by
    /// another name. `kinds` as for [`Self::fits`]'s components, or the one kind of the whole.
    pub(super) fn make_local(&mut self, kinds: &[SearchType], base: &PublicBase) {
        for (component, kind) in self.alternatives.iter_mut().flat_map(|tuple| tuple.iter_mut().zip(kinds)) {
            if *kind != SearchType::Reference {
                continue;
            }
            for part in &mut component.parts {
                if let Some(local) = local_reference(part, base) {
                    *part = local;
                }
            }
        }
    }

    /// The parts of each alternative; of a composite none. What fits its parameter's type is no composite otherwise.
    pub(super) fn singles(&self) -> impl Iterator<Item = Vec<&str>> {
        self.alternatives.iter().filter_map(|tuple| match tuple.as_slice() {
            [one] => Some(one.texts()),
            _ => None,
        })
    }

    /// Whether a literal of `_filter`, which has neither lists nor prefixes, is a value of this type.
    pub(super) fn takes_literal(text: &str, kind: SearchType, modifier: Modifier) -> bool {
        let split = matches!(kind, SearchType::Token | SearchType::Quantity | SearchType::Reference);
        let parts: Vec<String> = match split {
            true => text.split('|').map(str::to_owned).collect(),
            false => vec![text.to_owned()],
        };
        let ordered = matches!(kind, SearchType::Number | SearchType::Date | SearchType::Quantity);
        let prefixed = ordered
            && modifier == Modifier::Absent
            && text.starts_with(|first: char| first.is_ascii_alphabetic());
        let component = Component { parts };
        !prefixed && component.is_filled() && component.fits(kind, modifier)
    }
}

/// `Type/id` for `https://public-base/Type/id`.
pub(super) fn local_reference(text: &str, base: &PublicBase) -> Option<String> {
    let rest = text.strip_prefix(base.as_str())?.strip_prefix('/')?;
    is_typed_id(rest).then(|| rest.to_owned())
}

impl fmt::Display for SearchValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(out, &self.alternatives, ',', |out, tuple| {
            print_list(out, tuple, '$', |out, component| {
                print_list(out, &component.parts, '|', |out, part| print_escaped(out, part))
            })
        })
    }
}

fn print_list<T>(
    out: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: char,
    mut print: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            fmt::Write::write_char(out, separator)?;
        }
        print(out, item)?;
    }
    Ok(())
}

fn print_escaped(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        if is_separator(character) {
            fmt::Write::write_char(out, '\\')?;
        }
        fmt::Write::write_char(out, character)?;
    }
    Ok(())
}

fn is_separator(character: char) -> bool {
    matches!(character, '\\' | ',' | '$' | '|')
}

/// What has been read so far, from the innermost level out.
#[derive(Default)]
struct Reader {
    part: String,
    parts: Vec<String>,
    tuple: Vec<Component>,
    alternatives: Vec<Vec<Component>>,
}

impl Reader {
    fn literal(&mut self, character: char) {
        self.part.push(character);
    }

    fn end_part(&mut self) {
        self.parts.push(std::mem::take(&mut self.part));
    }

    fn end_component(&mut self) {
        self.end_part();
        self.tuple.push(Component { parts: std::mem::take(&mut self.parts) });
    }

    fn end_alternative(&mut self) {
        self.end_component();
        self.alternatives.push(std::mem::take(&mut self.tuple));
    }
}

impl Component {
    /// Something is said: `|code` and `system|` are, `` and `|` are not.
    fn is_filled(&self) -> bool {
        self.parts.iter().any(|part| !part.trim().is_empty())
    }

    fn texts(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).collect()
    }

    fn fits(&self, kind: SearchType, modifier: Modifier) -> bool {
        match modifier {
            Modifier::Missing => matches!(self.texts().as_slice(), ["true" | "false"]),
            Modifier::Exact | Modifier::Contains | Modifier::Text => self.is_single(),
            Modifier::Identifier => self.is_token(),
            Modifier::OfType => self.parts.len() == 3 && self.parts.iter().all(|part| !part.is_empty()),
            Modifier::Type(_) | Modifier::Member => matches!(self.texts().as_slice(), [id] if is_id(id)),
            Modifier::In | Modifier::NotIn => self.is_canonical(),
            Modifier::Absent | Modifier::Not | Modifier::Above | Modifier::Below => self.fits_type(kind),
        }
    }

    fn fits_type(&self, kind: SearchType) -> bool {
        match kind {
            SearchType::String => self.is_single(),
            SearchType::Token => self.is_token(),
            SearchType::Uri => self.is_single() && self.parts.iter().all(|uri| !has_space(uri)),
            SearchType::Reference => self.is_reference(),
            SearchType::Number => matches!(self.texts().as_slice(), [one] if is_number(bare(one))),
            SearchType::Date => {
                matches!(self.texts().as_slice(), [one] if super::date::is_date(bare(one)))
            }
            SearchType::Quantity => self.is_quantity(),
            SearchType::Special => self.is_position(),
            // A composite inside a composite does not exist in R4.
            SearchType::Composite => false,
        }
    }

    fn is_single(&self) -> bool {
        self.parts.len() == 1
    }

    /// `code`, `system|code`, `|code` or `system|`.
    fn is_token(&self) -> bool {
        match self.texts().as_slice() {
            [_] => true,
            [system, _] => !has_space(system),
            _ => false,
        }
    }

    /// `url` or `url|version`, or a relative reference.
    fn is_canonical(&self) -> bool {
        match self.texts().as_slice() {
            [one] => is_typed_id(one) || is_absolute(one),
            [url, version] => is_absolute(url) && !version.is_empty(),
            _ => false,
        }
    }

    /// `id`, `Type/id`, or what [`Self::is_canonical`] takes.
    fn is_reference(&self) -> bool {
        matches!(self.texts().as_slice(), [id] if is_id(id)) || self.is_canonical()
    }

    /// `number`, `number|system|code` or `number||code`.
    fn is_quantity(&self) -> bool {
        match self.texts().as_slice() {
            [number] => is_number(bare(number)),
            [number, system, code] => is_number(bare(number)) && !has_space(system) && !code.is_empty(),
            _ => false,
        }
    }

    /// `latitude|longitude[|distance[|units]]` of `Location?near`.
    fn is_position(&self) -> bool {
        match self.texts().as_slice() {
            [latitude, longitude] => is_number(latitude) && is_number(longitude),
            [latitude, longitude, distance] | [latitude, longitude, distance, _] => {
                is_number(latitude) && is_number(longitude) && is_number(distance)
            }
            _ => false,
        }
    }
}

/// `Type/id` with an R4 type. A version may follow in R4; it would search history, so it may not here.
fn is_typed_id(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, id)| ResourceType::from_name(kind).is_some() && is_id(id))
}

/// A URI with a scheme.
fn is_absolute(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    named && !rest.is_empty() && !has_space(text)
}

fn has_space(text: &str) -> bool {
    text.contains(char::is_whitespace)
}

/// Drops one comparison prefix of R4 search.html 3.1.1.4.6.
fn bare(text: &str) -> &str {
    const PREFIXES: [&str; 9] = ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text)
}

/// R4's decimal: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`, and leading zeros and a leading
/// `+` are not it.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole_fits = is_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    let exponent_fits = exponent.is_none_or(|text| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    whole_fits && fraction.is_none_or(is_digits) && exponent_fits && text.len() <= 40
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
