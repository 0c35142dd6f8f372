//! A record says and gives the same alone and among its likes, of which most text is not read again.
//!
//! Owns: the law of what is remembered of a long text, on made records that come back whole and slightly changed.
//! Must never: compare with anything but the record alone, which is too short for anything to be remembered.
//! Look next: `domain::filter::pattern`, `domain::filter::plan`.

use super::*;

/// Bytes of a Bundle from which on values are remembered, with room to spare.
const LONG: usize = 40_000;

/// The same record with a letter more in one of its strings, or with white space before or behind one of its colons.
fn changed(record: &str, dice: &mut Dice) -> String {
    if dice.one_in(3) {
        let colons: Vec<usize> = record.match_indices("\":").map(|(at, _)| at + 1 + dice.roll(2)).collect();
        let Some(at) = colons.get(dice.roll(colons.len())) else { return record.to_owned() };
        return format!("{}{}{}", &record[..*at], [" ", "\n\t", "        "][dice.roll(3)], &record[*at..]);
    }
    let values: Vec<usize> = record.match_indices(":\"").map(|(at, _)| at + 2).collect();
    let is_type =
        |at: usize| record[..at].trim_end_matches([':', '"', ' ', '\n', '\t']).ends_with("resourceType");
    let value = values.get(dice.roll(values.len())).filter(|at| !is_type(**at));
    match value {
        Some(&at) => format!("{}x{}", &record[..at], &record[at..]),
        None => record.to_owned(),
    }
}

/// The records with which the given ones come back, each time changed further or not.
fn sequence(records: &[String], dice: &mut Dice) -> Vec<String> {
    let (mut now, mut all, mut len) = (records.to_vec(), Vec::new(), 0);
    while len < LONG {
        let at = dice.roll(now.len());
        if dice.roll(4) == 0 {
            now[at] = changed(&now[at], dice);
        }
        for _ in 0..=dice.roll(3) {
            len += now[at].len() + 1;
            all.push(now[at].clone());
        }
    }
    all
}

/// What a record says: facts of all in it, and references.
fn said(document: &Document<'_>, record: usize) -> Vec<String> {
    let records = document.records();
    let inside = |one: &filter::Record| one.container.is_some_and(|container| container >= record);
    let end = record + 1 + records[record + 1..].iter().take_while(|one| inside(one)).count();
    let mut said = vec![format!("{:?}", document.references(record))];
    for Facts { id, version, last_updated, patients, mentions, labels, status, category, code, .. } in
        records[record..end].iter().map(|record| &record.facts)
    {
        let sets = [patients, mentions, labels, category, code].map(|set| (**set).clone());
        said.push(format!("{id:?} {version:?} {last_updated:?} {status:?} {sets:?}"));
    }
    said
}

/// An oracle with its masks, the same for all records: what is written of one may be remembered for the next.
struct Terms {
    oracle: Oracle,
    masks: BTreeMap<ResourceType, Mask>,
}

impl Terms {
    fn of(oracle: Oracle) -> Self {
        let masks = masks(&oracle.decisions);
        Self { oracle, masks }
    }

    /// With names in references hidden, as the oracle has it, and with none.
    fn both(oracle: Oracle) -> [Self; 2] {
        let (hide_display, hide_identifier) = (BTreeSet::new(), BTreeSet::new());
        [Self::of(Oracle { hide_display, hide_identifier, ..oracle.clone() }), Self::of(oracle)]
    }

    /// What a record gives: its text, and what of it is outside the mask.
    fn given(&self, document: &Document<'_>, record: usize) -> [String; 2] {
        let text = emitted(document, &verdicts(document, &self.masks), &self.oracle, record);
        let mask = self.masks.get(&document.records()[record].facts.resource_type);
        [format!("{text:?}"), format!("{:?}", mask.and_then(|mask| document.outside(record, mask)))]
    }
}

