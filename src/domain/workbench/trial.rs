//! All cases of a policies directory at once, before its set is put in force.
//!
//! Owns: running them, and saying which failed where. Must never: say less than a failed case's name and first finding.
//! Look next: `judge`, one case; `app::policies`, which asks before a set is put in force.

use super::case::read_cases;
use super::judge::judge;
use super::record::Records;
use crate::domain::access::{PolicySet, Problem, Source};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs the cases of these files; `records` by name, beside the built-in ones. How many passed.
///
/// # Errors
/// What cannot be read, or each case that fails. Files are named `tests/…`.
pub fn try_cases(
    policies: &Arc<PolicySet>,
    files: &[Source],
    records: BTreeMap<String, Vec<u8>>,
) -> Result<usize, Vec<Problem>> {
    let mut known = Records::built_in();
    records.into_iter().for_each(|(name, json)| known.add(&name, json));
    let (mut passed, mut problems) = (0, Vec::new());
    for source in files {
        let cases = match read_cases(source) {
            Ok(cases) => cases,
            Err(found) => {
                problems.extend(found.into_iter().map(located));
                continue;
            }
        };
        for case in &cases {
            let verdict = judge(policies, &known, case);
            match verdict.findings.first() {
                None => passed += 1,
                Some(first) => {
                    let (about, expected, got) = (&first.about, &first.expected, &first.got);
                    let message =
                        format!("case `{}` failed: {about}: expected {expected}, got {got}", case.name);
                    let file = case.file.clone();
                    problems.push(located(Problem { file, line: case.line, column: 1, message, hint: None }));
                }
            }
        }
    }
    if problems.is_empty() { Ok(passed) } else { Err(problems) }
}

fn located(problem: Problem) -> Problem {
    Problem { file: format!("tests/{}", problem.file), ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_fails_is_named_with_its_place() {
        let text = "@why(\"why (ground)\")\npermit(principal in Role::\"nurse\", action == Action::\"read\", resource is FHIR::Patient);\n\
                    permit(principal in Role::\"nurse\", action == Action::\"disclose\", resource in FHIR::Element::\"Patient\");";
        let policies = PolicySet::load(&[Source { name: "a.cedar".into(), text: text.into() }], None, None);
        let policies = Arc::new(policies.unwrap());
        let cases = |decision: &str, name: &str| Source {
            name: name.to_owned(),
            text: format!(
                "\n[[case]]\nname = \"reads\"\nrole = \"nurse\"\npurpose = \"TREAT\"\ntype = \"Patient\"\nexpect = \"{decision}\"\n"
            ),
        };
        assert_eq!(try_cases(&policies, &[cases("permit", "good.toml")], BTreeMap::new()), Ok(1));
        let both = [cases("permit", "good.toml"), cases("deny", "bad.toml")];
        let problems = try_cases(&policies, &both, BTreeMap::new()).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((problem.file.as_str(), problem.line), ("tests/bad.toml", 2));
        assert!(problem.message.starts_with("case `reads` failed: decision: expected deny"), "{problem}");
        let broken = Source { name: "c.toml".into(), text: "[[case]".into() };
        assert_eq!(try_cases(&policies, &[broken], BTreeMap::new()).unwrap_err()[0].file, "tests/c.toml");
    }
}
