//! What repeats: arrays, extensions, contained records.
//!
//! Owns: which item of the view is which item of what was sent and of what there is (T-064, T-075).
//! Must never: guess. Unchanged, matched by element id, or appended; all else is refused.
//! Look next: `merge`, which handles single values.

use std::collections::VecDeque;

use super::ChangeRefusal;
use super::accept::{Group, Marks, Writing};
use super::extent::{Extent, Place, extent};
use super::merge::{Element3, Merger, Three};
use super::tree::{Member, Node};
use crate::domain::fhir::r4::{self, Element, Kind, ResourceType, Structure};

/// The items of a repeated element in the three records.
#[derive(Clone, Copy)]
struct Items<'t> {
    current: &'t [Node],
    view: &'t [Node],
    sent: &'t [Node],
}

impl<'t> Items<'t> {
    fn of(three: Element3<'t>) -> Self {
        let items = |group: Option<&'t Group<'t>>| group.map(Group::items).unwrap_or_default();
        Self { current: items(three.current), view: items(three.view), sent: items(three.sent) }
    }

    /// What was sent behind the whole view.
    fn appended(self) -> Option<&'t [Node]> {
        let (head, tail) = self.sent.split_at_checked(self.view.len())?;
        (head == self.view).then_some(tail)
    }
}

