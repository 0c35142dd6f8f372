//! Two hospitals that differ only in what a role may not see.
//!
//! Owns: which records there are, and what each world holds of them: the same ids, versions and times of what is seen;
//! other values, other members and other records of what is not.
//! Must never: differ in what the policies let out, or in what they decide. A change that would is taken back.
//! Look next: `twin`, which changes one record; `pair`, which loads the worlds.

use super::dice::Dice;
use super::minimal::{self, Fill};
use super::sight::{Sight, View};
use super::twin::{self, Reach};
use super::values::Values;
use crate::domain::fhir::r4::ResourceType;
use chartgate_sandbox::charts;
use serde_json::{Value, json};

/// Labels under which a record may be withheld from a role that sees others of its type.
const LABELS: &[&[&str]] = &[&["R"], &["V"], &["R", "ETH", "HIV"], &["PSYTHPN"]];
const SHADOWS_PER_TYPE_MAX: usize = 3;
const ABSENT_PERCENT: usize = 30;

/// One thing done to an EMR while a world is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Store these bytes as the next version.
    Put { resource: &'static str, id: String, text: String },
    /// Delete the record.
    Delete { resource: &'static str, id: String },
}

/// A record of either world.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) resource: ResourceType,
    pub(super) id: String,
    pub(super) versions: Vec<String>,
    /// Something of it is seen, by the policies.
    pub(super) shown: bool,
    /// Its newest version in one world and the other, if it is there.
    pub(super) texts: [Option<Value>; 2],
}

/// Both hospitals, for one role.
#[derive(Debug)]
pub(super) struct Worlds {
    pub(super) steps: [Vec<Step>; 2],
    pub(super) known: Vec<Known>,
    pub(super) values: Values,
    /// Records, or versions of one, that are not the same in both.
    pub(super) differing: usize,
}

/// What the EMRs can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamps {
    /// Versions are stored under the number they have.
    Kept,
    /// The EMR numbers versions itself, so each record must have as many in both worlds.
    Counted,
}

struct Draft {
    resource: ResourceType,
    id: String,
    version: String,
    record: Value,
    last: bool,
}

impl Worlds {
    /// Makes both from the sandbox's charts, records that stand beside them, and records of the types they lack.
    pub(super) fn build(sight: &Sight, stamps: Stamps, seed: u64) -> Result<Self, String> {
        let mut dice = Dice::new(seed, "worlds");
        let mut builder = Builder {
            sight,
            stamps,
            worlds: Self {
                steps: Default::default(),
                known: Vec::new(),
                values: Values::default(),
                differing: 0,
            },
        };
        for draft in drafts(sight, &mut dice)? {
            builder.add(&draft, &mut dice);
        }
        Ok(builder.worlds)
    }

    /// Records of which something is seen.
    pub(super) fn shown(&self) -> usize {
        self.known.iter().filter(|known| known.shown).count()
    }

    /// Records in either world.
    pub(super) fn records(&self) -> usize {
        self.known.len()
    }
}

struct Builder<'b> {
    sight: &'b Sight,
    stamps: Stamps,
    worlds: Worlds,
}

impl Builder<'_> {
    fn add(&mut self, draft: &Draft, dice: &mut Dice) {
        let text = draft.record.to_string();
        let Some(view) = self.sight.look(text.as_bytes()) else { return };
        let twin = self.twin(&draft.record, &view, dice);
        let mut there = [true, true];
        if !view.is_shown() && (self.stamps == Stamps::Kept || draft.last) && dice.chance(ABSENT_PERCENT) {
            there = if dice.chance(50) { [true, false] } else { [false, true] };
        }
        let gone = !view.is_shown() && draft.last && there != [true, true] && dice.chance(25);
        self.worlds.differing += usize::from(there != [true, true] || twin != draft.record);
        let texts = [draft.record.clone(), twin];
        let mut kept = [None, None];
        for (world, value) in texts.into_iter().enumerate() {
            self.worlds.values.gather(&value);
            let steps = self.worlds.steps.get_mut(world).filter(|_| there.get(world) == Some(&true));
            let Some(steps) = steps else { continue };
            let (resource, id) = (draft.resource.name(), draft.id.clone());
            steps.push(Step::Put { resource, id: id.clone(), text: value.to_string() });
            if gone {
                steps.push(Step::Delete { resource, id });
            } else if let Some(kept) = kept.get_mut(world) {
                *kept = Some(value);
            }
        }
        self.know(draft, view.is_shown(), kept);
    }

    fn know(&mut self, draft: &Draft, shown: bool, texts: [Option<Value>; 2]) {
        let same = |known: &&mut Known| known.resource == draft.resource && known.id == draft.id;
        if let Some(known) = self.worlds.known.iter_mut().find(same) {
            known.versions.push(draft.version.clone());
            (known.shown, known.texts) = (shown, texts);
        } else {
            self.worlds.known.push(Known {
                resource: draft.resource,
                id: draft.id.clone(),
                versions: vec![draft.version.clone()],
                shown,
                texts,
            });
        }
    }

    /// The largest change that leaves the decision as it is.
    fn twin(&self, record: &Value, view: &View, dice: &mut Dice) -> Value {
        for reach in [Reach::All, Reach::NotTheBasis] {
            let twin = twin::derive(record, &view.masks, self.sight.references(), reach, dice);
            let seen = self.sight.look(twin.to_string().as_bytes());
            if seen.is_some_and(|seen| seen.is_like(view) || (!seen.is_shown() && !view.is_shown())) {
                return twin;
            }
        }
        record.clone()
    }
}

