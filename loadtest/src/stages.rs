//! The gate's steps switched on one by one, as rows beside it: the pass-through with the library's own parts put in.
//!
//! Owns: [`Stages`]: who asks, whether they may, what leaves. No step here is the gate's: sessions, relations, rewriting of the
//! request, links, refilled pages and the trail are left out, so a row says what its own step costs and nothing more.
//! Must never: stand before anything but the sandbox, or become a switch in the gate: it has none.
//! Look next: `pass_through`, which asks these; docs/performance.md, how to read the rows.

use chartgate::domain::access::{self, Circumstances, Masks, Permit, PolicySet, Source};
use chartgate::domain::fhir::classify::{Head, classify};
use chartgate::domain::fhir::interaction::{Interaction, Registry};
use chartgate::domain::fhir::path::PublicBase;
use chartgate::domain::filter::{self, Bases, References, Verdict};
use chartgate::domain::identity::{
    Caller, Issuer, IssuerSpec, KeySet, MfaSpec, Possession, Unverified, VerifiedTokens,
};
use chartgate_sandbox::issuer::ROLE_NAMES;
use clap::{Args, ValueEnum};
use http::request::Parts;
use http::{StatusCode, header};
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The last step that is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Until {
    /// The token is verified.
    Identity,
    /// The request is understood, and policy is asked whether it may be made.
    Policy,
    /// Each record is decided, and what is withheld is taken out.
    Filter,
}

/// What the steps need to know.
#[derive(Args, Debug)]
pub(crate) struct Steps {
    /// The last step that is switched on; none, and the others below are not needed
    #[arg(long, value_enum, requires_all = ["issuer", "audience", "keys", "policies"])]
    until: Option<Until>,
    /// The issuer of the tokens
    #[arg(long)]
    issuer: Option<String>,
    /// Whom its tokens are for
    #[arg(long)]
    audience: Option<String>,
    /// The issuer's key set, a file
    #[arg(long)]
    keys: Option<PathBuf>,
    /// The policies directory
    #[arg(long)]
    policies: Option<PathBuf>,
}

/// The steps, ready.
pub(crate) struct Stages {
    until: Until,
    trusted: Issuer,
    keys: KeySet,
    tokens: VerifiedTokens,
    policies: Arc<PolicySet>,
    sources: Vec<Source>,
    masks: Masks,
    public: PublicBase,
    public_text: String,
    upstream_text: String,
}

/// A request that may be made.
pub(crate) struct Judged {
    pub(crate) caller: Arc<Caller>,
    pub(crate) interaction: Interaction,
    pub(crate) permit: Permit,
}