fn holds(seed: u64) -> Result<(), TestCaseError> {
    let (first, mut dice) = made(seed);
    let (second, _) = made(seed.wrapping_mul(3));
    let own: Vec<String> =
        [first, second].into_iter().filter(|text| is_record(text) && text.len() < 4000).collect();
    prop_assume!(!own.is_empty());
    let trees: Vec<Tree> = own.iter().map(|text| Tree::parse(text).unwrap()).collect();
    let twice = trees.iter().flat_map(|tree| [tree, tree]);
    let terms: Vec<Terms> = twice.flat_map(|tree| Terms::both(random_oracle(tree, &mut dice))).collect();
    let records = sequence(&own, &mut dice);
    let bundle = searchset(&records);
    let document = filter::parse(bundle.as_bytes(), &BASES);
    let among = document.map_err(|fault| TestCaseError::fail(format!("{fault}")))?;
    let entries = || among.bundle().unwrap().entries.iter().map(|entry| entry.record.unwrap()).zip(&records);
    let alone = |record: &str| {
        let alone =
            filter::parse(record.as_bytes(), &BASES).map(|alone| (said(&alone, 0), given(&terms, &alone, 0)));
        alone.map_err(|fault| TestCaseError::fail(format!("{fault}: {record}")))
    };
    let mut wanted = Vec::new();
    for (entry, record) in entries() {
        let (said_alone, given_alone) = alone(record)?;
        prop_assert_eq!(said(&among, entry), said_alone, "{}", record);
        wanted.push(given_alone);
    }
    // One mask after the other, and then all of them for each record.
    for (at, terms) in terms.iter().enumerate() {
        for ((entry, record), wanted) in entries().zip(&wanted) {
            prop_assert_eq!(&terms.given(&among, entry), &wanted[at], "{}", record);
        }
    }
    for ((entry, record), wanted) in entries().zip(&wanted) {
        prop_assert_eq!(&given(&terms, &among, entry), wanted, "{}", record);
    }
    Ok(())
}

fn given(terms: &[Terms], document: &Document<'_>, record: usize) -> Vec<[String; 2]> {
    terms.iter().map(|terms| terms.given(document, record)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn a_record_is_the_same_among_its_likes(seed in any::<u64>()) {
        holds(seed)?;
    }
}

pub(super) fn searchset(records: &[String]) -> String {
    let entries: Vec<String> = records.iter().map(|record| format!("{{\"resource\":{record}}}")).collect();
    format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{}]}}"#, entries.join(","))
}

/// What is said deep inside a value that came back is said again when what is around it comes back.
#[test]
fn what_came_back_inside_is_said_again() {
    let record = |note: usize| {
        format!(
            r#"{{"resourceType":"Appointment","status":"booked","participant":[{{"extension":[
            {{"url":"http://a.example/{note}","valueReference":{{"reference":"Patient/p1","display":"Somebody"}}}}],
            "status":"accepted"}}]}}"#
        )
    };
    let bundle = searchset(&(0..300).map(|at| record(at / 5)).collect::<Vec<_>>());
    for record in filter::parse(bundle.as_bytes(), &BASES).unwrap().records() {
        assert_eq!(record.facts.mentions.iter().collect::<Vec<_>>(), ["p1"]);
    }
}

/// However often it came.
#[test]
fn a_record_inside_is_a_record_each_time() {
    let record = |at: usize| {
        format!(
            r#"{{"resourceType":"Parameters","parameter":[{{"name":"patient","resource":
            {{"resourceType":"Patient","id":"p{at}","active":true,"gender":"female","birthDate":"1970-01-01"}}}}]}}"#
        )
    };
    let bundle = searchset(&(0..300).map(|at| record(at / 5)).collect::<Vec<_>>());
    let document = filter::parse(bundle.as_bytes(), &BASES).unwrap();
    let inside = document.records().iter().filter(|record| record.container.is_some());
    let ids: Vec<_> = inside.map(|record| record.facts.id.clone().unwrap()).collect();
    assert_eq!(ids, (0..300).map(|at| format!("p{}", at / 5)).collect::<Vec<_>>());
}

