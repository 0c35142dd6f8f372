//! One element of what was sent, of what was seen, and of what there is.
//!
//! Owns: the walk over the three records by the R4 tables, and what each mixture of masks means for a
//! single value.
//! Must never: let a refusal depend on content the caller could not see; lose it either.
//! Recursion is bounded by the trees' depth. Look next: `list`, for what repeats; the room's header.

use super::accept::{Group, Marks, Writing, groups, says_subsetted, without_server_content};
use super::extent::{Extent, Place, extent, holds_conditional};
use super::tree::{EMPTY, Member, Node};
use super::{ChangeRefusal, Sight, Tree};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{self, Element, ElementPath, Kind, ResourceType, Structure};
use crate::domain::filter::{self, Bases, References, Verdict};

pub(super) fn merge(
    resource: ResourceType,
    current: &Tree,
    sent: &Tree,
    sight: &Sight<'_>,
    modify: &Mask,
) -> Result<Tree, ChangeRefusal> {
    let typed = [current, sent, sight.view].iter().all(|tree| tree.resource_type() == Some(resource));
    if !typed || [sight.mask, modify].iter().any(|mask| mask.resource_type() != resource) {
        return Err(ChangeRefusal::Malformed);
    }
    let (view, sent) = (without_server_content(&sight.view.root), without_server_content(&sent.root));
    let merger = Merger { references: sight.references, complete: !says_subsetted(&sight.view.root) };
    let place =
        Place { seen: sight.mask.cursor(), modify: modify.cursor(), path: resource.name().to_owned() };
    let own = |member: &&Member| !["resourceType", "id"].contains(&member.name());
    let before: Vec<Member> = current.root.members().iter().filter(own).cloned().collect();
    let three = Three { current: &before, view: &view, sent: &sent };
    let mut after = merger.object(three, r4::root(resource), &place)?;
    if Node::Object(after.clone()) == Node::Object(before) {
        return Ok(current.clone());
    }
    if !merger.complete && !names(&view, "text") && !names(&sent, "text") {
        after.retain(|member| !narrates(resource, member));
    }
    let id = current.root.members().iter().find(|member| member.name() == "id");
    let mut all = vec![Member::new("resourceType", Node::text(resource.name()))];
    all.extend(id.cloned());
    // The EMR writes version and time into `meta`: where it stands must not tell whether something withheld is in it.
    let (meta, rest): (Vec<Member>, Vec<Member>) =
        after.into_iter().partition(|member| member.name() == "meta");
    all.extend(meta);
    all.extend(rest);
    Ok(Tree { root: Node::Object(all) })
}

fn names(members: &[Member], name: &str) -> bool {
    members.iter().any(|member| member.name() == name)
}

fn narrates(resource: ResourceType, member: &Member) -> bool {
    r4::property(r4::root(resource), member.name())
        .is_some_and(|property| r4::type_name(property.structure) == "Narrative")
}

/// What a caller with this mask, and total masks for what is contained, sees of a record.
pub(super) fn view(resource: ResourceType, current: &Tree, seen: &Mask) -> Result<Tree, ChangeRefusal> {
    // No URL lies under it: references stay as they are.
    let bases = Bases { upstream: &[], public: "urn:none" };
    let body = current.print();
    let document = filter::parse(&body, &bases).map_err(|_| ChangeRefusal::Malformed)?;
    let contained = seen.cursor().child("contained").whole() == Some(true);
    let masks: Vec<Mask> =
        document.records().iter().map(|record| total(record.facts.resource_type)).collect();
    let verdict = |(at, mask)| match at {
        0 => Verdict::whole(seen),
        _ if contained => Verdict::whole(mask),
        _ => Verdict::Withhold,
    };
    let verdicts: Vec<Verdict<'_>> = masks.iter().enumerate().map(verdict).collect();
    let mut out = Vec::new();
    document
        .emit(0, &verdicts, &References::default(), &bases, &mut out)
        .map_err(|_| ChangeRefusal::Withheld(resource.name().to_owned()))?;
    Tree::parse(&out)
}

