//! The R4 data types that the filter treats by their meaning.
//!
//! Owns: finding them once in the tables.
//! Must never: guess; without one of them nothing can be taken apart.
//! Look next: `bind` and `emit`, which compare with them.

use std::sync::LazyLock;

use crate::domain::fhir::r4::{self, Element, Property, ResourceType, Structure};

/// Data types with rules of their own.
#[derive(Debug)]
pub(super) struct DataTypes {
    pub attachment: Structure,
    pub bundle_entry: Structure,
    pub bundle_link: Structure,
    pub coding: Structure,
    pub extension: Structure,
    pub meta: Structure,
    pub narrative: Structure,
    pub reference: Structure,
    pub signature: Structure,
    /// `extension` and `id` as every element has them; the only members of a twin.
    pub extensions: &'static Element,
    pub id: &'static Element,
    pub id_structure: Structure,
}

/// The data types, or none if the tables lack one.
pub(super) fn data_types() -> Option<&'static DataTypes> {
    static FOUND: LazyLock<Option<DataTypes>> = LazyLock::new(find);
    FOUND.as_ref()
}

fn find() -> Option<DataTypes> {
    let meta = of("Patient", "meta")?.structure;
    let extensions = of("Patient", "extension")?;
    let id = r4::property(extensions.structure, "id")?;
    Some(DataTypes {
        attachment: of("Patient", "photo")?.structure,
        bundle_entry: of("Bundle", "entry")?.structure,
        bundle_link: of("Bundle", "link")?.structure,
        coding: r4::property(meta, "security")?.structure,
        extension: extensions.structure,
        meta,
        narrative: of("Patient", "text")?.structure,
        reference: of("Observation", "subject")?.structure,
        signature: of("Provenance", "signature")?.structure,
        extensions: extensions.element,
        id: id.element,
        id_structure: id.structure,
    })
}

fn of(resource: &str, name: &str) -> Option<Property> {
    r4::property(r4::root(ResourceType::from_name(resource)?), name)
}