/// References of the same length and build, of which each says something else.
#[test]
fn a_reference_says_its_own_in_records_built_alike() {
    const TARGETS: [(&str, &[&str]); 6] = [
        ("Patient/p1", &["p1"]),
        ("Encounter/1", &[]),
        ("https://emr.internal/fhir/R4/Patient/p2", &["p2"]),
        ("https://elsewhere.example/Patient/p3", &[]),
        ("https://emr.internal/fhir/R4/Encounter/2", &[]),
        ("urn:uuid:Patient/p4", &[]),
    ];
    let record = |at: usize| {
        let target = TARGETS[at % TARGETS.len()].0;
        format!(
            r#"{{"resourceType":"Observation","id":"o{at}","status":"final","code":{{"text":"made up"}},
            "subject":{{"reference":"{target}"}},"valueString":"{at}"}}"#
        )
    };
    let records: Vec<String> = (0..400).map(record).collect();
    let bundle = searchset(&records);
    let document = filter::parse(bundle.as_bytes(), &BASES).unwrap();
    let terms =
        Terms::of(Oracle { decisions: [("Observation".to_owned(), true)].into(), ..Oracle::default() });
    for (at, record) in document.records().iter().enumerate() {
        let (target, patients) = TARGETS[at % TARGETS.len()];
        assert_eq!(record.facts.mentions.iter().collect::<Vec<_>>(), patients, "{target}");
        assert_eq!(record.facts.patients.iter().collect::<Vec<_>>(), patients, "{target}");
        let alone = filter::parse(records[at].as_bytes(), &BASES).unwrap();
        assert_eq!(terms.given(&document, at), terms.given(&alone, 0), "{target}");
    }
}

/// An Observation that holds this text and this number, written as they are.
fn holding(at: usize, text: &str, number: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{text}","status":"final","code":{{"text":"{text}{at}"}},
        "component":[{{"code":{{"text":"made up"}},"valueQuantity":{{"value":{number},"unit":"{text}"}}}}]}}"#
    )
}

/// What is met in the place of a string or number, after so many of its likes that it is learned in each way.
fn met_after_its_likes(text: &str, number: &str) -> Vec<Vec<String>> {
    let likes = |many: usize| (0..many).map(|at| holding(at, "plain", "12"));
    let rest = || (0..60).map(|at| holding(at, &format!("{at}"), &format!("{at}.5")));
    let varied = |many: usize| (0..many).map(|at| holding(at, &format!("v{at}"), &format!("{at}")));
    let all = [0, 1, 2, 3, 4, 8, 12].into_iter();
    let met = holding(7, text, number);
    let equal = all.clone().map(|many| likes(many).chain([met.clone()]).chain(rest()).collect());
    let other = all.map(|many| varied(many).chain([met.clone()]).chain(rest()).collect());
    equal.chain(other).collect()
}

#[test]
fn a_string_with_escapes_says_its_own_in_records_built_alike() {
    const TEXTS: [&str; 6] = [
        r"a\nb",
        r"\u0041b",
        r#"a\"b"#,
        r"a\\",
        r#"a\",\"b"#,
        r"\ud83d\ude00 and what follows it, far beyond one block of bytes",
    ];
    let all = mask("Observation", &[("Observation", true), ("Observation.code", false)]);
    for text in TEXTS {
        for records in met_after_its_likes(text, "12") {
            each_says_as_alone(&records);
            each_is_written_as_alone(&records, &|_, _| Verdict::whole(&all), &nothing_hidden);
        }
    }
}

#[test]
fn what_is_no_json_is_none_in_records_built_alike() {
    let long = "far beyond one block of bytes ".repeat(5) + "\u{1}";
    let texts = [r"a\qb", "a\u{1}b", "a\nb", "a\tb", r"\ud800", r"a\u00g0", &long].map(|text| (text, "12"));
    let numbers = ["01", "1.", "-", "1e", "+1", ".5", "1.5.5", "0x1", "--1"].map(|number| ("plain", number));
    for (text, number) in texts.into_iter().chain(numbers) {
        let alone = filter::parse(holding(7, text, number).as_bytes(), &BASES).map(drop).map_err(fault_name);
        assert!(alone.is_err(), "{text} {number}");
        for records in met_after_its_likes(text, number) {
            let among = filter::parse(searchset(&records).as_bytes(), &BASES).map(drop).map_err(fault_name);
            assert_eq!(among, alone, "{text} {number} among {}", records.len());
        }
    }
}

