//! Would a stronger or fresher login permit what is refused, and what must it be like at least (RFC 9470)?
//!
//! Owns: asking the policies again with a login that did not happen, and finding the least of it that does. Only what
//! is decided without a record is asked about, so that a challenge tells nothing of any (T-163). Must never: make a
//! permit anyone can use, or promise what another login might not bring: only how long ago it was and whether it
//! resisted phishing are supposed, never which methods were used.
//! Look next: `admit`, which is asked; `gateway::visit`, which challenges.

use super::admit::admit_as;
use super::denial::Denial;
use super::masks::Masks;
use super::permit::Permit;
use super::set::PolicySet;
use super::situation::{Circumstances, Situation};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ElementPath;
use crate::domain::identity::Caller;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a login must be like; at least one of the two is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// It may be no older than this, in seconds.
    pub max_age_seconds: Option<i64>,
    /// It must resist phishing.
    pub phishing_resistant: bool,
}

/// What is lacking.
#[derive(Clone, Copy, Debug)]
pub enum Lacking<'l> {
    /// The question was not admitted.
    Admission,
    /// It was, and these elements may not be seen in any record.
    Seen(&'l [ElementPath]),
    /// It was, and these elements may not be written in any record.
    Written(&'l [ElementPath]),
}

/// The least login that would do; nothing when no login helps, or when none can be promised to.
#[must_use]
pub fn step_up(
    policies: &Arc<PolicySet>,
    masks: &Masks,
    caller: &Caller,
    question: &Interaction,
    circumstances: &Circumstances,
    lacking: Lacking<'_>,
) -> Option<Challenge> {
    let situation = Situation::new(caller, circumstances).ok()?;
    let ask = |situation: Situation| admit_as(policies, masks, situation, question, circumstances);
    least(policies, &situation, |age_seconds, phishing_resistant| {
        let supposed = Situation { age_seconds, phishing_resistant, ..situation.clone() };
        lacking.is_there(&ask(supposed))
    })
}

impl Lacking<'_> {
    fn is_there(self, outcome: &Result<Permit, Denial>) -> bool {
        let Ok(permit) = outcome else { return false };
        let all = |mask: &Mask, paths: &[ElementPath]| paths.iter().all(|path| mask.covers(path));
        match self {
            Self::Admission => true,
            Self::Seen(paths) => all(permit.type_mask(), paths),
            Self::Written(paths) => all(permit.may_modify(), paths),
        }
    }
}

/// The least change of a login for which `permits` holds, and goes on to hold for every later login. `permits` takes
/// the age in seconds and whether the login resists phishing.
pub(super) fn least(
    policies: &PolicySet,
    situation: &Situation,
    permits: impl Fn(i64, bool) -> bool,
) -> Option<Challenge> {
    let uses = policies.uses(&situation.who.roles);
    let may_resist = uses.resistance && !situation.phishing_resistant;
    // A policy that counts with the age in other ways than by comparing it cannot be foreseen.
    if uses.age_itself {
        return None;
    }
    let ages = ages(&uses.age_limits, situation.age_seconds);
    let oldest = |resists: bool| ages.iter().copied().take_while(|age| permits(*age, resists)).last();
    let all = |age: i64| age == situation.age_seconds;
    let fresher = |age| Challenge { max_age_seconds: Some(age), phishing_resistant: false };
    let (unchanged, aged) = (situation.phishing_resistant, ages.len() > 1);
    if aged && let Some(age) = oldest(unchanged).filter(|age| !all(*age)) {
        return Some(fresher(age));
    }
    let age = oldest(true).filter(|_| may_resist)?;
    Some(Challenge { max_age_seconds: Some(age).filter(|age| !all(*age)), phishing_resistant: true })
}

