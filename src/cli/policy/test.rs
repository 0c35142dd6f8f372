//! `chartgate policy test`: the cases beside the policies, the table of what each role sees, and what is untried.
//!
//! Owns: the command's arguments and output. Must never: judge; `domain::workbench` does.
//! Look next: docs/policies.md, which explains the form of a case; `edge::policy_files`, which reads them.

use super::{Which, load};
use crate::app;
use crate::cli::{Ending, show};
use crate::config::Problem;
use crate::domain::access::{self, PolicySet};
use crate::domain::workbench::{self, Case, Coverage, Records, RoleView, Verdict, judge, read_cases};
use crate::edge::policy_files::{self, Workbench};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// `policy test DIRECTORY|--config F [--write-table] [--require-coverage] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    which: Which,
    /// Write the table of what each role sees anew, for reviewers to read as a difference
    #[arg(long)]
    write_table: bool,
    /// A permit or an open type that no case tries counts as a failure
    #[arg(long)]
    require_coverage: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(test: &Test) -> Ending {
    let (directory, policies) = match load(&test.which) {
        Ok(loaded) => loaded,
        Err(problems) => return show::problems(&problems, test.json),
    };
    let policies = Arc::new(policies);
    let (files, cases) = match read(&directory) {
        Ok(read) => read,
        Err(problems) => return show::problems(&problems, test.json),
    };
    let mut records = Records::built_in();
    files.records.iter().for_each(|(name, json)| records.add(name, json.clone()));
    let tried: Vec<(Case, Verdict)> = cases
        .into_iter()
        .map(|case| {
            let verdict = judge(&policies, &records, &case);
            (case, verdict)
        })
        .collect();
    let failed = report(test, &directory, &tried);
    let views = match views(&policies) {
        Ok(views) => views,
        Err(denial) => {
            show::error(&denial.to_string());
            return Ending::No;
        }
    };
    let tables: BTreeMap<String, String> =
        views.iter().map(|view| (format!("{}.txt", view.role), view.table())).collect();
    let tables_agree = compare(test, &directory, &tables, &files.tables);
    let coverage = Coverage::of(&policies, &views, &tried);
    tell_coverage(test, &coverage);
    let covered = coverage.is_complete() || !test.require_coverage;
    let good = failed == 0 && tables_agree && covered;
    conclude(test, (tried.len(), failed), good)
}

fn conclude(test: &Test, (tried, failed): (usize, usize), good: bool) -> Ending {
    if test.json {
        show::line(&json!({ "ok": good, "cases": tried, "failed": failed }).to_string());
    } else {
        show::line(&format!("{tried} cases, {failed} failed"));
    }
    if good { Ending::Good } else { Ending::No }
}

fn read(directory: &Path) -> Result<(Workbench, Vec<Case>), Vec<Problem>> {
    let located = |problem: access::Problem| app::policy_problem(&directory.join("tests"), problem);
    let files = policy_files::workbench(directory).map_err(|problem| vec![located(problem)])?;
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for source in &files.cases {
        match read_cases(source) {
            Ok(read) => cases.extend(read),
            Err(found) => problems.extend(found.into_iter().map(located)),
        }
    }
    if problems.is_empty() { Ok((files, cases)) } else { Err(problems) }
}

fn views(policies: &Arc<PolicySet>) -> Result<Vec<RoleView>, access::Denial> {
    workbench::roles(policies).iter().map(|role| RoleView::of(policies, role)).collect()
}

/// Tells each case that failed; gives how many did.
fn report(test: &Test, directory: &Path, tried: &[(Case, Verdict)]) -> usize {
    let failed = tried.iter().filter(|(_, verdict)| !verdict.passed());
    for (case, verdict) in failed.clone() {
        let place = format!("{}:{}", directory.join("tests").join(&case.file).display(), case.line);
        if test.json {
            let findings: Vec<_> = verdict
                .findings
                .iter()
                .map(|one| json!({ "about": one.about, "expected": one.expected, "got": one.got }))
                .collect();
            let line = json!({
                "failed": case.name, "place": place, "asked": case.asked(), "findings": findings,
                "policies": verdict.policies,
            });
            show::line(&line.to_string());
            continue;
        }
        show::line(&format!("FAILED {place}: {}", case.name));
        show::line(&format!("  asked     {}", case.asked()));
        for one in &verdict.findings {
            show::line(&format!("  {}", one.about));
            show::line(&format!("    expected  {}", one.expected));
            show::line(&format!("    got       {}", one.got));
        }
    }
    failed.count()
}

