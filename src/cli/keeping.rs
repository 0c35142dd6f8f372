//! The arguments of `chartgate audit retain` and `chartgate audit hold`.
//!
//! Owns: what can be asked. Must never: read or write the trail itself.
//! Look next: `audit::keep`, which does.

use super::{Plain, audit};
use crate::config;
use crate::domain::audit::Hold;
use crate::edge::journal;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::io::Write;

/// `audit retain --config F [--dry-run] [--as NAME] [--json]`
#[derive(Debug, Args)]
pub(super) struct Retain {
    #[command(flatten)]
    pub(super) plain: Plain,
    /// Say what would be withheld, and withhold nothing
    #[arg(long)]
    dry_run: bool,
    /// Who orders it, for the record
    #[arg(long = "as", value_name = "NAME", default_value = "")]
    operator: String,
}

/// `audit hold add|lift|list`
#[derive(Debug, Subcommand)]
pub(super) enum HoldOrder {
    /// From now on what this is about stays, whatever the policy; with no filter, everything
    Add(Add),
    /// A hold is over
    Lift(Lift),
    /// Every hold there was, and how it stands
    List(Plain),
}

/// `audit hold add --config F --reason TEXT [filters]`
#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    plain: Plain,
    /// Why: a case number, a letter
    #[arg(long)]
    reason: String,
    /// A patient's logical id
    #[arg(long)]
    patient: Option<String>,
    /// A person's subject
    #[arg(long, visible_alias = "subject")]
    person: Option<String>,
    /// The issuer that vouched for the person
    #[arg(long, requires = "person")]
    issuer: Option<String>,
    /// Records from this time or date on
    #[arg(long, visible_alias = "since", value_parser = audit::parse_time)]
    from: Option<Timestamp>,
    /// Records before this time or date
    #[arg(long, visible_alias = "until", value_parser = audit::parse_time)]
    to: Option<Timestamp>,
    /// Who orders it, for the record
    #[arg(long = "as", value_name = "NAME", default_value = "")]
    operator: String,
}

/// `audit hold lift ID --config F --reason TEXT`
#[derive(Debug, Args)]
pub(super) struct Lift {
    /// The hold, as `hold list` prints it
    id: String,
    #[command(flatten)]
    plain: Plain,
    /// Why
    #[arg(long)]
    reason: String,
    /// Who orders it, for the record
    #[arg(long = "as", value_name = "NAME", default_value = "")]
    operator: String,
}

impl HoldOrder {
    pub(super) fn plain(&self) -> &Plain {
        match self {
            Self::Add(add) => &add.plain,
            Self::Lift(lift) => &lift.plain,
            Self::List(plain) => plain,
        }
    }

    pub(super) fn run(&self, trail: &journal::Settings, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        match self {
            Self::Add(add) => match add.hold() {
                Some(hold) => audit::hold_add(trail, &hold, add.plain.json, out, err),
                None => audit::PROBLEM,
            },
            Self::Lift(lift) => {
                let order = (lift.id.as_str(), lift.reason.as_str(), lift.operator.as_str());
                audit::hold_lift(trail, order, lift.plain.json, out, err)
            }
            Self::List(plain) => audit::hold_list(trail, plain.json, out, err),
        }
    }
}

impl Add {
    fn hold(&self) -> Option<Hold> {
        Some(Hold {
            id: journal::hold_id()?,
            reason: self.reason.clone(),
            operator: self.operator.clone(),
            patient: self.patient.clone(),
            subject: self.person.clone(),
            issuer: self.issuer.clone(),
            since: self.from,
            until: self.to,
        })
    }
}

impl Retain {
    pub(super) fn run(
        &self,
        all: &config::Settings,
        trail: &journal::Settings,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> u8 {
        let order = audit::Retention {
            keep: all.audit.retention,
            dry_run: self.dry_run,
            operator: self.operator.clone(),
            as_json: self.plain.json,
        };
        audit::retain(trail, &order, out, err)
    }
}
