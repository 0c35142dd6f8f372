//! A trail that is long already: releases and outcomes of the years before, written by the journal itself.
//!
//! Owns: made-up records, appended in large frames. Must never: be written while a gate has the trail open.
//! Look next: `trailbench`, which measures a long trail itself; `growth`.

use crate::baseline::progress;
use chartgate::app;
use chartgate::domain::audit::{Caller, Decision, Ending, Outcome, Record, Released, Verdict};
use chartgate::edge::journal::Journal;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Answers that one append takes: the trail is to be long, not slow.
const ANSWERS_IN_FRAME: u64 = 2_000;
const PEOPLE: u64 = 800;
const PATIENTS: u64 = 50_000;
/// Between two answers, backwards from now.
const INTERVAL: Duration = Duration::from_millis(5);

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Appends this many entries, half of them releases, half outcomes, to the trail of a configuration.
///
/// # Errors
/// When the trail does not take them.
pub(super) async fn lengthen(config: &Path, entries: u64) -> Result<(), String> {
    let settings = chartgate::config::load(config)
        .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())?;
    let journal = Journal::open(&app::journal_settings(&settings)).map_err(text)?;
    let answers = entries / 2;
    for first in (0..answers).step_by(usize::try_from(ANSWERS_IN_FRAME).unwrap_or(1)) {
        progress(&format!("lengthening the trail: {} of {entries} entries", first * 2));
        let frame: Vec<Record> = (first..answers.min(first + ANSWERS_IN_FRAME))
            .map(|number| answer(number, answers))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let _receipt = journal.append(&frame).await.map_err(text)?;
    }
    journal.close().await.map_err(text)
}

/// The release and the outcome of answer `number` of so many.
fn answer(number: u64, answers: u64) -> Result<Vec<Record>, String> {
    let before = INTERVAL * u32::try_from(answers - number).map_err(text)?;
    let time = chartgate::clock::now().checked_sub(before).map_err(text)?;
    let id = format!("{:032x}", (1_u128 << 100) + u128::from(number));
    let patient = format!("pat-{:06}", number * 7_919 % PATIENTS);
    let mut decision = Decision::new(time, id.clone(), Verdict::Permit);
    decision.caller = Some(Caller {
        issuer: "https://idp.hospital.example".to_owned(),
        subject: format!("person-{:04}", number * 31 % PEOPLE),
        session: format!("s-{:016x}", number / 50),
        token_hash: format!("{:064x}", number / 50),
        application: Some("chart".to_owned()),
        roles: vec!["nurse".to_owned()],
        ..Caller::default()
    });
    decision.purposes = vec!["TREAT".to_owned()];
    decision.interaction = "read".to_owned();
    decision.request = format!("GET Observation/{patient}-o1");
    decision.policies = vec!["nurse-records".to_owned(), "nurse-elements".to_owned()];
    decision.status = 200;
    decision.released = vec![Released {
        reference: format!("Observation/{patient}-o1"),
        version: Some("1".to_owned()),
        patients: BTreeSet::from([patient]),
        mask: Arc::new(
            ["Observation.code", "Observation.status", "Observation.value"].map(str::to_owned).to_vec(),
        ),
    }];
    let outcome =
        Outcome { time, request_id: id, entry: None, ending: Ending::Complete, sent_bytes: Some(2_048) };
    Ok(vec![Record::Decision(Box::new(decision)), Record::Outcome(outcome)])
}
