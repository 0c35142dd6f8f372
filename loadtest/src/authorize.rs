//! An authorization service beside a proxy, as `auth_request` and `ext_authz` ask one: it gets each request as it came, and
//! says whether it may be made and which elements of the answer may leave.
//!
//! Owns: the peer's decisions, which are the gate's own (the library's), and an audit line that is on the disk before them.
//! Must never: stand before anything but the sandbox. What it leaves out of the gate's work: docs/performance.md.
//! Look next: `nginx-authz.lua`, which asks it and takes out of answers what it says; `prescription`, what it says.

use crate::prescription::{self, Owner};
use crate::stages::{self, Judged, Stages};
use bytes::Bytes;
use chartgate::domain::fhir::interaction::Interaction;
use chartgate::domain::filter::{self, Bases};
use clap::Args;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A record that is written here has some KB.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Different prescriptions of a run: by role, purpose and what was asked. Beyond it they are made anew each time.
const PRESCRIPTIONS_MAX: usize = 10_000;
/// Where the proxy fetches a prescription that it does not know yet.
const PRESCRIPTIONS: &str = "/~prescription/";

/// `authorize --port P --audit F --public-port P --upstream H:P --until policy --issuer …`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Loopback port to listen on, plain HTTP
    #[arg(long)]
    port: u16,
    /// Port of the proxy that asks
    #[arg(long)]
    public_port: u16,
    /// Address of the upstream, plain HTTP
    #[arg(long)]
    upstream: SocketAddr,
    /// One line for each decision
    #[arg(long)]
    audit: PathBuf,
    #[command(flatten)]
    stages: stages::Steps,
}

struct Service {
    stages: Stages,
    /// Labels that the policies name.
    labels: Vec<String>,
    audit: Mutex<Sender<Line>>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// By what it depends on: its name.
    names: HashMap<String, Arc<str>>,
    /// By its name.
    texts: HashMap<Arc<str>, Bytes>,
}

