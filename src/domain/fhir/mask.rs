//! Element masks: which elements of one resource type may pass.
//!
//! Owns: how decisions on element paths inherit (nearest decided ancestor; nothing undecided passes at the
//! root; the record's own extensions need a decision of their own, design.md section 5).
//! Must never: decide; Cedar's answers arrive as pairs of path and truth.
//! Look next: `rows`, masks compiled; `access`, which builds them; `filter`, which walks a record along a cursor.

mod rows;

use std::sync::{Arc, OnceLock};

use super::r4::{self, Element, ElementPath, Kind, ResourceType, Structure};
pub use rows::Fan;
use rows::Rows;

/// What may pass of a record of one resource type.
#[derive(Clone, Debug)]
pub struct Mask {
    resource: ResourceType,
    /// Parents stand before their children; the first is the resource itself.
    branches: Vec<Branch>,
    /// See [`Mask::may_contain`].
    contains: bool,
    /// Compiled when the mask is first walked along.
    rows: OnceLock<Rows>,
    /// See [`Mask::kept_shared`].
    kept: OnceLock<Arc<Vec<String>>>,
    identity: Identity,
}

/// Which mask this is. Two are equal only if one mask is a clone of the other, so that both keep the same.
#[derive(Clone, Debug, Default)]
pub struct Identity(Arc<()>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        // Whoever holds one keeps its address from being given to another.
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

/// A path that was decided, or stands above one that was.
#[derive(Clone, Debug)]
struct Branch {
    parent: usize,
    decided: Option<bool>,
    kept: bool,
    whole: Option<bool>,
    children: Vec<(Box<str>, usize)>,
    /// Branches for single extension URLs; only below a branch named `extension`.
    urls: Vec<(Box<str>, usize)>,
}

const ROOT: usize = 0;
/// A branch with its name in its parent, the places of the elements of the structures that may stand there (some thirty), and
/// its share of the list of what is kept.
const BRANCH_BYTES: usize = 700;
const EXTENSION: &str = "extension";
const CONTAINED: &str = "contained";

impl Mask {
    /// Roughly the bytes it takes once records were walked along it, whether they were yet or not.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.branches.len() * BRANCH_BYTES
    }

    /// Builds the mask of `resource` from decided paths. Paths of other types are left out.
    /// Of two decisions on one path the stricter holds; without one on the root it is withheld.
    #[must_use]
    pub fn new(resource: ResourceType, decisions: impl IntoIterator<Item = (ElementPath, bool)>) -> Self {
        let mut mask = Self {
            resource,
            branches: vec![Branch::below(ROOT)],
            contains: false,
            rows: OnceLock::new(),
            kept: OnceLock::new(),
            identity: Identity::default(),
        };
        if r4::property(r4::root(resource), EXTENSION).is_some() {
            mask.branch(ROOT, EXTENSION, false);
        }
        for (path, keep) in decisions {
            if path.resource_type() == resource {
                mask.decide(path.as_str(), keep);
            }
        }
        mask.inherit();
        mask.sum_up();
        mask.contains = mask.cursor().child(CONTAINED).whole() != Some(false);
        mask
    }

    /// The mask of a client's wish: keeps these paths, each with all below it, and nothing else. They may be content
    /// references, which a policy's paths cannot.
    pub(super) fn of_kept<'p>(resource: ResourceType, paths: impl IntoIterator<Item = &'p String>) -> Self {
        let mut mask = Self::new(resource, []);
        paths.into_iter().for_each(|path| mask.decide(path, true));
        mask.inherit();
        mask.sum_up();
        mask.contains = true;
        mask
    }

    /// What both keep. A mask for another type keeps nothing in common.
    ///
    /// A path is covered by it exactly when both cover it.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let contains = self.contains && other.contains;
        let branches = vec![Branch::below(ROOT)];
        let mut both = Self {
            resource: self.resource,
            branches,
            contains,
            rows: OnceLock::new(),
            kept: OnceLock::new(),
            identity: Identity::default(),
        };
        if self.resource != other.resource {
            return Self::new(self.resource, []);
        }
        let mut waiting = vec![(ROOT, self.cursor(), other.cursor())];
        while let Some((at, one, two)) = waiting.pop() {
            if let Some(branch) = both.branches.get_mut(at) {
                branch.decided = Some(one.keeps() && two.keeps());
            }
            for (name, url) in one.branching().into_iter().chain(two.branching()) {
                let before = both.branches.len();
                let place = both.branch(at, name, url);
                // Named by both masks, but walked once.
                if place >= before {
                    waiting.push((place, one.down(name, url), two.down(name, url)));
                }
            }
        }
        both.inherit();
        both.sum_up();
        both
    }

    /// Which mask this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The type of the records this mask is for.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        self.resource
    }

    /// A cursor on the record itself.
    #[must_use]
    pub fn cursor(&self) -> MaskCursor<'_> {
        MaskCursor { mask: self, place: Place::At(ROOT) }
    }

    /// Every element passes, the record's own extensions and modifier extensions included.
    #[must_use]
    pub fn is_total(&self) -> bool {
        self.cursor().whole() == Some(true)
    }

    /// No element passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cursor().whole() == Some(false)
    }

    /// Policy lets contained records pass, be they asked for or not: a reference to one that was not asked for says
    /// nothing that is withheld.
    #[must_use]
    pub fn may_contain(&self) -> bool {
        self.contains
    }

    /// Whether no record is withheld for a modifier element that the mask leaves out (P7): each modifier of the record
    /// itself and of every parent that is kept in part is kept whole.
    #[must_use]
    pub fn keeps_modifiers(&self) -> bool {
        spares(r4::root(self.resource), self.cursor())
    }

    /// The path and everything below it passes.
    #[must_use]
    pub fn covers(&self, path: &ElementPath) -> bool {
        path.resource_type() == self.resource && self.at(path.as_str()).whole() == Some(true)
    }

    /// What passes, for people and for the audit trail: the largest wholly kept subtrees in R4's order
    /// (`Patient` if all). A parent that is kept in part is listed by its kept children. Extensions, and
    /// primitives, that are kept but for single extension URLs are listed without the exceptions.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let root = [r4::root(self.resource)];
        self.list(self.cursor(), self.resource.name(), &root, &mut paths);
        paths
    }

    /// The same, made once and shared: every record that is released under the mask tells it.
    #[must_use]
    pub fn kept_shared(&self) -> &Arc<Vec<String>> {
        self.kept.get_or_init(|| Arc::new(self.kept()))
    }

    fn list(&self, cursor: MaskCursor<'_>, path: &str, types: &[Structure], paths: &mut Vec<String>) {
        match cursor.whole() {
            Some(true) => paths.push(path.to_owned()),
            Some(false) => {}
            None => self.list_parts(cursor, path, types, paths),
        }
    }

    fn list_parts(&self, cursor: MaskCursor<'_>, path: &str, types: &[Structure], paths: &mut Vec<String>) {
        let undivided = |&structure: &Structure| {
            matches!(r4::kind(structure), Kind::Primitive(_)) || r4::type_name(structure) == "Extension"
        };
        if types.iter().all(undivided) {
            // Mixed only by single extension URLs, which an exception has no words for.
            if cursor.keeps() {
                paths.push(path.to_owned());
            }
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for element in types.iter().flat_map(|&structure| r4::elements(structure)) {
            if !seen.contains(&element.name) {
                seen.push(element.name);
                self.list_element(cursor, path, element, paths);
            }
        }
        if !cursor.child(EXTENSION).keeps() {
            self.list_urls(cursor.child(EXTENSION), path, paths);
        }
    }

    fn list_element(&self, cursor: MaskCursor<'_>, path: &str, element: &Element, paths: &mut Vec<String>) {
        let inner = cursor.child(element.name);
        // A continuation has no decisions of its own below it; naming it would repeat its target.
        if element.rewind.is_none() {
            self.list(inner, &format!("{path}.{}", element.name), element.types, paths);
        }
    }

    /// Single extension URLs that pass although not all of the extensions do.
    fn list_urls(&self, extensions: MaskCursor<'_>, path: &str, paths: &mut Vec<String>) {
        let Place::At(index) = extensions.place else { return };
        if extensions.whole().is_some() {
            return;
        }
        let urls = self.branches.get(index).map(|branch| branch.urls.as_slice()).unwrap_or_default();
        for (url, place) in urls {
            if self.branches.get(*place).is_some_and(|branch| branch.kept) {
                paths.push(format!("{path}.extension('{url}')"));
            }
        }
    }

    fn decide(&mut self, path: &str, keep: bool) {
        // Few paths name a URL, and looking for one character is cheap.
        let named = if path.contains('(') { path.split_once(".extension('") } else { None };
        let (elements, url) = match named {
            Some((elements, rest)) => (elements, rest.strip_suffix("')")),
            None => (path, None),
        };
        let mut place = ROOT;
        for name in elements.split('.').skip(1) {
            place = self.branch(place, name, false);
        }
        if let Some(url) = url {
            place = self.branch(place, EXTENSION, false);
            place = self.branch(place, url, true);
        }
        if let Some(branch) = self.branches.get_mut(place) {
            branch.decided = Some(keep && branch.decided.unwrap_or(true));
        }
    }

    /// The branch called `name` below `parent`, made if it is missing.
    fn branch(&mut self, parent: usize, name: &str, url: bool) -> usize {
        let next = self.branches.len();
        let Some(branch) = self.branches.get_mut(parent) else { return ROOT };
        let siblings = if url { &mut branch.urls } else { &mut branch.children };
        match siblings.binary_search_by(|(known, _)| known.as_ref().cmp(name)) {
            Ok(found) => siblings.get(found).map_or(ROOT, |&(_, place)| place),
            Err(gap) => {
                siblings.insert(gap, (name.into(), next));
                self.branches.push(Branch::below(parent));
                next
            }
        }
    }

    fn inherit(&mut self) {
        let own_extension = self.find(ROOT, EXTENSION, false);
        for place in ROOT..self.branches.len() {
            let from_parent = self.branches.get(place).and_then(|branch| self.branches.get(branch.parent));
            let inherited = place != ROOT
                && Some(place) != own_extension
                && from_parent.is_some_and(|parent| parent.kept);
            if let Some(branch) = self.branches.get_mut(place) {
                branch.kept = branch.decided.unwrap_or(inherited);
                branch.whole = Some(branch.kept);
            }
        }
    }

    /// Children stand behind their parents, so one pass from the end reaches the root.
    fn sum_up(&mut self) {
        for place in (ROOT + 1..self.branches.len()).rev() {
            let Some((parent, whole)) = self.branches.get(place).map(|branch| (branch.parent, branch.whole))
            else {
                continue;
            };
            if let Some(parent) = self.branches.get_mut(parent).filter(|parent| parent.whole != whole) {
                parent.whole = None;
            }
        }
    }

    fn find(&self, place: usize, name: &str, url: bool) -> Option<usize> {
        let branch = self.branches.get(place)?;
        let siblings = if url { &branch.urls } else { &branch.children };
        siblings.iter().find(|(known, _)| known.as_ref() == name).map(|&(_, place)| place)
    }

    fn at(&self, path: &str) -> MaskCursor<'_> {
        // Few paths name a URL, and looking for one character is cheap.
        let named = if path.contains('(') { path.split_once(".extension('") } else { None };
        let (elements, url) = match named {
            Some((elements, rest)) => (elements, rest.strip_suffix("')")),
            None => (path, None),
        };
        let cursor = elements.split('.').skip(1).fold(self.cursor(), |cursor, name| cursor.child(name));
        url.map_or(cursor, |url| cursor.extension(url))
    }
}

