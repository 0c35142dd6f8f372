//! Bundles that come in pieces: the same batches for every way of cutting them, and together they are the whole.
//!
//! Owns: the law of `Batches`, on made Bundles, sound and broken.
//! Must never: cut only where it is easy; every byte is a place to cut, inside characters too.
//! Look next: `domain::filter::Batches`.

use super::*;
use chartgate::limits;
use filter::{Batches, Entry};

/// All that a splitter gives: the batches, and the envelope without its entries.
type Cut = (Vec<Vec<u8>>, Vec<u8>);

/// What a Bundle says, with each record under its masks.
#[derive(Debug, Default, PartialEq)]
struct Told {
    total: Option<u64>,
    links: Vec<(String, String)>,
    entries: Vec<String>,
}

fn told_entry(entry: &Entry, document: &Document<'_>, verdicts: &[Verdict<'_>]) -> String {
    let mut out = Vec::new();
    let written = entry.record.map(|record| {
        let written = document.emit(record, verdicts, &References::default(), &BASES, &mut out);
        let facts = &document.records()[record].facts;
        let sets = [&facts.mentions, &facts.labels, &facts.code].map(|set| (**set).clone());
        (written, facts.id.clone(), sets)
    });
    let out = String::from_utf8(out).unwrap();
    format!("{:?} {:?} {written:?} {out}", entry.full_url, entry.mode)
}

/// What a text says that must be a searchset; else the name of the fault, or `Kind`.
fn whole(body: &[u8], masks: &BTreeMap<ResourceType, Mask>) -> Result<Told, String> {
    let document = filter::parse(body, &BASES).map_err(fault_name)?;
    let envelope = document.bundle().filter(|envelope| envelope.kind == "searchset").ok_or("Kind")?;
    let verdicts = verdicts(&document, masks);
    let entries = envelope.entries.iter().map(|entry| told_entry(entry, &document, &verdicts)).collect();
    Ok(Told { total: envelope.total, links: envelope.links.clone(), entries })
}

fn cut(pieces: &[&[u8]], batch_bytes: usize) -> Result<Cut, String> {
    let (mut batches, mut found) = (Batches::bounded("searchset", batch_bytes), Vec::new());
    for piece in pieces {
        if let Err(fault) = batches.feed(piece, &mut found) {
            assert!(
                batches.feed(b"", &mut found).is_err() && batches.finish().is_err(),
                "a fault is the end"
            );
            return Err(fault_name(fault));
        }
    }
    let (last, frame) = batches.finish().map_err(fault_name)?;
    found.extend(last);
    Ok((found, frame))
}

/// As [`whole`], of what was cut: each batch as `parse` has it, in the envelope that is left.
fn joined((batches, frame): &Cut, masks: &BTreeMap<ResourceType, Mask>) -> Result<Told, String> {
    let mut told = whole(frame, masks)?;
    assert!(told.entries.is_empty(), "entries are in batches");
    for batch in batches {
        told.entries.extend(whole(batch, masks)?.entries);
    }
    Ok(told)
}

fn pieces<'b>(body: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

