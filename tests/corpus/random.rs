//! A thousand random masks, spread over both corpora.
//!
//! Owns: masks nobody would write, and what must hold under them as it does under a role's.
//! Must never: differ from run to run, or let most records stay because one modifier was left out.
//! Look next: `leaves`, which judges what left; `tests/filter.rs`, the same for made records.
//!
//! A mask here is a set of decisions for a record and for each type inside it: on elements that occur there, so that
//! few are spent on nothing. The official examples take 700 of them by turns, so each gets one and most get two.
//! Synthea's records take 300, the records at equal distances in the order of the files. `CHARTGATE_CORPUS_TIMES=1000`
//! makes that a thousand for each example, and many for each record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use chartgate::domain::filter::{self, Document, References, Verdict};

use crate::dice::Dice;
use crate::leaves;
use crate::oracle::{self, Oracle, Tree};
use crate::{BASES, PUBLIC, UPSTREAM, corpus, problems, times, units};

const MASKS_FOR_EXAMPLES: usize = 700;
const MASKS_FOR_SYNTHEA: usize = 300;

/// Decisions on the elements of a record and of those inside it; modifiers are mostly kept, for one that is not keeps
/// the record here.
fn decisions(tree: &Tree, kinds: &BTreeSet<ResourceType>, dice: &mut Dice) -> BTreeMap<String, bool> {
    let mut paths = BTreeSet::new();
    let own = tree.resource_type().unwrap();
    oracle::paths_in(tree, r4::root(own), &[own.name().to_owned()], &mut paths);
    for kind in kinds {
        let elements = r4::elements(r4::root(*kind)).iter();
        paths.extend(elements.map(|element| format!("{}.{}", kind.name(), element.name)));
    }
    let mut decided: BTreeMap<String, bool> =
        kinds.iter().map(|kind| (kind.name().to_owned(), dice.roll(3) > 0)).collect();
    let (density, modifiers_kept) = (1 + dice.roll(10), dice.roll(10) > 0);
    for path in paths {
        let Ok(parsed) = ElementPath::parse(&path) else { continue };
        let modifier = parsed.element().is_some_and(|element| element.modifier);
        if modifier && modifiers_kept {
            decided.insert(path, true);
        } else if dice.roll(density) == 0 {
            decided.insert(path, dice.roll(2) == 0);
        }
    }
    decided
}

fn masks(decided: &BTreeMap<String, bool>) -> BTreeMap<ResourceType, Arc<Mask>> {
    let mut by_type: BTreeMap<ResourceType, Vec<(ElementPath, bool)>> = BTreeMap::new();
    for (path, keep) in decided {
        let path = ElementPath::parse(path).unwrap();
        by_type.entry(path.resource_type()).or_default().push((path, *keep));
    }
    by_type.into_iter().map(|(kind, decided)| (kind, Arc::new(Mask::new(kind, decided)))).collect()
}

/// A random mask for each record of a document, by type.
pub(crate) fn masks_for(document: &Document<'_>, tree: &Tree, dice: &mut Dice) -> Vec<Option<Arc<Mask>>> {
    let kinds = document.records().iter().map(|one| one.facts.resource_type).collect();
    let by_type = masks(&decisions(tree, &kinds, dice));
    document.records().iter().map(|one| by_type.get(&one.facts.resource_type).cloned()).collect()
}

/// One record under one random mask; whether it left.
fn one(name: &str, text: &str, valid: bool, dice: &mut Dice) -> bool {
    let document = filter::parse(text.as_bytes(), &BASES).expect(name);
    let tree = Tree::parse(text).unwrap();
    let all = units(&document, &tree);
    let Some(&(record, tree)) = all.get(dice.roll(all.len())) else { return false };
    let kinds = document.records().iter().map(|one| one.facts.resource_type).collect();
    let decided = decisions(tree, &kinds, dice);
    let by_type = masks(&decided);
    let masks: Vec<Option<Arc<Mask>>> =
        document.records().iter().map(|one| by_type.get(&one.facts.resource_type).cloned()).collect();
    let verdicts: Vec<Verdict<'_>> =
        masks.iter().map(|mask| mask.as_deref().map_or(Verdict::Withhold, Verdict::whole)).collect();
    let mut out = Vec::new();
    let left = document.emit(record, &verdicts, &References::default(), &BASES, &mut out).is_ok();
    let bases = vec![UPSTREAM.to_owned(), PUBLIC.to_owned()];
    let shown = format!("{name} under {decided:?}");
    let oracle = Oracle { decisions: decided, bases, public: PUBLIC.to_owned(), ..Oracle::default() };
    let found = left.then(|| String::from_utf8(out).unwrap());
    let told = found.as_deref().map(|found| Tree::parse(found).unwrap());
    assert!(told == oracle.record(tree).ok(), "{shown}: the oracle disagrees");
    let Some(found) = found else { return false };
    leaves::check(&shown, &document, &masks, record, tree, &found);
    leaves::check_bytes(&shown, std::str::from_utf8(document.raw(record)).unwrap(), &found);
    if valid {
        assert_eq!(problems(&found), Vec::<String>::new(), "{shown}: {found}");
        leaves::check_mandatory(&shown, tree, &found);
    }
    true
}

#[test]
fn examples_under_random_masks() {
    let Some(examples) = corpus("hl7-r4-examples") else { return };
    assert!(examples.len() <= MASKS_FOR_EXAMPLES, "each gets one");
    let mut dice = Dice(0x5eed_0001_cafe);
    let valid: Vec<bool> = examples.iter().map(|(_, text)| problems(text).is_empty()).collect();
    let all = MASKS_FOR_EXAMPLES * times();
    let turns = (0..all).map(|turn| turn % examples.len());
    let left = turns.filter(|&at| one(&examples[at].0, &examples[at].1, valid[at], &mut dice)).count();
    eprintln!("{left} of {all} examples left under a random mask");
    assert!(left > all / 3, "{left}");
}

#[test]
fn synthea_under_random_masks() {
    let Some(bundles) = corpus("synthea-r4") else { return };
    let count = |text: &String| text.matches("\"fullUrl\":").count();
    let all: usize = bundles.iter().map(|(_, text)| count(text)).sum();
    let masks = MASKS_FOR_SYNTHEA * times();
    let (mut dice, mut at, mut asked, mut left) = (Dice(0x5eed_0002_cafe), 0, 0, 0);
    for (name, text) in &bundles {
        let wanted = |at: usize| (at + 1) * masks / all - at * masks / all;
        let here = at..at + count(text);
        at = here.end;
        if here.clone().all(|at| wanted(at) == 0) {
            continue;
        }
        let tree = Tree::parse(text).unwrap();
        let entries = tree.member("entry").map(Tree::items).unwrap_or_default();
        assert_eq!(entries.len(), here.len(), "{name}");
        for (entry, at) in entries.iter().zip(here).filter(|(_, at)| wanted(*at) > 0) {
            let (text, name) = (entry.member("resource").unwrap().print(), format!("{name} {at}"));
            let valid = problems(&text).is_empty();
            asked += wanted(at);
            left += (0..wanted(at)).filter(|_| one(&name, &text, valid, &mut dice)).count();
        }
    }
    eprintln!("{left} of {asked} Synthea records left under a random mask");
    assert_eq!(asked, masks);
    assert!(left > asked / 3, "{left}");
}