/// A value that is known stands behind a name that is spelled, and spaced, in its own way.
#[test]
fn a_name_is_written_as_it_came_before_what_is_known() {
    const NAMES: [&str; 3] = ["code", r"\u0063ode", r"co\u0064\u0065"];
    const SPACES: [&str; 5] = ["", " ", "\n\t", "      ", "\r\n \r\n \r\n "];
    let record = |at: usize| {
        let (name, before, behind) = (NAMES[at % 3], SPACES[at / 3 % 5], SPACES[at / 7 % 5]);
        format!(
            r#"{{"resourceType":"Observation","id":"o{at}","status":"final","note":[{{"text":"n"}}],"{name}"{before}:{behind}{{
            "coding":[{{"system":"http://a.example","code":"{at}","display":"made up"}}],"text":"as well"}},
            "valueString":"{at}"}}"#
        )
    };
    let records: Vec<String> = (0..400).map(record).collect();
    // What stands before the name goes, or what stands behind the value, or both.
    let hidden = [&["note"][..], &["value"], &["note", "value"], &["note", "code.text"], &["code.text"]];
    for hidden in hidden {
        let paths: Vec<String> = hidden.iter().map(|name| format!("Observation.{name}")).collect();
        let hidden = paths.iter().map(|path| (path.as_str(), false));
        let few = mask("Observation", &hidden.chain([("Observation", true)]).collect::<Vec<_>>());
        each_is_written_as_alone(&records, &|_, _| Verdict::whole(&few), &nothing_hidden);
    }
}

/// Each record among the others says what it says alone. Gives all that was said.
pub(super) fn each_says_as_alone(records: &[String]) -> BTreeSet<Vec<String>> {
    let bundle = searchset(records);
    let among = filter::parse(bundle.as_bytes(), &BASES).unwrap();
    let entries = among.bundle().unwrap().entries.iter().map(|entry| entry.record.unwrap());
    let compared = entries.zip(records).map(|(entry, record)| {
        let alone = said(&filter::parse(record.as_bytes(), &BASES).unwrap(), 0);
        assert_eq!(said(&among, entry), alone, "{record}");
        alone
    });
    compared.collect()
}

/// Who sees what of the record at a place, and of those inside it.
type Sight<'s> = dyn Fn(usize, &filter::Record) -> Verdict<'s> + 's;

/// Each record among the others is written as it would be alone, under a sight and hidden names of its own.
pub(super) fn each_is_written_as_alone(
    records: &[String],
    sight: &Sight<'_>,
    hidden: &dyn Fn(usize) -> References,
) {
    let bundle = searchset(records);
    let among = filter::parse(bundle.as_bytes(), &BASES).unwrap();
    let written = |document: &Document<'_>, record: usize, at: usize| {
        let verdicts: Vec<_> = document.records().iter().map(|record| sight(at, record)).collect();
        let mut out = Vec::new();
        let emitted = document.emit(record, &verdicts, &hidden(at), &BASES, &mut out);
        (emitted, String::from_utf8(out).unwrap())
    };
    let mut seen = BTreeSet::new();
    for (at, entry) in among.bundle().unwrap().entries.iter().enumerate() {
        let alone = filter::parse(records[at].as_bytes(), &BASES).unwrap();
        let wanted = written(&alone, 0, at);
        assert_eq!(written(&among, entry.record.unwrap(), at), wanted, "{}", records[at]);
        seen.insert(wanted.1.len());
    }
    assert!(seen.len() > 1, "all came out alike: nothing had a say");
}

pub(super) fn mask(kind: &str, decided: &[(&str, bool)]) -> Mask {
    let paths = decided.iter().map(|(path, keep)| (ElementPath::parse(path).unwrap(), *keep));
    Mask::new(ResourceType::from_name(kind).unwrap(), paths)
}

pub(super) fn nothing_hidden(_: usize) -> References {
    References::default()
}

fn observations(member: impl Fn(usize) -> String) -> Vec<String> {
    let record = |at: usize| {
        let member = member(at);
        format!(
            r#"{{"resourceType":"Observation","id":"o{at}","status":"final",{member},"code":{{"text":"made up"}},
            "valueString":"value {at}"}}"#
        )
    };
    (0..300).map(record).collect()
}

