//! From policies as people write them to Cedar's own grammar.
//!
//! Owns: two differences, and the way back from a place in Cedar's text to the place that was written.
//! `Patient::"p2"` names a data subject: Cedar allows no top-level `Patient` beside `FHIR::Patient` (its RFC
//! 70), so the schema calls the type `Subject`. And `resource in [A, B]` in a scope means what it means in a
//! condition: Cedar's scope takes one entity, so the list becomes a condition of its own.
//! Must never: change what a policy says beyond these two, or move a place that a problem points at.
//! Look next: `source`, which finds both; `load`, which parses the result.

use super::source::{ListInScope, Statement};

/// `Patient` and `Subject` have seven letters each, so renaming moves nothing.
const WRITTEN: &str = "Patient";
const CEDAR: &str = "Subject";

const CONDITION_OPENS: &str = " when { resource";
const CONDITION_CLOSES: &str = " }";

/// Cedar's text for `text`, whose statements are `found`.
pub(super) fn to_cedar(text: &str, found: &[Statement]) -> String {
    let renamed = rename(text, found);
    let mut out = String::with_capacity(renamed.len());
    let mut copied = 0;
    for list in found.iter().filter_map(|statement| statement.list.as_ref()) {
        let piece = |from: usize, to: usize| renamed.get(from..to).unwrap_or("");
        out.push_str(piece(copied, list.start));
        out.extend(piece(list.start, list.end).chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        out.push_str(piece(list.end, list.scope_end));
        out.push_str(CONDITION_OPENS);
        out.push_str(piece(list.start, list.end));
        out.push_str(CONDITION_CLOSES);
        copied = list.scope_end;
    }
    out.push_str(renamed.get(copied..).unwrap_or(""));
    out
}

/// The place in the written text for a place in Cedar's.
pub(super) fn written_offset(found: &[Statement], offset: usize) -> usize {
    let mut shift = 0;
    for list in found.iter().filter_map(|statement| statement.list.as_ref()) {
        let inserted = inserted_bytes(list);
        let begins = list.scope_end + shift;
        if offset < begins {
            break;
        }
        if offset < begins + inserted {
            // Inside the condition that stands for the list: the same place in the list.
            return list.start
                + (offset - begins).saturating_sub(CONDITION_OPENS.len()).min(list.end - list.start);
        }
        shift += inserted;
    }
    offset - shift
}

/// Undoes the renaming in what people read.
pub(super) fn as_written(message: &str) -> String {
    message.replace(CEDAR, WRITTEN)
}

fn inserted_bytes(list: &ListInScope) -> usize {
    CONDITION_OPENS.len() + (list.end - list.start) + CONDITION_CLOSES.len()
}

fn rename(text: &str, found: &[Statement]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for at in found.iter().flat_map(|statement| &statement.subjects) {
        out.push_str(text.get(copied..*at).unwrap_or(""));
        out.push_str(CEDAR);
        copied = at + WRITTEN.len();
    }
    out.push_str(text.get(copied..).unwrap_or(""));
    out
}

#[cfg(test)]
mod tests {
    use super::super::source::statements;
    use super::*;

    const WRITTEN_TEXT: &str = "permit (principal, action, resource in [\n  FHIR::Element::\"Patient.id\", \
        FHIR::Element::\"Patient.name\"\n]) when { resource in Patient::\"p1\" };\nforbid(principal,action,resource);";

    #[test]
    fn a_list_in_the_scope_becomes_a_condition() {
        let found = statements(WRITTEN_TEXT);
        let cedar = to_cedar(WRITTEN_TEXT, &found);
        assert!(cedar.contains(") when { resource in [\n  FHIR::Element::\"Patient.id\""), "{cedar}");
        assert!(cedar.contains("resource in Subject::\"p1\""), "{cedar}");
        cedar.parse::<cedar_policy::PolicySet>().unwrap();
    }

    #[test]
    fn every_place_is_found_again() {
        let found = statements(WRITTEN_TEXT);
        let cedar = to_cedar(WRITTEN_TEXT, &found);
        for word in ["permit", "Patient.name", "forbid", "p1\""] {
            let at = cedar.rfind(word).unwrap();
            assert_eq!(written_offset(&found, at), WRITTEN_TEXT.rfind(word).unwrap(), "{word}");
        }
        assert!((0..=cedar.len()).all(|at| written_offset(&found, at) <= WRITTEN_TEXT.len()));
    }

    #[test]
    fn what_is_not_a_list_stays() {
        for text in [
            "permit(principal, action, resource in ElementGroup::\"a\");",
            "permit(principal, action in [Action::\"read\"], resource) when { resource in [A::\"x\"] };",
            "@id(\"resource in [\") permit(principal, action, resource);",
        ] {
            assert_eq!(to_cedar(text, &statements(text)), text);
        }
    }
}
