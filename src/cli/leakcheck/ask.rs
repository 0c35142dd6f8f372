//! One generated request, in a form that can be made smaller and be shown as a line for a shell.
//!
//! Owns: the request's parts, the kinds of interaction, and the text of a `curl` line.
//! Must never: hold a token. Look next: `generate`, `shrink`, `pair`.

use serde_json::Value;

/// What kind of interaction is meant, as counted in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are R4's")]
pub enum Kind {
    Read,
    ConditionalRead,
    Head,
    Vread,
    HistoryInstance,
    HistoryType,
    HistorySystem,
    SearchType,
    SearchCompartment,
    SearchSystem,
    Page,
    Create,
    Update,
    Patch,
    Delete,
    ConditionalCreate,
    ConditionalUpdate,
    ConditionalPatch,
    ConditionalDelete,
    Batch,
    Transaction,
    Everything,
    LastN,
    Validate,
    Expand,
    Lookup,
    Export,
    OtherOperation,
    Capabilities,
    Malformed,
}

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Self; 30] = [
        Self::Read,
        Self::ConditionalRead,
        Self::Head,
        Self::Vread,
        Self::HistoryInstance,
        Self::HistoryType,
        Self::HistorySystem,
        Self::SearchType,
        Self::SearchCompartment,
        Self::SearchSystem,
        Self::Page,
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::ConditionalCreate,
        Self::ConditionalUpdate,
        Self::ConditionalPatch,
        Self::ConditionalDelete,
        Self::Batch,
        Self::Transaction,
        Self::Everything,
        Self::LastN,
        Self::Validate,
        Self::Expand,
        Self::Lookup,
        Self::Export,
        Self::OtherOperation,
        Self::Capabilities,
        Self::Malformed,
    ];

    /// Name in the report, and how `CapabilityStatement` lists it: `rest.resource.interaction`,
    /// `rest.interaction` or, with a `$`, an operation; none where it lists nothing of the kind.
    #[must_use]
    pub fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Read => ("read", Some("read")),
            Self::ConditionalRead => ("read-conditional", Some("read")),
            Self::Head => ("head", None),
            Self::Vread => ("vread", Some("vread")),
            Self::HistoryInstance => ("history-instance", Some("history-instance")),
            Self::HistoryType => ("history-type", Some("history-type")),
            Self::HistorySystem => ("history-system", Some("history-system")),
            Self::SearchType => ("search-type", Some("search-type")),
            Self::SearchCompartment => ("search-compartment", None),
            Self::SearchSystem => ("search-system", Some("search-system")),
            Self::Page => ("page", None),
            Self::Create => ("create", Some("create")),
            Self::Update => ("update", Some("update")),
            Self::Patch => ("patch", Some("patch")),
            Self::Delete => ("delete", Some("delete")),
            Self::ConditionalCreate => ("create-conditional", None),
            Self::ConditionalUpdate => ("update-conditional", None),
            Self::ConditionalPatch => ("patch-conditional", None),
            Self::ConditionalDelete => ("delete-conditional", None),
            Self::Batch => ("batch", Some("batch")),
            Self::Transaction => ("transaction", Some("transaction")),
            Self::Everything => ("$everything", Some("$everything")),
            Self::LastN => ("$lastn", Some("$lastn")),
            Self::Validate => ("$validate", Some("$validate")),
            Self::Expand => ("$expand", Some("$expand")),
            Self::Lookup => ("$lookup", Some("$lookup")),
            Self::Export => ("$export", Some("$export")),
            Self::OtherOperation => ("operation", None),
            Self::Capabilities => ("capabilities", None),
            Self::Malformed => ("malformed", None),
        }
    }
}

/// A request body.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    None,
    /// `application/x-www-form-urlencoded`, decoded.
    Form(Vec<(String, String)>),
    /// JSON under this media type.
    Json(&'static str, Value),
    /// Anything.
    Text(&'static str, String),
}

/// A request to be sent to both gates.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) method: &'static str,
    /// Below the base, as it goes out: `Patient/p1`, empty for the base itself.
    pub(super) path: String,
    /// Decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

impl Ask {
    pub(super) fn new(kind: Kind, method: &'static str, path: impl Into<String>) -> Self {
        Self { kind, method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: Body::None }
    }

    pub(super) fn get(kind: Kind, path: impl Into<String>) -> Self {
        Self::new(kind, "GET", path)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn json(mut self, media: &'static str, body: Value) -> Self {
        self.body = Body::Json(media, body);
        self
    }

    /// It could change what the EMR holds.
    pub(super) fn writes(&self) -> bool {
        let search = self.path.ends_with("_search");
        !matches!(self.method, "GET" | "HEAD" | "OPTIONS") && !search
    }

    /// Path and query as they go out, without a slash at the beginning.
    pub(super) fn target(&self) -> String {
        match encoded(&self.query) {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Media type and bytes of the body.
    pub(super) fn content(&self) -> Option<(&'static str, Vec<u8>)> {
        match &self.body {
            Body::None => None,
            Body::Form(pairs) => Some(("application/x-www-form-urlencoded", encoded(pairs).into_bytes())),
            Body::Json(media, value) => Some((media, value.to_string().into_bytes())),
            Body::Text(media, text) => Some((media, text.clone().into_bytes())),
        }
    }

    /// A line for a shell. `$BASE` is the gate's base URL and `$TOKEN` the role's token.
    pub(super) fn curl(&self) -> String {
        let mut line = "curl".to_owned();
        match self.method {
            "GET" => {}
            "HEAD" => line.push_str(" --head"),
            method => line.push_str(&format!(" -X {method}")),
        }
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
        let content = self.content();
        if let Some((media, _)) = &content {
            line.push_str(&format!(" -H 'Content-Type: {media}'"));
        }
        for (name, value) in &self.headers {
            line.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
        }
        if let Some((_, bytes)) = &content {
            line.push_str(&format!(" --data-raw {}", quoted(&String::from_utf8_lossy(bytes))));
        }
        let target = self.target();
        let slash = if target.is_empty() || target.starts_with('?') { "" } else { "/" };
        line.push_str(&format!(" \"$BASE\"{}", quoted(&format!("{slash}{target}"))));
        line
    }
}

/// Single quotes, as a POSIX shell reads them.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `application/x-www-form-urlencoded`; a name may hold what a value may not, so both are encoded alike.
pub(super) fn encoded(pairs: &[(String, String)]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~|:/,$*".contains(&b);
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut out, b| {
            if plain(b) {
                out.push(char::from(b))
            } else {
                out.push_str(&format!("%{b:02X}"))
            }
            out
        })
    };
    let pair = |(name, value): &(String, String)| format!("{}={}", encode(name), encode(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_can_be_pasted() {
        let ask = Ask::get(Kind::SearchType, "Patient").with("name", "O'Brien & co").header("Prefer", "x");
        assert_eq!(
            ask.curl(),
            r#"curl -H "Authorization: Bearer $TOKEN" -H 'Prefer: x' "$BASE"'/Patient?name=O%27Brien%20%26%20co'"#
        );
        let ask = Ask::new(Kind::Batch, "POST", "").json("application/fhir+json", json!({"a": "it's"}));
        assert_eq!(
            ask.curl(),
            concat!(
                r#"curl -X POST -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/fhir+json'"#,
                r#" --data-raw '{"a":"it'\''s"}' "$BASE"''"#
            )
        );
    }

    #[test]
    fn kinds_are_named_once() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.names().0).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.is_sorted());
    }
}
