//! The R4 data types that the filter treats by their meaning.
//!
//! Owns: finding them once in the tables.
//! Must never: guess; without one of them nothing can be taken apart.
//! Look next: `emit`, which compares with them; `keys`, where data types have their meaning.

use std::sync::LazyLock;

use crate::domain::fhir::r4::{self, Structure};

/// Data types with rules of their own.
#[derive(Debug)]
pub(super) struct DataTypes {
    pub extension: Structure,
    pub narrative: Structure,
    pub reference: Structure,
}

/// The data types, or none if the tables lack one.
pub(super) fn data_types() -> Option<&'static DataTypes> {
    static FOUND: LazyLock<Option<DataTypes>> = LazyLock::new(find);
    FOUND.as_ref()
}

fn find() -> Option<DataTypes> {
    Some(DataTypes {
        extension: r4::structure("Extension")?,
        narrative: r4::structure("Narrative")?,
        reference: r4::structure("Reference")?,
    })
}
