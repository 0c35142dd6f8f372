//! What a run under attack found: one row for each attack, and what fails the run.
//!
//! Owns: [`Findings`], its judgement, its table and its page.
//! Must never: quote numbers of an unoptimised build without saying so first.
//! Look next: `mod`, who fills it; docs/performance.md, how to read it.

use super::Spell;
use super::attacks::Attack;
use super::evidence::Evidence;
use super::tally::told;
use crate::baseline::progress;
use crate::findings::Curve;
use crate::measure::Measured;
use crate::report::{Machine, table};
use crate::sheet::{Sheet, Tone};
use crate::vitals::mib;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

const FORMAT: &str = "chartgate-hostile/1";
/// A generator that is later than this while nobody attacks does not measure the gate.
const LAG_MS_MAX: f64 = 10.0;

/// What was run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setting {
    pub(super) machine: Machine,
    pub(super) protocol: String,
    pub(super) visits_per_second: f64,
    pub(super) seconds: u64,
    pub(super) strength_percent: u32,
    pub(super) memory_mib_max: u64,
    pub(super) patients: u32,
}

/// Those who behave, in one stretch of time, and the gate meanwhile.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Side {
    pub(super) answered: u64,
    pub(super) bad: u64,
    pub(super) unsent: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) lag_p99_ms: f64,
    pub(super) processors: f64,
    pub(super) resident_mib: f64,
    pub(super) peak_mib: f64,
}

/// One attack.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) attack: String,
    pub(super) threat: String,
    pub(super) about: String,
    pub(super) attackers: usize,
    pub(super) sent: BTreeMap<String, u64>,
    pub(super) ended: BTreeMap<String, u64>,
    pub(super) calm: Side,
    pub(super) under: Side,
    pub(super) factor_p50: f64,
    pub(super) factor_p99: f64,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Findings {
    format: String,
    setting: Setting,
    rows: Vec<Row>,
    evidence: Evidence,
    /// The most that was ever resident.
    peak_mib: f64,
    /// Why the run fails.
    misses: Vec<String>,
    /// Why its numbers may not be used.
    doubts: Vec<String>,
}

impl Side {
    fn of(spell: &Spell) -> Self {
        let vitals = &spell.vitals;
        let side = spell.measured.as_ref().map(Self::measured).unwrap_or_default();
        Self {
            processors: vitals.processors(),
            resident_mib: vitals.before(),
            peak_mib: vitals.peak(),
            ..side
        }
    }

    fn measured(measured: &Measured) -> Self {
        let (response, lag) = (Curve::of(&measured.response), Curve::of(&measured.lag));
        Self {
            answered: response.count,
            bad: measured.bad,
            unsent: measured.unsent,
            errors: measured.errors.clone(),
            p50_ms: response.p50_ms,
            p99_ms: response.p99_ms,
            max_ms: response.max_ms,
            lag_p99_ms: lag.p99_ms,
            ..Self::default()
        }
    }

    fn misses(&self, when: &str) -> Vec<String> {
        let mut misses: Vec<String> =
            self.errors.iter().map(|(what, count)| format!("{when}: {count} x {what}")).collect();
        if self.unsent > 0 {
            misses
                .push(format!("{when}: {} requests could not be sent, too many were under way", self.unsent));
        }
        if self.answered == 0 {
            misses.push(format!("{when}: nobody who behaved was answered"));
        }
        misses
    }
}

impl Row {
    pub(super) fn of(attack: &Attack, attackers: usize, calm: &Spell, siege: &Spell) -> Self {
        let (calm, under) = (Side::of(calm), Side::of(siege));
        let factor = |calm: f64, under: f64| if calm > 0.0 { under / calm } else { 0.0 };
        let told = &siege.told;
        Self {
            attack: attack.name.to_owned(),
            threat: attack.threat.to_owned(),
            about: attack.about.to_owned(),
            attackers,
            sent: told.sent.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect(),
            ended: told.ended.clone(),
            factor_p50: factor(calm.p50_ms, under.p50_ms),
            factor_p99: factor(calm.p99_ms, under.p99_ms),
            calm,
            under,
        }
    }

