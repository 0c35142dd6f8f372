//! Operations, and requests that nobody should send.
//!
//! Owns: the named operations with their parameters, and the malformed. Must never: grow into a fuzzer; `fuzz/` is one.
//! Look next: `compare`: what a refusal says must not depend on what is withheld either.

use super::super::ask::{Ask, Body, Kind};
use super::Generator;
use serde_json::json;

const FHIR: &str = "application/fhir+json";
const OTHER: &[&str] = &[
    "$graphql",
    "$meta",
    "$meta-add",
    "$match",
    "$document",
    "$stats",
    "$diff",
    "$expunge",
    "$reindex",
    "$summary",
    "$convert",
    "$graph",
    "$process-message",
    "$populate",
    "$apply",
    "$evaluate-measure",
    "$validate-code",
    "$translate",
    "$closure",
    "$purge",
    "$nothing",
];

impl Generator<'_> {
    pub(super) fn operation(&mut self, kind: Kind) -> Ask {
        match kind {
            Kind::Everything => self.everything(),
            Kind::LastN => {
                let mut ask = Ask::get(kind, "Observation/$lastn");
                let patient = self.dice.word(&["p1", "p2", "p6", "nobody"]);
                ask = ask.with(self.dice.word(&["patient", "subject"]), format!("Patient/{patient}"));
                ask = ask.with("category", self.dice.word(&["vital-signs", "laboratory", "social-history"]));
                if self.dice.chance(50) {
                    ask = ask.with("max", self.dice.word(&["1", "2", "5", "x"]));
                }
                if self.dice.chance(40) {
                    ask =
                        ask.with("code", self.dice.word(&["http://loinc.org|29463-7", "29463-7", "55277-8"]));
                }
                ask
            }
            Kind::Validate => {
                let ask = self.of(Kind::Create);
                Ask { kind, path: format!("{}/$validate", ask.path), headers: Vec::new(), ..ask }
            }
            Kind::Expand => self.expand(),
            Kind::Lookup => Ask::get(kind, "CodeSystem/$lookup")
                .with(
                    "system",
                    self.dice.word(&["http://hospital.example/fhir/CodeSystem/wards", "http://loinc.org"]),
                )
                .with("code", self.dice.word(&["medical", "m1", "surgical", "29463-7", "nowhere"])),
            Kind::Export => self.export(),
            _ => {
                let (resource, id, _) = self.address();
                let name = self.dice.word(OTHER);
                let path = match self.dice.below(3) {
                    0 => name.to_owned(),
                    1 => format!("{resource}/{name}"),
                    _ => format!("{resource}/{id}/{name}"),
                };
                if self.dice.chance(60) {
                    Ask::get(kind, path)
                } else {
                    Ask::new(kind, "POST", path).json(FHIR, json!({ "resourceType": "Parameters" }))
                }
            }
        }
    }

    fn expand(&mut self) -> Ask {
        let places = ["ValueSet/$expand", "ValueSet/vs-wards/$expand", "ValueSet/made-valueset/$expand"];
        let ask = Ask::get(Kind::Expand, self.dice.word(&places));
        let urls = [
            "http://hospital.example/fhir/ValueSet/wards",
            "http://hospital.example/fhir/ValueSet/glucose",
            "urn:example:made:10",
            "http://hl7.org/fhir/ValueSet/administrative-gender",
        ];
        let ask = if ask.path == "ValueSet/$expand" { ask.with("url", self.dice.word(&urls)) } else { ask };
        ask.with("count", self.dice.word(&["1", "10"]))
    }

    fn everything(&mut self) -> Ask {
        let id = self.dice.word(&["p1", "p1", "p2", "p3", "p6", "nobody"]);
        let mut ask = Ask::get(Kind::Everything, format!("Patient/{id}/$everything"));
        if self.dice.chance(40) {
            ask = ask.with("_count", self.dice.word(&["1", "3", "50"]));
        }
        if self.dice.chance(30) {
            ask =
                ask.with("_type", self.dice.word(&["Observation", "Observation,Condition", "Claim", "List"]));
        }
        if self.dice.chance(20) {
            ask = ask.with("start", self.dice.word(&["2020-01-01", "2026-01-10"]));
        }
        if self.dice.chance(20) {
            ask = ask.with("_since", self.dice.word(&["2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]));
        }
        ask
    }

    fn export(&mut self) -> Ask {
        let path = self.dice.word(&[
            "$export",
            "Patient/$export",
            "Group/group-course/$export",
            "Group/nobody/$export",
        ]);
        let mut ask = Ask::get(Kind::Export, path);
        if self.dice.chance(50) {
            ask =
                ask.with("_type", self.dice.word(&["Patient", "Patient,Observation", "Claim", "Condition"]));
        }
        if self.dice.chance(20) {
            ask = ask.with("_since", "2026-01-01T00:00:00Z");
        }
        if self.dice.chance(25) {
            let (name, value) = self.criteria_of_shown();
            ask = ask.with("_typeFilter", format!("{name}={value}"));
        }
        ask.header("prefer", "respond-async").header("accept", FHIR)
    }

    fn criteria_of_shown(&mut self) -> (String, String) {
        let known = self.dice.pick(&self.shown).copied();
        match known {
            Some(known) => {
                let (name, value) = self.criteria(known.resource);
                (format!("{}?{name}", known.resource.name()), value)
            }
            None => ("Patient?active".to_owned(), "true".to_owned()),
        }
    }

    /// Not FHIR, or nearly.
    pub(super) fn malformed(&mut self) -> Ask {
        let kind = Kind::Malformed;
        let (resource, id, _) = self.address();
        let (name, path) = (resource, format!("{resource}/{id}"));
        let text = |media: &'static str, method: &'static str, path: &str, body: &str| {
            let mut ask = Ask::new(kind, method, path);
            ask.body = Body::Text(media, body.to_owned());
            ask
        };
        match self.dice.below(14) {
            0 => text(FHIR, "POST", name, "{"),
            1 => text(FHIR, "PUT", &path, "{\"resourceType\":\"Nothing\"}"),
            2 => text(FHIR, "PUT", &path, "[]"),
            3 => text("application/json-patch+json", "PATCH", &path, "{\"op\":\"test\"}"),
            4 => text("application/xml", "PUT", &path, "<Patient/>"),
            5 => text("application/xml-patch+xml", "PATCH", &path, "<diff/>"),
            6 => text(FHIR, "POST", "", "{\"resourceType\":\"Bundle\",\"type\":\"collection\"}"),
            7 => Ask::get(kind, format!("{name}/{id}/{id}/x")),
            8 => Ask::get(kind, format!("{name}/%2e%2e/metadata")),
            9 => Ask::new(kind, self.dice.word(&["OPTIONS", "TRACE", "LOCK"]), path),
            10 => Ask::get(kind, name).with("birthDate%3Aexact", "1980-02-29").with("name\u{0}", "x"),
            11 => Ask::get(kind, name.to_ascii_lowercase()),
            12 => Ask::get(kind, name)
                .with("~page", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            _ => Ask::get(kind, format!("{path}/_history")).with("_since", "when?"),
        }
    }
}
