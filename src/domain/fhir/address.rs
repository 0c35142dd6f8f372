//! The one spelling of each interaction, as path and query below the base.
//!
//! Owns: the canonical address, and the URLs that answers carry. The law: an address, asked for with the
//! interaction's method (and, for criteria of a create and formats of a patch, their headers), is classified
//! as the same interaction. Must never: percent-encode twice, or print a base other than the public one.
//! Look next: `classify`, which reads what is printed here.

use super::classify::PAGE_PARAMETER;
use super::interaction::{ExportLevel, History, HistoryScope, Interaction, Operation, Search, Target};
use super::path::PublicBase;
use super::r4::ResourceType;
use super::search::encode;

/// First segment of the paths of an export's status.
pub(super) const EXPORT_SEGMENT: &str = "~export";
/// First segment of the paths of an export's files.
pub(super) const FILE_SEGMENT: &str = "~file";

impl Interaction {
    /// The method it is asked with: a search counts as GET.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Read { .. }
            | Self::Vread { .. }
            | Self::History(_)
            | Self::Search(_)
            | Self::SearchMany { .. }
            | Self::NextPage { .. }
            | Self::ExportStatus { .. }
            | Self::ExportFile { .. }
            | Self::Capabilities
            | Self::SmartConfiguration => "GET",
            Self::Create { .. }
            | Self::Bundle
            | Self::Operation(Operation::Validate { .. } | Operation::BreakGlass) => "POST",
            Self::Operation(_) => "GET",
            Self::Update { .. } => "PUT",
            Self::Patch { .. } => "PATCH",
            Self::Delete { .. } | Self::ExportCancel { .. } => "DELETE",
        }
    }

    /// Path and query below the base, without a leading slash: `Patient/1`, `Observation?code=x`. May hold
    /// patient data.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Read { resource, id, shape } => {
                with_query(format!("{}/{}", resource.name(), id.as_str()), shape.canonical())
            }
            Self::Vread { resource, id, version, shape } => {
                let path = format!("{}/{}/_history/{}", resource.name(), id.as_str(), version.as_str());
                with_query(path, shape.canonical())
            }
            Self::History(history) => history_address(history),
            Self::Search(search) => search_address(search),
            Self::SearchMany { legs, named } => legs_address(legs, *named),
            Self::NextPage { resource, token } => page_address(*resource, token.as_str()),
            Self::Create { resource, .. } => resource.name().to_owned(),
            Self::Update { resource, target }
            | Self::Patch { resource, target, .. }
            | Self::Delete { resource, target } => target_address(*resource, target),
            Self::Bundle => String::new(),
            Self::Operation(operation) => operation_address(operation),
            Self::ExportStatus { token } | Self::ExportCancel { token } => {
                sealed_address(EXPORT_SEGMENT, token.as_str())
            }
            Self::ExportFile { token } => sealed_address(FILE_SEGMENT, token.as_str()),
            Self::Capabilities => "metadata".to_owned(),
            Self::SmartConfiguration => ".well-known/smart-configuration".to_owned(),
        }
    }
}

impl PublicBase {
    /// The whole public URL of [`Interaction::address`]: the `self` link of an answer (T-151).
    #[must_use]
    pub fn question_url(&self, interaction: &Interaction) -> String {
        self.below(&interaction.address())
    }

    /// The `self` link of a search: the client's own question in canonical spelling.
    #[must_use]
    pub fn search_url(&self, search: &Search) -> String {
        self.below(&search_address(search))
    }

    /// The `next` link that carries a sealed page token: at the searched type, or at the base for all other
    /// answers. The token must be of the alphabet of [`super::interaction::PageToken`] to be understood when it comes back.
    #[must_use]
    pub fn page_url(&self, resource: Option<ResourceType>, token: &str) -> String {
        self.below(&page_address(resource, token))
    }

    /// The `fullUrl` of a record, or with its version left out its `Location`.
    #[must_use]
    pub fn record_url(&self, resource: ResourceType, id: &str) -> String {
        self.below(&format!("{}/{id}", resource.name()))
    }

    /// Where the status of an export is asked for; the token as in [`PublicBase::page_url`].
    #[must_use]
    pub fn export_url(&self, token: &str) -> String {
        self.below(&sealed_address(EXPORT_SEGMENT, token))
    }

    /// Where a file of an export is; the token as in [`PublicBase::page_url`].
    #[must_use]
    pub fn file_url(&self, token: &str) -> String {
        self.below(&sealed_address(FILE_SEGMENT, token))
    }

