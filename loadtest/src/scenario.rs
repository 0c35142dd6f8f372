//! A scenario: who comes how often, and what they ask, as a data file.
//!
//! Owns: the file's shape and meaning, and the scenarios that come with the program (`scenarios/*.toml`).
//! Must never: accept a file in doubt: every problem is reported with file, line and hint.
//! Look next: `program`, which turns one into requests at fixed times; docs/performance.md, the keys.

use crate::arrivals::{Pace, Rate, Stretch};
use crate::writes::{HOWS, How, Write};
use chartgate::config::section::{Located, Reader, Section};
use chartgate::config::{Problem, document};
use std::path::Path;
use std::time::Duration;

/// The scenarios of this program: name and text.
pub(crate) const SHIPPED: &[(&str, &str)] = &[
    ("billing-run", include_str!("../scenarios/billing-run.toml")),
    ("emergency-arrivals", include_str!("../scenarios/emergency-arrivals.toml")),
    ("login-storm", include_str!("../scenarios/login-storm.toml")),
    ("mixed-day", include_str!("../scenarios/mixed-day.toml")),
    ("portal-evening", include_str!("../scenarios/portal-evening.toml")),
    ("registry-export", include_str!("../scenarios/registry-export.toml")),
    ("snooper", include_str!("../scenarios/snooper.toml")),
    ("ward-round", include_str!("../scenarios/ward-round.toml")),
];

/// Sessions and connections of a run are held open: about as many as the gate lets in from one address.
pub(crate) const CONNECTIONS_MAX: u64 = 6_000;
/// A token lives for an hour.
pub(crate) const SECONDS_MAX: u64 = 3_000;
const STEPS_MAX: usize = 64;
const VISITS_MAX: usize = 64;
/// A step later than this after the visit's beginning is another visit.
const AFTER_MS_MAX: u64 = 120_000;
/// The longest think time; with it comes the number of people.
const THINK_SECONDS_MAX: u64 = 3_600;

/// What the issuer's people may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Bedside care.
    Nurse,
    /// The clinical record.
    Physician,
    /// Registration.
    FrontDesk,
    /// Claims.
    BillingClerk,
    /// A limited data set.
    Researcher,
    /// Their own chart.
    Patient,
}

const ROLES: [(&str, Role); 6] = [
    ("nurse", Role::Nurse),
    ("physician", Role::Physician),
    ("front-desk", Role::FrontDesk),
    ("billing-clerk", Role::BillingClerk),
    ("researcher", Role::Researcher),
    ("patient", Role::Patient),
];

impl Role {
    /// As the issuer's persona is called.
    pub(crate) fn name(self) -> &'static str {
        ROLES.iter().find(|(_, role)| *role == self).map_or("", |(name, _)| name)
    }
}

/// What kind of token a visit comes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TokenKind {
    /// Signed, two factors.
    Good,
    /// Signed, password only.
    PasswordOnly,
    /// Changed after it was signed.
    Tampered,
    /// Signed, but of yesterday.
    Expired,
}

const TOKENS: [(&str, TokenKind); 4] = [
    ("good", TokenKind::Good),
    ("password-only", TokenKind::PasswordOnly),
    ("tampered", TokenKind::Tampered),
    ("expired", TokenKind::Expired),
];

/// What comes after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Nothing.
    Nothing,
    /// The pages after it, by their links.
    Pages,
    /// The status of the export that it began, then its files.
    Export,
}

const FOLLOWS: [(&str, Follow); 3] =
    [("nothing", Follow::Nothing), ("pages", Follow::Pages), ("export", Follow::Export)];

/// One request of a visit.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Below the base URL, with `{patient}` and `{other}`.
    pub(crate) target: String,
    /// After the visit's beginning, whatever was answered meanwhile.
    pub(crate) after: Duration,
    /// What is written; `None` for a question.
    pub(crate) write: Option<Write>,
    /// The status that it must be answered with.
    pub(crate) status: u16,
    pub(crate) follow: Follow,
}

