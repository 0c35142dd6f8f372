//! The guided tour: six people open the same chart, some try what they may not, and the trail is verified.
//!
//! Owns: what is asked and how the answers are shown. Must never: claim what it did not observe: every cell of
//! its tables comes from an answer of the gate, and the tour fails when one is not as promised.
//! Look next: `stage`.

use super::client::Client;
use super::stage::Stage;
use crate::cli::{Ending, audit, show};
use crate::domain::fhir::r4::{self, ResourceType};
use crate::edge::journal::Request;
use crate::{app, config};
use bytes::Bytes;
use chartgate_sandbox::issuer::{Persona, login};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use http::{Response, StatusCode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The patient whose chart everybody opens.
const PATIENT: &str = "p1";

/// Types of the chart that are counted for everyone.
const TYPES: [&str; 9] = [
    "AllergyIntolerance",
    "Appointment",
    "Condition",
    "Coverage",
    "Claim",
    "DocumentReference",
    "Encounter",
    "MedicationRequest",
    "Observation",
];

/// A request that must be refused: who, what they try, the path, and the status it must have.
struct Attempt {
    persona: &'static str,
    what: &'static str,
    path: &'static str,
    status: u16,
}

const ATTEMPTS: [Attempt; 7] = [
    Attempt { persona: "front-desk", what: "reads a diagnosis", path: "Condition?patient=p1", status: 403 },
    Attempt {
        persona: "nurse",
        what: "searches by an identifier withheld from nurses",
        path: "Patient?identifier=123",
        status: 403,
    },
    Attempt {
        persona: "researcher",
        what: "spells out a name letter by letter",
        path: "Patient?name=T",
        status: 403,
    },
    Attempt {
        persona: "billing-clerk",
        what: "looks somebody up by telephone number",
        path: "Patient?phone=5550100",
        status: 403,
    },
    Attempt { persona: "patient", what: "opens somebody else's record", path: "Patient/p2", status: 404 },
    Attempt {
        persona: "nurse",
        what: "opens a record that does not exist",
        path: "Patient/nobody",
        status: 404,
    },
    Attempt { persona: "physician", what: "tries a path trick", path: "Patient/p1/..%2Fp2", status: 400 },
];

struct Guest {
    name: &'static str,
    token: String,
}

struct Walk<'s> {
    stage: &'s Stage,
    client: Client,
    guests: Vec<Guest>,
    failures: Vec<String>,
}

pub(super) async fn walk(stage: &Stage) -> Result<Ending, String> {
    let client = Client::new(&stage.ca_file())?;
    let mut walk = Walk { stage, client, guests: sign_in(stage).await?, failures: Vec::new() };
    walk.same_patient().await?;
    walk.same_chart().await?;
    walk.refusals().await?;
    walk.trail()?;
    for failure in &walk.failures {
        show::error(failure);
    }
    Ok(if walk.failures.is_empty() { Ending::Good } else { Ending::No })
}

/// Everyone signs in as an application would have them do it: password, one-time code, code flow with PKCE.
async fn sign_in(stage: &Stage) -> Result<Vec<Guest>, String> {
    let mut guests = Vec::new();
    for persona in stage.issuer().personas() {
        let code = persona.code();
        let tokens = login(stage.issuer().url(), persona, persona.password, Some(&code)).await;
        guests.push(Guest { name: persona.name, token: tokens.map_err(|error| error.to_string())?.access });
    }
    Ok(guests)
}

