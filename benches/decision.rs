//! What deciding costs: who asks, what is asked, whether they may, and what leaves of a record.
//!
//! Owns: the numbers quoted for the pure steps of the journey, one by one and together.
//! Must never: be a test; it asserts no time.
//! Look next: `gateway`, which takes these steps; docs/performance.md.

#[path = "decision/cached.rs"]
mod cached;

use chartgate::domain::access::{self, Circumstances, Masks, Permit, PolicySet, Source};
use chartgate::domain::audit::{self, Decision, Record, Released, Verdict};
use chartgate::domain::fhir::classify::{Head, classify};
use chartgate::domain::fhir::interaction::{Interaction, Registry};
use chartgate::domain::fhir::path::PublicBase;
use chartgate::domain::filter::{self, Bases, References};
use chartgate::domain::identity::{
    Caller, Issuer as TrustedIssuer, IssuerSpec, KeySet, MfaSpec, Possession, Unverified, VerifiedTokens,
    authenticate,
};
use chartgate_sandbox::charts;
use chartgate_sandbox::emr::Emr;
use chartgate_sandbox::issuer::{Issuer, ROLE_NAMES};
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

const PUBLIC: &str = "https://fhir.hospital.example/fhir";
const UPSTREAM: &str = "https://emr.internal/fhir/R4";
const BASES: Bases<'static> = Bases { upstream: &[UPSTREAM], public: PUBLIC };

/// What a step needs from outside the pure rooms.
struct Scene {
    issuer: Issuer,
    trusted: TrustedIssuer,
    keys: KeySet,
    token: String,
    now: Timestamp,
    policies: Arc<PolicySet>,
    public: PublicBase,
    patient: Vec<u8>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn scene() -> Result<Scene, String> {
    let issuer = Issuer::offline("https://idp.hospital.example", PUBLIC).map_err(text)?;
    let token = issuer.token("nurse").map_err(text)?;
    let trusted = TrustedIssuer::new(IssuerSpec {
        url: issuer.url().to_owned(),
        audience: PUBLIC.to_owned(),
        algorithms: vec!["RS256".to_owned()],
        roles_claim: "/roles".to_owned(),
        roles: ROLE_NAMES.iter().map(|(raw, name)| ((*raw).to_owned(), (*name).to_owned())).collect(),
        purpose_claim: Some("/purpose_of_use".to_owned()),
        mfa: MfaSpec { amr: ["mfa".to_owned()].into(), acr: [].into(), max_age_seconds: 43_200 },
    })
    .map_err(|problems| problems.join("; "))?;
    let keys = KeySet::read(issuer.jwks().to_string().as_bytes(), &trusted).map_err(text)?;
    let emr = Emr::new();
    let _records = charts::load_crowd(&emr, 1, 0).map_err(text)?;
    let patient = emr.read("Patient", "c1").ok_or("no patient")?.to_vec();
    let public = PublicBase::parse(PUBLIC).map_err(text)?;
    let now = chartgate::clock::now();
    Ok(Scene { issuer, trusted, keys, token, now, policies: Arc::new(policies()?), public, patient })
}

fn policies() -> Result<PolicySet, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let source = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        std::fs::read_to_string(path).map(|text| Source { name, text }).map_err(text)
    };
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(text)? {
        let path = entry.map_err(text)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            sources.push(source(&path)?);
        }
    }
    let groups = source(&directory.join("groups.toml"))?;
    PolicySet::load(&sources, Some(&groups), None)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl Scene {
    fn verified(&self, tokens: &VerifiedTokens) -> Result<Arc<Caller>, String> {
        let unverified = Unverified::inspect(&self.token).map_err(text)?;
        tokens.authenticate(&unverified, &self.trusted, &self.keys, &Possession::BARE, self.now).map_err(text)
    }

    fn classified(&self, line: &str) -> Result<Interaction, String> {
        let request =
            http::Request::get(line).header("host", "fhir.hospital.example").body(()).map_err(text)?;
        let (parts, ()) = request.into_parts();
        let asked = classify(&Head::received(&parts), None, &self.public, &Registry::empty());
        asked.map(|asked| asked.interaction).map_err(text)
    }

    fn admitted(&self, masks: &Masks, caller: &Caller, asked: &Interaction) -> Result<Permit, String> {
        let circumstances = Circumstances {
            now: self.now,
            network: IpAddr::V4(Ipv4Addr::LOCALHOST),
            purpose: None,
            emergencies: std::collections::BTreeMap::new(),
        };
        access::admit(&self.policies, masks, caller, asked, &circumstances).map_err(text)
    }

    /// From an upstream answer with one record to what leaves, and the trail's line about it.
    fn let_out(&self, permit: &Permit) -> Result<(Vec<u8>, Released), String> {
        let document = filter::parse(&self.patient, &BASES).map_err(text)?;
        let facts = &document.records().first().ok_or("no record")?.facts;
        let disclosure = permit.record(facts, None).map_err(|denial| format!("{denial:?}"))?;
        let references = References {
            hide_display: permit.hidden_names().clone(),
            hide_identifier: permit.hidden_identifiers().clone(),
        };
        let mut out = Vec::with_capacity(self.patient.len());
        let verdict = filter::Verdict::whole(disclosure.mask());
        let _how = document
            .emit(0, &[verdict], &references, &BASES, &mut out)
            .map_err(|withheld| format!("{withheld:?}"))?;
        let released = Released {
            reference: "Patient/c1".to_owned(),
            version: facts.version.clone(),
            patients: (*facts.patients).clone(),
            mask: Arc::new(disclosure.mask().kept()),
        };
        Ok((out, released))
    }

    fn recorded(&self, released: Released) -> Result<usize, String> {
        let mut decision = Decision::new(self.now, "0".repeat(32), Verdict::Permit);
        decision.interaction = "read".to_owned();
        decision.request = "GET Patient/c1".to_owned();
        decision.released = vec![released];
        let parts = audit::encode(&Record::Decision(Box::new(decision))).map_err(text)?;
        Ok(parts.iter().map(Vec::len).sum())
    }

    fn journey(&self, tokens: &VerifiedTokens, masks: &Masks) -> Result<usize, String> {
        let caller = self.verified(tokens)?;
        let asked = self.classified("/fhir/Patient/c1")?;
        let permit = self.admitted(masks, &caller, &asked)?;
        let (body, released) = self.let_out(&permit)?;
        Ok(body.len() + self.recorded(released)?)
    }
}