#[test]
fn a_mask_has_a_say_in_records_built_alike() {
    let records = observations(|at| format!(r#""subject":{{"reference":"Patient/{at}"}}"#));
    let all = mask("Observation", &[("Observation", true)]);
    let masks = [
        &all,
        &mask("Observation", &[("Observation", true), ("Observation.value", false)]),
        &mask("Observation", &[("Observation", true), ("Observation.subject", false)]),
    ];
    let sight = |at: usize, _: &filter::Record| Verdict::whole(masks[at / 7 % 3]);
    each_is_written_as_alone(&records, &sight, &nothing_hidden);
    // Under one mask, but policy's own was total for every other record.
    let narrative = |at: usize| format!(r#""text":{{"status":"generated","div":"<div>{at}</div>"}}"#);
    let few = mask("Observation", &[("Observation", true), ("Observation.value", false)]);
    let sight =
        |at: usize, _: &filter::Record| Verdict::Release { mask: &few, complete: (at / 7).is_multiple_of(2) };
    each_is_written_as_alone(&observations(narrative), &sight, &nothing_hidden);
}

#[test]
fn a_string_has_a_say_in_records_built_alike() {
    let all = mask("Observation", &[("Observation", true)]);
    let sight = |_: usize, _: &filter::Record| Verdict::whole(&all);
    let moved = |at: usize| {
        let base = ["https://emr.internal/fhir/R4/", "https://elsewhere.example/f/"][at / 5 % 2];
        format!(r#""subject":{{"reference":"{base}Patient/{at}"}}"#)
    };
    each_is_written_as_alone(&observations(moved), &sight, &nothing_hidden);
    let tagged = |at: usize| {
        let system = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
        let code = ["SUBSETTED", "CREATEDBY"][at / 5 % 2];
        format!(r#""meta":{{"tag":[{{"system":"{system}","code":"{code}"}}]}}"#)
    };
    each_is_written_as_alone(&observations(tagged), &sight, &nothing_hidden);
    let extended = |at: usize| {
        let url = ["http://a.example/open", "http://a.example/shut"][at / 5 % 2];
        let value =
            if at < 150 { "\"valueBoolean\":true".to_owned() } else { format!("\"valueString\":\"{at}\"") };
        format!(r#""extension":[{{"url":"{url}",{value}}}]"#)
    };
    let open = "Observation.extension('http://a.example/open')";
    let some = mask("Observation", &[("Observation", true), (open, true)]);
    let sight = |_: usize, _: &filter::Record| Verdict::whole(&some);
    each_is_written_as_alone(&observations(extended), &sight, &nothing_hidden);
}

#[test]
fn names_and_records_inside_have_a_say_in_records_built_alike() {
    let all = mask("Observation", &[("Observation", true)]);
    let patient = mask("Patient", &[("Patient", true)]);
    let named = |at: usize| format!(r#""subject":{{"reference":"Patient/{at}","display":"Somebody {at}"}}"#);
    let hidden = |at: usize| {
        let kinds =
            [ResourceType::from_name("Patient").unwrap()].into_iter().filter(|_| (at / 5).is_multiple_of(2));
        References { hide_display: kinds.collect(), ..References::default() }
    };
    let sight = |_: usize, _: &filter::Record| Verdict::whole(&all);
    each_is_written_as_alone(&observations(named), &sight, &hidden);
    let containing = |at: usize| {
        let inside =
            format!(r#"{{"resourceType":"Patient","id":"p","birthDate":"1970-01-{:02}"}}"#, at % 28 + 1);
        let subject = ["#p".to_owned(), format!("Patient/{at}")][at / 11 % 2].clone();
        format!(r#""contained":[{inside}],"subject":{{"reference":"{subject}"}}"#)
    };
    let sight = |at: usize, record: &filter::Record| match record.contained {
        true if (at / 5).is_multiple_of(2) => Verdict::Withhold,
        true => Verdict::whole(&patient),
        false => Verdict::whole(&all),
    };
    each_is_written_as_alone(&observations(containing), &sight, &nothing_hidden);
}

/// Texts of which each comes first, often enough to be learned, and then all of them in turn.
pub(super) fn each_first<'t>(texts: &'t [&'t str]) -> impl Iterator<Item = Vec<&'t str>> {
    texts.iter().map(|first| {
        let turns = (0..300).map(|at| texts[at / 3 % texts.len()]);
        std::iter::repeat_n(*first, 20).chain(turns).collect()
    })
}

/// T-102: a URL that leads past us goes, whatever was read in its place before.
#[test]
fn t_102_a_url_leads_where_it_leads_in_records_built_alike() {
    const URLS: [&str; 6] = [
        "https://emr.internal/fhir/R4/Binary/1",
        "https://elsewhere.example/R4/Binary/1",
        "https://fhir.hospital.example/fhir/Binary/1",
        "Binary/1",
        "urn:uuid:1",
        "//elsewhere.example/Binary/1",
    ];
    let masks = [
        mask("DocumentReference", &[("DocumentReference", true)]),
        mask("DocumentReference", &[("DocumentReference", true), ("DocumentReference.description", false)]),
        mask(
            "DocumentReference",
            &[("DocumentReference", true), ("DocumentReference.content.attachment.title", false)],
        ),
    ];
    let record = |url: &str| {
        format!(
            r#"{{"resourceType":"DocumentReference","status":"current","description":"made up","content":[{{"attachment":{{
            "contentType":"text/plain","url":"{url}","size":7,"hash":"aGFzaA==","title":"made up"}},"format":{{"code":"a"}}}}]}}"#
        )
    };
    for urls in each_first(&URLS) {
        let records: Vec<String> = urls.into_iter().map(record).collect();
        for mask in &masks {
            each_is_written_as_alone(&records, &|_, _| Verdict::whole(mask), &nothing_hidden);
        }
    }
}

/// A reference to what is contained goes where that stays, whatever was read in its place before.
#[test]
fn a_fragment_names_what_is_inside_in_records_built_alike() {
    const REFERENCES: [&str; 6] =
        ["Patient/p", "#p", "#", "https://emr.internal/fhir/R4/Patient/p", "Group/g", "#nobody"];
    let masks = [
        mask("Observation", &[("Observation", true)]),
        mask("Observation", &[("Observation", true), ("Observation.performer.display", false)]),
    ];
    let patient = mask("Patient", &[("Patient", true)]);
    let record = |reference: &str| {
        format!(
            r#"{{"resourceType":"Observation","contained":[{{"resourceType":"Patient","id":"p","active":true}}],"status":"final",
            "subject":{{"reference":"{reference}","type":"Patient","identifier":{{"system":"a","value":"b"}},"display":"made up"}},
            "performer":[{{"reference":"{reference}","type":"Patient","identifier":{{"system":"a","value":"b"}},"display":"made up"}}]}}"#
        )
    };
    for references in each_first(&REFERENCES) {
        let records: Vec<String> = references.into_iter().map(record).collect();
        for (own, inside) in masks.iter().flat_map(|own| [(own, None), (own, Some(&patient))]) {
            let sight = |_: usize, record: &filter::Record| match record.contained {
                true => inside.map_or(Verdict::Withhold, Verdict::whole),
                false => Verdict::whole(own),
            };
            each_is_written_as_alone(&records, &sight, &nothing_hidden);
        }
    }
}

/// What is begun and taken back, in favour of words of our own that then stand at its place.
#[test]
fn what_is_taken_back_of_one_is_not_written_of_the_next() {
    const BEGUN: [&str; 5] = [
        r#""component":[]"#,
        r#""component":[{}]"#,
        r#""component":[{"code":{"text":"a"}}]"#,
        r#""extension":[{"url":"http://a.example/hollow"}]"#,
        r#""note":[{"authorString":"somebody"}],"component":[]"#,
    ];
    // Without a total mask each is tagged at its end, where the member was begun.
    let masks = [
        mask("Observation", &[("Observation", true), ("Observation.component.code", false)]),
        mask("Observation", &[("Observation", true), ("Observation.note.author", false)]),
        mask(
            "Observation",
            &[("Observation.component", true), ("Observation.status", true), ("Observation.value", true)],
        ),
    ];
    for member in BEGUN {
        for mask in &masks {
            let record = |at: usize| {
                let value = "v".repeat(at % 3);
                let head = r#"{"resourceType":"Observation","status":"final""#;
                format!(r#"{head},"id":"o{at}","valueString":"v{value}",{member}}}"#)
            };
            let records: Vec<String> = (0..200).map(record).collect();
            let sight = |_: usize, _: &filter::Record| Verdict::whole(mask);
            each_is_written_as_alone(&records, &sight, &nothing_hidden);
        }
    }
}
