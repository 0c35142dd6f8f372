//! What the proxy says about itself: `CapabilityStatement` and SMART configuration.
//!
//! Owns: both documents, built from the tables, so that they name exactly what `classify` understands, as far as the
//! EMR says that it has it too.
//! Must never: hold a word of the EMR's statement (T-109), or promise what the gate does not serve.
//! Look next: `r4`, where the parameters come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

use super::path::PublicBase;
use super::r4::{ResourceType, SearchParameter, SearchType, search_parameters};
use super::search::Registry;

/// What is known of one trusted issuer; endpoints come from its discovery document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerEndpoints {
    /// The issuer's URL, as in `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: Option<String>,
    /// Where a person logs in.
    pub authorization_endpoint: Option<String>,
    /// Where codes become tokens.
    pub token_endpoint: Option<String>,
    /// Where a token's meaning is told (RFC 7662).
    pub introspection_endpoint: Option<String>,
    /// Where tokens are given up (RFC 7009).
    pub revocation_endpoint: Option<String>,
    /// How clients authenticate at the token endpoint.
    pub token_endpoint_auth_methods: Vec<String>,
    /// Grants of the token endpoint.
    pub grant_types: Vec<String>,
    /// Response types of the authorization endpoint.
    pub response_types: Vec<String>,
    /// Scopes the issuer knows.
    pub scopes: Vec<String>,
    /// PKCE methods.
    pub code_challenge_methods: Vec<String>,
}

const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
const SECURITY_SERVICE: &str = "http://terminology.hl7.org/CodeSystem/restful-security-service";

/// What the statement says about this gate, whatever the EMR can do.
#[derive(Clone, Copy)]
pub struct Gatehouse<'g> {
    /// Where clients reach it.
    pub base: &'g PublicBase,
    /// Whom it trusts.
    pub issuers: &'g [IssuerEndpoints],
    /// Since when it is as it is: an R4 dateTime.
    pub date: &'g str,
    /// The program's version.
    pub version: &'g str,
    /// The hospital's own search parameters.
    pub parameters: &'g Registry,
}

impl fmt::Debug for Gatehouse<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Gatehouse").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// The `CapabilityStatement` as JSON: what both the gate and the EMR serve. While nothing is known of the EMR, reads
/// and searches alone are promised: no EMR is without them, and each request is judged for itself anyway.
#[must_use]
pub fn capability_statement(gate: &Gatehouse<'_>, emr: Option<&Offer>) -> Vec<u8> {
    let resources: Vec<Value> = match emr {
        None => ResourceType::all().map(|resource| unknown_resource(gate, resource)).collect(),
        Some(offer) => offer.types.iter().map(|(kind, can)| resource(gate, offer, *kind, can)).collect(),
    };
    let mut rest = json!({ "mode": "server", "security": security(gate.issuers), "resource": resources });
    if let Some((offer, rest)) = emr.zip(rest.as_object_mut()) {
        // Batches and searches over types are taken apart here, so they need nothing of the EMR's.
        let mut interactions = vec!["batch", "search-system"];
        interactions.extend(OF_SYSTEM.into_iter().filter(|code| offer.interactions.contains(*code)));
        let interactions: Vec<Value> = interactions.into_iter().map(|code| json!({ "code": code })).collect();
        rest.insert("interaction".to_owned(), Value::Array(interactions));
        let operations = operations(None, &offer.operations);
        if !operations.is_empty() {
            rest.insert("operation".to_owned(), Value::Array(operations));
        }
    }
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": gate.date,
        "kind": "instance",
        "software": { "name": "Chartgate", "version": gate.version },
        "implementation": { "description": "FHIR R4 behind Chartgate", "url": gate.base.as_str() },
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": ["application/json-patch+json", "application/fhir+json"],
        "rest": [rest],
    });
    statement.to_string().into_bytes()
}

