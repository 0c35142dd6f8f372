//! Many policies: what the first decision of a caller costs, and each later one, at 10 to 10,000 policies.
//!
//! Owns: the numbers quoted for generated sets (`generated`).
//! `POLICIES_MAX=1000` leaves out larger sets, which take an unoptimised build minutes to load.
//! Must never: be a test; it asserts no time. Look next: docs/performance.md; `decision`, the other steps.

mod generated;

use chartgate::domain::access::{self, Circumstances, Masks, PolicySet, Source};
use chartgate::domain::fhir::classify::{Head, classify};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::interaction::{Interaction, Registry};
use chartgate::domain::fhir::path::PublicBase;
use chartgate::domain::fhir::r4::ResourceType;
use chartgate::domain::identity::{
    Caller, Issuer as TrustedIssuer, IssuerSpec, KeySet, MfaSpec, Possession, Unverified, VerifiedTokens,
};
use chartgate_sandbox::issuer::Issuer;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const PUBLIC: &str = "https://fhir.hospital.example/fhir";

/// Policies, and roles among which they are divided.
const SIZES: [(usize, usize); 4] = [(10, 5), (100, 25), (1_000, 500), (10_000, 500)];

/// Policies in one file: all of the largest set would be longer than a policy file may be.
const IN_A_FILE: usize = 1_000;

/// The largest set that is loaded again and again.
const LOADED_MAX: usize = 1_000;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn sources(policies: usize, roles: usize) -> Vec<Source> {
    let file = |first: usize| Source {
        name: format!("generated-{first:06}.cedar"),
        text: generated::policies(first..policies.min(first + IN_A_FILE), roles),
    };
    (0..policies).step_by(IN_A_FILE).map(file).collect()
}

fn loaded(sources: &[Source]) -> Result<PolicySet, String> {
    PolicySet::load(sources, None, None)
        .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())
}

/// Somebody with a role, who asks for a patient.
struct Scene {
    policies: Arc<PolicySet>,
    caller: Arc<Caller>,
    asked: Interaction,
    facts: Facts,
    circumstances: Circumstances,
}

impl Scene {
    fn new((policies, roles): (usize, usize)) -> Result<Self, String> {
        let set = loaded(&sources(policies, roles))?;
        let now = chartgate::clock::now();
        let mut facts = Facts::of_type(ResourceType::from_name("Patient").ok_or("no such type")?);
        facts.id = Some("c1".to_owned());
        facts.patients.insert("c1".to_owned());
        facts.labels.insert("N".to_owned());
        let circumstances = Circumstances {
            now,
            network: IpAddr::V4(Ipv4Addr::LOCALHOST),
            purpose: None,
            emergencies: BTreeMap::new(),
        };
        Ok(Self { policies: Arc::new(set), caller: caller(now)?, asked: asked()?, facts, circumstances })
    }

    /// May it be asked, and what of the record may leave?
    fn decide(&self, masks: &Masks) -> Result<usize, String> {
        let permit = access::admit(&self.policies, masks, &self.caller, &self.asked, &self.circumstances)
            .map_err(text)?;
        let disclosure = permit.record(&self.facts, None).map_err(|denial| format!("{denial:?}"))?;
        Ok(disclosure.policies().len())
    }
}

fn caller(now: jiff::Timestamp) -> Result<Arc<Caller>, String> {
    let issuer = Issuer::offline("https://idp.hospital.example", PUBLIC).map_err(text)?;
    let token = issuer.token_with("nurse", |claims| {
        claims["roles"] = vec!["role3"].into();
        claims["scope"] = "openid fhirUser".into();
    });
    let trusted = TrustedIssuer::new(IssuerSpec {
        url: issuer.url().to_owned(),
        audience: PUBLIC.to_owned(),
        algorithms: vec!["RS256".to_owned()],
        roles_claim: "/roles".to_owned(),
        roles: BTreeMap::new(),
        purpose_claim: Some("/purpose_of_use".to_owned()),
        mfa: MfaSpec { amr: ["mfa".to_owned()].into(), acr: [].into(), max_age_seconds: 43_200 },
    })
    .map_err(|problems| problems.join("; "))?;
    let keys = KeySet::read(issuer.jwks().to_string().as_bytes(), &trusted).map_err(text)?;
    let token = token.map_err(text)?;
    let unverified = Unverified::inspect(&token).map_err(text)?;
    VerifiedTokens::new().authenticate(&unverified, &trusted, &keys, &Possession::BARE, now).map_err(text)
}

fn asked() -> Result<Interaction, String> {
    let request = http::Request::get("/fhir/Patient/c1").header("host", "fhir.hospital.example").body(());
    let (parts, ()) = request.map_err(text)?.into_parts();
    let public = PublicBase::parse(PUBLIC).map_err(text)?;
    let asked = classify(&Head::received(&parts), None, &public, &Registry::empty());
    asked.map(|asked| asked.interaction).map_err(text)
}

fn many(criterion: &mut Criterion) -> Result<(), String> {
    let most = option_env!("POLICIES_MAX").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let sizes: Vec<(usize, usize)> = SIZES.into_iter().filter(|(policies, _)| *policies <= most).collect();
    let scenes: Vec<Scene> = sizes.iter().copied().map(Scene::new).collect::<Result<_, _>>()?;
    let named = || sizes.iter().map(|(policies, roles)| format!("{policies} policies, {roles} roles"));
    let mut group = criterion.benchmark_group("cold mask");
    for (name, scene) in named().zip(&scenes) {
        group.bench_function(name, |bench| {
            bench.iter_batched(Masks::new, |masks| black_box(scene).decide(&masks), BatchSize::LargeInput);
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("warm decision");
    for (name, scene) in named().zip(&scenes) {
        let masks = Masks::new();
        let _policies = scene.decide(&masks)?;
        group.bench_function(name, |bench| bench.iter(|| black_box(scene).decide(&masks)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    for (name, (policies, roles)) in named().zip(&sizes).filter(|(_, (policies, _))| *policies <= LOADED_MAX)
    {
        let sources = sources(*policies, *roles);
        group.bench_function(name, |bench| bench.iter(|| loaded(black_box(&sources))));
    }
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    if let Err(error) = many(criterion) {
        use std::io::Write as _;
        let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "the bench cannot be set up: {error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
