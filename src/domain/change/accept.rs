//! stub
//! Owns: x. Must never: x. Look next: x.

use super::{ChangeRefusal, Tree};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ResourceType;
pub(super) fn accept(_resource: ResourceType, _sent: &Tree, _modify: &Mask) -> Result<Tree, ChangeRefusal> {
    Err(ChangeRefusal::Malformed)
}