/// The SMART configuration as JSON (SMART App Launch 2.2, `.well-known/smart-configuration`). SMART knows one issuer: it
/// is the first one given. `pkce` other than S256 is not named, since SMART forbids `plain`.
#[must_use]
pub fn smart_configuration(issuers: &[IssuerEndpoints]) -> Vec<u8> {
    let mut document = serde_json::Map::new();
    if let Some(first) = issuers.first() {
        document.insert("issuer".to_owned(), json!(first.issuer));
        let endpoints = [
            ("jwks_uri", &first.jwks_uri),
            ("authorization_endpoint", &first.authorization_endpoint),
            ("token_endpoint", &first.token_endpoint),
            ("introspection_endpoint", &first.introspection_endpoint),
            ("revocation_endpoint", &first.revocation_endpoint),
        ];
        for (name, url) in endpoints {
            if let Some(url) = url {
                document.insert(name.to_owned(), json!(url));
            }
        }
        let s256 = first.code_challenge_methods.iter().filter(|method| *method == "S256").cloned().collect();
        let lists = [
            ("token_endpoint_auth_methods_supported", &first.token_endpoint_auth_methods),
            ("grant_types_supported", &first.grant_types),
            ("response_types_supported", &first.response_types),
            ("scopes_supported", &first.scopes),
            ("code_challenge_methods_supported", &s256),
        ];
        for (name, values) in lists {
            if !values.is_empty() {
                document.insert(name.to_owned(), json!(values));
            }
        }
    }
    // What the issuer does (launch, sign-on, clients) is the issuer's to say; the gate reads scopes.
    let capabilities = ["permission-patient", "permission-user", "permission-v1", "permission-v2"];
    document.insert("capabilities".to_owned(), json!(capabilities));
    Value::Object(document).to_string().into_bytes()
}

fn security(issuers: &[IssuerEndpoints]) -> Value {
    let mut security = json!({
        "service": [{
            "coding": [{ "system": SECURITY_SERVICE, "code": "SMART-on-FHIR" }],
            "text": "OAuth 2.0 bearer tokens with evidence of a second factor",
        }],
    });
    let extensions: Vec<Value> = issuers.iter().filter_map(oauth_uris).collect();
    if let Some(object) = security.as_object_mut().filter(|_| !extensions.is_empty()) {
        object.shift_insert(0, "extension".to_owned(), Value::Array(extensions));
    }
    security
}

/// The extension demands both endpoints; an issuer of which one is unknown is left out.
fn oauth_uris(issuer: &IssuerEndpoints) -> Option<Value> {
    let (authorize, token) = issuer.authorization_endpoint.as_ref().zip(issuer.token_endpoint.as_ref())?;
    Some(json!({
        "url": OAUTH_URIS,
        "extension": [
            { "url": "authorize", "valueUri": authorize },
            { "url": "token", "valueUri": token },
        ],
    }))
}

fn unknown_resource(gate: &Gatehouse<'_>, resource: ResourceType) -> Value {
    let parameters: Vec<Value> = known_parameters(gate, resource).map(search_parameter).collect();
    json!({
        "type": resource.name(),
        "interaction": [{ "code": "read" }, { "code": "search-type" }],
        "searchParam": parameters,
    })
}

fn resource(gate: &Gatehouse<'_>, offer: &Offer, resource: ResourceType, can: &TypeOffer) -> Value {
    let mut out = Map::new();
    out.insert("type".to_owned(), json!(resource.name()));
    let served = can.served(resource);
    let interactions: Vec<Value> = served.iter().map(|code| json!({ "code": code })).collect();
    if !interactions.is_empty() {
        out.insert("interaction".to_owned(), Value::Array(interactions));
    }
    if let Some(versioning) = can.versioning {
        out.insert("versioning".to_owned(), json!(versioning));
    }
    // Conditions are looked up here, with the caller's eyes: all they need is that the EMR searches the type.
    let has = |code: &str| served.contains(&code);
    let searches = has("search-type");
    out.insert("updateCreate".to_owned(), json!(has("update") && can.update_create));
    out.insert("conditionalCreate".to_owned(), json!(has("create") && searches));
    out.insert(
        "conditionalRead".to_owned(),
        json!(if has("read") { "full-support" } else { "not-supported" }),
    );
    out.insert("conditionalUpdate".to_owned(), json!(has("update") && searches));
    let deletes = has("delete") && searches;
    out.insert("conditionalDelete".to_owned(), json!(if deletes { "single" } else { "not-supported" }));
    let parameters: Vec<Value> = known_parameters(gate, resource)
        .filter(|parameter| searches && offer.knows(can, parameter.code))
        .map(search_parameter)
        .collect();
    if !parameters.is_empty() {
        out.insert("searchParam".to_owned(), Value::Array(parameters));
    }
    let operations = operations(Some((resource, &offer.operations)), &can.operations);
    if !operations.is_empty() {
        out.insert("operation".to_owned(), Value::Array(operations));
    }
    Value::Object(out)
}