fn made_bundle(seed: u64) -> (String, BTreeMap<ResourceType, Mask>) {
    let (_, mut dice) = made(seed);
    let mut decisions = BTreeMap::new();
    let mut entries = Vec::new();
    for at in 0..dice.roll(4) {
        let (text, mut inner) = made(seed.wrapping_add(at as u64 + 1));
        decisions.extend(random_decisions(&Tree::parse(&text).unwrap(), &mut inner));
        let search = if dice.one_in(2) { r#","search":{"mode":"match"}"# } else { "" };
        let space = if dice.one_in(3) { " \n" } else { "" };
        entries.push(format!(
            r#"{{"fullUrl":"https://emr.internal/fhir/R4/x/{at}é",{space}"resource":{text}{search}}}{space}"#
        ));
    }
    let entry = if dice.one_in(4) { r"\u0065ntry" } else { "entry" };
    let mut members = vec![
        r#""resourceType":"Bundle""#.to_owned(),
        r#""type":"searchset""#.to_owned(),
        r#""total": 12"#.to_owned(),
        r#""link":[{"relation":"next","url":"https://emr.internal/fhir/R4?p=2"}]"#.to_owned(),
        r#""x":{"unknown":[1,2.5e3,"\"}"]}"#.to_owned(),
        format!(r#""{entry}" : [{}]"#, entries.join(",")),
    ];
    if dice.one_in(3) {
        members.truncate(dice.roll(7));
    }
    for at in 0..members.len() {
        let other = dice.roll(members.len());
        members.swap(at, other);
    }
    (format!("{{{}}} ", members.join(",\n")), masks(&decisions))
}

/// Inputs with what is wrong with them, if anything is: as a whole and in batches.
const CASES: [(&str, Option<&str>); 16] = [
    (r#"{"resourceType":"Bundle","type":"searchset"}"#, None),
    (r#" { "resourceType" : "Bundle" , "entry" : [ ] , "type" : "searchset" } "#, None),
    (r#"{"resourceType":"Bundle","type":"collection"}"#, Some("Kind")),
    (r#"{"resourceType":"Bundle","entry":[{}],"type":"document"}"#, Some("Kind")),
    (r#"{"resourceType":"Bundle"}"#, Some("Kind")),
    (r#"{"type":"searchset"}"#, Some("ResourceType")),
    (r#"{"resourceType":"Patient","type":"searchset"}"#, Some("Kind")),
    (r#"{"resourceType":"Bundle","type":"searchset","type":"searchset"}"#, Some("Duplicate")),
    (r#"{"resourceType":"Bundle","type":"searchset","entry":[],"\u0065ntry":[]}"#, Some("Duplicate")),
    (r#"{"resourceType":"Bundle","type":"searchset","x":1,"\u0078":1}"#, Some("Duplicate")),
    (r#"{"resourceType":"Bundle","type":"searchset","entry":[{},]}"#, Some("Grammar")),
    (r#"{"resourceType":"Bundle","type":"searchset","entry":{}}"#, Some("Type")),
    (
        r#"{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Patient","id":"1","id":"2"}}]}"#,
        Some("Duplicate"),
    ),
    (r#"{"resourceType":"Bundle","type":"searchset"}{}"#, Some("Trailing")),
    (
        r#"{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Patient","id":"1""#,
        Some("Grammar"),
    ),
    ("\u{feff}{\"resourceType\":\"Bundle\",\"type\":\"searchset\"}", Some("ByteOrderMark")),
];

#[test]
fn bundles_in_batches_are_as_strict() {
    let masks = BTreeMap::new();
    for (body, fault) in CASES {
        assert_eq!(whole(body.as_bytes(), &masks).err().as_deref(), fault, "{body}");
        for batch_bytes in [0, 20, limits::BATCH_BYTES] {
            let expected = cut(&[body.as_bytes()], batch_bytes);
            let found = expected.clone().and_then(|cut| joined(&cut, &masks)).err();
            assert_eq!(found.as_deref(), fault, "{body} {batch_bytes}");
            for at in 0..=body.len() {
                assert_eq!(cut(&pieces(body.as_bytes(), &[at]), batch_bytes), expected, "{body} at {at}");
            }
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(cut(&bytes, batch_bytes), expected, "{body} byte by byte");
        }
    }
}

#[test]
fn a_batch_is_given_as_soon_as_another_entry_must_follow() {
    let (mut batches, mut found) = (Batches::bounded("searchset", 1), Vec::new());
    let entry = r#"{"resource":{"resourceType":"Patient","id":"1"}}"#;
    batches.feed(br#"{"resourceType":"Bundle","type":"searchset","entry":["#, &mut found).unwrap();
    batches.feed(entry.as_bytes(), &mut found).unwrap();
    assert!(found.is_empty());
    batches.feed(b",", &mut found).unwrap();
    let batch = format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{entry}]}}"#);
    assert_eq!(found, [batch.into_bytes()]);
}

#[test]
fn an_envelope_is_bounded() {
    let mut batches = Batches::new("searchset");
    batches.feed(br#"{"resourceType":"Bundle","type":"searchset","x":[0"#, &mut Vec::new()).unwrap();
    let piece = ",0".repeat(limits::BUNDLE_FRAME_BYTES_MAX / 8);
    let fed = (0..8).find_map(|_| batches.feed(piece.as_bytes(), &mut Vec::new()).err());
    assert_eq!(fed.map(fault_name).as_deref(), Some("Size"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn every_way_of_cutting_gives_the_whole(
        seed in any::<u64>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        batch_bytes in 0_usize..4000,
        broken in proptest::option::weighted(0.4, (any::<usize>(), any::<u8>())),
    ) {
        let (body, masks) = made_bundle(seed);
        let mut body = body.into_bytes();
        if let Some((at, byte)) = broken {
            let at = at % body.len();
            body[at] = byte;
        }
        let found = cut(&pieces(&body, &cuts), batch_bytes);
        prop_assert_eq!(&found, &cut(&[&body], batch_bytes));
        let told = found.and_then(|cut| joined(&cut, &masks));
        let whole = whole(&body, &masks);
        prop_assert_eq!(told.as_ref().ok(), whole.as_ref().ok(), "{:?} {:?} {}", told, whole, String::from_utf8_lossy(&body));
    }
}
