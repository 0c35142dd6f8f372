//! Masks compiled: where each element of each structure leads, so that a walk looks up numbers and not names.
//!
//! Owns: the small automaton of one mask, in which choices, content references and recursion are resolved.
//! Must never: lead elsewhere than the names do; what is not compiled is looked up by name.
//! Look next: `mask`; `filter::emit`, which takes a step for every member.

use super::{Mask, MaskCursor, Place, ROOT};
use crate::domain::fhir::r4::{self, Element, Structure};

/// For each branch the structures that can stand there, and where their elements lead.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// By branch: the structures that can stand there, and the place of each of their elements.
    by_branch: Vec<Vec<(Structure, Box<[Place]>)>>,
}

impl Rows {
    pub(super) fn compile(mask: &Mask) -> Self {
        let mut rows = Self { by_branch: vec![Vec::new(); mask.branches.len()] };
        let urls = mask.branches.iter().flat_map(|branch| branch.urls.iter().map(|(_, place)| *place));
        let mut waiting = vec![(ROOT, r4::root(mask.resource))];
        if let Some(extension) = r4::structure("Extension") {
            waiting.extend(urls.map(|place| (place, extension)));
        }
        while let Some((index, structure)) = waiting.pop() {
            let elements = r4::elements(structure);
            let Some(known) = rows.by_branch.get_mut(index) else { continue };
            if elements.is_empty() || known.iter().any(|(one, _)| *one == structure) {
                continue;
            }
            let cursor = MaskCursor { mask, place: Place::At(index) };
            let places: Box<[Place]> =
                elements.iter().map(|element| cursor.walk_to(structure, element).place).collect();
            for (element, place) in elements.iter().zip(&places) {
                if let Place::At(next) = place {
                    waiting.extend(element.types.iter().map(|kind| (*next, *kind)));
                }
            }
            known.push((structure, places));
        }
        rows
    }
}

/// The elements of one object, each with its place in the mask.
#[derive(Clone, Copy, Debug)]
pub struct Fan<'m> {
    cursor: MaskCursor<'m>,
    owner: Structure,
    places: Option<&'m [Place]>,
}

impl<'m> Fan<'m> {
    /// The cursor on the `bit`th element of the structure, which is `element`. A content reference continues where its
    /// content is defined; where that is not around it (`Observation.component.referenceRange`), it must be kept here
    /// as well.
    #[must_use]
    #[inline]
    pub fn child(self, bit: u8, element: &Element) -> MaskCursor<'m> {
        match self.places.and_then(|places| places.get(usize::from(bit))) {
            Some(&place) => MaskCursor { place, ..self.cursor },
            None => self.cursor.walk_to(self.owner, element),
        }
    }
}

