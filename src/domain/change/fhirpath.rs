//! The few FHIRPath expressions a patch may use.
//!
//! Owns: `Type.a.b[0].c`, choices by type, extensions by URL, `where(child = 'literal')`, `first()`, `last()`;
//! which elements such a path names, and which places of a record.
//! Must never: evaluate anything else; a predicate is a question (T-073).
//! Look next: `fhirpath_patch`, which changes those places.

use super::ChangeRefusal;
use super::accept::groups;
use super::extent::{child_path, extension_path};
use super::tree::Node;
use crate::domain::fhir::r4::{self, Element, ElementPath, Kind, ResourceType, Structure};
use crate::limits;

#[derive(Debug)]
pub(super) enum Step {
    Child(String),
    OfType(String),
    Index(usize),
    First,
    Last,
    Extension(String),
    Where { child: String, literal: String },
}

/// A path without its leading type.
#[derive(Debug)]
pub(super) struct Path {
    pub steps: Vec<Step>,
}

impl Path {
    pub(super) fn parse(resource: ResourceType, text: &str) -> Result<Self, ChangeRefusal> {
        if text.len() > limits::PATCH_PATH_BYTES_MAX {
            return Err(ChangeRefusal::TooLarge);
        }
        let mut reader = Reader { rest: text, steps: Vec::new() };
        let sound = reader.path(resource).is_some() && reader.rest.is_empty();
        if !sound {
            return Err(ChangeRefusal::Malformed);
        }
        if reader.steps.len() > limits::PATCH_PATH_STEPS_MAX {
            return Err(ChangeRefusal::TooLarge);
        }
        Ok(Self { steps: reader.steps })
    }
}

struct Reader<'t> {
    rest: &'t str,
    steps: Vec<Step>,
}

impl<'t> Reader<'t> {
    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn word(&mut self) -> Option<&'t str> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        word.starts_with(|c: char| c.is_ascii_alphabetic()).then_some(word)
    }

    /// `'…'` without quotes or escapes inside.
    fn literal(&mut self) -> Option<&'t str> {
        self.take("'")?;
        let (literal, rest) = self.rest.split_once('\'')?;
        self.rest = rest;
        (!literal.contains('\\')).then_some(literal)
    }

    fn path(&mut self, resource: ResourceType) -> Option<()> {
        if self.take("(").is_some() {
            self.steps(resource)?;
            self.cast()?;
            self.take(")")?;
            self.tail()?;
        } else {
            self.steps(resource)?;
        }
        if self.rest.is_empty() { Some(()) } else { self.cast() }
    }

    /// ` as Quantity`
    fn cast(&mut self) -> Option<()> {
        self.take(" as ")?;
        let name = self.word()?.to_owned();
        self.steps.push(Step::OfType(name));
        Some(())
    }

    fn steps(&mut self, resource: ResourceType) -> Option<()> {
        (self.word()? == resource.name()).then_some(())?;
        self.tail()
    }

    fn tail(&mut self) -> Option<()> {
        loop {
            if self.take("[").is_some() {
                let digits = self.rest.split_once(']')?;
                let plain = digits.0.bytes().all(|byte| byte.is_ascii_digit());
                self.steps.push(Step::Index(digits.0.parse().ok().filter(|_| plain)?));
                self.rest = digits.1;
            } else if self.take(".(").is_some() {
                let name = self.word()?.to_owned();
                self.steps.push(Step::Child(name));
                self.cast()?;
                self.take(")")?;
            } else if self.take(".").is_some() {
                self.step()?;
            } else {
                return Some(());
            }
        }
    }

    fn step(&mut self) -> Option<()> {
        let word = self.word()?;
        if self.take("(").is_none() {
            self.steps.push(Step::Child(word.to_owned()));
            return Some(());
        }
        let step = match word {
            "first" => Step::First,
            "last" => Step::Last,
            "ofType" | "as" => Step::OfType(self.word()?.to_owned()),
            "extension" => Step::Extension(self.literal()?.to_owned()),
            "where" => self.condition()?,
            _ => return None,
        };
        self.steps.push(step);
        self.take(")")
    }

    /// `child = 'literal'`
    fn condition(&mut self) -> Option<Step> {
        let child = self.word()?.to_owned();
        self.rest = self.rest.trim_start_matches(' ');
        self.take("=")?;
        self.rest = self.rest.trim_start_matches(' ');
        Some(Step::Where { child, literal: self.literal()?.to_owned() })
    }
}

/// What a path names, by the tables alone.
pub(super) struct Named {
    pub path: String,
    /// The types it may have: more than one below a choice.
    pub types: Vec<Structure>,
    /// Elements its conditions read.
    pub reads: Vec<String>,
}

impl Named {
    pub(super) fn root(resource: ResourceType) -> Self {
        Self { path: resource.name().to_owned(), types: vec![r4::root(resource)], reads: Vec::new() }
    }

    pub(super) fn follow(resource: ResourceType, steps: &[Step]) -> Result<Self, ChangeRefusal> {
        let mut named = Self::root(resource);
        steps.iter().try_for_each(|step| named.step(step))?;
        Ok(named)
    }

