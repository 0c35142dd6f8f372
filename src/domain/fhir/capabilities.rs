//! What the proxy says about itself: `CapabilityStatement` and SMART configuration.
//!
//! Owns: both documents, built from the tables, so that they name exactly what `classify` understands.
//! Must never: be upstream's statement, or promise what the gate does not serve.
//! Look next: `r4`, where the parameters come from.

use serde_json::{Value, json};

use super::path::PublicBase;
use super::r4::{ResourceType, SearchParameter, SearchType, search_parameters};

/// What is known of one trusted issuer; endpoints come from its discovery document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerEndpoints {
    /// The issuer's URL, as in `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: Option<String>,
    /// Where a person logs in.
    pub authorization_endpoint: Option<String>,
    /// Where codes become tokens.
    pub token_endpoint: Option<String>,
}

const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
const SECURITY_SERVICE: &str = "http://terminology.hl7.org/CodeSystem/restful-security-service";

/// The `CapabilityStatement` as JSON. `date` is an R4 dateTime, `version` the program's.
#[must_use]
pub fn capability_statement(
    base: &PublicBase,
    issuers: &[IssuerEndpoints],
    date: &str,
    version: &str,
) -> Vec<u8> {
    let resources: Vec<Value> = ResourceType::all().map(resource).collect();
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": { "name": "Chartgate", "version": version },
        "implementation": { "description": "FHIR R4 behind Chartgate", "url": base.as_str() },
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{ "mode": "server", "security": security(issuers), "resource": resources }],
    });
    statement.to_string().into_bytes()
}

/// The SMART configuration as JSON. SMART knows one issuer: it is the first one given.
#[must_use]
pub fn smart_configuration(issuers: &[IssuerEndpoints]) -> Vec<u8> {
    let mut document = serde_json::Map::new();
    if let Some(first) = issuers.first() {
        document.insert("issuer".to_owned(), json!(first.issuer));
        let endpoints = [
            ("jwks_uri", &first.jwks_uri),
            ("authorization_endpoint", &first.authorization_endpoint),
            ("token_endpoint", &first.token_endpoint),
        ];
        for (name, url) in endpoints {
            if let Some(url) = url {
                document.insert(name.to_owned(), json!(url));
            }
        }
    }
    // What the issuer does (launch, sign-on, clients) is the issuer's to say; the gate reads scopes.
    let capabilities = ["permission-patient", "permission-user", "permission-v2"];
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

fn resource(resource: ResourceType) -> Value {
    let parameters: Vec<Value> =
        search_parameters(resource).filter(|parameter| parameter.understood).map(search_parameter).collect();
    json!({
        "type": resource.name(),
        "interaction": [{ "code": "read" }, { "code": "vread" }, { "code": "search-type" }],
        "versioning": "versioned",
        "searchParam": parameters,
    })
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
        }
    }

    #[test]
    fn the_statement_is_valid_r4_and_names_every_type() {
        let base = PublicBase::parse("https://fhir.test/fhir").unwrap();
        for issuers in [vec![], vec![issuer(), issuer()]] {
            let bytes = capability_statement(&base, &issuers, "2026-01-02", "0.1.0");
            let text = String::from_utf8(bytes).unwrap();
            let read: fhirkit::r4::CapabilityStatement = fhirkit::from_json_strict(&text).unwrap();
            let rest = read.rest.first().unwrap();
            assert_eq!(rest.resource.len(), 146);
            assert_eq!(text.contains(OAUTH_URIS), !issuers.is_empty());
        }
    }

    #[test]
    fn the_smart_configuration_tells_what_is_known() {
        let known: Value = serde_json::from_slice(&smart_configuration(&[issuer()])).unwrap();
        assert_eq!(known["token_endpoint"], "https://idp.test/token");
        let unknown: Value = serde_json::from_slice(&smart_configuration(&[])).unwrap();
        assert!(unknown.get("issuer").is_none());
    }
}
