//! What a `_filter` reads: each comparison as the search parameter it stands for.
//!
//! Owns: which operators each parameter type has, and how a path becomes a chain (T-008). Must never: list
//! less than upstream will look at. A condition in brackets is read in the records the reference leads to
//! and, since R4 does not say which it means, in the record that holds it.
//! Look next: `search/filter.rs`, the grammar; `search/name.rs`, which follows each chain.

use super::filter::{Comparison, Filter, Operator};
use super::name::{Names, Trail};
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::SearchType;

const REFUSED: FhirRefusal = FhirRefusal::MalformedValue("_filter");

/// Follows every comparison; references under the public base become relative on the way.
pub(super) fn follow<'n>(
    filter: &mut Filter,
    names: &'n Names<'n>,
    base: &'n PublicBase,
    steps: usize,
) -> Result<Trail<'n>, FhirRefusal> {
    let mut reader = Reader { names, base, trail: Trail::unmoved(names, steps) };
    reader.filter(filter, &[], Context::Stated)?;
    Ok(reader.trail)
}

/// Whether a name must be known where it stands, or is only looked for there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Stated,
    Possible,
}

struct Reader<'n> {
    names: &'n Names<'n>,
    base: &'n PublicBase,
    trail: Trail<'n>,
}

impl Reader<'_> {
    /// `before` are the names of the references that led here.
    fn filter(
        &mut self,
        filter: &mut Filter,
        before: &[String],
        context: Context,
    ) -> Result<(), FhirRefusal> {
        match filter {
            Filter::All(items) | Filter::Any(items) => {
                items.iter_mut().try_for_each(|item| self.filter(item, before, context))
            }
            Filter::Not(inner) => self.filter(inner, before, context),
            Filter::Compare(comparison) => self.compare(comparison, before, context),
        }
    }

    fn compare(
        &mut self,
        comparison: &mut Comparison,
        before: &[String],
        context: Context,
    ) -> Result<(), FhirRefusal> {
        let mut links = before.to_vec();
        for link in &mut comparison.path {
            let holder = links.clone();
            links.push(link.name.clone());
            if let Some(condition) = &mut link.condition {
                self.filter(condition, &links, context)?;
                self.filter(condition, &holder, Context::Possible)?;
            }
        }
        let name = format!("{}{}", links.join("."), modifier(comparison.operator));
        let found = Trail::follow(self.names, &name, self.trail.steps());
        if context == Context::Possible && matches!(found, Err(FhirRefusal::UnknownParameter)) {
            return Ok(());
        }
        let found = found?;
        if context == Context::Stated {
            check(comparison, &found, self.base)?;
        }
        self.trail.absorb(found)
    }
}

fn check(comparison: &mut Comparison, trail: &Trail<'_>, base: &PublicBase) -> Result<(), FhirRefusal> {
    if !trail.kinds().all(|kind| applies(comparison.operator, kind)) {
        return Err(REFUSED);
    }
    let text = &mut comparison.literal.text;
    if trail.ends_in_reference()
        && let Some(local) = super::value::local_reference(text, base)
    {
        *text = local;
    }
    if trail.takes_literal(text) { Ok(()) } else { Err(REFUSED) }
}

/// The modifier that reads what this operator reads.
fn modifier(operator: Operator) -> &'static str {
    match operator {
        Operator::Pr => ":missing",
        Operator::Ss => ":above",
        Operator::Sb => ":below",
        Operator::In => ":in",
        Operator::Ni => ":not-in",
        Operator::Eq
        | Operator::Ne
        | Operator::Co
        | Operator::Sw
        | Operator::Ew
        | Operator::Gt
        | Operator::Lt
        | Operator::Ge
        | Operator::Le
        | Operator::Ap
        | Operator::Sa
        | Operator::Eb
        | Operator::Po
        | Operator::Re => "",
    }
}

/// Composite and special values have no place in this language.
fn applies(operator: Operator, kind: SearchType) -> bool {
    use SearchType::{Composite, Date, Number, Quantity, Reference, Special, String, Token, Uri};
    let kinds: &[SearchType] = match operator {
        Operator::Pr => return !matches!(kind, Composite | Special),
        Operator::Eq | Operator::Ne => &[Number, Date, String, Token, Reference, Quantity, Uri],
        Operator::Co | Operator::Sw | Operator::Ew => &[String, Token, Uri],
        Operator::Gt | Operator::Lt | Operator::Ge | Operator::Le => &[Number, Date, Quantity, String],
        Operator::Ap | Operator::Sa | Operator::Eb => &[Number, Date, Quantity],
        Operator::Po => &[Date],
        Operator::Ss | Operator::Sb => &[Token, Uri, Reference],
        Operator::In | Operator::Ni => &[Token],
        Operator::Re => &[Reference],
    };
    kinds.contains(&kind)
}
