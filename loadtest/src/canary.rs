//! Values that must not cross: planted in the hospital's records, searched for in every answer as it comes.
//!
//! Owns: the canaries, which of them each role may never see, and [`Watch`], the search over pieces.
//! Must never: keep more of an answer than a canary is long.
//! Look next: `hospital`, which plants them; `open_loop`, which fails the run on a find.

use crate::scenario::Role;
use memchr::memmem;

/// In `Patient.telecom`.
pub(crate) const MAIL: &str = "zkmail";
/// In `Patient.identifier`.
pub(crate) const NUMBER: &str = "ZKMRN";
/// In `Patient.address`.
pub(crate) const ROAD: &str = "Zkroad";
/// In `Patient.name`.
pub(crate) const NAME: &str = "Zkname";
/// In notes and in text that a person typed, of clinical records.
pub(crate) const NOTE: &str = "zknote";
/// In an extension of the Patient that opens bank accounts.
pub(crate) const MAIDEN: &str = "Zkmaiden";
/// In a record that is labelled as psychotherapy notes: for nobody here.
pub(crate) const THERAPY: &str = "zktherapy";

/// What the shipped policies withhold from each role.
pub(crate) fn withheld_from(role: Role) -> &'static [&'static str] {
    match role {
        Role::Nurse => &[MAIL, NUMBER, ROAD, MAIDEN, THERAPY],
        Role::Physician => &[MAIDEN, THERAPY],
        Role::FrontDesk | Role::BillingClerk => &[NOTE, MAIDEN, THERAPY],
        Role::Researcher => &[MAIL, NUMBER, ROAD, NAME, NOTE, MAIDEN, THERAPY],
        // All of their own chart is theirs; of anybody else's nothing: `Watch::other`.
        Role::Patient => &[THERAPY],
    }
}

const PATIENT: &[u8] = b"Patient/";
/// The longest id of a patient here, and the character after it.
const ID_BYTES_MAX: usize = 16;
/// What is kept of a piece, so that a canary on a seam is found.
const SEAM_BYTES: usize = PATIENT.len() + ID_BYTES_MAX;

/// Watches one answer.
#[derive(Debug)]
pub(crate) struct Watch {
    withheld: &'static [&'static str],
    /// The only patient who may be mentioned, for a patient.
    own: Option<String>,
    seam: Vec<u8>,
    found: Option<String>,
}

impl Watch {
    /// For an answer to somebody of this role; `own` is a patient's own id.
    pub(crate) fn new(role: Role, own: Option<String>) -> Self {
        Self { withheld: withheld_from(role), own, seam: Vec::new(), found: None }
    }

    /// Looks at the next piece.
    pub(crate) fn see(&mut self, piece: &[u8]) {
        if self.found.is_some() {
            return;
        }
        let head = piece.get(..SEAM_BYTES.min(piece.len())).unwrap_or_default();
        self.seam.extend_from_slice(head);
        let seam = std::mem::take(&mut self.seam);
        self.found = self.search(&seam, false).or_else(|| self.search(piece, false));
        let tail_of = if piece.len() >= SEAM_BYTES { piece } else { &seam };
        let from = tail_of.len().saturating_sub(SEAM_BYTES);
        self.seam = tail_of.get(from..).unwrap_or_default().to_vec();
    }

    /// What was found, once the answer is whole.
    pub(crate) fn found(mut self) -> Option<String> {
        let seam = std::mem::take(&mut self.seam);
        self.found.take().or_else(|| self.search(&seam, true))
    }

    fn search(&self, bytes: &[u8], whole: bool) -> Option<String> {
        let canary = self.withheld.iter().find(|canary| memmem::find(bytes, canary.as_bytes()).is_some());
        canary.map(|canary| format!("the withheld value `{canary}` crossed")).or_else(|| {
            let own = self.own.as_deref()?;
            self.other(bytes, own.as_bytes(), whole).then(|| "somebody else's record crossed".to_owned())
        })
    }

    /// Whether another patient is mentioned. An id that goes on beyond the piece is left to the seam.
    fn other(&self, bytes: &[u8], own: &[u8], whole: bool) -> bool {
        memmem::find_iter(bytes, PATIENT).any(|at| {
            let rest = bytes.get(at + PATIENT.len()..).unwrap_or_default();
            let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric());
            match end {
                Some(end) => rest.get(..end).is_some_and(|id| id != own && !id.is_empty()),
                None => whole && !rest.is_empty() && rest != own,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(role: Role, own: Option<&str>, body: &[u8], piece: usize) -> bool {
        let mut watch = Watch::new(role, own.map(str::to_owned));
        body.chunks(piece).for_each(|piece| watch.see(piece));
        watch.found().is_some()
    }

    #[test]
    fn a_canary_is_found_however_the_answer_is_cut() {
        let pad = "x".repeat(70);
        let text = |inside: &str| format!("{pad}{inside}{pad}").into_bytes();
        let cases = [
            (Role::Nurse, None, text("zkmail7@x"), true),
            (Role::Nurse, None, text("Zkname"), false),
            (Role::Researcher, None, text("Zkname"), true),
            (Role::BillingClerk, None, text("zknote"), true),
            (Role::Patient, Some("c7"), text("Patient/c7\""), false),
            (Role::Patient, Some("c7"), text("zkmail Patient/c7/_history"), false),
            (Role::Patient, Some("c7"), text("Patient/c71\""), true),
            (Role::Patient, Some("c71"), text("Patient/c7\""), true),
            (Role::Patient, Some("c7"), text("/Patient/$export"), false),
            (Role::Patient, Some("c7"), b"{\"reference\":\"Patient/c8".to_vec(), true),
            (Role::Nurse, None, text("zkmai"), false),
        ];
        for (role, own, body, expected) in cases {
            for piece in 1..=body.len() {
                let shown = String::from_utf8_lossy(&body);
                assert_eq!(found(role, own, &body, piece), expected, "{role:?} {own:?} {piece} {shown}");
            }
        }
    }
}