fn total(resource: ResourceType) -> Mask {
    let own = format!("{}.extension", resource.name());
    let own = ElementPath::parse(&own).ok().map(|path| (path, true));
    Mask::new(resource, [(ElementPath::root(resource), true)].into_iter().chain(own))
}

/// The members of one object in the three records.
#[derive(Clone, Copy)]
pub(super) struct Three<'t> {
    pub current: &'t [Member],
    pub view: &'t [Member],
    pub sent: &'t [Member],
}

/// One element in the three records. None: it is not there, or withheld.
#[derive(Clone, Copy)]
pub(super) struct Element3<'t> {
    pub current: Option<&'t Group<'t>>,
    pub view: Option<&'t Group<'t>>,
    pub sent: Option<&'t Group<'t>>,
}

impl<'t> Element3<'t> {
    /// What the element is, by the record that has it.
    fn any(&self) -> Option<&'t Group<'t>> {
        self.sent.or(self.view).or(self.current)
    }

    pub(super) fn keep(&self) -> Vec<Member> {
        self.current.map(Group::members).unwrap_or_default()
    }

    pub(super) fn take(&self) -> Vec<Member> {
        self.sent.map(Group::members).unwrap_or_default()
    }

    /// Nothing of the current value is missing in the view.
    pub(super) fn shown(&self) -> bool {
        same(self.current, self.view)
    }
}

