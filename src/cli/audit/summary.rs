//! `chartgate audit summary`: how often whom was answered on a day, from the index.
//!
//! Owns: the command, and giving people their names back: the index has none, so they are read from the trail.
//! Must never: count by another rule than the index; print text of a record to a terminal unescaped.
//! Look next: `edge::trail_index::DayTally`.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use comfy_table::{Table, presets};
use jiff::civil::Date;
use serde_json::json;

use super::{complain, keys_of_trail, print_lines};
use crate::domain::audit::{self, Record, escape};
use crate::edge::journal::{Keys, Reader, Settings};
use crate::edge::trail_index::{DayTally, Index, IndexError, day_number};

/// Prints how many answers each person had on a day (UTC), by role, purpose and decision.
pub fn summary(
    settings: &Settings,
    index: &Path,
    day: Date,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let lines = match lines(settings, index, day, &keys) {
        Ok(lines) => lines,
        Err(error) => return complain(err, &error),
    };
    if as_json {
        let lines: Vec<String> = lines.iter().map(|line| line.as_json(day)).collect();
        return print_lines(out, &lines);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "who",
        "application",
        "roles",
        "purposes",
        "decision",
        "reason",
        "emergency",
        "answers",
        "records",
    ]);
    table.add_rows(lines.iter().map(Line::as_row));
    print_lines(out, &[table.to_string()])
}

/// A person, and what is counted.
struct Line {
    issuer: Option<String>,
    subject: Option<String>,
    tally: DayTally,
}

fn lines(settings: &Settings, path: &Path, day: Date, keys: &Keys) -> Result<Vec<Line>, IndexError> {
    let mut index = Index::open(path, settings)?;
    let (mut reader, _) = index.current(settings, keys, &mut |_| {})?;
    let tallies = day_number(day).map_or(Ok(Vec::new()), |day| index.day(day))?;
    let mut names: HashMap<u64, (String, String)> = HashMap::new();
    let mut samples: Vec<u64> = tallies.iter().filter_map(|tally| tally.sample).collect();
    samples.sort_unstable();
    samples.dedup();
    for sample in samples {
        if let Some(name) = name(&mut reader, sample)? {
            names.insert(sample, name);
        }
    }
    let line = |tally: DayTally| {
        let name = tally.sample.and_then(|sample| names.get(&sample).cloned());
        let (issuer, subject) = name.unzip();
        Line { issuer, subject, tally }
    };
    let mut lines: Vec<Line> = tallies.into_iter().map(line).collect();
    lines.sort_by(|left, right| {
        let key =
            |line: &Line| (std::cmp::Reverse(line.tally.answers), line.subject.clone(), line.issuer.clone());
        key(left).cmp(&key(right))
    });
    Ok(lines)
}

/// Whose record it is.
fn name(reader: &mut Reader<'_>, sample: u64) -> Result<Option<(String, String)>, IndexError> {
    Ok(match reader.record(sample)? {
        Some(Record::Intent(decision) | Record::Decision(decision)) => {
            decision.caller.map(|caller| (caller.issuer, caller.subject))
        }
        Some(Record::Control(control)) => control.refusals().and_then(|refusals| {
            let (issuer, subject) = refusals.caller?;
            Some((issuer.to_owned(), subject.to_owned()))
        }),
        Some(Record::Outcome(_)) | None => None,
    })
}

impl Line {
    fn as_json(&self, day: Date) -> String {
        let tally = &self.tally;
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        audit::json(&json!({
            "day": day.to_string(),
            "issuer": self.issuer,
            "subject": self.subject,
            "application": some(&tally.application),
            "roles": list(&tally.roles),
            "purposes": list(&tally.purposes),
            "decision": tally.decision,
            "reason": some(&tally.reason),
            "emergency": tally.emergency,
            "answers": tally.answers,
            "records": tally.records,
        }))
    }

    fn as_row(&self) -> Vec<String> {
        let tally = &self.tally;
        vec![
            self.subject.as_deref().map_or_else(String::new, escape),
            escape(&tally.application),
            escape(&tally.roles),
            escape(&tally.purposes),
            escape(&tally.decision),
            escape(&tally.reason),
            if tally.emergency { "yes".to_owned() } else { String::new() },
            tally.answers.to_string(),
            tally.records.to_string(),
        ]
    }
}
