//! `chartgate audit prove`, `check-proof` and `key`: evidence for people who cannot, or may not, see the trail.
//!
//! Owns: how proofs are printed and what checking one says.
//! Must never: need a secret to check a proof; print anything decrypted.
//! Look next: `edge::journal::prove`, `domain::ledger::pieces`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GOOD, PROBLEM, complain, keys_of_trail, print_lines};
use crate::domain::audit::{self, escape};
use crate::domain::ledger::{Checked, Hash, Piece, SignedCheckpoint, VerifierKey, pieces};
use crate::edge::journal::{Asked, Finding, Settings, entries_of_request, prove as make_proofs, verifier};

/// What `audit prove` was asked for.
#[derive(Debug, Default)]
pub struct Wish {
    /// One entry.
    pub sequence: Option<u64>,
    /// All entries of all records of a request.
    pub request_id: Option<String>,
    /// Leaf hashes in place of entries.
    pub hash_only: bool,
    /// Against the largest cosigned checkpoint.
    pub witnessed: bool,
    /// The bytes of an earlier checkpoint.
    pub from: Option<Vec<u8>>,
    /// One JSON object for each proof, not the text form.
    pub as_json: bool,
    /// Where to write; the terminal when absent.
    pub into: Option<PathBuf>,
}

/// Makes proofs and writes them.
pub fn prove(settings: &Settings, wish: &Wish, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = match proofs(settings, wish) {
        Ok(text) => text,
        Err(why) => return complain(err, &why),
    };
    let Some(path) = &wish.into else {
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        return if written.is_ok() { GOOD } else { PROBLEM };
    };
    match std::fs::write(path, &text) {
        Ok(()) => GOOD,
        Err(error) => complain(err, &format!("`{}` cannot be written: {}", path.display(), error.kind())),
    }
}

fn proofs(settings: &Settings, wish: &Wish) -> Result<String, String> {
    let keys = keys_of_trail(settings)?;
    let told = |finding: Finding| finding.to_string();
    let mut sequences: BTreeSet<u64> = wish.sequence.into_iter().collect();
    if let Some(id) = &wish.request_id {
        sequences.extend(entries_of_request(&settings.directory, &keys, id).map_err(told)?);
    }
    if sequences.is_empty() && wish.from.is_none() {
        return Err("there is no record of this request".to_owned());
    }
    let from = wish.from.as_deref().map(SignedCheckpoint::parse).transpose();
    let from = from.map_err(|error| format!("the earlier checkpoint: {error}"))?;
    let asked = Asked { hash_only: wish.hash_only, witnessed: wish.witnessed, from: from.as_ref() };
    let made = make_proofs(&settings.directory, &keys, &sequences, asked).map_err(told)?;
    let text = |piece: &Piece| match (piece, wish.as_json) {
        (_, true) => format!("{}\n", audit::json(&as_json(piece))),
        (Piece::Inclusion(proof), false) => proof.to_string(),
        (Piece::Consistency(proof), false) => proof.to_string(),
    };
    Ok(made.iter().map(text).collect())
}

fn as_json(piece: &Piece) -> Value {
    let list = |hashes: &[Hash]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
    match piece {
        Piece::Inclusion(proof) => json!({
            "proof": "inclusion",
            "sequence": proof.index,
            "leaf": proof.leaf().to_string(),
            "size": proof.note.checkpoint().size,
            "hashes": list(&proof.hashes),
            "checkpoint": proof.note.to_string(),
            "tlogProof": proof.to_string(),
        }),
        Piece::Consistency(proof) => json!({
            "proof": "consistency",
            "from": proof.old,
            "size": proof.note.checkpoint().size,
            "hashes": list(&proof.proof),
            "checkpoint": proof.note.to_string(),
        }),
    }
}

/// Checks a file of proofs with nothing but public keys. `earlier` is the checkpoint a consistency proof begins at.
pub fn check_proof(
    text: &str,
    (log, witnesses): (&VerifierKey, &[VerifierKey]),
    earlier: Option<&[u8]>,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let earlier = match earlier.map(SignedCheckpoint::parse).transpose() {
        Ok(earlier) => earlier,
        Err(error) => return complain(err, &format!("the earlier checkpoint: {error}")),
    };
    let found = match pieces(text) {
        Ok(found) => found,
        Err(error) => return complain(err, &error),
    };
    let mut code = GOOD;
    for piece in &found {
        code = code.max(match piece.check(log, witnesses, earlier.as_ref()) {
            Ok(checked) => print_lines(out, &[verdict(piece, &checked, as_json)]),
            Err(fault) => complain(err, &format!("{}: {fault}", what(piece))),
        });
    }
    code
}

fn what(piece: &Piece) -> String {
    match piece {
        Piece::Inclusion(proof) => format!("entry {}", proof.index),
        Piece::Consistency(proof) => format!("the state of {} entries", proof.old),
    }
}

fn verdict(piece: &Piece, checked: &Checked, as_json: bool) -> String {
    let time = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map_or_else(String::new, |time| time.to_string())
    };
    let (origin, size) = (&checked.checkpoint.origin, checked.checkpoint.size);
    if as_json {
        let cosigned: Vec<Value> =
            checked.cosigned.iter().map(|(name, at)| json!({"witness": name, "time": time(*at)})).collect();
        let (kind, place, leaf) = match piece {
            Piece::Inclusion(proof) => ("inclusion", proof.index, Some(proof.leaf().to_string())),
            Piece::Consistency(proof) => ("consistency", proof.old, None),
        };
        return audit::json(&json!({
            "holds": true, "proof": kind, "place": place, "leaf": leaf, "origin": origin, "size": size, "cosigned": cosigned,
        }));
    }
    let by: String =
        checked.cosigned.iter().map(|(name, at)| format!(", cosigned by {name} at {}", time(*at))).collect();
    escape(&match piece {
        Piece::Inclusion(proof) => {
            format!(
                "holds: {} (leaf {}) is in `{origin}`, state of {size} entries{by}",
                what(piece),
                proof.leaf()
            )
        }
        Piece::Consistency(_) => {
            format!("holds: {} is a beginning of `{origin}`, state of {size} entries{by}", what(piece))
        }
    })
}

/// Prints the log's verifier key.
pub fn key(settings: &Settings, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    match verifier(&settings.directory, &keys) {
        Ok(key) => print_lines(out, &[key.to_string()]),
        Err(finding) => complain(err, &finding),
    }
}
