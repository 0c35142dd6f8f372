//! `chartgate audit retain` and `chartgate audit hold add|lift|list`: how long the trail is kept, and what stays whatever happens.
//!
//! Owns: these commands. The trail is written by this process where no gate has its lock, and by the gate where one does: then
//! the order is left for it, and waited for.
//! Must never: prune without a policy in the configuration, or hold without a reason; print text of a record unescaped.
//! Look next: `edge::orders`, `edge::journal::retention`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{GOOD, PROBLEM, complain, keys_of_trail, print_lines};
use crate::clock;
use crate::domain::audit::{self, Held, Hold, Keep, escape};
use crate::edge::journal::{self, Journal, OpenError, Plan, Retained, Settings};
use crate::edge::orders::{Done, Order};
use crate::limits::{HOLD_REASON_BYTES_MAX, READINGS_INTERVAL};

/// How long a gate may take for an order beyond its interval.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be withheld, and how that is told.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The policy of the configuration.
    pub keep: Option<Keep>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Who orders it, as they say.
    pub operator: String,
    /// One JSON object.
    pub as_json: bool,
}

/// Withholds every bundle of entries that is wholly older than the policy and not held.
pub fn retain(settings: &Settings, order: &Retention, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let Some(keep) = order.keep else {
        let why = "there is no `[audit.retention]` in the configuration: nothing is withheld without a written policy";
        return complain(err, &why);
    };
    let plan = match planned(settings, keep) {
        Ok(plan) => plan,
        Err(why) => return complain(err, &why),
    };
    if order.dry_run {
        return tell(&plan, None, order.as_json, out);
    }
    if plan.bundles.is_empty() && plan.unfinished == 0 {
        return tell(&plan, Some(&nothing()), order.as_json, out);
    }
    match carried_out(settings, &Order::retain(keep, &order.operator), order.keep) {
        Ok(Carried::Here(Done::Retained(done))) => tell(&plan, Some(&done), order.as_json, out),
        Ok(Carried::Here(Done::Recorded)) => PROBLEM,
        Ok(Carried::ByGate) => match planned(settings, keep) {
            Ok(after) if after.bundles.is_empty() && after.unfinished == 0 => {
                let done =
                    Retained { bundles: plan.bundles.count() + plan.unfinished, keys: 0, sequence: None };
                tell(&plan, Some(&done), order.as_json, out)
            }
            Ok(_) => complain(err, &"the gate did not carry it out: its log says why"),
            Err(why) => complain(err, &why),
        },
        Err(why) => complain(err, &why),
    }
}

fn nothing() -> Retained {
    Retained { bundles: 0, keys: 0, sequence: None }
}

fn planned(settings: &Settings, keep: Keep) -> Result<Plan, String> {
    let keys = keys_of_trail(settings)?;
    journal::plan(&settings.directory, &keys, keep, clock::now()).map_err(|finding| finding.to_string())
}

/// Who carried an order out.
enum Carried {
    Here(Done),
    ByGate,
}

