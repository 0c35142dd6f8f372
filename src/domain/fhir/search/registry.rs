//! Parameters and named queries that a hospital's EMR has beyond R4, as its configuration declares them.
//!
//! Owns: [`Registry`], and what a declaration must be like (T-011, KF-43). Must never: take a declaration
//! without the elements it reads, or one that would give an official parameter a second meaning.
//! Look next: `search/name.rs`, which looks parameters up.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::fhir::r4::{
    ElementPath, ResourceType, SearchParameter, SearchType, search_parameter, type_name,
};
use crate::limits::{DECLARED_CODE_BYTES_MAX, DECLARED_MAX};

/// What the hospital declared; beside the official tables, nothing else is known.
#[derive(Clone, Default)]
pub struct Registry {
    parameters: BTreeMap<(ResourceType, &'static str), &'static SearchParameter>,
    queries: BTreeMap<(ResourceType, String), Vec<ElementPath>>,
}

/// Why a declaration cannot stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclarationError {
    /// Not 1 to `DECLARED_CODE_BYTES_MAX` of `A-Z a-z 0-9 - _`, beginning with a letter.
    Code,
    /// R4 has this parameter for this type.
    Official,
    /// Declared before.
    Repeated,
    /// Composite and special parameters have rules of their own, which cannot be declared.
    Kind,
    /// No element path.
    NoPath,
    /// A path of another resource type.
    OtherType,
    /// A reference parameter whose path is neither a Reference nor a canonical, uri or extension.
    NoReference,
    /// Targets on a parameter that is no reference.
    Targets,
    /// More than `DECLARED_MAX`.
    TooMany,
}

impl Registry {
    /// Nothing beyond R4.
    #[must_use]
    pub const fn empty() -> Self {
        Self { parameters: BTreeMap::new(), queries: BTreeMap::new() }
    }

    /// Adds a parameter. `paths` are the elements it compares; no `targets`: a reference to any type.
    ///
    /// Declarations come from the configuration, which is read once: what they say lives as long as the
    /// program, as the official tables do.
    ///
    /// # Errors
    /// [`DeclarationError`]; nothing is added then.
    pub fn declare(
        &mut self,
        resource: ResourceType,
        code: &str,
        kind: SearchType,
        paths: &[ElementPath],
        targets: &[ResourceType],
    ) -> Result<(), DeclarationError> {
        check_code(code)?;
        if search_parameter(resource, code).is_some() {
            return Err(DeclarationError::Official);
        }
        if self.parameter(resource, code).is_some() {
            return Err(DeclarationError::Repeated);
        }
        if matches!(kind, SearchType::Composite | SearchType::Special) {
            return Err(DeclarationError::Kind);
        }
        if kind != SearchType::Reference && !targets.is_empty() {
            return Err(DeclarationError::Targets);
        }
        check_paths(resource, paths)?;
        let reads = paths.iter().map(|path| read(path, kind)).collect::<Result<Vec<_>, _>>()?;
        self.check_room()?;
        let parameter = keep(code, kind, reads, targets);
        self.parameters.insert((resource, parameter.code), parameter);
        Ok(())
    }

    /// Adds a query by name (`_query`), with all elements its answer depends on. They may be of any type;
    /// those of other types are read in records that the query looks into.
    ///
    /// # Errors
    /// [`DeclarationError`]; nothing is added then.
    pub fn declare_query(
        &mut self,
        resource: ResourceType,
        name: &str,
        reads: &[ElementPath],
    ) -> Result<(), DeclarationError> {
        check_code(name)?;
        if reads.is_empty() {
            return Err(DeclarationError::NoPath);
        }
        if self.query(resource, name).is_some() {
            return Err(DeclarationError::Repeated);
        }
        self.check_room()?;
        self.queries.insert((resource, name.to_owned()), reads.to_vec());
        Ok(())
    }