fn known_parameters<'g>(
    gate: &Gatehouse<'g>,
    resource: ResourceType,
) -> impl Iterator<Item = &'static SearchParameter> + use<'g> {
    let official = search_parameters(resource).filter(|parameter| parameter.understood);
    official.chain(gate.parameters.parameters(resource))
}

/// The operations of a type, or of the whole system, that both serve. What the EMR offers at the system for all types
/// (`$validate`) it offers at each.
fn operations(of: Option<(ResourceType, &BTreeSet<String>)>, offered: &BTreeSet<String>) -> Vec<Value> {
    let name_of = |operation: &&Operated| match (of, operation.at) {
        (None, At::System) => true,
        (Some(_), At::EveryType) => true,
        (Some((resource, _)), At::Type(name)) => resource.name() == name,
        (None, At::EveryType | At::Type(_)) | (Some(_), At::System) => false,
    };
    let offers = |operation: &&Operated| {
        let everywhere = of.filter(|_| matches!(operation.at, At::EveryType));
        offered.contains(operation.name) || everywhere.is_some_and(|(_, all)| all.contains(operation.name))
    };
    let listed = OPERATIONS.iter().filter(name_of).filter(offers);
    listed.map(|one| json!({ "name": one.name, "definition": one.definition })).collect()
}

/// Where an operation is served.
#[derive(Clone, Copy)]
enum At {
    System,
    EveryType,
    Type(&'static str),
}

struct Operated {
    at: At,
    name: &'static str,
    definition: &'static str,
}

const fn operated(at: At, name: &'static str, definition: &'static str) -> Operated {
    Operated { at, name, definition }
}

/// The closed list (KF-27): what `classify` takes for an operation.
const OPERATIONS: [Operated; 8] = [
    operated(At::System, "export", "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"),
    operated(
        At::Type("Patient"),
        "export",
        "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/patient-export",
    ),
    operated(At::Type("Group"), "export", "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export"),
    operated(At::Type("Patient"), "everything", "http://hl7.org/fhir/OperationDefinition/Patient-everything"),
    operated(At::Type("Observation"), "lastn", "http://hl7.org/fhir/OperationDefinition/Observation-lastn"),
    operated(At::EveryType, "validate", "http://hl7.org/fhir/OperationDefinition/Resource-validate"),
    operated(At::Type("ValueSet"), "expand", "http://hl7.org/fhir/OperationDefinition/ValueSet-expand"),
    operated(At::Type("CodeSystem"), "lookup", "http://hl7.org/fhir/OperationDefinition/CodeSystem-lookup"),
];

/// Interactions of the whole system that need the EMR's own.
const OF_SYSTEM: [&str; 2] = ["transaction", "history-system"];

/// Interactions of a type that are served where the EMR has them.
const OF_TYPE: [&str; 8] =
    ["read", "vread", "history-instance", "history-type", "search-type", "create", "update", "delete"];

/// What an EMR says it can do: names and codes alone, none of its text (T-109).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    types: BTreeMap<ResourceType, TypeOffer>,
    interactions: BTreeSet<String>,
    parameters: BTreeSet<String>,
    operations: BTreeSet<String>,
}

/// What it says of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TypeOffer {
    interactions: BTreeSet<String>,
    parameters: BTreeSet<String>,
    operations: BTreeSet<String>,
    versioning: Option<&'static str>,
    update_create: bool,
}

