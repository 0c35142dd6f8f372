//! `chartgate policy explain`: why a question is answered as it is, and what would have to be otherwise.
//!
//! Owns: the command's arguments and output. Must never: suggest what `domain::workbench` did not ask for again.
//! Look next: `domain::workbench::explain`; docs/policies.md, which explains the form of a case.

use super::asked::records;
use super::recorded::Trail;
use super::{Which, load};
use crate::cli::audit::{self, Filter};
use crate::cli::trail::Reader;
use crate::cli::{Ending, show};
use crate::config::{self, Problem};
use crate::domain::access::{Denial, PolicySet, Say, Source};
use crate::domain::audit::{self as records, Decision, escape};
use crate::domain::fhir::r4::ElementPath;
use crate::domain::workbench::replay::{Recorded, Replay};
use crate::domain::workbench::{Answer, Case, Change, Explanation, Records, Suggestion, explain, read_cases};
use crate::{app, limits};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `policy explain DIRECTORY|--config F --file FILE|--request ID [--case NAME] [--element PATH] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    question: Question,
    /// Elements to explain, such as Patient.telecom; may be given more than once
    #[arg(long = "element", value_name = "PATH", value_parser = element)]
    elements: Vec<ElementPath>,
    #[command(flatten)]
    reader: Reader,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is to be explained.
#[derive(Debug, Args)]
struct Question {
    /// A file of cases, as `policy test` reads them, or a counterexample
    #[arg(long = "file", value_name = "FILE", group = "what", required = true)]
    file: Option<PathBuf>,
    /// X-Request-Id of an answer in the trail; needs `--config`
    #[arg(long = "request", value_name = "ID", group = "what")]
    request: Option<String>,
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
    match (&order.question.file, &order.question.request, &order.which.config) {
        (Some(file), _, _) => of_file(order, file, &policies, &records),
        (None, Some(request), Some(config)) => of_request(order, (request, config), &policies, &records),
        (None, Some(_), None) => {
            show::error("`--request` needs `--config FILE`, which tells where the trail is");
            Ending::WrongUse
        }
        (None, None, _) => Ending::WrongUse,
    }
}

/// A request of the trail: what was recorded of it, and what the set at hand says to it.
fn of_request(
    order: &Explain,
    (request, config): (&str, &Path),
    policies: &Arc<PolicySet>,
    examples: &Records,
) -> Ending {
    let settings = match config::load(config) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, order.json),
    };
    let filter = Filter { request_id: Some(request.to_owned()), ..Filter::default() };
    let asked = BTreeMap::from([("request id".to_owned(), request.to_owned())]);
    let trail = match Trail::open(&settings, &order.reader, "policy explain", asked) {
        Ok(trail) => trail,
        Err(why) => {
            show::error(&why);
            return Ending::No;
        }
    };
    let mut found = Vec::new();
    let code = trail.each(&filter, false, &mut |decision, recorded| {
        found.push((decision.clone(), recorded.clone()));
        Ok(())
    });
    if found.is_empty() {
        show::error("the trail has no decision about somebody's request of this id");
        return Ending::No;
    }
    let mut permitted = code == audit::GOOD;
    for (decision, recorded) in &found {
        permitted &= recorded.permitted;
        if let Err(why) = of_decision(order, (decision, recorded), policies, examples) {
            show::error(&why);
            return Ending::No;
        }
    }
    if permitted { Ending::Good } else { Ending::No }
}

fn of_decision(
    order: &Explain,
    (decision, recorded): (&Decision, &Recorded),
    policies: &Arc<PolicySet>,
    examples: &Records,
) -> Result<(), String> {
    let is_same = recorded.policy_set.as_deref() == Some(policies.hash());
    let fault = |denial: Denial| denial.to_string();
    let mut foreseen = Replay::new(policies, policies).foresee(recorded).map_err(fault)?;
    let more = foreseen.len().saturating_sub(limits::EXPLAIN_CASES_MAX);
    foreseen.truncate(limits::EXPLAIN_CASES_MAX);
    if !order.json {
        tell_decision(decision, recorded, is_same);
    }
    for (item, now) in &foreseen {
        let Some(case) = recorded.supposed(item.as_ref()) else { continue };
        let about = item.as_ref().map_or("some record of the type", |item| item.reference.as_str());
        let missing: Vec<&str> = now.missing.iter().map(|fact| fact.name()).collect();
        let explanation = explain(policies, examples, &case, &order.elements)?;
        let known = json!({
            "requestId": recorded.request_id, "recorded": if recorded.permitted { "permit" } else { "refuse" },
            "reason": recorded.reason, "recordedPolicies": decision.policies, "basis": decision.basis,
            "policySet": recorded.policy_set, "samePolicies": is_same, "record": about,
            "permitted": now.permitted, "missing": missing,
        });
        if !order.json {
            let said = match now.permitted {
                Some(true) => "is permitted",
                Some(false) => "is refused",
                None => "is not decided by what the trail tells",
            };
            show::line("");
            show::line(&escape(&format!("{about}: with the policies at hand it {said}")));
            if !missing.is_empty() {
                show::line(&format!("  not recorded, and it matters: {}", missing.join(", ")));
            }
            show::line(
                "  what follows supposes what is not recorded: no labels, status active, a second factor of a minute ago",
            );
        }
        tell(&explanation, order.json, &known);
    }
    if more > 0 && !order.json {
        show::line(&format!("and {more} records more"));
    }
    Ok(())
}

/// What the trail says of it.
fn tell_decision(decision: &Decision, recorded: &Recorded, is_same: bool) {
    let verdict = if recorded.permitted { "permitted" } else { "refused" };
    let reason = recorded.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let who = format!("{} ({}), for {}", recorded.subject, recorded.roles.join(" "), recorded.purpose);
    show::line(&escape(&format!("{} {who}: {} was {verdict}{reason}", recorded.time, decision.request)));
    let list = |title: &str, words: &[String]| {
        if !words.is_empty() {
            show::line(&escape(&format!("  {title} {}", words.join(", "))));
        }
    };
    list("policies", &decision.policies);
    list("it rested on", &decision.basis);
    if decision.withheld > 0 {
        show::line(&format!("  {} records were withheld from the answer", decision.withheld));
    }
    if !is_same {
        show::line("  the policies at hand are not those that decided: their hash is another");
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
        show::line(&records::json(&line));
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
        show::line(
            "  no other purpose, login, relation, role or label would permit it, nor two of them together",
        );
    } else {
        let who = |suggestion: &Suggestion| match suggestion.is_emergency() {
            true => Who::Emergency,
            false if suggestion.changes.iter().all(Change::is_the_callers) => Who::Caller,
            false => Who::Hospital,
        };
        for (one, title) in [
            (Who::Caller, "whoever asks would be permitted it with"),
            (Who::Hospital, "it would be permitted by what others give or mark:"),
            (Who::Emergency, "in an emergency, and only then:"),
        ] {
            let theirs: Vec<&Suggestion> =
                answer.changes.iter().filter(|suggestion| who(suggestion) == one).collect();
            if !theirs.is_empty() {
                show::line(&format!("  {title}"));
            }
            for suggestion in theirs {
                show::line(&format!("    {}, by {}", words(suggestion), suggestion.by.join(", ")));
            }
        }
    }
    if answer.cut_short {
        show::line("  there are more pairs of changes than were tried");
    }
}

/// Who can bring a change about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Caller,
    Hospital,
    Emergency,
}

fn words(suggestion: &Suggestion) -> String {
    suggestion.changes.iter().map(Change::words).collect::<Vec<_>>().join(" and ")
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
            "with": suggestion.changes.iter().map(Change::words).collect::<Vec<_>>(),
            "emergency": suggestion.is_emergency(), "policies": suggestion.by,
        })
    };
    json!({
        "element": answer.element.as_ref().map(ElementPath::as_str), "permitted": answer.permitted,
        "decision": answer.decision, "policies": answer.says.iter().map(say).collect::<Vec<_>>(),
        "changes": answer.changes.iter().map(change).collect::<Vec<_>>(), "cutShort": answer.cut_short,
    })
}
