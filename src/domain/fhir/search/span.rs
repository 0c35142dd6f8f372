//! When something was: dates, times and periods as stretches on the line of time, and how two of them lie.
//!
//! Owns: the meaning of precision and of comparison prefixes (R4 search.html 3.1.1.4.6 and 3.1.1.4.7).
//! Must never: know the time now, or take one time zone for another: where a side does not say its zone, what depends
//! on the zone cannot be said.
//! Look next: `search/judge.rs`, which compares a record's elements.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use super::date::is_date;
use super::judge::Holds;

/// Nanoseconds of the farthest zones from UTC: local times lie no farther apart than this from what was meant.
const ZONE_NANOSECONDS_MAX: i128 = 14 * 3_600 * 1_000_000_000;

/// A point on the line of time, in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Instant {
    nanoseconds: i128,
    /// It says its zone; else it is read in UTC and may be off.
    zoned: bool,
}

/// From, inclusive, to, exclusive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    from: Instant,
    to: Instant,
}

/// How a record's stretch must lie to the asked one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    StartsAfter,
    EndsBefore,
    Approximately,
}

impl Prefix {
    /// Takes the prefix off a search value; without one it is `eq`.
    pub(super) fn split(text: &str) -> (Self, &str) {
        let named = |(name, prefix): (&str, Self)| text.strip_prefix(name).map(|rest| (prefix, rest));
        let prefixes = [
            ("eq", Self::Equal),
            ("ne", Self::NotEqual),
            ("gt", Self::Greater),
            ("lt", Self::Less),
            ("ge", Self::GreaterOrEqual),
            ("le", Self::LessOrEqual),
            ("sa", Self::StartsAfter),
            ("eb", Self::EndsBefore),
            ("ap", Self::Approximately),
        ];
        prefixes.into_iter().find_map(named).unwrap_or((Self::Equal, text))
    }
}

impl Span {
    /// A date, dateTime or instant, at the precision it has. `None` for anything else.
    pub(super) fn read(text: &str) -> Option<Self> {
        if !is_date(text) {
            return None;
        }
        match text.split_once('T') {
            None => days(text),
            Some((day, time)) => moments(day, time),
        }
    }

    /// A Period; a bound that is not said is open. `None` where neither is.
    pub(super) fn between(start: Option<Self>, end: Option<Self>) -> Option<Self> {
        if start.is_none() && end.is_none() {
            return None;
        }
        let open = |nanoseconds| Instant { nanoseconds, zoned: true };
        Some(Self {
            from: start.map_or(open(i128::MIN), |span| span.from),
            to: end.map_or(open(i128::MAX), |span| span.to),
        })
    }

    /// Whether this, of a record, lies to `asked` as the prefix says. What "about" means is left to the server.
    pub(super) fn lies(self, prefix: Prefix, asked: Self) -> Holds {
        let within = || asked.from.is_not_after(self.from).and(self.to.is_not_after(asked.to));
        match prefix {
            Prefix::Equal => within(),
            Prefix::NotEqual => within().not(),
            Prefix::Greater => self.to.is_not_after(asked.to).not(),
            Prefix::Less => asked.from.is_not_after(self.from).not(),
            Prefix::GreaterOrEqual => self.to.is_not_after(asked.from).not(),
            Prefix::LessOrEqual => asked.to.is_not_after(self.from).not(),
            Prefix::StartsAfter => asked.to.is_not_after(self.from),
            Prefix::EndsBefore => self.to.is_not_after(asked.from),
            Prefix::Approximately => Holds::CannotSay,
        }
    }
}

impl Instant {
    fn is_not_after(self, other: Self) -> Holds {
        let not_after = |shift: i128| self.nanoseconds.saturating_add(shift) <= other.nanoseconds;
        if self.zoned == other.zoned {
            return Holds::from(not_after(0));
        }
        match (not_after(-ZONE_NANOSECONDS_MAX), not_after(ZONE_NANOSECONDS_MAX)) {
            (true, true) => Holds::Yes,
            (false, false) => Holds::No,
            _ => Holds::CannotSay,
        }
    }
}

fn days(text: &str) -> Option<Span> {
    let mut fields = text.split('-');
    let year: i16 = fields.next()?.parse().ok()?;
    let month: Option<i8> = fields.next().map(str::parse).transpose().ok()?;
    let day: Option<i8> = fields.next().map(str::parse).transpose().ok()?;
    let first = Date::new(year, month.unwrap_or(1), day.unwrap_or(1)).ok()?;
    let next = match (month, day) {
        (_, Some(_)) => first.tomorrow(),
        (Some(_), None) => first.checked_add(jiff::Span::new().months(1)),
        (None, None) => first.checked_add(jiff::Span::new().years(1)),
    };
    let at =
        |date: Date| in_utc(date.at(0, 0, 0, 0)).map(|nanoseconds| Instant { nanoseconds, zoned: false });
    // The day after the last one there is stands for the end of time.
    let to = next.ok().map_or(Some(Instant { nanoseconds: i128::MAX, zoned: true }), at)?;
    Some(Span { from: at(first)?, to })
}

/// A time with minutes at least. A leap second is read as the second before it, at whose end it lies.
fn moments(day: &str, time: &str) -> Option<Span> {
    let clock_bytes = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(clock_bytes)?;
    let (seconds, precision_nanoseconds) = match clock.match_indices(':').nth(1) {
        None => (format!("{clock}:00"), 60 * 1_000_000_000),
        Some(_) => (clock.replace(":60", ":59"), precision_of(clock)?),
    };
    let nanoseconds = match zone {
        "" => in_utc(format!("{day}T{seconds}").parse::<DateTime>().ok()?)?,
        _ => format!("{day}T{seconds}{zone}").parse::<Timestamp>().ok()?.as_nanosecond(),
    };
    let at = |nanoseconds| Instant { nanoseconds, zoned: !zone.is_empty() };
    Some(Span { from: at(nanoseconds), to: at(nanoseconds + precision_nanoseconds) })
}

/// `08:00:00.25` is a hundredth of a second long.
fn precision_of(clock: &str) -> Option<i128> {
    let digits = clock.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    10_i128.checked_pow(9_u32.checked_sub(u32::try_from(digits).ok()?)?)
}

fn in_utc(local: DateTime) -> Option<i128> {
    local.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_nanosecond())
}