/// What somebody comes for.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) token: TokenKind,
    pub(crate) weight: u64,
    /// Between two visits of the same person.
    pub(crate) think: Duration,
    /// Each visit is a login: a token and a session that the gate has not seen.
    pub(crate) new_session: bool,
    /// Each visit connects anew.
    pub(crate) new_connection: bool,
    pub(crate) steps: Vec<Step>,
}

/// A scenario, valid.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) pace: Pace,
    pub(crate) rate: Rate,
    pub(crate) seconds: u64,
    pub(crate) warm_up_seconds: u64,
    pub(crate) connections: u64,
    /// The gate is started anew before it is measured, so that it knows nobody.
    pub(crate) cold: bool,
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) visits: Vec<Visit>,
}

impl Step {
    /// The type that is asked for or written; empty where the path begins with an operation.
    fn kind(&self) -> &str {
        self.target.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default()
    }
}

impl Scenario {
    /// Whether the answer to a step may differ from one time to the next, because this scenario writes what it shows.
    pub(crate) fn varies(&self, step: &Step) -> bool {
        let written = |other: &Step| other.kind() == step.kind() || step.target.contains('$');
        let steps = self.visits.iter().flat_map(|visit| &visit.steps);
        step.write.is_some() || steps.filter(|other| other.write.is_some()).any(written)
    }

    /// A shipped scenario by its name, or a file by its path.
    ///
    /// # Errors
    /// Every problem, each in a line.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let lines =
            |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if let Some((name, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return read(name, &format!("{name}.toml"), text).map_err(lines);
        }
        if Path::new(name).extension().is_none_or(|extension| extension != "toml") {
            let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no scenario `{name}` (hint: one of {}, or a file that ends in .toml)",
                known.join(", ")
            ));
        }
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {}", error.kind()))?;
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        read(stem, name, &text).map_err(lines)
    }

    /// How many people of a visit it takes so that each has their think time, at this rate.
    pub(crate) fn people(&self, visit: &Visit, rate: Rate) -> u32 {
        let weights: u64 = self.visits.iter().map(|visit| visit.weight).sum();
        let busiest = self.stretches.iter().map(|stretch| stretch.rate_percent).max().unwrap_or(100);
        let percent = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let visits = rate.per_second() * percent(visit.weight) / percent(weights.max(1)) * percent(busiest)
            / 100.0
            * visit.think.as_secs_f64();
        // Each one a whole second of a duration: the rounding is the library's.
        let people = Duration::try_from_secs_f64(visits.ceil()).map_or(0, |whole| whole.as_secs());
        u32::try_from(people).unwrap_or(u32::MAX).clamp(1, PEOPLE_MAX)
    }
}

/// Tokens are signed beforehand, about a millisecond each.
const PEOPLE_MAX: u32 = 20_000;

/// Reads a scenario; `file` is its name in problems.
///
/// # Errors
/// Every problem found.
pub(crate) fn read(name: &str, file: &str, text: &str) -> Result<Scenario, Vec<Problem>> {
    let document = document(file, text).map_err(|problem| vec![problem])?;
    let mut meaning = Meaning { reader: Reader::new(file, text) };
    let mut root = Section::root(&document);
    let title = meaning.text(&mut root, "title");
    let about = meaning.text(&mut root, "about");
    let mut load = root.table(&mut meaning.reader, "load", true);
    let pace = meaning.one_of(&mut load, "pace", &[("constant", Pace::Constant), ("poisson", Pace::Poisson)]);
    let rate = meaning.rate(&mut load);
    let scenario = Scenario {
        name: name.to_owned(),
        title,
        about,
        pace: pace.unwrap_or(Pace::Poisson),
        rate,
        seconds: meaning.number(&mut load, "seconds", None, 1..=SECONDS_MAX),
        warm_up_seconds: meaning.number(&mut load, "warm_up_seconds", Some(0), 0..=600),
        connections: meaning.number(&mut load, "connections", None, 1..=CONNECTIONS_MAX),
        cold: load.switch(&mut meaning.reader, "cold"),
        stretches: meaning.stretches(&mut root),
        visits: meaning.visits(&mut root),
    };
    load.finish(&mut meaning.reader);
    root.finish(&mut meaning.reader);
    let problems = meaning.reader.problems;
    if problems.is_empty() { Ok(scenario) } else { Err(Problem::sorted(problems)) }
}

