//! A solver's example, tried on the real decision: in words, and as a case that anybody can replay.
//!
//! Owns: turning a witness into a case (`policy test`, `policy explain`), and saying whether the gate decides as the
//! solver said. Must never: hide that it does not. Look next: `access::proving`, where the example comes from; `case`.

use super::case::{Case, read_cases};
use super::judge;
use super::record::Records;
use crate::domain::access::proving::{Counterexample, Must, Place, Witness};
use crate::domain::access::{PolicySet, Source};
use crate::domain::fhir::r4::ElementPath;
use std::fmt::Write as _;
use std::sync::Arc;

/// What the gate itself says to an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It decides as the solver said.
    Confirmed,
    /// It does not, or cannot be asked: why, in one line.
    NotConfirmed(String),
}

/// A counterexample, told.
#[derive(Clone, Debug)]
pub struct Refutation {
    /// Who, for what, about which record, in one sentence.
    pub words: String,
    /// The same as a case: TOML as in `policies/tests`.
    pub case: String,
    /// What the gate says to it.
    pub replay: Replay,
}

/// Tells a counterexample, and asks the gate.
#[must_use]
pub fn counterexample(
    policies: &Arc<PolicySet>,
    name: &str,
    must: Must,
    example: &Counterexample,
) -> Refutation {
    let (place, witness) = (example.place, &example.witness);
    let element = example.stands_for.as_ref();
    let released = must == Must::Never;
    let (case, replay) = tried(policies, name, place, witness, element, released);
    let words = format!("{} {}", situation(place, witness), outcome(place, element, released));
    Refutation { words, case, replay }
}

fn outcome(place: Place, element: Option<&ElementPath>, released: bool) -> String {
    let verb = match (place.writes(), released) {
        (true, true) => "may be written",
        (true, false) => "may not be written",
        (false, true) => "is shown",
        (false, false) => "is withheld",
    };
    match (element, released) {
        (Some(path), _) => format!("and `{path}` {verb}"),
        (None, true) => "and it is permitted".to_owned(),
        (None, false) => "and it is refused".to_owned(),
    }
}

/// The case for an example, and what the gate says to it. `released`: the solver said that it is permitted, with the
/// element if there is one.
pub(super) fn tried(
    policies: &Arc<PolicySet>,
    name: &str,
    place: Place,
    witness: &Witness,
    element: Option<&ElementPath>,
    released: bool,
) -> (String, Replay) {
    let told = case(name, place, witness);
    let bare = format!("{told}expect = \"permit\"\n");
    let parsed = match parse(&bare) {
        Ok(parsed) => parsed,
        Err(message) => return (bare, Replay::NotConfirmed(message)),
    };
    let permitted = judge::decision(policies, &parsed, place.resource()).is_ok();
    let expected = match (element, released) {
        (Some(path), true) => format!("expect = \"permit\"\nvisible = {}\n", quoted(path.as_str())),
        (Some(path), false) if permitted => {
            format!("expect = \"permit\"\nwithheld = {}\n", quoted(path.as_str()))
        }
        (None, true) => "expect = \"permit\"\n".to_owned(),
        (Some(_) | None, false) => "expect = \"deny\"\n".to_owned(),
    };
    let text = format!("{told}{expected}");
    let replay = replay(policies, witness, &text);
    (text, replay)
}

fn replay(policies: &Arc<PolicySet>, witness: &Witness, text: &str) -> Replay {
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(message) => return Replay::NotConfirmed(message),
    };
    let verdict = judge::judge(policies, &Records::built_in(), &parsed);
    if verdict.passed() {
        return Replay::Confirmed;
    }
    let findings: Vec<String> =
        verdict.findings.iter().map(|one| format!("{}: {}", one.about, one.got)).collect();
    let mut why = findings.join("; ");
    let beyond = beyond_a_case(witness);
    if !beyond.is_empty() {
        let _ = write!(why, "; a case cannot tell of {}", beyond.join(", "));
    }
    Replay::NotConfirmed(why)
}

fn parse(text: &str) -> Result<Case, String> {
    let source = Source { name: "counterexample.toml".to_owned(), text: text.to_owned() };
    let cases = read_cases(&source).map_err(|problems| {
        problems.first().map_or_else(String::new, |problem| format!("no case: {}", problem.message))
    })?;
    cases.into_iter().next().ok_or_else(|| "no case".to_owned())
}

/// What matters to some policies and has no word in a case.
fn beyond_a_case(witness: &Witness) -> Vec<String> {
    let mut beyond = Vec::new();
    if witness.binding != "none" {
        beyond.push(format!("a token bound by {}", witness.binding));
    }
    if !witness.scopes.is_empty() {
        beyond.push(format!("the scopes {}", witness.scopes.join(" ")));
    }
    beyond
}

