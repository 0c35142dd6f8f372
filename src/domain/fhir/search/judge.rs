//! Whether one record is what a search asks for, as far as the record alone can tell.
//!
//! Owns: the comparison of a criterion with the record's own elements: R4 search.html 3.1.1.4, token, string, date,
//! reference and uri. Must never: say yes or no where the answer is the server's to choose (`ap`, `:text`, phone
//! numbers), stands in another record (chains, `_has`, `:in`, `:below`), or depends on a part of the expression that the
//! tables do not keep; that is [`Holds::CannotSay`].
//! Look next: `search/found.rs`, what the record says; `search/span.rs`, times.

use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::found::{Findings, Found};
use super::modifier::Modifier;
use super::question::{Asked, Criterion, Search};
use super::span::{Prefix, Span};
use super::value::SearchValue;
use crate::domain::fhir::r4::{
    self, ElementPath, ResourceType, SearchParameter, SearchType, search_parameter,
};

/// The answer about one record.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It is what is asked for.
    Yes,
    /// It is not.
    No,
    /// The record alone does not tell. Whoever must be sure takes it for a no.
    CannotSay,
}

impl Holds {
    pub(in crate::domain::fhir) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::CannotSay, _) | (_, Self::CannotSay) => Self::CannotSay,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::CannotSay => Self::CannotSay,
        }
    }

    /// A yes that rests on something unsaid.
    fn at_most_perhaps(self) -> Self {
        self.and(Self::CannotSay)
    }

    pub(in crate::domain::fhir) fn any(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::No, Self::or)
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Search {
    /// Whether each criterion is one that a record alone can answer, so that [`Self::holds_for`] cannot say only about
    /// records of an unusual form.
    #[must_use]
    pub fn is_judgeable(&self) -> bool {
        self.compartment.is_none() && self.criteria.iter().all(|one| Question::of(one).is_some())
    }

    /// Whether `record`, one JSON object that was read strictly, is of the searched type and what all criteria ask
    /// for. `here`: base URLs without a trailing slash that mean this server in the record's references.
    pub fn holds_for(&self, record: &Value, here: &[&str]) -> Holds {
        let own_type = record.get("resourceType").and_then(Value::as_str) == Some(self.resource.name());
        let in_compartment = if self.compartment.is_some() { Holds::CannotSay } else { Holds::Yes };
        let criteria = self.criteria.iter().map(|criterion| criterion.holds_for(record, here));
        criteria.fold(Holds::from(own_type).and(in_compartment), Holds::and)
    }
}

impl Criterion {
    /// Whether the record fulfils this criterion; `record` must be of the searched type. As [`Search::holds_for`].
    pub fn holds_for(&self, record: &Value, here: &[&str]) -> Holds {
        Question::of(self).map_or(Holds::CannotSay, |question| question.answer(record, here))
    }
}

/// Whether a record was last changed at this instant or later, by what it says itself.
pub(in crate::domain::fhir) fn changed_since(record: &Value, since: &str) -> Holds {
    let changed = record.pointer("/meta/lastUpdated").and_then(Value::as_str).and_then(Span::read);
    match (changed, Span::read(since)) {
        (Some(changed), Some(since)) => changed.lies(Prefix::GreaterOrEqual, since),
        _ => Holds::CannotSay,
    }
}

/// A criterion that a record alone can answer.
struct Question<'q> {
    parameter: &'static SearchParameter,
    modifier: Modifier,
    value: &'q SearchValue,
    reads: &'q [ElementPath],
}

/// Parameters whose expression tells more than the elements it reads: it computes, or takes one type of a choice whose
/// other types would be compared too. A test holds this list against the expressions.
const COMPUTED: [(&str, &str); 6] = [
    ("Patient", "age"),
    ("Patient", "birthOrderBoolean"),
    ("Patient", "deceased"),
    ("CommunicationRequest", "occurrence"),
    ("Provenance", "when"),
    ("RiskAssessment", "date"),
];