    /// The declared parameter of this code for this type.
    #[must_use]
    pub fn parameter(&self, resource: ResourceType, code: &str) -> Option<&'static SearchParameter> {
        self.parameters.get(&(resource, code)).copied()
    }

    /// All declared parameters of a type, ordered by code.
    pub fn parameters(&self, resource: ResourceType) -> impl Iterator<Item = &'static SearchParameter> {
        self.parameters.iter().filter(move |((found, _), _)| *found == resource).map(|(_, one)| *one)
    }

    /// What the query of this name reads.
    #[must_use]
    pub fn query(&self, resource: ResourceType, name: &str) -> Option<&[ElementPath]> {
        self.queries.get(&(resource, name.to_owned())).map(Vec::as_slice)
    }

    fn check_room(&self) -> Result<(), DeclarationError> {
        let room = self.parameters.len() + self.queries.len() < DECLARED_MAX;
        if room { Ok(()) } else { Err(DeclarationError::TooMany) }
    }
}

/// A declared code must not look like a chain, a modifier or a parameter of R4's own kind (`_id`).
fn check_code(code: &str) -> Result<(), DeclarationError> {
    let plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let begins = code.starts_with(|first: char| first.is_ascii_alphabetic());
    let fits = plain && begins && code.len() <= DECLARED_CODE_BYTES_MAX;
    if fits { Ok(()) } else { Err(DeclarationError::Code) }
}

fn check_paths(resource: ResourceType, paths: &[ElementPath]) -> Result<(), DeclarationError> {
    if paths.is_empty() {
        return Err(DeclarationError::NoPath);
    }
    let own = paths.iter().all(|path| path.resource_type() == resource);
    if own { Ok(()) } else { Err(DeclarationError::OtherType) }
}

/// What is read there; of a Reference a reference parameter compares `.reference`, as the tables have it.
fn read(path: &ElementPath, kind: SearchType) -> Result<String, DeclarationError> {
    if kind != SearchType::Reference || path.extension_url().is_some() {
        return Ok(path.to_string());
    }
    let is = |name: &str| {
        path.element().is_some_and(|element| element.types.iter().any(|one| type_name(*one) == name))
    };
    match (is("canonical") || is("uri"), is("Reference")) {
        (true, _) => Ok(path.to_string()),
        (false, true) => Ok(format!("{path}.reference")),
        (false, false) => Err(DeclarationError::NoReference),
    }
}

fn keep(
    code: &str,
    kind: SearchType,
    reads: Vec<String>,
    targets: &[ResourceType],
) -> &'static SearchParameter {
    let mut reads: Vec<&'static str> = reads.into_iter().map(|path| &*path.leak()).collect();
    reads.sort_unstable();
    reads.dedup();
    Box::leak(Box::new(SearchParameter {
        code: code.to_owned().leak(),
        kind,
        reads: reads.leak(),
        targets: targets.to_vec().leak(),
        components: &[],
        understood: true,
    }))
}

/// How much there is: enough to tell two configurations apart.
impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Registry of {} parameters, {} queries", self.parameters.len(), self.queries.len())
    }
}

impl fmt::Display for DeclarationError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code => write!(
                out,
                "must be 1 to {DECLARED_CODE_BYTES_MAX} letters, digits, `-` and `_`, beginning with a letter"
            ),
            Self::Official => out.write_str("is a parameter that R4 already has for this type"),
            Self::Repeated => out.write_str("is declared twice for this type"),
            Self::Kind => out.write_str("cannot be declared: a composite or special parameter"),
            Self::NoPath => out.write_str("must name at least one element"),
            Self::OtherType => out.write_str("must name elements of the declared resource type"),
            Self::NoReference => out.write_str("must name elements that hold references"),
            Self::Targets => out.write_str("are for parameters of type `reference`"),
            Self::TooMany => write!(out, "is one too many: at most {DECLARED_MAX} can be declared"),
        }
    }
}

impl std::error::Error for DeclarationError {}
