//! The syntax of dates in search values.
//!
//! Owns: R4 search.html 3.1.1.4.7: a date at any precision, a time with at least minutes.
//! Must never: know the time now. Look next: `search/value.rs`.

use super::value::is_digits;

/// `yyyy[-mm[-dd[Thh:mm[:ss[.f…]][Z|±hh:mm]]]]`, a day that exists.
pub(in crate::domain::fhir) fn is_date(text: &str) -> bool {
    match text.split_once('T') {
        None => is_day(text, false),
        Some((day, time)) => is_day(day, true) && is_zoned_time(time),
    }
}

fn is_day(text: &str, whole: bool) -> bool {
    let mut fields = text.split('-');
    let year = fields.next().and_then(|field| number(field, 4));
    let month = fields.next().map(|field| number(field, 2));
    let day = fields.next().map(|field| number(field, 2));
    if fields.next().is_some() {
        return false;
    }
    match (year, month, day) {
        (Some(1..), None, None) => !whole,
        (Some(1..), Some(Some(1..=12)), None) => !whole,
        (Some(year @ 1..), Some(Some(month)), Some(Some(day))) => (1..=days_in(year, month)).contains(&day),
        _ => false,
    }
}

fn days_in(year: u16, month: u16) -> u16 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

fn is_zoned_time(text: &str) -> bool {
    let zone_at = text.find(['Z', '+', '-']).unwrap_or(text.len());
    text.split_at_checked(zone_at).is_some_and(|(time, zone)| is_time(time) && is_zone(zone))
}

fn is_zone(text: &str) -> bool {
    match text.strip_prefix(['+', '-']) {
        None => text.is_empty() || text == "Z",
        Some(offset) => is_clock(offset, 14),
    }
}

fn is_time(text: &str) -> bool {
    let (clock, seconds) = match text.match_indices(':').nth(1) {
        None => (text, None),
        Some((at, _)) => match text.split_at_checked(at) {
            Some((clock, rest)) => (clock, rest.strip_prefix(':')),
            None => return false,
        },
    };
    is_clock(clock, 23) && seconds.is_none_or(is_seconds)
}

fn is_clock(text: &str, hours_max: u16) -> bool {
    text.split_once(':').is_some_and(|(hours, minutes)| {
        number(hours, 2).is_some_and(|hours| hours <= hours_max)
            && number(minutes, 2).is_some_and(|minutes| minutes <= 59)
    })
}

/// 60 is a leap second, which R4 allows.
fn is_seconds(text: &str) -> bool {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    number(whole, 2).is_some_and(|seconds| seconds <= 60)
        && fraction.is_none_or(|digits| is_digits(digits) && digits.len() <= 9)
}

fn number(text: &str, digits: usize) -> Option<u16> {
    (text.len() == digits && is_digits(text)).then(|| text.parse().ok()).flatten()
}