    fn below(&self, address: &str) -> String {
        if address.is_empty() || address.starts_with('?') {
            format!("{self}{address}")
        } else {
            format!("{self}/{address}")
        }
    }
}

/// What upstream is asked of a history.
pub(super) fn history_query(history: &History) -> String {
    join(history_pairs(history))
}

fn history_pairs(history: &History) -> impl Iterator<Item = (&'static str, String)> {
    let since = history.since().map(|since| ("_since", since.to_owned()));
    let at = history.at().map(|at| ("_at", at.to_owned()));
    let count = history.count().map(|count| ("_count", count.to_string()));
    [since, at, count].into_iter().flatten()
}

fn history_address(history: &History) -> String {
    let path = match history.scope() {
        HistoryScope::Instance(resource, id) => format!("{}/{}/_history", resource.name(), id.as_str()),
        HistoryScope::Type(resource) => format!("{}/_history", resource.name()),
        HistoryScope::System => "_history".to_owned(),
    };
    with_query(path, history_pairs(history).chain(history.shape().canonical()))
}

fn search_address(search: &Search) -> String {
    let name = search.resource_type().name();
    let path = match search.compartment() {
        Some(compartment) => format!("{}/{}/{name}", compartment.owner().name(), compartment.id().as_str()),
        None => name.to_owned(),
    };
    question(path, &search.canonical_question())
}

/// All legs ask the same, so the first one's question is everyone's.
fn legs_address(legs: &[Search], named: bool) -> String {
    let Some(first) = legs.first() else { return String::new() };
    let path = first
        .compartment()
        .map_or_else(String::new, |owner| format!("{}/{}/*", owner.owner().name(), owner.id().as_str()));
    let types = named.then(|| ("_type", names(legs.iter().map(Search::resource_type))));
    let parts = [join(types), first.canonical_question()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    question(path, &parts.join("&"))
}

fn page_address(resource: Option<ResourceType>, token: &str) -> String {
    let path = resource.map(ResourceType::name).unwrap_or_default();
    format!("{path}?{PAGE_PARAMETER}={token}")
}

fn target_address(resource: ResourceType, target: &Target) -> String {
    match target {
        Target::Id(id) => format!("{}/{}", resource.name(), id.as_str()),
        Target::Match(search) => search_address(search),
    }
}

fn sealed_address(segment: &str, token: &str) -> String {
    format!("{segment}/{token}")
}

fn operation_address(operation: &Operation) -> String {
    match operation {
        Operation::Everything { patient, start, end, since, types, count } => {
            let pairs = [
                start.clone().map(|start| ("start", start)),
                end.clone().map(|end| ("end", end)),
                since.clone().map(|since| ("_since", since)),
                listed(types),
                count.map(|count| ("_count", count.to_string())),
            ];
            with_query(format!("Patient/{}/$everything", patient.as_str()), pairs.into_iter().flatten())
        }
        Operation::LastN { search, max } => {
            let path = format!("{}/$lastn", search.resource_type().name());
            question(path, &format!("{}&max={max}", search.canonical_question()))
        }
        Operation::Validate { resource } => format!("{}/$validate", resource.name()),
        Operation::BreakGlass => "$break-glass".to_owned(),
        Operation::Expand { id: Some(id), query } => {
            with_query(format!("ValueSet/{}/$expand", id.as_str()), query.iter().cloned())
        }
        Operation::Expand { id: None, query } => {
            with_query("ValueSet/$expand".to_owned(), query.iter().cloned())
        }
        Operation::Lookup { query } => with_query("CodeSystem/$lookup".to_owned(), query.iter().cloned()),
        Operation::Export { level, types, since, type_filters } => {
            let since = since.clone().map(|since| ("_since", since));
            let filters = type_filters.iter().map(|filter| ("_typeFilter", search_address(filter)));
            with_query(export_path(level), listed(types).into_iter().chain(since).chain(filters))
        }
    }
}

fn export_path(level: &ExportLevel) -> String {
    match level {
        ExportLevel::System => "$export".to_owned(),
        ExportLevel::Patient => "Patient/$export".to_owned(),
        ExportLevel::Group(id) => format!("Group/{}/$export", id.as_str()),
    }
}

fn listed(types: &[ResourceType]) -> Option<(&'static str, String)> {
    (!types.is_empty()).then(|| ("_type", names(types.iter().copied())))
}

fn names(types: impl Iterator<Item = ResourceType>) -> String {
    types.map(ResourceType::name).collect::<Vec<_>>().join(",")
}

fn with_query(path: String, pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    question(path, &join(pairs))
}

fn question(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn join(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={}", encode(&value))).collect();
    pairs.join("&")
}