/// Has an order carried out, here or by the gate that has the lock.
fn carried_out(settings: &Settings, order: &Order, policy: Option<Keep>) -> Result<Carried, String> {
    let journal = match Journal::open(settings) {
        Ok(journal) => journal,
        Err(OpenError::InUse(_)) => {
            let slip = order.leave(settings)?;
            return wait_for(&slip).map(|()| Carried::ByGate);
        }
        Err(error) => return Err(error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(order.carry_out(&journal, settings, policy, clock::now()));
    let closed = runtime.block_on(journal.close());
    let done = done?;
    closed.map(|()| Carried::Here(done)).map_err(|error| error.to_string())
}

/// Has an order recorded that needs no policy about keeping: here, or by the gate that has the lock.
///
/// # Errors
/// A sentence that says why it was not.
pub fn ordered(settings: &Settings, order: &Order) -> Result<(), String> {
    carried_out(settings, order, None).map(|_done| ())
}

fn wait_for(slip: &Path) -> Result<(), String> {
    let begin = Instant::now();
    while slip.exists() {
        if begin.elapsed() > READINGS_INTERVAL + PATIENCE {
            return Err("the gate has not taken the order up; it will when it is started again".to_owned());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn tell(plan: &Plan, done: Option<&Retained>, as_json: bool, out: &mut dyn Write) -> u8 {
    let entries = |bundles: u64| bundles.saturating_mul(256);
    if as_json {
        let told = json!({
            "policy": plan.keep.to_string(),
            "before": plan.before.to_string(),
            "bundles": plan.bundles.to_string(),
            "entries": entries(plan.bundles.count()),
            "heldEntries": entries(plan.held),
            "unreadableEntries": entries(plan.unreadable),
            "postponedEntries": entries(plan.postponed),
            "unfinishedEntries": entries(plan.unfinished),
            "removedEntries": done.map(|done| entries(done.bundles)),
            "destroyedKeys": done.map(|done| done.keys),
            "recordedAs": done.and_then(|done| done.sequence),
        });
        return print_lines(out, &[audit::json(&told)]);
    }
    let mut lines = vec![format!("policy   {}: what is older than {} may go", plan.keep, plan.before)];
    let mut count = |what: &str, bundles: u64| {
        if bundles > 0 {
            lines.push(format!("{what}{} entries in {bundles} bundles", entries(bundles)));
        }
    };
    count("may go   ", plan.bundles.count());
    count("left     by an interrupted prune: ", plan.unfinished);
    count("stay     under a hold: ", plan.held);
    count("stay     because an entry cannot be read: ", plan.unreadable);
    count("stay     until fewer ranges are withheld: ", plan.postponed);
    lines.push(match done {
        None => "nothing was removed: this was a dry run".to_owned(),
        Some(done) if done.bundles == 0 => "nothing was removed: there is nothing to remove".to_owned(),
        Some(done) => {
            let keys = if done.keys > 0 {
                format!("; {} data keys were destroyed", done.keys)
            } else {
                String::new()
            };
            format!("removed {} entries; their hashes stay{keys}", entries(done.bundles))
        }
    });
    print_lines(out, &lines)
}

/// Puts a hold in force.
pub fn hold_add(
    settings: &Settings,
    hold: &Hold,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    if let Err(why) = check_reason(&hold.reason) {
        return complain(err, &why);
    }
    let order = Order::hold(hold, clock::now());
    match settle(settings, &order, &hold.id, true) {
        Ok(()) if as_json => print_lines(out, &[audit::json(&json!({"id": hold.id, "inForce": true}))]),
        Ok(()) => print_lines(out, &[format!("hold {} is in force", escape(&hold.id))]),
        Err(why) => complain(err, &why),
    }
}

/// Lifts a hold.
pub fn hold_lift(
    settings: &Settings,
    (id, reason, operator): (&str, &str, &str),
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let known = check_reason(reason).and_then(|()| is_in_force(settings, id));
    match known {
        Ok(true) => {}
        Ok(false) => return complain(err, &"there is no such hold in force"),
        Err(why) => return complain(err, &why),
    }
    let order = Order::lift(id, reason, operator, clock::now());
    match settle(settings, &order, id, false) {
        Ok(()) if as_json => print_lines(out, &[audit::json(&json!({"id": id, "inForce": false}))]),
        Ok(()) => print_lines(out, &[format!("hold {} was lifted", escape(id))]),
        Err(why) => complain(err, &why),
    }
}

fn check_reason(reason: &str) -> Result<(), String> {
    match reason.trim().len() {
        0 => Err("a hold needs a reason, and so does lifting it".to_owned()),
        length if length > HOLD_REASON_BYTES_MAX => {
            Err(format!("the reason is longer than {HOLD_REASON_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

/// Has an order about a hold carried out, and looks whether it was.
fn settle(settings: &Settings, order: &Order, id: &str, should: bool) -> Result<(), String> {
    carried_out(settings, order, None)?;
    if is_in_force(settings, id)? == should { Ok(()) } else { Err("it was not recorded".to_owned()) }
}

fn is_in_force(settings: &Settings, id: &str) -> Result<bool, String> {
    let keys = keys_of_trail(settings)?;
    let holds = journal::holds(&settings.directory, &keys).map_err(|finding| finding.to_string())?;
    Ok(holds.in_force().any(|held| held.hold.id == id))
}

/// Prints every hold there was, as the trail tells.
pub fn hold_list(settings: &Settings, as_json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let holds = match journal::holds(&settings.directory, &keys) {
        Ok(holds) => holds,
        Err(finding) => return complain(err, &finding),
    };
    let line = |held: &Held| if as_json { audit::json(&held_json(held)) } else { escape(&held_line(held)) };
    let mut lines: Vec<String> = holds.all().map(line).collect();
    if !as_json {
        lines.push(format!("{} holds, {} of them in force", lines.len(), holds.in_force().count()));
    }
    if print_lines(out, &lines) == GOOD { GOOD } else { PROBLEM }
}

fn held_json(held: &Held) -> Value {
    let hold = &held.hold;
    json!({
        "id": hold.id,
        "sequence": held.sequence,
        "time": held.since.to_string(),
        "reason": hold.reason,
        "operator": hold.operator,
        "patient": hold.patient,
        "subject": hold.subject,
        "issuer": hold.issuer,
        "since": hold.since.map(|time| time.to_string()),
        "until": hold.until.map(|time| time.to_string()),
        "lifted": held.lifted.as_ref().map(|(time, _)| time.to_string()),
        "liftedBecause": held.lifted.as_ref().map(|(_, reason)| reason),
    })
}

fn held_line(held: &Held) -> String {
    let hold = &held.hold;
    let parts = [
        ("patient", hold.patient.clone()),
        ("person", hold.subject.clone()),
        ("of", hold.issuer.clone()),
        ("from", hold.since.map(|time| time.to_string())),
        ("to", hold.until.map(|time| time.to_string())),
    ];
    let about: Vec<String> =
        parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
    let about = if about.is_empty() { "the whole trail".to_owned() } else { about.join(" ") };
    let stands = match &held.lifted {
        None => "in force".to_owned(),
        Some((time, reason)) => format!("lifted {time}: {reason}"),
    };
    format!("{}  {}  {about}  {}  ({stands})", hold.id, held.since, hold.reason)
}
