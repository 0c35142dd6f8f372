//! Tests of the R4 tables, on the official facts: counts, spot cases, and laws over every entry.

use super::*;
use proptest::prelude::*;

fn resource(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap_or_else(|| panic!("{name}"))
}

fn path(text: &str) -> ElementPath {
    ElementPath::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn all_structures() -> impl Iterator<Item = Structure> {
    (0..u16::try_from(TABLES.structures.len()).unwrap()).map(Structure)
}

#[test]
fn every_line_of_the_tables_is_read() {
    assert_eq!(super::elements::parse(include_str!("elements.txt")).err(), None);
    assert!(search::parameters(include_str!("search-parameters.txt")).is_some());
    assert!(compartment::patient(include_str!("compartment.txt")).is_some());
}

#[test]
fn malformed_lines_are_found() {
    let cases = [
        (" id 0 1 - string", 1),
        ("resource", 1),
        ("strange Patient", 1),
        ("resource B\nresource A", 2),
        ("text string\nresource A", 2),
        ("text string\ntext string", 2),
        ("resource A Base", 1),
        ("resource A\n id 0 1 - string", 2),
        ("resource A\n id 0 2 - A", 2),
        ("resource A\n id x 1 - A", 2),
        ("resource A\n id 0 1 ? A", 2),
        ("resource A\n id 0 1 -", 2),
        ("resource A\n id 0 1 - A A", 2),
        ("resource A\n id 0 1 - A(B)", 2),
        ("resource A\n id 0 1 - A\n id 0 1 - A", 1),
    ];
    for (text, line) in cases {
        let found = super::elements::parse(text).err();
        assert_eq!(found, Some(super::elements::Malformed(line)), "{text}");
    }
    for text in
        ["_id\ttoken\tPatient.id", "@Nobody", "@Patient\n_id\todd\tPatient.id", "@Patient\n_id\ttoken\t"]
    {
        assert!(search::parameters(text).is_none(), "{text}");
    }
}

/// The package has 7,152 elements in the snapshots of 148 resource structures; two of these are abstract
/// (Resource with 5, DomainResource with 9 entries).
#[test]
fn counts_are_the_official_ones() {
    let own = |name: &str| ResourceType::from_name(name.split('.').next().unwrap_or_default()).is_some();
    let of_resources = all_structures().filter(|one| own(type_name(*one)));
    let elements: usize = of_resources.map(|one| elements(one).len()).sum();
    assert_eq!(ResourceType::all().count(), 146);
    assert_eq!(elements + 146 + 5 + 9, 7152);
    let primitives = all_structures().filter(|one| matches!(kind(*one), Kind::Primitive(_)));
    assert_eq!(primitives.count(), 20 + 1, "20 R4 primitives and the string that `id` is");
    let parameters = ResourceType::all().flat_map(search_parameters);
    assert_eq!(parameters.count(), 3165);
}

#[test]
fn names_and_types_give_each_other() {
    for one in ResourceType::all() {
        assert_eq!(ResourceType::from_name(one.name()), Some(one));
        assert_eq!((kind(root(one)), type_name(root(one))), (Kind::Resource, one.name()));
    }
    for name in ["", "patient", "Resource", "DomainResource", "HumanName", "Patient "] {
        assert_eq!(ResourceType::from_name(name), None, "{name}");
    }
    assert_eq!(structure("HumanName").map(type_name), Some("HumanName"));
    assert_eq!(structure("Humanname"), None);
}

/// Structure, JSON key, then `element type` of what it stands for, `-` for nothing, `_` for a twin.
#[test]
fn keys_resolve() {
    let cases = [
        ("Patient", "birthDate", "birthDate date"),
        ("Patient", "_birthDate", "_birthDate date"),
        ("Patient", "deceasedBoolean", "deceased boolean"),
        ("Patient", "_deceasedDateTime", "_deceased dateTime"),
        ("Patient", "deceased", "-"),
        ("Patient", "deceasedString", "-"),
        ("Patient", "_deceased", "-"),
        ("Patient", "name", "name HumanName"),
        ("Patient", "_name", "-"),
        ("Patient", "contact", "contact Patient.contact"),
        ("Patient", "contained", "contained Resource"),
        ("Patient", "id", "id System.String"),
        ("Patient", "_id", "-"),
        ("Patient", "resourceType", "-"),
        ("Patient", "implicitRules", "implicitRules uri"),
        ("Patient", "modifierExtension", "modifierExtension Extension"),
        ("Patient.contact", "modifierExtension", "modifierExtension Extension"),
        ("HumanName", "modifierExtension", "-"),
        ("HumanName", "_given", "_given string"),
        ("Narrative", "div", "div xhtml"),
        ("Narrative", "_div", "-"),
        ("date", "extension", "extension Extension"),
        ("date", "id", "id System.String"),
        ("date", "value", "-"),
        ("xhtml", "extension", "-"),
        ("Extension", "url", "url System.String"),
        ("Extension", "valueBase64Binary", "value base64Binary"),
        ("Extension", "valueQuantity", "value Quantity"),
        ("Observation", "valueQuantity", "value Quantity"),
        ("Observation", "valueAge", "-"),
        ("Questionnaire.item", "item", "item Questionnaire.item"),
        ("Bundle.entry", "link", "link Bundle.link"),
        ("Bundle.entry", "resource", "resource Resource"),
        ("Timing", "repeat", "repeat Timing.repeat"),
        ("Resource", "id", "-"),
        ("Binary", "text", "-"),
    ];
    for (name, key, expected) in cases {
        let found = property(structure(name).unwrap_or_else(|| panic!("{name}")), key);
        let shown = found.map(|found| {
            let twin = if found.twin { "_" } else { "" };
            format!("{twin}{} {}", found.element.name, type_name(found.structure))
        });
        assert_eq!(shown.as_deref().unwrap_or("-"), expected, "{name} {key}");
    }
}

/// The same answer by the simplest means: format every key of every element and compare.
fn naive(structure: Structure, key: &str) -> Option<(&'static str, Structure, bool)> {
    let (twin, plain) = key.strip_prefix('_').map_or((false, key), |plain| (true, plain));
    for element in elements(structure) {
        for one in element.types.iter().copied() {
            let name = type_name(one);
            let (first, rest) = name.split_at(1);
            let capital = format!("{}{}{rest}", element.name, first.to_ascii_uppercase());
            let matches = if element.choice { capital == plain } else { element.name == plain };
            let twins = matches!(kind(one), Kind::Primitive(_)) && !elements(one).is_empty();
            if matches && (!twin || twins) {
                return Some((element.name, one, twin));
            }
        }
    }
    None
}

#[test]
fn keys_resolve_as_the_naive_lookup_says() {
    let shown = |found: Option<Property>| found.map(|p| (p.element.name, p.structure, p.twin));
    for one in all_structures() {
        for (key, _) in super::elements::entry(one).unwrap().properties.keys() {
            assert_eq!(shown(property(one, key)), naive(one, key), "{} {key}", type_name(one));
            assert!(property(one, key).is_some());
            for other in [format!("_{key}"), format!("{key}x"), key.split_at(1).1.to_owned()] {
                assert_eq!(shown(property(one, &other)), naive(one, &other), "{} {other}", type_name(one));
            }
        }
    }
}

#[test]
fn elements_hold_the_official_facts() {
    // path, min, many, modifier, summary
    let cases = [
        ("Observation.status", 1, false, true, true),
        ("ServiceRequest.doNotPerform", 0, false, true, true),
        ("Patient.active", 0, false, true, true),
        ("Patient.deceased", 0, false, true, true),
        ("Patient.link", 0, true, true, true),
        ("Patient.link.type", 1, false, false, true),
        ("Patient.name", 0, true, false, true),
        ("Patient.contact", 0, true, false, false),
        ("Patient.implicitRules", 0, false, true, true),
        ("Patient.modifierExtension", 0, true, true, false),
        ("Patient.text", 0, false, false, false),
        ("Patient.identifier.use", 0, false, true, true),
        ("Condition.verificationStatus", 0, false, true, true),
        ("AllergyIntolerance.clinicalStatus", 0, false, true, true),
        ("Immunization.status", 1, false, true, true),
    ];
    for (text, min, many, modifier, summary) in cases {
        let found = path(text).element().unwrap();
        let facts = (found.min, found.many, found.modifier, found.summary);
        assert_eq!(facts, (min, many, modifier, summary), "{text}");
    }
    let names = |targets: &[ResourceType]| targets.iter().map(|one| one.name()).collect::<Vec<_>>().join(" ");
    let subject = path("Observation.subject").element().unwrap();
    assert_eq!(names(subject.targets), "Device Group Location Patient");
    let value: Vec<_> =
        path("Observation.value").element().unwrap().types.iter().map(|t| type_name(*t)).collect();
    assert_eq!(value.first_chunk(), Some(&["Quantity", "CodeableConcept", "string", "boolean"]));
    let item = elements(structure("Questionnaire.item").unwrap()).iter().find(|one| one.name == "item");
    assert_eq!(item.and_then(|one| one.rewind), Some("Questionnaire.item"));
}

#[test]
fn rewinds_name_structures_and_paths() {
    let all = all_structures().flat_map(elements);
    let rewinds: Vec<_> = all.filter_map(|one| one.rewind.map(|to| (to, one.types))).collect();
    assert_eq!(rewinds.len(), 55);
    for (to, types) in rewinds {
        assert_eq!(types, [structure(to).unwrap()]);
        assert_eq!(path(to).element().unwrap().types, types);
    }
}

#[test]
fn canonical_paths_are_read_and_shown_unchanged() {
    let cases = [
        ("Patient", "Patient"),
        ("Patient.name.family", "Patient|name|family"),
        ("Observation.value", "Observation|value"),
        ("Observation.value.system", "Observation|value|system"),
        ("Observation.subject.reference", "Observation|subject|reference"),
        (
            "Observation.subject.identifier.assigner.display",
            "Observation|subject|identifier|assigner|display",
        ),
        ("Questionnaire.item.linkId", "Questionnaire|item|linkId"),
        ("Patient.extension", "Patient|extension"),
        ("Patient.extension('http://a.example/b.c')", "Patient|extension('http://a.example/b.c')"),
        ("Patient.birthDate.extension('urn:x')", "Patient|birthDate|extension('urn:x')"),
        ("Patient.meta.security.code", "Patient|meta|security|code"),
        ("Bundle.entry.resource", "Bundle|entry|resource"),
    ];
    for (text, segments) in cases {
        let found = path(text);
        assert_eq!(found.to_string(), text);
        assert_eq!(found.segments().collect::<Vec<_>>().join("|"), segments);
        assert_eq!(found.resource_type().name(), text.split('.').next().unwrap());
    }
    assert_eq!(path("Patient.extension('urn:x')").extension_url(), Some("urn:x"));
    assert_eq!(path("Patient"), ElementPath::root(resource("Patient")));
}

#[test]
fn other_spellings_are_refused_with_a_hint() {
    let cases = [
        ("", "`` is no R4 resource type"),
        ("patient.name", "`patient` is no R4 resource type, did you mean `Patient`?"),
        ("Patiant", "`Patiant` is no R4 resource type, did you mean `Patient`?"),
        ("Patient.", "`Patient` has no element ``"),
        ("Patient.brithDate", "`Patient` has no element `brithDate`, did you mean `birthDate`?"),
        ("Patient.Name", "`Patient` has no element `Name`, did you mean `name`?"),
        ("Patient.name.first", "`Patient.name` has no element `first`"),
        ("Patient.deceased[x]", "`Patient.deceased[x]` is written `Patient.deceased`"),
        ("Patient._birthDate", "`Patient._birthDate` is written `Patient.birthDate`"),
        (
            "Observation.valueQuantity.value",
            "`Observation.valueQuantity` is written `Observation.value.value`",
        ),
        ("Questionnaire.item.item", "`Questionnaire.item.item` is written `Questionnaire.item`"),
        (
            "Questionnaire.item.item.linkId",
            "`Questionnaire.item.item` is written `Questionnaire.item.linkId`",
        ),
        ("Bundle.entry.link.url", "`Bundle.entry.link` is written `Bundle.link.url`"),
        ("Patient.contained.name", "`Patient.contained` is decided as a whole: nothing can follow it"),
        ("Patient.extension.value", "`Patient.extension` is decided as a whole: nothing can follow it"),
        ("Patient.id.extension('urn:x')", "`Patient.id` has no element `extension`"),
        ("Patient.extension('')", "an extension is written extension('url'), at the end, without spaces"),
        ("Patient.extension('a b')", "an extension is written extension('url'), at the end, without spaces"),
        (
            "Patient.extension('a').value",
            "an extension is written extension('url'), at the end, without spaces",
        ),
        ("Patient.extension(\"a\")", "`Patient` has no element `extension(\"a\")`"),
        ("Patient.name\n", "element path holds a control character"),
        ("Patient.name.family ", "`Patient.name` has no element `family `, did you mean `family`?"),
    ];
    for (text, expected) in cases {
        let error = ElementPath::parse(text).err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let deep = format!("Observation.subject{}", ".identifier.assigner".repeat(12));
    assert_eq!(ElementPath::parse(&deep), Err(PathError::TooLong));
    let long = format!("Patient.extension('urn:{}')", "x".repeat(600));
    assert_eq!(ElementPath::parse(&long), Err(PathError::TooLong));
}

#[test]
fn a_parent_covers_its_children_and_nothing_else() {
    let cases = [
        ("Patient", "Patient.name.family", true),
        ("Patient.name", "Patient.name", true),
        ("Patient.name.family", "Patient.name", false),
        ("Claim", "ClaimResponse", false),
        ("Patient.contact", "Patient.communication", false),
        ("Observation.value", "Observation.value.unit", true),
        ("Patient.extension", "Patient.extension('urn:x')", true),
        ("Patient.extension('urn:x')", "Patient.extension", false),
        ("Patient.extension('urn:x')", "Patient.extension('urn:xy')", false),
    ];
    for (one, other, expected) in cases {
        assert_eq!(path(one).is_ancestor_or_self(&path(other)), expected, "{one} {other}");
    }
}

#[test]
fn every_search_parameter_reads_elements_that_exist() {
    for one in ResourceType::all() {
        for parameter in search_parameters(one) {
            let shown = format!("{} {}", one.name(), parameter.code);
            assert_eq!(parameter.understood, !parameter.reads.is_empty(), "{shown}");
            for read in parameter.reads {
                assert_eq!(path(read).resource_type(), one, "{shown} {read}");
            }
            assert!(std::ptr::eq(search_parameter(one, parameter.code).unwrap(), parameter), "{shown}");
            assert!(parameter.components.iter().all(|code| search_parameter(one, code).is_some()), "{shown}");
            let composite = parameter.kind == SearchType::Composite;
            assert_eq!(composite, parameter.components.len() > 1, "{shown}");
        }
    }
}

#[test]
fn those_not_understood_are_known() {
    let mut found: Vec<_> = ResourceType::all()
        .flat_map(search_parameters)
        .filter(|one| !one.understood)
        .map(|one| one.code)
        .collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, ["_filter", "_query"]);
}

#[test]
fn search_parameters_read_what_their_expressions_say() {
    // type, code, reads, targets
    let cases = [
        ("Patient", "phone", "Patient.telecom Patient.telecom.system", ""),
        ("Patient", "deceased", "Patient.deceased", ""),
        ("Patient", "phonetic", "Patient.name", ""),
        ("Patient", "_lastUpdated", "Patient.meta.lastUpdated", ""),
        ("Binary", "_id", "Binary.id", ""),
        ("Observation", "patient", "Observation.subject.reference", "Patient"),
        ("Observation", "subject", "Observation.subject.reference", "Device Group Location Patient"),
        ("Observation", "value-quantity", "Observation.value", ""),
        ("Observation", "code-value-quantity", "Observation.code Observation.value", ""),
        (
            "Observation",
            "component-code-value-concept",
            "Observation.component.code Observation.component.value",
            "",
        ),
        ("Observation", "code-value-date", "Observation.code Observation.value", ""),
        ("Condition", "onset-age", "Condition.onset", ""),
        ("Condition", "code", "Condition.code", ""),
        ("MedicationRequest", "medication", "MedicationRequest.medication.reference", "Medication"),
        ("Library", "composed-of", "Library.relatedArtifact.resource Library.relatedArtifact.type", ""),
        (
            "MolecularSequence",
            "chromosome-variant-coordinate",
            "MolecularSequence.referenceSeq.chromosome MolecularSequence.variant.end MolecularSequence.variant.start",
            "",
        ),
        (
            "Device",
            "din",
            "Device.extension('http://hl7.org/fhir/SearchParameter/device-extensions-Device-din')",
            "",
        ),
        ("Bundle", "composition", "Bundle.entry.resource", "Composition"),
        // Published without an expression, plain from their descriptions.
        ("Patient", "age", "Patient.birthDate Patient.deceased", ""),
        ("Patient", "birthOrderBoolean", "Patient.multipleBirth", ""),
        ("Observation", "_text", "Observation", ""),
        ("Binary", "_content", "Binary", ""),
    ];
    for (name, code, reads, targets) in cases {
        let found = search_parameter(resource(name), code).unwrap_or_else(|| panic!("{name} {code}"));
        assert_eq!(found.reads.join(" "), reads, "{name} {code}");
        let shown: Vec<_> = found.targets.iter().map(|one| one.name()).collect();
        if !targets.is_empty() {
            assert_eq!(shown.join(" "), targets, "{name} {code}");
        }
    }
    for (name, code) in
        [("Patient", "birthDate"), ("Patient", "Birthdate"), ("Binary", "_text"), ("Patient", "")]
    {
        assert!(search_parameter(resource(name), code).is_none(), "{name} {code}");
    }
}

#[test]
fn the_patient_compartment_is_the_official_one() {
    let cases = [
        ("Observation", "Observation.performer Observation.subject"), // not through focus
        ("Encounter", "Encounter.subject"),
        (
            "AllergyIntolerance",
            "AllergyIntolerance.asserter AllergyIntolerance.patient AllergyIntolerance.recorder",
        ),
        ("AuditEvent", "AuditEvent.agent.who AuditEvent.entity.what"),
        ("Group", "Group.member.entity"),
        ("Patient", "Patient.link.other"),
        ("Device", ""),
        ("Medication", ""),
        ("Task", ""),
        ("Practitioner", ""),
    ];
    for (name, expected) in cases {
        assert_eq!(patient_compartment(resource(name)).join(" "), expected, "{name}");
    }
    assert_eq!(ResourceType::all().filter(|one| !patient_compartment(*one).is_empty()).count(), 66);
    let reference = structure("Reference").unwrap();
    for text in ResourceType::all().flat_map(patient_compartment) {
        let element = path(text).element().unwrap();
        let patient = element.targets.is_empty() || element.targets.contains(&resource("Patient"));
        assert!(element.types.contains(&reference) && patient, "{text}");
    }
}

/// T-028, T-029: the five official compartments, and no type in one that the definitions do not name.
#[test]
fn the_compartments_are_the_official_ones() {
    let cases = [
        ("Patient", "Observation", "performer subject", "Observation.performer Observation.subject"),
        ("Patient", "Patient", "link", "Patient.link.other"),
        ("Patient", "Practitioner", "", "-"),
        ("Patient", "Device", "", "-"),
        ("Encounter", "Encounter", "{def}", "Encounter.id"),
        ("Encounter", "Observation", "encounter", "Observation.encounter"),
        ("Encounter", "Patient", "", "-"),
        ("RelatedPerson", "RelatedPerson", "{def}", "RelatedPerson.id"),
        ("RelatedPerson", "Patient", "link", "Patient.link.other"),
        ("Practitioner", "Practitioner", "{def}", "Practitioner.id"),
        ("Practitioner", "Patient", "general-practitioner", "Patient.generalPractitioner"),
        ("Practitioner", "Observation", "performer", "Observation.performer"),
        ("Device", "Observation", "device subject", "Observation.device Observation.subject"),
        ("Device", "Device", "", "-"),
        ("Group", "Observation", "", "-"),
        ("Observation", "Patient", "", "-"),
    ];
    for (owner, member, codes, paths) in cases {
        let (one, other) = (resource(owner), resource(member));
        let found = compartment(one, other).map_or("-".to_owned(), |paths| paths.join(" "));
        assert_eq!(found, paths, "{owner} {member}");
        assert_eq!(compartment_parameters(one, other).join(" "), codes, "{owner} {member}");
        assert_eq!(compartment_members(one).any(|one| one == other), paths != "-", "{owner} {member}");
    }
    let sizes =
        [("Patient", 66), ("Encounter", 25), ("RelatedPerson", 32), ("Practitioner", 59), ("Device", 32)];
    for (owner, size) in sizes {
        assert_eq!(compartment_members(resource(owner)).count(), size, "{owner}");
    }
}

#[test]
fn compartment_members_refer_to_their_owner() {
    let reference = structure("Reference").unwrap();
    for owner in ResourceType::all() {
        for member in compartment_members(owner) {
            for text in compartment(owner, member).unwrap() {
                let found = path(text);
                assert_eq!(found.resource_type(), member, "{text}");
                let element = found.element().unwrap();
                let refers = element.types.contains(&reference)
                    && (element.targets.is_empty() || element.targets.contains(&owner));
                assert!(refers || owner == member && element.name == "id", "{} {text}", owner.name());
            }
        }
    }
    for member in ResourceType::all() {
        let own = compartment(resource("Patient"), member).unwrap_or_default();
        assert_eq!(own, patient_compartment(member), "{}", member.name());
    }
}

proptest! {
    #[test]
    fn any_text_is_a_path_or_an_error(text in "(?s)(Patient|Bundle|.{0,4})([.]?(item|name|.{0,9})){0,5}") {
        match ElementPath::parse(&text) {
            Ok(path) => prop_assert_eq!(path.as_str(), text),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
