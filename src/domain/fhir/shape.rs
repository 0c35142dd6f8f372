//! How much of a record the client asks to see: `_elements` and `_summary`.
//!
//! Owns: the reading of both parameters and the mask each means for a resource type (R4 search.html, sections 3.1.1.5.8
//! and 3.1.1.5.9). Must never: widen anything; a shape's mask only leaves out what policy let pass, by [`Mask::and`].
//! Look next: `mask`; `filter`, which writes records under both.
//!
//! What always joins is what the rest could not be read without: `id`, `meta`, `implicitRules`, mandatory elements and
//! modifier elements; inside a parent asked for in part, its own mandatory and modifier elements. So leaving out by
//! shape never needs a mark of absence. An element defined elsewhere (a content reference) brings the place of its
//! definition along, because masks decide it there.

use std::collections::BTreeSet;

use super::mask::Mask;
use super::r4::{self, Element, ElementPath, Kind, ResourceType, Structure};
use crate::limits::SHAPE_ELEMENTS_MAX;

/// What of a record the client wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it.
    Whole,
    /// These elements, each named from the record on (`identifier`, `name.family`) or with its type
    /// (`Patient.identifier`); sorted, none twice.
    Elements(Vec<String>),
    /// `_summary=true`: what R4 flags as summary.
    Summary,
    /// `_summary=text`: the narrative.
    Text,
    /// `_summary=data`: everything but the narrative.
    Data,
    /// `_summary=count`: how many, no record.
    Count,
}

impl Shape {
    /// Reads the values of `_elements` and `_summary`; absent parameters are `None`. Each element must exist in one
    /// of `types`, or in any type when there are none.
    ///
    /// `None`: malformed, an unknown element, more of them than `limits` allows, or both parameters that contradict.
    #[must_use]
    pub fn read(elements: Option<&str>, summary: Option<&str>, types: &[ResourceType]) -> Option<Self> {
        let summary = match summary {
            None | Some("false") => Self::Whole,
            Some("true") => Self::Summary,
            Some("text") => Self::Text,
            Some("data") => Self::Data,
            Some("count") => Self::Count,
            Some(_) => return None,
        };
        match elements {
            None => Some(summary),
            Some(list) if summary == Self::Whole => read_elements(list, types).map(Self::Elements),
            Some(_) => None,
        }
    }

    /// What of a record of this type stays; `None` when all of it does. The same on every call, so that it may be
    /// kept by type.
    #[must_use]
    pub fn mask(&self, resource: ResourceType) -> Option<Mask> {
        let mut kept = Kept { resource, paths: BTreeSet::new() };
        match self {
            Self::Whole => return None,
            Self::Data => return Some(without_narrative(resource)),
            Self::Count => {}
            Self::Elements(names) => {
                kept.always();
                names.iter().for_each(|name| kept.request(name));
            }
            Self::Text => {
                kept.always();
                kept.request("text");
            }
            Self::Summary => {
                kept.always();
                kept.summarise(r4::root(resource), resource.name());
            }
        }
        kept.follow();
        Some(Mask::of_kept(resource, &kept.paths))
    }

    /// The elements of this type that `_elements` names; none for other shapes.
    #[must_use]
    pub fn named(&self, resource: ResourceType) -> Vec<ElementPath> {
        let Self::Elements(names) = self else { return Vec::new() };
        let paths = names.iter().filter_map(|name| path_in(name, resource));
        paths.filter_map(|path| ElementPath::parse(&path).ok()).collect()
    }

    /// The parameter and value that mean this shape; `None` when all of a record is asked for.
    #[must_use]
    pub fn canonical(&self) -> Option<(&'static str, String)> {
        let summary = match self {
            Self::Whole => return None,
            Self::Elements(names) => return Some(("_elements", names.join(","))),
            Self::Summary => "true",
            Self::Text => "text",
            Self::Data => "data",
            Self::Count => "count",
        };
        Some(("_summary", summary.to_owned()))
    }
}

fn read_elements(list: &str, types: &[ResourceType]) -> Option<Vec<String>> {
    let mut names = BTreeSet::new();
    for name in list.split(',').take(SHAPE_ELEMENTS_MAX + 1) {
        let name: Vec<&str> =
            name.split('.').map(|segment| segment.strip_suffix("[x]").unwrap_or(segment)).collect();
        let name = name.join(".");
        let known = |kind: ResourceType| path_in(&name, kind).is_some();
        let exists =
            if types.is_empty() { ResourceType::all().any(known) } else { types.iter().copied().any(known) };
        if !exists {
            return None;
        }
        names.insert(name);
    }
    (list.split(',').count() <= SHAPE_ELEMENTS_MAX).then(|| names.into_iter().collect())
}