impl Offer {
    /// Reads the EMR's `CapabilityStatement`. `None` if it is none, or not for R4.
    #[must_use]
    pub fn read(statement: &[u8]) -> Option<Self> {
        let statement: Value = serde_json::from_slice(statement).ok()?;
        let is_r4 = statement.get("fhirVersion")?.as_str()?.starts_with("4.0");
        if statement.get("resourceType")? != "CapabilityStatement" || !is_r4 {
            return None;
        }
        let rest = items(statement.get("rest")?).find(|rest| rest["mode"] == "server")?;
        let types = items(&rest["resource"]).filter_map(|resource| {
            Some((ResourceType::from_name(resource["type"].as_str()?)?, TypeOffer::read(resource)))
        });
        Some(Self {
            types: types.collect(),
            interactions: texts(&rest["interaction"], "code"),
            parameters: texts(&rest["searchParam"], "name"),
            operations: operation_names(&rest["operation"]),
        })
    }

    fn knows(&self, can: &TypeOffer, parameter: &str) -> bool {
        can.parameters.contains(parameter) || self.parameters.contains(parameter)
    }
}

impl TypeOffer {
    fn read(resource: &Value) -> Self {
        let versioning = ["no-version", "versioned", "versioned-update"];
        Self {
            interactions: texts(&resource["interaction"], "code"),
            parameters: texts(&resource["searchParam"], "name"),
            operations: operation_names(&resource["operation"]),
            versioning: versioning.into_iter().find(|known| resource["versioning"] == *known),
            update_create: resource["updateCreate"] == true,
        }
    }

