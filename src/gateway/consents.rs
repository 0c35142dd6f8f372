//! What the patients of an answer laid down: their active Consents, asked of the EMR and kept a while.
//!
//! Owns: which Consents are looked up, for a whole page together, and that nothing is known of a patient as soon as
//! anything about the answer is doubtful. Must never: weigh them; that is for each record.
//! Look next: `domain::access::consent`, what they say; `relations`, the lookups beside this one.

use super::relations::{Ask, together};
use crate::domain::access::{Directive, Directives, Party, Reading};
use crate::domain::narrow::{self, Look};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::timeout;

/// The Consents of each patient, by logical id.
type Of = BTreeMap<String, Arc<Directives>>;

impl Ask<'_> {
    /// The active Consents of these patients, as far as they are known, and the caller with the roles in which they act
    /// where it matters and is known.
    pub(super) async fn consents(
        &self,
        party: Option<Party>,
        patients: &BTreeSet<String>,
    ) -> Option<(Of, Option<Party>)> {
        let (mut of, wanted) = self.kept_consents(patients);
        let asking = async {
            if !wanted.is_empty() {
                of.extend(self.look_up_consents(&wanted).await);
            }
            let matters = of.values().any(|directives| directives.names_actors());
            match party.filter(|_| matters) {
                Some(party) => (of, self.party(party).await),
                None => (of, None),
            }
        };
        let answered = timeout(limits::RELATION_LOOKUP_TIMEOUT, asking).await;
        if answered.is_err() {
            self.failed("timed-out");
        }
        answered.ok()
    }

    /// What was found lately, and of whom nothing is known.
    fn kept_consents(&self, patients: &BTreeSet<String>) -> (Of, BTreeSet<String>) {
        let standing = &self.gate.relations;
        let (mut of, mut wanted) = (Of::new(), BTreeSet::new());
        for patient in patients {
            match standing.consents.get(patient) {
                Some((kept, at)) if standing.counts(!kept.is_empty(), at, self.now) => {
                    of.insert(patient.clone(), kept);
                }
                Some(_) | None => drop(wanted.insert(patient.clone())),
            }
        }
        (of, wanted)
    }

    /// Asks the EMR, and keeps what it says.
    async fn look_up_consents(&self, wanted: &BTreeSet<String>) -> Of {
        let looks = narrow::plan_consents(wanted);
        let answers = together(looks.iter().map(|look| self.consents_of(look))).await;
        let found: Of = answers.into_iter().flatten().flatten().collect();
        for (patient, directives) in &found {
            self.gate.relations.consents.insert(patient.clone(), (Arc::clone(directives), self.now));
        }
        found
    }

    /// What one search finds; nothing where it may have missed one, or where one may be anybody's.
    async fn consents_of(&self, look: &Look) -> Option<Of> {
        let base = &self.gate.upstream_base;
        let found = self.ask(&look.plan, |record| Some(Reading::of(record, base))).await?;
        let none = |patient: &String| (patient.clone(), Vec::new());
        let mut all: BTreeMap<String, Vec<Directive>> = look.patients.iter().map(none).collect();
        for reading in found.records {
            match reading {
                Reading::Other => {}
                Reading::OfNobody => {
                    self.failed("consent-of-nobody");
                    return None;
                }
                Reading::Of(patient, directive) => {
                    if let Some(theirs) = all.get_mut(&patient) {
                        theirs.push(directive);
                    }
                }
            }
        }
        let sound = all
            .into_iter()
            .filter_map(|(patient, theirs)| Some((patient, Arc::new(Directives::new(theirs)?))));
        found.is_all.then(|| sound.collect())
    }
}
