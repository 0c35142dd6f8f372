//! The check itself: worlds, requests, answers, and what is made of a difference.
//!
//! Owns: the order of things, the counts, and the search for the shortest request that shows a difference.
//! Must never: call a run good that only saw refusals. Look next: `worlds`, `generate`, `pair`, `shrink`.

use super::ask::{Ask, Kind};
use super::doors;
use super::generate::{Generator, Ground};
use super::pair::{Pair, Reply, Session};
use super::shrink;
use super::sight::{Role, Sight};
use super::worlds::{Stamps, Worlds};
use crate::app;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Requests under way at once.
const LANES: usize = 12;
/// Requests between two tokens.
const TOKEN_REQUESTS: usize = 2_000;
const SHRINK_TRIES_MAX: usize = 600;

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The policies; the shipped ones when absent.
    pub policies: Option<PathBuf>,
    /// Who looks.
    pub roles: Vec<Role>,
    /// Who asks, if not the role the worlds were made for: then there are differences to be found.
    pub asked_as: Option<Role>,
    /// Requests for each role, beside one read of each record.
    pub requests: usize,
    /// The same seed gives the same worlds and requests.
    pub seed: u64,
    /// Two EMRs of the hospital's own instead of the sandbox's.
    pub emrs: Option<[String; 2]>,
    /// The roles may also write, delete, operate and export.
    pub open_doors: bool,
    /// Go on after a difference, and show one of each kind and role.
    pub keep_going: bool,
}

/// How requests of one kind fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Sent to both gates.
    pub asked: usize,
    /// Of these, answered with a status of 2xx (or 304) by both.
    pub answered: usize,
}

/// How a role fared.
#[derive(Clone, Debug)]
pub struct RoleReport {
    /// The role.
    pub role: String,
    /// Records in the worlds, of which something is seen, that differ between the worlds.
    pub records: [usize; 3],
    /// By kind.
    pub counts: BTreeMap<Kind, Count>,
    /// How long it took.
    pub seconds: u64,
}

/// Two answers that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Who asked.
    pub role: String,
    /// The kind of request.
    pub kind: Kind,
    /// The shortest request found that shows it, as a line for a shell.
    pub request: String,
    /// Where the answers differ first.
    pub difference: String,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Report {
    /// By role, as far as the check came.
    pub roles: Vec<RoleReport>,
    /// The differences; at most one unless the plan goes on.
    pub leaks: Vec<Leak>,
    /// Kinds that the gate says it serves and that nobody was ever answered: nothing was learned about them.
    pub silent: Vec<Kind>,
}

impl Report {
    /// No difference, and every kind that is served was answered.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.leaks.is_empty() && self.silent.is_empty()
    }

    /// All requests, and those that were answered.
    #[must_use]
    pub fn sums(&self) -> Count {
        let counts = self.roles.iter().flat_map(|role| role.counts.values());
        counts.fold(Count::default(), |sum, one| Count {
            asked: sum.asked + one.asked,
            answered: sum.answered + one.answered,
        })
    }
}

/// Runs the check. `progress` hears role, requests done and requests to do.
///
/// # Errors
/// One line, when the gates could not be opened or loaded.
pub async fn check(plan: &Plan, progress: &(dyn Fn(&str, usize, usize) + Sync)) -> Result<Report, String> {
    let roles: Vec<&Role> = plan.roles.iter().chain(&plan.asked_as).collect();
    let doors = plan.open_doors.then(|| doors::open(plan.policies.as_deref(), &roles)).transpose()?;
    let given = doors.as_ref().map(|folder| folder.path().to_owned()).or_else(|| plan.policies.clone());
    let pair = Arc::new(Pair::open(given.as_ref(), plan.emrs.as_ref()).await?);
    let directory = given.unwrap_or_else(|| pair.policies());
    let policies = app::load_policies(&directory)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let policies = Arc::new(policies);
    let served = served(&pair.capabilities().await?);
    let mut report = Report { roles: Vec::new(), leaks: Vec::new(), silent: Vec::new() };
    for role in &plan.roles {
        let sight = Sight::new(&policies, role)?;
        let mut run = Run::prepare(plan, &pair, &sight, role).await?;
        run.go(&sight, progress).await?;
        report.roles.push(run.report);
        report.leaks.extend(run.leaks);
        if !report.leaks.is_empty() && !plan.keep_going {
            break;
        }
    }
    if report.leaks.is_empty() {
        let answered = |kind: &Kind| {
            report.roles.iter().any(|role| role.counts.get(kind).is_some_and(|c| c.answered > 0))
        };
        let promised = |kind: &Kind| kind.names().1.is_some_and(|name| served.contains(name));
        report.silent = Kind::ALL.into_iter().filter(|kind| promised(kind) && !answered(kind)).collect();
    }
    if let Ok(pair) = Arc::try_unwrap(pair).map_err(|_| ()) {
        pair.close().await?;
    }
    Ok(report)
}

