//! Processes that a run starts: ended by their own id, and asked what they cost.
//!
//! Owns: [`Process`], and what `/proc` says about it and its children.
//! Must never: end a process that it did not start.
//! Look next: `site`, which starts them.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Linux gives processor time to user programs in hundredths of a second, whatever the kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;
/// The gate finishes what is under way before it ends.
const END_PATIENCE: Duration = Duration::from_secs(35);

/// A child process; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    /// Another one that works for it: it ends with it, and what it uses counts, too.
    aide: Option<Box<Self>>,
}

/// What a process and its children have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system.
    pub(crate) cpu_seconds: f64,
    /// Memory resident now.
    pub(crate) resident_kib: u64,
    /// The most that was ever resident.
    pub(crate) peak_kib: u64,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { child, name, aide: None })
    }

    /// The same with another one that works for it.
    pub(crate) fn with(mut self, aide: Self) -> Self {
        self.aide = Some(Box::new(aide));
        self
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to read its files again.
    pub(crate) fn hang_up(&self) {
        self.tell(Signal::HUP);
    }

    /// Holds it where it is.
    pub(crate) fn freeze(&self) {
        self.tell(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.tell(Signal::CONT);
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it did not end in time, or not well.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => sleep(Duration::from_millis(10)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{} ended with {status}", self.name)),
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
        Err(format!("{} did not end in {} s", self.name, END_PATIENCE.as_secs()))
    }

    /// What it and its children have used so far; zero where `/proc` does not tell.
    pub(crate) fn usage(&self) -> Usage {
        let own = self.child.id();
        let mut sum = self.aide.as_ref().map_or_else(Usage::default, |aide| aide.usage());
        for pid in children_of(own).into_iter().chain([own]) {
            let folder = Path::new("/proc").join(pid.to_string());
            let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
            sum.cpu_seconds += stat(&folder).map_or(0.0, |stat| stat.cpu_seconds);
            sum.resident_kib += kib(&status, "VmRSS:");
            sum.peak_kib += kib(&status, "VmHWM:");
        }
        sum
    }

    /// Has [`Usage::peak_kib`] count from now on (proc(5), `clear_refs`); `false` where the system does not allow it.
    pub(crate) fn forget_peak(&self) -> bool {
        let own = self.child.id();
        children_of(own)
            .into_iter()
            .chain([own])
            .all(|pid| fs::write(Path::new("/proc").join(pid.to_string()).join("clear_refs"), "5").is_ok())
    }

    /// Only while it is known to run: a process id may be given to another one later.
    fn signal(&mut self, signal: Signal) {
        let Ok(None) = self.child.try_wait() else { return };
        self.tell(signal);
    }

    /// Only while that number is a child of ours: it may be given to another process after it was waited for.
    fn tell(&self, signal: Signal) {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        if stat(&folder).is_none_or(|stat| stat.parent != std::process::id()) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _already_ended = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() && self.end().is_err() {
            let _already_ended = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

struct Stat {
    parent: u32,
    cpu_seconds: f64,
}

/// `/proc/PID/stat`, see proc(5): after the name in brackets come state, parent, …, user and system time.
fn stat(folder: &Path) -> Option<Stat> {
    let text = fs::read_to_string(folder.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let ticks = f64::from(number(11)?) + f64::from(number(12)?);
    Some(Stat { parent: number(1)?, cpu_seconds: ticks / TICKS_PER_SECOND })
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        stat(&Path::new("/proc").join(pid.to_string())).is_some_and(|stat| stat.parent == parent)
    })
    .collect()
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_what_it_uses_and_ends_when_asked() {
        let mut process = Process::start("sleep", Command::new("sleep").arg("60")).unwrap();
        sleep(Duration::from_millis(50));
        assert!(!process.has_ended());
        assert!(process.usage().resident_kib > 0);
        // `sleep` does not handle the signal: it ends, and says how.
        assert!(process.end().unwrap_err().contains("signal: 15"));
        assert!(process.has_ended());
        drop(process);
        assert!(Process::start("nothing", &mut Command::new("/nonexistent")).is_err());
    }

    #[test]
    fn processor_time_is_read_past_a_name_with_brackets() {
        let folder = std::env::temp_dir().join(format!("loadtest-stat-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("stat"), "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0").unwrap();
        let stat = stat(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(stat.parent, 3);
        assert!((stat.cpu_seconds - 2.0).abs() < 1e-9);
    }
}
