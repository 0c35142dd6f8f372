//! What the gate's process uses over time: memory now and then, and whether it grows.
//!
//! Owns: [`Vitals`] and its slope.
//! Must never: take what was used before the watch began for what was used during it.
//! Look next: `process`, which reads `/proc`; `hostile` and `soak`, which judge.

use crate::process::Process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks: short beside an attack, long beside reading `/proc`.
const EVERY: Duration = Duration::from_millis(200);
/// Of a long watch this many looks are kept; then every second one is let go, and they are taken half as often.
const LOOKS_MAX: usize = 20_000;

/// What was seen of a process in a stretch of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vitals {
    /// Seconds since `origin`, and MiB resident.
    pub(crate) resident_mib: Vec<(f64, f64)>,
    /// Processor time used meanwhile.
    pub(crate) cpu_seconds: f64,
    /// How long was watched.
    pub(crate) seconds: f64,
}

/// KiB as MiB.
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl Vitals {
    /// Watches until `done`; times count from `origin`.
    pub(crate) async fn watch(process: &Process, origin: Instant, done: &AtomicBool) -> Self {
        let (began, before) = (Instant::now(), process.usage());
        let mut vitals = Self::default();
        let mut every = EVERY;
        loop {
            let usage = process.usage();
            if usage.resident_kib > 0 {
                vitals.resident_mib.push((origin.elapsed().as_secs_f64(), mib(usage.resident_kib)));
            }
            vitals.cpu_seconds = (usage.cpu_seconds - before.cpu_seconds).max(0.0);
            vitals.seconds = began.elapsed().as_secs_f64();
            if done.load(Ordering::Relaxed) {
                return vitals;
            }
            if vitals.resident_mib.len() >= LOOKS_MAX {
                vitals.thin();
                every *= 2;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// As if `later` had been a part of this watch.
    pub(crate) fn add(&mut self, later: Self) {
        self.resident_mib.extend(later.resident_mib);
        self.cpu_seconds += later.cpu_seconds;
        self.seconds += later.seconds;
        if self.resident_mib.len() >= 2 * LOOKS_MAX {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let mut keep = false;
        self.resident_mib.retain(|_| {
            keep = !keep;
            keep
        });
    }

    /// MiB at the first look.
    pub(crate) fn before(&self) -> f64 {
        self.resident_mib.first().map_or(0.0, |look| look.1)
    }

    /// MiB at the last look.
    pub(crate) fn after(&self) -> f64 {
        self.resident_mib.last().map_or(0.0, |look| look.1)
    }

    /// The most MiB at any look.
    pub(crate) fn peak(&self) -> f64 {
        self.resident_mib.iter().map(|look| look.1).fold(0.0, f64::max)
    }

    /// Processors that were busy, on average.
    pub(crate) fn processors(&self) -> f64 {
        if self.seconds > 0.0 { self.cpu_seconds / self.seconds } else { 0.0 }
    }

    /// MiB a minute, by least squares over the looks after the first third of the time.
    pub(crate) fn slope(&self) -> f64 {
        let (Some(first), Some(last)) = (self.resident_mib.first(), self.resident_mib.last()) else {
            return 0.0;
        };
        let from = first.0 + (last.0 - first.0) / 3.0;
        let looks: Vec<(f64, f64)> =
            self.resident_mib.iter().filter(|look| look.0 >= from).copied().collect();
        let count = looks.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| looks.iter().map(of).sum::<f64>() / count;
        let (seconds, memory) = (mean(|look| look.0), mean(|look| look.1));
        let spread: f64 = looks.iter().map(|look| (look.0 - seconds).powi(2)).sum();
        let together: f64 = looks.iter().map(|look| (look.0 - seconds) * (look.1 - memory)).sum();
        if spread > 0.0 { together / spread * 60.0 } else { 0.0 }
    }

    /// MiB that the slope comes to over the last two thirds of the time.
    pub(crate) fn growth(&self) -> f64 {
        let (Some(first), Some(last)) = (self.resident_mib.first(), self.resident_mib.last()) else {
            return 0.0;
        };
        self.slope() * (last.0 - first.0) * 2.0 / 3.0 / 60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals(memory: impl Fn(f64) -> f64) -> Vitals {
        let looks = (0..=600).map(f64::from).map(|second| (second, memory(second)));
        Vitals { resident_mib: looks.collect(), cpu_seconds: 30.0, seconds: 600.0 }
    }

    #[test]
    fn growth_is_told_from_warming_up() {
        let grows = vitals(|second| 100.0 + second / 60.0 * 3.0);
        assert!((grows.slope() - 3.0).abs() < 1e-6 && (grows.growth() - 20.0).abs() < 1e-6);
        let warms_up = vitals(|second| 100.0 + second.min(200.0));
        assert!(warms_up.slope().abs() < 1e-6, "{}", warms_up.slope());
        assert_eq!((warms_up.before(), warms_up.after(), warms_up.peak()), (100.0, 300.0, 300.0));
        assert!((warms_up.processors() - 0.05).abs() < 1e-9);
        assert_eq!(Vitals::default().slope() + Vitals::default().growth() + Vitals::default().peak(), 0.0);
    }

    #[test]
    fn a_long_watch_keeps_its_ends_apart() {
        let mut whole = vitals(|second| second);
        whole.thin();
        assert_eq!((whole.resident_mib.len(), whole.before(), whole.after()), (301, 0.0, 600.0));
        whole.add(vitals(|_| 7.0));
        assert_eq!((whole.resident_mib.len(), whole.after(), whole.seconds), (902, 7.0, 1200.0));
    }
}
