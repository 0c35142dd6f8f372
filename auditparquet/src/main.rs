//! The audit trail as Parquet, partitioned by day as Hive does it, for DuckDB and the like.
//!
//! Owns: the command. A program of its own, so that the gate does not carry the library.
//! Must never: write to the trail, or over what is there.
//! Look next: `partition`, which writes; `chartgate::cli::audit::export`, the rows.

mod partition;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use chartgate::cli::audit::{Filter, export, parse_time};
use chartgate::edge::readings::{self, Reading};
use chartgate::{app, clock, config};
use clap::Parser;
use jiff::Timestamp;

use partition::Partitions;

/// Writes the trail's records as Parquet: a row for each FHIR record released or written. They hold patient data in clear.
#[derive(Debug, Parser)]
#[command(name = "chartgate-auditparquet", version)]
struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The directory to write into; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// From this time or date on
    #[arg(long, value_parser = parse_time)]
    from: Option<Timestamp>,
    /// Before this time or date
    #[arg(long, value_parser = parse_time)]
    to: Option<Timestamp>,
    /// A patient's logical id
    #[arg(long)]
    patient: Option<String>,
    /// Who reads, for the record
    #[arg(long = "as", value_name = "NAME")]
    operator: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn complain(why: &str) {
    let _nowhere_else_to_say_it =
        writeln!(std::io::stderr(), "chartgate-auditparquet: {}", why.escape_default());
}

/// Answers whether every entry could be read.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let problems = |problems: Vec<config::Problem>| {
        problems.first().map_or_else(|| "the configuration cannot be read".to_owned(), ToString::to_string)
    };
    let settings = config::load(&arguments.config).map_err(problems)?;
    let trail = app::journal_settings(&settings);
    if fs::read_dir(&arguments.out).is_ok_and(|mut there| there.next().is_some()) {
        return Err(format!("`{}` is not empty", arguments.out.display()));
    }
    let asked = [
        ("patient", arguments.patient.clone()),
        ("since", arguments.from.map(|time| time.to_string())),
        ("until", arguments.to.map(|time| time.to_string())),
    ];
    let asked: BTreeMap<String, String> =
        asked.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let reading = Reading::new("export parquet", arguments.operator.as_deref(), asked, clock::now());
    if let Err(why) = readings::leave(&trail, &reading) {
        complain(&format!("note: this reading of the trail is not recorded: {why}"));
    }
    let filter = Filter {
        patient: arguments.patient.clone(),
        since: arguments.from,
        until: arguments.to,
        ..Filter::default()
    };
    let mut partitions = Partitions::new(&arguments.out);
    let faults =
        export::rows(&trail, Some(&settings.audit.index), &filter, &mut |row| partitions.write(row))?;
    let rows = partitions.finish().map_err(|error| error.to_string())?;
    faults.iter().for_each(|fault| complain(&fault.to_string()));
    let _closed_pipe = writeln!(std::io::stdout(), "wrote {rows} rows");
    Ok(faults.is_empty())
}