/// The path that a name means in a type, if it means one there. Unlike a policy's, it may end with a content
/// reference (`ClaimResponse.adjudication`): clients know those as elements like others.
fn path_in(name: &str, resource: ResourceType) -> Option<String> {
    let inner = match name.split_once('.') {
        Some((first, inner)) if ResourceType::from_name(first) == Some(resource) => inner,
        _ => name,
    };
    let mut types = vec![r4::root(resource)];
    let mut continued = false;
    for segment in inner.split('.') {
        let decided_as_one = |&structure: &Structure| r4::type_name(structure) == "Extension";
        let found = find(&types, segment).filter(|_| !continued && !types.iter().any(decided_as_one))?;
        continued = found.rewind.is_some();
        types = children(&types, segment);
    }
    Some(format!("{}.{inner}", resource.name()))
}

fn find(types: &[Structure], name: &str) -> Option<&'static Element> {
    types.iter().flat_map(|&structure| r4::elements(structure)).find(|element| element.name == name)
}

fn without_narrative(resource: ResourceType) -> Mask {
    let own =
        |name: &str, keep| ElementPath::parse(&format!("{}.{name}", resource.name())).ok().zip(Some(keep));
    let root = Some((ElementPath::root(resource), true));
    Mask::new(resource, [root, own("extension", true), own("text", false)].into_iter().flatten())
}

/// Without it the rest would be misread, or not be R4.
fn always_joins(element: &Element) -> bool {
    element.min > 0 || element.modifier
}

/// A part of a resource with a definition of its own in it (`Patient.contact`).
fn is_backbone(structure: Structure) -> bool {
    r4::kind(structure) == Kind::Complex && r4::type_name(structure).contains('.')
}

/// Paths that stay, each with everything below it.
struct Kept {
    resource: ResourceType,
    paths: BTreeSet<String>,
}

impl Kept {
    fn always(&mut self) {
        let (name, root) = (self.resource.name(), r4::root(self.resource));
        for always in ["id", "meta"].into_iter().filter(|one| r4::property(root, one).is_some()) {
            self.paths.insert(format!("{name}.{always}"));
        }
        self.companions(root, name);
    }

    fn companions(&mut self, structure: Structure, path: &str) {
        let joining = r4::elements(structure).iter().filter(|element| always_joins(element));
        self.paths.extend(joining.map(|element| format!("{path}.{}", element.name)));
    }

    /// A name from `_elements`; nothing where this type does not have it.
    fn request(&mut self, name: &str) {
        if let Some(path) = path_in(name, self.resource) {
            self.keep(&path);
        }
    }

    /// A path, and what must stand beside each of its segments below the record.
    fn keep(&mut self, wanted: &str) {
        let mut path = self.resource.name().to_owned();
        let mut types = vec![r4::root(self.resource)];
        for (depth, name) in wanted.split('.').skip(1).enumerate() {
            if depth > 0 {
                types.iter().for_each(|&structure| self.companions(structure, &path));
            }
            path = format!("{path}.{name}");
            types = children(&types, name);
        }
        self.paths.insert(path);
    }

    fn summarise(&mut self, structure: Structure, path: &str) {
        for element in r4::elements(structure).iter().filter(|element| element.summary) {
            let inner = format!("{path}.{}", element.name);
            let part = element.types.first().copied().filter(|&one| is_backbone(one));
            match part {
                // A mandatory part stays whole: cut down to nothing it would need a mark.
                Some(part) if !always_joins(element) && element.rewind.is_none() && has_summary(part) => {
                    self.companions(part, &inner);
                    self.summarise(part, &inner);
                }
                _ => {
                    self.paths.insert(inner);
                }
            }
        }
    }

    /// Adds where the contents of what stays are defined, until nothing is added.
    fn follow(&mut self) {
        let mut waiting: Vec<String> = self.paths.iter().cloned().collect();
        while let Some(path) = waiting.pop() {
            for target in self.continuations(&path) {
                if !self.paths.iter().any(|kept| is_at_or_below(target, kept)) {
                    let before = self.paths.clone();
                    self.keep(target);
                    waiting.extend(self.paths.difference(&before).cloned());
                }
            }
        }
    }

