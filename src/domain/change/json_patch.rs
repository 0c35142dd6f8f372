//! stub
//! Owns: x. Must never: x. Look next: x.

use super::{ChangeRefusal, Touch, Tree};
use crate::domain::fhir::r4::ResourceType;
pub(super) fn touches(_resource: ResourceType, _patch: &[u8]) -> Result<Vec<Touch>, ChangeRefusal> {
    Err(ChangeRefusal::Malformed)
}
pub(super) fn apply(_resource: ResourceType, _patch: &[u8], _view: &Tree) -> Result<Tree, ChangeRefusal> {
    Err(ChangeRefusal::Malformed)
}
