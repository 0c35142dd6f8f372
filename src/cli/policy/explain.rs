//! `chartgate policy explain`: why a question is answered as it is, and what would have to be otherwise.
//!
//! Owns: the command's arguments and output. Must never: suggest what `domain::workbench` did not ask for again.
//! Look next: `domain::workbench::explain`; docs/policies.md, which explains the form of a case.

use super::asked::records;
use super::{Which, load};
use crate::app;
use crate::cli::{Ending, show};
use crate::config::Problem;
use crate::domain::access::{PolicySet, Say, Source};
use crate::domain::fhir::r4::ElementPath;
use crate::domain::workbench::{Answer, Case, Explanation, Records, Suggestion, explain, read_cases};
use crate::limits;
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `policy explain DIRECTORY|--config F FILE [--case NAME] [--element PATH] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    question: Question,
    /// Elements to explain, such as Patient.telecom; may be given more than once
    #[arg(long = "element", value_name = "PATH", value_parser = element)]
    elements: Vec<ElementPath>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is to be explained.
#[derive(Debug, Args)]
struct Question {
    /// A file of cases, as `policy test` reads them, or a counterexample
    #[arg(long = "file", value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Of several cases in it, those whose name contains this
    #[arg(long, value_name = "NAME", requires = "file")]
    case: Option<String>,
}

fn element(path: &str) -> Result<ElementPath, String> {
    ElementPath::parse(path).map_err(|error| error.to_string())
}

pub(super) fn run(order: &Explain) -> Ending {
    let (directory, policies) = match load(&order.which) {
        Ok(loaded) => loaded,
        Err(problems) => return show::problems(&problems, order.json),
    };
    let records = match records(&directory) {
        Ok(records) => records,
        Err(problems) => return show::problems(&problems, order.json),
    };
    let policies = Arc::new(policies);
    match &order.question.file {
        Some(file) => of_file(order, file, &policies, &records),
        None => Ending::WrongUse,
    }
}

fn of_file(order: &Explain, file: &Path, policies: &Arc<PolicySet>, records: &Records) -> Ending {
    let cases = match cases(file) {
        Ok(cases) => cases,
        Err(problems) => return show::problems(&problems, order.json),
    };
    let wanted = order.question.case.as_deref();
    let cases: Vec<Case> =
        cases.into_iter().filter(|case| wanted.is_none_or(|name| case.name.contains(name))).collect();
    if cases.is_empty() || cases.len() > limits::EXPLAIN_CASES_MAX {
        let (count, most) = (cases.len(), limits::EXPLAIN_CASES_MAX);
        show::error(&format!("{count} cases of the file are meant: choose up to {most} with `--case NAME`"));
        return Ending::WrongUse;
    }
    let mut refused = false;
    for case in &cases {
        match explain(policies, records, case, &order.elements) {
            Ok(explanation) => {
                refused |= explanation.answers.iter().any(|answer| !answer.permitted);
                tell(&explanation, order.json, &Value::Null);
            }
            Err(why) => {
                show::error(&format!("{}:{}: {why}", file.display(), case.line));
                return Ending::WrongUse;
            }
        }
    }
    if refused { Ending::No } else { Ending::Good }
}

fn cases(file: &Path) -> Result<Vec<Case>, Vec<Problem>> {
    let unreadable = |what: &str| vec![Problem::whole_file(&file.display().to_string(), what.to_owned())];
    let size = fs::metadata(file).map_err(|error| unreadable(&error.kind().to_string()))?.len();
    if size > limits::POLICY_FILE_BYTES_MAX as u64 {
        return Err(unreadable("it is too large"));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(&error.kind().to_string()))?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = file.parent().unwrap_or(Path::new(""));
    let located = |problem| app::policy_problem(parent, problem);
    read_cases(&Source { name, text }).map_err(|problems| problems.into_iter().map(located).collect())
}

/// Prints an explanation; `more` is told with it as JSON.
fn tell(explanation: &Explanation, json: bool, more: &Value) {
    if json {
        let answers: Vec<Value> = explanation.answers.iter().map(answer_json).collect();
        let mut line = json!({ "asked": explanation.asked, "answers": answers });
        if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
            line.extend(more.clone());
        }
        show::line(&line.to_string());
        return;
    }
    show::line(&explanation.asked);
    explanation.answers.iter().for_each(tell_answer);
}

fn tell_answer(answer: &Answer) {
    let about = answer.element.as_ref().map_or("the record", ElementPath::as_str);
    show::line(&format!("\n{about}: {}", answer.decision));
    let forbids = answer.says.iter().filter(|say| !say.permits && say.holds);
    list("forbids that hold", forbids, |say| say.needs.clone().map(|needs| format!("unless {needs}")));
    list("permits that hold", answer.says.iter().filter(|say| say.permits && say.holds), |_| None);
    let near = answer.says.iter().filter(|say| say.permits && say.concerns && !say.holds);
    list("permits that do not hold", near, |say| Some(format!("it asks that {}", say.failing.join("; "))));
    let others = answer.says.iter().filter(|say| say.permits && !say.concerns).count();
    if others > 0 && !answer.permitted {
        show::line(&format!("  and {others} permits for roles that the caller has not"));
    }
    if !answer.permitted {
        tell_changes(answer);
    }
}

fn list<'s>(title: &str, says: impl Iterator<Item = &'s Say>, more: impl Fn(&Say) -> Option<String>) {
    let mut says = says.peekable();
    if says.peek().is_none() {
        return;
    }
    show::line(&format!("  {title}"));
    for say in says {
        match more(say).filter(|more| !more.is_empty()) {
            Some(more) => show::line(&format!("    {}: {more}", say.policy)),
            None => show::line(&format!("    {}", say.policy)),
        }
    }
}

fn tell_changes(answer: &Answer) {
    if answer.changes.is_empty() {
        show::line("  no other purpose, login, relation, role or label would permit it, nor two of them together");
    } else {
        show::line("  it would be permitted with");
        for suggestion in &answer.changes {
            let only = if suggestion.is_emergency() { "  (in an emergency only)" } else { "" };
            show::line(&format!("    {}{only}, by {}", words(suggestion), suggestion.by.join(", ")));
        }
    }
    if answer.cut_short {
        show::line("  there are more pairs of changes than were tried");
    }
}

fn words(suggestion: &Suggestion) -> String {
    suggestion.changes.iter().map(crate::domain::workbench::Change::words).collect::<Vec<_>>().join(" and ")
}

fn answer_json(answer: &Answer) -> Value {
    let say = |say: &Say| {
        json!({
            "policy": say.policy, "effect": if say.permits { "permit" } else { "forbid" }, "role": say.role,
            "concerns": say.concerns, "holds": say.holds, "failing": say.failing, "needs": say.needs,
        })
    };
    let change = |suggestion: &Suggestion| {
        json!({
            "with": suggestion.changes.iter().map(crate::domain::workbench::Change::words).collect::<Vec<_>>(),
            "emergency": suggestion.is_emergency(), "policies": suggestion.by,
        })
    };
    json!({
        "element": answer.element.as_ref().map(ElementPath::as_str), "permitted": answer.permitted,
        "decision": answer.decision, "policies": answer.says.iter().map(say).collect::<Vec<_>>(),
        "changes": answer.changes.iter().map(change).collect::<Vec<_>>(), "cutShort": answer.cut_short,
    })
}
