//! `_filter`: the expression language of R4 search_filter.html, as a tree.
//!
//! Owns: [`Filter`], its grammar, and its one spelling. Must never: guess. `and` beside `or` without
//! parentheses, which servers read differently, is refused, as is an escape other than `\"`, `\\` and `\/`.
//! Look next: `search/filter_reads.rs`, which says what a filter reads.
//!
//! ```text
//! filter     = term (("and" term)+ | ("or" term)+)?
//! term       = "not"? "(" filter ")" | path operator literal
//! path       = name ("[" filter "]")? "." path | name
//! literal    = JSON string | characters other than white space, quotes, brackets, parentheses
//! ```

use std::fmt;

use crate::limits::{FILTER_DEPTH_MAX, FILTER_LEAVES_MAX};

/// A logical expression over comparisons. No `Debug`: literals are patient data.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// Two or more, none of them an `All`.
    All(Vec<Filter>),
    /// Two or more, none of them an `Any`.
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Compare(Comparison),
}

/// `path operator literal`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Never empty.
    pub(super) path: Vec<Link>,
    pub(super) operator: Operator,
    pub(super) literal: Literal,
}

/// One name of a path; only one that is followed by another can have a condition.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) condition: Option<Filter>,
}

/// What is compared with. Quoted or not makes no difference in R4; it is kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: String,
    quoted: bool,
}

/// The operators of R4 search_filter.html.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Co,
    Sw,
    Ew,
    Gt,
    Lt,
    Ge,
    Le,
    Ap,
    Sa,
    Eb,
    Pr,
    Po,
    Ss,
    Sb,
    In,
    Ni,
    Re,
}

impl Operator {
    pub(super) const ALL: [(Self, &'static str); 19] = [
        (Self::Eq, "eq"),
        (Self::Ne, "ne"),
        (Self::Co, "co"),
        (Self::Sw, "sw"),
        (Self::Ew, "ew"),
        (Self::Gt, "gt"),
        (Self::Lt, "lt"),
        (Self::Ge, "ge"),
        (Self::Le, "le"),
        (Self::Ap, "ap"),
        (Self::Sa, "sa"),
        (Self::Eb, "eb"),
        (Self::Pr, "pr"),
        (Self::Po, "po"),
        (Self::Ss, "ss"),
        (Self::Sb, "sb"),
        (Self::In, "in"),
        (Self::Ni, "ni"),
        (Self::Re, "re"),
    ];

    fn read(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(operator, _)| *operator)
    }

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, word)| word)
    }
}

