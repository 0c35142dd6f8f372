//! Writes: from the caller's own view, from what they should not know, and aimed at what they cannot see.
//!
//! Owns: bodies, patches, preconditions, and the entries of batches and transactions.
//! Must never: keep to what a well-behaved client would send. Look next: `oddities`.

use super::super::ask::{Ask, Body, Kind, encoded};
use super::super::minimal::{self, Fill};
use super::super::worlds::Known;
use super::Generator;
use crate::domain::fhir::r4;
use serde_json::{Value, json};

const FHIR: &str = "application/fhir+json";
const JSON_PATCH: &str = "application/json-patch+json";
const TAGS: [&str; 2] = ["SUBSETTED", "R"];

impl<'g> Generator<'g> {
    pub(super) fn write(&mut self, kind: Kind) -> Ask {
        let Some(known) = self.subject() else { return Ask::new(kind, "DELETE", "Patient/nobody") };
        let (resource, name) = (known.resource, known.resource.name());
        let id = if self.dice.chance(5) { "nobody" } else { known.id.as_str() };
        let path = format!("{name}/{id}");
        let mut ask = match kind {
            Kind::Create => Ask::new(kind, "POST", name).json(FHIR, self.body(known, false)),
            Kind::ConditionalCreate => {
                let criteria = self.criteria(resource);
                let ask = Ask::new(kind, "POST", name).json(FHIR, self.body(known, false));
                ask.header("if-none-exist", encoded(&[criteria]))
            }
            Kind::Update => Ask::new(kind, "PUT", path).json(FHIR, self.body(known, true)),
            Kind::ConditionalUpdate => Ask::new(kind, "PUT", name).json(FHIR, self.body(known, true)),
            Kind::Patch | Kind::ConditionalPatch => {
                let (media, body) = self.patch(known);
                Ask::new(kind, "PATCH", if kind == Kind::Patch { path } else { name.to_owned() })
                    .json(media, body)
            }
            _ => Ask::new(kind, "DELETE", if kind == Kind::Delete { path } else { name.to_owned() }),
        };
        if matches!(kind, Kind::ConditionalUpdate | Kind::ConditionalPatch | Kind::ConditionalDelete) {
            ask.query.push(self.criteria(resource));
        }
        if matches!(kind, Kind::Update | Kind::Patch | Kind::Delete) && self.dice.chance(40) {
            ask = ask.header(
                "if-match",
                self.dice.word(&["W/\"1\"", "W/\"2\"", "W/\"3\"", "W/\"9\"", "\"1\"", "*"]),
            );
        }
        if self.dice.chance(45) {
            let wishes =
                ["return=minimal", "return=representation", "return=OperationOutcome", "handling=lenient"];
            ask = ask.header("prefer", self.dice.word(&wishes));
        }
        ask
    }