/// TOML's basic strings have the escapes of JSON's.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007f")
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match words.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Everything but what is expected.
fn case(name: &str, place: Place, witness: &Witness) -> String {
    let mut text = format!("[[case]]\nname = {}\n", quoted(name));
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    let mut roles = witness.roles.iter();
    line("role", quoted(roles.next().map_or("nobody", String::as_str)));
    let more: Vec<String> = roles.cloned().collect();
    if !more.is_empty() {
        line("also-role", list(&more));
    }
    line("purpose", quoted(&witness.purpose));
    line("action", quoted(place.action()));
    if let (Some(operation), "operate") = (&witness.operation, place.action()) {
        line("operation", quoted(operation));
    }
    line("type", quoted(place.resource().name()));
    // Unless told, a case's record is about `example` where its type is about patients.
    if witness.patients != ["example"] || !judge::belongs_to_patients(place.resource()) {
        let patients: Vec<String> = witness.patients.iter().map(|id| quoted(id)).collect();
        line("patient", format!("[{}]", patients.join(", ")));
    }
    for (key, words) in [
        ("relation", &witness.relations),
        ("labels", &witness.labels),
        ("category", &witness.category),
        ("code", &witness.code),
    ] {
        if !words.is_empty() {
            line(key, list(words));
        }
    }
    if let Some(status) = witness.status.as_deref().filter(|status| *status != "active") {
        line("status", quoted(status));
    }
    if let Some(user) = witness.fhir_user.as_deref().filter(|user| !user.is_empty()) {
        line("user", quoted(user));
    }
    if witness.emergency {
        line("emergency", "true".to_owned());
    }
    if !witness.application.is_empty() {
        line("application", quoted(&witness.application));
    }
    if !witness.person {
        line("client", "true".to_owned());
    }
    if let Some(network) = address(&witness.network).filter(|address| address != "127.0.0.1") {
        line("network", quoted(&network));
    }
    if witness.age_seconds != 60 {
        line("second-factor-age", quoted(&format!("{}s", witness.age_seconds)));
    }
    if witness.methods != ["mfa"] || !witness.phishing_resistant {
        let methods: Vec<String> = witness.methods.iter().map(|method| quoted(method)).collect();
        line("second-factor", format!("[{}]", methods.join(", ")));
        line("phishing-resistant", witness.phishing_resistant.to_string());
    }
    text
}

/// The address in Cedar's `ip("10.0.0.1/32")` or `10.0.0.1/32`.
fn address(network: &str) -> Option<String> {
    let text = network.trim_start_matches("ip(").trim_end_matches(')').trim_matches('"');
    let address = text.split('/').next().unwrap_or(text);
    (!address.is_empty()).then(|| address.to_owned())
}

/// A place, with an element or without, in words.
#[must_use]
pub fn place(place: Place, element: Option<&ElementPath>) -> String {
    let who = if place.is_person() { "" } else { " by clients" };
    let what = element.map_or_else(|| place.resource().name().to_owned(), ElementPath::to_string);
    format!("{} of {what}{who}", place.action())
}

/// Who, for what, about which record, in words.
pub(super) fn situation(place: Place, witness: &Witness) -> String {
    let who = match (witness.person, witness.roles.as_slice()) {
        (false, _) => "a client for itself".to_owned(),
        (true, []) => "somebody without a role".to_owned(),
        (true, roles) => format!("somebody who is {}", roles.join(" and ")),
    };
    let article = if place.resource().name().starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    let asked = witness.operation.as_deref().unwrap_or(place.action());
    let mut parts = circumstances(witness);
    let purpose = parts.remove(0);
    let what = format!("asks for {asked} of {article} {}", place.resource().name());
    let rest: Vec<String> = [who, purpose, what].into_iter().chain(parts).collect();
    format!("{},", rest.join(", "))
}

/// The purpose, and everything that is not as it ordinarily is.
pub(super) fn circumstances(witness: &Witness) -> Vec<String> {
    let mut parts = vec![match witness.purpose.as_str() {
        "NONE" | "" => "without a purpose".to_owned(),
        purpose => format!("for {purpose}"),
    }];
    let mut tell = |what: &str, items: &[String]| {
        if !items.is_empty() {
            parts.push(format!("{what} {}", items.join(", ")));
        }
    };
    tell("labelled", &witness.labels);
    tell("of category", &witness.category);
    tell("coded", &witness.code);
    tell("standing to the patient as", &witness.relations);
    if let Some(status) = witness.status.as_deref().filter(|status| *status != "active") {
        parts.push(format!("with the status `{status}`"));
    }
    match witness.patients.len() {
        0 => parts.push("about no patient".to_owned()),
        1 => {}
        many => parts.push(format!("about {many} patients")),
    }
    if witness.emergency {
        parts.push("under emergency access".to_owned());
    }
    if witness.methods.is_empty() {
        parts.push("without a second factor".to_owned());
    } else if witness.methods != ["mfa"] || !witness.phishing_resistant {
        parts.push(format!("with a second factor by {}", witness.methods.join(", ")));
    }
    if witness.age_seconds != 60 {
        parts.push(format!("{} seconds after the login", witness.age_seconds));
    }
    if !witness.application.is_empty() && witness.person {
        parts.push(format!("through the application `{}`", witness.application));
    }
    if let Some(network) = address(&witness.network).filter(|address| address != "127.0.0.1") {
        parts.push(format!("from {network}"));
    }
    parts.extend(
        beyond_a_case(witness).into_iter().filter(|_| witness.person).map(|what| format!("with {what}")),
    );
    parts
}
