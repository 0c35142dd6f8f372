//! Statements: what a log says of itself besides its state, signed with its key as its checkpoints are.
//!
//! Owns: the one spelling of a statement, and that none can be taken for a checkpoint or for one of another kind or log.
//! Must never: read or write a file; know what a statement is about.
//! Look next: `note` for the signature; `edge::journal`, which writes statements about keys and about what is withheld.
//!
//! ```text
//! chartgate audit data key      its kind; a checkpoint has the origin here
//! chartgate/0b1c…               origin; a checkpoint has its size here
//! …                             lines, none of them empty
//!
//! — chartgate/0b1c… Az3grl…     signature, as below a checkpoint
//! ```

use super::note::{LogKey, LogSigner, NoteError, check_signature, sign_note};

fn text(kind: &str, origin: &str, lines: &[String]) -> String {
    let head = [kind, origin].into_iter().chain(lines.iter().map(String::as_str));
    head.fold(String::new(), |text, line| text + line + "\n")
}

/// The statement as a signed note. `lines`: at least one, none of them empty, none with a line end.
///
/// # Errors
/// [`NoteError::Malformed`] for other lines, [`NoteError::Unsigned`] when the cryptographic library fails.
pub fn sign_statement(
    signer: &LogSigner,
    kind: &str,
    origin: &str,
    lines: &[String],
) -> Result<Vec<u8>, NoteError> {
    let is_line = |line: &String| !line.is_empty() && !line.contains('\n');
    if lines.is_empty() || !lines.iter().all(is_line) {
        return Err(NoteError::Malformed);
    }
    sign_note(signer, origin, &text(kind, origin, lines))
}

/// The lines of a statement of this kind by the log `origin`, in the only spelling that [`sign_statement`] writes.
///
/// # Errors
/// [`NoteError`] says in which way it is no such statement.
pub fn verify_statement(
    key: &LogKey,
    kind: &str,
    origin: &str,
    note: &[u8],
) -> Result<Vec<String>, NoteError> {
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    let (body, signatures) = note.split_once("\n\n").ok_or(NoteError::Malformed)?;
    let mut lines = body.split('\n');
    if lines.next() != Some(kind) {
        return Err(NoteError::Malformed);
    }
    if lines.next() != Some(origin) {
        return Err(NoteError::NotOurs);
    }
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    if lines.is_empty() || lines.iter().any(String::is_empty) {
        return Err(NoteError::Malformed);
    }
    check_signature(key, origin, &text(kind, origin, &lines), signatures)?;
    Ok(lines)
}
