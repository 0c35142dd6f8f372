//! Witnesses: what each has cosigned last, as it is kept beside the trail.
//!
//! Owns: what is said of them. Must never: send a witness anything: that is the running gate's to do.
//! Look next: `edge::cosigning`, `edge::journal::Witnessed`.

use super::list::Checklist;
use crate::config::Settings;
use crate::edge::journal::{self, Keys, Witnessed};
use crate::{app, clock};
use jiff::SignedDuration;

const TRAIL: &str = "trail";

/// The age of each witness's newest cosignature.
pub(super) fn examine(list: &mut Checklist, settings: &Settings) {
    let trail = app::journal_settings(settings);
    // A trail or key that cannot be had is told of elsewhere.
    let Ok(keys) = Keys::load(&trail) else { return };
    let Ok(log) = journal::verifier(&trail.directory, &keys) else { return };
    let age_max = SignedDuration::try_from(settings.audit.witness_max_age).unwrap_or(SignedDuration::MAX);
    for witness in &settings.audit.witnesses {
        let name = witness.key.name();
        let hint = "`serve` asks it; look at its log for `not cosigned`, and at docs/witness.md";
        match Witnessed::kept(&trail.directory, &log.public(), &witness.key) {
            Ok(Some(kept)) => {
                let age = clock::now().duration_since(kept.at);
                let (size, minutes) = (kept.checkpoint().size, age.as_mins());
                let what = format!("`{name}` cosigned {size} entries {minutes} minutes ago");
                if age > age_max {
                    list.warn(TRAIL, "witness-age", what, hint);
                } else {
                    list.pass(TRAIL, "witness-age", what);
                }
            }
            Ok(None) => {
                list.warn(TRAIL, "witness-missing", format!("`{name}` has cosigned nothing yet"), hint)
            }
            Err(error) => {
                let hint = "`chartgate audit verify` says the same; the file was changed, or cannot be read";
                list.fail(TRAIL, "witness-file", format!("what `{name}` cosigned: {error}"), hint);
            }
        }
    }
}
