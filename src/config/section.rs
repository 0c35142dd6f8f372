//! Reading one TOML table key by key, collecting problems instead of stopping at the first.
//!
//! Owns: locations, unknown keys and the wording of shape problems.
//! Must never: know what a key means; that is `settings`.
//! Look next: `raw`, which lists the keys; the member `auditforward`, whose file is read the same way.

use super::Problem;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands in the file.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte offset in the text.
    pub offset: usize,
}

/// The file being read, and what was found wrong in it.
#[derive(Debug)]
pub struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// What was found so far, in the order it was found.
    pub problems: Vec<Problem>,
}

/// One table of the file under its dotted name; keys not asked for are unknown.
#[derive(Debug)]
pub struct Section<'d> {
    name: String,
    offset: usize,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    /// `file`: its name in problems.
    #[must_use]
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// Something is wrong at a byte offset.
    pub fn report(&mut self, offset: usize, message: String) {
        self.problems.push(Problem::at(self.file, self.text, offset, message));
    }

    /// The same, with what to do about it.
    pub fn report_with_hint(&mut self, offset: usize, message: String, hint: String) {
        self.problems.push(Problem::at(self.file, self.text, offset, message).with_hint(hint));
    }

    fn wrong_type(&mut self, section: &Section<'_>, key: &str, span: Range<usize>, wanted: &str) {
        self.report(span.start, format!("`{}` must be {wanted}", section.dotted(key)));
    }
}

impl<'d> Section<'d> {
    /// The whole file.
    #[must_use]
    pub fn root(table: &'d Spanned<DeTable<'d>>) -> Self {
        Self { name: String::new(), offset: 0, table: Some(table.get_ref()), asked: Vec::new() }
    }

    /// Where it stands, as a byte offset.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn entry(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.push(key);
        self.table.and_then(|table| table.get(key))
    }

    /// A sub-table; an absent one reads as empty, reported only when `required`.
    pub fn table(&mut self, reader: &mut Reader<'_>, key: &'static str, required: bool) -> Section<'d> {
        let name = self.dotted(key);
        let found = self.entry(key);
        if found.is_none() && required {
            reader.report(self.offset, format!("section `[{name}]` is missing"));
        }
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                reader.wrong_type(self, key, value.span(), "a table");
                None
            }
        });
        Section {
            name,
            offset: found.map_or(self.offset, |value| value.span().start),
            table,
            asked: Vec::new(),
        }
    }

    /// Whether the file has it.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The tables of an array of tables (`[[name]]`).
    pub fn tables(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Vec<Section<'d>> {
        let name = self.dotted(key);
        let Some(value) = self.entry(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            reader.wrong_type(self, key, value.span(), "an array of tables, written `[[...]]`");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section {
                    name: name.clone(),
                    offset: item.span().start,
                    table: Some(table),
                    asked: Vec::new(),
                }),
                _ => reader.wrong_type(self, key, item.span(), "an array of tables, written `[[...]]`"),
            }
        }
        sections
    }

    /// A string.
    pub fn text(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Located<String>> {
        let value = self.entry(key)?;
        match value.get_ref() {
            DeValue::String(text) => {
                Some(Located { value: text.clone().into_owned(), offset: value.span().start })
            }
            _ => {
                reader.wrong_type(self, key, value.span(), "a string");
                None
            }
        }
    }

    /// A whole number that is not negative.
    pub fn number(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Located<u64>> {
        let value = self.entry(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            reader.wrong_type(self, key, value.span(), "a whole number");
        }
        Some(Located { value: number?, offset: value.span().start })
    }

    /// `true` or `false`; false when it is not said.
    pub fn switch(&mut self, reader: &mut Reader<'_>, key: &'static str) -> bool {
        self.switch_or(reader, key, false)
    }

    /// `true` or `false`; `otherwise` when it is not said.
    pub fn switch_or(&mut self, reader: &mut Reader<'_>, key: &'static str, otherwise: bool) -> bool {
        let Some(value) = self.entry(key) else { return otherwise };
        let DeValue::Boolean(on) = value.get_ref() else {
            reader.wrong_type(self, key, value.span(), "`true` or `false`");
            return otherwise;
        };
        *on
    }

    /// A string that must be there.
    pub fn required_text(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Located<String>> {
        let missing = self.table.is_some_and(|table| table.get(key).is_none());
        if missing {
            reader.report(self.offset, format!("`{}` is missing", self.dotted(key)));
        }
        self.text(reader, key)
    }

    /// An array of strings.
    pub fn texts(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
    ) -> Option<Located<Vec<Located<String>>>> {
        let value = self.entry(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            reader.wrong_type(self, key, value.span(), "an array of strings");
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Located { value: text.clone().into_owned(), offset: item.span().start });
                }
                _ => reader.wrong_type(self, key, item.span(), "an array of strings"),
            }
        }
        Some(Located { value: texts, offset: value.span().start })
    }

    /// A table of free keys to strings, such as `roles`.
    pub fn renames(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.entry(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(self, key, value.span(), "a table of strings");
            return Vec::new();
        };
        let mut renames = Vec::new();
        for (from, to) in table {
            match to.get_ref() {
                DeValue::String(to) => {
                    renames.push((from.get_ref().clone().into_owned(), to.clone().into_owned()))
                }
                _ => reader.wrong_type(self, key, to.span(), "a table of strings"),
            }
        }
        renames
    }

    /// Reports every key that nobody asked for, naming the nearest known one.
    pub fn finish(self, reader: &mut Reader<'_>) {
        let Some(table) = self.table else { return };
        for (key, _) in table {
            let name = key.get_ref();
            if self.asked.iter().any(|known| known == name) {
                continue;
            }
            let message = format!("unknown key `{}`", self.dotted(name));
            match nearest(name, &self.asked) {
                Some(known) => {
                    reader.report_with_hint(key.span().start, message, format!("did you mean `{known}`?"))
                }
                None => reader.report(key.span().start, message),
            }
        }
    }
}

/// The known key that shares the most with a mistyped one, when they share enough to be worth saying.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |other: &str| {
        let prefix = name.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
        let suffix = name.chars().rev().zip(other.chars().rev()).take_while(|(a, b)| a == b).count();
        (prefix + suffix).min(name.chars().count())
    };
    let best = known.iter().copied().max_by_key(|other| likeness(other))?;
    (likeness(best) * 2 >= name.chars().count()).then_some(best)
}
