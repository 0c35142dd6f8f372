//! A refusal that a stronger or fresher login would lift becomes the challenge for that login (RFC 9470).
//!
//! Owns: which refusals are looked at again, what they would open, and the words of the challenge.
//! Must never: challenge where no login helps, or because of what is in a record: missing, withheld and not theirs stay
//! one and the same. Look next: `domain::access::step_up`, which finds the least login; `refusal`, what is heard.

use super::refusal::Refusal;
use super::visit::Visit;
use crate::domain::access::{Challenge, Denial, Lacking, Permit};
use crate::domain::change::ChangeRefusal;
use crate::domain::fhir::interaction::{History, Interaction};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::domain::fhir::search::Search;
use crate::domain::fhir::shape::Shape;

/// `acr` values that resist phishing (OpenID Connect EAP ACR Values 1.0).
const RESISTANT: [&str; 2] = ["phr", "phrh"];

/// A login that would do, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepUp {
    pub(super) challenge: Challenge,
    /// Of the caller's issuer; empty where the kind of login does not matter.
    pub(super) acr_values: String,
    /// What it would open: types and elements by name, parameters as `http.name`. Official names only.
    pub(super) opens: Vec<String>,
}

impl StepUp {
    /// The challenge's parameters: what is needed and nothing else (RFC 9470 section 3).
    pub(super) fn parameters(&self) -> String {
        let mut value = "error=\"insufficient_user_authentication\"".to_owned();
        if !self.acr_values.is_empty() {
            value.push_str(&format!(", acr_values=\"{}\"", self.acr_values));
        }
        if let Some(seconds) = self.challenge.max_age_seconds {
            value.push_str(&format!(", max_age=\"{seconds}\""));
        }
        value
    }

    /// The same for people.
    pub(super) fn sentence(&self) -> String {
        let resists = if self.challenge.phishing_resistant { " that resists phishing" } else { "" };
        let age = self.challenge.max_age_seconds.map(|seconds| format!(", at most {seconds} s old,"));
        let opens = self.opens.join(", ");
        format!("a login{resists}{} would open {opens}", age.unwrap_or_default())
    }
}

impl Visit<'_> {
    /// A refused question, looked at again.
    pub(super) fn reconsidered(&self, question: &Interaction, refusal: Refusal) -> Refusal {
        let opens = match &refusal {
            Refusal::Access(Denial::TypeNotPermitted { resource }) => resource.name().to_owned(),
            Refusal::Access(Denial::CriterionWithheld { parameter }) => format!("http.{parameter}"),
            _ => return refusal,
        };
        match self.step_up(question, Lacking::Admission) {
            Some(challenge) => self.challenged(challenge, vec![opens]),
            None => refusal,
        }
    }

    /// A refused change, looked at again: whether the element could be written, or seen, in some record.
    pub(super) fn reconsidered_change(&self, question: &Interaction, refusal: Refusal) -> Refusal {
        let (path, written) = match &refusal {
            Refusal::Change(ChangeRefusal::NotWritable(path)) => (path, true),
            Refusal::Change(ChangeRefusal::Withheld(path)) => (path, false),
            _ => return refusal,
        };
        let Ok(path) = ElementPath::parse(path) else { return refusal };
        let Ok(permit) = self.admits(question) else { return refusal };
        let paths = [path];
        let mask = if written { permit.may_modify() } else { permit.type_mask() };
        let lacking = if written { Lacking::Written(&paths) } else { Lacking::Seen(&paths) };
        // What some record lets pass now is refused for what is in this one.
        if paths.iter().all(|path| mask.covers(path)) {
            return refusal;
        }
        match self.step_up(question, lacking) {
            Some(challenge) => {
                self.challenged(challenge, paths.iter().map(|path| path.as_str().to_owned()).collect())
            }
            None => refusal,
        }
    }

    /// Elements that the client named and that another login would show: asked for by name, they are not left out in
    /// silence.
    pub(super) fn check_named(&self, question: &Interaction, permit: &Permit) -> Result<(), Refusal> {
        let Some((resource, shape)) = shape_of(question) else { return Ok(()) };
        let lacks = |path: &ElementPath| {
            let one = std::slice::from_ref(path);
            !permit.type_mask().covers(path) && self.step_up(question, Lacking::Seen(one)).is_some()
        };
        let paths: Vec<ElementPath> = shape.named(resource).into_iter().filter(lacks).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let named = |paths: &[ElementPath]| paths.iter().map(|path| path.as_str().to_owned()).collect();
        match self.step_up(question, Lacking::Seen(&paths)) {
            Some(challenge) => Err(self.challenged(challenge, named(&paths))),
            None => Ok(()),
        }
    }

    /// The refusal that asks for a login.
    pub(super) fn challenged(&self, challenge: Challenge, opens: Vec<String>) -> Refusal {
        let issuer = self.gate.keyring.issuer(self.caller.issuer());
        let known: Vec<&str> = issuer
            .into_iter()
            .flat_map(|issuer| issuer.acr_values())
            .filter(|class| RESISTANT.contains(class))
            .collect();
        let acr_values = match (challenge.phishing_resistant, known.is_empty()) {
            (false, _) => String::new(),
            (true, true) => RESISTANT.join(" "),
            (true, false) => known.join(" "),
        };
        Refusal::StepUp(Box::new(StepUp { challenge, acr_values, opens }))
    }
}

/// What of each record a question wants to see, where it is about one type.
fn shape_of(question: &Interaction) -> Option<(ResourceType, &Shape)> {
    let shape = match question {
        Interaction::Read { shape, .. } | Interaction::Vread { shape, .. } => shape,
        Interaction::Search(search) => Search::shape(search),
        Interaction::History(history) => History::shape(history),
        _ => return None,
    };
    Some((question.resource_type()?, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_asks_for_what_is_needed_and_no_more() {
        let cases = [
            (Some(299), false, "", ", max_age=\"299\"", "a login, at most 299 s old, would open Patient"),
            (None, true, "phr", ", acr_values=\"phr\"", "a login that resists phishing would open Patient"),
            (
                Some(0),
                true,
                "phr phrh",
                ", acr_values=\"phr phrh\", max_age=\"0\"",
                "a login that resists phishing, at most 0 s old, would open Patient",
            ),
        ];
        for (max_age_seconds, phishing_resistant, acr, header, sentence) in cases {
            let challenge = Challenge { max_age_seconds, phishing_resistant };
            let opens = vec!["Patient".to_owned()];
            let step_up = StepUp { challenge, acr_values: acr.to_owned(), opens };
            let expected = format!("error=\"insufficient_user_authentication\"{header}");
            assert_eq!((step_up.parameters(), step_up.sentence()), (expected, sentence.to_owned()));
        }
    }
}
