//! Purposes of use and what they are part of.
//!
//! Owns: the part of v3-ActReason's PurposeOfUse that is certain in every edition. A purpose that is not here is compared
//! by its name alone, and never certainly another. Must never: call a purpose research that is not.
//! Look next: `criteria`.

use super::criteria::Applies;

/// Each purpose with what it is a part of; nothing for the widest.
const KNOWN: &[(&str, &str)] = &[
    ("TREAT", ""),
    ("ETREAT", "TREAT"),
    ("BTG", "ETREAT"),
    ("ERTREAT", "ETREAT"),
    ("COC", "TREAT"),
    ("HPAYMT", ""),
    ("CLMATTCH", "HPAYMT"),
    ("COVAUTH", "HPAYMT"),
    ("COVERAGE", "HPAYMT"),
    ("ELIGDTRM", "COVERAGE"),
    ("ELIGVER", "COVERAGE"),
    ("ENROLLM", "COVERAGE"),
    ("REMITADV", "HPAYMT"),
    ("HOPERAT", ""),
    ("DONAT", "HOPERAT"),
    ("FRAUD", "HOPERAT"),
    ("GOV", "HOPERAT"),
    ("HACCRED", "HOPERAT"),
    ("HCOMPL", "HOPERAT"),
    ("HDECD", "HOPERAT"),
    ("HDIRECT", "HOPERAT"),
    ("HLEGAL", "HOPERAT"),
    ("HOUTCOMS", "HOPERAT"),
    ("HPRGRP", "HOPERAT"),
    ("HQUALIMP", "HOPERAT"),
    ("HSYSADMIN", "HOPERAT"),
    ("MEMADMIN", "HOPERAT"),
    ("PATADMIN", "HOPERAT"),
    ("PATSFTY", "HOPERAT"),
    ("PERFMSR", "HOPERAT"),
    ("RECORDMGT", "HOPERAT"),
    ("TRAIN", "HOPERAT"),
    ("HMARKT", ""),
    ("HRESCH", ""),
    ("CLINTRCH", "HRESCH"),
    ("PATRQT", ""),
    ("FAMRQT", "PATRQT"),
    ("PWATRNY", "PATRQT"),
    ("SUPNWK", "PATRQT"),
    ("PUBHLTH", ""),
    ("DISASTER", "PUBHLTH"),
    ("THREAT", "PUBHLTH"),
];

/// Whether what is done for `asked` is done for `wanted`.
pub(super) fn is_part_of(asked: &str, wanted: &str) -> Applies {
    let known = |code: &str| KNOWN.iter().any(|(name, _)| *name == code);
    if asked == wanted || around(asked).any(|wider| wider == wanted) {
        return Applies::Yes;
    }
    // Who asks for the wider purpose may have the narrower in mind.
    let may_be = around(wanted).any(|wider| wider == asked);
    if may_be || !known(asked) || !known(wanted) { Applies::Maybe } else { Applies::No }
}

/// Whether a purpose is one of research.
pub(super) fn is_research(asked: &str) -> Applies {
    is_part_of(asked, "HRESCH")
}

/// What a purpose is a part of, the nearest first.
fn around(code: &str) -> impl Iterator<Item = &'static str> {
    let wider = |code: &str| {
        let found = KNOWN.iter().find(|(name, _)| *name == code).map(|(_, wider)| *wider);
        found.filter(|wider| !wider.is_empty())
    };
    std::iter::successors(wider(code), move |code| wider(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_ends_in_a_widest_one() {
        for (code, wider) in KNOWN {
            assert!(wider.is_empty() || KNOWN.iter().any(|(name, _)| name == wider), "{code}");
            assert!(around(code).count() < 4, "{code}");
        }
    }

    #[test]
    fn a_purpose_is_part_of_wider_ones() {
        for (asked, wanted, expected) in [
            ("TREAT", "TREAT", Applies::Yes),
            ("BTG", "TREAT", Applies::Yes),
            ("TREAT", "ETREAT", Applies::Maybe),
            ("TREAT", "HRESCH", Applies::No),
            ("HOUSE-RULE", "HRESCH", Applies::Maybe),
            ("HOUSE-RULE", "HOUSE-RULE", Applies::Yes),
            ("NONE", "TREAT", Applies::Maybe),
            ("CLINTRCH", "HRESCH", Applies::Yes),
        ] {
            assert_eq!(is_part_of(asked, wanted), expected, "{asked} {wanted}");
        }
    }
}
