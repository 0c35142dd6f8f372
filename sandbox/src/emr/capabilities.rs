//! `/metadata`: what this EMR can do.
//!
//! Owns: the CapabilityStatement, made from the tables that do the work.
//! Must never: promise what is not done here.
//! Look next: `parameters`, `reading`, `writing`.

use http::StatusCode;
use serde_json::{Value, json};

use super::ask::Reply;
use super::parameters::{self, Kind};
use super::{compartments, operations};

const DEFINITION: &str = "http://hl7.org/fhir/OperationDefinition/";

/// The CapabilityStatement of the EMR at `base`.
pub(super) fn answer(base: &str) -> Reply {
    let resources: Vec<Value> = operations::type_names().into_iter().map(resource).collect();
    let owners = ["Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"];
    let owners = owners.into_iter().filter(|owner| compartments::is_owner(owner));
    let compartments: Vec<String> = owners
        .map(|owner| format!("http://hl7.org/fhir/CompartmentDefinition/{}", owner.to_lowercase()))
        .collect();
    let interactions = codes(&["transaction", "batch", "search-system", "history-system"]);
    let body = json!({
        "resourceType": "CapabilityStatement", "status": "active", "date": "2026-01-01", "kind": "instance",
        "software": {"name": "Chartgate sandbox EMR", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": "synthetic data in memory", "url": base},
        "fhirVersion": "4.0.1", "format": ["json"], "patchFormat": ["application/json-patch+json"],
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "rest": [{
            "mode": "server", "resource": resources, "interaction": interactions,
            "operation": [{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}],
            "compartment": compartments
        }]
    });
    Reply::fhir(StatusCode::OK, body.to_string())
}

fn codes(names: &[&str]) -> Vec<Value> {
    names.iter().map(|code| json!({"code": code})).collect()
}

fn resource(name: &str) -> Value {
    let interactions = codes(&[
        "read",
        "vread",
        "update",
        "patch",
        "delete",
        "history-instance",
        "history-type",
        "create",
        "search-type",
    ]);
    let mut params: Vec<Value> =
        parameters::of(name).map(|p| json!({"name": p.code, "type": p.kind.name()})).collect();
    for (code, kind) in
        [("_text", "string"), ("_content", "string"), ("_list", "string"), ("_filter", "string")]
    {
        params.push(json!({"name": code, "type": kind}));
    }
    let references = parameters::of(name).filter(|p| p.kind == Kind::Reference);
    let includes: Vec<String> = references.map(|p| format!("{name}:{}", p.code)).collect();
    let mut out = json!({
        "type": name, "interaction": interactions, "versioning": "versioned-update", "readHistory": true,
        "updateCreate": true, "conditionalCreate": true, "conditionalRead": "full-support",
        "conditionalUpdate": true, "conditionalDelete": "single",
        "referencePolicy": ["literal", "logical", "local"],
        "searchParam": params, "operation": own_operations(name)
    });
    if let Some(object) = out.as_object_mut().filter(|_| !includes.is_empty()) {
        object.insert("searchInclude".to_owned(), json!(includes));
    }
    out
}

fn own_operations(name: &str) -> Vec<Value> {
    let mut out = vec![json!({"name": "validate", "definition": format!("{DEFINITION}Resource-validate")})];
    let more: &[(&str, &str)] = match name {
        "Patient" => &[("everything", "Patient-everything"), ("export", "patient-export")],
        "Group" => &[("export", "group-export")],
        "Observation" => &[("lastn", "Observation-lastn")],
        "ValueSet" => &[("expand", "ValueSet-expand")],
        "CodeSystem" => &[("lookup", "CodeSystem-lookup")],
        _ => &[],
    };
    for (name, definition) in more {
        let base = if *name == "export" {
            "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
        } else {
            DEFINITION
        };
        out.push(json!({"name": name, "definition": format!("{base}{definition}")}));
    }
    out
}