/// What a `CapabilityStatement` lists: interactions by code, operations with their `$`.
fn served(statement: &Value) -> BTreeSet<String> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut found = BTreeSet::new();
    for rest in list(statement, "rest") {
        let resources = list(&rest, "resource");
        for one in resources.iter().chain([&rest]) {
            found.extend(list(one, "interaction").iter().filter_map(|one| text(one, "code")));
            let names = list(one, "operation").into_iter().filter_map(|one| text(&one, "name"));
            found.extend(names.map(|name| format!("${}", name.trim_start_matches('$'))));
        }
    }
    found
}

struct Run<'r> {
    plan: &'r Plan,
    role: &'r Role,
    asker: &'r Role,
    worlds: Worlds,
    session: Arc<Session>,
    report: RoleReport,
    leaks: Vec<Leak>,
    began: Instant,
}

impl<'r> Run<'r> {
    async fn prepare(
        plan: &'r Plan,
        pair: &Arc<Pair>,
        sight: &Sight,
        role: &'r Role,
    ) -> Result<Self, String> {
        let began = Instant::now();
        let stamps = if plan.emrs.is_some() { Stamps::Counted } else { Stamps::Kept };
        let worlds = Worlds::build(sight, stamps, plan.seed)?;
        let asker = plan.asked_as.as_ref().unwrap_or(role);
        let session = Arc::new(Session::begin(pair, &worlds, asker).await?);
        let report = RoleReport {
            role: role.name.clone(),
            records: [worlds.records(), worlds.shown(), worlds.differing],
            counts: BTreeMap::new(),
            seconds: 0,
        };
        Ok(Self { plan, role, asker, worlds, session, report, leaks: Vec::new(), began })
    }

    async fn go(
        &mut self,
        sight: &Sight,
        progress: &(dyn Fn(&str, usize, usize) + Sync),
    ) -> Result<(), String> {
        let known = self.worlds.known.iter();
        let reads = known.map(|one| Ask::get(Kind::Read, format!("{}/{}", one.resource.name(), one.id)));
        let reads: Vec<Ask> = reads.collect();
        let mut views = BTreeMap::new();
        let all = reads.len() + self.plan.requests;
        self.side_by_side(&reads, &mut |ask, body| {
            if let Ok(view) = serde_json::from_slice::<Value>(body) {
                views.insert(ask.path.clone(), view);
            }
        })
        .await?;
        let ground = Ground { worlds: &self.worlds, open: sight.open_types(), views: &views };
        let mut generator = Generator::new(ground, self.plan.seed, &self.role.name);
        let asks: Vec<Ask> = (0..self.plan.requests).map(|_| generator.next()).collect();
        let (writes, others): (Vec<Ask>, Vec<Ask>) = asks.into_iter().partition(Ask::writes);
        let mut done = reads.len();
        for some in others.chunks(TOKEN_REQUESTS) {
            for few in some.chunks(LANES * 8) {
                if self.is_over() {
                    break;
                }
                progress(&self.role.name, done, all);
                self.side_by_side(few, &mut |_, _| {}).await?;
                done += few.len();
            }
            self.session = Arc::new(self.session.renewed(self.asker)?);
        }
        for (place, ask) in writes.iter().enumerate() {
            if self.is_over() {
                break;
            }
            if place % TOKEN_REQUESTS == TOKEN_REQUESTS - 1 {
                self.session = Arc::new(self.session.renewed(self.asker)?);
            }
            progress(&self.role.name, done, all);
            let replies = self.session.ask_and_reset(ask, &self.worlds).await?;
            self.judge(ask, &replies).await?;
            done += 1;
        }
        self.report.seconds = self.began.elapsed().as_secs();
        Ok(())
    }

