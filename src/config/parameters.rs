//! `[[search_parameter]]` and `[[named_query]]`: what the hospital's EMR can search by beyond R4.
//!
//! Owns: turning declarations into a [`Registry`], each mistake at its place. Must never: let a declaration
//! stand whose elements are not in the tables: policy could not judge it (T-011).
//! Look next: `domain::fhir::search`, where declared parameters are used.

use super::raw::{NamedQuery, SearchParameter, Text, Texts};
use super::section::{Located, Reader};
use crate::domain::fhir::r4::{ElementPath, ResourceType, SearchType};
use crate::domain::fhir::search::{DeclarationError, Registry};

const KINDS: &str = "number, date, string, token, reference, quantity or uri";

/// The meaning of all declarations; what is wrong goes to `reader`.
pub(super) fn registry(
    parameters: Vec<SearchParameter>,
    queries: Vec<NamedQuery>,
    reader: &mut Reader<'_>,
) -> Registry {
    let mut declarations = Declarations { registry: Registry::empty(), reader };
    for raw in parameters {
        declarations.parameter(raw);
    }
    for raw in queries {
        declarations.query(raw);
    }
    declarations.registry
}

struct Declarations<'r, 't> {
    registry: Registry,
    reader: &'r mut Reader<'t>,
}

impl Declarations<'_, '_> {
    fn parameter(&mut self, raw: SearchParameter) -> Option<()> {
        let resource = self.resource(raw.resource, "search_parameter.resource");
        let kind = self.kind(raw.kind);
        let expression = raw.expression.as_ref().map_or(0, |text| text.offset);
        let paths = self.paths(split(raw.expression), "search_parameter.expression");
        let targets_at = raw.targets.as_ref().map_or(0, |texts| texts.offset);
        let targets = self.targets(raw.targets);
        let code = raw.code?;
        let (resource, kind, paths, targets) = (resource?, kind?, paths?, targets?);
        let Err(error) = self.registry.declare(resource, &code.value, kind, &paths, &targets) else {
            return Some(());
        };
        let (offset, key) = match error {
            DeclarationError::NoPath | DeclarationError::OtherType | DeclarationError::NoReference => {
                (expression, "expression")
            }
            DeclarationError::Targets => (targets_at, "targets"),
            DeclarationError::Kind => (code.offset, "type"),
            DeclarationError::Code
            | DeclarationError::Official
            | DeclarationError::Repeated
            | DeclarationError::TooMany => (code.offset, "code"),
        };
        self.reader.report(offset, format!("`search_parameter.{key}` {error}"));
        None
    }

    fn query(&mut self, raw: NamedQuery) -> Option<()> {
        let resource = self.resource(raw.resource, "named_query.resource");
        let reads_at = raw.reads.as_ref().map_or(raw.offset, |texts| texts.offset);
        let reads = raw.reads.map_or_else(Vec::new, |texts| texts.value);
        let reads = self.paths(reads, "named_query.reads");
        let name = raw.name?;
        let (resource, reads) = (resource?, reads?);
        let Err(error) = self.registry.declare_query(resource, &name.value, &reads) else {
            return Some(());
        };
        let (offset, key) = match error {
            DeclarationError::NoPath => (reads_at, "reads"),
            DeclarationError::Code
            | DeclarationError::Official
            | DeclarationError::Repeated
            | DeclarationError::Kind
            | DeclarationError::OtherType
            | DeclarationError::NoReference
            | DeclarationError::Targets
            | DeclarationError::TooMany => (name.offset, "name"),
        };
        self.reader.report(offset, format!("`named_query.{key}` {error}"));
        None
    }

    fn resource(&mut self, text: Text, key: &str) -> Option<ResourceType> {
        let text = text?;
        let resource = ResourceType::from_name(&text.value);
        if resource.is_none() {
            // The path reader knows the nearest name.
            let hint = ElementPath::parse(&text.value).err().map(|error| error.to_string());
            self.reader.report(text.offset, format!("`{key}`: {}", hint.unwrap_or_default()));
        }
        resource
    }

    fn kind(&mut self, text: Text) -> Option<SearchType> {
        let text = text?;
        let declarable = |kind: &SearchType| !matches!(kind, SearchType::Composite | SearchType::Special);
        let kind = SearchType::from_name(&text.value).filter(declarable);
        if kind.is_none() {
            self.reader.report(text.offset, format!("`search_parameter.type` must be {KINDS}"));
        }
        kind
    }

    fn paths(&mut self, texts: Vec<Located<String>>, key: &str) -> Option<Vec<ElementPath>> {
        let read: Vec<Option<ElementPath>> = texts
            .into_iter()
            .map(|text| match ElementPath::parse(&text.value) {
                Ok(path) => Some(path),
                Err(error) => {
                    self.reader.report(text.offset, format!("`{key}`: {error}"));
                    None
                }
            })
            .collect();
        read.into_iter().collect()
    }

    fn targets(&mut self, texts: Texts) -> Option<Vec<ResourceType>> {
        let texts = texts.map_or_else(Vec::new, |texts| texts.value);
        let read: Vec<Option<ResourceType>> =
            texts.into_iter().map(|text| self.resource(Some(text), "search_parameter.targets")).collect();
        read.into_iter().collect()
    }
}

/// `A.b | A.c` as its paths, each at the place of the whole.
fn split(expression: Text) -> Vec<Located<String>> {
    let Some(Located { value, offset }) = expression else { return Vec::new() };
    value.split('|').map(|path| Located { value: path.trim().to_owned(), offset }).collect()
}