impl<'q> Question<'q> {
    fn of(criterion: &'q Criterion) -> Option<Self> {
        let Asked::Values(value) = &criterion.value else { return None };
        // More than one hop: another record is looked into.
        let [hop] = criterion.hops() else { return None };
        let (code, suffix) = match criterion.name().split_once(':') {
            Some((code, suffix)) => (code, Some(suffix)),
            None => (criterion.name(), None),
        };
        let parameter = search_parameter(hop.resource(), code)?;
        let modifier = Modifier::parse(suffix, parameter.kind)?;
        let question = Self { parameter, modifier, value, reads: hop.reads() };
        (question.is_plain(hop.resource()) && question.has_sure_values()).then_some(question)
    }

    fn is_plain(&self, resource: ResourceType) -> bool {
        let kind = self.parameter.kind;
        let known = match self.modifier {
            Modifier::Absent | Modifier::Type(_) => true,
            Modifier::Exact | Modifier::Contains | Modifier::Not => true,
            // What a reference lacks is told by more elements than it compares.
            Modifier::Missing => kind != SearchType::Reference,
            Modifier::Text
            | Modifier::Above
            | Modifier::Below
            | Modifier::In
            | Modifier::NotIn
            | Modifier::OfType
            | Modifier::Identifier
            | Modifier::Member => false,
        };
        let name = (resource.name(), self.parameter.code);
        // An element read beside one that holds it is a condition on it: `telecom.where(system='phone')`.
        let nested = self
            .reads
            .iter()
            .any(|outer| self.reads.iter().any(|inner| outer != inner && outer.is_ancestor_or_self(inner)));
        let computed = COMPUTED.contains(&name) || name.1 == "phonetic";
        known && !nested && !computed && self.reads.iter().all(|path| is_compared(path, kind))
    }

    /// What `ap` means is the server's choice.
    fn has_sure_values(&self) -> bool {
        let about =
            |parts: &[&str]| parts.first().is_some_and(|text| Prefix::split(text).0 == Prefix::Approximately);
        let dates = self.parameter.kind == SearchType::Date && self.modifier == Modifier::Absent;
        !dates || !self.value.singles().any(|parts| about(&parts))
    }

    fn answer(&self, record: &Value, here: &[&str]) -> Holds {
        let mut findings = Findings::default();
        self.reads.iter().for_each(|path| findings.gather(record, path));
        if self.modifier == Modifier::Missing {
            return self.missing(&findings);
        }
        let asked = self.value.singles();
        let found = Holds::any(
            asked.map(|parts| Holds::any(findings.values.iter().map(|one| self.compare(one, &parts, here)))),
        );
        if self.modifier == Modifier::Not { found.not() } else { found }
    }

    /// A choice may hold a value that the parameter does not mean, and an element only extensions.
    fn missing(&self, findings: &Findings<'_>) -> Holds {
        let wanted = self.value.singles().next().is_some_and(|parts| parts == ["true"]);
        let sure = !findings.has_twins && !findings.values.iter().any(|one| one.choice);
        match (findings.values.is_empty(), sure) {
            (missing, true) => Holds::from(missing == wanted),
            (_, false) => Holds::CannotSay,
        }
    }

    fn compare(&self, found: &Found<'_>, asked: &[&str], here: &[&str]) -> Holds {
        match (self.parameter.kind, asked) {
            (SearchType::Token, _) => Token::read(asked).map_or(Holds::CannotSay, |token| token.fits(found)),
            (SearchType::String, [text]) => self.text(found, text),
            (SearchType::Date, [text]) => date(found, text),
            (SearchType::Uri, [text]) => uri(found, text),
            (SearchType::Reference, _) => self.reference(found, asked, here),
            _ => Holds::CannotSay,
        }
    }

