//! The open loop: every request goes out when it is due, whatever became of those before it.
//!
//! Owns: keeping time, what is under way, and the judgement of each answer as it comes.
//! Must never: wait for an answer before the next request, or measure from anything but the due time: a server that
//! stalls must show in every request that was due meanwhile (coordinated omission).
//! Look next: `program`, what is due when; `measure`, what comes of it.

use crate::canary::Watch;
use crate::client::{HANDSHAKES_AT_ONCE, Heard, Place, Question, joined};
use crate::follow;
use crate::lanes::{CONNECTIONS_EACH, Lanes};
use crate::measure::{Bad, Good, Measured, Rows, Sample};
use crate::people::{People, own_patient};
use crate::program::{Due, Program};
use crate::scenario::{Follow, Role, Scenario, Step, Visit};
use crate::writes::{self, How, WRITES_MAX, Wrote};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Requests under way at once, each some KB: beyond it requests are left out, and the run is not valid.
const UNDER_WAY_MAX: usize = 20_000;
/// Threads that send and receive.
const WORKERS: usize = 2;
/// From when all is ready to the first request.
const RUN_UP: Duration = Duration::from_millis(100);
/// How long the clock may sleep before it looks whether it should stop.
const NAP_MAX: Duration = Duration::from_millis(100);
const TOLD_EVERY: Duration = Duration::from_millis(500);
/// What a follow-up needs of a body: a manifest, or a page with its links.
pub(crate) const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What is run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) program: Program,
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// The warm-up included.
    pub(crate) length: Duration,
    pub(crate) patients: u32,
    pub(crate) connections: usize,
    /// Each connection is an application's only one, so that all are used in turn.
    pub(crate) alone: bool,
    /// For the progress line.
    pub(crate) name: String,
}

/// Against whom.
#[derive(Clone)]
pub(crate) struct Against {
    pub(crate) place: Place,
    /// Others know no callers: what they answer is not judged by who asks.
    pub(crate) is_gate: bool,
    /// It must answer with the same status as the gate.
    pub(crate) decides: bool,
    /// What it lets out is searched for withheld values.
    pub(crate) filters: bool,
}

/// What all requests of a run share.
pub(crate) struct Shared {
    plan: Plan,
    people: Arc<People>,
    against: Against,
    rows: Rows,
    measured: Mutex<Measured>,
    under_way: AtomicUsize,
    began: Instant,
}

/// One request, its words filled in.
pub(crate) struct Ask {
    due: Due,
    lanes: Arc<Lanes>,
}

/// A question before it is known who asks.
#[derive(Clone, Copy)]
struct Put<'q> {
    path: &'q str,
    prefers_async: bool,
    write: Option<(How, &'q Bytes)>,
}

/// Ends the run when it is dropped.
struct Leash(Arc<AtomicBool>);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the plan, on threads of its own, until every request has its answer or its error.
///
/// # Errors
/// When connections cannot be opened, or it was stopped.
pub(crate) async fn run(plan: Plan, against: Against, people: Arc<People>) -> Result<Measured, String> {
    let leash = Leash(Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&leash.0);
    let running = tokio::task::spawn_blocking(move || drive(plan, against, people, &stop));
    let measured = running.await.map_err(|error| error.to_string())?;
    drop(leash);
    measured
}

/// Keeps time on the thread it is called on.
fn drive(plan: Plan, against: Against, people: Arc<People>, stop: &AtomicBool) -> Result<Measured, String> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let each = if plan.alone || against.place.is_shared() { 1 } else { CONNECTIONS_EACH };
    let groups = runtime.block_on(open(&against.place, plan.connections, each))?;
    let (measured, rows) = Measured::empty(&plan.scenario, plan.warm_up, plan.length)?;
    let shared = Arc::new(Shared {
        plan,
        people,
        against,
        rows,
        measured: Mutex::new(measured),
        under_way: AtomicUsize::new(0),
        began: Instant::now() + RUN_UP,
    });
    let mut clock =
        Clock { shared: Arc::clone(&shared), groups, once: HashMap::new(), each, told: Instant::now() };
    let kept = clock.keep(&runtime, stop);
    runtime.shutdown_background();
    kept?;
    let empty = Measured::empty(&shared.plan.scenario, shared.plan.warm_up, shared.plan.length)?.0;
    Ok(std::mem::replace(&mut *shared.lock(), empty))
}