impl Judged {
    /// The record that is asked for by its id.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.interaction {
            Interaction::Read { id, .. } | Interaction::Vread { id, .. } => Some(id.as_str()),
            _ => None,
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Stages {
    /// The steps that are switched on; `None` when there are none.
    ///
    /// # Errors
    /// When keys or policies cannot be read.
    pub(crate) fn ready(options: &Steps, port: u16, upstream: &str) -> Result<Option<Self>, String> {
        let Some(until) = options.until else { return Ok(None) };
        let given = |value: &Option<String>| value.clone().unwrap_or_default();
        let trusted = Issuer::new(IssuerSpec {
            url: given(&options.issuer),
            audience: given(&options.audience),
            algorithms: vec!["RS256".to_owned()],
            roles_claim: "/roles".to_owned(),
            roles: ROLE_NAMES.iter().map(|(raw, name)| ((*raw).to_owned(), (*name).to_owned())).collect(),
            purpose_claim: Some("/purpose_of_use".to_owned()),
            mfa: MfaSpec { amr: ["mfa".to_owned()].into(), acr: [].into(), max_age_seconds: 43_200 },
        });
        let trusted = trusted.map_err(|problems| problems.join("; "))?;
        let keys = fs::read(options.keys.clone().unwrap_or_default()).map_err(text)?;
        let keys = KeySet::read(&keys, &trusted).map_err(text)?;
        let public_text = format!("https://localhost:{port}/fhir");
        let (sources, policies) = policies(&options.policies.clone().unwrap_or_default())?;
        Ok(Some(Self {
            until,
            trusted,
            keys,
            tokens: VerifiedTokens::new(),
            policies: Arc::new(policies),
            sources,
            masks: Masks::new(),
            public: PublicBase::parse(&public_text).map_err(text)?,
            public_text,
            upstream_text: format!("http://{upstream}/fhir"),
        }))
    }

    /// Whether answers go through the filter.
    pub(crate) fn filters(&self) -> bool {
        self.until >= Until::Filter
    }

    /// The steps before the upstream is asked.
    ///
    /// # Errors
    /// The status of a refusal.
    pub(crate) fn ask(&self, parts: &Parts) -> Result<Option<Permit>, StatusCode> {
        if self.until < Until::Policy {
            return self.caller(parts).map(|_| None);
        }
        self.judge(parts).map(|judged| Some(judged.permit))
    }

    fn caller(&self, parts: &Parts) -> Result<Arc<Caller>, StatusCode> {
        let now = chartgate::clock::now();
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
        let unverified = Unverified::inspect(token).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let caller = self.tokens.authenticate(&unverified, &self.trusted, &self.keys, &Possession::BARE, now);
        caller.map_err(|_| StatusCode::UNAUTHORIZED)
    }

    /// Who asks, what that means, and whether they may.
    ///
    /// # Errors
    /// The status of a refusal.
    pub(crate) fn judge(&self, parts: &Parts) -> Result<Judged, StatusCode> {
        let caller = self.caller(parts)?;
        let asked = classify(&Head::received(parts), None, &self.public, &Registry::empty());
        let asked = asked.map_err(|_| StatusCode::BAD_REQUEST)?;
        let circumstances = Circumstances {
            now: chartgate::clock::now(),
            network: IpAddr::V4(Ipv4Addr::LOCALHOST),
            purpose: None,
            emergencies: std::collections::BTreeMap::new(),
        };
        let permit = access::admit(&self.policies, &self.masks, &caller, &asked.interaction, &circumstances);
        let permit = permit.map_err(|_| StatusCode::FORBIDDEN)?;
        Ok(Judged { caller, interaction: asked.interaction, permit })
    }

    /// The policies' texts.
    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What stands before a path outside.
    pub(crate) fn public_base(&self) -> &str {
        &self.public_text
    }

    /// What stands before it in the upstream's answers.
    pub(crate) fn upstream_base(&self) -> &str {
        &self.upstream_text
    }

    /// What leaves of an answer: a record, or a Bundle of those that may leave.
    ///
    /// # Errors
    /// The status of a refusal.
    pub(crate) fn filter(&self, permit: &Permit, body: &[u8]) -> Result<Vec<u8>, StatusCode> {
        let bases = Bases { upstream: &[self.upstream_text.as_str()], public: self.public_text.as_str() };
        let document = filter::parse(body, &bases).map_err(|_| StatusCode::BAD_GATEWAY)?;
        let records = document.records();
        let disclosures: Vec<_> = records
            .iter()
            .enumerate()
            .map(|(at, record)| {
                let outer = record.container.and_then(|outer| records.get(outer)).map(|outer| &outer.facts);
                let whole = permit.needs_content().then(|| document.facts_with_content(at)).flatten();
                permit.record(whole.as_ref().unwrap_or(&record.facts), outer).ok()
            })
            .collect();
        let verdicts: Vec<Verdict<'_>> = disclosures
            .iter()
            .map(|disclosure| match disclosure {
                Some(disclosure) => Verdict::whole(disclosure.mask()),
                None => Verdict::Withhold,
            })
            .collect();
        let references = References {
            hide_display: permit.hidden_names().clone(),
            hide_identifier: permit.hidden_identifiers().clone(),
        };
        let mut out = Vec::with_capacity(body.len());
        let outermost =
            (0..records.len()).filter(|at| records.get(*at).is_some_and(|one| one.container.is_none()));
        let write =
            |at: usize, out: &mut Vec<u8>| document.emit(at, &verdicts, &references, &bases, out).is_ok();
        if document.bundle().is_some() {
            write_bundle(outermost, &mut out, write);
            return Ok(out);
        }
        let left = outermost.filter(|at| write(*at, &mut out)).count();
        if left == 0 { Err(StatusCode::NOT_FOUND) } else { Ok(out) }
    }
}

/// A searchset of those records that `write` lets out.
fn write_bundle(
    records: impl Iterator<Item = usize>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(usize, &mut Vec<u8>) -> bool,
) {
    out.extend_from_slice(br#"{"resourceType":"Bundle","type":"searchset","entry":["#);
    let mut first = true;
    for at in records {
        let before = out.len();
        let opening: &[u8] = if first { br#"{"resource":"# } else { br#",{"resource":"# };
        out.extend_from_slice(opening);
        if write(at, out) {
            out.push(b'}');
            first = false;
        } else {
            out.truncate(before);
        }
    }
    out.extend_from_slice(b"]}");
}

fn policies(directory: &Path) -> Result<(Vec<Source>, PolicySet), String> {
    let source = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        fs::read_to_string(path).map(|text| Source { name, text }).map_err(text)
    };
    let mut sources = Vec::new();
    for entry in fs::read_dir(directory).map_err(text)? {
        let path = entry.map_err(text)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            sources.push(source(&path)?);
        }
    }
    let groups = source(&directory.join("groups.toml"))?;
    let set = PolicySet::load(&sources, Some(&groups), None)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    Ok((sources, set))
}
