//! stub
//! Owns: x. Must never: x. Look next: x.

use super::{ChangeRefusal, Sight, Tree};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ResourceType;
pub(super) fn view(_resource: ResourceType, _current: &Tree, _seen: &Mask) -> Result<Tree, ChangeRefusal> {
    Err(ChangeRefusal::Malformed)
}
pub(super) fn merge(
    _resource: ResourceType,
    _current: &Tree,
    _sent: &Tree,
    _sight: &Sight<'_>,
    _modify: &Mask,
) -> Result<Tree, ChangeRefusal> {
    Err(ChangeRefusal::Malformed)
}
