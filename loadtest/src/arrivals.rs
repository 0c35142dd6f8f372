//! When visits begin: fixed beforehand, whatever the answers do.
//!
//! Owns: [`Arrivals`], a schedule that is the same for the same seed, and the reading of a [`Rate`].
//! Must never: look at a clock, or at what is measured: that is what makes the loop an open one.
//! Look next: `program`, which says what is asked in a visit; docs/performance.md.

use std::time::Duration;

/// Visits a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(f64);

/// The most that a plan may ask for; far beyond what one machine answers.
const RATE_PER_SECOND_MAX: f64 = 100_000.0;

impl Rate {
    /// One visit a second.
    pub(crate) const ONE: Self = Self(1.0);

    /// `5`, `5/s`, `2.5/s` or `90/min`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (number, seconds) = match text.split_once('/') {
            None | Some((_, "s")) => (text.split('/').next().unwrap_or_default(), 1.0),
            Some((number, "min")) => (number, 60.0),
            Some(_) => return Err(format!("`{text}` is no rate: write `5/s` or `90/min`")),
        };
        let number: f64 = number.trim().parse().map_err(|_| format!("`{text}` is no rate: write `5/s`"))?;
        let rate = number / seconds;
        if rate.is_finite() && rate > 0.0 && rate <= RATE_PER_SECOND_MAX {
            Ok(Self(rate))
        } else {
            Err(format!("a rate must be above 0 and at most {RATE_PER_SECOND_MAX} a second"))
        }
    }

    /// As a number.
    pub(crate) fn per_second(self) -> f64 {
        self.0
    }
}

/// How visits follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Evenly.
    Constant,
    /// As independent people do: exponential gaps.
    Poisson,
}

/// A part of the run with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Its share of the run's time.
    pub(crate) part_percent: u64,
    /// Its rate, of the run's rate.
    pub(crate) rate_percent: u64,
}

/// The times at which visits begin, counted from the run's beginning.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    pace: Pace,
    /// End and rate of each stretch still to come; the first one is under way.
    stretches: Vec<(f64, f64)>,
    now_seconds: f64,
    chance: fastrand::Rng,
}

impl Arrivals {
    /// A schedule of `length`; without stretches the rate is the same throughout.
    pub(crate) fn new(pace: Pace, rate: Rate, length: Duration, stretches: &[Stretch], seed: u64) -> Self {
        let even = [Stretch { part_percent: 100, rate_percent: 100 }];
        let stretches = if stretches.is_empty() { even.as_slice() } else { stretches };
        let mut end = 0.0;
        let timed = stretches.iter().map(|stretch| {
            end += length.as_secs_f64() * share(stretch.part_percent);
            (end, rate.0 * share(stretch.rate_percent))
        });
        // The first is taken from the end.
        let mut stretches: Vec<_> = timed.collect();
        stretches.reverse();
        Self { pace, stretches, now_seconds: 0.0, chance: fastrand::Rng::with_seed(seed) }
    }

    /// How many gaps of mean length lie between this visit and the next.
    fn gap(&mut self) -> f64 {
        match self.pace {
            Pace::Constant => 1.0,
            // In (0, 1]: the logarithm is finite.
            Pace::Poisson => -(1.0 - self.chance.f64()).ln(),
        }
    }
}

fn share(percent: u64) -> f64 {
    f64::from(u32::try_from(percent).unwrap_or(u32::MAX)) / 100.0
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let mut gap = self.gap();
        // A gap reaches over stretches; in each it is used up at that one's rate.
        while let Some((end, rate)) = self.stretches.last().copied() {
            let room = (end - self.now_seconds) * rate;
            if gap < room {
                self.now_seconds += gap / rate;
                return Duration::try_from_secs_f64(self.now_seconds).ok();
            }
            gap -= room;
            self.now_seconds = end;
            self.stretches.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pace: Pace, stretches: &[Stretch], seed: u64) -> Vec<Duration> {
        Arrivals::new(pace, Rate(50.0), Duration::from_secs(200), stretches, seed).collect()
    }

    #[test]
    fn rates_are_read() {
        let cases = [("5", Some(5.0)), ("5/s", Some(5.0)), ("90/min", Some(1.5)), ("0.5/s", Some(0.5))];
        let bad = ["0", "-1", "5/h", "x", "", "1e9", "NaN", "inf"].map(|text| (text, None));
        for (text, expected) in cases.into_iter().chain(bad) {
            assert_eq!(Rate::parse(text).ok().map(Rate::per_second), expected, "{text}");
        }
    }

    #[test]
    fn a_schedule_is_fixed_by_its_seed_and_never_goes_back() {
        for pace in [Pace::Constant, Pace::Poisson] {
            let one = plan(pace, &[], 7);
            assert_eq!(one, plan(pace, &[], 7), "{pace:?}");
            assert!(one.is_sorted() && one.last().unwrap() < &Duration::from_secs(200), "{pace:?}");
        }
        assert_ne!(plan(Pace::Poisson, &[], 7), plan(Pace::Poisson, &[], 8));
    }

    #[test]
    fn the_mean_rate_is_the_one_asked_for() {
        assert_eq!(plan(Pace::Constant, &[], 1).len(), 9_999);
        for seed in 0..20 {
            // Five standard deviations of a Poisson count of 10,000.
            let visits = plan(Pace::Poisson, &[], seed).len();
            assert!((9_500..=10_500).contains(&visits), "{visits}");
        }
    }

    #[test]
    fn gaps_of_a_poisson_process_vary_as_much_as_they_last() {
        let times = plan(Pace::Poisson, &[], 3);
        let gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((spread.sqrt() / mean - 1.0).abs() < 0.05, "{} of {mean}", spread.sqrt());
    }

    #[test]
    fn stretches_have_their_own_rates() {
        let burst = [(20, 100), (10, 500), (70, 50)]
            .map(|(part_percent, rate_percent)| Stretch { part_percent, rate_percent });
        for pace in [Pace::Constant, Pace::Poisson] {
            let times = plan(pace, &burst, 5);
            let between = |from: u64, to: u64| {
                let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
                times.iter().filter(|time| (from..to).contains(*time)).count()
            };
            let counts = [between(0, 40), between(40, 60), between(60, 200)];
            for (count, expected) in counts.into_iter().zip([2_000_usize, 5_000, 3_500]) {
                assert!(count.abs_diff(expected) < expected / 8, "{pace:?} {counts:?}");
            }
        }
    }
}
