//! `_elements` and `_summary` over records: what was asked for and permitted, and nothing made up.
//!
//! Owns: shapes against the R4 tables read anew, against the oracle, and the law of joined masks.
//! Must never: ask `domain::fhir::shape` what should be kept where the tables can say it.
//! Look next: `tests/filter.rs`; `domain::fhir::shape`.

use super::*;
use chartgate::domain::fhir::shape::Shape;

fn total(kind: ResourceType) -> BTreeMap<String, bool> {
    let extensible = r4::property(r4::root(kind), "extension").is_some();
    let own = extensible.then(|| (format!("{}.extension", kind.name()), true));
    [(kind.name().to_owned(), true)].into_iter().chain(own).collect()
}

fn random_shape(kind: ResourceType, dice: &mut Dice) -> Shape {
    let elements = r4::elements(r4::root(kind));
    match dice.roll(6) {
        0 => Shape::Summary,
        1 => Shape::Text,
        2 => Shape::Data,
        _ => {
            let names: Vec<&str> =
                (0..=dice.roll(3)).map(|_| elements[dice.roll(elements.len())].name).collect();
            Shape::read(Some(&names.join(",")), None, &[kind]).expect("they are all of R4")
        }
    }
}

/// Filters a record for a client that wants it in a shape; what it contains is not shaped.
fn shaped(input: &str, oracle: &Oracle, shape: &Shape) -> Result<String, Withheld> {
    let document = filter::parse(input.as_bytes(), &BASES).unwrap();
    let masks = masks(&oracle.decisions);
    let mut verdicts = verdicts(&document, &masks);
    let kind = document.records()[0].facts.resource_type;
    let asked = shape.mask(kind);
    let both =
        masks.get(&kind).zip(asked.as_ref()).map(|(policy, asked)| (policy.and(asked), policy.is_total()));
    if let Some((mask, complete)) = &both {
        verdicts[0] = Verdict::Release { mask, complete: *complete };
    }
    emitted(&document, &verdicts, oracle, 0)
}

fn has_inner_of(tree: &Tree, kind: ResourceType) -> bool {
    let mut found = Vec::new();
    resources(tree, r4::root(kind), &mut found);
    found.iter().skip(1).any(|one| one.resource_type() == Some(kind))
}

/// The shape as decisions for the oracle. Content references have no place in lists of what is kept, so they are added.
fn asked(shape: &Shape, kind: ResourceType) -> BTreeMap<String, bool> {
    let mask = shape.mask(kind).expect("not whole");
    let mut decisions: BTreeMap<String, bool> = mask.kept().into_iter().map(|path| (path, true)).collect();
    if decisions.contains_key(kind.name()) {
        decisions.extend(total(kind));
    }
    let mut waiting = vec![(r4::root(kind), kind.name().to_owned(), mask.cursor())];
    while let Some((structure, path, cursor)) = waiting.pop() {
        for element in r4::elements(structure) {
            let (path, cursor) = (format!("{path}.{}", element.name), cursor.child(element.name));
            if element.rewind.is_some() {
                if cursor.keeps() {
                    decisions.insert(path, true);
                }
            } else if let [part] = element.types
                && r4::type_name(*part).contains('.')
            {
                waiting.push((*part, path, cursor));
            }
        }
    }
    decisions
}

/// Names of the members that a shape leaves of a record nobody else trims, straight from the tables.
fn expected_members(shape: &Shape, kind: ResourceType, element: &r4::Element) -> bool {
    let always = ["id", "meta"].contains(&element.name) || element.min > 0 || element.modifier;
    match shape {
        Shape::Elements(names) => {
            // An element may be defined inside another one, which then comes along.
            let defines = |asked: &str| {
                let inside = oracle_paths(kind);
                inside.iter().any(|(path, target)| {
                    let first = |path: &str| path.split('.').nth(1).map(str::to_owned);
                    let brings = first(path).is_some_and(|first| {
                        asked == first
                            || r4::property(r4::root(kind), &first).is_some_and(|one| one.element.min > 0)
                    });
                    brings && first(target).as_deref() == Some(element.name)
                })
            };
            always || names.iter().any(|name| name == element.name || defines(name))
        }
        Shape::Summary => always || element.summary,
        Shape::Text => always || element.name == "text",
        Shape::Data => element.name != "text",
        Shape::Whole | Shape::Count => panic!("not asked here"),
    }
}

/// Content references of a type: where they stand, and where they continue.
fn oracle_paths(kind: ResourceType) -> Vec<(String, &'static str)> {
    let (mut found, mut waiting) = (Vec::new(), vec![(r4::root(kind), kind.name().to_owned())]);
    while let Some((structure, path)) = waiting.pop() {
        for element in r4::elements(structure) {
            let path = format!("{path}.{}", element.name);
            match (element.rewind, element.types) {
                (Some(target), _) => found.push((path, target)),
                (None, [part]) if r4::type_name(*part).contains('.') => waiting.push((*part, path)),
                _ => {}
            }
        }
    }
    found
}

