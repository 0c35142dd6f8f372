//! The search parameters of R4, read from HL7's own definitions: kind, targets, and the expression each one reads.
//!
//! Owns: the table over `data/r4-search.txt`. It shares nothing with the gate's tables: it is a second opinion on them.
//! Must never: decide what a caller may search.
//! Look next: `path`, which reads the expressions; `terms`, which reads the elements.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::path::Path;

/// How a parameter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Text,
    Date,
    Reference,
    Quantity,
    Number,
    Uri,
    Composite,
}

impl Kind {
    /// R4's `SearchParamType` code.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Text => "string",
            Self::Date => "date",
            Self::Reference => "reference",
            Self::Quantity => "quantity",
            Self::Number => "number",
            Self::Uri => "uri",
            Self::Composite => "composite",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Token,
            Self::Text,
            Self::Date,
            Self::Reference,
            Self::Quantity,
            Self::Number,
            Self::Uri,
            Self::Composite,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

/// One search parameter of one type.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) code: &'static str,
    pub(super) kind: Kind,
    pub(super) path: Path,
    /// Types a reference may point to; empty for any.
    pub(super) targets: Vec<&'static str>,
    /// Of a composite: kind and path of each part, from what `path` finds.
    pub(super) components: Vec<(Kind, Path)>,
}

const ROWS: &str = include_str!("../../data/r4-search.txt");

struct Table {
    /// By type; `Resource` holds what all types have.
    types: HashMap<&'static str, Vec<Parameter>>,
    /// Lines that were not understood.
    unread: Vec<&'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { types: HashMap::new(), unread: Vec::new() };
    for line in ROWS.lines() {
        match row(line) {
            Some((name, parameter)) => table.types.entry(name).or_default().push(parameter),
            None => table.unread.push(line),
        }
    }
    table
});

fn row(line: &'static str) -> Option<(&'static str, Parameter)> {
    let mut cells = line.split('\t');
    let (name, code, kind) = (cells.next()?, cells.next()?, Kind::named(cells.next()?)?);
    let targets = cells.next()?.split(',').filter(|target| !target.is_empty()).collect();
    let path = Path::parse(cells.next()?, name)?;
    let component = |cell: &'static str| {
        let (kind, text) = cell.split_once('=')?;
        Some((Kind::named(kind)?, Path::parse(text, "")?))
    };
    let components = cells.map(component).collect::<Option<_>>()?;
    Some((name, Parameter { code, kind, path, targets, components }))
}

/// The parameters of a type, those of all types first. A type that R4 does not know has only these.
pub(super) fn of(resource_type: &str) -> impl Iterator<Item = &'static Parameter> + use<> {
    let rows = |name: &str| TABLE.types.get(name).map_or(&[] as &[Parameter], Vec::as_slice);
    rows("Resource").iter().chain(rows(resource_type))
}

/// The parameter `code` of a type.
pub(super) fn find(resource_type: &str, code: &str) -> Option<&'static Parameter> {
    of(resource_type).find(|row| row.code == code)
}

/// The lines of the table that `path` does not understand.
#[cfg(test)]
pub(super) fn unread() -> &'static [&'static str] {
    &TABLE.unread
}