/// All records in the order in which they are stored, each version of one after the other.
fn drafts(sight: &Sight, dice: &mut Dice) -> Result<Vec<Draft>, String> {
    let mut drafts = Vec::new();
    for (name, text) in charts::BUNDLES {
        drafts.extend(charted(name, text)?);
    }
    let terminology = |draft: &Draft| ["CodeSystem", "ValueSet"].contains(&draft.resource.name());
    drafts.extend(charted("ward-extras", charts::ward_extras())?.into_iter().filter(terminology));
    let later: Vec<(ResourceType, String)> =
        drafts.iter().map(|draft| (draft.resource, draft.id.clone())).collect();
    for (place, draft) in drafts.iter_mut().enumerate() {
        let own = (draft.resource, draft.id.clone());
        draft.last = !later.iter().skip(place + 1).any(|other| *other == own);
    }
    for resource in ResourceType::all().filter(|resource| resource.name() != "Parameters") {
        let fills: &[usize] = if sight.open_types().contains(&resource) { &[70, 40] } else { &[30] };
        for (place, percent) in fills.iter().enumerate() {
            let base = minimal::generated_id(resource);
            let (id, patient) = if place == 0 { (base, "p1") } else { (format!("{base}-{place}"), "p3") };
            let made = minimal::record(resource, &id, patient, Fill { percent: *percent }, dice);
            drafts.extend(draft(made));
        }
    }
    Ok(with_shadows(drafts, sight, dice))
}

/// The records of one of the sandbox's Bundles.
fn charted(name: &str, text: &str) -> Result<Vec<Draft>, String> {
    let bundle: Value = serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    let entries = bundle.get("entry").and_then(Value::as_array).into_iter().flatten();
    Ok(entries.filter_map(|entry| draft(entry.get("resource")?.clone())).collect())
}

fn draft(record: Value) -> Option<Draft> {
    let text = |at: &str| record.pointer(at).and_then(Value::as_str);
    let resource = ResourceType::from_name(text("/resourceType")?)?;
    let (id, version) = (text("/id")?.to_owned(), text("/meta/versionId")?.to_owned());
    Some(Draft { resource, id, version, record, last: true })
}

/// Beside records that are seen: records of the same type that are not, and older versions that are not.
fn with_shadows(drafts: Vec<Draft>, sight: &Sight, dice: &mut Dice) -> Vec<Draft> {
    let mut all: Vec<Draft> = Vec::new();
    let mut made = std::collections::BTreeMap::<ResourceType, usize>::new();
    for draft in drafts {
        let many = made.entry(draft.resource).or_default();
        let hidden = if *many < SHADOWS_PER_TYPE_MAX { shadow(&draft, sight, dice) } else { None };
        let Some(mut hidden) = hidden else {
            all.push(draft);
            continue;
        };
        *many += 1;
        if *many == 1 && draft.version == "1" && draft.last {
            // The first version was withheld; the second is seen.
            let mut second = draft;
            set(&mut second, "versionId", "2");
            hidden.last = false;
            all.extend([hidden, second]);
        } else {
            let id = format!("{}-shadow", draft.id);
            if let Some(own) = hidden.record.get_mut("id") {
                *own = json!(id);
            }
            hidden.id = id;
            hidden.last = true;
            let pair = if dice.chance(50) { [hidden, draft] } else { [draft, hidden] };
            all.extend(pair);
        }
    }
    all
}

fn set(draft: &mut Draft, member: &str, text: &str) {
    if let Some(version) = draft.record.pointer_mut(&format!("/meta/{member}")) {
        *version = json!(text);
        draft.version = text.to_owned();
    }
}

/// The same record under a label that withholds it, if some label does.
fn shadow(draft: &Draft, sight: &Sight, dice: &mut Dice) -> Option<Draft> {
    let seen = |record: &Value| sight.look(record.to_string().as_bytes()).map(|view| view.is_shown());
    if seen(&draft.record) != Some(true) {
        return None;
    }
    let from = dice.below(LABELS.len());
    let labels = LABELS.iter().cycle().skip(from).take(LABELS.len());
    labels.into_iter().find_map(|codes| {
        let mut record = draft.record.clone();
        let system = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
        let labels: Vec<Value> = codes.iter().map(|code| json!({ "system": system, "code": code })).collect();
        record.get_mut("meta")?.as_object_mut()?.insert("security".to_owned(), Value::Array(labels));
        (seen(&record) == Some(false)).then(|| Draft {
            resource: draft.resource,
            id: draft.id.clone(),
            version: draft.version.clone(),
            record,
            last: draft.last,
        })
    })
}

#[cfg(test)]
#[path = "worlds_tests.rs"]
mod tests;
