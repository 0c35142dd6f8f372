//! `chartgate emergency list|review`: what was opened in emergencies, and what a reviewer found.
//!
//! Owns: the arguments and what is printed. The list is read from the trail, beside a proxy that runs; a review is sent to
//! that proxy, which knows the reviewer by their token and alone writes the trail.
//! Must never: write the trail, or print text of a record to a terminal unescaped.
//! Look next: `domain::audit::Cases`; `gateway::review`, which takes reviews.

use super::trail::Reader;
use super::{ConfigFile, Ending, show};
use crate::config::Settings;
use crate::domain::audit::{self, Case, escape};
use crate::edge::tls::{ClientFiles, client_config};
use crate::gateway::review;
use crate::{app, config, limits};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `emergency list|review`
#[derive(Debug, Subcommand)]
pub(super) enum Emergency {
    /// Every emergency: who, whom, why, what was opened, and whether it was reviewed
    List(List),
    /// Say what you found; you are known by your token, and nobody reviews their own access
    Review(Box<Review>),
}

/// `emergency list --config F [--open] [--json]`
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Only those that nobody has reviewed
    #[arg(long)]
    open: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reader: Reader,
}

/// `emergency review GRANT --config F --reviewer-token-file T --finding … --note …`
#[derive(Debug, Args)]
pub(super) struct Review {
    /// The grant's id, as `emergency list` prints it
    grant: String,
    #[command(flatten)]
    config: ConfigFile,
    /// A file with the reviewer's access token, of a fresh login with a second factor
    #[arg(long, value_name = "FILE")]
    reviewer_token_file: PathBuf,
    /// What was found
    #[arg(long)]
    finding: Finding,
    /// Why
    #[arg(long)]
    note: String,
    /// Where the proxy's operations listener answers, if not as the configuration says
    #[arg(long, value_name = "URL")]
    operations: Option<String>,
    /// The authority behind the operations listener's certificate, if it has one
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Finding {
    Justified,
    NotJustified,
}

pub(super) fn run(command: &Emergency) -> Ending {
    let file = match command {
        Emergency::List(list) => &list.config,
        Emergency::Review(review) => &review.config,
    };
    let settings = match config::load(&file.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, false),
    };
    let done = match command {
        Emergency::List(list) => print_list(&settings, list),
        Emergency::Review(review) => send(&settings, review),
    };
    match done {
        Ok(()) => Ending::Good,
        Err(why) => {
            show::error(&escape(&why));
            Ending::No
        }
    }
}

fn print_list(settings: &Settings, list: &List) -> Result<(), String> {
    list.reader.recorded(&app::journal_settings(settings), "emergency list", BTreeMap::new());
    let cases = review::cases(&app::journal_settings(settings))?;
    let all: Vec<&Case> =
        cases.all().into_iter().filter(|case| !list.open || case.reviews.is_empty()).collect();
    for case in &all {
        if list.json {
            show::line(&audit::json(&as_json(case)));
        } else {
            as_lines(case).iter().for_each(|line| show::line(&escape(line)));
        }
    }
    if !list.json {
        let open = all.iter().filter(|case| case.reviews.is_empty()).count();
        show::line(&format!("{} emergencies, {open} of them not reviewed", all.len()));
    }
    Ok(())
}

/// One case, as a reviewer's tool reads it.
fn as_json(case: &Case) -> Value {
    let reviews: Vec<Value> = case
        .reviews
        .iter()
        .map(|review| {
            json!({
                "time": review.time.to_string(),
                "issuer": review.issuer,
                "subject": review.subject,
                "finding": review.finding,
                "note": review.note,
            })
        })
        .collect();
    json!({
        "grant": case.grant,
        "issuer": case.issuer,
        "subject": case.subject,
        "patient": case.patient,
        "reason": case.reason,
        "began": case.began.to_string(),
        "until": case.until,
        "ended": case.ended.as_ref().map(|(time, _)| time.to_string()),
        "cause": case.ended.as_ref().map(|(_, cause)| cause),
        "answers": case.answers,
        "opened": case.opened,
        "reviewed": !case.reviews.is_empty(),
        "reviews": reviews,
    })
}

fn as_lines(case: &Case) -> Vec<String> {
    let ended = match &case.ended {
        Some((time, cause)) => format!("{cause} {time}"),
        None => format!("until {}", case.until),
    };
    let mut lines = vec![
        format!("{}  {} {ended}", case.grant, case.began),
        format!("  {} opened Patient/{}: {}", case.subject, case.patient, case.reason),
        format!("  {} answers, {} records", case.answers, case.opened.len()),
    ];
    lines.extend(case.opened.iter().map(|reference| format!("    {reference}")));
    match case.reviews.as_slice() {
        [] => lines.push("  not reviewed".to_owned()),
        reviews => lines.extend(reviews.iter().map(|review| {
            format!("  {} by {} {}: {}", review.finding, review.subject, review.time, review.note)
        })),
    }
    lines
}

fn send(settings: &Settings, review: &Review) -> Result<(), String> {
    let token = std::fs::read_to_string(&review.reviewer_token_file)
        .map_err(|error| format!("the reviewer's token cannot be read: {}", error.kind()))?;
    let finding = match review.finding {
        Finding::Justified => "justified",
        Finding::NotJustified => "not-justified",
    };
    let scheme = if settings.operations.certificate.is_some() { "https" } else { "http" };
    let base = review.operations.clone();
    let base = base.unwrap_or_else(|| format!("{scheme}://{}", settings.operations.address));
    let body = json!({ "finding": finding, "note": review.note }).to_string();
    let request = Request::post(format!("{}/emergency/{}/review", base.trim_end_matches('/'), review.grant))
        .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot be started: {}", error.kind()))?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(limits::UPSTREAM_TIMEOUT_SECONDS_MAX), ask(request, review))
            .await
    });
    let (status, said) = asked.map_err(|_| "the proxy did not answer in time".to_owned())??;
    if status == StatusCode::OK {
        show::line(&format!("recorded: {finding}"));
        return Ok(());
    }
    let outcome: Value = serde_json::from_slice(&said).unwrap_or_default();
    let text = outcome.pointer("/issue/0/details/text").and_then(Value::as_str).unwrap_or("no reason given");
    Err(format!("the review was not taken ({status}): {text}"))
}

async fn ask(request: Request<Full<Bytes>>, review: &Review) -> Result<(StatusCode, Bytes), String> {
    let tls = client_config(&ClientFiles { ca: review.ca.clone(), own: None });
    let tls = tls.map_err(|error| error.to_string())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await;
    let answer = answer.map_err(|_| "the proxy's operations listener cannot be reached".to_owned())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), limits::FORM_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|_| "the proxy's answer is not whole".to_owned())?.to_bytes()))
}