impl Branch {
    fn below(parent: usize) -> Self {
        Self { parent, decided: None, kept: false, whole: None, children: Vec::new(), urls: Vec::new() }
    }
}

/// Masks end, so this does, however deep structures nest.
fn spares(structure: r4::Structure, cursor: MaskCursor<'_>) -> bool {
    r4::elements(structure).iter().all(|element| {
        let below = cursor.child(element.name);
        match below.whole() {
            Some(true) => true,
            Some(false) => !element.modifier,
            None => !element.modifier && element.types.iter().all(|kind| spares(*kind, below)),
        }
    })
}

/// A place in a mask, moved along with the element it stands for.
#[derive(Clone, Copy, Debug)]
pub struct MaskCursor<'m> {
    mask: &'m Mask,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    At(usize),
    /// Below the last decision, which holds for everything here.
    Below(bool),
}

impl<'m> MaskCursor<'m> {
    /// Names and URLs (`true`) of the branches right below.
    fn branching(self) -> Vec<(&'m str, bool)> {
        let Place::At(index) = self.place else { return Vec::new() };
        let Some(branch) = self.mask.branches.get(index) else { return Vec::new() };
        let children = branch.children.iter().map(|(name, _)| (&**name, false));
        children.chain(branch.urls.iter().map(|(url, _)| (&**url, true))).collect()
    }

