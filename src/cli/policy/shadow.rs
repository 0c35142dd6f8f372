//! `chartgate policy shadow`: what a candidate set would have decided otherwise, as the trail tells.
//!
//! Owns: the arguments and what is printed. Must never: write the trail, or print what a terminal would obey.
//! Look next: `app::shadow`, which writes it there.

use crate::cli::{ConfigFile, Ending, show};
use crate::domain::audit::{Control, Event, escape};
use crate::edge::journal::Keys;
use crate::edge::newest_control::newest;
use crate::{app, config};
use clap::Args;
use serde_json::{Value, json};

/// `policy shadow --config F [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Shadow {
    #[command(flatten)]
    config: ConfigFile,
    /// One JSON object a line: each difference, then the numbers
    #[arg(long)]
    json: bool,
}

pub(super) fn run(shadow: &Shadow) -> Ending {
    let settings = match config::load(&shadow.config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, shadow.json),
    };
    let trail = app::journal_settings(&settings);
    let is_told = |control: Control| {
        let tells = matches!(control.event, Event::ShadowBegan | Event::ShadowSummary | Event::ShadowEnded);
        tells.then_some(control)
    };
    let found = Keys::load(&trail).map_err(|error| error.to_string());
    let found = found.and_then(|keys| newest(&trail, &keys, is_told).map_err(|finding| finding.to_string()));
    match found {
        Ok((Some(control), _)) => tell(&control, shadow.json),
        Ok((None, _)) => {
            show::error("no candidate was ever asked: the configuration names one in `[policies.shadow]`");
            Ending::No
        }
        Err(why) => {
            show::error(&why);
            Ending::No
        }
    }
}

fn tell(control: &Control, as_json: bool) -> Ending {
    let detail = |name: &str| control.details.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| detail(name).parse::<u64>().unwrap_or(0);
    let rows = control.details.iter().filter(|(name, _)| name.starts_with("difference"));
    let rows: Vec<Value> = rows.filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
    if as_json {
        rows.iter().for_each(|row| show::line(&row.to_string()));
        let told = json!({
            "event": control.event.code(), "time": control.time.to_string(), "candidate": detail("candidate"),
            "policySet": detail("policySet"), "asked": number("asked"), "different": number("different"),
            "unknown": number("unknown"), "dropped": number("dropped"), "others": number("others"),
        });
        show::line(&told.to_string());
        return Ending::Good;
    }
    let time = control.time;
    let stands = if control.event == Event::ShadowEnded {
        format!("ended {time}, {}", detail("because"))
    } else if control.event == Event::ShadowBegan {
        format!("began {time}; nothing is summed up yet")
    } else {
        format!("as of {time}")
    };
    show::line(&escape(&format!(
        "candidate {} beside {}: {stands}",
        detail("candidate"),
        detail("policySet")
    )));
    for row in &rows {
        show::line(&escape(&sentence(row)));
    }
    show::line(&format!(
        "{} questions, {} different; {} could not be told, {} were not put, {} differences are not listed",
        number("asked"),
        number("different"),
        number("unknown"),
        number("dropped"),
        number("others"),
    ));
    Ending::Good
}

fn sentence(row: &Value) -> String {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    let paths = |name: &str| {
        let all = row.get(name).and_then(Value::as_object);
        all.map(|all| all.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default()
    };
    let policies = row.get("policies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let policies = policies.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let parts = [
        (number("permitted") > 0).then(|| format!("{} newly permitted", number("permitted"))),
        (number("refused") > 0).then(|| format!("{} newly refused", number("refused"))),
        Some(paths("gained")).filter(|paths| !paths.is_empty()).map(|paths| format!("shows {paths}")),
        Some(paths("lost")).filter(|paths| !paths.is_empty()).map(|paths| format!("withholds {paths}")),
        Some(policies).filter(|policies| !policies.is_empty()).map(|policies| format!("by {policies}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!(
        "  {} {} {}, {} times: {}",
        text("roles"),
        text("asked"),
        text("type"),
        number("times"),
        parts.join("; ")
    )
}
