//! Policy text as it was written: files, places in them, and the problems found there.
//!
//! Owns: turning byte offsets into line and column, and finding statements and entity names in Cedar text
//! so that a problem can point at them. Must never: decide what a policy means (Cedar's parser does; what
//! is found here only says *where*). Look next: `load`.

use std::fmt;

/// One file of a policies directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name without directories, such as `nurse.cedar`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Something wrong, or worth a second look, in a policies directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// File name as in [`Source::name`].
    pub file: String,
    /// Counted from 1; 1 where only the file is known.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What is wrong: lower case, one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl Source {
    /// A problem at a byte offset of this file.
    #[must_use]
    pub fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        let before = self.text.get(..offset).unwrap_or("");
        self.problem_at(Place::default().after(before), message)
    }

    /// A problem at a place that is known already.
    pub(super) fn problem_at(&self, place: Place, message: impl Into<String>) -> Problem {
        let Place { line, column } = place;
        Problem { file: self.name.clone(), line, column, message: one_line(&message.into()), hint: None }
    }
}

/// Line and column of a place in a text, each counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    /// In characters.
    column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

impl Place {
    /// The place at which this text ends that begins here.
    fn after(self, text: &str) -> Self {
        match text.rsplit_once('\n') {
            None => Self { column: self.column + text.chars().count(), ..self },
            Some((lines, rest)) => {
                Self { line: self.line + lines.matches('\n').count() + 1, column: rest.chars().count() + 1 }
            }
        }
    }
}

impl Problem {
    /// The same problem with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(one_line(&hint.into()));
        self
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One policy statement of a Cedar file: where it starts, and the entities it names.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// Byte offset of its first token (an annotation, or the effect).
    pub start: usize,
    /// The same as people count.
    pub place: Place,
    /// Entities in order of appearance.
    pub names: Vec<EntityName>,
    /// Byte offsets of the type name `Patient` outside any namespace: in `Patient::"p2"` and `is Patient`.
    pub subjects: Vec<usize>,
    /// `resource in [...]` in the scope.
    pub list: Option<ListInScope>,
}

/// A list of entities where a scope names what the resource is in. Byte offsets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListInScope {
    /// After `resource`.
    pub start: usize,
    /// After the closing bracket.
    pub end: usize,
    /// After the scope's closing parenthesis.
    pub scope_end: usize,
}

/// An entity literal such as `FHIR::Element::"Patient.name"`, as written.
#[derive(Debug)]
pub(super) struct EntityName {
    /// `FHIR::Element`.
    pub kind: String,
    /// The text between the quotes, escapes not resolved.
    pub raw_id: String,
    /// Byte offset of the opening quote.
    pub offset: usize,
}

/// Splits Cedar text into its statements. Only looks at strings, line comments, names, `::` and `;`.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut scan = Scan { text, at: 0 };
    let mut found = Vec::new();
    let mut current: Option<Statement> = None;
    let mut path = String::new();
    let mut path_start = 0;
    let mut scope = Scope::default();
    // A file may hold a thousand policies: its lines are counted once.
    let (mut place, mut counted) = (Place::default(), 0);
    while let Some((offset, token)) = scan.next_token() {
        let statement = current.get_or_insert_with(|| {
            scope = Scope::default();
            place = place.after(text.get(counted..offset).unwrap_or(""));
            counted = offset;
            Statement { start: offset, place, ..Statement::default() }
        });
        if let Some(list) = scope.note(&token, offset, scan.at) {
            statement.list = Some(list);
        }
        match token {
            Token::Name(name) if path.ends_with("::") => path.push_str(name),
            Token::Name(name) => {
                if name == "Patient" && path == "is" {
                    statement.subjects.push(offset);
                }
                name.clone_into(&mut path);
                path_start = offset;
            }
            Token::PathSeparator => path.push_str("::"),
            Token::Text(raw) => {
                if let Some(kind) = path.strip_suffix("::") {
                    if kind == "Patient" && statement.subjects.last() != Some(&path_start) {
                        statement.subjects.push(path_start);
                    }
                    let kind = kind.to_owned();
                    statement.names.push(EntityName { kind, raw_id: raw.to_owned(), offset });
                }
                path.clear();
            }
            Token::End => found.extend(current.take()),
            Token::Other(_) => path.clear(),
        }
    }
    found.extend(current);
    found
}

