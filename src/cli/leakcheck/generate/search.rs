//! Searches: every parameter of every type, with modifiers, prefixes, chains, `_has`, includes, order and shape.
//!
//! Owns: how a parameter becomes a question. Must never: keep to what the gate understands.
//! Look next: `writes`.

use super::super::ask::{Ask, Body, Kind};
use super::{COUNTS, Generator};
use crate::domain::fhir::r4::{self, ResourceType, SearchParameter, SearchType};

const PREFIXES: &[&str] = &["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];

impl Generator<'_> {
    pub(super) fn search(&mut self, kind: Kind) -> Ask {
        let Some((resource, parameter)) = self.parameters.pop_front() else {
            return Ask::get(kind, "Patient");
        };
        self.parameters.push_back((resource, parameter));
        let mut pairs = Vec::new();
        let path = match kind {
            Kind::SearchCompartment => self.compartment(resource),
            Kind::SearchSystem => {
                if !self.dice.chance(15) {
                    let other = self.dice.pick(&self.shown).map_or("Patient", |known| known.resource.name());
                    pairs.push(("_type".to_owned(), format!("{},{other}", resource.name())));
                }
                String::new()
            }
            _ => resource.name().to_owned(),
        };
        if !self.dice.chance(if kind == Kind::SearchType { 4 } else { 40 }) {
            pairs.push(self.question(resource, parameter));
        }
        let extras = if self.dice.chance(55) { 0 } else { 1 + self.dice.below(2) };
        for _ in 0..extras {
            pairs.push(self.extra(resource));
        }
        self.send_search(kind, path, pairs)
    }

    /// By URL, by form, or by both.
    fn send_search(&mut self, kind: Kind, path: String, pairs: Vec<(String, String)>) -> Ask {
        if self.dice.chance(75) {
            let mut ask =
                if self.dice.chance(4) { Ask::new(kind, "HEAD", path) } else { Ask::get(kind, path) };
            ask.query = pairs;
            return ask;
        }
        let slash = if path.is_empty() { "" } else { "/" };
        let mut ask = Ask::new(kind, "POST", format!("{path}{slash}_search"));
        let split = if self.dice.chance(30) { self.dice.below(pairs.len() + 1) } else { 0 };
        let mut pairs = pairs.into_iter();
        ask.query = pairs.by_ref().take(split).collect();
        ask.body = Body::Form(pairs.collect());
        ask
    }

    fn compartment(&mut self, resource: ResourceType) -> String {
        let (owner, id) = match self.dice.below(8) {
            0..=2 => ("Patient", "p1"),
            3 => ("Patient", self.dice.word(&["p2", "p3", "p6", "nobody"])),
            4 => ("Practitioner", self.dice.word(&["pr-nurse", "pr-physician"])),
            5 => ("Encounter", self.dice.word(&["enc1", "enc2"])),
            6 => ("RelatedPerson", "rp1"),
            _ => ("Device", "made-device"),
        };
        let target = match self.dice.below(8) {
            0 => "*",
            1..=4 => self.dice.pick(&self.shown).map_or("Observation", |known| known.resource.name()),
            _ => resource.name(),
        };
        format!("{owner}/{id}/{target}")
    }

    /// The parameter with a value: plain, modified, chained, or from behind.
    fn question(&mut self, resource: ResourceType, parameter: &'static SearchParameter) -> (String, String) {
        let code = parameter.code;
        match self.dice.below(10) {
            0 => (format!("{code}:missing"), self.dice.word(&["true", "false"]).to_owned()),
            1 => ("_sort".to_owned(), format!("{}{code}", self.dice.word(&["", "-"]))),
            2 => self.behind(resource, 0),
            3..=5 if parameter.kind == SearchType::Reference => self.chain(code.to_owned(), parameter, 0),
            6 if parameter.kind == SearchType::Reference => self.include(resource, parameter),
            _ => {
                let modifier = self.modifier(parameter);
                let mut value = self.value(resource, parameter);
                if self.dice.chance(10) {
                    value = format!("{value},{}", self.value(resource, parameter));
                }
                (format!("{code}{modifier}"), value)
            }
        }
    }

    fn modifier(&mut self, parameter: &SearchParameter) -> &'static str {
        if self.dice.chance(65) {
            return "";
        }
        self.dice.word(match parameter.kind {
            SearchType::String => &[":exact", ":contains", ":text", ":not"],
            SearchType::Token => &[":not", ":text", ":above", ":below", ":in", ":not-in", ":of-type"],
            SearchType::Reference => &[":identifier", ":Patient", ":Practitioner", ":below", ":above"],
            SearchType::Uri => &[":above", ":below", ":contains"],
            SearchType::Date | SearchType::Number | SearchType::Quantity => &[":exact", ":not"],
            SearchType::Composite | SearchType::Special => &[":exact"],
        })
    }

    /// A value of either world, whole or in part: enough of it to ask letter by letter and by halves.
    pub(super) fn value(&mut self, resource: ResourceType, parameter: &SearchParameter) -> String {
        let part = |text: &str, many: usize| text.chars().take(many).collect::<String>();
        match parameter.kind {
            SearchType::String => {
                let text = self.value_at(parameter.reads, &["Sample", "T", "B"]);
                let many = if self.dice.chance(50) { self.dice.below(4) + 1 } else { text.len() };
                escaped(&part(&text, many))
            }
            SearchType::Date => {
                let text = self.value_at(parameter.reads, &["2026-01-10", "1980", "2026-01-15T08:30:00Z"]);
                let many = *self.dice.pick(&[4, 7, 10, 30]).unwrap_or(&10);
                format!("{}{}", self.dice.word(PREFIXES), part(&text, many))
            }
            SearchType::Number | SearchType::Quantity => {
                let text = self.value_at(parameter.reads, &["5", "0.010", "70||kg"]);
                format!("{}{text}", self.dice.word(PREFIXES))
            }
            SearchType::Token => {
                let text =
                    self.value_at(parameter.reads, &["active", "final", "urn:example:mrn|0000-1111", "true"]);
                if self.dice.chance(10) { format!("|{text}") } else { text }
            }
            SearchType::Reference => {
                let text = self
                    .value_at(parameter.reads, &["Patient/p1", "Practitioner/pr-nurse", "p2", "Patient/p6"]);
                if self.dice.chance(15) { text.rsplit('/').next().unwrap_or("p1").to_owned() } else { text }
            }
            SearchType::Uri => {
                self.value_at(parameter.reads, &["urn:example:made:10", "urn:example:questionnaires:mood"])
            }
            SearchType::Composite => {
                let parts: Vec<&'static SearchParameter> = parameter
                    .components
                    .iter()
                    .filter_map(|code| r4::search_parameter(resource, code))
                    .collect();
                let parts: Vec<String> = parts.into_iter().map(|one| self.value(resource, one)).collect();
                if parts.is_empty() { "x$gt5".to_owned() } else { parts.join("$") }
            }
            SearchType::Special => self
                .dice
                .word(&[
                    "name eq \"T\"",
                    "Sample",
                    "48|9|11|km",
                    "birthdate gt 1980",
                    "x",
                    "$current-allergies",
                ])
                .to_owned(),
        }
    }

    /// `subject:Patient.name=T`, on to the next when that is a reference too.
    fn chain(&mut self, so_far: String, parameter: &SearchParameter, depth: usize) -> (String, String) {
        let person = ResourceType::from_name("Patient");
        let target = person.filter(|one| parameter.targets.contains(one) && self.dice.chance(50));
        let target = target.or_else(|| self.dice.pick(parameter.targets).copied()).or(person);
        let Some(target) = target else { return (so_far, "x".to_owned()) };
        let next: Vec<&'static SearchParameter> = r4::search_parameters(target).collect();
        let Some(next) = self.dice.pick(&next).copied() else { return (so_far, "x".to_owned()) };
        let typed = if parameter.targets.len() == 1 && self.dice.chance(50) {
            String::new()
        } else {
            format!(":{}", target.name())
        };
        let name = format!("{so_far}{typed}.{}", next.code);
        if next.kind == SearchType::Reference && depth < 3 && self.dice.chance(50) {
            return self.chain(name, next, depth + 1);
        }
        if self.dice.chance(8) {
            return (format!("{name}:missing"), "true".to_owned());
        }
        (name, self.value(target, next))
    }

    /// `_has:Observation:patient:code=x`, in another one now and then.
    fn behind(&mut self, resource: ResourceType, depth: usize) -> (String, String) {
        let from = self.dice.pick(&self.shown).map(|known| known.resource).filter(|_| !self.dice.chance(20));
        let types: Vec<ResourceType> = ResourceType::all().collect();
        let Some(from) = from.or_else(|| self.dice.pick(&types).copied()) else {
            return ("_has".to_owned(), "x".to_owned());
        };
        let all: Vec<&'static SearchParameter> = r4::search_parameters(from).collect();
        let points = |one: &&&SearchParameter| {
            one.kind == SearchType::Reference && (one.targets.is_empty() || one.targets.contains(&resource))
        };
        let back: Vec<&SearchParameter> = all.iter().filter(points).copied().collect();
        let (back, next) = (self.dice.pick(&back).copied(), self.dice.pick(&all).copied());
        let (Some(back), Some(next)) = (back, next) else {
            return ("_has:Observation:patient:code".to_owned(), "44054006".to_owned());
        };
        let head = format!("_has:{}:{}", from.name(), back.code);
        if depth < 2 && self.dice.chance(15) {
            let (inner, value) = self.behind(from, depth + 1);
            return (format!("{head}:{inner}"), value);
        }
        (format!("{head}:{}", next.code), self.value(from, next))
    }

    fn include(&mut self, resource: ResourceType, parameter: &SearchParameter) -> (String, String) {
        let iterate = self.dice.word(&["", "", ":iterate"]);
        let narrowed = match self.dice.pick(parameter.targets) {
            Some(target) if self.dice.chance(30) => format!(":{}", target.name()),
            _ => String::new(),
        };
        (format!("_include{iterate}"), format!("{}:{}{narrowed}", resource.name(), parameter.code))
    }

    /// Parameters that go with any search.
    fn extra(&mut self, resource: ResourceType) -> (String, String) {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self.dice.below(14) {
            0..=2 => pair("_count", self.dice.word(COUNTS)),
            3 => pair("_total", self.dice.word(&["accurate", "estimate", "none"])),
            4 | 5 => self.shape(resource.name()),
            6 => {
                let all: Vec<&str> = r4::search_parameters(resource).map(|one| one.code).collect();
                let sign = self.dice.word(&["", "-"]);
                ("_sort".to_owned(), format!("{sign}{}", self.dice.word(&all)))
            }
            7 | 8 => {
                let all: Vec<&'static SearchParameter> =
                    r4::search_parameters(resource).filter(|one| one.kind == SearchType::Reference).collect();
                match self.dice.pick(&all).copied() {
                    Some(one) => self.include(resource, one),
                    None => pair("_include", "*"),
                }
            }
            9 => {
                let from = self.dice.pick(&self.shown).map_or(resource, |known| known.resource);
                let back = r4::search_parameters(from).filter(|one| {
                    one.kind == SearchType::Reference
                        && (one.targets.is_empty() || one.targets.contains(&resource))
                });
                let back: Vec<&str> = back.map(|one| one.code).collect();
                ("_revinclude".to_owned(), format!("{}:{}", from.name(), self.dice.word(&back)))
            }
            10 => pair("_contained", self.dice.word(&["true", "both", "false"])),
            11 => pair("_containedType", self.dice.word(&["container", "contained"])),
            12 => pair("_list", self.dice.word(&["made-list", "$current-problems"])),
            _ => {
                let all: Vec<&'static SearchParameter> = r4::search_parameters(resource).collect();
                match self.dice.pick(&all).copied() {
                    Some(one) => self.question(resource, one),
                    None => pair("_score", "true"),
                }
            }
        }
    }

    /// Criteria of a conditional interaction.
    pub(super) fn criteria(&mut self, resource: ResourceType) -> (String, String) {
        let all: Vec<&'static SearchParameter> = r4::search_parameters(resource).collect();
        match self.dice.pick(&all).copied() {
            _ if self.dice.chance(25) => {
                let known = self.shown.iter().filter(|known| known.resource == resource);
                let ids: Vec<&str> = known.map(|known| known.id.as_str()).collect();
                (
                    "_id".to_owned(),
                    self.dice.pick(&ids).map_or_else(|| "nobody".to_owned(), |id| (*id).to_owned()),
                )
            }
            Some(one) => (one.code.to_owned(), self.value(resource, one)),
            None => ("identifier".to_owned(), "x".to_owned()),
        }
    }
}

/// R4's escapes for values (search.html, section 3.1.1.4.0.1).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('$', "\\$").replace('|', "\\|")
}
