//! `_filter`: `param op value`, `and`, `or`, `not`, brackets (R4 search_filter).
//!
//! Owns: the small grammar, and which criterion each operator is.
//! Must never: read a nested filter (`related[…]`): it is refused.
//! Look next: `criteria`.

use super::criteria::{Criterion, Misfit};
use super::parameters::{self, Kind};
use super::store::Store;

/// Brackets may be nested this deep.
const DEPTH_MAX: usize = 16;

struct Reader<'a> {
    store: &'a Store,
    resource_type: &'a str,
    words: std::vec::IntoIter<String>,
}

/// Reads the expression into one criterion.
///
/// # Errors
/// `Unknown` for a parameter the type has not, `Invalid` for anything else.
pub(super) fn parse(store: &Store, resource_type: &str, text: &str) -> Result<Criterion, Misfit> {
    let words = words(text).ok_or(Misfit::Invalid)?.into_iter();
    let mut reader = Reader { store, resource_type, words };
    let read = reader.either(0)?;
    if reader.words.as_slice().is_empty() { Ok(read) } else { Err(Misfit::Invalid) }
}

/// Words, brackets and quoted values; a quoted value keeps its opening quote as a mark.
fn words(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' => {}
            '(' | ')' => out.push(letter.to_string()),
            '"' => {
                let mut word = String::from("\"");
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => word.push(letters.next()?),
                        letter => word.push(letter),
                    }
                }
                out.push(word);
            }
            letter => {
                let mut word = letter.to_string();
                while let Some(letter) = letters.next_if(|letter| !" ()".contains(*letter)) {
                    word.push(letter);
                }
                out.push(word);
            }
        }
    }
    Some(out)
}

impl Reader<'_> {
    fn takes(&mut self, word: &str) -> bool {
        let next = self.words.as_slice().first().is_some_and(|next| next == word);
        if next {
            self.words.next();
        }
        next
    }

    fn either(&mut self, depth: usize) -> Result<Criterion, Misfit> {
        let mut parts = vec![self.both(depth)?];
        while self.takes("or") {
            parts.push(self.both(depth)?);
        }
        Ok(Criterion::any(parts))
    }

    fn both(&mut self, depth: usize) -> Result<Criterion, Misfit> {
        let mut parts = vec![self.one(depth)?];
        while self.takes("and") {
            parts.push(self.one(depth)?);
        }
        Ok(Criterion::all(parts))
    }

    fn one(&mut self, depth: usize) -> Result<Criterion, Misfit> {
        if depth > DEPTH_MAX {
            return Err(Misfit::Invalid);
        }
        if self.takes("not") {
            return Ok(Criterion::not(self.one(depth + 1)?));
        }
        if self.takes("(") {
            let inside = self.either(depth + 1)?;
            return if self.takes(")") { Ok(inside) } else { Err(Misfit::Invalid) };
        }
        let mut next = || self.words.next().ok_or(Misfit::Invalid);
        let (name, operator, value) = (next()?, next()?, next()?);
        self.compare(&name, &operator, value.strip_prefix('"').unwrap_or(&value))
    }

    fn compare(&self, name: &str, operator: &str, value: &str) -> Result<Criterion, Misfit> {
        let ask = |name: &str, value: &str| Criterion::parse(self.store, self.resource_type, name, value);
        let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('$', "\\$");
        let text = parameters::find(self.resource_type, name).is_some_and(|p| p.kind == Kind::Text);
        match operator {
            "eq" if text => ask(&format!("{name}:exact"), &escaped),
            "eq" | "re" => ask(name, &escaped),
            "ne" => ask(name, &escaped).map(Criterion::not),
            "co" => ask(&format!("{name}:contains"), &escaped),
            "sw" => ask(name, &escaped),
            "ew" => Criterion::ends_with(self.resource_type, name, value),
            "gt" | "lt" | "ge" | "le" | "ap" | "sa" | "eb" => ask(name, &format!("{operator}{escaped}")),
            // Overlaps.
            "po" => ask(name, &format!("ap{escaped}")),
            "pr" => {
                let missing = if value == "true" { "false" } else { "true" };
                ask(&format!("{name}:missing"), missing)
            }
            "in" => ask(&format!("{name}:in"), value),
            "ni" => ask(&format!("{name}:not-in"), value),
            _ => Err(Misfit::Invalid),
        }
    }
}
