//! How fast the filter is, and how fast parsing, pruning and printing with `serde_json` would be.
//!
//! Owns: the numbers quoted for the filter; MB/s over the minified records of one Synthea bundle.
//! Must never: be a test; it asserts no time. Without `../shared/corpus/synthea-r4` it says so and ends.
//! Look next: `domain::filter`.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement may stop, and says what it skips"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chartgate::domain::fhir::mask::{Mask, MaskCursor};
use chartgate::domain::fhir::r4::{self, ElementPath, Kind, ResourceType, Structure};
use chartgate::domain::filter::{self, Bases, References, Verdict};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;

const BASES: Bases<'static> =
    Bases { upstream: &["https://emr.internal/fhir/R4"], public: "https://fhir.hospital.example/fhir" };

/// A searchset of the largest bundle's records, minified.
fn searchset() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/synthea-r4");
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.path().canonicalize().ok());
    let largest = files.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len()))?;
    let mut bundle: Value = serde_json::from_str(&fs::read_to_string(largest).ok()?).ok()?;
    bundle["type"] = "searchset".into();
    Some(bundle.to_string())
}

/// Everything but names, addresses, narrative and notes: what a role with a working need would see.
fn masks() -> BTreeMap<ResourceType, Mask> {
    let hidden = ["name", "address", "telecom", "text", "note", "identifier"];
    let decided = |kind: ResourceType| {
        let elements = r4::elements(r4::root(kind)).iter().filter(|element| hidden.contains(&element.name));
        let paths = elements.map(|element| (format!("{}.{}", kind.name(), element.name), false));
        let paths = paths.chain([(kind.name().to_owned(), true)]);
        paths.filter_map(|(path, keep)| Some((ElementPath::parse(&path).ok()?, keep))).collect::<Vec<_>>()
    };
    ResourceType::all().map(|kind| (kind, Mask::new(kind, decided(kind)))).collect()
}

fn filter_all(body: &str, masks: &BTreeMap<ResourceType, Mask>, references: &References) -> usize {
    let Ok(document) = filter::parse(body.as_bytes(), &BASES) else { return 0 };
    let verdict = |kind| masks.get(&kind).map_or(Verdict::Withhold, Verdict::whole);
    let verdicts: Vec<_> =
        document.records().iter().map(|record| verdict(record.facts.resource_type)).collect();
    let mut out = Vec::with_capacity(body.len());
    for (index, record) in document.records().iter().enumerate() {
        if record.container.is_none() {
            let _ = document.emit(index, &verdicts, references, &BASES, &mut out);
        }
    }
    out.len()
}

/// The plain way: parse to a tree, take out members, print.
fn prune_all(body: &str, masks: &BTreeMap<ResourceType, Mask>) -> usize {
    let Ok(mut bundle) = serde_json::from_str::<Value>(body) else { return 0 };
    let entries = bundle["entry"].as_array_mut().into_iter().flatten();
    let mut printed = 0;
    for entry in entries {
        let resource = &mut entry["resource"];
        let kind = resource["resourceType"].as_str().and_then(ResourceType::from_name);
        let Some((kind, mask)) = kind.and_then(|kind| Some((kind, masks.get(&kind)?))) else { continue };
        prune(resource, r4::root(kind), mask.cursor());
        printed += resource.to_string().len();
    }
    printed
}

fn prune(value: &mut Value, structure: Structure, cursor: MaskCursor<'_>) {
    let Some(members) = value.as_object_mut() else { return };
    members.retain(|name, value| {
        let Some(property) = r4::property(structure, name) else { return name == "resourceType" };
        let inner = cursor.child(property.element.name);
        if inner.whole().is_none() && r4::kind(property.structure) == Kind::Complex {
            match value {
                Value::Array(items) => {
                    items.iter_mut().for_each(|item| prune(item, property.structure, inner))
                }
                other => prune(other, property.structure, inner),
            }
        }
        inner.whole() != Some(false)
    });
}

fn bench(criterion: &mut Criterion) {
    let Some(body) = searchset() else {
        eprintln!("skipped: ../shared/corpus/synthea-r4 is not there");
        return;
    };
    let masks = masks();
    let hidden = ["Patient", "Practitioner"].into_iter().filter_map(ResourceType::from_name).collect();
    let references = References { hide_display: hidden, ..References::default() };
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(20);
    group.bench_function("parse", |b| b.iter(|| filter::parse(body.as_bytes(), &BASES).is_ok()));
    group.bench_function("chartgate", |b| b.iter(|| filter_all(&body, &masks, &References::default())));
    group.bench_function("chartgate, names hidden", |b| b.iter(|| filter_all(&body, &masks, &references)));
    group.bench_function("serde_json", |b| b.iter(|| prune_all(&body, &masks)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