/// The ages at which a decision can change, up to the present one: between two neighbours it stays as it is.
fn ages(limits: &BTreeSet<i64>, now: i64) -> BTreeSet<i64> {
    let around = limits.iter().flat_map(|limit| [limit.saturating_sub(1), *limit, limit.saturating_add(1)]);
    let crossed: BTreeSet<i64> = around.filter(|age| (0..now).contains(age)).collect();
    // No limit lies between a fresh login and this one: a fresh one is decided in the same way.
    if crossed.is_empty() { BTreeSet::from([now]) } else { crossed.into_iter().chain([0, now]).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;
    use proptest::prelude::*;

    fn set(condition: &str) -> PolicySet {
        let text = format!(
            "permit (principal in Role::\"r\", action == Action::\"read\", resource) when {{ {condition} }};"
        );
        PolicySet::load(&[Source { name: "p.cedar".into(), text }], None, None).unwrap()
    }

    /// What the condition says, in Rust.
    type Rule = fn(i64, bool) -> bool;

    #[track_caller]
    fn check(
        condition: &str,
        rule: Rule,
        (age, resists): (i64, bool),
        expected: Option<(Option<i64>, bool)>,
    ) {
        let mut situation = Situation::rehearsal(&["r"], "TREAT").with_age_seconds(age);
        situation.phishing_resistant = resists;
        let found = least(&set(condition), &situation, rule);
        let found = found.map(|challenge| (challenge.max_age_seconds, challenge.phishing_resistant));
        assert_eq!(found, expected, "{condition} at {age}, {resists}");
    }

    #[test]
    fn the_least_that_does_is_asked_for() {
        let fresh = "context.mfa.age < 300";
        check(fresh, |age, _| age < 300, (900, false), Some((Some(299), false)));
        check(fresh, |age, _| age < 300, (300, true), Some((Some(299), false)));
        check("context.mfa.age <= 300", |age, _| age <= 300, (301, false), Some((Some(300), false)));
        check("!(context.mfa.age > 300)", |age, _| age <= 300, (900, false), Some((Some(300), false)));
        let strong = "context.mfa.phishingResistant";
        check(strong, |_, resists| resists, (900, false), Some((None, true)));
        let both = "context.mfa.age < 300 && context.mfa.phishingResistant";
        check(both, |age, resists| age < 300 && resists, (900, false), Some((Some(299), true)));
        check(both, |age, resists| age < 300 && resists, (10, false), Some((None, true)));
        check(both, |age, resists| age < 300 && resists, (900, true), Some((Some(299), false)));
        let either = "context.mfa.age < 300 || context.mfa.phishingResistant";
        check(either, |age, resists| age < 300 || resists, (900, false), Some((Some(299), false)));
    }

    #[test]
    fn no_login_helps() {
        check("context.purpose == \"X\"", |_, _| false, (900, false), None);
        check("context.mfa.age < 300 && context.purpose == \"X\"", |_, _| false, (900, false), None);
        check("context.mfa.age < 300", |_, _| false, (900, false), None);
        check("context.mfa.phishingResistant", |_, _| false, (900, false), None);
        check("context.mfa.age > 300", |age, _| age > 300, (100, false), None);
        // Nobody can tell what another age would give.
        check("context.mfa.age * 2 < 300", |age, _| age * 2 < 300, (900, false), None);
    }

    #[test]
    fn a_login_that_is_too_fresh_for_a_policy_is_not_promised() {
        let window = "context.mfa.age > 100 && context.mfa.age < 300";
        check(window, |age, _| age > 100 && age < 300, (900, false), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whoever does what the challenge asks for is let in, however they do it; nobody is asked for more than it takes.
        #[test]
        fn who_obeys_is_let_in(
            limits in prop::collection::btree_set(0..40_i64, 0..4),
            truth in prop::collection::vec(any::<bool>(), 64),
            now in 0..60_i64,
            resists in any::<bool>(),
            asks_resistance in any::<bool>(),
        ) {
            let conditions: Vec<String> =
                limits.iter().map(|limit| format!("context.mfa.age == {limit}")).collect();
            let mut condition = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" || ") };
            if asks_resistance {
                condition.push_str(" || context.mfa.phishingResistant");
            }
            let policies = set(&condition);
            // Any rule that looks at nothing but these comparisons.
            let cell = |age: i64| limits.iter().map(|l| (age >= *l) as usize + (age > *l) as usize).sum::<usize>();
            let rule = |age: i64, resistant: bool| truth[cell(age) * 2 + usize::from(asks_resistance && resistant)];
            prop_assume!(!rule(now, resists));
            let mut situation = Situation::rehearsal(&["r"], "TREAT").with_age_seconds(now);
            situation.phishing_resistant = resists;
            match least(&policies, &situation, rule) {
                Some(challenge) => {
                    prop_assert!(challenge.max_age_seconds.is_some() || challenge.phishing_resistant);
                    let resists = resists || challenge.phishing_resistant;
                    for age in 0..=challenge.max_age_seconds.unwrap_or(now) {
                        prop_assert!(rule(age, resists), "{challenge:?} at {age}");
                    }
                }
                // Not even a login of this very moment, as strong as may be, would do.
                None => prop_assert!(!rule(0, resists) && !rule(0, true)),
            }
        }
    }
}