    fn text(&self, found: &Found<'_>, asked: &str) -> Holds {
        let fits = |text: &str| match self.modifier {
            Modifier::Exact => text == asked,
            Modifier::Contains => fold(text).contains(&fold(asked)),
            _ => fold(text).starts_with(&fold(asked)),
        };
        match (found.value, found.type_name) {
            (Value::String(text), "string" | "markdown") => Holds::from(fits(text)),
            (Value::String(text), _) if !found.choice => Holds::from(fits(text)),
            // Which of its parts are compared is the server's choice; that one of them fits is enough.
            (Value::Object(_), "HumanName" | "Address") => {
                Holds::any(parts_of(found.value).map(|text| Holds::from(fits(text))))
            }
            _ if found.choice => Holds::No,
            _ => Holds::CannotSay,
        }
    }

    fn reference(&self, found: &Found<'_>, asked: &[&str], here: &[&str]) -> Holds {
        let Some(text) = found.value.as_str() else { return Holds::CannotSay };
        let same = match asked {
            [url, version] => match text.split_once('|') {
                Some(said) => Holds::from(said == (url, version)),
                None => Holds::from(text == *url).at_most_perhaps(),
            },
            [one] => self.points_at(text, one, here),
            _ => Holds::CannotSay,
        };
        if found.choice { same.at_most_perhaps() } else { same }
    }

    fn points_at(&self, text: &str, asked: &str, here: &[&str]) -> Holds {
        let base = here.iter().find_map(|base| text.strip_prefix(base)?.strip_prefix('/'));
        let plain = base.unwrap_or(text);
        let plain = plain.split_once("/_history/").map_or(plain, |(before, _)| before);
        let may = |kind: &str| match (self.modifier, ResourceType::from_name(kind)) {
            (Modifier::Type(wanted), found) => found == Some(wanted),
            (_, Some(found)) => self.parameter.targets.is_empty() || self.parameter.targets.contains(&found),
            (_, None) => false,
        };
        let mut ends = plain.rsplit('/');
        let (id, kind) = (ends.next().unwrap_or_default(), ends.next().unwrap_or_default());
        let named = asked == id || asked.split_once('/') == Some((kind, id));
        let local = plain.split('/').count() == 2;
        match (may(kind) && named, local) {
            (true, true) => Holds::Yes,
            // An absolute address of another base, by which the server may know itself.
            (true, false) => Holds::CannotSay,
            (false, _) => Holds::from(asked.contains(':') && asked == text.split('|').next().unwrap_or(text)),
        }
    }
}

/// Whether values at this path are compared with what is asked by a parameter of this kind. What is not, is read by a
/// condition of the expression.
fn is_compared(path: &ElementPath, kind: SearchType) -> bool {
    let Some(element) = path.element().filter(|_| path.extension_url().is_none()) else { return false };
    let names = || element.types.iter().map(|one| r4::type_name(*one));
    let any = |suitable: fn(&str) -> bool| names().any(suitable);
    match kind {
        SearchType::Token => {
            let primitive = |one: &r4::Structure| matches!(r4::kind(*one), r4::Kind::Primitive(form) if form != r4::Primitive::Number);
            any(|name| matches!(name, "CodeableConcept" | "Coding" | "Identifier"))
                || element.types.iter().any(primitive)
        }
        SearchType::String => any(|name| matches!(name, "string" | "markdown" | "HumanName" | "Address")),
        SearchType::Date => any(|name| matches!(name, "date" | "dateTime" | "instant" | "Period")),
        SearchType::Uri => any(|name| matches!(name, "uri" | "url" | "canonical" | "oid" | "uuid")),
        SearchType::Reference => {
            path.as_str().ends_with(".reference") || any(|name| matches!(name, "canonical" | "uri"))
        }
        SearchType::Number | SearchType::Composite | SearchType::Quantity | SearchType::Special => false,
    }
}

/// `code`, `system|code`, `|code` or `system|`.
struct Token<'t> {
    system: Option<&'t str>,
    code: &'t str,
}

