//! A second opinion on the filter: the same rules, written once more, slowly and plainly.
//!
//! Owns: a tree over `serde_json` raw values (scalars keep their text), and pruning it by decided paths.
//! Must never: share code with `domain::filter` or `domain::fhir::mask`; both read the R4 tables, no more.
//! Look next: `tests/filter.rs`, which compares the two.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chartgate::domain::fhir::r4::{self, Element, Kind, Primitive, ResourceType, Structure};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON with the text of its scalars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Scalar(String),
    Null,
}

struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl Tree {
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let json = json.trim_matches([' ', '\n', '\r', '\t']);
        match json.as_bytes().first() {
            Some(b'{') => {
                let members: Members = serde_json::from_str(json)?;
                let member = |(name, raw): (String, Box<RawValue>)| Ok((name, Self::parse(raw.get())?));
                members.0.into_iter().map(member).collect::<Result<_, _>>().map(Tree::Object)
            }
            Some(b'[') => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(json)?;
                items.iter().map(|raw| Self::parse(raw.get())).collect::<Result<_, _>>().map(Tree::Array)
            }
            _ => {
                let raw: Box<RawValue> = serde_json::from_str(json)?;
                Ok(if raw.get() == "null" { Tree::Null } else { Tree::Scalar(raw.get().to_owned()) })
            }
        }
    }

    pub(crate) fn print(&self) -> String {
        let join = |parts: Vec<String>| parts.join(",");
        match self {
            Tree::Object(members) => {
                let member = |(name, value): &(String, Tree)| {
                    format!("{}:{}", serde_json::to_string(name).unwrap(), value.print())
                };
                format!("{{{}}}", join(members.iter().map(member).collect()))
            }
            Tree::Array(items) => format!("[{}]", join(items.iter().map(Tree::print).collect())),
            Tree::Scalar(text) => text.clone(),
            Tree::Null => "null".to_owned(),
        }
    }

    pub(crate) fn members(&self) -> &[(String, Tree)] {
        if let Tree::Object(members) = self { members } else { &[] }
    }

    pub(crate) fn items(&self) -> &[Tree] {
        if let Tree::Array(items) = self { items } else { std::slice::from_ref(self) }
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Tree> {
        self.members().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> Option<String> {
        let Tree::Scalar(raw) = self else { return None };
        serde_json::from_str(raw).ok()
    }

    pub(crate) fn says(&self, name: &str) -> Option<String> {
        self.member(name)?.text()
    }

    pub(crate) fn resource_type(&self) -> Option<ResourceType> {
        ResourceType::from_name(&self.says("resourceType")?)
    }
}

/// A canonical path, segment by segment; an extension by URL is two: `extension`, `extension('url')`.
pub(crate) type Path = Vec<String>;

pub(crate) fn below(path: &[String], name: &str) -> Path {
    let mut path = path.to_vec();
    path.push(name.to_owned());
    path
}

/// Written as policies write it.
pub(crate) fn written(path: &[String]) -> String {
    match path {
        [before @ .., _, url] if url.starts_with("extension('") => format!("{}.{url}", before.join(".")),
        _ => path.join("."),
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    /// By path as policies write it. Types without any decision are withheld.
    pub(crate) decisions: BTreeMap<String, bool>,
    /// What the client asked for, in the same way; types without any are asked for whole.
    pub(crate) asked: BTreeMap<String, bool>,
    pub(crate) hide_display: BTreeSet<String>,
    pub(crate) hide_identifier: BTreeSet<String>,
    pub(crate) bases: Vec<String>,
    pub(crate) public: String,
}

#[derive(Clone)]
struct Scope {
    complete: bool,
    contained: bool,
    released: Vec<(String, ResourceType)>,
}

#[derive(PartialEq)]
pub(crate) struct Withheld;

const REASON: &str =
    r#"[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]"#;
const TAG: &str =
    r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}"#;

fn speak_of(decisions: &BTreeMap<String, bool>, name: &str) -> bool {
    decisions.keys().any(|path| path == name || path.starts_with(&format!("{name}.")))
}

/// The nearest decision above; the record's own extensions need one of their own.
fn decided(decisions: &BTreeMap<String, bool>, path: &[String]) -> bool {
    if let Some(&decided) = decisions.get(&written(path)) {
        return decided;
    }
    match path {
        [] | [_] => false,
        [_, own] if own == "extension" => false,
        [above @ .., _] => decided(decisions, above),
    }
}

fn decided_for_all(decisions: &BTreeMap<String, bool>, path: &[String]) -> bool {
    let prefix = written(path);
    let inside = |other: &str| {
        other.strip_prefix(&prefix).is_some_and(|rest| {
            rest.starts_with('.') || (prefix.ends_with(".extension") && rest.starts_with("('"))
        })
    };
    decided(decisions, path) && decisions.iter().all(|(other, &keep)| keep || !inside(other))
}

fn total(kind: ResourceType, keeps_all: impl Fn(&[String]) -> bool) -> bool {
    let root = vec![kind.name().to_owned()];
    let extensible = r4::property(r4::root(kind), "extension").is_some();
    keeps_all(&root) && (!extensible || keeps_all(&below(&root, "extension")))
}

impl Oracle {
    fn releases(&self, kind: ResourceType) -> bool {
        speak_of(&self.decisions, kind.name())
    }

    fn asks(&self, path: &[String]) -> bool {
        path.first().is_none_or(|kind| !speak_of(&self.asked, kind)) || decided(&self.asked, path)
    }

    pub(crate) fn keeps(&self, path: &[String]) -> bool {
        decided(&self.decisions, path) && self.asks(path)
    }

    /// Recursion goes back to where it began; any other continuation must be kept here and there.
    pub(crate) fn step(&self, path: &[String], owner: Structure, element: &Element) -> Path {
        let here = below(path, element.name);
        let Some(rewind) = element.rewind else { return here };
        let owner = format!("{}.", r4::type_name(owner));
        let recursive = owner.starts_with(&format!("{rewind}."));
        if recursive || self.keeps(&here) { rewind.split('.').map(str::to_owned).collect() } else { here }
    }

    fn keeps_all(&self, path: &[String]) -> bool {
        let whole = path.first().is_none_or(|kind| !speak_of(&self.asked, kind));
        decided_for_all(&self.decisions, path) && (whole || decided_for_all(&self.asked, path))
    }

    /// The record as it may leave.
    pub(crate) fn record(&self, tree: &Tree) -> Result<Tree, Withheld> {
        self.resource(tree, None)
    }

    fn resource(&self, tree: &Tree, around: Option<&Scope>) -> Result<Tree, Withheld> {
        let kind = tree.resource_type().filter(|&kind| self.releases(kind)).ok_or(Withheld)?;
        let mut inside = Vec::new();
        resources_in(tree, r4::root(kind), &mut inside);
        let kinds: Vec<ResourceType> =
            inside.iter().filter_map(|one| one.resource_type()).chain([kind]).collect();
        let permits = |path: &[String]| decided_for_all(&self.decisions, path);
        let complete = self.hide_display.is_empty()
            && self.hide_identifier.is_empty()
            && kinds.iter().all(|&kind| total(kind, permits));
        let whole = complete && kinds.iter().all(|&kind| total(kind, |path| self.keeps_all(path)));
        let scope = match around {
            Some(scope) => Scope { complete, ..scope.clone() },
            None => self.settle(tree, complete),
        };
        let path = vec![kind.name().to_owned()];
        let mut members = self.object(tree, r4::root(kind), &path, None, &scope, true)?.unwrap_or_default();
        if !whole {
            self.add_tag(&mut members);
        }
        self.add_markers(tree, r4::root(kind), &path, &mut members).then_some(()).ok_or(Withheld)?;
        Ok(Tree::Object(members))
    }

    fn settle(&self, tree: &Tree, complete: bool) -> Scope {
        let kind = tree.resource_type().unwrap();
        let path = vec![kind.name().to_owned(), "contained".to_owned()];
        let all: Vec<&Tree> =
            tree.member("contained").map(|one| one.items().iter().collect()).unwrap_or_default();
        let mut left: Vec<&Tree> = all
            .into_iter()
            .filter(|one| {
                decided(&self.decisions, &path) && one.resource_type().is_some_and(|kind| self.releases(kind))
            })
            .collect();
        loop {
            let name = |one: &&Tree| Some((one.says("id")?, one.resource_type()?));
            let released = left.iter().filter_map(name).collect();
            let scope = Scope { complete, contained: false, released };
            let inner = Scope { contained: true, ..scope.clone() };
            let before = left.len();
            left.retain(|one| self.resource(one, Some(&inner)).is_ok());
            if left.len() == before {
                return scope;
            }
        }
    }

    fn add_tag(&self, members: &mut Vec<(String, Tree)>) {
        let tag = Tree::parse(TAG).unwrap();
        if !members.iter().any(|(name, _)| name == "meta") {
            members.push(("meta".to_owned(), Tree::Object(Vec::new())));
        }
        let Some((_, Tree::Object(meta))) = members.iter_mut().find(|(name, _)| name == "meta") else {
            return;
        };
        if !meta.iter().any(|(name, _)| name == "tag") {
            meta.push(("tag".to_owned(), Tree::Array(Vec::new())));
        }
        let Some((_, Tree::Array(tags))) = meta.iter_mut().find(|(name, _)| name == "tag") else { return };
        let same =
            |one: &Tree| one.says("code") == tag.says("code") && one.says("system") == tag.says("system");
        if !tags.iter().any(same) {
            tags.push(tag);
        }
    }

    fn object(
        &self,
        tree: &Tree,
        owner: Structure,
        path: &[String],
        held_by: Option<&Element>,
        scope: &Scope,
        root: bool,
    ) -> Result<Option<Vec<(String, Tree)>>, Withheld> {
        let mut kept = Vec::new();
        let (mut any, mut modifier) = (false, false);
        for (name, value) in tree.members() {
            if root && name == "resourceType" {
                kept.push((name.clone(), value.clone()));
                continue;
            }
            let Some(property) = r4::property(owner, name) else { continue };
            let element = property.element;
            let inner = self.step(path, owner, element);
            let barred = self.barred(tree, owner, path, held_by, scope, element.name);
            let twin = property.twin;
            let pruned = if barred {
                None
            } else if element.many && matches!(r4::kind(property.structure), Kind::Primitive(_)) {
                self.primitives(tree, name, property.structure, &inner, scope, twin)?
            } else if element.many {
                let mut items = Vec::new();
                for item in value.items() {
                    items.extend(self.value(item, element, property.structure, &inner, scope, twin)?.0);
                }
                (!items.is_empty()).then_some(Tree::Array(items))
            } else {
                let (pruned, orphaned) =
                    self.value(value, element, property.structure, &inner, scope, twin)?;
                if orphaned {
                    return Ok(None);
                }
                pruned
            };
            modifier |= element.modifier && (pruned.is_none() || !self.keeps_all(&inner));
            if let Some(pruned) = pruned {
                any = true;
                kept.push((name.clone(), self.publish(owner, element, twin, pruned)));
            }
        }
        if !any && !root {
            return Ok(None);
        }
        if modifier {
            let hollow = r4::type_name(owner) == "Extension";
            assert!(!hollow, "extensions have no modifiers");
            return Err(Withheld);
        }
        Ok(Some(kept))
    }

    /// One value; the flag says that a single resource was withheld.
    fn value(
        &self,
        tree: &Tree,
        element: &Element,
        structure: Structure,
        path: &[String],
        scope: &Scope,
        twin: bool,
    ) -> Result<(Option<Tree>, bool), Withheld> {
        if r4::type_name(structure) == "Extension" && element.name == "extension" {
            return Ok((self.extension(tree, structure, path, scope)?, false));
        }
        let pruned = match r4::kind(structure) {
            Kind::Primitive(_) if twin => self.twin(tree, path, scope)?,
            Kind::Primitive(_) => self.keeps(path).then(|| tree.clone()),
            Kind::Complex => self.inner(tree, structure, path, Some(element), scope)?,
            Kind::Resource | Kind::AnyResource => {
                let pruned = if self.keeps(path) { self.inner_resource(tree, element, scope) } else { None };
                let orphaned = self.keeps(path) && pruned.is_none() && !element.many;
                return Ok((pruned, orphaned));
            }
        };
        Ok((pruned, false))
    }

    fn inner(
        &self,
        tree: &Tree,
        structure: Structure,
        path: &[String],
        element: Option<&Element>,
        scope: &Scope,
    ) -> Result<Option<Tree>, Withheld> {
        let Some(mut members) = self.object(tree, structure, path, element, scope, false)? else {
            return Ok(None);
        };
        let says_nothing = |(name, _): &(String, Tree)| name == "url" || name == "id";
        let hollow = r4::type_name(structure) == "Extension" && members.iter().all(says_nothing);
        if hollow || !self.add_markers(tree, structure, path, &mut members) {
            return Ok(None);
        }
        Ok(Some(Tree::Object(members)))
    }

    fn inner_resource(&self, tree: &Tree, element: &Element, scope: &Scope) -> Option<Tree> {
        if element.name != "contained" {
            return self.resource(tree, None).ok();
        }
        if scope.contained {
            return None;
        }
        let (id, kind) = (tree.says("id"), tree.resource_type()?);
        let listed = scope.released.iter().any(|(known, one)| Some(known) == id.as_ref() && *one == kind);
        if id.is_some() && !listed {
            return None;
        }
        self.resource(tree, Some(&Scope { contained: true, ..scope.clone() })).ok()
    }

    fn extension(
        &self,
        tree: &Tree,
        structure: Structure,
        path: &[String],
        scope: &Scope,
    ) -> Result<Option<Tree>, Withheld> {
        let Some(url) = tree.says("url") else { return Ok(None) };
        let path = below(path, &format!("extension('{url}')"));
        if !self.keeps(&path) {
            return Ok(None);
        }
        self.inner(tree, structure, &path, None, scope)
    }

    fn twin(&self, tree: &Tree, path: &[String], scope: &Scope) -> Result<Option<Tree>, Withheld> {
        if !self.keeps(path) {
            return Ok(None);
        }
        let extension = r4::structure("Extension").unwrap();
        let mut members = Vec::new();
        for (name, value) in tree.members() {
            if name == "id" && self.keeps(&below(path, "id")) {
                members.push((name.clone(), value.clone()));
            }
            if name == "extension" {
                let mut items = Vec::new();
                for item in value.items() {
                    items.extend(self.extension(item, extension, &below(path, "extension"), scope)?);
                }
                if !items.is_empty() {
                    members.push((name.clone(), Tree::Array(items)));
                }
            }
        }
        Ok((!members.is_empty()).then_some(Tree::Object(members)))
    }

    /// One of the two arrays of a repeated primitive: worked out together, place by place.
    fn primitives(
        &self,
        owner: &Tree,
        name: &str,
        structure: Structure,
        path: &[String],
        scope: &Scope,
        twin: bool,
    ) -> Result<Option<Tree>, Withheld> {
        if !self.keeps(path) {
            return Ok(None);
        }
        assert!(matches!(r4::kind(structure), Kind::Primitive(_)));
        let plain = name.trim_start_matches('_');
        let list = |name: &str| owner.member(name).map(|one| one.items().to_vec()).unwrap_or_default();
        let (values, twins) = (list(plain), list(&format!("_{plain}")));
        let mut pairs = Vec::new();
        for place in 0..values.len().max(twins.len()) {
            let value = values.get(place).cloned().unwrap_or(Tree::Null);
            let twin = match twins.get(place) {
                Some(twin) => self.twin(twin, path, scope)?.unwrap_or(Tree::Null),
                None => Tree::Null,
            };
            if value != Tree::Null || twin != Tree::Null {
                pairs.push((place, value, twin));
            }
        }
        let length = if twin { twins.len() } else { values.len() };
        let mine: Vec<Tree> = pairs
            .into_iter()
            .filter(|(place, _, _)| *place < length)
            .map(|(_, value, other)| if twin { other } else { value })
            .collect();
        let says = if twin { mine.iter().any(|one| *one != Tree::Null) } else { !mine.is_empty() };
        Ok(says.then_some(Tree::Array(mine)))
    }

    fn barred(
        &self,
        tree: &Tree,
        owner: Structure,
        path: &[String],
        held_by: Option<&Element>,
        scope: &Scope,
        name: &str,
    ) -> bool {
        if r4::property(owner, name).is_some_and(|p| r4::type_name(p.structure) == "Narrative") {
            return !scope.complete;
        }
        match (r4::type_name(owner), name) {
            ("Reference", "display") => self.may_be(&self.hide_display, tree, path, held_by, scope),
            ("Reference", "identifier") => self.may_be(&self.hide_identifier, tree, path, held_by, scope),
            ("Reference", "reference") => {
                let text = tree.says("reference").unwrap_or_default();
                let here = |id: &str| self.fragment(scope, id).is_some();
                let dangles = |id: &str| !(here(id) || id.is_empty() && scope.contained);
                text.strip_prefix('#').is_some_and(dangles)
            }
            ("Attachment", "url") => !scope.complete && self.leads_past(tree),
            ("Attachment", "size" | "hash") => {
                let beside = |name: &str| self.keeps(&below(path, name));
                !(scope.complete || beside("data") && beside("url") && !self.leads_past(tree))
            }
            ("Signature", "data") => !scope.complete,
            _ => false,
        }
    }

    /// T-102: neither relative, nor a fragment or URN, nor under a base of ours.
    fn leads_past(&self, attachment: &Tree) -> bool {
        let Some(url) = attachment.says("url") else { return false };
        let odd = |letter: char| letter <= ' ' || letter == '\\' || letter == '\u{7f}';
        if url.to_lowercase().starts_with("urn:") {
            return false;
        }
        if url.contains(odd) || url.starts_with("//") {
            return true;
        }
        let colon = url.find(':');
        let absolute = colon.is_some_and(|colon| !url[..colon].contains(['/', '?', '#']));
        absolute && !self.bases.iter().any(|base| self.under(base, &url).is_some())
    }

    /// What follows a base, whose scheme and host may be written in any case.
    fn under(&self, base: &str, url: &str) -> Option<String> {
        let host = base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let same = url.get(..host.len()).is_some_and(|start| start.eq_ignore_ascii_case(&host));
        let url = if same { format!("{host}{}", &url[host.len()..]) } else { url.to_owned() };
        url.strip_prefix(base).filter(|rest| rest.starts_with('/')).map(str::to_owned)
    }

    fn may_be(
        &self,
        hidden: &BTreeSet<String>,
        tree: &Tree,
        path: &[String],
        held_by: Option<&Element>,
        scope: &Scope,
    ) -> bool {
        if hidden.is_empty() {
            return false;
        }
        let text = tree.says("reference").unwrap_or_default();
        let by_type = tree.says("type").filter(|name| ResourceType::from_name(name).is_some());
        let by_text = match text.strip_prefix('#') {
            Some(id) => self.fragment(scope, id),
            None => type_in(&text),
        };
        let seen = |name: &str, found: &Option<String>| found.is_some() && self.keeps(&below(path, name));
        let known = seen("type", &by_type) || seen("reference", &by_text);
        let named = [by_type, by_text].into_iter().flatten().any(|name| hidden.contains(&name));
        let targets = held_by.map(|element| element.targets).unwrap_or_default();
        let possible = targets.is_empty() || targets.iter().any(|target| hidden.contains(target.name()));
        named || (!known && possible)
    }

    /// The type of the contained record that a fragment still finds.
    fn fragment(&self, scope: &Scope, id: &str) -> Option<String> {
        let keeps_id = |kind: &ResourceType| self.keeps(&[kind.name().to_owned(), "id".to_owned()]);
        let found = scope.released.iter().find(|(known, kind)| known == id && keeps_id(kind));
        found.map(|(_, kind)| kind.name().to_owned())
    }

    fn publish(&self, owner: Structure, element: &Element, twin: bool, value: Tree) -> Tree {
        let place = (r4::type_name(owner), element.name);
        let places = [
            ("Attachment", "url"),
            ("Reference", "reference"),
            ("Bundle.entry", "fullUrl"),
            ("Bundle.link", "url"),
        ];
        let Some(text) = value.text().filter(|_| places.contains(&place) && !twin) else { return value };
        for base in &self.bases {
            let host = base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            let same = text.get(..host.len()).is_some_and(|start| start.eq_ignore_ascii_case(&host));
            let text = if same { format!("{host}{}", &text[host.len()..]) } else { text.clone() };
            if let Some(rest) = text.strip_prefix(base.as_str()).filter(|rest| rest.starts_with('/'))
                && *base != self.public
            {
                let moved = format!("{}{rest}", self.public);
                return Tree::Scalar(serde_json::to_string(&moved).unwrap());
            }
        }
        value
    }

    fn add_markers(
        &self,
        tree: &Tree,
        owner: Structure,
        path: &[String],
        members: &mut Vec<(String, Tree)>,
    ) -> bool {
        for element in r4::elements(owner).iter().filter(|element| element.min > 0) {
            let of = |name: &str| r4::property(owner, name).is_some_and(|p| p.element.name == element.name);
            let inner = self.step(path, owner, element);
            let sent = tree.members().iter().any(|(name, _)| of(name));
            if members.iter().any(|(name, _)| of(name)) || (!sent && self.keeps_all(&inner)) {
                continue;
            }
            match marker(owner, element) {
                Some(marker) => members.push(marker),
                None => return false,
            }
        }
        true
    }
}

fn marker(owner: Structure, element: &Element) -> Option<(String, Tree)> {
    let kind = *element.types.first()?;
    let mut name = element.name.to_owned();
    if element.choice {
        let (first, rest) = r4::type_name(kind).split_at(1);
        name = format!("{name}{}{rest}", first.to_uppercase());
    }
    let mut members = vec![("extension".to_owned(), Tree::parse(REASON).unwrap())];
    match r4::kind(kind) {
        _ if r4::type_name(owner) == "Extension" => return None,
        Kind::Primitive(Primitive::Xhtml) | Kind::Resource | Kind::AnyResource => return None,
        Kind::Primitive(_) => name = format!("_{name}"),
        Kind::Complex => {
            for inner in r4::elements(kind).iter().filter(|inner| inner.min > 0) {
                members.push(marker(kind, inner)?);
            }
        }
    }
    let value = Tree::Object(members);
    Some((name, if element.many { Tree::Array(vec![value]) } else { value }))
}

fn type_in(text: &str) -> Option<String> {
    let text = text.split('#').next()?;
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [.., name, _, "_history", _] => name,
        [.., name, _] => name,
        _ => return None,
    };
    ResourceType::from_name(name).map(|kind| kind.name().to_owned())
}

