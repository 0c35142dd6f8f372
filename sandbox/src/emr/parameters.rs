//! The search parameters the sandbox knows, by hand: which types have them, their kind, and the elements they read.
//!
//! Owns: one table. It is a convenience for demo and tests, never a source for the gate (whose tables are generated).
//! Must never: decide what a caller may search.
//! Look next: `terms`, which reads the elements; `search`, which compares.

/// How a parameter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Text,
    Date,
    Reference,
    Quantity,
    Uri,
}

impl Kind {
    /// R4's `SearchParamType` code.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Text => "string",
            Self::Date => "date",
            Self::Reference => "reference",
            Self::Quantity => "quantity",
            Self::Uri => "uri",
        }
    }
}

/// One row: types (space separated, `*` for all), code, kind, element paths (space separated, choices spelled out;
/// `telecom[phone]` keeps the elements whose `system` is that).
pub(super) struct Parameter {
    types: &'static str,
    pub(super) code: &'static str,
    pub(super) kind: Kind,
    pub(super) paths: &'static str,
}

impl Parameter {
    fn is_for(&self, resource_type: &str) -> bool {
        self.types == "*" || self.types.split(' ').any(|name| name == resource_type)
    }
}

/// The parameters of a type.
pub(super) fn of(resource_type: &str) -> impl Iterator<Item = &'static Parameter> + use<'_> {
    TABLE.iter().filter(move |row| row.is_for(resource_type))
}

/// The parameter `code` of a type.
pub(super) fn find(resource_type: &str, code: &str) -> Option<&'static Parameter> {
    TABLE.iter().find(|row| row.code == code && row.is_for(resource_type))
}

const fn row(types: &'static str, code: &'static str, kind: Kind, paths: &'static str) -> Parameter {
    Parameter { types, code, kind, paths }
}

use Kind::{Date, Quantity, Reference, Text, Token, Uri};

const PEOPLE: &str = "Patient Practitioner RelatedPerson Person";
const ADDRESSED: &str = "Patient Practitioner RelatedPerson Person Organization Location";
const ABOUT_SUBJECT: &str = "Observation Condition Procedure DiagnosticReport MedicationRequest \
MedicationAdministration MedicationDispense MedicationStatement ServiceRequest Encounter CarePlan CareTeam Goal \
Composition DocumentReference ImagingStudy QuestionnaireResponse ClinicalImpression RiskAssessment Flag List \
Specimen Media DeviceRequest Communication CommunicationRequest AdverseEvent Account ChargeItem Invoice Basic";
const ABOUT_PATIENT: &str = "AllergyIntolerance Immunization Claim ClaimResponse ExplanationOfBenefit Device \
RelatedPerson EpisodeOfCare FamilyMemberHistory ImmunizationRecommendation NutritionOrder VisionPrescription Consent \
SupplyDelivery DetectedIssue CoverageEligibilityRequest";
const IN_ENCOUNTER: &str = "Observation Condition Procedure DiagnosticReport MedicationRequest ServiceRequest \
CarePlan CareTeam Composition ImagingStudy QuestionnaireResponse ClinicalImpression RiskAssessment Flag List Media";
const IDENTIFIED: &str = "Patient Practitioner RelatedPerson Person Organization Location Encounter Observation \
Condition Procedure DiagnosticReport MedicationRequest ServiceRequest AllergyIntolerance Immunization Coverage Claim \
ExplanationOfBenefit Appointment DocumentReference Questionnaire QuestionnaireResponse CarePlan CareTeam Goal \
ImagingStudy Composition Device PractitionerRole EpisodeOfCare Account Consent Specimen Group ClaimResponse";
const WITH_STATUS: &str = "Observation Procedure DiagnosticReport MedicationRequest MedicationAdministration \
MedicationDispense MedicationStatement ServiceRequest Encounter CarePlan CareTeam Composition DocumentReference \
ImagingStudy QuestionnaireResponse Questionnaire Immunization Coverage Claim ExplanationOfBenefit Appointment Flag \
List Task Communication Account Consent EpisodeOfCare Location Device ClaimResponse Medication Specimen Slot";
const WITH_CATEGORY: &str = "Observation Condition Procedure DiagnosticReport MedicationRequest ServiceRequest \
CarePlan CareTeam Goal DocumentReference AllergyIntolerance Flag Communication Consent Composition";
const WITH_TYPE: &str = "Encounter Organization Location DocumentReference Composition Coverage AllergyIntolerance \
Device Account EpisodeOfCare Specimen Group";

