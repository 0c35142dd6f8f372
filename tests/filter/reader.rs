//! Bundles that come in pieces: the same parts for every way of cutting them, and those of the whole.
//!
//! Owns: the law of `Reader`, on made Bundles, sound and broken.
//! Must never: cut only where it is easy; every byte is a place to cut, inside characters too.
//! Look next: `domain::filter::Reader`.

use super::*;
use filter::{Entry, Part, Reader};

/// What a Bundle says, with each record under its masks.
#[derive(Debug, Default, PartialEq)]
struct Told {
    total: Option<Option<u64>>,
    links: Option<Vec<(String, String)>>,
    entries: Vec<String>,
}

fn told_entry(
    entry: &Entry,
    record: Option<usize>,
    document: &Document<'_>,
    masks: &BTreeMap<ResourceType, Mask>,
) -> String {
    let mut out = Vec::new();
    let verdicts = verdicts(document, masks);
    let written = record.map(|record| {
        let written = document.emit(record, &verdicts, &References::default(), &BASES, &mut out);
        let facts = &document.records()[record].facts;
        (written, facts.id.clone(), facts.mentions.clone(), facts.labels.clone(), facts.code.clone())
    });
    let out = String::from_utf8(out).unwrap();
    format!("{:?} {:?} {written:?} {out}", entry.full_url, entry.mode)
}

fn whole(body: &[u8], masks: &BTreeMap<ResourceType, Mask>) -> Result<Told, FilterFault> {
    let document = filter::parse(body, &BASES)?;
    let envelope = document.bundle().ok_or(FilterFault::Bundle(0))?;
    if envelope.kind != "searchset" {
        return Err(FilterFault::Bundle(0));
    }
    let entries =
        envelope.entries.iter().map(|entry| told_entry(entry, entry.record, &document, masks)).collect();
    let text = std::str::from_utf8(body).unwrap();
    let root = Tree::parse(text).unwrap();
    Ok(Told {
        total: root.member("total").map(|_| envelope.total),
        links: root.member("link").map(|_| envelope.links.clone()),
        entries,
    })
}

/// As [`whole`], from pieces; the fault stands beside what came before it.
fn in_pieces(pieces: &[&[u8]], masks: &BTreeMap<ResourceType, Mask>) -> (Told, Result<(), FilterFault>) {
    let mut reader = Reader::new(BASES, "searchset");
    let mut told = Told::default();
    for piece in pieces {
        reader.push(piece);
        if let Err(fault) = drain(&mut reader, &mut told, masks) {
            assert_eq!(drain(&mut reader, &mut told, masks), Err(fault), "a fault is the end");
            return (told, Err(fault));
        }
    }
    reader.end();
    let ended = drain(&mut reader, &mut told, masks);
    assert_eq!(reader.is_done(), ended.is_ok());
    (told, ended)
}

fn drain(
    reader: &mut Reader<'_>,
    told: &mut Told,
    masks: &BTreeMap<ResourceType, Mask>,
) -> Result<(), FilterFault> {
    while let Some(part) = reader.part()? {
        match part {
            Part::Total(total) => told.total = Some(total),
            Part::Links(links) => told.links = Some(links),
            Part::Entry(entry, document) => {
                told.entries.push(told_entry(&entry, entry.record, &document, masks));
            }
        }
    }
    Ok(())
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

/// Inputs with what is wrong with them, if anything is.
const CASES: [(&str, Option<&str>); 16] = [
    (r#"{"resourceType":"Bundle","type":"searchset"}"#, None),
    (r#" { "resourceType" : "Bundle" , "entry" : [ ] , "type" : "searchset" } "#, None),
    (r#"{"resourceType":"Bundle","type":"collection"}"#, Some("Bundle")),
    (r#"{"resourceType":"Bundle","entry":[{}],"type":"document"}"#, Some("Bundle")),
    (r#"{"resourceType":"Bundle"}"#, Some("Bundle")),
    (r#"{"type":"searchset"}"#, Some("Bundle")),
    (r#"{"resourceType":"Patient","type":"searchset"}"#, Some("ResourceType")),
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
fn bundles_in_pieces_are_as_strict() {
    let masks = BTreeMap::new();
    for (body, fault) in CASES {
        let expected = in_pieces(&[body.as_bytes()], &masks);
        assert_eq!(expected.1.err().map(fault_name).as_deref(), fault, "{body}");
        for cut in 0..=body.len() {
            assert_eq!(in_pieces(&pieces(body.as_bytes(), &[cut]), &masks), expected, "{body} at {cut}");
        }
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(in_pieces(&bytes, &masks), expected, "{body} byte by byte");
    }
}

#[test]
fn an_entry_is_given_as_soon_as_it_is_whole() {
    let mut reader = Reader::new(BASES, "searchset");
    reader.push(br#"{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Patient","id":"1"}"#);
    assert!(reader.part().unwrap().is_none());
    reader.push(b"}");
    assert!(matches!(reader.part().unwrap(), Some(Part::Entry(..))));
    assert!(reader.part().unwrap().is_none() && !reader.is_done());
}

#[test]
fn a_part_is_bounded() {
    let mut reader = Reader::new(BASES, "searchset");
    reader.push(br#"{"resourceType":"Bundle","type":"searchset","entry":[{"x":[0"#);
    let piece = ",0".repeat(512 * 1024);
    for _ in 0..40 {
        reader.push(piece.as_bytes());
        if let Err(fault) = reader.part() {
            assert_eq!(fault_name(fault), "Size");
            return;
        }
    }
    panic!("40 MiB were held");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn every_way_of_cutting_gives_the_parts_of_the_whole(
        seed in any::<u64>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        broken in proptest::option::weighted(0.4, (any::<usize>(), any::<u8>())),
    ) {
        let (body, masks) = made_bundle(seed);
        let mut body = body.into_bytes();
        if let Some((at, byte)) = broken {
            let at = at % body.len();
            body[at] = byte;
        }
        let found = in_pieces(&pieces(&body, &cuts), &masks);
        prop_assert_eq!(&found, &in_pieces(&[&body], &masks));
        let whole = whole(&body, &masks);
        prop_assert_eq!(found.1.is_ok(), whole.is_ok(), "{:?} {:?} {}", found.1, whole, String::from_utf8_lossy(&body));
        if let Ok(whole) = whole {
            prop_assert_eq!(found.0, whole);
        }
    }
}
