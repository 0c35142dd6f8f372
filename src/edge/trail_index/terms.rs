//! What the index knows a record by: keyed hashes, which tell nothing to who has not the key.
//!
//! Owns: which terms a record has, and which terms a record that somebody asks for must have.
//! Must never: leave a term out that a [`Filter`] can ask for: what is not found by its terms is not found.
//! Look next: `posting`, where terms lead; `domain::audit::Filter`, which has the last word on what was found.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::domain::audit::{ANY_EMERGENCY, Control, Decision, Filter, Record, Verdict, patient_id, words};
use crate::limits::INDEX_TERMS_HELD_MAX;

/// A keyed hash of one thing a record says: the beginning of HMAC-SHA256. Two things with one hash cost a look, no more.
pub(super) type Term = i64;

/// What a term is about, so that a person and a patient of the same name differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// Every record has this one, with no text.
    Any,
    Request,
    Subject,
    Issuer,
    Person,
    Application,
    Role,
    Interaction,
    Verdict,
    Reason,
    Purpose,
    Emergency,
    Patient,
    /// A word of the request line, a reference, or what stands before a `/` of one.
    Word,
    Mask,
}

impl About {
    fn code(self) -> u8 {
        match self {
            Self::Any => b'*',
            Self::Request => b'q',
            Self::Subject => b's',
            Self::Issuer => b'i',
            Self::Person => b'h',
            Self::Application => b'a',
            Self::Role => b'r',
            Self::Interaction => b'c',
            Self::Verdict => b'v',
            Self::Reason => b'n',
            Self::Purpose => b'u',
            Self::Emergency => b'e',
            Self::Patient => b'p',
            Self::Word => b'w',
            Self::Mask => b'm',
        }
    }
}

/// Makes terms.
pub(super) struct Terms {
    key: hmac::Key,
    /// Names come again and again; a hash costs more than a look.
    held: HashMap<(About, String), Term>,
}

impl fmt::Debug for Terms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Terms")
    }
}

/// A mask as the index keeps it: element paths are no secret.
pub(super) type Mask = Arc<Vec<String>>;