/// Writes the tables, or tells where they differ from those that were reviewed.
fn compare(
    test: &Test,
    directory: &Path,
    now: &BTreeMap<String, String>,
    reviewed: &BTreeMap<String, String>,
) -> bool {
    if test.write_table {
        return match policy_files::write_tables(directory, now) {
            Ok(()) => true,
            Err(error) => {
                show::error(&format!("the tables cannot be written: {}", error.kind()));
                false
            }
        };
    }
    let mut agree = true;
    for name in now.keys().chain(reviewed.keys().filter(|name| !now.contains_key(*name))) {
        let (new, old) = (now.get(name), reviewed.get(name));
        if new == old {
            continue;
        }
        agree = false;
        let place = directory.join("tables").join(name).display().to_string();
        let empty = String::new();
        let changes = changes(old.unwrap_or(&empty), new.unwrap_or(&empty));
        if test.json {
            show::line(&json!({ "table": place, "changes": changes }).to_string());
        } else {
            show::line(&format!("CHANGED {place} (`--write-table` accepts it)"));
            changes.iter().for_each(|line| show::line(&format!("  {line}")));
        }
    }
    agree
}

/// The lines that come and go, each under the type it belongs to.
fn changes(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (placed(old), placed(new));
    let gone = old.iter().filter(|line| !new.contains(*line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(*line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

fn placed(text: &str) -> std::collections::BTreeSet<String> {
    let (mut purpose, mut heading, mut word) = ("", "", "");
    let mut lines = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with("==") {
            (purpose, heading, word) = (line.trim_matches(['=', ' ']), "", "");
        } else if !line.starts_with(' ') {
            (heading, word) = (line.split(':').next().unwrap_or(line), "");
            lines.insert(format!("[{purpose}] {line}"));
        } else if !line.starts_with("    ") {
            word = line.trim();
            lines.insert(format!("[{purpose}] {heading} {word}"));
        } else {
            lines.insert(format!("[{purpose}] {heading} {word} {}", line.trim()));
        }
    }
    lines
}

fn tell_coverage(test: &Test, coverage: &Coverage) {
    if test.json {
        for role in &coverage.roles {
            let line = json!({
                "role": role.role, "types": role.types, "interactions": role.interactions,
                "elements": role.elements, "untriedTypes": role.untried_types,
            });
            show::line(&line.to_string());
        }
        let line = json!({
            "permits": coverage.permits, "untriedPermits": coverage.untried_permits,
            "forbids": coverage.forbids, "untriedForbids": coverage.untried_forbids,
        });
        show::line(&line.to_string());
        return;
    }
    show::line(&format!(
        "{:<28}{:>14}{:>16}{:>14}",
        "tried of what is open", "types", "interactions", "elements"
    ));
    let of = |(open, tried): (usize, usize)| format!("{tried} of {open}");
    for role in &coverage.roles {
        let (types, ways, elements) = (of(role.types), of(role.interactions), of(role.elements));
        show::line(&format!("  {:<26}{types:>14}{ways:>16}{elements:>14}", role.role));
        if !role.untried_types.is_empty() && test.require_coverage {
            show::line(&format!("    no case: {}", role.untried_types.join(", ")));
        }
    }
    for (word, all, untried) in [
        ("permits", coverage.permits, &coverage.untried_permits),
        ("forbids", coverage.forbids, &coverage.untried_forbids),
    ] {
        show::line(&format!("{} of {all} {word} decide a case", all - untried.len()));
        untried.iter().for_each(|id| show::line(&format!("  no case: {id}")));
    }
}