    fn cells(&self) -> Vec<String> {
        let (calm, under) = (&self.calm, &self.under);
        vec![
            self.attack.clone(),
            self.threat.clone(),
            self.attackers.to_string(),
            told(&self.sent),
            told(&self.ended),
            format!("{:.2}", calm.p50_ms),
            format!("{:.2}", under.p50_ms),
            format!("{:.1}", self.factor_p50),
            format!("{:.2}", calm.p99_ms),
            format!("{:.2}", under.p99_ms),
            format!("{:.1}", self.factor_p99),
            format!("{:.2}", calm.processors),
            format!("{:.2}", under.processors),
            format!("{:.0}", under.resident_mib),
            format!("{:.0}", under.peak_mib),
        ]
    }
}

const COLUMNS: [&str; 15] = [
    "attack",
    "tries",
    "attackers",
    "sent",
    "ended",
    "calm p50 ms",
    "under p50 ms",
    "factor",
    "calm p99 ms",
    "under p99 ms",
    "factor",
    "calm CPUs",
    "under CPUs",
    "MiB before",
    "MiB peak",
];

impl Findings {
    /// With why the run fails, and why its numbers may not be used.
    pub(super) fn judged(
        setting: Setting,
        rows: Vec<Row>,
        evidence: Evidence,
        peak_kib: u64,
        mut misses: Vec<String>,
    ) -> Self {
        for row in &rows {
            misses.extend(row.calm.misses(&format!("before {}", row.attack)));
            misses.extend(row.under.misses(&format!("under {}", row.attack)));
            if row.sent.is_empty() {
                misses.push(format!("{}: nothing was sent", row.attack));
            }
        }
        if !evidence.is_good() {
            misses.push(format!("the trail does not match the answers: {evidence:?}"));
        }
        let peak_mib = mib(peak_kib);
        if peak_mib > setting.memory_mib_max as f64 {
            let most = setting.memory_mib_max;
            misses.push(format!("the gate had {peak_mib:.0} MiB resident, of at most {most}"));
        }
        let mut doubts = Vec::new();
        if !setting.machine.optimised {
            doubts.push("not an optimised build: its numbers say nothing (use --release)".to_owned());
        }
        let late = rows.iter().map(|row| row.calm.lag_p99_ms).fold(0.0, f64::max);
        if late > LAG_MS_MAX {
            doubts.push(format!(
                "the generator was {late:.1} ms late at the 99th percentile while nobody attacked"
            ));
        }
        Self { format: FORMAT.to_owned(), setting, rows, evidence, peak_mib, misses, doubts }
    }

    fn heading(&self) -> [String; 3] {
        let (setting, machine, evidence) = (&self.setting, &self.setting.machine, &self.evidence);
        [
            format!(
                "Hostile load: {:.1} visits/s of callers who behave ({}), {} s calm and {} s under each attack, attackers at \
                 {} %, memory bound {} MiB",
                setting.visits_per_second,
                setting.protocol,
                setting.seconds,
                setting.seconds,
                setting.strength_percent,
                setting.memory_mib_max
            ),
            format!(
                "{} processors ({}), {} MiB, shared by gate, callers, attackers and record system; load before: {}; a synced \
                 write of 1 KB takes {:.2} ms",
                machine.processors, machine.model, machine.memory_mib, machine.load_before, machine.sync_ms
            ),
            format!(
                "{} answers to callers who behaved, {} unproven; {} that attackers read, {} missing; {} refusals in counts, \
                 {} records of what attackers did not wait for, {} of strangers; the trail {}; peak {:.0} MiB",
                evidence.answered,
                evidence.unproven,
                evidence.heard,
                evidence.missing,
                evidence.counted,
                evidence.unheard,
                evidence.strange,
                if evidence.verifies { "verifies" } else { "DOES NOT VERIFY" },
                self.peak_mib
            ),
        ]
    }

    fn markdown(&self) -> String {
        let mut lines = self.heading().to_vec();
        lines.extend(self.misses.iter().map(|miss| format!("THE RUN FAILS: {miss}")));
        lines.extend(self.doubts.iter().map(|doubt| format!("NOT VALID: {doubt}")));
        lines.push(String::new());
        lines.push(table(&COLUMNS, self.rows.iter().map(Row::cells)));
        lines.join("\n")
    }