impl Filter {
    /// Reads decoded text. `None`: not the grammar, nested deeper than `FILTER_DEPTH_MAX`, or with more than
    /// `FILTER_LEAVES_MAX` comparisons.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text, depth: 0, leaves: 0 };
        let filter = parser.filter()?;
        parser.skip_spaces();
        parser.rest.is_empty().then_some(filter)
    }

    /// Joins items of one kind; those that are of this kind themselves are taken in.
    fn join(junction: Junction, items: Vec<Self>) -> Self {
        let flat = items.into_iter().flat_map(|item| match (junction, item) {
            (Junction::And, Self::All(inner)) | (Junction::Or, Self::Any(inner)) => inner,
            (_, other) => vec![other],
        });
        match junction {
            Junction::And => Self::All(flat.collect()),
            Junction::Or => Self::Any(flat.collect()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Junction {
    And,
    Or,
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
    leaves: usize,
}

impl<'t> Parser<'t> {
    fn filter(&mut self) -> Option<Filter> {
        let first = self.term()?;
        let mut junction = None;
        let mut items = vec![first];
        while let Some(next) = self.junction() {
            if junction.replace(next).is_some_and(|before| before != next) {
                return None;
            }
            items.push(self.term()?);
        }
        match junction {
            Some(junction) => Some(Filter::join(junction, items)),
            None => items.pop(),
        }
    }

    fn term(&mut self) -> Option<Filter> {
        self.skip_spaces();
        if self.rest.starts_with('(') {
            return self.nested('(', ')');
        }
        let negated = self.rest.strip_prefix("not").map(str::trim_start);
        if let Some(rest) = negated.filter(|rest| rest.starts_with('(')) {
            self.rest = rest;
            return self.nested('(', ')').map(|inner| Filter::Not(Box::new(inner)));
        }
        self.comparison().map(Filter::Compare)
    }

    fn nested(&mut self, open: char, close: char) -> Option<Filter> {
        self.depth += 1;
        self.rest = self.rest.strip_prefix(open).filter(|_| self.depth <= FILTER_DEPTH_MAX)?;
        let inner = self.filter()?;
        self.skip_spaces();
        self.rest = self.rest.strip_prefix(close)?;
        self.depth -= 1;
        Some(inner)
    }

    fn junction(&mut self) -> Option<Junction> {
        self.skip_spaces();
        [("and", Junction::And), ("or", Junction::Or)].into_iter().find_map(|(word, junction)| {
            let rest = self.rest.strip_prefix(word).filter(|rest| rest.starts_with([' ', '(']))?;
            self.rest = rest;
            Some(junction)
        })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        self.leaves += 1;
        if self.leaves > FILTER_LEAVES_MAX {
            return None;
        }
        let path = self.path()?;
        let operator = self.spaced(char::is_alphabetic).and_then(Operator::read)?;
        self.rest = self.rest.strip_prefix(' ')?;
        self.skip_spaces();
        Some(Comparison { path, operator, literal: self.literal()? })
    }

    fn path(&mut self) -> Option<Vec<Link>> {
        let mut links = Vec::new();
        loop {
            let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')?.to_owned();
            let condition = if self.rest.starts_with('[') { Some(self.nested('[', ']')?) } else { None };
            let last = condition.is_none() && !self.rest.starts_with('.');
            links.push(Link { name, condition });
            if last {
                return Some(links);
            }
            self.rest = self.rest.strip_prefix('.')?;
        }
    }

    fn literal(&mut self) -> Option<Literal> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            return self.quoted().map(|text| Literal { text, quoted: true });
        }
        let text = self.take(|c| !c.is_whitespace() && !"()[]\"".contains(c))?;
        let ends = self.rest.starts_with([' ', ')', ']']) || self.rest.is_empty();
        ends.then(|| Literal { text: text.to_owned(), quoted: false })
    }

    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => text.push(characters.next().filter(|next| matches!(next, '"' | '\\' | '/'))?),
                other => text.push(other),
            }
        }
        self.rest = characters.as_str();
        Some(text)
    }

    fn spaced(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'t str> {
        self.rest = self.rest.strip_prefix(' ')?;
        self.skip_spaces();
        self.take(belongs)
    }

    /// The characters that belong, at least one.
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'t str> {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).filter(|(taken, _)| !taken.is_empty())?;
        self.rest = rest;
        Some(taken)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(items) => print_joined(out, items, " and "),
            Self::Any(items) => print_joined(out, items, " or "),
            Self::Not(inner) => write!(out, "not ({inner})"),
            Self::Compare(comparison) => write!(out, "{comparison}"),
        }
    }
}

fn print_joined(out: &mut fmt::Formatter<'_>, items: &[Filter], between: &str) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.write_str(between)?;
        }
        match item {
            Filter::All(_) | Filter::Any(_) => write!(out, "({item})")?,
            Filter::Not(_) | Filter::Compare(_) => write!(out, "{item}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, link) in self.path.iter().enumerate() {
            if place > 0 {
                out.write_str(".")?;
            }
            out.write_str(&link.name)?;
            if let Some(condition) = &link.condition {
                write!(out, "[{condition}]")?;
            }
        }
        write!(out, " {} {}", self.operator.word(), self.literal)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.quoted {
            return out.write_str(&self.text);
        }
        write!(out, "\"{}\"", self.text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
