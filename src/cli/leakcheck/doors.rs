//! Policies with every door open: what a role may see stays as it is, what it may do is everything.
//!
//! Owns: the further policies, in a temporary copy of the directory. Must never: permit an element outward.
//! Look next: `check`.

use super::sight::Role;
use crate::cli::demo::stage::POLICIES;
use std::path::Path;
use tempfile::TempDir;

/// Not `export`: it would open types that the role may not read, and elements are disclosed whatever opened the record.
const ACTIONS: &str = r#"Action::"create", Action::"update", Action::"patch", Action::"delete", Action::"operate", Action::"modify""#;

/// A directory with these policies (the demo's, shipped ones, when none are given) and those that open every door.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn open(given: Option<&Path>, roles: &[&Role]) -> Result<TempDir, String> {
    let said = |error: std::io::Error| error.to_string();
    let folder = TempDir::with_prefix("chartgate-doors-").map_err(said)?;
    match given {
        None => {
            for (name, text) in POLICIES {
                std::fs::write(folder.path().join(name), text).map_err(said)?;
            }
        }
        Some(given) => {
            for file in std::fs::read_dir(given).map_err(said)? {
                let file = file.map_err(said)?;
                if file.file_type().map_err(said)?.is_file() {
                    std::fs::copy(file.path(), folder.path().join(file.file_name())).map_err(said)?;
                }
            }
        }
    }
    let policies: String = roles.iter().enumerate().map(|(place, role)| policy(place, role)).collect();
    std::fs::write(folder.path().join("leakcheck-doors.cedar"), policies).map_err(said)?;
    Ok(folder)
}

fn policy(place: usize, role: &Role) -> String {
    // Purposes and names come from the command line; as Cedar strings they end nowhere early.
    let (name, purpose) = (role.name.escape_default(), role.purpose.escape_default());
    format!(
        "@id(\"leakcheck-doors-{place}\")\npermit (principal in Role::\"{name}\", action in [{ACTIONS}], resource)\n\
         when {{ context.purpose == \"{purpose}\" }};\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::leakcheck::shipped;

    #[test]
    fn the_policies_load_and_show_no_more_than_before() {
        let roles = shipped();
        let folder = open(None, &roles.iter().collect::<Vec<_>>()).unwrap();
        let load = |directory: &Path| crate::app::load_policies(directory).unwrap();
        let closed = open(None, &[]).unwrap();
        let before = load(closed.path());
        assert_eq!(load(folder.path()).len(), before.len() + roles.len());
    }
}
