//! The words of a record, for `_text` and `_content`.
//!
//! Owns: the narrative without its tags, and all texts of a record; both in lower case.
//! Must never: be fast: it reads the record again on every search.
//! Look next: `criteria`.

use serde_json::Value;

/// The narrative's words, or those of every string in the record.
pub(super) fn of(bytes: &[u8], narrative: bool) -> String {
    let Ok(record) = serde_json::from_slice::<Value>(bytes) else { return String::new() };
    let mut out = String::new();
    if narrative {
        out.push_str(&untagged(record.pointer("/text/div").and_then(Value::as_str).unwrap_or_default()));
    } else {
        collect(&record, &mut out);
    }
    out.to_lowercase()
}

fn collect(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push_str(&untagged(text));
            out.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        Value::Object(members) => members.values().for_each(|member| collect(member, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn untagged(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        match letter {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => out.push(letter),
            _ => {}
        }
    }
    out
}