const TABLE: &[Parameter] = &[
    row("*", "_id", Token, "id"),
    row("*", "_lastUpdated", Date, "meta.lastUpdated"),
    row("*", "_tag", Token, "meta.tag"),
    row("*", "_security", Token, "meta.security"),
    row("*", "_profile", Uri, "meta.profile"),
    row("*", "_source", Uri, "meta.source"),
    row(IDENTIFIED, "identifier", Token, "identifier masterIdentifier"),
    // People, places, organizations.
    row(PEOPLE, "name", Text, "name"),
    row("Organization Location", "name", Text, "name alias"),
    row("Questionnaire", "name", Text, "name"),
    row("Questionnaire", "title", Text, "title"),
    row("Questionnaire", "url", Uri, "url"),
    row("Patient Practitioner", "family", Text, "name.family"),
    row("Patient Practitioner", "given", Text, "name.given"),
    row("Patient RelatedPerson Person", "birthdate", Date, "birthDate"),
    row(PEOPLE, "gender", Token, "gender"),
    row(PEOPLE, "telecom", Token, "telecom"),
    row(PEOPLE, "phone", Token, "telecom[phone]"),
    row(PEOPLE, "email", Token, "telecom[email]"),
    row(ADDRESSED, "address", Text, "address"),
    row(ADDRESSED, "address-city", Text, "address.city"),
    row(ADDRESSED, "address-state", Text, "address.state"),
    row(ADDRESSED, "address-postalcode", Text, "address.postalCode"),
    row(ADDRESSED, "address-country", Text, "address.country"),
    row(ADDRESSED, "address-use", Token, "address.use"),
    row("Patient Practitioner RelatedPerson Organization PractitionerRole", "active", Token, "active"),
    row("Patient", "deceased", Token, "deceasedBoolean deceasedDateTime"),
    row("Patient", "death-date", Date, "deceasedDateTime"),
    row("Patient", "language", Token, "communication.language"),
    row("Patient", "general-practitioner", Reference, "generalPractitioner"),
    row("Patient Person", "organization", Reference, "managingOrganization"),
    row("Patient", "link", Reference, "link.other"),
    row("RelatedPerson", "relationship", Token, "relationship"),
    row("PractitionerRole", "practitioner", Reference, "practitioner"),
    row("PractitionerRole", "organization", Reference, "organization"),
    row("PractitionerRole", "role", Token, "code"),
    row("PractitionerRole", "specialty", Token, "specialty"),
    row("Organization", "partof", Reference, "partOf"),
    row("Location", "partof", Reference, "partOf"),
    row("Location", "organization", Reference, "managingOrganization"),
    row("Device", "organization", Reference, "owner"),
    // Whose record it is.
    row(ABOUT_SUBJECT, "subject", Reference, "subject"),
    row(ABOUT_SUBJECT, "patient", Reference, "subject"),
    row(ABOUT_PATIENT, "patient", Reference, "patient"),
    row("Coverage", "patient", Reference, "beneficiary"),
    row("Coverage", "beneficiary", Reference, "beneficiary"),
    row("Coverage", "subscriber", Reference, "subscriber"),
    row("Coverage", "payor", Reference, "payor"),
    row("Appointment", "patient", Reference, "participant.actor"),
    row("Appointment", "practitioner", Reference, "participant.actor"),
    row("Appointment", "actor", Reference, "participant.actor"),
    row("Provenance", "target", Reference, "target"),
    row("Provenance", "patient", Reference, "target"),
    row("Provenance", "agent", Reference, "agent.who"),
    row("Task", "patient", Reference, "for"),
    row("Task", "subject", Reference, "for"),
    row("Group", "member", Reference, "member.entity"),
    row("List", "item", Reference, "entry.item"),
    // In which encounter.
    row(IN_ENCOUNTER, "encounter", Reference, "encounter"),
    row("DocumentReference", "encounter", Reference, "context.encounter"),
    row("MedicationAdministration", "context", Reference, "context"),
    row("Claim", "encounter", Reference, "item.encounter"),
    row("ExplanationOfBenefit", "encounter", Reference, "item.encounter"),
    // By whom and where.
    row(
        "Observation Procedure DiagnosticReport ServiceRequest",
        "performer",
        Reference,
        "performer performer.actor",
    ),
    row("MedicationAdministration Immunization", "performer", Reference, "performer.actor"),
    row("MedicationRequest ServiceRequest DeviceRequest", "requester", Reference, "requester"),
    row("Encounter", "participant", Reference, "participant.individual"),
    row("Encounter", "practitioner", Reference, "participant.individual"),
    row("Encounter", "service-provider", Reference, "serviceProvider"),
    row("Encounter", "location", Reference, "location.location"),
    row("Encounter", "part-of", Reference, "partOf"),
    row("Encounter", "diagnosis", Reference, "diagnosis.condition"),
    row("Immunization Procedure", "location", Reference, "location"),
    row("Appointment", "location", Reference, "participant.actor"),
    row("CareTeam", "participant", Reference, "participant.member"),
    row("CarePlan", "care-team", Reference, "careTeam"),
    row("CarePlan", "condition", Reference, "addresses"),
    row("CarePlan", "goal", Reference, "goal"),
    row("Condition AllergyIntolerance", "asserter", Reference, "asserter"),
    row("AllergyIntolerance", "recorder", Reference, "recorder"),
    row("DocumentReference Composition QuestionnaireResponse", "author", Reference, "author"),
    row("QuestionnaireResponse", "source", Reference, "source"),
    row("QuestionnaireResponse", "questionnaire", Uri, "questionnaire"),
    row("Claim ExplanationOfBenefit", "provider", Reference, "provider"),
    row("Claim ExplanationOfBenefit", "insurer", Reference, "insurer"),
    row("Claim ExplanationOfBenefit", "facility", Reference, "facility"),
    row("ExplanationOfBenefit", "claim", Reference, "claim"),
    row("ExplanationOfBenefit", "coverage", Reference, "insurance.coverage"),
    row("Observation DiagnosticReport ServiceRequest Procedure", "based-on", Reference, "basedOn"),
    row("Observation", "has-member", Reference, "hasMember"),
    row("Observation", "derived-from", Reference, "derivedFrom"),
    row("Observation", "focus", Reference, "focus"),
    row("Observation DiagnosticReport", "specimen", Reference, "specimen"),
    row("Observation", "device", Reference, "device"),
    row("DiagnosticReport", "result", Reference, "result"),
    row("MedicationRequest MedicationAdministration", "medication", Reference, "medicationReference"),
    // What it says.
    row(WITH_STATUS, "status", Token, "status"),
    row(WITH_CATEGORY, "category", Token, "category"),
    row(WITH_TYPE, "type", Token, "type"),
    row(
        "Observation Condition Procedure DiagnosticReport ServiceRequest Medication List",
        "code",
        Token,
        "code",
    ),
    row("AllergyIntolerance", "code", Token, "code reaction.substance"),
    row("MedicationRequest MedicationAdministration", "code", Token, "medicationCodeableConcept"),
    row("Immunization", "vaccine-code", Token, "vaccineCode"),
    row("Condition AllergyIntolerance", "clinical-status", Token, "clinicalStatus"),
    row("Condition AllergyIntolerance", "verification-status", Token, "verificationStatus"),
    row("Condition", "severity", Token, "severity"),
    row("AllergyIntolerance", "criticality", Token, "criticality"),
    row("Encounter", "class", Token, "class"),
    row("Encounter", "reason-code", Token, "reasonCode"),
    row("MedicationRequest ServiceRequest CarePlan", "intent", Token, "intent"),
    row("ServiceRequest MedicationRequest Task", "priority", Token, "priority"),
    row("Observation", "combo-code", Token, "code component.code"),
    row("Observation", "component-code", Token, "component.code"),
    row("Observation", "value-concept", Token, "valueCodeableConcept"),
    row("Observation", "value-quantity", Quantity, "valueQuantity"),
    row("Observation", "component-value-quantity", Quantity, "component.valueQuantity"),
    row("Observation", "value-string", Text, "valueString"),
    row("Observation", "value-date", Date, "valueDateTime valuePeriod"),
    row("Observation", "data-absent-reason", Token, "dataAbsentReason"),
    row("Claim", "priority", Token, "priority"),
    row("Claim ExplanationOfBenefit", "use", Token, "use"),
    row("Appointment", "service-type", Token, "serviceType"),
    row("Goal", "lifecycle-status", Token, "lifecycleStatus"),
    row("DocumentReference", "description", Text, "description"),
    // When.
    row("Observation DiagnosticReport", "date", Date, "effectiveDateTime effectivePeriod effectiveInstant"),
    row("Procedure", "date", Date, "performedDateTime performedPeriod"),
    row("Encounter CarePlan CareTeam", "date", Date, "period"),
    row("AllergyIntolerance", "date", Date, "recordedDate"),
    row("Immunization", "date", Date, "occurrenceDateTime"),
    row("DocumentReference Composition Questionnaire ClinicalImpression List", "date", Date, "date"),
    row("Appointment", "date", Date, "start"),
    row("Consent", "date", Date, "dateTime"),
    row("Condition", "onset-date", Date, "onsetDateTime onsetPeriod"),
    row("Condition", "abatement-date", Date, "abatementDateTime abatementPeriod"),
    row("Condition", "recorded-date", Date, "recordedDate"),
    row("MedicationRequest", "authoredon", Date, "authoredOn"),
    row("ServiceRequest", "authored", Date, "authoredOn"),
    row("ServiceRequest", "occurrence", Date, "occurrenceDateTime occurrencePeriod"),
    row("QuestionnaireResponse", "authored", Date, "authored"),
    row("Claim ExplanationOfBenefit", "created", Date, "created"),
    row("Goal", "start-date", Date, "startDate"),
    row("MedicationAdministration", "effective-time", Date, "effectiveDateTime effectivePeriod"),
    row("ImagingStudy", "started", Date, "started"),
    row("Provenance", "recorded", Date, "recorded"),
];