/// What has been seen of a statement's scope: the parentheses after `permit` or `forbid`.
#[derive(Default)]
struct Scope {
    /// After the effect, before the scope's end.
    open: bool,
    over: bool,
    /// Tokens of `resource in [` seen, and where `resource` ended.
    words: u8,
    start: usize,
    end: usize,
}

impl Scope {
    /// Takes the next token; gives the list when the scope ends and had one.
    fn note(&mut self, token: &Token<'_>, at: usize, after: usize) -> Option<ListInScope> {
        match (token, self.open, self.words) {
            _ if self.over => {}
            (Token::Name("permit" | "forbid"), false, _) => self.open = true,
            (Token::Name("resource"), true, 0) => (self.words, self.start) = (1, after),
            (Token::Name("in"), true, 1) => self.words = 2,
            (Token::Other('['), true, 2) => self.words = 3,
            (Token::Other(']'), true, 3) => (self.words, self.end) = (4, after),
            (Token::Other(')'), true, words) => {
                self.over = true;
                let found = ListInScope { start: self.start, end: self.end, scope_end: at + 1 };
                return (words == 4).then_some(found);
            }
            (_, _, 1 | 2) => self.words = 0,
            _ => {}
        }
        None
    }
}

enum Token<'t> {
    Name(&'t str),
    PathSeparator,
    Text(&'t str),
    End,
    Other(char),
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn next_token(&mut self) -> Option<(usize, Token<'t>)> {
        self.skip_blank();
        let (start, rest) = (self.at, self.rest());
        let first = rest.chars().next()?;
        let (length, token) = if rest.starts_with("::") {
            (2, Token::PathSeparator)
        } else if first == '"' {
            let inside = string_length(rest);
            (inside + 2, Token::Text(rest.get(1..=inside).unwrap_or("")))
        } else if is_name(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            (length, Token::Name(rest.get(..length).unwrap_or("")))
        } else {
            (first.len_utf8(), if first == ';' { Token::End } else { Token::Other(first) })
        };
        self.at = (start + length).min(self.text.len());
        Some((start, token))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Bytes between the quotes of the string that `rest` starts with.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (offset, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return offset - 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_names_are_found_where_they_are() {
        let text = "// a \"comment\" ; \n@id(\"one;\")\npermit(principal in Role::\"a\\\"b\", action, \
                    resource in [FHIR :: Element::\"Patient.name\"]);\nforbid(principal, action, resource);";
        let found = statements(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].start, text.find('@').unwrap());
        let names: Vec<_> = found[0].names.iter().map(|n| (n.kind.as_str(), n.raw_id.as_str())).collect();
        assert_eq!(names, [("Role", "a\\\"b"), ("FHIR::Element", "Patient.name")]);
        assert_eq!(found[1].start, text.find("forbid").unwrap());
    }

    #[test]
    fn a_statement_knows_its_line_and_column() {
        let text = "permit(principal, action, resource); /* é */ forbid(principal,\naction,\nresource);\n\n  permit(principal, action, resource);permit(principal, action, resource);";
        let source = Source { name: "x.cedar".into(), text: text.replace("/* é */", "\"é\"; ") };
        for statement in statements(&source.text) {
            assert_eq!(source.problem(statement.start, "x"), source.problem_at(statement.place, "x"));
        }
        let places: Vec<_> =
            statements(&source.text).iter().map(|s| (s.place.line, s.place.column)).collect();
        assert_eq!(places, [(1, 1), (1, 38), (1, 44), (5, 3), (5, 39)]);
    }

    #[test]
    fn a_place_is_line_and_column() {
        let source = Source { name: "x.cedar".into(), text: "a\nbé c".into() };
        let problem = source.problem(5, "wrong\nhere");
        assert_eq!((problem.line, problem.column, problem.message.as_str()), (2, 3, "wrong here"));
        assert_eq!(source.problem(999, "x").line, 1);
    }

    #[test]
    fn scanning_never_panics() {
        for text in ["\"", "\"\\", "::\"", "é", "/", "//", "a::", ";;;", "\"a\\\\\" b"] {
            let _ = statements(text);
        }
    }
}
