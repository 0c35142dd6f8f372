//! The newest control record of some kind, found from the end of the trail.
//!
//! Owns: reading backwards. Must never: take the lock, or pass over an entry that is wrong.
//! Look next: `journal::Reader`; `policy_bundle`, `cli::policy`, which ask.

use super::journal::{Finding, Found, Keys, Reader, Settings};
use crate::domain::audit::{Assembly, Control, Record};

/// What `pick` takes of the newest control record that it takes anything of, and whether entries were withheld on the way.
///
/// # Errors
/// When the trail cannot be read as far back as that.
pub fn newest<T>(
    trail: &Settings,
    keys: &Keys,
    mut pick: impl FnMut(Control) -> Option<T>,
) -> Result<(Option<T>, bool), Finding> {
    let mut reader = Reader::open(&trail.directory, keys)?.reading_on();
    let mut is_withheld = false;
    for sequence in (0..reader.checkpoint().size).rev() {
        let part = match reader.entry(sequence)?.1 {
            Found::Part(part) => *part,
            Found::Wrong(finding) => return Err(finding),
            Found::Withheld => {
                is_withheld = true;
                continue;
            }
        };
        // What is no whole record is a part of a decision.
        if let Ok(Some((_, Record::Control(control)))) = Assembly::default().push(sequence, part)
            && let Some(picked) = pick(control)
        {
            return Ok((Some(picked), is_withheld));
        }
    }
    Ok((None, is_withheld))
}