    fn page(&self) -> String {
        let mut sheet = Sheet::new("Chartgate under attack");
        self.misses.iter().for_each(|miss| sheet.say(Tone::Bad, &format!("THE RUN FAILS: {miss}")));
        self.doubts.iter().for_each(|doubt| sheet.say(Tone::Doubt, &format!("NOT VALID: {doubt}")));
        if self.misses.is_empty() {
            sheet.say(Tone::Good, "Everybody who behaved was answered, and every answer has its record.");
        }
        self.heading().iter().for_each(|line| sheet.say(Tone::Plain, line));
        let rows: Vec<Vec<String>> = self.rows.iter().map(Row::cells).collect();
        sheet.table("Attack by attack", &COLUMNS, &rows);
        let about: Vec<Vec<String>> =
            self.rows.iter().map(|row| vec![row.attack.clone(), row.about.clone()]).collect();
        sheet.table("What attackers do", &["attack", "what"], &about);
        sheet.close()
    }

    /// Shows it, and writes the files that were asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or anything was missed.
    pub(super) fn publish(&self, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
        progress("");
        super::write(json, || serde_json::to_string(self).map_err(|error| error.to_string()))?;
        super::write(html, || Ok(self.page()))?;
        let shown = writeln!(std::io::stdout().lock(), "{}", self.markdown());
        shown.map_err(|error| error.to_string())?;
        match self.misses.first() {
            None => Ok(()),
            Some(miss) => Err(format!("{} misses, first: {miss}", self.misses.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side() -> Side {
        Side { answered: 100, p50_ms: 1.0, p99_ms: 4.0, peak_mib: 90.0, ..Side::default() }
    }

    fn row() -> Row {
        Row {
            attack: "pings".to_owned(),
            threat: "T-244".to_owned(),
            about: "pings".to_owned(),
            attackers: 8,
            sent: [("frames".to_owned(), 7)].into(),
            ended: [("closed".to_owned(), 8)].into(),
            calm: side(),
            under: Side { p50_ms: 2.0, p99_ms: 12.0, ..side() },
            factor_p50: 2.0,
            factor_p99: 3.0,
        }
    }

    fn judged(row: Row, change: impl FnOnce(&mut Setting, &mut Evidence)) -> Findings {
        let machine = crate::findings::tests::sample().machine;
        let mut setting = Setting {
            machine,
            protocol: "HTTP/1.1".to_owned(),
            visits_per_second: 8.0,
            seconds: 6,
            strength_percent: 100,
            memory_mib_max: 100,
            patients: 40,
        };
        let mut evidence = Evidence { verifies: true, ..Evidence::default() };
        change(&mut setting, &mut evidence);
        Findings::judged(setting, vec![row], evidence, 90 * 1024, Vec::new())
    }

    #[test]
    fn every_miss_fails_the_run() {
        let good = judged(row(), |_, _| ());
        assert!(good.misses.is_empty() && good.doubts.is_empty(), "{:?}", good.misses);
        let text = good.markdown();
        assert!(
            text.contains("| pings") && text.contains("7 x frames") && text.contains("8 x closed"),
            "{text}"
        );
        assert!(good.page().contains("Everybody who behaved was answered"));
        let under = |change: fn(&mut Side)| {
            let mut row = row();
            change(&mut row.under);
            judged(row, |_, _| ())
        };
        let cases = [
            (
                under(|side| side.errors = [("answered with 503".to_owned(), 2)].into()),
                "under pings: 2 x answered with 503",
            ),
            (under(|side| side.unsent = 3), "3 requests could not be sent"),
            (under(|side| side.answered = 0), "nobody who behaved was answered"),
            (judged(Row { sent: BTreeMap::new(), ..row() }, |_, _| ()), "pings: nothing was sent"),
            (judged(row(), |_, evidence| evidence.verifies = false), "the trail does not match"),
            (judged(row(), |_, evidence| evidence.unproven = 1), "the trail does not match"),
            (judged(row(), |setting, _| setting.memory_mib_max = 80), "90 MiB resident, of at most 80"),
        ];
        for (findings, expected) in cases {
            assert!(
                findings.misses.iter().any(|miss| miss.contains(expected)),
                "{expected}: {:?}",
                findings.misses
            );
            assert!(findings.markdown().contains("THE RUN FAILS"), "{expected}");
        }
        assert!(
            judged(row(), |setting, _| setting.machine.optimised = false).doubts[0].contains("--release")
        );
    }
}