struct Meaning<'t> {
    reader: Reader<'t>,
}

impl Meaning<'_> {
    fn text(&mut self, section: &mut Section<'_>, key: &'static str) -> String {
        let Some(found) = section.required_text(&mut self.reader, key) else { return String::new() };
        if found.value.trim().is_empty() || found.value.len() > 500 {
            self.reader.report(found.offset, format!("`{key}` must have between 1 and 500 bytes"));
        }
        found.value
    }

    fn number(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        otherwise: Option<u64>,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let Some(found) = section.number(&mut self.reader, key) else {
            if otherwise.is_none() {
                self.reader.report(section.offset(), format!("`{key}` is missing, or not a whole number"));
            }
            return otherwise.unwrap_or(*range.start());
        };
        if !range.contains(&found.value) {
            let (from, to) = (range.start(), range.end());
            self.reader.report(found.offset, format!("`{key}` must be between {from} and {to}"));
        }
        found.value
    }

    /// `None` when it is not there, or is none of these, which is reported.
    fn one_of<T: Copy>(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let Located { value, offset } = section.text(&mut self.reader, key)?;
        let found = known.iter().find(|(name, _)| *name == value).map(|(_, meant)| *meant);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let hint = format!("one of {}", names.join(", "));
            self.reader.report_with_hint(offset, format!("`{key}` cannot be `{value}`"), hint);
        }
        found
    }

    fn rate(&mut self, load: &mut Section<'_>) -> Rate {
        let found = load.required_text(&mut self.reader, "rate");
        let parsed = found.as_ref().map(|found| Rate::parse(&found.value));
        if let (Some(Err(why)), Some(found)) = (&parsed, &found) {
            let hint = "visits, such as \"5/s\" or \"90/min\"".to_owned();
            self.reader.report_with_hint(found.offset, why.clone(), hint);
        }
        // Not used when there is a problem.
        parsed.and_then(Result::ok).unwrap_or(Rate::ONE)
    }

    fn stretches(&mut self, root: &mut Section<'_>) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut last = root.offset();
        for mut section in root.tables(&mut self.reader, "stretch") {
            last = section.offset();
            stretches.push(Stretch {
                part_percent: self.number(&mut section, "part_percent", None, 1..=100),
                rate_percent: self.number(&mut section, "rate_percent", None, 1..=10_000),
            });
            section.finish(&mut self.reader);
        }
        let parts: u64 = stretches.iter().map(|stretch| stretch.part_percent).sum();
        if !stretches.is_empty() && parts != 100 {
            let hint = "the parts of all stretches must make 100".to_owned();
            self.reader.report_with_hint(last, format!("the stretches make {parts} percent"), hint);
        }
        stretches
    }

    fn visits(&mut self, root: &mut Section<'_>) -> Vec<Visit> {
        let sections = root.tables(&mut self.reader, "visit");
        if sections.is_empty() || sections.len() > VISITS_MAX {
            self.reader.report(root.offset(), format!("there must be 1 to {VISITS_MAX} `[[visit]]`"));
        }
        sections.into_iter().map(|section| self.visit(section)).collect()
    }

    fn visit(&mut self, mut section: Section<'_>) -> Visit {
        let name = self.text(&mut section, "name");
        let role = self.role(&mut section);
        let think = self.number(&mut section, "think_seconds", Some(1), 1..=THINK_SECONDS_MAX);
        let mut visit = Visit {
            name,
            role,
            token: self.one_of(&mut section, "token", &TOKENS).unwrap_or(TokenKind::Good),
            weight: self.number(&mut section, "weight", Some(1), 1..=1_000_000),
            think: Duration::from_secs(think),
            new_session: section.switch(&mut self.reader, "new_session"),
            new_connection: section.switch(&mut self.reader, "new_connection"),
            steps: Vec::new(),
        };
        let sections = section.tables(&mut self.reader, "step");
        if sections.is_empty() || sections.len() > STEPS_MAX {
            self.reader.report(section.offset(), format!("there must be 1 to {STEPS_MAX} `[[visit.step]]`"));
        }
        for section in sections {
            let step = self.step(section, visit.steps.last());
            visit.steps.push(step);
        }
        section.finish(&mut self.reader);
        visit
    }

    fn role(&mut self, section: &mut Section<'_>) -> Role {
        let before = self.reader.problems.len();
        let role = self.one_of(section, "role", &ROLES);
        if role.is_none() && self.reader.problems.len() == before {
            let hint = format!("one of {}", ROLES.map(|(name, _)| name).join(", "));
            self.reader.report_with_hint(section.offset(), "`role` is missing".to_owned(), hint);
        }
        role.unwrap_or(Role::Nurse)
    }

    fn step(&mut self, mut section: Section<'_>, before: Option<&Step>) -> Step {
        let name = self.text(&mut section, "name");
        let (target, write) = self.asked(&mut section);
        let after = self.number(&mut section, "after_ms", Some(0), 0..=AFTER_MS_MAX);
        let after = Duration::from_millis(after);
        if before.is_some_and(|before| before.after > after) {
            let hint = "steps stand in the order in which they are sent".to_owned();
            self.reader.report_with_hint(
                section.offset(),
                "this step is before the last one".to_owned(),
                hint,
            );
        }
        let status = self.number(&mut section, "status", Some(200), 200..=599);
        let follow = self.one_of(&mut section, "follow", &FOLLOWS).unwrap_or(Follow::Nothing);
        section.finish(&mut self.reader);
        Step { name, target, after, write, status: u16::try_from(status).unwrap_or(0), follow }
    }

    /// Where, and what is written there: one of `get`, `post`, `put` and `patch`, the last three with `body`.
    fn asked(&mut self, section: &mut Section<'_>) -> (String, Option<Write>) {
        let written = HOWS.map(|(key, how)| section.text(&mut self.reader, key).map(|target| (target, how)));
        let body = section.text(&mut self.reader, "body");
        let mut written = written.into_iter().flatten();
        let (target, write) = match (written.next(), body) {
            (None, None) => (section.required_text(&mut self.reader, "get"), None),
            (None, Some(body)) => {
                let hint = "one of `post`, `put`, `patch`".to_owned();
                self.reader.report_with_hint(body.offset, "`body` without a write".to_owned(), hint);
                (None, None)
            }
            (Some((target, how)), body) => {
                let body = self.body(section, how, body);
                (Some(target), Some(Write { how, body }))
            }
        };
        let another =
            written.next().is_some() || (write.is_some() && section.text(&mut self.reader, "get").is_some());
        if another {
            self.reader.report(section.offset(), "a step asks or writes once".to_owned());
        }
        if let Some(target) = &target {
            self.check_target(target);
        }
        (target.map(|target| target.value).unwrap_or_default(), write)
    }

    /// A template that is JSON once its words are filled in: an object, or for a patch a list.
    fn body(&mut self, section: &Section<'_>, how: How, body: Option<Located<String>>) -> String {
        let Some(body) = body else {
            self.reader.report(section.offset(), "`body` is missing".to_owned());
            return String::new();
        };
        let json = serde_json::from_str::<serde_json::Value>(&without_words(&body.value));
        if !json.is_ok_and(|json| if how == How::Patch { json.is_array() } else { json.is_object() }) {
            let hint = "a record as JSON; for `patch` a list of changes (RFC 6902)".to_owned();
            self.reader.report_with_hint(body.offset, "`body` is not what is written".to_owned(), hint);
        }
        body.value
    }

    fn check_target(&mut self, target: &Located<String>) {
        let rest = without_words(&target.value);
        let is_path = rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || rest.contains(['{', '}']) {
            let hint = "such as `/Patient/{patient}`; only {patient}, {other} and {number} are filled in";
            let message = "what is asked for must be a path below the base".to_owned();
            self.reader.report_with_hint(target.offset, message, hint.to_owned());
        }
    }
}