    /// The cursor on the child element `name` (a choice without `[x]`).
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        self.down(name, false)
    }

    /// The cursor on this element's extension with that URL.
    #[must_use]
    pub fn extension(self, url: &str) -> Self {
        self.child(EXTENSION).down(url, true)
    }

    /// The cursor on a canonical path from the record, where a content reference continues.
    #[must_use]
    pub fn rewind(self, path: &str) -> Self {
        Self { place: self.mask.at(path).place, ..self }
    }

    /// This element passes (its children may be decided otherwise).
    #[must_use]
    pub fn keeps(self) -> bool {
        match self.place {
            Place::At(index) => self.mask.branches.get(index).is_some_and(|branch| branch.kept),
            Place::Below(kept) => kept,
        }
    }

    /// `Some(true)`: this and everything below passes; `Some(false)`: nothing here or below; `None`: mixed.
    /// Elements below that continue elsewhere (a content reference) are decided there.
    #[must_use]
    pub fn whole(self) -> Option<bool> {
        match self.place {
            Place::At(index) => self.mask.branches.get(index).map_or(Some(false), |branch| branch.whole),
            Place::Below(kept) => Some(kept),
        }
    }

    fn down(self, name: &str, url: bool) -> Self {
        let Place::At(index) = self.place else { return self };
        let place = self.mask.find(index, name, url).map_or_else(|| Place::Below(self.keeps()), Place::At);
        Self { place, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::Strategy as _;

    fn mask(kind: &str, decisions: &[(&str, bool)]) -> Mask {
        let decided = decisions.iter().map(|&(path, keep)| (ElementPath::parse(path).unwrap(), keep));
        Mask::new(ResourceType::from_name(kind).unwrap(), decided)
    }

    /// Decisions (`-` before a path withholds it), then what is kept of them.
    const CASES: [(&str, &[&str], &[&str]); 12] = [
        ("Patient", &[], &[]),
        ("Patient", &["Patient.name.family", "Patient.gender"], &["Patient.name.family", "Patient.gender"]),
        ("Patient", &["Patient", "Patient.extension"], &["Patient"]),
        (
            "Patient",
            &["Patient.name", "-Patient.name.given"],
            &[
                "Patient.name.id",
                "Patient.name.extension",
                "Patient.name.use",
                "Patient.name.text",
                "Patient.name.family",
                "Patient.name.prefix",
                "Patient.name.suffix",
                "Patient.name.period",
            ],
        ),
        ("Patient", &["-Patient.name", "Patient.name.given"], &["Patient.name.given"]),
        ("Patient", &["Patient.gender", "-Patient.gender"], &[]),
        ("Patient", &["Patient.extension('http://a.b/c')"], &["Patient.extension('http://a.b/c')"]),
        ("Patient", &["Patient.extension", "-Patient.extension('http://a')"], &["Patient.extension"]),
        (
            "Patient",
            &["Patient.birthDate", "-Patient.birthDate.extension('http://a')"],
            &["Patient.birthDate"],
        ),
        ("Binary", &["Binary"], &["Binary"]),
        ("Observation", &["Observation.value.unit"], &["Observation.value.unit"]),
        ("Questionnaire", &["Questionnaire.item.linkId"], &["Questionnaire.item.linkId"]),
    ];

    #[test]
    fn kept_names_the_largest_whole_subtrees() {
        for (kind, decisions, kept) in CASES {
            let decided: Vec<_> = decisions
                .iter()
                .map(|path| path.strip_prefix('-').map_or((*path, true), |path| (path, false)))
                .collect();
            let mask = mask(kind, &decided);
            assert_eq!(mask.kept(), kept, "{decisions:?}");
            assert_eq!(mask.is_total(), kept == [kind], "{decisions:?}");
        }
    }

    #[test]
    fn the_records_own_extensions_need_their_own_decision() {
        let patient = mask("Patient", &[("Patient", true)]);
        assert!(!patient.is_total() && !patient.is_empty());
        assert!(!patient.cursor().extension("http://a").keeps());
        assert!(patient.cursor().child("name").extension("http://a").keeps());
        assert!(patient.cursor().child("modifierExtension").keeps());
        let by_url = mask("Patient", &[("Patient", true), ("Patient.extension('http://a')", true)]);
        assert!(by_url.cursor().extension("http://a").keeps());
        assert!(!by_url.cursor().extension("http://ab").keeps());
    }

    #[test]
    fn covers_means_the_path_and_all_below() {
        let patient = mask("Patient", &[("Patient.name", true), ("Patient.name.given", false)]);
        let covers = |path: &str| patient.covers(&ElementPath::parse(path).unwrap());
        assert!(covers("Patient.name.family") && covers("Patient.name.period.start"));
        assert!(!covers("Patient.name") && !covers("Patient.name.given") && !covers("Patient"));
        assert!(!covers("Practitioner.name.family"));
    }

    #[test]
    fn empty_and_total_are_about_everything() {
        assert!(mask("Patient", &[]).is_empty());
        assert!(!mask("Patient", &[("Patient.id", true)]).is_empty());
        assert!(mask("Patient", &[("Patient", true), ("Patient.extension", true)]).is_total());
        assert!(
            !mask("Patient", &[("Patient", true), ("Patient.extension", true), ("Patient.id", false)])
                .is_total()
        );
        assert!(mask("Practitioner", &[("Patient", true)]).is_empty());
    }

    #[test]
    fn a_continuation_goes_back_to_its_path() {
        let mask = mask("Questionnaire", &[("Questionnaire.item.linkId", true)]);
        let item = mask.cursor().child("item");
        assert!(item.rewind("Questionnaire.item").child("linkId").keeps());
        assert!(!item.child("item").child("linkId").keeps());
    }

    #[test]
    fn and_keeps_what_both_keep() {
        let one = mask(
            "Patient",
            &[("Patient.name", true), ("Patient.name.given", false), ("Patient.gender", true)],
        );
        let two = mask(
            "Patient",
            &[("Patient.name", true), ("Patient.name.family", false), ("Patient.link", true)],
        );
        assert_eq!(
            one.and(&two).kept(),
            ["id", "extension", "use", "text", "prefix", "suffix", "period"]
                .map(|part| format!("Patient.name.{part}"))
        );
        let all = mask("Patient", &[("Patient", true), ("Patient.extension", true)]);
        assert_eq!(one.and(&all).kept(), one.kept());
        assert!(all.and(&all).is_total() && one.and(&mask("Person", &[("Person", true)])).is_empty());
        let by_url = mask("Patient", &[("Patient.extension('http://a')", true)]);
        assert_eq!(all.and(&by_url).kept(), ["Patient.extension('http://a')"]);
        assert!(by_url.and(&mask("Patient", &[("Patient.extension('http://b')", true)])).is_empty());
    }

    fn decisions() -> impl proptest::strategy::Strategy<Value = Vec<(ElementPath, bool)>> {
        let path = proptest::sample::select(PATHS.as_slice());
        let decided = |(path, keep): (&str, bool)| (ElementPath::parse(path).unwrap(), keep);
        proptest::collection::vec((path, proptest::bool::ANY).prop_map(decided), 0..8)
    }

    const PATHS: [&str; 14] = [
        "Patient",
        "Patient.id",
        "Patient.extension",
        "Patient.extension('http://a')",
        "Patient.name",
        "Patient.name.given",
        "Patient.name.given.extension('http://a')",
        "Patient.name.period",
        "Patient.name.period.start",
        "Patient.contact",
        "Patient.contact.name",
        "Patient.contact.name.given",
        "Patient.birthDate",
        "Patient.birthDate.extension('http://b')",
    ];

    proptest::proptest! {
        #[test]
        fn and_covers_what_both_cover(one in decisions(), two in decisions()) {
            let kind = ResourceType::from_name("Patient").unwrap();
            let (one, two) = (Mask::new(kind, one), Mask::new(kind, two));
            let (both, turned) = (one.and(&two), two.and(&one));
            for path in PATHS {
                let keeps = |mask: &Mask| mask.at(path).keeps();
                let path = ElementPath::parse(path).unwrap();
                proptest::prop_assert_eq!(both.covers(&path), one.covers(&path) && two.covers(&path), "{}", path);
                proptest::prop_assert_eq!(both.covers(&path), turned.covers(&path), "{}", path);
                proptest::prop_assert_eq!(keeps(&both), keeps(&one) && keeps(&two), "{}", path);
            }
            proptest::prop_assert_eq!(both.is_empty(), PATHS.iter().all(|path| !both.at(path).keeps()));
        }
    }
}