    /// What is served of the type. A patch is applied here and stored as an update; a subscription would make the EMR
    /// speak past the gate, so it is not written (T-105).
    fn served(&self, resource: ResourceType) -> Vec<&'static str> {
        let closed = |code: &str| resource.name() == "Subscription" && matches!(code, "create" | "update");
        let has = |code: &&str| self.interactions.contains(*code) && !closed(code);
        let mut served: Vec<&str> = OF_TYPE.into_iter().filter(has).collect();
        if served.contains(&"update") && served.contains(&"read") {
            served.push("patch");
        }
        served
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn texts(list: &Value, member: &str) -> BTreeSet<String> {
    items(list).filter_map(|item| Some(item[member].as_str()?.to_owned())).collect()
}

/// Some servers write the `$` with the name.
fn operation_names(list: &Value) -> BTreeSet<String> {
    texts(list, "name").iter().map(|name| name.trim_start_matches('$').to_owned()).collect()
}

fn search_parameter(parameter: &SearchParameter) -> Value {
    json!({ "name": parameter.code, "type": type_code(parameter.kind) })
}

fn type_code(kind: SearchType) -> &'static str {
    match kind {
        SearchType::Number => "number",
        SearchType::Date => "date",
        SearchType::String => "string",
        SearchType::Token => "token",
        SearchType::Reference => "reference",
        SearchType::Composite => "composite",
        SearchType::Quantity => "quantity",
        SearchType::Uri => "uri",
        SearchType::Special => "special",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> IssuerEndpoints {
        IssuerEndpoints {
            issuer: "https://idp.test".to_owned(),
            jwks_uri: Some("https://idp.test/jwks".to_owned()),
            authorization_endpoint: Some("https://idp.test/auth".to_owned()),
            token_endpoint: Some("https://idp.test/token".to_owned()),
            code_challenge_methods: ["plain", "S256"].map(str::to_owned).to_vec(),
            grant_types: vec!["authorization_code".to_owned()],
            ..IssuerEndpoints::default()
        }
    }

    #[track_caller]
    fn statement(issuers: &[IssuerEndpoints], emr: Option<&str>) -> (String, Value) {
        let base = PublicBase::parse("https://fhir.test/fhir").unwrap();
        let parameters = Registry::empty();
        let gate =
            Gatehouse { base: &base, issuers, date: "2026-01-02", version: "0.1.0", parameters: &parameters };
        let offer = emr.map(|emr| Offer::read(emr.as_bytes()).unwrap());
        let text = String::from_utf8(capability_statement(&gate, offer.as_ref())).unwrap();
        let _valid: fhirkit::r4::CapabilityStatement = fhirkit::from_json_strict(&text).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn the_statement_is_valid_r4_and_names_every_type() {
        for issuers in [vec![], vec![issuer(), issuer()]] {
            let (text, value) = statement(&issuers, None);
            assert_eq!(value["rest"][0]["resource"].as_array().unwrap().len(), 146);
            assert_eq!(text.contains(OAUTH_URIS), !issuers.is_empty());
            assert!(!text.contains("\"create\"") && !text.contains("\"operation\""), "{text}");
        }
    }

    /// An EMR that can do some things we do not know, and not all that we do.
    const EMR: &str = r#"{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","software":{"name":"CANARY"},
        "rest":[{"mode":"client"},{"mode":"server","documentation":"CANARY",
        "interaction":[{"code":"transaction","documentation":"CANARY"},{"code":"CANARY"}],
        "searchParam":[{"name":"_lastUpdated","type":"date","documentation":"CANARY"}],
        "operation":[{"name":"validate","definition":"http://CANARY"},{"name":"CANARY","definition":"http://CANARY"},
                     {"name":"$export","definition":"http://CANARY"},{"name":"everything","definition":"http://CANARY"}],
        "resource":[{"type":"CANARY"},{"type":"Subscription","interaction":[{"code":"create"},{"code":"read"}]},
        {"type":"Patient","versioning":"versioned-update","updateCreate":true,"conditionalDelete":"multiple",
         "interaction":[{"code":"read"},{"code":"update"},{"code":"search-type"},{"code":"CANARY"}],
         "searchParam":[{"name":"name","type":"token","documentation":"CANARY"},{"name":"CANARY","type":"string"}],
         "operation":[{"name":"CANARY","definition":"x"},{"name":"$everything","definition":"http://CANARY"}]}]}]}"#;

    #[test]
    fn what_both_serve_is_named_and_nothing_else() {
        let (text, value) = statement(&[issuer()], Some(EMR));
        assert!(!text.contains("CANARY"), "{text}");
        let names =
            |list: &Value, member: &str| texts(list, member).into_iter().collect::<Vec<_>>().join(" ");
        let rest = &value["rest"][0];
        assert_eq!(names(&rest["interaction"], "code"), "batch search-system transaction");
        assert_eq!(names(&rest["operation"], "name"), "export");
        let (patient, subscription) = (&rest["resource"][0], &rest["resource"][1]);
        assert_eq!((&patient["type"], &subscription["type"]), (&json!("Patient"), &json!("Subscription")));
        assert_eq!(names(&patient["interaction"], "code"), "patch read search-type update");
        assert_eq!(names(&subscription["interaction"], "code"), "read");
        assert_eq!(names(&patient["searchParam"], "name"), "_lastUpdated name");
        assert_eq!(patient["searchParam"][1]["type"], "string", "types are ours");
        assert_eq!(names(&patient["operation"], "name"), "everything validate");
        assert_eq!(patient["conditionalDelete"], "not-supported", "there is no delete");
        assert_eq!(
            (&patient["conditionalUpdate"], &patient["conditionalCreate"]),
            (&json!(true), &json!(false))
        );
    }

    #[test]
    fn only_a_statement_for_r4_is_one() {
        for text in [
            "",
            "{}",
            r#"{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0","rest":[{"mode":"server"}]}"#,
        ] {
            assert_eq!(Offer::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_smart_configuration_tells_what_is_known() {
        let known: Value = serde_json::from_slice(&smart_configuration(&[issuer()])).unwrap();
        assert_eq!(known["token_endpoint"], "https://idp.test/token");
        assert_eq!(known["code_challenge_methods_supported"], json!(["S256"]), "plain is forbidden");
        assert_eq!(known["grant_types_supported"], json!(["authorization_code"]));
        assert!(known.get("scopes_supported").is_none(), "nothing is made up");
        let unknown: Value = serde_json::from_slice(&smart_configuration(&[])).unwrap();
        assert!(unknown.get("issuer").is_none());
    }
}