    fn step(&mut self, step: &Step) -> Result<(), ChangeRefusal> {
        match step {
            Step::Child(name) => self.child(name),
            Step::OfType(name) => {
                self.types.retain(|&one| r4::type_name(one) == name);
                if self.types.is_empty() { Err(ChangeRefusal::Malformed) } else { Ok(()) }
            }
            Step::Index(_) | Step::First | Step::Last => Ok(()),
            Step::Extension(url) => {
                self.element("extension").ok_or(ChangeRefusal::Malformed)?;
                let extension = r4::structure("Extension").ok_or(ChangeRefusal::Malformed)?;
                let whole = extension_path(&self.path);
                if whole != self.path {
                    let path = format!("{}('{url}')", whole);
                    ElementPath::parse(&path).map_err(|_| ChangeRefusal::Malformed)?;
                    self.path = path;
                }
                self.types = vec![extension];
                Ok(())
            }
            Step::Where { child, .. } => {
                let element = self.element(child).ok_or(ChangeRefusal::Malformed)?;
                if !element.types.iter().all(|&one| matches!(r4::kind(one), Kind::Primitive(_)))
                    || element.choice
                {
                    return Err(ChangeRefusal::Malformed);
                }
                self.reads.push(child_path(&self.path, element));
                Ok(())
            }
        }
    }

    pub(super) fn element(&self, name: &str) -> Option<&'static Element> {
        self.types.iter().flat_map(|&one| r4::elements(one)).find(|element| element.name == name)
    }

    pub(super) fn child(&mut self, name: &str) -> Result<(), ChangeRefusal> {
        let element = self.element(name).ok_or(ChangeRefusal::Malformed)?;
        let owners = self.types.iter().flat_map(|&one| r4::elements(one));
        let types = owners.filter(|one| one.name == name).flat_map(|one| one.types).copied().collect();
        self.path = child_path(&self.path, element);
        self.types = types;
        Ok(())
    }
}

/// One step into JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Name(String),
    Item(usize),
}

/// A place of a record: the record itself, or a value with its twin.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// The way to the object that holds it.
    pub owner: Vec<Key>,
    /// Its JSON name without underscore, and its place in the array.
    pub member: Option<(String, Option<usize>)>,
    pub element: Option<&'static Element>,
    pub structure: Structure,
}

impl Spot {
    fn root(resource: ResourceType) -> Self {
        Self { owner: Vec::new(), member: None, element: None, structure: r4::root(resource) }
    }

    /// The way to the object that holds its parts: of a primitive, the twin.
    pub(super) fn object(&self) -> Vec<Key> {
        let mut way = self.owner.clone();
        if let Some((name, item)) = &self.member {
            let twin = matches!(r4::kind(self.structure), Kind::Primitive(_));
            way.push(Key::Name(if twin { format!("_{name}") } else { name.clone() }));
            way.extend(item.map(Key::Item));
        }
        way
    }

    /// The places of one element below this one.
    fn children(&self, root: &Node, name: &str) -> Vec<Self> {
        let owner = self.object();
        let members = node_at(root, &owner).map(Node::members).unwrap_or_default();
        let (groups, _) = groups(members, self.structure);
        let Some(group) = groups.iter().find(|group| group.element.name == name) else { return Vec::new() };
        let Some(half) = group.value.or(group.twin) else { return Vec::new() };
        let json = if group.value.is_some() { half.name() } else { half.name().trim_start_matches('_') };
        let spot = |item| Self {
            owner: owner.clone(),
            member: Some((json.to_owned(), item)),
            element: Some(group.element),
            structure: group.structure,
        };
        if !group.element.many {
            return vec![spot(None)];
        }
        let length = |node: Option<&Node>| node.map_or(0, |node| node.items().len());
        (0..length(group.value()).max(length(group.twin()))).map(|item| spot(Some(item))).collect()
    }
}

pub(super) fn node_at<'n>(root: &'n Node, way: &[Key]) -> Option<&'n Node> {
    way.iter().try_fold(root, |node, key| match (node, key) {
        (Node::Object(_), Key::Name(name)) => node.member(name),
        (Node::Array(items), Key::Item(item)) => items.get(*item),
        (Node::Object(_) | Node::Array(_) | Node::Scalar(_), _) => None,
    })
}

/// The places in a record that the steps lead to.
pub(super) fn places(resource: ResourceType, root: &Node, steps: &[Step]) -> Vec<Spot> {
    let mut spots = vec![Spot::root(resource)];
    for step in steps {
        spots = match step {
            Step::Child(name) => spots.iter().flat_map(|spot| spot.children(root, name)).collect(),
            Step::OfType(name) => {
                spots.into_iter().filter(|spot| r4::type_name(spot.structure) == name).collect()
            }
            Step::Index(at) => spots.into_iter().skip(*at).take(1).collect(),
            Step::First => spots.into_iter().take(1).collect(),
            Step::Last => spots.into_iter().next_back().into_iter().collect(),
            Step::Extension(url) => {
                let all = spots.iter().flat_map(|spot| spot.children(root, "extension"));
                all.filter(|spot| says(root, spot, "url", url)).collect()
            }
            Step::Where { child, literal } => {
                spots.into_iter().filter(|spot| says(root, spot, child, literal)).collect()
            }
        };
    }
    spots
}

fn says(root: &Node, spot: &Spot, child: &str, literal: &str) -> bool {
    node_at(root, &spot.object()).and_then(|object| object.says(child)).is_some_and(|text| text == literal)
}