impl Walk<'_> {
    async fn get(&self, token: Option<&str>, path: &str) -> Result<Response<Bytes>, String> {
        self.client.get(&format!("{}/{path}", self.stage.base_url()), token).await
    }

    fn token(&self, name: &str) -> Option<&str> {
        self.guests.iter().find(|guest| guest.name == name).map(|guest| guest.token.as_str())
    }

    /// Who sees which elements of one Patient.
    async fn same_patient(&mut self) -> Result<(), String> {
        let path = format!("Patient/{PATIENT}");
        let whole: Value = match self.stage.emr().read("Patient", PATIENT) {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string())?,
            None => return Err("the sandbox has lost its patient".to_owned()),
        };
        let mut views = Vec::new();
        for guest in &self.guests {
            let answer = self.get(Some(&guest.token), &path).await?;
            views.push(serde_json::from_slice::<Value>(answer.body()).unwrap_or_default());
        }
        show::line(&format!("\nThe same patient, {path}, through six pairs of eyes\n"));
        let mut table = self.table("element");
        let Some(patient) = ResourceType::from_name("Patient") else { return Err("no tables".to_owned()) };
        for element in r4::elements(r4::root(patient)) {
            let Some(all) = element_of(patient, &whole, element.name) else { continue };
            let cells =
                views.iter().map(|view| compare(&all, element_of(patient, view, element.name).as_ref()));
            table.add_row(std::iter::once(element.name).chain(cells));
        }
        show::line(&align(table).to_string());
        show::line("all: as the EMR has it · part: some of it · -: withheld");
        let distinct: BTreeSet<String> = views.iter().map(Value::to_string).collect();
        self.expect(distinct.len() == views.len(), "six people did not get six different views");
        Ok(())
    }

    /// How many records of each type each person is shown.
    async fn same_chart(&mut self) -> Result<(), String> {
        show::line(&format!("\nRecords of the chart of {PATIENT} that each is shown\n"));
        let mut table = self.table("type");
        for name in TYPES {
            let mut cells = vec![name.to_owned()];
            for guest in &self.guests {
                let answer =
                    self.get(Some(&guest.token), &format!("{name}?patient={PATIENT}&_count=100")).await?;
                cells.push(count(&answer));
            }
            table.add_row(cells);
        }
        show::line(&align(table).to_string());
        show::line("-: refused before the EMR was asked");
        Ok(())
    }

    /// What is refused, and what is said.
    async fn refusals(&mut self) -> Result<(), String> {
        show::line("\nWhat is refused\n");
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["who", "tries", "request", "answer", "why"]);
        for attempt in &ATTEMPTS {
            let answer = self.get(self.token(attempt.persona), attempt.path).await?;
            self.row(&mut table, attempt.persona, attempt.what, attempt.path, attempt.status, &answer);
        }
        let path = format!("Patient/{PATIENT}");
        let nobody = self.get(None, &path).await?;
        self.row(&mut table, "nobody", "comes without a token", &path, 401, &nobody);
        let nurse = self.stage.issuer().persona("nurse").ok_or("there is no nurse")?;
        let weak = self.password_only(nurse).await?;
        let answer = self.get(Some(&weak), &path).await?;
        self.row(&mut table, "nurse", "signed in by password alone", &path, 401, &answer);
        show::line(&table.to_string());
        Ok(())
    }

    async fn password_only(&self, persona: &Persona) -> Result<String, String> {
        let tokens = login(self.stage.issuer().url(), persona, persona.password, None).await;
        tokens.map(|tokens| tokens.access).map_err(|error| error.to_string())
    }

    fn row(
        &mut self,
        table: &mut Table,
        who: &str,
        what: &str,
        path: &str,
        status: u16,
        answer: &Response<Bytes>,
    ) {
        let code = refusal_code(answer.body());
        table.add_row([who, what, path, answer.status().as_str(), &code]);
        let promised = answer.status().as_u16() == status;
        self.expect(promised, &format!("{who} {what}: {} instead of {status}", answer.status()));
    }

    /// The trail of the tour: verified, and summed up.
    fn trail(&mut self) -> Result<(), String> {
        let settings = config::load(&self.stage.config_file()).map_err(|problems| format!("{problems:?}"))?;
        let settings = app::journal_settings(&settings);
        show::line("\nThe trail of this tour\n");
        let (mut found, mut complaint) = (Vec::new(), Vec::new());
        audit::search(&settings, &audit::Filter::default(), true, &mut found, &mut complaint);
        let lines = String::from_utf8_lossy(&found);
        let records: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        show::line(&align(self.trail_table(&records)).to_string());
        let (mut verdict, mut complaint) = (Vec::new(), Vec::new());
        let code = audit::verify(
            &settings,
            Request { decode: true, ..Request::default() },
            false,
            &mut verdict,
            &mut complaint,
        );
        show::line(String::from_utf8_lossy(&verdict).trim_end());
        self.expect(code == audit::GOOD, "the trail does not verify");
        Ok(())
    }

    fn trail_table(&mut self, records: &[Value]) -> Table {
        let mut people: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for record in records {
            let decision = record.get("decision").and_then(Value::as_str);
            let Some(decision) = decision else { continue };
            let row = people
                .entry(record.get("subject").and_then(Value::as_str).unwrap_or("(nobody)"))
                .or_default();
            let released = record.get("released").and_then(Value::as_array).map_or(0, Vec::len);
            let [asked, permitted, refused, seen] = row;
            *asked += 1;
            *seen += released;
            *(if decision == "permit" { permitted } else { refused }) += 1;
        }
        let asked: usize = people.values().map(|[asked, ..]| asked).sum();
        let made = self.guests.len() * (1 + TYPES.len()) + ATTEMPTS.len() + 2;
        self.expect(asked == made, &format!("{made} requests were made and {asked} recorded"));
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["who", "requests", "permitted", "refused", "records released"]);
        for (who, numbers) in people {
            table.add_row(std::iter::once(who.to_owned()).chain(numbers.map(|number| number.to_string())));
        }
        table
    }

    fn table(&self, first: &str) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(std::iter::once(first).chain(self.guests.iter().map(|guest| guest.name)));
        table
    }

    fn expect(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.failures.push(otherwise.to_owned());
        }
    }
}

/// Every column but the first to the middle.
fn align(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Center);
    }
    table
}

/// The members of a record that carry one element: a choice under its type's key, a primitive with its twin.
fn element_of(resource: ResourceType, record: &Value, name: &str) -> Option<Vec<Value>> {
    let carries = |key: &str| r4::property(r4::root(resource), key).is_some_and(|p| p.element.name == name);
    let members = record.as_object()?.iter().filter(|(key, _)| carries(key));
    let values: Vec<Value> = members.map(|(_, value)| value.clone()).collect();
    (!values.is_empty()).then_some(values)
}

fn compare(whole: &Vec<Value>, seen: Option<&Vec<Value>>) -> &'static str {
    match seen {
        None => "-",
        Some(seen) if seen == whole => "all",
        Some(_) => "part",
    }
}

/// How many matches a searchset holds; `-` when there is none.
fn count(answer: &Response<Bytes>) -> String {
    if answer.status() != StatusCode::OK {
        return "-".to_owned();
    }
    let bundle: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    bundle.get("entry").and_then(Value::as_array).map_or(0, Vec::len).to_string()
}

fn refusal_code(body: &[u8]) -> String {
    let outcome: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = outcome.pointer("/issue/0/details/coding/0/code").and_then(Value::as_str);
    code.unwrap_or("").to_owned()
}
