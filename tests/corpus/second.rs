//! What leaves is valid for a second validator, which has nothing in common with the first: `fhir.resources`.
//!
//! Owns: asking it about every official example under every role and a random mask, and about a sample of Synthea's records.
//! Must never: pass where it cannot be had, if `CHARTGATE_REQUIRE_NEIGHBOURS` says it must.
//! Look next: `tests/validator/validate.py`, which answers; `random`, whose masks these are.

use super::*;
use crate::dice::Dice;
use crate::python::Program;

/// Of Synthea's records one in this many is asked about, unless told to ask about more; they are much alike.
const SYNTHEA_EVERY: usize = 40;

/// What is wrong with each of the records; none where it cannot say.
fn problems_of(records: &[String], second: &mut Program) -> Vec<Option<Vec<String>>> {
    second.ask(&records)
}

/// A record as it came, and what leaves of it under each role and one random mask, each different text once.
fn versions(name: &str, text: &str, roles: &[Role], dice: &mut Dice) -> Vec<Vec<String>> {
    let document = filter::parse(text.as_bytes(), &BASES).expect(name);
    let tree = Tree::parse(text).unwrap();
    let each = |(record, tree): (usize, &Tree)| {
        let mut texts = vec![String::from_utf8(document.raw(record).to_vec()).unwrap()];
        let sights: Vec<Sight<'_>> = roles.iter().map(Role::sight).collect();
        let asked = sights.iter().map(|sight| (sight.masks(&document), sight.references.clone()));
        let random = (random::masks_for(&document, tree, dice), References::default());
        for (masks, references) in asked.chain([random]) {
            let verdicts: Vec<Verdict<'_>> =
                masks.iter().map(|mask| mask.as_deref().map_or(Verdict::Withhold, Verdict::whole)).collect();
            let mut out = Vec::new();
            if document.emit(record, &verdicts, &references, &BASES, &mut out).is_ok() {
                let out = String::from_utf8(out).unwrap();
                if !texts.contains(&out) {
                    texts.push(out);
                }
            }
        }
        texts
    };
    units(&document, &tree).into_iter().map(each).collect()
}

/// How many were judged, and whether it was valid as it came.
fn judge(name: &str, versions: &[String], second: &mut Program) -> (usize, usize) {
    let found = problems_of(versions, second);
    assert_eq!(found.len(), versions.len(), "{name}");
    if found[0].as_ref().is_none_or(|problems| !problems.is_empty()) {
        return (0, 0);
    }
    let said = found.iter().zip(versions).filter_map(|(problems, text)| Some((problems.as_ref()?, text)));
    let judged =
        said.inspect(|(problems, text)| assert!(problems.is_empty(), "{name}: {problems:?} in {text}"));
    (judged.count() - 1, 1)
}

#[test]
fn what_leaves_is_valid_for_a_second_validator() {
    let (Some(examples), Some(bundles)) = (corpus("hl7-r4-examples"), corpus("synthea-r4")) else { return };
    let Some(mut second) = Program::start("validator", &["validate.py"], "import fhir.resources.R4B") else {
        return;
    };
    let wrong = r#"{"resourceType":"Patient","active":3}"#.to_owned();
    assert_ne!(problems_of(&[wrong], &mut second)[0], Some(Vec::new()), "it can tell");
    let (roles, mut dice) = (roles::shipped(), Dice(0x5eed_0003_cafe));
    let (mut judged, mut valid, mut asked) = (0, 0, 0);
    let mut ask = |name: &str, text: &str, dice: &mut Dice| {
        for versions in versions(name, text, &roles, dice) {
            let (some, one) = judge(name, &versions, &mut second);
            (judged, valid, asked) = (judged + some, valid + one, asked + 1);
        }
    };
    for (name, text) in &examples {
        ask(name, text, &mut dice);
    }
    for (name, text) in &bundles {
        let tree = Tree::parse(text).unwrap();
        for entry in
            tree.member("entry").map(Tree::items).unwrap_or_default().iter().step_by(one_in(SYNTHEA_EVERY))
        {
            ask(name, &entry.member("resource").unwrap().print(), &mut dice);
        }
    }
    eprintln!(
        "{judged} records that leave are valid for the second validator; {valid} of {asked} were as they came"
    );
    assert!(judged > 600 && valid * 2 > asked, "{judged} {valid} {asked}");
}
