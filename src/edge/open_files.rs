//! How many files this process may hold open, and so how many client connections it can take.
//!
//! Owns: raising the process's own bound (`RLIMIT_NOFILE`), and what is left for clients of it. Must never: let connections
//! take the files that the trail needs: a record that cannot be written is an answer that cannot be given.
//! Look next: `listener`, which holds to the number; `docs/operators.md`, where the bound is set.

use crate::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the bound as far as all connections need it and this account may: accounts often begin with 1,024 and may have
/// many times that (getrlimit(2)). Where it cannot be raised it stays, and [`connections`] says what follows.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted(limit, number(limits::CONNECTIONS_MAX + limits::FILES_BESIDE_CONNECTIONS));
    if wanted != limit.current {
        let _stays_where_refused = setrlimit(Resource::Nofile, Rlimit { current: wanted, ..limit });
    }
}

/// How many client connections may be open under the bound as it is now: `limits::CONNECTIONS_MAX`, or what the bound
/// leaves beside everything else, a quarter of it at least.
#[must_use]
pub fn connections() -> usize {
    left(getrlimit(Resource::Nofile).current)
}

fn wanted(limit: Rlimit, needed: u64) -> Option<u64> {
    let enough = limit.maximum.map_or(needed, |hard| hard.min(needed));
    limit.current.map(|now| now.max(enough))
}

fn left(current: Option<u64>) -> usize {
    let files = current.and_then(|now| usize::try_from(now).ok()).unwrap_or(usize::MAX);
    let beside = files.saturating_sub(limits::FILES_BESIDE_CONNECTIONS);
    beside.max(files / 4).clamp(1, limits::CONNECTIONS_MAX)
}

fn number(files: usize) -> u64 {
    u64::try_from(files).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_raised_as_far_as_needed_and_allowed() {
        let all = None;
        for (current, maximum, expected) in [
            (Some(1_024), Some(524_288), Some(9_000)),
            (Some(1_024), Some(4_096), Some(4_096)),
            (Some(1_024), all, Some(9_000)),
            (Some(20_000), Some(524_288), Some(20_000)),
            (all, all, all),
        ] {
            assert_eq!(wanted(Rlimit { current, maximum }, 9_000), expected, "{current:?} of {maximum:?}");
        }
    }

    #[test]
    fn what_is_no_connection_keeps_its_files() {
        let beside = limits::FILES_BESIDE_CONNECTIONS;
        for (files, expected) in [
            (None, limits::CONNECTIONS_MAX),
            (Some(1_048_576), limits::CONNECTIONS_MAX),
            (Some(4_096), 4_096 - beside),
            (Some(1_024), 1_024 - beside),
            (Some(256), 64),
            (Some(0), 1),
        ] {
            assert_eq!(left(files), expected, "{files:?}");
        }
    }
}
