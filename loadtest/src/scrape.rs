//! What the gate says about itself: readiness and metrics from its operations listener.
//!
//! Owns: [`Counts`], the few metrics that a run needs.
//! Must never: be taken for evidence: the trail is (`trail`).
//! Look next: `baseline`.

use crate::client::Place;
use http::{HeaderValue, StatusCode};
use std::net::SocketAddr;
use std::ops::Sub;

/// Counters since the gate began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Requests answered.
    pub(crate) requests: f64,
    /// Group commits of the journal.
    pub(crate) commits: f64,
    /// Their time in all.
    pub(crate) commit_seconds: f64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            commits: self.commits - earlier.commits,
            commit_seconds: self.commit_seconds - earlier.commit_seconds,
        }
    }
}

/// Whether the gate is ready.
pub(crate) async fn is_ready(operations: SocketAddr) -> bool {
    get(operations, "/readyz").await.is_ok_and(|(status, _)| status == StatusCode::OK)
}

/// The counters now.
///
/// # Errors
/// When the gate does not say.
pub(crate) async fn counts(operations: SocketAddr) -> Result<Counts, String> {
    let (status, text) = get(operations, "/metrics").await?;
    if status != StatusCode::OK {
        return Err(format!("the gate's metrics: {status}"));
    }
    Ok(read(&text))
}

/// Client connections that are open now. The gate counts those of its operations listener, too: the one that asks is taken off.
///
/// # Errors
/// When the gate does not say.
pub(crate) async fn connections(operations: SocketAddr) -> Result<f64, String> {
    let (_, text) = get(operations, "/metrics").await?;
    let found = text.lines().find_map(|line| line.strip_prefix("chartgate_connections "));
    let open = found.and_then(|number| number.trim().parse::<f64>().ok());
    open.map(|open| open - 1.0).ok_or_else(|| "no count of connections".to_owned())
}

/// One counter or gauge, summed over its labels.
///
/// # Errors
/// When the gate does not say.
pub(crate) async fn one(operations: SocketAddr, name: &str) -> Result<f64, String> {
    let (status, text) = get(operations, "/metrics").await?;
    if status != StatusCode::OK {
        return Err(format!("the gate's metrics: {status}"));
    }
    Ok(sum(&text, name))
}

async fn get(operations: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
    let mut link = Place::plain(operations).connect().await?;
    let heard = link.get(path, &HeaderValue::from_static("none"), true).await?;
    Ok((heard.status, String::from_utf8_lossy(&heard.body).into_owned()))
}

fn sum(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn read(text: &str) -> Counts {
    let sum = |name: &str| sum(text, name);
    Counts {
        requests: sum("chartgate_requests_total"),
        commits: sum("chartgate_journal_commit_seconds_count"),
        commit_seconds: sum("chartgate_journal_commit_seconds_sum"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels() {
        let text = "# TYPE chartgate_requests counter\n\
            chartgate_requests_total{interaction=\"read\",status=\"2xx\"} 3\n\
            chartgate_requests_total{interaction=\"none\",status=\"4xx\"} 2\n\
            chartgate_journal_commit_seconds_sum 0.5\n\
            chartgate_journal_commit_seconds_count 4\n";
        let counts = read(text);
        assert_eq!(counts, Counts { requests: 5.0, commits: 4.0, commit_seconds: 0.5 });
        assert_eq!((counts - counts).requests, 0.0);
        assert_eq!(read(""), Counts::default());
    }
}