impl<'t> Token<'t> {
    fn read(parts: &[&'t str]) -> Option<Self> {
        match parts {
            [code] => Some(Self { system: None, code }),
            [system, code] => Some(Self { system: Some(system), code }),
            _ => None,
        }
    }

    fn fits(&self, found: &Found<'_>) -> Holds {
        let value = found.value;
        match (value, found.type_name) {
            (Value::Object(_), "Coding") => self.fits_pair(value, "code"),
            (Value::Object(_), "Identifier") => self.fits_pair(value, "value"),
            (Value::Object(_), "CodeableConcept") => {
                let codings = value.get("coding").and_then(Value::as_array).into_iter().flatten();
                Holds::any(codings.map(|coding| self.fits_pair(coding, "code")))
            }
            (Value::Bool(flag), _) => self.fits_bare(if *flag { "true" } else { "false" }, found, true),
            // The system of a code is told by its binding, which is not in the tables.
            (Value::String(code), name) => self.fits_bare(code, found, name == "code"),
            _ if found.choice => Holds::No,
            _ => Holds::CannotSay,
        }
    }

    fn fits_pair(&self, value: &Value, member: &str) -> Holds {
        let says = |name| value.get(name).and_then(Value::as_str);
        let system = self.system.is_none_or(|system| says("system").unwrap_or_default() == system);
        let code = if self.code.is_empty() {
            Holds::Yes
        } else {
            says(member).map_or(Holds::No, |code| self.fits_code(code))
        };
        Holds::from(system).and(code)
    }

    /// A value that says no system.
    fn fits_bare(&self, code: &str, found: &Found<'_>, implied_system: bool) -> Holds {
        let same = if self.code.is_empty() { Holds::Yes } else { self.fits_code(code) };
        match self.system {
            _ if found.choice => same.at_most_perhaps(),
            None => same,
            Some(_) if implied_system => same.at_most_perhaps(),
            Some("") => same,
            Some(_) => Holds::No,
        }
    }

    /// Whether letter case counts is the code system's matter (R4 search.html 3.1.1.4.10).
    fn fits_code(&self, code: &str) -> Holds {
        if code == self.code {
            return Holds::Yes;
        }
        Holds::from(code.to_lowercase() == self.code.to_lowercase()).at_most_perhaps()
    }
}

fn date(found: &Found<'_>, asked: &str) -> Holds {
    let (prefix, text) = Prefix::split(asked);
    let Some(asked) = Span::read(text) else { return Holds::CannotSay };
    let says = |name| found.value.get(name).and_then(Value::as_str);
    let read = |text: Option<&str>| text.map(Span::read);
    let span = match (found.value, found.type_name) {
        (Value::String(text), "date" | "dateTime" | "instant") => Span::read(text),
        (Value::Object(_), "Period") => match (read(says("start")), read(says("end"))) {
            // A bound that is said and not understood is no open one.
            (Some(None), _) | (_, Some(None)) => None,
            (start, end) => Span::between(start.flatten(), end.flatten()),
        },
        (_, "Timing") => None,
        _ if found.choice => return Holds::No,
        _ => None,
    };
    span.map_or(Holds::CannotSay, |span| span.lies(prefix, asked))
}

/// By its whole. A canonical may say its version.
fn uri(found: &Found<'_>, asked: &str) -> Holds {
    let Some(text) = found.value.as_str() else { return Holds::CannotSay };
    let same = text == asked;
    let versioned = !same && text.split_once('|').is_some_and(|(url, _)| url == asked);
    if versioned || same && found.choice { Holds::CannotSay } else { Holds::from(same) }
}

/// All texts of a HumanName or an Address, codes and periods left out.
fn parts_of<'v>(value: &'v Value) -> impl Iterator<Item = &'v str> {
    const PARTS: [&str; 11] = [
        "text",
        "family",
        "given",
        "prefix",
        "suffix",
        "line",
        "city",
        "district",
        "state",
        "postalCode",
        "country",
    ];
    let items = |part: &'v Value| part.as_array().map_or(std::slice::from_ref(part), Vec::as_slice);
    PARTS.iter().filter_map(|name| value.get(*name)).flat_map(items).filter_map(Value::as_str)
}

/// Without case, accents and breadth of white space (R4 search.html 3.1.1.4.8).
fn fold(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").nfkd().filter(|letter| !is_combining_mark(*letter)).flat_map(char::to_lowercase).collect()
}