    /// Where elements at or below a path continue, unless around themselves.
    fn continuations(&self, path: &str) -> BTreeSet<&'static str> {
        let mut types = vec![r4::root(self.resource)];
        let mut targets = BTreeSet::new();
        let mut names = path.split('.').skip(1).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                let owners = types.iter().flat_map(|&owner| r4::elements(owner));
                targets.extend(owners.filter(|element| element.name == name).filter_map(|one| one.rewind));
            }
            types = children(&types, name);
        }
        let mut seen = BTreeSet::new();
        while let Some(structure) = types.pop() {
            if !is_backbone(structure) || !seen.insert(structure) {
                continue;
            }
            for element in r4::elements(structure) {
                targets.extend(element.rewind);
                types.extend(element.types);
            }
        }
        targets.retain(|target| !is_at_or_below(path, target));
        targets
    }
}

fn children(types: &[Structure], name: &str) -> Vec<Structure> {
    let elements = types.iter().flat_map(|&structure| r4::elements(structure));
    elements
        .filter(|element| element.name == name)
        .flat_map(|element| element.types.iter().copied())
        .collect()
}

fn has_summary(structure: Structure) -> bool {
    r4::elements(structure).iter().any(|element| element.summary && element.name != "modifierExtension")
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::mask::MaskCursor;

    fn kind(name: &str) -> ResourceType {
        ResourceType::from_name(name).unwrap()
    }

    fn read(elements: &str, summary: &str, types: &[&str]) -> Option<Shape> {
        let given = |text| Some(text).filter(|&text| text != "-");
        let types: Vec<ResourceType> = types.iter().map(|name| kind(name)).collect();
        Shape::read(given(elements), given(summary), &types)
    }

    /// `_elements`, `_summary` (`-` for none), types; what it means as a parameter, `whole`, or `refused`.
    const READ: [(&str, &str, &[&str], &str); 29] = [
        ("-", "-", &["Patient"], "whole"),
        ("-", "false", &["Patient"], "whole"),
        ("-", "true", &["Patient"], "_summary=true"),
        ("-", "text", &["Patient"], "_summary=text"),
        ("-", "data", &[], "_summary=data"),
        ("-", "count", &[], "_summary=count"),
        ("-", "True", &["Patient"], "refused"),
        ("-", "", &["Patient"], "refused"),
        ("name,identifier,name", "-", &["Patient"], "_elements=identifier,name"),
        ("name", "false", &["Patient"], "_elements=name"),
        ("name", "true", &["Patient"], "refused"),
        ("name", "count", &["Patient"], "refused"),
        ("Patient.name", "-", &["Patient"], "_elements=Patient.name"),
        ("Patient.name", "-", &["Observation"], "refused"),
        ("Patient.name", "-", &["Observation", "Patient"], "_elements=Patient.name"),
        ("Patient.name", "-", &[], "_elements=Patient.name"),
        ("Patient", "-", &["Patient"], "refused"),
        ("value[x],component.value[x]", "-", &["Observation"], "_elements=component.value,value"),
        ("valueQuantity", "-", &["Observation"], "refused"),
        ("adjudication", "-", &["ClaimResponse"], "_elements=adjudication"),
        ("adjudication.amount", "-", &["ClaimResponse"], "refused"),
        ("contained.name", "-", &["Patient"], "refused"),
        ("extension.url", "-", &["Patient"], "refused"),
        ("name.family,contact.name", "-", &["Patient"], "_elements=contact.name,name.family"),
        ("nonsense", "-", &["Patient"], "refused"),
        ("", "-", &["Patient"], "refused"),
        ("name,", "-", &["Patient"], "refused"),
        (" name", "-", &["Patient"], "refused"),
        ("extension('http://a')", "-", &["Patient"], "refused"),
    ];

    #[test]
    fn t_034_both_parameters_have_one_meaning_or_none() {
        for (elements, summary, types, expected) in READ {
            let shape = read(elements, summary, types);
            let found = match &shape {
                None => "refused".to_owned(),
                Some(shape) => {
                    shape.canonical().map_or("whole".to_owned(), |(name, value)| format!("{name}={value}"))
                }
            };
            assert_eq!(found, expected, "{elements} {summary} {types:?}");
            let Some((name, value)) = shape.as_ref().and_then(Shape::canonical) else { continue };
            let again = if name == "_elements" { read(&value, "-", types) } else { read("-", &value, types) };
            assert_eq!(again, shape, "what is canonical means the same");
        }
    }

    #[test]
    fn t_034_too_many_elements_are_refused() {
        let many = vec!["name"; SHAPE_ELEMENTS_MAX + 1].join(",");
        assert_eq!(read(&many, "-", &["Patient"]), None);
        assert!(read(&vec!["name"; SHAPE_ELEMENTS_MAX].join(","), "-", &["Patient"]).is_some());
    }

    /// A shape of a type, and what it keeps beside `id`, `meta` and `implicitRules`.
    const MASKS: [(&str, &str, &str, &str); 9] = [
        ("name", "-", "Patient", "modifierExtension active name deceased link"),
        ("name.family", "-", "Patient", "modifierExtension active name.use name.family deceased link"),
        (
            "contact.name",
            "-",
            "Patient",
            "modifierExtension active deceased contact.modifierExtension contact.name link",
        ),
        ("Patient.name", "-", "Basic", "modifierExtension code"),
        (
            "totalPriceComponent",
            "-",
            "Invoice",
            "modifierExtension status lineItem.modifierExtension lineItem.chargeItem lineItem.priceComponent",
        ),
        ("code", "-", "Observation", "modifierExtension status code"),
        ("-", "text", "Observation", "text modifierExtension status code"),
        ("-", "true", "Binary", "contentType securityContext"),
        (
            "-",
            "true",
            "Account",
            "modifierExtension identifier status type name subject servicePeriod coverage.modifierExtension \
             coverage.coverage coverage.priority owner description",
        ),
    ];

    #[test]
    fn t_034_what_was_asked_for_and_what_always_joins() {
        for (elements, summary, name, expected) in MASKS {
            let mask = read(elements, summary, &[]).and_then(|shape| shape.mask(kind(name))).unwrap();
            let prefix = format!("{name}.");
            let kept: Vec<String> =
                mask.kept().iter().map(|path| path.strip_prefix(&prefix).unwrap().to_owned()).collect();
            let always = ["id", "meta", "implicitRules"];
            assert_eq!(kept.get(..3).unwrap(), always, "{name}");
            assert_eq!(kept.get(3..).unwrap().join(" "), expected, "{elements} {summary} {name}");
        }
    }

    #[test]
    fn whole_data_and_count() {
        let patient = kind("Patient");
        assert!(Shape::Whole.mask(patient).is_none());
        assert!(Shape::Count.mask(patient).unwrap().is_empty());
        let data = Shape::Data.mask(patient).unwrap();
        assert!(!data.is_total() && data.cursor().extension("http://a").keeps());
        assert!(data.and(&Shape::Text.mask(patient).unwrap()).cursor().child("text").whole() == Some(false));
        assert!(Shape::Data.mask(kind("Binary")).unwrap().is_total());
    }

    /// As the filter steps: a continuation is decided where it is defined.
    fn step<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
        let here = cursor.child(element.name);
        let Some(path) = element.rewind else { return here };
        if is_at_or_below(r4::type_name(owner), path) || here.keeps() { cursor.rewind(path) } else { here }
    }

    /// In what is kept, wholly or in part, nothing that always joins is missing.
    fn joins(cursor: MaskCursor<'_>, structure: Structure, seen: &mut BTreeSet<Structure>, name: &str) {
        if r4::kind(structure) != Kind::Complex && !name.ends_with(':') || !seen.insert(structure) {
            return;
        }
        for element in r4::elements(structure) {
            let inner = step(cursor, structure, element);
            let joined = inner.whole() == Some(true) || !always_joins(element);
            assert!(joined, "{name} {} {}", r4::type_name(structure), element.name);
            let continued =
                element.rewind.is_none() || cursor.whole() != Some(true) || inner.whole() != Some(false);
            assert!(continued, "{name} {} {} goes on", r4::type_name(structure), element.name);
            if inner.whole() != Some(false) {
                element.types.iter().for_each(|&part| joins(inner, part, seen, name.trim_end_matches(':')));
            }
        }
    }

    #[test]
    fn no_shape_needs_a_mark_of_absence() {
        for resource in ResourceType::all() {
            let root = r4::root(resource);
            let names = r4::elements(root).iter().map(|element| element.name.to_owned());
            let deeper = r4::elements(root).iter().flat_map(|element| {
                let inner = element.types.iter().flat_map(|&part| r4::elements(part));
                inner.map(|inner| format!("{}.{}", element.name, inner.name))
            });
            let asked = names.chain(deeper).map(|name| Shape::Elements(vec![name]));
            for shape in asked.chain([Shape::Summary, Shape::Text, Shape::Data]) {
                let mask = shape.mask(resource).unwrap();
                let name = format!("{} {shape:?}:", resource.name());
                joins(mask.cursor(), root, &mut BTreeSet::new(), &name);
            }
        }
    }
}