impl<'m> MaskCursor<'m> {
    /// Where the elements of the object here lead; `owner` is its structure.
    #[must_use]
    #[inline]
    pub fn fan(self, owner: Structure) -> Fan<'m> {
        let row = |index: usize| {
            let rows = self.mask.rows.get_or_init(|| Rows::compile(self.mask)).by_branch.get(index)?;
            rows.iter().find(|(one, _)| *one == owner).map(|(_, places)| &**places)
        };
        let places = match self.place {
            Place::At(index) => row(index),
            Place::Below(_) => None,
        };
        Fan { cursor: self, owner, places }
    }

    /// The same, by names.
    #[inline]
    fn walk_to(self, owner: Structure, element: &Element) -> Self {
        match (self.place, element.rewind) {
            (Place::Below(_), None) => self,
            (Place::At(_), None) => self.child(element.name),
            (_, Some(path)) => self.continue_at(owner, element, path),
        }
    }

    fn continue_at(self, owner: Structure, element: &Element, path: &str) -> Self {
        let here = self.child(element.name);
        let around = r4::type_name(owner).strip_prefix(path);
        let recursive = around.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if recursive || here.keeps() { here.rewind(path) } else { here }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::r4::{ElementPath, ResourceType};
    use proptest::prelude::*;

    /// Every path of a type down to some depth, extensions by URL among them.
    fn paths(kind: ResourceType) -> Vec<String> {
        let mut found = vec![kind.name().to_owned()];
        let mut waiting = vec![(r4::root(kind), kind.name().to_owned(), 0)];
        while let Some((structure, path, depth)) = waiting.pop() {
            for element in r4::elements(structure) {
                let path = format!("{path}.{}", element.name);
                if depth < 2 && element.rewind.is_none() {
                    waiting.extend(element.types.iter().map(|one| (*one, path.clone(), depth + 1)));
                }
                if element.name == "extension" {
                    found.push(format!("{path}('http://a')"));
                }
                found.push(path);
            }
        }
        found
    }

    const KINDS: [&str; 8] = [
        "Bundle",
        "Composition",
        "Observation",
        "Parameters",
        "Patient",
        "Questionnaire",
        "QuestionnaireResponse",
        "ValueSet",
    ];

    /// Compiled and by name, every element of every object leads to the same place.
    fn agree(mask: &Mask, choices: &[usize]) -> Result<(), TestCaseError> {
        let (mut cursor, mut structure) = (mask.cursor(), r4::root(mask.resource_type()));
        for choice in choices {
            let (fan, elements) = (cursor.fan(structure), r4::elements(structure));
            for (element, bit) in elements.iter().zip(0_u8..) {
                let (compiled, named) = (fan.child(bit, element), cursor.walk_to(structure, element));
                prop_assert_eq!(compiled.place, named.place, "{} {}", r4::type_name(structure), element.name);
            }
            let Some(element) = elements.get(choice % elements.len().max(1)) else { break };
            cursor = cursor.walk_to(structure, element);
            structure = element.types[choice % element.types.len()];
            if r4::type_name(structure) == "Extension" && choice % 2 == 0 {
                cursor = cursor.down("http://a", true);
            }
        }
        Ok(())
    }

    /// What a mask that was walked along takes from the heap, but for what an allocator adds.
    fn taken(mask: &Mask) -> usize {
        let names = |named: &Vec<(Box<str>, usize)>| {
            named.capacity() * size_of::<(Box<str>, usize)>()
                + named.iter().map(|(name, _)| name.len()).sum::<usize>()
        };
        let branch = |branch: &super::super::Branch| names(&branch.children) + names(&branch.urls);
        let row = |row: &Vec<(Structure, Box<[Place]>)>| {
            row.capacity() * size_of::<(Structure, Box<[Place]>)>()
                + row.iter().map(|(_, places)| size_of_val(&**places)).sum::<usize>()
        };
        let rows = Rows::compile(mask);
        mask.branches.capacity() * size_of::<super::super::Branch>()
            + mask.branches.iter().map(branch).sum::<usize>()
            + rows.by_branch.capacity() * size_of::<Vec<(Structure, Box<[Place]>)>>()
            + rows.by_branch.iter().map(row).sum::<usize>()
    }

    /// The bound of the decisions kept rests on the estimate.
    #[test]
    fn a_mask_is_taken_for_about_as_large_as_it_is() {
        for kind in KINDS {
            let kind = ResourceType::from_name(kind).unwrap();
            let all = paths(kind);
            for step in [1, 2, 7] {
                let paths = all.iter().step_by(step).filter_map(|path| ElementPath::parse(path).ok());
                let decided = paths.enumerate().map(|(number, path)| (path, number % 3 > 0));
                let mask = Mask::new(kind, decided);
                let (taken, guess) = (taken(&mask), mask.bytes());
                assert!(
                    (taken / 2..=taken * 4).contains(&guess),
                    "{} by {step}: {guess} for {taken}, {} branches",
                    kind.name(),
                    mask.branches.len()
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn rows_lead_where_names_lead(
            kind in proptest::sample::select(KINDS.as_slice()),
            decisions in proptest::collection::vec((any::<usize>(), any::<bool>()), 0..12),
            walks in proptest::collection::vec(proptest::collection::vec(any::<usize>(), 1..8), 12),
        ) {
            let kind = ResourceType::from_name(kind).unwrap();
            let paths = paths(kind);
            let decided = decisions.iter().filter_map(|(path, keep)| {
                Some((ElementPath::parse(&paths[path % paths.len()]).ok()?, *keep))
            });
            let mask = Mask::new(kind, decided);
            walks.iter().try_for_each(|walk| agree(&mask, walk))?;
        }
    }
}