impl Terms {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), held: HashMap::new() }
    }

    pub(super) fn term(&mut self, about: About, text: &str) -> Term {
        // Ids of requests never come again.
        if about == About::Request {
            return self.hash(about, text);
        }
        if let Some(term) = self.held.get(&(about, text.to_owned())) {
            return *term;
        }
        let term = self.hash(about, text);
        if self.held.len() >= INDEX_TERMS_HELD_MAX {
            self.held.clear();
        }
        self.held.insert((about, text.to_owned()), term);
        term
    }

    fn hash(&self, about: About, text: &str) -> Term {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[about.code()]);
        context.update(text.as_bytes());
        let tag = context.sign();
        tag.as_ref().first_chunk::<8>().map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }

    /// What tells this key from others, and nothing of it.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        self.hash(About::Any, "fingerprint of the key").to_be_bytes().to_vec()
    }

    /// What tells one state of what is withheld from another; nothing where nothing is.
    pub(super) fn mark(&self, withheld: &str) -> Vec<u8> {
        if withheld.is_empty() { Vec::new() } else { self.hash(About::Any, withheld).to_be_bytes().to_vec() }
    }

    /// The term of a person: a subject of an issuer.
    pub(super) fn person(&mut self, issuer: &str, subject: &str) -> Term {
        self.term(About::Person, &format!("{}|{issuer}|{subject}", issuer.len()))
    }

    pub(super) fn mask(&mut self, mask: &[String]) -> Term {
        self.term(About::Mask, &mask_text(mask))
    }

    /// Every term of `record`, each once.
    pub(super) fn of(&mut self, record: &Record) -> BTreeSet<Term> {
        let mut terms = BTreeSet::from([self.term(About::Any, "")]);
        if let Some(id) = record.request_id() {
            terms.insert(self.term(About::Request, id));
        }
        match record {
            Record::Intent(decision) | Record::Decision(decision) => self.of_decision(decision, &mut terms),
            Record::Control(control) => self.of_counted(control, &mut terms),
            Record::Outcome(_) => {}
        }
        terms
    }

    /// Of refusals that were counted: what [`Filter`] finds them by.
    fn of_counted(&mut self, control: &Control, terms: &mut BTreeSet<Term>) {
        let Some(refusals) = control.refusals() else { return };
        terms.insert(self.term(About::Verdict, Verdict::Refuse.code()));
        if let Some((issuer, subject)) = refusals.caller {
            terms.insert(self.term(About::Issuer, issuer));
            terms.insert(self.term(About::Subject, subject));
        }
        for code in refusals.told_codes() {
            terms.insert(self.term(About::Reason, code));
        }
    }

    fn of_decision(&mut self, decision: &Decision, terms: &mut BTreeSet<Term>) {
        let mut put = |about: About, text: &str| {
            terms.insert(self.term(about, text));
        };
        if let Some(caller) = &decision.caller {
            put(About::Subject, &caller.subject);
            put(About::Issuer, &caller.issuer);
            caller.application.iter().for_each(|application| put(About::Application, application));
            caller.roles.iter().for_each(|role| put(About::Role, role));
        }
        put(About::Interaction, &decision.interaction);
        put(About::Verdict, decision.verdict.code());
        decision.reason.iter().for_each(|reason| put(About::Reason, reason));
        decision.purposes.iter().for_each(|purpose| put(About::Purpose, purpose));
        decision.emergencies.iter().for_each(|grant| put(About::Emergency, grant));
        if !decision.emergencies.is_empty() {
            put(About::Emergency, ANY_EMERGENCY);
        }
        words(&decision.request).for_each(|word| put(About::Word, word));
        for (reference, patients, mask) in items(decision) {
            patients.iter().for_each(|patient| put(About::Patient, patient));
            beginnings(reference).for_each(|beginning| put(About::Word, beginning));
            put(About::Mask, &mask_text(mask));
        }
    }

    /// What a record must have to be taken by `filter`; nothing where the filter asks for nothing that has a term. `masks`:
    /// those the index knows to hold the element asked for.
    pub(super) fn asked(&mut self, filter: &Filter, masks: Vec<Term>) -> Vec<Clause> {
        let single = [
            (About::Subject, &filter.subject),
            (About::Issuer, &filter.issuer),
            (About::Application, &filter.application),
            (About::Role, &filter.role),
            (About::Interaction, &filter.interaction),
            (About::Verdict, &filter.decision),
            (About::Reason, &filter.reason),
            (About::Purpose, &filter.purpose),
            (About::Emergency, &filter.emergency),
            (About::Request, &filter.request_id),
        ];
        let mut clauses: Vec<Clause> = Vec::new();
        for (about, text) in single {
            clauses.extend(text.as_ref().map(|text| vec![vec![self.term(about, text)]]));
        }
        if let Some(patient) = &filter.patient {
            let id = patient_id(patient);
            let theirs = vec![self.term(About::Patient, id)];
            let own = vec![self.term(About::Word, &format!("Patient/{id}"))];
            clauses.extend(self.words(id).map(|words| vec![theirs, own, words]));
        }
        if let Some(resource) = &filter.resource {
            let own = vec![self.term(About::Word, resource)];
            clauses.extend(self.words(resource).map(|words| vec![own, words]));
        }
        if clauses.is_empty() && (filter.since.is_some() || filter.until.is_some()) {
            clauses.push(vec![vec![self.term(About::Any, "")]]);
        }
        if filter.element.is_some() {
            clauses.push(masks.into_iter().map(|mask| vec![mask]).collect());
        }
        clauses
    }

    /// The terms of the words of `text`; none when it has none, and the index cannot tell where it stands.
    fn words(&mut self, text: &str) -> Option<Vec<Term>> {
        let terms: Vec<Term> = words(text).map(|word| self.term(About::Word, word)).collect();
        (!terms.is_empty()).then_some(terms)
    }
}

/// A mask as the index writes it: a path on each line.
pub(super) fn mask_text(mask: &[String]) -> String {
    mask.join("\n")
}

/// One of these must hold: all terms of one of the lists.
pub(super) type Clause = Vec<Vec<Term>>;

/// Every record released or written: reference, patients and mask.
pub(super) fn items(decision: &Decision) -> impl Iterator<Item = (&str, &BTreeSet<String>, &Mask)> {
    let released = decision.released.iter().map(|item| (item.reference.as_str(), &item.patients, &item.mask));
    let written = decision.written.iter().map(|item| (item.reference.as_str(), &item.patients, &item.mask));
    released.chain(written)
}

/// What stands before each `/`, and the whole.
fn beginnings(reference: &str) -> impl Iterator<Item = &str> {
    let before = reference.match_indices('/').filter_map(|(at, _)| reference.get(..at));
    before.chain([reference])
}