/// Opens the connections that applications keep, in groups as many as one of them has.
async fn open(place: &Place, connections: usize, each: usize) -> Result<Vec<Arc<Lanes>>, String> {
    let mut groups = Vec::new();
    let mut left = connections.max(1);
    let mut opening = JoinSet::new();
    while left > 0 {
        let own = left.min(each);
        left -= own;
        let lanes = Arc::new(Lanes::new(place.clone(), own));
        groups.push(Arc::clone(&lanes));
        if opening.len() >= HANDSHAKES_AT_ONCE {
            joined(&mut opening).await?;
        }
        opening.spawn(async move { lanes.open(own).await });
    }
    while joined(&mut opening).await?.is_some() {}
    Ok(groups)
}

struct Clock {
    shared: Arc<Shared>,
    groups: Vec<Arc<Lanes>>,
    /// Connections of visits under way that connect anew, and how many of their steps are still to come.
    once: HashMap<u64, (Arc<Lanes>, usize)>,
    each: usize,
    told: Instant,
}

impl Clock {
    fn keep(&mut self, runtime: &Runtime, stop: &AtomicBool) -> Result<(), String> {
        for due in self.shared.plan.program.clone() {
            let at = self.shared.began + due.at;
            while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                std::thread::sleep(left.min(NAP_MAX));
                if stop.load(Ordering::Relaxed) {
                    return Err("stopped".to_owned());
                }
                self.tell();
            }
            self.send(runtime, due);
        }
        while self.shared.under_way.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(5));
            if stop.load(Ordering::Relaxed) {
                return Err("stopped".to_owned());
            }
            self.tell();
        }
        Ok(())
    }

    fn send(&mut self, runtime: &Runtime, due: Due) {
        let Some(visit) = self.shared.plan.scenario.visits.get(due.visit) else { return };
        let Some(lanes) = self.lanes(due, visit.new_connection, visit.steps.len()) else { return };
        if self.shared.under_way.fetch_add(1, Ordering::AcqRel) >= UNDER_WAY_MAX {
            self.shared.under_way.fetch_sub(1, Ordering::AcqRel);
            self.shared.lock().leave_out();
            return;
        }
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            shared.one(Ask { due, lanes }).await;
            shared.under_way.fetch_sub(1, Ordering::AcqRel);
        });
    }

    fn lanes(&mut self, due: Due, is_new: bool, steps: usize) -> Option<Arc<Lanes>> {
        if !is_new {
            let person = usize::try_from(due.person).ok()?;
            // Different kinds of visitors do not begin with the same connections.
            let number = (person + due.visit * 31) % self.groups.len().max(1);
            return self.groups.get(number).cloned();
        }
        let place = &self.shared.against.place;
        let (lanes, left) = self
            .once
            .entry(due.serial)
            .or_insert_with(|| (Arc::new(Lanes::new(place.clone(), self.each)), steps));
        let lanes = Arc::clone(lanes);
        *left -= 1;
        if *left == 0 {
            self.once.remove(&due.serial);
        }
        Some(lanes)
    }

    /// On a terminal: how far it is, on one line.
    fn tell(&mut self) {
        let mut terminal = std::io::stderr();
        if self.told.elapsed() < TOLD_EVERY || !terminal.is_terminal() {
            return;
        }
        self.told = Instant::now();
        let (answered, bad, p99, lag) = {
            let measured = self.shared.lock();
            let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
            let p99 = millis(measured.response.value_at_quantile(0.99));
            (measured.answered.len(), measured.bad, p99, millis(measured.lag.value_at_quantile(0.99)))
        };
        let plan = &self.shared.plan;
        let _not_vital = write!(
            terminal,
            "\r\x1b[K{}: {} of {} s, {answered} answers, {} under way, p99 {p99:.1} ms, lag {lag:.1} ms, {bad} misses",
            plan.name,
            self.shared.began.elapsed().as_secs().min(plan.length.as_secs()),
            plan.length.as_secs(),
            self.shared.under_way.load(Ordering::Relaxed),
        )
        .and_then(|()| terminal.flush());
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request that is due, and what follows from its answer.
    async fn one(&self, ask: Ask) {
        let due_at = self.began + ask.due.at;
        let lag = Instant::now().saturating_duration_since(due_at);
        let scenario = &self.plan.scenario;
        let Some(visit) = scenario.visits.get(ask.due.visit) else { return };
        let Some(step) = visit.steps.get(ask.due.step) else { return };
        let path = path_of(step, ask.due);
        let keeps = self.against.is_gate && step.follow != Follow::Nothing;
        let body =
            step.write.as_ref().map(|write| (write.how, Bytes::from(writes::filled(&write.body, ask.due))));
        let question = Put {
            path: &path,
            prefers_async: step.follow == Follow::Export,
            write: body.as_ref().map(|(how, body)| (*how, body)),
        };
        let (sent, done, outcome, heard) = self.ask(&ask, visit, step.status, question, keeps).await;
        let sample = Sample {
            row: self.rows.of(ask.due.visit, ask.due.step, 0),
            due: ask.due.at,
            lag,
            response: done.saturating_duration_since(due_at),
            service: done.saturating_duration_since(sent),
            is_follow_up: false,
            outcome,
        };
        let is_good = sample.outcome.is_ok();
        if let (Some((how, body)), Some(heard)) = (&body, heard.as_ref().filter(|_| is_good)) {
            self.wrote(visit, *how, body, &path, heard);
        }
        self.take(sample, Some(u64::from(ask.due.patient)).filter(|_| !scenario.varies(step)));
        if let Some(heard) = heard.filter(|_| is_good && keeps) {
            follow::follow(self, &ask, visit, step, heard).await;
        }
    }

    /// Keeps what the gate says was written, to compare it afterwards.
    fn wrote(&self, visit: &Visit, how: How, body: &Bytes, path: &str, heard: &Heard) {
        let Some(request_id) = heard.request_id.filter(|_| self.against.is_gate && heard.status.is_success())
        else {
            return;
        };
        let address = heard.created.as_deref().filter(|_| how == How::Post).unwrap_or(path);
        let mut measured = self.lock();
        if measured.wrote.len() < WRITES_MAX {
            measured.wrote.push(Wrote {
                request_id,
                role: visit.role,
                how,
                // An answer that does not say where its record is has none.
                record: writes::record_of(address).unwrap_or_default(),
                body: String::from_utf8_lossy(body).into_owned(),
            });
        }
    }

    /// A request that follows from an answer.
    pub(crate) async fn ask_further(
        &self,
        ask: &Ask,
        visit: &Visit,
        further: usize,
        path: &str,
        statuses: &[u16],
        keeps: bool,
    ) -> Option<Heard> {
        let due = Instant::now().saturating_duration_since(self.began);
        let expected = statuses.first().copied().unwrap_or(200);
        let question = Put { path, prefers_async: false, write: None };
        let (sent, done, mut outcome, heard) = self.ask(ask, visit, expected, question, keeps).await;
        // Another status may be as good, unless there was more to object to.
        if let (Err(bad), Some(heard)) = (&outcome, &heard) {
            let other = statuses.contains(&heard.status.as_u16()) && bad.what.starts_with(OTHER_STATUS);
            if let Some(good) = bad.answered.clone().filter(|_| other) {
                outcome = Ok(good);
            }
        }
        let is_good = outcome.is_ok();
        let service = done.saturating_duration_since(sent);
        let row = self.rows.of(ask.due.visit, ask.due.step, further);
        let sample =
            Sample { row, due, lag: Duration::ZERO, response: service, service, is_follow_up: true, outcome };
        self.take(sample, None);
        heard.filter(|_| is_good)
    }

    fn take(&self, sample: Sample, path: Option<u64>) {
        // Answers of others may differ from call to call.
        let path = path.filter(|_| self.against.is_gate);
        let taken = self.lock().take(sample, path);
        if let Err(why) = taken {
            // A fault of this program; the run must not go on as if nothing were.
            self.lock().first_bad.get_or_insert(why);
        }
    }

    async fn ask(
        &self,
        ask: &Ask,
        visit: &Visit,
        status: u16,
        question: Put<'_>,
        keeps: bool,
    ) -> (Instant, Instant, Result<Good, Bad>, Option<Heard>) {
        let now = Instant::now();
        let Some(token) = self.people.token(ask.due.visit, ask.due.person, ask.due.serial) else {
            let bad = Bad { what: "there is no token for this visit".to_owned(), answered: None };
            return (now, now, Err(bad), None);
        };
        let own = (visit.role == Role::Patient)
            .then(|| format!("c{}", own_patient(ask.due.person, self.plan.patients)));
        let mut watch = self.against.filters.then(|| Watch::new(visit.role, own));
        let mut body = Vec::new();
        let Put { path, prefers_async, write } = question;
        let asked = ask
            .lanes
            .ask(Question { path, token, prefers_async, write }, &mut |piece| {
                if let Some(watch) = &mut watch {
                    watch.see(piece);
                }
                if keeps && body.len() + piece.len() <= KEPT_BYTES_MAX {
                    body.extend_from_slice(piece);
                }
            })
            .await;
        let done = Instant::now();
        match asked {
            Ok(asked) => {
                let found = watch.and_then(Watch::found);
                let outcome = judge(&asked.heard, status, found, &self.against);
                let heard = Heard { body, ..asked.heard };
                (asked.sent, done, outcome, Some(heard))
            }
            Err(what) => (now, done, Err(Bad { what, answered: None }), None),
        }
    }
}

