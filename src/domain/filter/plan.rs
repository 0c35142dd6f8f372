//! What was written before: a record built like an earlier one is written as that one was.
//!
//! Owns: the rule when what was written of one record tells what is to be written of another, and doing so.
//! Must never: serve another mask than the one it was made under, or records whose strings have a say in what is
//! written: those that contain others, or refer to what is moved.
//! Look next: `emit`, which writes the first of a build; `pattern`, which says what a build is.

use std::sync::Mutex;

use super::json::offset;
use super::output::Copied;
use super::tape::{Mark, Node, Shape};
use super::{Bound, Emitted, Record, Verdict};
use crate::domain::fhir::mask::Identity;

/// Plans of one document, by build. A plan is only remembered: without it the same is written.
#[derive(Default)]
pub(super) struct Plans(Mutex<Vec<Option<Plan>>>);

/// How a record of one build is written under one mask.
struct Plan {
    mask: Identity,
    complete: bool,
    emitted: Emitted,
    steps: Vec<Step>,
    /// What was not copied, all of it.
    words: Vec<u8>,
}

/// Words up to that one, then what stands between two places.
struct Step {
    words: usize,
    from: Place,
    to: Place,
}

/// A place in any record of a build: so many bytes before the value of a node, or before the end of the record.
#[derive(Clone, Copy)]
struct Place {
    node: Option<u32>,
    before: usize,
}

/// A record of a build that has plans.
pub(super) struct Planned<'p> {
    bound: &'p Bound<'p>,
    build: usize,
    nodes: &'p [Node],
    mask: &'p Identity,
    complete: bool,
}

impl<'p> Planned<'p> {
    /// None if more than its build and its mask decides how it is written.
    pub(super) fn of(bound: &'p Bound<'_>, record: usize, verdict: Option<&Verdict<'p>>) -> Option<Self> {
        let (found, next) = (bound.records().get(record)?, bound.records().get(record + 1));
        let build = found.build? as usize;
        let contains = next.is_some_and(|next: &Record| next.container == Some(record));
        let Some(Verdict::Release { mask, complete }) = verdict else { return None };
        let node = bound.nodes().get(found.node)?;
        let plain = !contains && node.marks & Mark::MOVED == 0;
        let alone =
            (found.container.is_none() || found.contained) && found.facts.resource_type.name() != "Bundle";
        if !plain || !alone || mask.resource_type() != found.facts.resource_type {
            return None;
        }
        let nodes = bound.nodes().get(found.node..found.node + node.nodes as usize)?;
        Some(Self { bound, build, nodes, mask: mask.identity(), complete: *complete })
    }

    /// Writes the record by what was written of another one; none if there is no such plan.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Option<Emitted> {
        let plans = self.bound.plans.0.lock().ok()?;
        let plan = plans.get(self.build)?.as_ref()?;
        if plan.mask != *self.mask || plan.complete != self.complete {
            return None;
        }
        let (start, text) = (out.len(), self.bound.text.as_bytes());
        let mut told = 0;
        for step in &plan.steps {
            let words = plan.words.get(told..step.words);
            let copied =
                self.find(step.from).zip(self.find(step.to)).and_then(|(from, to)| text.get(from..to));
            let (Some(words), Some(copied)) = (words, copied) else {
                out.truncate(start);
                return None;
            };
            out.extend_from_slice(words);
            out.extend_from_slice(copied);
            told = step.words;
        }
        out.extend_from_slice(plan.words.get(told..).unwrap_or_default());
        Some(plan.emitted)
    }

    /// Remembers how the record was written: all of `out` from `start` on, where `copies` were copied.
    pub(super) fn learn(&self, emitted: Emitted, copies: &[Copied], start: usize, out: &[u8]) {
        let Some(plan) = self.plan(emitted, copies, start, out) else { return };
        let Ok(mut plans) = self.bound.plans.0.lock() else { return };
        if plans.len() <= self.build {
            plans.resize_with(self.build + 1, || None);
        }
        if let Some(place) = plans.get_mut(self.build) {
            *place = Some(plan);
        }
    }

    fn plan(&self, emitted: Emitted, copies: &[Copied], start: usize, out: &[u8]) -> Option<Plan> {
        let values: Vec<(u32, &Node)> = (0_u32..)
            .zip(self.nodes)
            .filter(|(_, node)| !matches!(node.shape, Shape::Object | Shape::Array))
            .collect();
        let (mut steps, mut words, mut at) = (Vec::with_capacity(copies.len()), Vec::new(), start);
        for copied in copies {
            words.extend_from_slice(out.get(at..copied.at)?);
            let (from, to) = (self.place(&values, copied.from)?, self.place(&values, copied.to)?);
            steps.push(Step { words: words.len(), from, to });
            at = copied.at + (copied.to - copied.from);
        }
        words.extend_from_slice(out.get(at..)?);
        Some(Plan { mask: self.mask.clone(), complete: self.complete, emitted, steps, words })
    }

    /// The place of that offset: counted from the value behind it, since only values differ in length.
    fn place(&self, values: &[(u32, &Node)], at: usize) -> Option<Place> {
        let behind = values.partition_point(|(_, node)| node.start < offset(at));
        let inside = behind.checked_sub(1).and_then(|last| values.get(last));
        if inside.is_some_and(|(_, node)| node.end > offset(at)) {
            return None;
        }
        match values.get(behind) {
            Some((index, node)) => Some(Place { node: Some(*index), before: node.start as usize - at }),
            None => Some(Place { node: None, before: (self.nodes.first()?.end as usize).checked_sub(at)? }),
        }
    }

    #[inline(always)]
    fn find(&self, place: Place) -> Option<usize> {
        let from = match place.node {
            Some(node) => self.nodes.get(node as usize)?.start,
            None => self.nodes.first()?.end,
        };
        (from as usize).checked_sub(place.before)
    }
}
