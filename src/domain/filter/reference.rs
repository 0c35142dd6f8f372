//! Reference texts: whom they name, and whether they lie under a base of ours.
//!
//! Owns: reading `Type/id`, `Type/id/_history/version`, absolute forms and bases; which names are hidden.
//! Must never: resolve anything, or take another server's record for one of ours.
//! Look next: `walk`, which gathers facts from references; `emit`, which trims and rewrites them.

use std::collections::BTreeSet;

use crate::domain::fhir::r4::ResourceType;

/// Base URLs, without a trailing slash.
#[derive(Clone, Copy, Debug)]
pub struct Bases<'a> {
    /// Those under which upstream names its resources, the public one among them.
    pub upstream: &'a [&'a str],
    /// The one that clients see.
    pub public: &'a str,
}

/// What a reference must not say about its target, because the caller may not see it there (T-046).
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Types whose name is hidden: `Reference.display` goes.
    pub hide_display: BTreeSet<ResourceType>,
    /// Types whose identifiers are hidden: `Reference.identifier` goes.
    pub hide_identifier: BTreeSet<ResourceType>,
}

impl References {
    /// Nothing is hidden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hide_display.is_empty() && self.hide_identifier.is_empty()
    }
}

impl Bases<'_> {
    /// What follows a known base, from its slash on.
    pub(super) fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.upstream.iter().chain([&self.public]).find_map(|base| strip_base(base, text))
    }

    /// The text under the public base, if it lies under another of ours.
    pub(super) fn publish(&self, text: &str) -> Option<String> {
        if self.is_public(text) {
            return None;
        }
        Some(format!("{}{}", self.public, self.strip(text)?))
    }

    /// [`Bases::publish`] has something to say.
    pub(super) fn moves(&self, text: &str) -> bool {
        self.strip(text).is_some() && !self.is_public(text)
    }

    /// A URL that would take whoever follows it past us (T-102): any but those under a base of ours, relative ones,
    /// fragments and `urn:`. Where readers may differ on what is relative (`//host`, a backslash, white space) it
    /// counts as foreign.
    pub(super) fn leads_past(&self, url: &str) -> bool {
        let plain = url.bytes().all(|byte| byte > b' ' && byte != b'\\' && byte != 0x7f);
        let first = url.split(['/', '?', '#']).next().unwrap_or_default();
        let relative = plain && !url.starts_with("//") && !first.contains(':');
        let urn = url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("urn:"));
        !(relative || urn || (plain && self.strip(url).is_some()))
    }

    fn is_public(&self, text: &str) -> bool {
        text.strip_prefix(self.public).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Type and logical id of a record of ours.
    pub(super) fn record<'t>(&self, text: &'t str) -> Option<(ResourceType, &'t str)> {
        let path = match self.strip(text) {
            Some(rest) => rest.strip_prefix('/')?,
            // What names no type cannot be one of ours; this is quicker than to take it apart.
            None if !text.starts_with(|first: char| first.is_ascii_uppercase()) => return None,
            None => text,
        };
        let mut segments = without_fragment(path).split('/');
        let (name, id) = (segments.next()?, segments.next().filter(|id| !id.is_empty())?);
        let versioned = match segments.next() {
            Some(history) => history == "_history" && segments.next().is_some(),
            None => true,
        };
        if versioned && segments.next().is_none() { Some((ResourceType::from_name(name)?, id)) } else { None }
    }
}

/// The type a reference text names, wherever the record may live.
pub(super) fn named_type(text: &str) -> Option<ResourceType> {
    let mut segments = without_fragment(text).rsplit('/').skip(1);
    let name = match segments.next()? {
        "_history" => segments.nth(1)?,
        name => name,
    };
    ResourceType::from_name(name)
}

fn without_fragment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

/// Scheme and authority are compared without regard to case (RFC 3986 section 6.2.2.1), the path exactly.
fn strip_base<'t>(base: &str, text: &'t str) -> Option<&'t str> {
    let firsts = (text.as_bytes().first()?, base.as_bytes().first()?);
    if !firsts.0.eq_ignore_ascii_case(firsts.1) {
        return None;
    }
    let (head, rest) = text.split_at_checked(base.len())?;
    let authority = base.find("://").map_or(0, |scheme| scheme + 3);
    let path = base.get(authority..)?.find('/').map_or(base.len(), |slash| authority + slash);
    let same =
        head.get(..path)?.eq_ignore_ascii_case(base.get(..path)?) && head.get(path..)? == base.get(path..)?;
    (same && rest.starts_with('/')).then_some(rest)
}