    /// Which record is meant: mostly one that is seen.
    fn subject(&mut self) -> Option<&'g Known> {
        let all = &self.ground.worlds.known;
        if self.dice.chance(75) { self.dice.pick(&self.shown).copied() } else { self.dice.pick(all) }
    }

    /// A record to be stored: the caller's view, changed; what one world holds; or a new one.
    fn body(&mut self, known: &Known, keep_id: bool) -> Value {
        let name = known.resource.name();
        let view = self.ground.views.get(&format!("{name}/{}", known.id)).cloned();
        let whole = self.dice.pick(&known.texts).cloned().flatten();
        let made = minimal::record(known.resource, &known.id, "p1", Fill { percent: 20 }, &mut self.dice);
        let mut body = match self.dice.below(10) {
            0..=5 => view.unwrap_or(made),
            6 | 7 => whole.unwrap_or(made),
            _ => made,
        };
        for _ in 0..self.dice.below(3) {
            self.change(&mut body, known);
        }
        if let Some(members) = body.as_object_mut().filter(|_| !keep_id) {
            members.shift_remove("id");
            members.shift_remove("meta");
        }
        body
    }

    fn change(&mut self, body: &mut Value, known: &Known) {
        let other = self.dice.pick(&known.texts).cloned().flatten();
        let root = r4::root(known.resource);
        let Some(members) = body.as_object_mut() else { return };
        match self.dice.below(8) {
            // An element that is perhaps withheld, with the value of one world.
            0 | 1 => {
                let keys: Vec<String> =
                    members.keys().filter(|key| *key != "id" && *key != "resourceType").cloned().collect();
                let other = other.as_ref().and_then(Value::as_object);
                let theirs: Vec<&String> = other.into_iter().flat_map(|other| other.keys()).collect();
                if let Some(key) = self.dice.pick(&theirs).filter(|key| !keys.contains(key))
                    && let Some(value) = other.and_then(|other| other.get(*key))
                {
                    members.insert((*key).clone(), value.clone());
                } else if let Some(key) = self.dice.pick(&keys) {
                    members.shift_remove(key);
                }
            }
            2 => drop(members.shift_remove("meta")),
            3 => {
                let code = self.dice.word(&TAGS);
                members.insert(
                    "meta".to_owned(),
                    json!({ "tag": [{ "code": code }], "security": [{ "code": "N" }] }),
                );
            }
            // Another patient's, or one found by a search.
            4 | 5 => {
                let inline = self.value_of("Patient", "identifier");
                let targets = [
                    "Patient/p2".to_owned(),
                    "Patient/p6".to_owned(),
                    "Patient/p1".to_owned(),
                    format!("Patient?identifier={inline}"),
                    "Patient?birthdate=1980-02-29".to_owned(),
                ];
                let target = self.dice.pick(&targets).cloned().unwrap_or_default();
                let key = self.dice.word(&["subject", "patient", "managingOrganization", "performer"]);
                if let Some(property) = r4::property(root, key) {
                    let reference = json!({ "reference": target });
                    let value = if property.element.many { json!([reference]) } else { reference };
                    members.insert(key.to_owned(), value);
                }
            }
            _ => {
                let keys: Vec<String> =
                    members.iter().filter(|(_, v)| v.is_string()).map(|(key, _)| key.clone()).collect();
                if let Some(key) =
                    self.dice.pick(&keys).filter(|key| !["id", "resourceType"].contains(&key.as_str()))
                {
                    members.insert(key.clone(), json!("changed"));
                }
            }
        }
    }

    fn value_of(&mut self, name: &str, code: &str) -> String {
        let resource = r4::ResourceType::from_name(name);
        let parameter = resource.and_then(|resource| r4::search_parameter(resource, code));
        parameter.map(|one| self.value_at(one.reads, &["urn:example:mrn|0000-1111"])).unwrap_or_default()
    }

    /// JSON Patch or FHIRPath Patch on places of the whole record, seen or not, with values of either world.
    pub(super) fn patch(&mut self, known: &Known) -> (&'static str, Value) {
        let mut places = Vec::new();
        for text in known.texts.iter().flatten() {
            leaves(text, &mut String::new(), &mut places);
        }
        places.push(("/nothing".to_owned(), json!("x")));
        let json_patch = self.dice.chance(60);
        let count = 1 + self.dice.below(3);
        let mut operations = Vec::new();
        for _ in 0..count {
            let (Some(one), Some(two)) = (self.dice.pick(&places).cloned(), self.dice.pick(&places).cloned())
            else {
                break;
            };
            operations.push(if json_patch {
                self.json_operation(&one, &two)
            } else {
                self.path_operation(known, &one, &two)
            });
        }
        if json_patch {
            return (JSON_PATCH, Value::Array(operations));
        }
        (FHIR, json!({ "resourceType": "Parameters", "parameter": operations }))
    }

    fn json_operation(&mut self, one: &(String, Value), two: &(String, Value)) -> Value {
        let parent =
            |path: &str| path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
        let (path, value) = one;
        match self.dice.below(8) {
            0..=2 => json!({ "op": "test", "path": path, "value": value }),
            3 => json!({ "op": "copy", "from": path, "path": two.0 }),
            4 => json!({ "op": "move", "from": path, "path": two.0 }),
            5 => {
                json!({ "op": "remove", "path": if self.dice.chance(30) { parent(path) } else { path.clone() } })
            }
            6 => json!({ "op": "add", "path": path, "value": two.1 }),
            _ => json!({ "op": "replace", "path": path, "value": two.1 }),
        }
    }

    fn path_operation(&mut self, known: &Known, one: &(String, Value), two: &(String, Value)) -> Value {
        let mut path = known.resource.name().to_owned();
        for step in one.0.split('/').skip(1) {
            match step.parse::<usize>() {
                Ok(index) => path.push_str(&format!("[{index}]")),
                Err(_) => path.push_str(&format!(".{step}")),
            }
        }
        let text = two.1.as_str().unwrap_or("x");
        match self.dice.below(8) {
            0 => path = format!("{path}.where($this = '{text}')"),
            1 => path = format!("{}.where(birthDate < @1980)", known.resource.name()),
            _ => {}
        }
        let kind = self.dice.word(&["replace", "delete", "add", "insert", "move"]);
        let (parent, name) = path.rsplit_once('.').unwrap_or((path.as_str(), ""));
        let mut parts = vec![json!({ "name": "type", "valueCode": kind })];
        let value = json!({ "name": "value", "valueString": text });
        match kind {
            "add" => {
                parts.push(json!({ "name": "path", "valueString": parent }));
                parts.push(json!({ "name": "name", "valueString": name }));
                parts.push(value);
            }
            "insert" => {
                parts.extend([
                    json!({ "name": "path", "valueString": path }),
                    json!({ "name": "index", "valueInteger": 0 }),
                    value,
                ]);
            }
            "move" => parts.extend([
                json!({ "name": "path", "valueString": path }),
                json!({ "name": "source", "valueInteger": 0 }),
                json!({ "name": "destination", "valueInteger": 1 }),
            ]),
            "delete" => parts.push(json!({ "name": "path", "valueString": path })),
            _ => parts.extend([json!({ "name": "path", "valueString": path }), value]),
        }
        json!({ "name": "operation", "part": parts })
    }

    pub(super) fn bundle(&mut self, kind: Kind) -> Ask {
        let count = 1 + self.dice.below(4);
        let entries: Vec<Value> = (0..count).map(|_| self.entry()).collect();
        let (code, name) =
            if kind == Kind::Batch { ("batch", "batch") } else { ("transaction", "transaction") };
        let bundle = json!({ "resourceType": "Bundle", "type": code, "entry": entries });
        let mut ask = Ask::new(kind, "POST", "").json(FHIR, bundle);
        if self.dice.chance(30) && !name.is_empty() {
            ask = ask.header("prefer", self.dice.word(&["return=minimal", "return=representation"]));
        }
        ask
    }

    /// Another request as an entry.
    fn entry(&mut self) -> Value {
        const KINDS: &[Kind] = &[
            Kind::Read,
            Kind::Read,
            Kind::Vread,
            Kind::ConditionalRead,
            Kind::SearchType,
            Kind::SearchType,
            Kind::HistoryInstance,
            Kind::SearchCompartment,
            Kind::Create,
            Kind::Update,
            Kind::Update,
            Kind::Patch,
            Kind::Delete,
            Kind::ConditionalCreate,
            Kind::ConditionalUpdate,
            Kind::ConditionalPatch,
            Kind::ConditionalDelete,
            Kind::Everything,
            Kind::OtherOperation,
            Kind::Batch,
        ];
        let kind = self.dice.pick(KINDS).copied().unwrap_or(Kind::Read);
        let kind = if kind == Kind::Batch && !self.dice.chance(20) { Kind::Read } else { kind };
        let ask = self.of(kind);
        let mut request = json!({ "method": ask.method, "url": ask.target() });
        for (name, value) in &ask.headers {
            let member = match *name {
                "if-match" => "ifMatch",
                "if-none-match" => "ifNoneMatch",
                "if-modified-since" => "ifModifiedSince",
                "if-none-exist" => "ifNoneExist",
                _ => continue,
            };
            if let Some(request) = request.as_object_mut() {
                request.insert(member.to_owned(), json!(value));
            }
        }
        let mut entry = json!({ "request": request });
        if let (Body::Json(media, body), Some(members)) = (&ask.body, entry.as_object_mut()) {
            let resource = if *media == JSON_PATCH {
                use base64::Engine as _;
                let data = base64::engine::general_purpose::STANDARD.encode(body.to_string());
                json!({ "resourceType": "Binary", "contentType": JSON_PATCH, "data": data })
            } else {
                body.clone()
            };
            members.insert("resource".to_owned(), resource);
            if self.dice.chance(30) {
                members.insert("fullUrl".to_owned(), json!("urn:uuid:00000000-0000-4000-8000-000000000001"));
            }
        }
        entry
    }
}

/// Every leaf and every list of a record, as JSON pointers.
fn leaves(value: &Value, path: &mut String, found: &mut Vec<(String, Value)>) {
    let length = path.len();
    match value {
        Value::Object(members) => {
            for (name, inner) in members.iter().filter(|(name, _)| *name != "resourceType") {
                path.push('/');
                path.push_str(name);
                leaves(inner, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            found.push((path.clone(), value.clone()));
            for (place, inner) in items.iter().enumerate() {
                path.push_str(&format!("/{place}"));
                leaves(inner, path, found);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push((path.clone(), value.clone()))
        }
    }
}