/// A line for the audit file, and who waits for it.
struct Line {
    text: Vec<u8>,
    written: oneshot::Sender<()>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Serves until the process is ended.
///
/// # Errors
/// When it cannot begin.
pub(crate) async fn run(options: &Options) -> Result<(), String> {
    let stages = Stages::ready(&options.stages, options.public_port, &options.upstream.to_string())?;
    let stages = stages.ok_or("--until is missing")?;
    let file = File::options().create(true).append(true).open(&options.audit).map_err(text)?;
    let (audit, lines) = channel();
    std::thread::Builder::new().name("audit".to_owned()).spawn(move || keep(file, &lines)).map_err(text)?;
    let labels = prescription::labels(stages.sources());
    let service = Service { stages, labels, audit: Mutex::new(audit), known: RwLock::default() };
    let service = Arc::new(service);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.map_err(text)?;
    let serving = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _slower_only = stream.set_nodelay(true);
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                let one = service_fn(|request| answer(Arc::clone(&service), request));
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _proxy_left = builder.serve_connection(TokioIo::new(stream), one).await;
            });
        }
    };
    let mut terminated = crate::pass_through::terminated()?;
    tokio::select! {
        () = serving => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// Writes lines, those that wait together with one sync, and lets their requests go on. A line that could not be written
/// lets nobody go on.
fn keep(mut file: File, lines: &Receiver<Line>) {
    while let Ok(first) = lines.recv() {
        let group: Vec<Line> = std::iter::once(first).chain(lines.try_iter()).collect();
        let bytes: Vec<u8> = group.iter().flat_map(|line| line.text.iter().copied()).collect();
        if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for line in group {
            let _gone = line.written.send(());
        }
    }
}

async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, String> {
    let (parts, body) = request.into_parts();
    if let Some(name) = parts.uri.path().strip_prefix(PRESCRIPTIONS) {
        let known = service.known.read().unwrap_or_else(PoisonError::into_inner);
        return Ok(match known.texts.get(name) {
            Some(text) => Response::new(Full::new(text.clone())),
            None => bare(StatusCode::NOT_FOUND),
        });
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(text)?.to_bytes();
    let decided = service.decide(&parts, &body);
    if service.write_down(&parts, &decided).await.is_err() {
        return Ok(bare(StatusCode::SERVICE_UNAVAILABLE));
    }
    Ok(match decided {
        Ok(leave) => leave.response(),
        Err(status) => bare(status),
    })
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// The request may be made; of the answer may leave what the prescription says.
struct Leave {
    name: Arc<str>,
    /// The one patient whose records may leave.
    own: Option<String>,
    who: String,
    policies: Vec<String>,
}

impl Leave {
    fn response(&self) -> Response<Full<Bytes>> {
        let mut answer = bare(StatusCode::OK);
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::try_from(value) {
                answer.headers_mut().insert(name, value);
            }
        };
        put("x-prescription", &self.name);
        if let Some(own) = &self.own {
            put("x-own", own);
        }
        answer
    }
}

impl Service {
    fn decide(&self, parts: &Parts, body: &[u8]) -> Result<Leave, StatusCode> {
        let judged = self.stages.judge(parts)?;
        let own = Owner::of(&judged.caller);
        prescription::may_be_asked(&judged.permit)?;
        if let Interaction::Create { .. } = judged.interaction {
            self.may_be_created(&judged, body)?;
        }
        let name = self.prescribe(&judged, own.as_ref());
        Ok(Leave {
            name,
            own: own.map(|own| own.id),
            who: judged.caller.subject().to_owned(),
            policies: judged.permit.policies().to_vec(),
        })
    }

    /// A new record, of which every element must be the caller's to write.
    fn may_be_created(&self, judged: &Judged, body: &[u8]) -> Result<(), StatusCode> {
        let bases = Bases { upstream: &[], public: self.stages.public_base() };
        let document = filter::parse_sent(body, &bases).map_err(|_| StatusCode::BAD_REQUEST)?;
        let record = document.records().first().ok_or(StatusCode::BAD_REQUEST)?;
        let change = judged.permit.change(None, Some(&record.facts), None);
        let change = change.map_err(|_| StatusCode::FORBIDDEN)?;
        document.outside(0, change.modify()).map_or(Ok(()), |_| Err(StatusCode::FORBIDDEN))
    }

    /// The name of what may leave; it is made once for each situation.
    fn prescribe(&self, judged: &Judged, own: Option<&Owner>) -> Arc<str> {
        let key = prescription::key(judged);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).names.get(&key).cloned();
        if let Some(name) = known {
            return name;
        }
        let text = prescription::of(
            judged,
            own,
            &self.labels,
            self.stages.upstream_base(),
            self.stages.public_base(),
        );
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made it meanwhile.
        if let Some(name) = known.names.get(&key) {
            return Arc::clone(name);
        }
        if known.names.len() >= PRESCRIPTIONS_MAX {
            *known = Known::default();
        }
        let name: Arc<str> = known.names.len().to_string().into();
        known.texts.insert(Arc::clone(&name), Bytes::from(text.to_string()));
        known.names.insert(key, Arc::clone(&name));
        name
    }

    /// Returns when the decision is on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn write_down(&self, parts: &Parts, decided: &Result<Leave, StatusCode>) -> Result<(), String> {
        let id = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        let (who, status, policies) = match decided {
            Ok(leave) => (Some(&leave.who), 200, leave.policies.as_slice()),
            Err(status) => (None, status.as_u16(), [].as_slice()),
        };
        let line = json!({
            "at": chartgate::clock::now().to_string(),
            "request": id,
            "who": who,
            "method": parts.method.as_str(),
            "target": parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
            "status": status,
            "policies": policies,
        });
        let (written, done) = oneshot::channel();
        let line = Line { text: format!("{line}\n").into_bytes(), written };
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).send(line).map_err(text)?;
        done.await.map_err(text)
    }
}
