//! Any mask, walked along by numbers and by names: both lead to the same decisions.
#![no_main]

use chartgate::domain::fhir::mask::{Mask, MaskCursor};
use chartgate::domain::fhir::r4::{self, Element, ElementPath, ResourceType, Structure};
use libfuzzer_sys::fuzz_target;

/// A content reference continues where its content is defined; unless that is around it, it must be kept here as well.
fn by_name<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
    let here = cursor.child(element.name);
    let Some(path) = element.rewind else { return here };
    let owner = format!("{}.", r4::type_name(owner));
    if owner.starts_with(&format!("{path}.")) || here.keeps() { here.rewind(path) } else { here }
}

fuzz_target!(|input: (u8, Vec<(Vec<u8>, bool)>, Vec<u8>)| {
    let (kind, decisions, walk) = input;
    let kinds: Vec<ResourceType> = ResourceType::all().collect();
    let kind = kinds[usize::from(kind) % kinds.len()];
    let path = |steps: &[u8]| {
        let (mut path, mut structure) = (kind.name().to_owned(), r4::root(kind));
        for step in steps.iter().take(8) {
            let elements = r4::elements(structure);
            let Some(element) = elements.get(usize::from(*step) % elements.len().max(1)) else { break };
            path = format!("{path}.{}", element.name);
            structure = element.types[usize::from(*step) % element.types.len()];
        }
        path
    };
    let decided = decisions.iter().filter_map(|(steps, keep)| Some((ElementPath::parse(&path(steps)).ok()?, *keep)));
    let mask = Mask::new(kind, decided);
    let (mut cursor, mut structure) = (mask.cursor(), r4::root(kind));
    for step in walk.iter().take(16) {
        let elements = r4::elements(structure);
        for (element, bit) in elements.iter().zip(0_u8..) {
            let (compiled, named) = (cursor.fan(structure).child(bit, element), by_name(cursor, structure, element));
            assert_eq!((compiled.keeps(), compiled.whole()), (named.keeps(), named.whole()), "{}", element.name);
        }
        let Some(element) = elements.get(usize::from(*step) % elements.len().max(1)) else { break };
        cursor = by_name(cursor, structure, element);
        structure = element.types[usize::from(*step) % element.types.len()];
    }
});