    fn is_over(&self) -> bool {
        !self.leaks.is_empty() && !self.plan.keep_going
    }

    /// Requests that change nothing, several at once. `hear` gets the first gate's bodies of what was answered.
    async fn side_by_side(&mut self, asks: &[Ask], hear: &mut dyn FnMut(&Ask, &[u8])) -> Result<(), String> {
        let mut tasks = JoinSet::new();
        for lane in 0..LANES {
            let session = Arc::clone(&self.session);
            let mine: Vec<(usize, Ask)> =
                asks.iter().cloned().enumerate().filter(|(place, _)| place % LANES == lane).collect();
            tasks.spawn(async move {
                let mut replies = Vec::new();
                for (place, ask) in mine {
                    replies.push((place, session.ask(&ask).await, ask));
                }
                replies
            });
        }
        let mut replies = tasks.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        replies.sort_by_key(|(place, ..)| *place);
        for (_, replies, ask) in &replies {
            if self.is_over() {
                break;
            }
            let [one, _] = replies;
            if one.status() == 200 {
                hear(ask, &one.body);
            }
            self.judge(ask, replies).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, ask: &Ask, replies: &[Reply; 2]) -> Result<(), String> {
        let [one, two] = replies;
        for (place, (first, second)) in one.answers.iter().zip(&two.answers).enumerate() {
            let kind = if place == 0 { ask.kind } else { Kind::Page };
            let count = self.report.counts.entry(kind).or_default();
            let good = |status: u16| (200..300).contains(&status) || status == 304;
            count.asked += 1;
            count.answered += usize::from(good(first.status) && good(second.status));
        }
        if difference(replies).is_none() || self.leaks.iter().any(|leak| leak.kind == ask.kind) {
            return Ok(());
        }
        let (ask, difference) = self.shortest(ask).await?;
        let Some(difference) = difference else { return Ok(()) };
        self.leaks.push(Leak {
            role: self.asker.name.clone(),
            kind: ask.kind,
            request: ask.curl(),
            difference,
        });
        Ok(())
    }

    /// Asks again and again, each time less. A difference that does not show twice is reported as it was.
    async fn shortest(&self, ask: &Ask) -> Result<(Ask, Option<String>), String> {
        let mut least = ask.clone();
        let mut found = None;
        let mut tries = 0;
        let mut open = vec![least.clone()];
        while let Some(next) = open.pop().filter(|_| tries < SHRINK_TRIES_MAX) {
            tries += 1;
            let replies = self.session.ask_and_reset(&next, &self.worlds).await?;
            if let Some(difference) = difference(&replies) {
                open = shrink::smaller(&next);
                open.reverse();
                (least, found) = (next, Some(difference));
            }
        }
        let found = found
            .unwrap_or_else(|| "seen once and not again: the answers depend on something else".to_owned());
        Ok((least, Some(found)))
    }
}

/// Where two replies differ first.
fn difference(replies: &[Reply; 2]) -> Option<String> {
    let [one, two] = replies;
    let pairs = one.answers.iter().zip(&two.answers).enumerate();
    let found = pairs.into_iter().find_map(|(place, (first, second))| {
        first.difference(second).map(|difference| match place {
            0 => difference,
            page => format!("{difference} (link {page} of the answer)"),
        })
    });
    let counts = (one.answers.len(), two.answers.len());
    found.or_else(|| {
        (counts.0 != counts.1).then(|| format!("links: A leads to {} answers, B to {}", counts.0, counts.1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_served_is_read_off_the_statement() {
        let statement = json!({ "rest": [{
            "resource": [{ "interaction": [{ "code": "read" }], "operation": [{ "name": "everything" }] }],
            "interaction": [{ "code": "transaction" }], "operation": [{ "name": "$export" }],
        }] });
        let served = served(&statement);
        let expected = ["$everything", "$export", "read", "transaction"];
        assert!(served.iter().eq(expected.iter()), "{served:?}");
    }
}
