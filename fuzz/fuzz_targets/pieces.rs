//! Any Bundle cut in any way: the parts, and the fault behind them, are those of the Bundle in one piece.
#![no_main]

use chartgate::domain::filter::{self, Bases, FilterFault, Part, Reader};
use libfuzzer_sys::fuzz_target;

const BASES: Bases<'static> = Bases { upstream: &["https://emr/fhir"], public: "https://public/fhir" };

/// Each part as text, and how it ended.
fn told<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<String>, Result<(), FilterFault>) {
    let (mut reader, mut parts) = (Reader::new(BASES, "searchset"), Vec::new());
    let mut drain = |reader: &mut Reader<'_>| -> Result<(), FilterFault> {
        while let Some(part) = reader.part()? {
            parts.push(match part {
                Part::Total(total) => format!("{total:?}"),
                Part::Links(links) => format!("{links:?}"),
                Part::Entry(entry, document) => {
                    let raw = entry.record.map(|record| document.raw(record).to_vec());
                    let facts = document.records().iter().map(|record| (&record.facts.id, &record.facts.mentions));
                    format!("{:?} {raw:?} {:?}", entry.full_url, facts.collect::<Vec<_>>())
                }
            });
        }
        Ok(())
    };
    let mut ended = Ok(());
    for piece in pieces {
        reader.push(piece);
        ended = ended.and_then(|()| drain(&mut reader));
    }
    reader.end();
    ended = ended.and_then(|()| drain(&mut reader));
    (parts, ended)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (bytes, body) = input;
    let whole = told(std::iter::once(body));
    assert_eq!(told(body.chunks(usize::from(bytes).max(1))), whole);
    if let Ok(document) = filter::parse(body, &BASES) {
        let searchset = document.bundle().is_some_and(|bundle| bundle.kind == "searchset");
        assert_eq!(whole.1.is_ok(), searchset, "as strict as the whole");
    } else {
        assert!(whole.1.is_err(), "as strict as the whole");
    }
});
