//! Audit records as questions that can be asked again.
//!
//! Owns: reading the decisions of a trail, and the request line of each as the interaction that it was. Must never: take the
//! journal's lock; read without leaving word of it. Look next: `domain::workbench::replay`; `cli::audit`, which reads.

use crate::app;
use crate::cli::audit::{self, Filter};
use crate::cli::trail::Reader;
use crate::config::Settings;
use crate::domain::audit::{Case, Cases, Decision, Record, Verdict};
use crate::domain::fhir::classify::{Head, classify};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::Registry;
use crate::domain::workbench::replay::{Item, Recorded};
use crate::gateway::review;
use http::{HeaderMap, HeaderValue, header};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// A base to read request lines against; it never leaves this file.
const BASE: &str = "https://trail.invalid";

/// A trail with what is needed to read its decisions.
pub(super) struct Trail<'s> {
    settings: &'s Settings,
    base: Option<PublicBase>,
    emergencies: Cases,
}

impl<'s> Trail<'s> {
    /// Opens a trail for reading, and leaves word of it: of `command`, and what it asks for.
    ///
    /// # Errors
    /// A sentence that says why it cannot be read.
    pub(super) fn open(
        settings: &'s Settings,
        reader: &Reader,
        command: &str,
        asked: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let journal = app::journal_settings(settings);
        reader.recorded(&journal, command, asked);
        let emergencies = review::cases(&journal)?;
        Ok(Self { settings, base: PublicBase::parse(BASE).ok(), emergencies })
    }

    /// Hands every decision that `filter` takes to `each`, in sequence. Gives the exit code of reading.
    pub(super) fn each(
        &self,
        filter: &Filter,
        scan: bool,
        each: &mut dyn FnMut(&Decision, &Recorded) -> io::Result<()>,
    ) -> u8 {
        let index = (!scan).then_some(self.settings.audit.index.as_path());
        let mut err = io::stderr().lock();
        let journal = app::journal_settings(self.settings);
        audit::each_record(&journal, index, filter, &mut err, &mut |record| match record {
            Record::Decision(decision) => match self.recorded(decision) {
                Some(recorded) => each(decision, &recorded),
                None => Ok(()),
            },
            Record::Intent(_) | Record::Outcome(_) | Record::Control(_) => Ok(()),
        })
    }

    /// A decision as a question; none where nobody is known to have asked.
    fn recorded(&self, decision: &Decision) -> Option<Recorded> {
        let caller = decision.caller.as_ref()?;
        let question = self.question(&decision.request);
        let is_shaped = ["_elements=", "_summary="].iter().any(|word| decision.request.contains(word));
        let released = decision.released.iter();
        let released = released.filter_map(|one| item(&one.reference, &one.patients, &one.mask, false));
        let written = decision.written.iter();
        let written = written.filter_map(|one| item(&one.reference, &one.patients, &one.mask, true));
        let items: Vec<Item> = released.chain(written).collect();
        Some(Recorded {
            time: decision.time,
            request_id: decision.request_id.clone(),
            issuer: caller.issuer.clone(),
            subject: caller.subject.clone(),
            roles: caller.roles.clone(),
            application: caller.application.clone(),
            binding: caller.binding.clone(),
            purpose: decision.purposes.first().cloned().unwrap_or_else(|| "NONE".to_owned()),
            network: decision.source.as_deref().and_then(|source| source.parse().ok()),
            interaction: decision.interaction.clone(),
            is_whole: question.is_some() && !is_shaped,
            question,
            permitted: decision.verdict == Verdict::Permit,
            reason: decision.reason.clone(),
            policy_set: decision.policy_set.clone(),
            basis: decision.basis.iter().cloned().collect(),
            had_emergency: self.had_emergency(decision, &caller.issuer, &caller.subject),
            items,
            withheld: decision.withheld,
        })
    }

    /// Whether some emergency access of theirs may have been in force: begun before, and not over for a day.
    fn had_emergency(&self, decision: &Decision, issuer: &str, subject: &str) -> bool {
        let theirs = |case: &&&Case| case.issuer == issuer && case.subject == subject;
        let all = self.emergencies.all();
        all.iter().filter(theirs).any(|case| {
            let ended = case.ended.as_ref().is_some_and(|(time, _)| *time < decision.time);
            case.began <= decision.time && !ended
        })
    }

    /// What the request line asks, where it is whole.
    fn question(&self, line: &str) -> Option<Interaction> {
        let (method, address) = line.split_once(' ')?;
        let base = self.base.as_ref()?;
        let mut headers = HeaderMap::new();
        let is_export = address.split('?').next().is_some_and(|path| path.ends_with("$export"));
        match method {
            "POST" | "PUT" => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/fhir+json"));
            }
            "PATCH" => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json-patch+json"));
            }
            "GET" if is_export => {
                headers.insert("prefer", HeaderValue::from_static("respond-async"));
            }
            _ => {}
        }
        let target = format!("/{address}");
        let authority = BASE.strip_prefix("https://");
        let head = Head { method, target: &target, authority, headers: &headers };
        let registry: &Registry = &self.settings.parameters;
        classify(&head, None, base, registry).ok().map(|asked| asked.interaction)
    }
}

/// A contained record's reference does not tell its type: its mask does.
fn item(
    reference: &str,
    patients: &BTreeSet<String>,
    mask: &Arc<Vec<String>>,
    written: bool,
) -> Option<Item> {
    let of_mask = mask.first().and_then(|path| path.split('.').next());
    let of_reference = reference.split(['/', '#']).next();
    let resource = of_mask.or(of_reference).and_then(ResourceType::from_name)?;
    Some(Item {
        resource,
        reference: reference.to_owned(),
        patients: patients.clone(),
        written,
        mask: Arc::clone(mask),
    })
}
