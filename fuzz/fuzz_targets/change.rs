//! Any patch on any record, merged under any masks: no panic, and what comes out is one record again.
#![no_main]

use chartgate::domain::change::{self, Tree};
use chartgate::domain::fhir::interaction::PatchFormat;
use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use libfuzzer_sys::fuzz_target;

fn mask(kind: ResourceType, choice: u64) -> Mask {
    let elements = r4::elements(r4::root(kind)).iter().enumerate();
    let paths = elements.map(|(bit, one)| (format!("{}.{}", kind.name(), one.name), choice >> (bit % 64) & 1 == 1));
    let paths = paths.chain([(kind.name().to_owned(), choice & 1 == 1)]);
    Mask::new(kind, paths.filter_map(|(path, keep)| Some((ElementPath::parse(&path).ok()?, keep))))
}

fuzz_target!(|input: (u64, u64, bool, &[u8], &[u8])| {
    let (seen, modify, json, record, patch) = input;
    let Ok(current) = Tree::parse(record) else { return };
    let Some(kind) = current.resource_type() else { return };
    let format = if json { PatchFormat::JsonPatch } else { PatchFormat::FhirPath };
    let touched = change::touches(kind, format, patch);
    let Ok(sent) = change::patch(kind, format, patch, &current) else { return };
    assert!(touched.is_ok(), "what is applied can be told");
    if let Ok(merged) = change::merge(kind, &current, &sent, &mask(kind, seen), &mask(kind, modify)) {
        assert!(Tree::parse(&merged.print()).is_ok_and(|again| again == merged));
    }
    let _ = change::accept(kind, &sent, &mask(kind, modify));
});
