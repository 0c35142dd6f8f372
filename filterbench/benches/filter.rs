//! How fast the filter is, beside memcpy and beside other JSON libraries on the same inputs.
//!
//! Owns: the table in `docs/performance.md`: one Patient, a page, a Bundle, minified and pretty, under masks that keep all,
//! a typical part, and little; answers made to be slow. Every figure of ours holds parsing, facts, verdicts and writing.
//! Must never: be a test; it asserts no time. Without `../shared/corpus/synthea-r4` it says so and ends with what is made here.
//! Look next: `domain::filter`; `src/lib.rs`, the plain ways.

#![expect(
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a measurement says what it skips, and may stop"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use chartgate::domain::filter::{self, Bases, Batches, Document, References, Verdict};
use chartgate_filterbench::{self as plain, Masks};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;

/// What the program is served with: docs/decisions/0019-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BASES: Bases<'static> =
    Bases { upstream: &["https://emr.internal/fhir/R4"], public: "https://fhir.hospital.example/fhir" };
/// In which pieces an answer comes from the network.
const PIECE_BYTES: usize = 64 * 1024;
const PAGE_BYTES: usize = 100_000;

/// A searchset of the records of the largest Synthea bundle.
fn searchset() -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/synthea-r4");
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.path().canonicalize().ok());
    let largest = files.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len()))?;
    let mut bundle: Value = serde_json::from_str(&fs::read_to_string(largest).ok()?).ok()?;
    bundle["type"] = "searchset".into();
    Some(bundle)
}

fn inputs(bundle: &Value) -> Vec<(&'static str, String)> {
    let mut patient = bundle["entry"][0]["resource"].clone();
    // Without its narrative and extensions: two kilobytes, as most servers send it.
    ["text", "extension"]
        .iter()
        .for_each(|name| drop(patient.as_object_mut().and_then(|all| all.remove(*name))));
    let mut page = bundle.clone();
    while let Some(entries) = page["entry"].as_array_mut() {
        entries.truncate(entries.len() * 9 / 10);
        if page.to_string().len() < PAGE_BYTES {
            break;
        }
    }
    let both = |name: [&'static str; 2], value: &Value| {
        [(name[0], value.to_string()), (name[1], serde_json::to_string_pretty(value).unwrap_or_default())]
    };
    [
        both(["patient", "patient, pretty"], &patient),
        both(["page", "page, pretty"], &page),
        both(["bundle", "bundle, pretty"], bundle),
    ]
    .concat()
}