fn resources_in<'t>(tree: &'t Tree, owner: Structure, found: &mut Vec<&'t Tree>) {
    for (name, value) in tree.members() {
        let Some(property) = r4::property(owner, name) else { continue };
        for item in value.items() {
            match r4::kind(property.structure) {
                Kind::Resource | Kind::AnyResource => {
                    found.push(item);
                    item.resource_type()
                        .into_iter()
                        .for_each(|kind| resources_in(item, r4::root(kind), found));
                }
                Kind::Complex => resources_in(item, property.structure, found),
                Kind::Primitive(_) => {}
            }
        }
    }
}

/// Every canonical path in a record, nested resources not entered.
pub(crate) fn paths_in(tree: &Tree, owner: Structure, path: &[String], found: &mut BTreeSet<String>) {
    for (name, value) in tree.members() {
        let Some(property) = r4::property(owner, name) else { continue };
        let element = property.element;
        let inner = match element.rewind {
            Some(rewind) => rewind.split('.').map(str::to_owned).collect(),
            None => below(path, element.name),
        };
        found.insert(written(&inner));
        for item in value.items() {
            if element.name == "extension" {
                found.extend(item.says("url").map(|url| format!("{}('{url}')", written(&inner))));
            } else if property.twin {
                for extension in item.member("extension").into_iter().flat_map(Tree::items) {
                    let url = extension.says("url");
                    found.extend(url.map(|url| format!("{}.extension('{url}')", written(&inner))));
                }
            } else if r4::kind(property.structure) == Kind::Complex {
                paths_in(item, property.structure, &inner, found);
            }
        }
    }
}
