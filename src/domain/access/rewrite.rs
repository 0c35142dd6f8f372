//! From policies as people write them to Cedar's own grammar.
//!
//! Owns: four differences, and the way back from a place in Cedar's text to the place that was written.
//! `Patient::"p2"` names a data subject: Cedar allows no top-level `Patient` beside `FHIR::Patient` (its RFC
//! 70), so the schema calls the type `Subject`. And `resource in [A, B]` in a scope means what it means in a
//! condition: Cedar's scope takes one entity, so the list becomes a condition of its own. And the client in
//! `context.application` is its id: comparing it with `Application::"id"` is comparing it with `"id"`.
//! And `resource == FHIR::Element::"Patient.name"` means the element with everything in it, as `in` does: a name is
//! its parts, so forbidding it and releasing them would be a leak, and permitting it alone would release nothing.
//! Must never: change what a policy says beyond these, or move a place that a problem points at.
//! Look next: `source`, which finds both; `load`, which parses the result.

use super::source::{ListInScope, Statement};

/// `Patient` and `Subject` have seven letters each, so renaming moves nothing.
const WRITTEN: &str = "Patient";
const CEDAR: &str = "Subject";

const CONDITION_OPENS: &str = " when { resource";
const CONDITION_CLOSES: &str = " }";

/// Cedar's text for `text`, whose statements are `found`.
pub(super) fn to_cedar(text: &str, found: &[Statement]) -> String {
    let renamed = cover(blank_clients(rename(text, found), found), found);
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

/// `resource in` for `resource ==` before an element; the two have the same length.
fn cover(text: String, found: &[Statement]) -> String {
    let mut out = text;
    for (equals, _) in equalities(&out.clone(), found) {
        out.replace_range(equals..equals + 2, "in");
    }
    out
}

/// The place of an `==` between `resource` and an element that stands without a space on either side: it cannot
/// be read as `in` where it stands.
pub(super) fn unspaced_equality(text: &str, found: &[Statement]) -> Option<usize> {
    equalities(text, found).into_iter().find(|(_, spaced)| !spaced).map(|(at, _)| at)
}

/// Every `==` between `resource` and an element, and whether it has spaces around it.
fn equalities(text: &str, found: &[Statement]) -> Vec<(usize, bool)> {
    let elements =
        found.iter().flat_map(|statement| &statement.names).filter(|name| name.kind == "FHIR::Element");
    let place = |quote: usize| {
        let before = text.get(..quote)?;
        let operand = before.get(..before.rfind("FHIR")?)?;
        let resource = operand.trim_end().strip_suffix("==")?;
        let spaced = operand.ends_with(char::is_whitespace) && resource.ends_with(char::is_whitespace);
        resource.trim_end().ends_with("resource").then_some((resource.len(), spaced))
    };
    elements.filter_map(|name| place(name.offset)).collect()
}

/// Spaces for the type name in `context.application == Application::"id"`, so that nothing moves.
fn blank_clients(text: String, found: &[Statement]) -> String {
    let mut out = text;
    let clients =
        found.iter().flat_map(|statement| &statement.names).filter(|name| name.kind == "Application");
    for quote in clients.map(|name| name.offset) {
        let Some((before, after)) = out.split_at_checked(quote) else { continue };
        let Some(start) = before.rfind("Application") else { continue };
        let compared = is_compared(before.get(..start).unwrap_or(""), after);
        if compared {
            out.replace_range(start..quote, &" ".repeat(quote - start));
        }
    }
    out
}

/// Whether what stands before or after an entity compares it with the client's id.
fn is_compared(before: &str, after: &str) -> bool {
    const CLIENT: &str = "context.application";
    let before = before.trim_end();
    let operand = before.strip_suffix("==").or_else(|| before.strip_suffix("!="));
    if operand.is_some_and(|operand| operand.trim_end().ends_with(CLIENT)) {
        return true;
    }
    let rest =
        after.get(1..).and_then(|inside| inside.split_once('"')).map_or("", |(_, rest)| rest.trim_start());
    let operand = rest.strip_prefix("==").or_else(|| rest.strip_prefix("!="));
    operand.is_some_and(|operand| operand.trim_start().starts_with(CLIENT))
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
    fn an_element_is_everything_in_it() {
        let text = "permit(principal, action, resource == FHIR::Element::\"Patient\") when { resource == FHIR :: \
                    Element::\"a\" || principal == FHIR::Element::\"b\" };";
        let found = statements(text);
        assert_eq!(to_cedar(text, &found), text.replace("resource ==", "resource in"));
        assert_eq!(unspaced_equality(text, &found), None);
        let tight = text.replace("resource == FHIR ::", "resource==FHIR ::");
        assert_eq!(unspaced_equality(&tight, &statements(&tight)), tight.find("==FHIR ::"));
    }

    #[test]
    fn a_client_is_compared_by_its_id() {
        for (written, cedar) in [
            ("context.application == Application::\"a\"", "context.application ==              \"a\""),
            ("Application::\"a\" != context.application", "             \"a\" != context.application"),
            ("principal == Application::\"a\"", "principal == Application::\"a\""),
        ] {
            let policy =
                |condition: &str| format!("permit(principal, action, resource) when {{ {condition} }};");
            assert_eq!(to_cedar(&policy(written), &statements(&policy(written))), policy(cedar));
        }
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