fn same(one: Option<&Group<'_>>, other: Option<&Group<'_>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.same(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Types whose parts say one thing together: a seen code beside an unseen text, or a new target beside an
/// old name, could be wrong although each of them was right.
const STATEMENTS: [&str; 16] = [
    "Age",
    "Attachment",
    "CodeableConcept",
    "Coding",
    "Count",
    "Distance",
    "Duration",
    "Identifier",
    "Money",
    "Narrative",
    "Quantity",
    "Range",
    "Ratio",
    "Reference",
    "SampledData",
    "Signature",
];

pub(super) fn is_statement(structure: Structure) -> bool {
    STATEMENTS.contains(&r4::type_name(structure))
}

/// What is the same for the whole record.
#[derive(Clone, Copy)]
pub(super) struct Merger<'s> {
    pub references: &'s References,
    /// The record was shown whole: with narrative, signatures and what it contains.
    pub complete: bool,
}

impl Merger<'_> {
    /// The members of an object that comes out of the three.
    pub(super) fn object(
        self,
        three: Three<'_>,
        structure: Structure,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        let (current, beyond) = groups(three.current, structure);
        let (view, _) = groups(three.view, structure);
        let (sent, unknown) = groups(three.sent, structure);
        if !unknown.is_empty() {
            return Err(ChangeRefusal::Malformed);
        }
        fn find<'g, 't>(groups: &'g [Group<'t>], element: &Element) -> Option<&'g Group<'t>> {
            groups.iter().find(|group| group.element.name == element.name)
        }
        let mut out = Vec::new();
        for group in &sent {
            let (current, view) = (find(&current, group.element), find(&view, group.element));
            out.extend(self.element(Element3 { current, view, sent: Some(group) }, structure, place)?);
        }
        for group in current.iter().filter(|group| find(&sent, group.element).is_none()) {
            let view = find(&view, group.element);
            out.extend(self.element(
                Element3 { current: Some(group), view, sent: None },
                structure,
                place,
            )?);
        }
        out.extend(beyond.into_iter().cloned());
        Ok(out)
    }

    /// One element; `place` is that of its owner.
    fn element(
        self,
        three: Element3<'_>,
        owner: Structure,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        let marked = three.sent.is_some_and(Group::is_mark);
        if marked || same(three.view, three.sent) {
            return Ok(three.keep());
        }
        let three = Element3 { view: three.view.filter(|group| !group.is_mark()), ..three };
        let Some(any) = three.any().filter(|_| three.view.is_some() || three.sent.is_some()) else {
            return Ok(three.keep());
        };
        if any.is_extensions() {
            return self.extensions(three, any, place);
        }
        let place = place.step(owner, any.element);
        match r4::kind(any.structure) {
            Kind::Resource | Kind::AnyResource => self.resources(three, any, &place),
            _ if any.element.many => self.list(three, any, &place),
            _ if retyped(&three) => self.retyped(three, any, &place),
            Kind::Primitive(_) => self.primitive(three, any, &place),
            Kind::Complex => self.single(three, any, &place),
        }
    }

    /// How much of an element its viewer was shown, by what the viewer knows: masks and the view.
    pub(super) fn sight(self, three: Element3<'_>, structure: Structure, place: &Place<'_>) -> Extent {
        let by_mask = extent(place.seen, structure);
        let conditional = || !self.complete && holds_conditional(structure);
        let nameless = || three.view.is_some_and(|view| self.hides_names(view));
        if by_mask == Extent::All && (conditional() || nameless()) { Extent::Part } else { by_mask }
    }

    /// A choice whose type changes: one value goes and another comes.
    fn retyped(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        // Nothing was shown: the value there is may be of any of the types.
        let types = match three.view {
            Some(view) => vec![view.structure, any.structure],
            None => any.element.types.to_vec(),
        };
        let shown = types.iter().all(|&one| self.sight(three, one, place) == Extent::All);
        let may = match extent(place.modify, any.structure) {
            Extent::All if types.iter().any(|&one| extent(place.modify, one) != Extent::All) => Extent::Part,
            may => may,
        };
        if may == Extent::None {
            return Err(ChangeRefusal::NotWritable(place.path.clone()));
        }
        self.new_content(three.sent, place)?;
        if shown && three.shown() {
            // What goes must be writable as well; it holds no mark of ours that the client could have made.
            let old = three.view.map_or(Ok(()), |view| {
                Writing { marks: Marks::Allow }.values(view, place.modify, &place.path)
            });
            return old.map(|()| three.take());
        }
        if three.view.is_none() && may == Extent::All {
            return Ok(three.take());
        }
        Err(ChangeRefusal::CannotMerge(place.path.clone()))
    }

    fn primitive(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        self.new_shape(three.sent)?;
        let (seen, may) = (self.sight(three, any.structure, place), extent(place.modify, any.structure));
        // A twin goes with its primitive, whatever is decided on single extensions in it.
        if !place.modify.keeps() {
            return Err(ChangeRefusal::NotWritable(place.path.clone()));
        }
        if !place.seen.keeps() && may == Extent::All {
            self.new_content(three.sent, place)?;
            return Ok(three.take());
        }
        let value = |group: Option<&Group<'_>>| group.and_then(|group| group.value()).cloned();
        let (old, new) = (value(three.view), value(three.sent));
        // What is withheld was said about the old value.
        let speaks_of_old = seen != Extent::All && old.is_some() && old != new;
        if !place.seen.keeps() || speaks_of_old {
            return Err(ChangeRefusal::CannotMerge(place.path.clone()));
        }
        let value = three.sent.and_then(|group| group.value).cloned();
        let twin = self.twin(three, any.structure, place)?;
        Ok(value.into_iter().chain(twin).collect())
    }

    /// The underscore twin of a single primitive.
    fn twin(
        self,
        three: Element3<'_>,
        structure: Structure,
        place: &Place<'_>,
    ) -> Result<Option<Member>, ChangeRefusal> {
        fn members<'t>(group: Option<&Group<'t>>) -> &'t [Member] {
            group.and_then(Group::twin).map(Node::members).unwrap_or(EMPTY)
        }
        let inner =
            Three { current: members(three.current), view: members(three.view), sent: members(three.sent) };
        let merged = self.object(inner, structure, place)?;
        let name = three.sent.and_then(|one| one.twin).or(three.current.and_then(|one| one.twin));
        Ok(name.filter(|_| !merged.is_empty()).map(|member| member.with(Node::Object(merged))))
    }

    fn single(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        self.new_shape(three.sent)?;
        let (seen, may) = (self.sight(three, any.structure, place), extent(place.modify, any.structure));
        let unseen = three.view.is_none() && seen != Extent::All;
        let statement = is_statement(any.structure);
        if unseen && may == Extent::All && (statement || seen == Extent::None) {
            self.new_content(three.sent, place)?;
            return Ok(three.take());
        }
        if statement && (seen != Extent::All || !three.shown()) {
            let (named, renamed) = (self.only_names_hide(three, any, place), self.renames(three, any, place));
            match may {
                Extent::None => return Err(ChangeRefusal::NotWritable(place.path.clone())),
                Extent::All if renamed => {
                    self.new_content(three.sent, place)?;
                    return Ok(three.take());
                }
                Extent::All | Extent::Part if named && !renamed => {}
                Extent::All | Extent::Part => {
                    self.new_content(three.sent, place)?;
                    return Err(ChangeRefusal::CannotMerge(place.path.clone()));
                }
            }
        }
        self.inside(three, any, place)
    }

    /// A single object, element by element.
    fn inside(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        fn members<'t>(group: Option<&Group<'t>>) -> &'t [Member] {
            group.and_then(Group::value).map(Node::members).unwrap_or(EMPTY)
        }
        let inner =
            Three { current: members(three.current), view: members(three.view), sent: members(three.sent) };
        let merged = self.object(inner, any.structure, place)?;
        let name = three.sent.and_then(|one| one.value).or(three.current.and_then(|one| one.value));
        Ok(name
            .filter(|_| !merged.is_empty())
            .map(|name| name.with(Node::Object(merged)))
            .into_iter()
            .collect())
    }

    /// A Reference that was shown but for its target's name.
    fn only_names_hide(self, three: Element3<'_>, any: &Group<'_>, place: &Place<'_>) -> bool {
        r4::type_name(any.structure) == "Reference"
            && extent(place.seen, any.structure) == Extent::All
            && three.view.is_some()
    }

    /// Such a reference now points elsewhere, or nowhere: the old name would be another one's.
    fn renames(self, three: Element3<'_>, any: &Group<'_>, place: &Place<'_>) -> bool {
        let target = |group: Option<&Group<'_>>| {
            group.and_then(Group::value).and_then(|value| value.member("reference")).cloned()
        };
        self.only_names_hide(three, any, place) && target(three.view) != target(three.sent)
    }

    /// What is sent has the shape R4 prescribes, so that its parts can be looked at.
    fn new_shape(self, sent: Option<&Group<'_>>) -> Result<(), ChangeRefusal> {
        sent.map_or(Ok(()), super::accept::fits)
    }

    /// What is sent is wholly writable and no mark of ours. `place` is the element's own.
    pub(super) fn new_content(
        self,
        sent: Option<&Group<'_>>,
        place: &Place<'_>,
    ) -> Result<(), ChangeRefusal> {
        self.new_shape(sent)?;
        let writing = Writing { marks: Marks::Refuse };
        sent.map_or(Ok(()), |sent| writing.values(sent, place.modify, &place.path))
    }
}

/// The view and what is sent, or they and what there is, are of different types.
fn retyped(three: &Element3<'_>) -> bool {
    let types = [three.current, three.view, three.sent].into_iter().flatten().map(|group| group.structure);
    let (seen, sent) = (three.view.map(|one| one.structure), three.sent.map(|one| one.structure));
    let choice = three.any().is_some_and(|group| group.element.choice);
    let unlike = matches!((seen, sent), (Some(seen), Some(sent)) if seen != sent);
    // Without a view the type of what there is must not show: every choice is treated as if it changed.
    choice && (unlike || (seen.is_none() && types.count() > 0))
}
