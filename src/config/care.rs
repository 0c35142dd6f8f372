//! `[relations]` and `[emergency]`: who stands how to a patient, and emergency access.
//!
//! Owns: the meaning of these keys, their defaults and bounds. Must never: switch a policy on; policies decide whether a
//! relation or an emergency counts for anything.
//! Look next: `gateway::relations`, `gateway::emergency`.

use super::raw;
use super::section::Located;
use super::settings::Meaning;
use crate::domain::access::Relation;
use crate::domain::audit::Keep;
use crate::limits;
use std::collections::BTreeSet;
use std::time::Duration;

/// `[relations]`.
#[derive(Debug, Clone)]
pub struct Relations {
    /// Relations that the EMR is asked about; all there are unless named. `consent` stands for both that come of it.
    pub lookups: BTreeSet<Relation>,
    /// How long a relation that was found counts.
    pub max_age: Duration,
    /// How long one that was not found counts as absent.
    pub absent_max_age: Duration,
    /// A finished encounter counts for this long after its end; a planned one as long before its start.
    pub encounter_window: Duration,
    /// An appointment counts this long before its start and after its end.
    pub appointment_window: Duration,
}

/// `[emergency]`.
#[derive(Debug, Clone)]
pub struct Emergency {
    /// The second factor must have been proven within this time.
    pub fresh: Duration,
    /// How long a grant lasts unless the caller asks for less or more.
    pub duration: Duration,
    /// The longest a caller may ask for.
    pub max_duration: Duration,
    /// Grants a person may begin within an hour.
    pub per_hour: u32,
    /// Roles that may review; anybody else who is known if empty.
    pub reviewers: BTreeSet<String>,
}

impl Meaning<'_, '_> {
    pub(super) fn relations(&mut self, raw: raw::Relations) -> Option<Relations> {
        let lookups = match raw.lookups {
            None => Relation::ALL.into_iter().filter_map(Relation::lookup).collect(),
            Some(names) => names.value.into_iter().filter_map(|name| self.relation(&name)).collect(),
        };
        let max = limits::RELATION_AGE_MAX;
        let max_age = self.duration(raw.max_age, "relations.max_age", limits::RELATION_AGE_DEFAULT, max);
        let absent_max_age = self.duration(
            raw.absent_max_age,
            "relations.absent_max_age",
            limits::RELATION_ABSENT_AGE_DEFAULT,
            max,
        );
        let encounter_window = self.duration(
            raw.encounter_window,
            "relations.encounter_window",
            limits::RELATION_ENCOUNTER_WINDOW_DEFAULT,
            limits::RELATION_WINDOW_MAX,
        );
        let appointment_window = self.duration(
            raw.appointment_window,
            "relations.appointment_window",
            limits::RELATION_APPOINTMENT_WINDOW_DEFAULT,
            limits::RELATION_WINDOW_MAX,
        );
        Some(Relations {
            lookups,
            max_age: max_age?,
            absent_max_age: absent_max_age?,
            encounter_window: encounter_window?,
            appointment_window: appointment_window?,
        })
    }

    fn relation(&mut self, name: &Located<String>) -> Option<Relation> {
        let is_lookup = |relation: &Relation| relation.lookup() == Some(*relation);
        let relation = Relation::from_name(&name.value).filter(is_lookup);
        if relation.is_none() {
            let known: Vec<&str> = Relation::ALL.into_iter().filter(is_lookup).map(Relation::name).collect();
            self.reader.report(name.offset, format!("`relations.lookups` may hold {}", known.join(", ")));
        }
        relation
    }

    pub(super) fn emergency(&mut self, raw: raw::Emergency) -> Option<Emergency> {
        let offset = raw.duration.as_ref().map_or(0, |text| text.offset);
        let fresh = self.duration(
            raw.fresh,
            "emergency.fresh",
            limits::EMERGENCY_FRESH_DEFAULT,
            limits::EMERGENCY_FRESH_MAX,
        );
        let bound = limits::EMERGENCY_MAX;
        let duration = self.duration(raw.duration, "emergency.duration", limits::EMERGENCY_DEFAULT, bound);
        let max_duration = self.duration(raw.max_duration, "emergency.max_duration", bound, bound);
        let per_hour = self.per_hour(raw.per_hour);
        let (duration, max_duration) = (duration?, max_duration?);
        if duration > max_duration {
            let message = "`emergency.duration` must not be longer than `emergency.max_duration`";
            self.reader.report(offset, message.to_owned());
        }
        let reviewers = raw.reviewers.map(|roles| roles.value).unwrap_or_default();
        Some(Emergency {
            fresh: fresh?,
            duration,
            max_duration,
            per_hour: per_hour?,
            reviewers: reviewers.into_iter().map(|role| role.value).collect(),
        })
    }

    /// `audit.reserve_kib` in bytes; within its bounds.
    pub(super) fn reserve(&mut self, number: Option<Located<u64>>) -> Option<Option<u64>> {
        let Some(number) = number else { return Some(None) };
        let bounds = limits::RESERVE_BYTES_MIN..=limits::RESERVE_BYTES_MAX;
        let bytes = number.value.checked_mul(1024).filter(|bytes| bounds.contains(bytes));
        if bytes.is_none() {
            let (least, most) = (bounds.start() / 1024, bounds.end() / 1024);
            self.reader.report(number.offset, format!("`audit.reserve_kib` must be {least} to {most}"));
        }
        bytes.map(Some)
    }

    /// `[audit.retention]`: the written policy, without which nothing is withheld (L-101).
    pub(super) fn retention(&mut self, raw: raw::Retention) -> Option<Option<Keep>> {
        if !raw.present {
            return Some(None);
        }
        let Some(text) = raw.keep else {
            self.reader.report(raw.offset, "`audit.retention.keep` is missing".to_owned());
            return None;
        };
        let Some(keep) = Keep::parse(&text.value) else {
            let (least, most) = (limits::RETENTION_DAYS_MIN, limits::RETENTION_YEARS_MAX);
            let message =
                format!("`audit.retention.keep` must be like `6y` or `2200d`, from {least}d to {most}y");
            self.reader.report(text.offset, message);
            return None;
        };
        if keep.is_short() && !raw.shorter {
            let message = "`audit.retention.keep` is less than the six years of 45 CFR 164.316(b)(2)(i)";
            let hint = "where the hospital's own rule is shorter, add `own_rule_is_shorter = true`";
            self.reader.report_with_hint(text.offset, message.to_owned(), hint.to_owned());
            return None;
        }
        Some(Some(keep))
    }

    fn per_hour(&mut self, number: Option<Located<u64>>) -> Option<u32> {
        let Some(number) = number else { return Some(limits::EMERGENCY_PER_HOUR_DEFAULT) };
        let most = limits::EMERGENCY_PER_HOUR_MAX;
        let found = u32::try_from(number.value).ok().filter(|value| (1..=most).contains(value));
        if found.is_none() {
            self.reader.report(number.offset, format!("`emergency.per_hour` must be 1 to {most}"));
        }
        found
    }
}