/// T-034, T-035: a caller who may see all gets what was asked for, whole, in upstream's words, with no mark.
#[test]
fn t_034_examples_in_every_shape() {
    let mut dice = Dice(0x000a_5ced_f00d);
    let all: BTreeMap<String, bool> = ResourceType::all().flat_map(total).collect();
    let (mut shaped_records, mut cut) = (0, 0);
    for (path, text) in examples().into_iter().filter(|(_, text)| is_record(text) && text.len() < 100_000) {
        let tree = Tree::parse(&text).unwrap();
        let kind = tree.resource_type().unwrap();
        let valid = problems(&text).is_empty();
        for _ in 0..3 {
            let shape = random_shape(kind, &mut dice);
            let name = format!("{} {shape:?}", path.display());
            let oracle = Oracle { asked: BTreeMap::new(), ..oracle(all.clone()) };
            let found = shaped(&text, &oracle, &shape).unwrap_or_else(|why| panic!("{name}: {why}"));
            let left = Tree::parse(&found).unwrap();
            for (key, value) in
                tree.members().iter().filter(|(key, _)| key != "resourceType" && key != "meta")
            {
                let element = r4::property(r4::root(kind), key).unwrap().element;
                let expected = expected_members(&shape, kind, element);
                let given = left.member(key);
                assert!(expected || given.is_none(), "{name}: {key} was not asked for");
                let partly = shape == Shape::Summary && !matches!(value, Tree::Scalar(_));
                let continued = !oracle_paths(kind).is_empty();
                assert!(!expected || given == Some(value) || partly || continued, "{name}: {key} in {found}");
                cut += usize::from(!expected);
            }
            let marks = |text: &str| text.matches("\"masked\"").count();
            assert!(marks(&found) <= marks(&text), "{name}: a shape needs no mark: {found}");
            assert_eq!(
                found.contains("SUBSETTED"),
                !shape.mask(kind).unwrap().is_total() || text.contains("SUBSETTED")
            );
            if valid {
                assert_eq!(problems(&found), Vec::<String>::new(), "{name}: {found}");
            }
            if !has_inner_of(&tree, kind) {
                let oracle = Oracle { asked: asked(&shape, kind), ..oracle };
                compare(&text, &oracle, Ok(found)).unwrap_or_else(|why| panic!("{name}: {why}"));
            }
            shaped_records += 1;
        }
    }
    assert!(cut > shaped_records, "{cut} members cut from {shaped_records} records");
}

/// T-036: the narrative stays with a record nobody trims, whatever else the client left out, and goes with any other.
#[test]
fn t_036_a_narrative_is_kept_by_a_complete_verdict_only() {
    let input = r##"{"resourceType":"Patient","id":"1","text":{"status":"generated","div":"<div>canary</div>"},
        "contained":[{"resourceType":"Practitioner","id":"c"}],"birthDate":"1970",
        "generalPractitioner":[{"reference":"#c"}]}"##;
    let mut decisions = total(ResourceType::from_name("Patient").unwrap());
    decisions.extend(total(ResourceType::from_name("Practitioner").unwrap()));
    let text = shaped(input, &oracle(decisions.clone()), &Shape::Text).unwrap();
    assert!(text.contains("canary") && text.contains("SUBSETTED") && !text.contains("birthDate"), "{text}");
    let asked = Shape::read(Some("generalPractitioner"), None, &[]).unwrap();
    let some = shaped(input, &oracle(decisions.clone()), &asked).unwrap();
    assert!(
        some.contains("\"#c\"") && !some.contains("contained"),
        "what is contained was not asked for: {some}"
    );
    decisions.insert("Patient.birthDate".to_owned(), false);
    let text = shaped(input, &oracle(decisions.clone()), &Shape::Text).unwrap();
    assert!(!text.contains("canary"), "{text}");
    decisions.remove("Patient.birthDate");
    decisions.insert("Practitioner.name".to_owned(), false);
    let text = shaped(input, &oracle(decisions), &Shape::Text).unwrap();
    assert!(!text.contains("canary"), "it may speak of what is contained: {text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    /// T-034, T-061: under a policy and a shape together, filter and oracle say the same.
    #[test]
    fn t_034_made_records_in_shapes_agree_with_the_oracle(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        let kind = tree.resource_type().unwrap();
        prop_assume!(!has_inner_of(&tree, kind));
        for round in 0..4 {
            let shape = random_shape(kind, &mut dice);
            let mut oracle = random_oracle(&tree, &mut dice);
            if round == 0 {
                oracle.decisions = ResourceType::all().flat_map(total).collect();
            }
            oracle.asked = asked(&shape, kind);
            let found = shaped(&text, &oracle, &shape);
            compare(&text, &oracle, found).map_err(|why| TestCaseError::fail(format!("{why}\n{shape:?} {oracle:?}")))?;
        }
    }

    /// Under two masks joined as under one after the other, where no mark was left for the second to find.
    #[test]
    fn a_joined_mask_is_one_after_the_other(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        let (one, two) = (random_decisions(&tree, &mut dice), random_decisions(&tree, &mut dice));
        let (one, two) = (masks(&one), masks(&two));
        let both = one.iter().filter_map(|(kind, one)| Some((*kind, one.and(two.get(kind)?)))).collect();
        let under = |text: &str, masks: &BTreeMap<ResourceType, Mask>| {
            let document = filter::parse(text.as_bytes(), &BASES).unwrap();
            emitted(&document, &verdicts(&document, masks), &oracle(BTreeMap::new()), 0)
        };
        let (joined, first) = (under(&text, &both), under(&text, &one));
        let second = first.and_then(|first| under(&first, &two));
        let marked = |found: &Result<String, Withheld>| found.as_ref().is_ok_and(|text| text.contains("\"masked\""));
        prop_assume!(!marked(&joined) && !marked(&second));
        if let (Ok(joined), Ok(second)) = (&joined, &second) {
            // The tag of the first goes where a tag belongs that stands alone; the second finds it there.
            let sorted = |text: &str| {
                let mut members = Tree::parse(text).unwrap().members().to_vec();
                members.sort_by(|one, other| one.0.cmp(&other.0));
                Tree::Object(members)
            };
            prop_assert_eq!(sorted(joined), sorted(second), "{}", text);
        }
    }
}