fn who(criterion: &mut Criterion, scene: &Scene) -> Result<(), String> {
    let mut group = criterion.benchmark_group("who");
    let tokens = VerifiedTokens::new();
    let _caller = scene.verified(&tokens)?;
    group.bench_function("token seen before", |bench| bench.iter(|| scene.verified(black_box(&tokens))));
    group.bench_function("token seen first", |bench| {
        bench.iter(|| {
            let unverified = Unverified::inspect(black_box(&scene.token)).map_err(text)?;
            authenticate(&unverified, &scene.trusted, &scene.keys, &Possession::BARE, scene.now).map_err(text)
        });
    });
    group.finish();
    Ok(())
}

fn may(criterion: &mut Criterion, scene: &Scene) -> Result<(), String> {
    let mut group = criterion.benchmark_group("may");
    let caller = scene.verified(&VerifiedTokens::new())?;
    for (name, line) in [
        ("read", "/fhir/Patient/c1"),
        ("search", "/fhir/Observation?patient=Patient/c1&date=ge2026-01-01&_sort=-date&_count=50"),
    ] {
        group.bench_function(format!("classify, {name}"), |bench| {
            bench.iter(|| scene.classified(black_box(line)))
        });
        let asked = scene.classified(line)?;
        let warm = Masks::new();
        let _permit = scene.admitted(&warm, &caller, &asked)?;
        group.bench_function(format!("admit, {name}, warm"), |bench| {
            bench.iter(|| scene.admitted(black_box(&warm), &caller, &asked));
        });
        group.bench_function(format!("admit, {name}, cold"), |bench| {
            bench.iter(|| scene.admitted(black_box(&Masks::new()), &caller, &asked));
        });
    }
    group.finish();
    Ok(())
}

fn what(criterion: &mut Criterion, scene: &Scene) -> Result<(), String> {
    let mut group = criterion.benchmark_group("what leaves");
    let caller = scene.verified(&VerifiedTokens::new())?;
    let permit = scene.admitted(&Masks::new(), &caller, &scene.classified("/fhir/Patient/c1")?)?;
    let document = filter::parse(&scene.patient, &BASES).map_err(text)?;
    let facts = &document.records().first().ok_or("no record")?.facts;
    let disclosure = permit.record(facts, None).map_err(|denial| format!("{denial:?}"))?;
    group.bench_function("decide one record, warm", |bench| {
        bench.iter(|| permit.record(black_box(facts), None).map(|disclosure| disclosure.policies().len()));
    });
    group
        .bench_function("list what a mask keeps", |bench| bench.iter(|| black_box(disclosure.mask()).kept()));
    group.bench_function("parse 2 KB", |bench| {
        bench.iter(|| {
            filter::parse(black_box(&scene.patient), &BASES).map(|document| document.records().len())
        });
    });
    group
        .bench_function("parse, decide, emit 2 KB", |bench| bench.iter(|| scene.let_out(black_box(&permit))));
    let (_, released) = scene.let_out(&permit)?;
    group.bench_function("encode its audit record", |bench| {
        bench.iter(|| scene.recorded(black_box(released.clone())));
    });
    group.finish();
    Ok(())
}

fn together(criterion: &mut Criterion, scene: &Scene) -> Result<(), String> {
    let (tokens, masks) = (VerifiedTokens::new(), Masks::new());
    let _bytes = scene.journey(&tokens, &masks)?;
    criterion.bench_function("all pure steps of a 2 KB read, warm", |bench| {
        bench.iter(|| scene.journey(black_box(&tokens), black_box(&masks)));
    });
    Ok(())
}

fn all(criterion: &mut Criterion) {
    let done = scene().and_then(|scene| {
        who(criterion, &scene)?;
        may(criterion, &scene)?;
        what(criterion, &scene)?;
        cached::bench(criterion, &scene)?;
        together(criterion, &scene)
    });
    if let Err(error) = done {
        use std::io::Write as _;
        let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "the bench cannot be set up: {error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