const OTHER_STATUS: &str = "answered with ";

/// Whether an answer is as it should be.
fn judge(heard: &Heard, expected: u16, found: Option<String>, against: &Against) -> Result<Good, Bad> {
    let status = heard.status.as_u16();
    let good = Good { status, bytes: heard.bytes, request_id: heard.request_id.filter(|_| against.is_gate) };
    let bad = |what: String| Err(Bad { what, answered: Some(good.clone()) });
    if let Some(found) = found {
        return bad(found);
    }
    if !against.decides {
        return if status < 500 { Ok(good) } else { bad(format!("{OTHER_STATUS}{status}")) };
    }
    if status != expected {
        return bad(format!("{OTHER_STATUS}{status} instead of {expected}"));
    }
    if good.request_id.is_none() && against.is_gate {
        return bad("answered without a request id".to_owned());
    }
    Ok(good)
}

/// The target with its patients filled in, below the base URL.
fn path_of(step: &Step, due: Due) -> String {
    format!("/fhir{}", writes::filled(&step.target, due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Rate;
    use crate::scenario;
    use http::{Response, StatusCode};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::net::TcpListener;

    const TEXT: &str = r#"title = "t"
about = "a"
[load]
pace = "constant"
rate = "200/s"
seconds = 2
connections = 6
[[visit]]
name = "v"
role = "nurse"
[[visit.step]]
name = "s"
get = "/Patient/{patient}"
"#;

    /// A server that answers at once, but for one stall, from 500 ms after its first request on, for everybody.
    async fn stalling(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let began: Arc<Mutex<Option<Instant>>> = Arc::default();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let began = Arc::clone(&began);
                let service = service_fn(move |_| {
                    let began = Arc::clone(&began);
                    async move {
                        let since = began.lock().unwrap().get_or_insert_with(Instant::now).elapsed();
                        let from = Duration::from_millis(500);
                        if since >= from && since < from + stall {
                            tokio::time::sleep(from + stall - since).await;
                        }
                        Ok::<_, String>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                    }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn nobody() -> Against {
        let place = Place::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        Against { place, is_gate: false, decides: false, filters: false }
    }

    fn heard(status: u16, request_id: Option<u128>) -> Heard {
        let status = StatusCode::from_u16(status).unwrap();
        Heard { status, location: None, created: None, request_id, bytes: 5, body: Vec::new() }
    }

    #[test]
    fn a_stall_shows_in_every_request_that_was_due_meanwhile() {
        let stall = Duration::from_millis(600);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (measured, due) = runtime.block_on(async {
            let scenario = Arc::new(scenario::read("t", "t.toml", TEXT).unwrap());
            let address = stalling(stall).await;
            let length = Duration::from_secs(2);
            let program = Program::new(&scenario, Rate::parse("200/s").unwrap(), length, 5, 1);
            let issuer = chartgate_sandbox::issuer::Issuer::offline("http://127.0.0.1:1", "x").unwrap();
            let people = People::gather(&issuer, &scenario, scenario.rate, program.clone(), 5).unwrap();
            let plan = Plan {
                scenario,
                program,
                warm_up: Duration::ZERO,
                length,
                patients: 5,
                connections: 6,
                alone: false,
                name: "t".to_owned(),
            };
            let against = Against { place: Place::plain(address), ..nobody() };
            let due = plan.program.clone().count() as u64;
            (run(plan, against, Arc::new(people)).await.unwrap(), due)
        });
        assert_eq!((measured.response.len(), measured.bad, measured.unsent), (due, 0, 0));
        let slower = |histogram: &crate::measure::Micros, than: Duration| {
            histogram
                .iter_recorded()
                .filter(|at| at.value_iterated_to() > u64::try_from(than.as_micros()).unwrap())
                .map(|at| at.count_at_value())
                .sum::<u64>()
        };
        // 120 requests were due while it stalled; those of its first half waited for more than half of it.
        let waited = slower(&measured.response, stall / 2);
        assert!((55..=130).contains(&waited), "{waited}");
        // A closed loop would have seen as many slow answers as it has connections: six.
        let sent = slower(&measured.service, stall / 2);
        assert!(sent <= 6, "{sent}");
        assert!(measured.response.value_at_quantile(0.99) > 500_000);
    }

    #[test]
    fn answers_are_judged() {
        let (gate, peer, other) = ((true, true), (false, true), (false, false));
        let cases = [
            (heard(200, Some(1)), 200, None, gate, true),
            (heard(403, Some(1)), 200, None, gate, false),
            (heard(200, Some(1)), 403, None, gate, false),
            (heard(403, Some(1)), 403, None, gate, true),
            (heard(200, None), 200, None, gate, false),
            (heard(200, Some(1)), 200, Some("leak".to_owned()), gate, false),
            // A peer that decides gives no ids, but must answer like the gate.
            (heard(403, None), 403, None, peer, true),
            (heard(200, None), 403, None, peer, false),
            (heard(200, None), 200, Some("leak".to_owned()), peer, false),
            // Others know no callers.
            (heard(200, None), 403, None, other, true),
            (heard(502, None), 200, None, other, false),
        ];
        for (heard, expected, found, (is_gate, decides), good) in cases {
            let shown = format!("{heard:?} {expected} {found:?} {is_gate} {decides}");
            let judged = judge(&heard, expected, found, &Against { is_gate, decides, ..nobody() });
            assert_eq!(judged.is_ok(), good, "{shown}");
            if let Err(bad) = judged {
                assert!(bad.answered.is_some(), "it came, so it has its record: {shown}");
            }
        }
    }
}
