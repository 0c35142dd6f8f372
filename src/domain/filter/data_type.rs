//! The R4 data types that the filter treats by their meaning.
//!
//! Owns: finding them once in the tables.
//! Must never: guess; without one of them nothing can be taken apart.
//! Look next: `bind` and `emit`, which compare with them.

use std::sync::LazyLock;

use crate::domain::fhir::r4::{self, Element, Structure};

/// Data types with rules of their own.
#[derive(Debug)]
pub(super) struct DataTypes {
    pub attachment: Structure,
    pub bundle_entry: Structure,
    pub bundle_link: Structure,
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
    let extension = r4::structure("Extension")?;
    let id = r4::property(extension, "id")?;
    Some(DataTypes {
        attachment: r4::structure("Attachment")?,
        bundle_entry: r4::structure("Bundle.entry")?,
        bundle_link: r4::structure("Bundle.link")?,
        extension,
        meta: r4::structure("Meta")?,
        narrative: r4::structure("Narrative")?,
        reference: r4::structure("Reference")?,
        signature: r4::structure("Signature")?,
        extensions: r4::property(extension, "extension")?.element,
        id: id.element,
        id_structure: id.structure,
    })
}