/// As it would be for one visit.
fn without_words(template: &str) -> String {
    template.replace("{patient}", "c1").replace("{other}", "c2").replace("{number}", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"title = "t"
about = "a"
[load]
pace = "constant"
rate = "90/min"
seconds = 10
connections = 12
[[stretch]]
part_percent = 40
rate_percent = 100
[[stretch]]
part_percent = 60
rate_percent = 300
[[visit]]
name = "v"
role = "nurse"
think_seconds = 20
[[visit.step]]
name = "s"
get = "/Patient/{patient}"
"#;

    #[test]
    fn every_shipped_scenario_is_good_and_there_are_no_others() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let names: Vec<String> = SHIPPED.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(files, names);
        for (name, _) in SHIPPED {
            let scenario = Scenario::find(name).unwrap();
            assert_eq!(&scenario.name, name);
        }
        assert!(Scenario::find("nothing").unwrap_err().contains("ward-round"));
        assert!(Scenario::find("/nonexistent.toml").is_err());
    }

    #[test]
    fn a_file_says_what_is_asked() {
        let scenario = read("x", "x.toml", GOOD).unwrap();
        assert_eq!((scenario.pace, scenario.rate.per_second()), (Pace::Constant, 1.5));
        assert_eq!((scenario.seconds, scenario.connections, scenario.warm_up_seconds), (10, 12, 0));
        let visit = &scenario.visits[0];
        assert_eq!((visit.role, visit.token, visit.weight), (Role::Nurse, TokenKind::Good, 1));
        assert_eq!((visit.steps[0].target.as_str(), visit.steps[0].status), ("/Patient/{patient}", 200));
        // 1.5 a second, three times that at the busiest, 20 seconds each.
        assert_eq!(scenario.people(visit, scenario.rate), 90);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let cases = [
            ("rate = \"90/min\"", "rate = \"fast\"", 5, "is no rate", "90/min"),
            ("rate = \"90/min\"", "rate = 5", 5, "must be a string", ""),
            ("seconds = 10", "seconds = 0", 6, "between 1 and", ""),
            ("seconds = 10", "second = 10", 6, "unknown key `load.second`", "did you mean `seconds`"),
            ("connections = 12", "connections = 100000", 7, "between 1 and 6000", ""),
            ("pace = \"constant\"", "pace = \"hasty\"", 4, "cannot be `hasty`", "constant, poisson"),
            ("part_percent = 60", "part_percent = 50", 11, "make 90 percent", "must make 100"),
            ("role = \"nurse\"", "role = \"king\"", 16, "cannot be `king`", "front-desk"),
            ("role = \"nurse\"\n", "", 14, "`role` is missing", ""),
            ("get = \"/Patient/{patient}\"", "get = \"Patient\"", 20, "path below the base", "{other}"),
            ("get = \"/Patient/{patient}\"", "get = \"/Patient/{who}\"", 20, "path below the base", ""),
            ("get = \"/Patient/{patient}\"\n", "", 18, "is missing", ""),
            ("get = \"/Patient/{patient}\"", "put = \"/Patient/{patient}\"", 18, "`body` is missing", ""),
            ("get = ", "body = \"{}\"\npost = \"/Patient\"\nget = ", 18, "asks or writes once", ""),
            ("get = ", "body = \"[]\"\nget = ", 20, "`body` without a write", "`post`, `put`, `patch`"),
            (
                "get = \"/Patient/{patient}\"",
                "put = \"/Patient/{patient}\"\nbody = \"[]\"",
                21,
                "not what is written",
                "RFC 6902",
            ),
            (
                "get = \"/Patient/{patient}\"",
                "patch = \"/Patient/{patient}\"\nbody = \"{\"",
                21,
                "not what is written",
                "",
            ),
            ("get = ", "status = 99\nget = ", 20, "between 200 and 599", ""),
            ("title = \"t\"", "title = 5", 1, "must be a string", ""),
            ("[load]", "[load", 3, "", ""),
        ];
        for (from, to, line, message, hint) in cases {
            assert!(GOOD.contains(from), "{from}");
            let problems = read("x", "x.toml", &GOOD.replace(from, to)).unwrap_err();
            let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(
                problems.iter().any(|problem| problem.line == line && problem.message.contains(message)),
                "{to}: {told}"
            );
            assert!(told.contains(hint), "{to}: {told}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let bad = GOOD.replace("seconds = 10", "seconds = 0").replace("\"nurse\"", "\"king\"");
        assert_eq!(read("x", "x.toml", &bad).unwrap_err().len(), 2);
    }
}