/// Answers that were quadratic once: what is remembered or looked for grows with the text. A multiple of the time of a
/// tree would show another one.
fn made_slow() -> [(&'static str, String); 2] {
    const LISTS: usize = 12_000;
    const CONTAINED: usize = 16_000;
    // Built alike, but for whom each of twenty references names: of patients and groups, in turns by the bits of a number.
    let reference = |list: usize, bit: u32| match (list * 0x9_e377 + list) >> bit & 1 {
        0 => r#"{"item":{"reference":"Patient/a"}}"#,
        _ => r#"{"item":{"reference":"Group/bbb"}}"#,
    };
    let list = |list: usize| {
        let items: Vec<_> = (0..20).map(|bit| reference(list, bit)).collect();
        let start = r#"{"resource":{"resourceType":"List","status":"current","mode":"working","entry":["#;
        format!("{start}{}]}}}}", items.join(","))
    };
    let lists: Vec<_> = (0..LISTS).map(list).collect();
    let inside: Vec<_> =
        (0..CONTAINED).map(|at| format!(r#"{{"resourceType":"Device","id":"d{at}"}}"#)).collect();
    let named: Vec<_> = (0..CONTAINED * 2)
        .map(|at| format!(r##"{{"item":{{"reference":"#d{}"}}}}"##, at % CONTAINED))
        .collect();
    let lists = format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{}]}}"#, lists.join(","));
    let contained = format!(
        r#"{{"resourceType":"List","status":"current","mode":"working","contained":[{}],"entry":[{}]}}"#,
        inside.join(","),
        named.join(",")
    );
    [("lists of mixed references", lists), ("contained and named", contained)]
}

fn mask_of(decided: impl Fn(ResourceType) -> Vec<(String, bool)>) -> Masks {
    let parsed = |kind| {
        decided(kind).into_iter().filter_map(|(path, keep)| Some((ElementPath::parse(&path).ok()?, keep)))
    };
    ResourceType::all().map(|kind| (kind, Mask::new(kind, parsed(kind)))).collect()
}

fn masks() -> [(&'static str, Masks); 3] {
    let name = |kind: ResourceType| kind.name().to_owned();
    let all = move |kind| vec![(name(kind), true), (format!("{}.extension", name(kind)), true)];
    // Everything but names, addresses, narrative and notes: what a role with a working need would see.
    const HIDDEN: [&str; 6] = ["name", "address", "telecom", "text", "note", "identifier"];
    let typical = move |kind: ResourceType| {
        let elements = r4::elements(r4::root(kind)).iter().filter(|element| HIDDEN.contains(&element.name));
        let hidden = elements.map(|element| (format!("{}.{}", name(kind), element.name), false));
        hidden.chain([(name(kind), true)]).collect()
    };
    // What it is about and how it stands.
    const SHOWN: [&str; 5] = ["id", "status", "code", "subject", "intent"];
    let little = move |kind: ResourceType| {
        let elements = r4::elements(r4::root(kind)).iter();
        let shown = elements.filter(|element| SHOWN.contains(&element.name) || element.modifier);
        shown.map(|element| (format!("{}.{}", name(kind), element.name), true)).collect()
    };
    [("all", mask_of(all)), ("typical", mask_of(typical)), ("little", mask_of(little))]
}

fn write(document: &Document<'_>, masks: &Masks, references: &References, out: &mut Vec<u8>) {
    let verdict = |kind| masks.get(&kind).map_or(Verdict::Withhold, Verdict::whole);
    let verdicts: Vec<_> =
        document.records().iter().map(|record| verdict(record.facts.resource_type)).collect();
    for (index, record) in document.records().iter().enumerate() {
        if record.container.is_none() {
            let _ = document.emit(index, &verdicts, references, &BASES, out);
        }
    }
}

fn whole(body: &str, masks: &Masks) -> usize {
    batch_of(body.as_bytes(), masks)
}

fn batch_of(body: &[u8], masks: &Masks) -> usize {
    let Ok(document) = filter::parse(body, &BASES) else { return 0 };
    let mut out = Vec::with_capacity(body.len());
    write(&document, masks, &References::default(), &mut out);
    out.len()
}

fn in_pieces(body: &str, masks: &Masks) -> usize {
    let (mut batches, mut ready, mut bytes) = (Batches::new("searchset"), Vec::new(), 0);
    for piece in body.as_bytes().chunks(PIECE_BYTES) {
        if batches.feed(piece, &mut ready).is_err() {
            return 0;
        }
        bytes += ready.drain(..).map(|batch| batch_of(&batch, masks)).sum::<usize>();
    }
    let Ok((last, frame)) = batches.finish() else { return 0 };
    bytes + last.map_or(0, |batch| batch_of(&batch, masks)) + frame.len()
}

fn bench_made_slow(criterion: &mut Criterion) {
    let typical = &masks()[1].1;
    for (name, body) in made_slow() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(10);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
        group.bench_function("chartgate/typical", |b| b.iter(|| whole(&body, typical)));
        group.bench_function("serde_json/typical", |b| b.iter(|| plain::serde_json(&body, typical)));
        group.finish();
    }
}

fn bench(criterion: &mut Criterion) {
    let Some(bundle) = searchset() else {
        eprintln!("skipped: ../shared/corpus/synthea-r4 is not there");
        return;
    };
    let masks = masks();
    for (name, body) in inputs(&bundle) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(15);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
        group.bench_function("memcpy", |b| b.iter(|| std::hint::black_box(body.as_bytes()).to_vec()));
        for (mask, masks) in &masks {
            group.bench_function(BenchmarkId::new("chartgate", mask), |b| b.iter(|| whole(&body, masks)));
            if body.contains("searchset") {
                group.bench_function(BenchmarkId::new("chartgate in pieces", mask), |b| {
                    b.iter(|| in_pieces(&body, masks));
                });
            }
        }
        let typical = &masks[1].1;
        group.bench_function("serde_json/typical", |b| b.iter(|| plain::serde_json(&body, typical)));
        group.bench_function("sonic-rs/typical", |b| b.iter(|| plain::sonic_rs(&body, typical)));
        group.bench_function("sonic-rs/round trip", |b| b.iter(|| plain::sonic_rs_round_trip(&body)));
        group.bench_function("simd-json/typical", |b| b.iter(|| plain::simd_json(&body, typical)));
        group.finish();
    }
}

criterion_group!(benches, bench_made_slow, bench);
criterion_main!(benches);
