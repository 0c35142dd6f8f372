//! The attacks there are, as data.
//!
//! Owns: name, purpose and strength of each, and which of them were asked for.
//! Must never: hold how an attack is done.
//! Look next: `lanes` and `floods`, which do them.

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    SlowHeads,
    SlowBodies,
    SlowReaders,
    ZeroWindow,
    Headers,
    Headers2,
    Continuations,
    RapidReset,
    MadeYouReset,
    EmptyData,
    Settings,
    Pings,
    Handshakes,
    GiantTokens,
    BadTokens,
    BombsIn,
    BombsOut,
    Connections,
    OnePerson,
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// Rows of the requirements that it tries.
    pub(crate) threat: &'static str,
    pub(crate) about: &'static str,
    /// Attackers at once, at full strength.
    pub(super) lanes: usize,
    pub(super) way: Way,
}

const fn attack(
    name: &'static str,
    threat: &'static str,
    lanes: usize,
    way: Way,
    about: &'static str,
) -> Attack {
    Attack { name, threat, about, lanes, way }
}

/// All of them, in the order of a whole run.
pub(crate) const ATTACKS: [Attack; 19] = [
    attack(
        "slow-heads",
        "T-241",
        300,
        Way::SlowHeads,
        "request heads that come a byte every quarter of a second",
    ),
    attack("slow-bodies", "T-241", 200, Way::SlowBodies, "forms that come a byte every quarter of a second"),
    attack(
        "slow-readers",
        "T-241",
        100,
        Way::SlowReaders,
        "a large answer asked for, and read a little at a time or not",
    ),
    attack(
        "zero-window",
        "T-241",
        4,
        Way::ZeroWindow,
        "a hundred streams each, a large answer on every one, no window",
    ),
    attack("headers", "T-245", 16, Way::Headers, "a thousand header lines, or one of 60 KB, over HTTP/1.1"),
    attack("headers-2", "T-245", 8, Way::Headers2, "header lists of a megabyte over HTTP/2"),
    attack(
        "continuations",
        "T-243",
        8,
        Way::Continuations,
        "a header block that is never ended, full and empty frames",
    ),
    attack(
        "rapid-reset",
        "T-242",
        8,
        Way::RapidReset,
        "requests that are taken back as soon as they are sent",
    ),
    attack(
        "made-you-reset",
        "T-242",
        8,
        Way::MadeYouReset,
        "requests whose next frame makes the gate reset them",
    ),
    attack("empty-data", "T-244", 8, Way::EmptyData, "a form in frames without a byte"),
    attack("settings", "T-244", 8, Way::Settings, "settings without end, each to be acknowledged"),
    attack("pings", "T-244", 8, Way::Pings, "pings without end, each to be answered"),
    attack(
        "handshakes",
        "T-246",
        12,
        Way::Handshakes,
        "TLS handshakes finished and left, begun and left, never begun",
    ),
    attack("giant-tokens", "T-252", 8, Way::GiantTokens, "bearer tokens of 8 KB and of 30 KB"),
    attack("bad-tokens", "T-252", 8, Way::BadTokens, "unknown keys, broken signatures, `none`, noise"),
    attack("bombs-in", "T-247", 4, Way::BombsIn, "forms and records of 64 KB that unfold to 64 MB"),
    attack(
        "bombs-out",
        "T-247",
        4,
        Way::BombsOut,
        "the record system answers with such a bomb, or with endless nesting",
    ),
    attack(
        "connections",
        "T-250",
        1_000,
        Way::Connections,
        "one person holds a thousand connections, each used once",
    ),
    attack(
        "one-person",
        "T-250",
        48,
        Way::OnePerson,
        "one person asks for large answers over 48 connections, all the time",
    ),
];

/// The attacks of these names; `all` for every one.
///
/// # Errors
/// When there is no attack of a name.
pub(crate) fn named(names: &[String]) -> Result<Vec<Attack>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(ATTACKS.to_vec());
    }
    let find = |name: &String| {
        let found = ATTACKS.iter().find(|attack| attack.name == name).copied();
        found.ok_or_else(|| {
            let known: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
            format!("there is no attack `{name}` (hint: `all`, or some of {})", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn attacks_are_found_by_their_names() {
        let names: BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        assert_eq!(named(&["all".to_owned()]).unwrap().len(), ATTACKS.len());
        let two = named(&["pings".to_owned(), "slow-heads".to_owned()]).unwrap();
        assert_eq!((two[0].way, two[1].way), (Way::Pings, Way::SlowHeads));
        assert!(named(&["ping".to_owned()]).unwrap_err().contains("made-you-reset"));
    }
}