impl Merger<'_> {
    pub(super) fn list(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        let (seen, may) = (self.sight(three, any.structure, place), extent(place.modify, any.structure));
        if may == Extent::None {
            return Err(ChangeRefusal::NotWritable(place.path.clone()));
        }
        if three.view.is_none() && seen != Extent::All && may == Extent::All {
            self.new_content(three.sent, place)?;
            // What nothing was shown of is written blind; what some of it might have been shown of is added to.
            return if seen == Extent::None || is_primitive(any) {
                Ok(three.take())
            } else {
                self.objects(three, any, place)
            };
        }
        if seen == Extent::All && three.shown() {
            return self.whole(three, any, place, may);
        }
        if is_primitive(any) || seen == Extent::None {
            self.new_content(three.sent, place)?;
            return Err(ChangeRefusal::CannotMerge(place.path.clone()));
        }
        self.objects(three, any, place)
    }

    /// All of it was shown: what was sent is what is meant, as far as it may be written.
    fn whole(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
        may: Extent,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        let items = Items::of(three);
        let marks = if items.view.iter().any(|item| has_mark(item, any.structure)) {
            Marks::Allow
        } else {
            Marks::Refuse
        };
        let writing = Writing { marks };
        three.sent.map_or(Ok(()), super::accept::fits)?;
        let content = |group: Option<&Group<'_>>| {
            group.map_or(Ok(()), |one| writing.values(one, place.modify, &place.path))
        };
        if may == Extent::All || is_primitive(any) {
            content(three.view)?;
            content(three.sent)?;
            return Ok(three.take());
        }
        let mut merged = Vec::new();
        for at in 0..items.current.len().max(items.sent.len()) {
            match (items.current.get(at), items.sent.get(at)) {
                (Some(current), Some(sent)) => merged.push(self.item(current, current, sent, any, place)?),
                (None, Some(sent)) => {
                    writing.members(sent.members(), any.structure, place.modify, &place.path)?;
                    merged.push(sent.clone());
                }
                (Some(gone), None) => {
                    let allow = Writing { marks: Marks::Allow };
                    allow.members(gone.members(), any.structure, place.modify, &place.path)?;
                }
                (None, None) => {}
            }
        }
        Ok(renewed(three, merged))
    }

    fn item(
        self,
        current: &Node,
        view: &Node,
        sent: &Node,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Node, ChangeRefusal> {
        let three = Three { current: current.members(), view: view.members(), sent: sent.members() };
        self.object(three, any.structure, place).map(Node::Object)
    }

    /// Objects that were shown in part.
    fn objects(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        three.sent.map_or(Ok(()), super::accept::fits)?;
        let items = Items::of(three);
        let new = |item: &Node| {
            let writing = Writing { marks: Marks::Refuse };
            writing.members(item.members(), any.structure, place.modify, &place.path)
        };
        if let Some(appended) = items.appended() {
            appended.iter().try_for_each(new)?;
            return Ok(renewed(three, items.current.iter().chain(appended).cloned().collect()));
        }
        let refused = || ChangeRefusal::CannotMerge(place.path.clone());
        let (kept, appended) = by_id(items).ok_or_else(refused)?;
        appended.iter().try_for_each(new)?;
        let mut merged = Vec::new();
        for current in items.current {
            let id = current.says("id");
            let with_id =
                |items: &'_ [Node]| items.iter().position(|one| id.is_some() && one.says("id") == id);
            let view = with_id(items.view).and_then(|at| items.view.get(at));
            let sent = with_id(kept).and_then(|at| kept.get(at));
            match (view, sent) {
                (Some(view), Some(sent)) if view == sent => merged.push(current.clone()),
                (Some(view), Some(sent)) if !super::merge::is_statement(any.structure) => {
                    merged.push(self.item(current, view, sent, any, place)?);
                }
                (Some(_), Some(_)) => return Err(refused()),
                (_, None) | (None, Some(_)) => merged.push(current.clone()),
            }
        }
        merged.extend(appended.iter().cloned());
        Ok(renewed(three, merged))
    }

    /// Extensions by their URLs, each of which is decided on its own (T-039).
    pub(super) fn extensions(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        three.sent.map_or(Ok(()), super::accept::fits)?;
        let items = Items::of(three);
        let mut queues: Vec<(Option<String>, VecDeque<Node>)> = Vec::new();
        for item in items.sent.iter().chain(items.current) {
            let url = item.says("url").map(std::borrow::Cow::into_owned);
            if !queues.iter().any(|(known, _)| *known == url) {
                let merged = self.with_url(items, url.as_deref(), any, place)?;
                queues.push((url, merged.into()));
            }
        }
        let mut merged = Vec::new();
        for item in items.sent {
            let url = item.says("url");
            let queue = queues.iter_mut().find(|(known, _)| known.as_deref() == url.as_deref());
            merged.extend(queue.and_then(|(_, queue)| queue.pop_front()));
        }
        merged.extend(queues.into_iter().flat_map(|(_, queue)| queue));
        Ok(renewed(three, merged))
    }

    fn with_url(
        self,
        items: Items<'_>,
        url: Option<&str>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Node>, ChangeRefusal> {
        let of = |items: &[Node]| -> Vec<Node> {
            items.iter().filter(|item| item.says("url").as_deref() == url).cloned().collect()
        };
        let (current, view, sent) = (of(items.current), of(items.view), of(items.sent));
        if view == sent {
            return Ok(current);
        }
        // What goes must be writable as well as what comes.
        for (extensions, marks) in [(&view, Marks::Allow), (&sent, Marks::Refuse)] {
            let writing = Writing { marks };
            extensions.iter().try_for_each(|one| writing.extension(one, place.modify, &place.path))?;
        }
        let Some(inner) = url.map(|url| place.extension(url)) else { return Err(ChangeRefusal::Malformed) };
        let nameless = view.iter().any(|item| self.hides_names_in(item, any.structure, any.element));
        let shown = inner.seen.keeps() && view == current && !nameless;
        if shown || !inner.seen.keeps() { Ok(sent) } else { Err(ChangeRefusal::CannotMerge(inner.path)) }
    }

    /// Records inside the record. Their own masks decide what of them is seen, so they are one thing each.
    pub(super) fn resources(
        self,
        three: Element3<'_>,
        any: &Group<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Member>, ChangeRefusal> {
        three.sent.map_or(Ok(()), super::accept::fits)?;
        if place.modify.whole() != Some(true) {
            return Err(ChangeRefusal::NotWritable(place.path.clone()));
        }
        if self.complete && place.seen.whole() == Some(true) {
            return Ok(three.take());
        }
        let items = Items::of(three);
        match items.appended().filter(|_| any.element.many) {
            Some(appended) => Ok(renewed(three, items.current.iter().chain(appended).cloned().collect())),
            None => Err(ChangeRefusal::CannotMerge(place.path.clone())),
        }
    }

    /// References in the view that may lack a name because it is hidden, and Attachments that may lack their URL.
    pub(super) fn hides_names(self, view: &Group<'_>) -> bool {
        let inside = |item: &Node| self.hides_names_in(item, view.structure, view.element);
        !self.complete && [view.value(), view.twin()].into_iter().flatten().flat_map(Node::items).any(inside)
    }

    fn hides_names_in(self, item: &Node, structure: Structure, element: &Element) -> bool {
        if self.complete {
            return false;
        }
        // Its URL may have led past us (T-102).
        if r4::type_name(structure) == "Attachment" && item.member("url").is_none() {
            return true;
        }
        if r4::type_name(structure) == "Reference" && self.hides_name_of(item, element) {
            return true;
        }
        super::accept::groups(item.members(), structure).0.iter().any(|group| self.hides_names(group))
    }

    fn hides_name_of(self, reference: &Node, element: &Element) -> bool {
        let told = reference.says("reference").and_then(|text| {
            let name = text.rsplit('/').nth(1)?;
            ResourceType::from_name(name)
        });
        let hides = |hidden: &std::collections::BTreeSet<ResourceType>| match told {
            Some(kind) => hidden.contains(&kind),
            None if element.targets.is_empty() => !hidden.is_empty(),
            None => element.targets.iter().any(|target| hidden.contains(target)),
        };
        (reference.member("display").is_none() && hides(&self.references.hide_display))
            || (reference.member("identifier").is_none() && hides(&self.references.hide_identifier))
    }
}

/// The items that were sent and shown, and those that are new, if ids tell which is which: each shown item
/// has one, all of them are still there in their order, and new ones stand behind them.
fn by_id(items: Items<'_>) -> Option<(&[Node], &[Node])> {
    let ids = |items: &[Node]| items.iter().map(|item| item.says("id").map(|id| id.into_owned())).collect();
    let shown: Option<Vec<String>> = ids(items.view);
    let shown = shown?;
    let distinct = shown.iter().enumerate().all(|(at, id)| !shown.iter().skip(at + 1).any(|one| one == id));
    let (kept, appended) = items.sent.split_at_checked(shown.len())?;
    let same: Option<Vec<String>> = ids(kept);
    let free =
        appended.iter().all(|item| item.says("id").is_none_or(|id| shown.iter().all(|one| *one != id)));
    let once =
        |id: &String| items.current.iter().filter(|one| one.says("id").as_deref() == Some(id)).count() == 1;
    (distinct && free && shown.iter().all(once) && !shown.is_empty() && same.as_ref() == Some(&shown))
        .then_some((kept, appended))
}

fn is_primitive(group: &Group<'_>) -> bool {
    matches!(r4::kind(group.structure), Kind::Primitive(_))
}

fn has_mark(item: &Node, structure: Structure) -> bool {
    super::accept::groups(item.members(), structure)
        .0
        .iter()
        .any(|group| group.is_mark() || group.items().iter().any(|inner| has_mark(inner, group.structure)))
}

/// The member under its name as sent, or as it is, with these items; none if there are none.
fn renewed(three: Element3<'_>, items: Vec<Node>) -> Vec<Member> {
    let name = three.sent.and_then(|one| one.value).or(three.current.and_then(|one| one.value));
    let member = name.filter(|_| !items.is_empty()).map(|name| name.with(Node::Array(items)));
    member.into_iter().collect()
}
