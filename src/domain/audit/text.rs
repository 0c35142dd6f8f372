//! Text in records: bounded on the way in, harmless on the way to a terminal.
//!
//! Owns: cutting to a bound measured in escaped bytes; escaping for terminals.
//! Must never: let a control, bidirectional or invisible character through to a terminal.
//! Look next: `wire`, which bounds every text of a record with this.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` for a terminal: control characters, ESC, bidirectional overrides and invisible characters become
/// `\u{…}`, and a backslash is doubled so that nothing can pretend to be escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\\' {
            safe.push_str("\\\\");
        } else if is_treacherous(character) {
            let _infallible = write!(safe, "\\u{{{:x}}}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// `value` as one line of JSON in which [`escape`]'s treacherous characters are `\u` escapes.
#[must_use]
pub fn json(value: &serde_json::Value) -> String {
    let mut safe = String::new();
    let mut units = [0u16; 2];
    for character in value.to_string().chars() {
        if is_treacherous(character) {
            for unit in character.encode_utf16(&mut units) {
                let _infallible = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Characters that move the cursor, reorder what is seen, or cannot be seen (T-226).
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text`, or its beginning with a note of how much was cut, so that it takes at most `bytes_max` inside a
/// JSON string. Cutting is idempotent: what was cut once fits.
pub(super) fn bound(text: &str, bytes_max: usize) -> Cow<'_, str> {
    // A byte of a longer character counts as one, as it does in that character.
    let fits = text.bytes().map(|byte| escaped_bytes(char::from(byte.min(b'~')))).sum::<usize>() <= bytes_max;
    if fits {
        return Cow::Borrowed(text);
    }
    let note = format!("…(cut from {} bytes)", text.len());
    let mut room = bytes_max.saturating_sub(note.len());
    let kept = text.chars().take_while(|character| {
        let cost = escaped_bytes(*character);
        let fits = cost <= room;
        room = room.saturating_sub(cost);
        fits
    });
    Cow::Owned(kept.chain(note.chars()).collect())
}

/// The bytes serde_json needs for one character inside a string, or more.
fn escaped_bytes(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}
