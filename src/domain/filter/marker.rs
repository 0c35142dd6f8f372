//! What stands in for withheld elements.
//!
//! Owns: the exact bytes of `data-absent-reason` = `masked` and of the SUBSETTED tag.
//! Must never: depend on what was withheld; a marker is a function of the R4 tables alone.
//! Look next: `emit`, which decides where one is due.

use super::data_type::DataTypes;
use crate::domain::fhir::r4::{self, Element, Kind, Primitive, Structure};

/// The coding that says a record is not the whole record (v3-ObservationValue).
pub(super) const SUBSETTED: &str =
    r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}"#;
/// Its system, for finding one that is there already.
pub(super) const SUBSETTED_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
/// Its code.
pub(super) const SUBSETTED_CODE: &str = "SUBSETTED";

const MASKED: &str = r#""extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]"#;

/// Writes the member that says a mandatory element of `owner` is masked. False, with nothing
/// meaningful written, where R4 has no place for it: plain strings such as `Extension.url`, XHTML, resources.
///
/// A choice is marked under the first of its official types. A structure with mandatory elements of its
/// own gets their markers too, so that what is written is valid R4.
pub(super) fn write_marker(
    owner: Structure,
    element: &Element,
    types: &DataTypes,
    out: &mut Vec<u8>,
) -> bool {
    let Some(&structure) = element.types.first() else { return false };
    if owner == types.extension {
        return false;
    }
    let twin = match r4::kind(structure) {
        Kind::Primitive(Primitive::Boolean | Primitive::Number | Primitive::Text) => true,
        Kind::Complex => false,
        Kind::Primitive(Primitive::Xhtml) | Kind::Resource | Kind::AnyResource => return false,
    };
    out.extend_from_slice(if twin { b"\"_" } else { b"\"" });
    write_key(element, structure, out);
    out.extend_from_slice(if element.many { b"\":[" } else { b"\":" });
    let marked = write_masked(structure, twin, types, out);
    if element.many {
        out.push(b']');
    }
    marked
}

fn write_key(element: &Element, structure: Structure, out: &mut Vec<u8>) {
    out.extend_from_slice(element.name.as_bytes());
    if element.choice {
        let mut letters = r4::type_name(structure).bytes();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.extend(letters);
    }
}

fn write_masked(structure: Structure, twin: bool, types: &DataTypes, out: &mut Vec<u8>) -> bool {
    out.push(b'{');
    out.extend_from_slice(MASKED.as_bytes());
    let inner = if twin { &[] } else { r4::elements(structure) };
    let mut marked = true;
    for element in inner.iter().filter(|element| element.min > 0) {
        out.push(b',');
        marked &= write_marker(structure, element, types, out);
    }
    out.push(b'}');
    marked
}
