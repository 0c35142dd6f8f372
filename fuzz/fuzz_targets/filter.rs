//! Any bytes through the filter: no panic, and what comes out is taken apart again.
#![no_main]

use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath};
use chartgate::domain::filter::{self, Bases, References, Verdict};
use libfuzzer_sys::fuzz_target;

const BASES: Bases<'static> = Bases { upstream: &["https://emr/fhir"], public: "https://public/fhir" };

fuzz_target!(|input: (u64, &[u8])| {
    let (choice, body) = input;
    let Ok(document) = filter::parse(body, &BASES) else { return };
    let masks: Vec<Mask> = document
        .records()
        .iter()
        .map(|record| {
            let kind = record.facts.resource_type;
            let elements = r4::elements(r4::root(kind)).iter().enumerate();
            let paths = elements.map(|(bit, one)| (format!("{}.{}", kind.name(), one.name), choice >> (bit % 64) & 1 == 1));
            let paths = paths.chain([(kind.name().to_owned(), choice & 1 == 1)]);
            Mask::new(kind, paths.filter_map(|(path, keep)| Some((ElementPath::parse(&path).ok()?, keep))))
        })
        .collect();
    let verdicts: Vec<_> = masks.iter().map(Verdict::whole).collect();
    for record in 0..verdicts.len() {
        let mut out = Vec::new();
        if document.emit(record, &verdicts, &References::default(), &BASES, &mut out).is_ok() {
            assert!(filter::parse(&out, &BASES).is_ok(), "what leaves can be read again");
        }
    }
});
