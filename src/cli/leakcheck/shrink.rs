//! Smaller requests: what is tried to find the shortest that still shows a difference.
//!
//! Owns: the order of the attempts, boldest first. Must never: make a request larger.
//! Look next: `check`, which tries them.

use super::ask::{Ask, Body};
use serde_json::Value;

/// Requests one step smaller than this one.
pub(super) fn smaller(ask: &Ask) -> Vec<Ask> {
    let mut found = Vec::new();
    let mut push = |change: &dyn Fn(&mut Ask)| {
        let mut less = ask.clone();
        change(&mut less);
        found.push(less);
    };
    if ask.query.len() > 1 {
        push(&|less| less.query.clear());
    }
    if !ask.headers.is_empty() {
        push(&|less| less.headers.clear());
    }
    for place in 0..ask.query.len() {
        push(&|less| drop(less.query.remove(place)));
    }
    for place in 0..ask.headers.len() {
        push(&|less| drop(less.headers.remove(place)));
    }
    for body in smaller_body(&ask.body) {
        push(&|less| less.body = body.clone());
    }
    for (place, (_, value)) in ask.query.iter().enumerate() {
        for text in shorter(value) {
            push(&|less| less.query.iter_mut().skip(place).take(1).for_each(|pair| pair.1.clone_from(&text)));
        }
    }
    found
}

fn smaller_body(body: &Body) -> Vec<Body> {
    match body {
        Body::None => Vec::new(),
        Body::Form(pairs) => {
            let without = |place: usize| {
                let mut pairs = pairs.clone();
                pairs.remove(place);
                Body::Form(pairs)
            };
            let with_value = |place: usize, text: String| {
                let mut pairs = pairs.clone();
                pairs.iter_mut().skip(place).take(1).for_each(|pair| pair.1.clone_from(&text));
                Body::Form(pairs)
            };
            let values = pairs.iter().enumerate();
            let values =
                values.flat_map(|(at, (_, value))| shorter(value).into_iter().map(move |text| (at, text)));
            (0..pairs.len()).map(without).chain(values.map(|(at, text)| with_value(at, text))).collect()
        }
        Body::Json(media, value) => {
            smaller_json(value).into_iter().map(|value| Body::Json(media, value)).collect()
        }
        Body::Text(media, text) => shorter(text).into_iter().map(|text| Body::Text(media, text)).collect(),
    }
}

/// One member or item less, at any depth; entries of Bundles and operations of patches come first this way.
fn smaller_json(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Array(items) => {
            for place in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(place);
                found.push(Value::Array(fewer));
            }
            for (place, item) in items.iter().enumerate() {
                for less in smaller_json(item) {
                    let mut changed = items.clone();
                    changed.iter_mut().skip(place).take(1).for_each(|one| one.clone_from(&less));
                    found.push(Value::Array(changed));
                }
            }
        }
        Value::Object(members) => {
            for (name, inner) in members {
                if name != "resourceType" {
                    let mut fewer = members.clone();
                    fewer.shift_remove(name);
                    found.push(Value::Object(fewer));
                }
                for less in smaller_json(inner) {
                    let mut changed = members.clone();
                    changed.insert(name.clone(), less);
                    found.push(Value::Object(changed));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found
}

/// One alternative less, or a shorter text.
fn shorter(value: &str) -> Vec<String> {
    let alternatives: Vec<&str> = value.split(',').collect();
    if alternatives.len() > 1 {
        let without = |place: usize| {
            let kept = alternatives.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, text)| *text);
            kept.collect::<Vec<_>>().join(",")
        };
        return (0..alternatives.len()).map(without).collect();
    }
    let letters = value.chars().count();
    let begin = |many: usize| value.chars().take(many).collect::<String>();
    let mut found: Vec<String> = [1, letters / 2, letters.saturating_sub(1)].map(begin).into();
    found.retain(|text| !text.is_empty() && text.len() < value.len());
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::super::ask::Kind;
    use super::*;
    use serde_json::json;

    /// The smallest that a test finds, as the check would.
    fn smallest(mut ask: Ask, shows: impl Fn(&Ask) -> bool) -> Ask {
        while let Some(less) = smaller(&ask).into_iter().find(&shows) {
            ask = less;
        }
        ask
    }

    #[test]
    fn the_guilty_parameter_stays() {
        let ask = Ask::get(Kind::SearchType, "Patient")
            .with("_count", "3")
            .with("birthdate", "1980-02-29,1970-01-01")
            .with("_sort", "name")
            .header("Accept", "x");
        let least =
            smallest(ask, |ask| ask.query.iter().any(|(n, v)| n == "birthdate" && v.contains("1980")));
        assert_eq!(least, Ask::get(Kind::SearchType, "Patient").with("birthdate", "1980"));
    }

    #[test]
    fn entries_and_operations_fall_away() {
        let patch =
            json!([{"op": "test", "path": "/a", "value": 1}, {"op": "add", "path": "/b", "value": [1, 2]}]);
        let ask = Ask::new(Kind::Patch, "PATCH", "Patient/p1").json("application/json-patch+json", patch);
        let least =
            smallest(ask, |ask| matches!(&ask.body, Body::Json(_, v) if v.to_string().contains("/b")));
        let Body::Json(_, value) = least.body else { panic!() };
        assert_eq!(value, json!([{"path": "/b"}]));
    }

    #[test]
    fn every_attempt_is_smaller() {
        let ask =
            Ask::get(Kind::SearchSystem, "").with("_type", "Patient,List").with("a", "b").header("X", "y");
        let size = |ask: &Ask| ask.curl().len();
        for less in smaller(&ask) {
            assert!(size(&less) < size(&ask), "{}", less.curl());
        }
    }
}
