//! `chartgate policy key|sign|verify|rollback`: signed bundles, and the one way back to an older version.
//!
//! Owns: the arguments and what is printed. Must never: print a private key, or sign what does not load or fails its cases.
//! Look next: `edge::policy_bundle`, docs/operators.md.

use super::{Which, directory};
use crate::cli::{ConfigFile, Ending, audit, show};
use crate::config::{self, Problem};
use crate::domain::access::{self, Release};
use crate::domain::ledger::VerifierKey;
use crate::edge::orders::Order;
use crate::edge::policy_bundle::{self, MANIFEST};
use crate::edge::policy_files::{Extent, Folder};
use crate::{app, clock, limits};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `policy key --name N --key FILE [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Key {
    /// The bundle's name, which is its key's: no spaces, no `+`
    #[arg(long)]
    name: String,
    /// Ed25519 private key, PKCS#8 PEM; made when it is not there
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `policy sign DIRECTORY|--config F --name N --key FILE --version V [--out FILE] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Sign {
    #[command(flatten)]
    which: Which,
    /// The bundle's name, which is its key's
    #[arg(long)]
    name: String,
    /// Ed25519 private key, PKCS#8 PEM (`policy key` makes one)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Higher than that of any bundle that was in force
    #[arg(long)]
    version: u64,
    /// Where the manifest is written; `bundle.note` in the directory when nothing is said
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `policy verify DIRECTORY|--config F [--signer KEY] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    which: Which,
    /// A verifier key as `policy key` prints it; may be given more than once. With `--config`, its `policies.signers`
    #[arg(long = "signer", value_name = "KEY")]
    signers: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// `policy rollback --config F --version V --hash H --reason TEXT [--as NAME] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    config: ConfigFile,
    /// The version that may be taken again
    #[arg(long)]
    version: u64,
    /// The hash of its set, as `policy verify` prints it
    #[arg(long)]
    hash: String,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    /// Who orders it, for the record
    #[arg(long = "as", value_name = "NAME", default_value = "")]
    operator: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn key(key: &Key) -> Ending {
    match policy_bundle::verifier(&key.name, &key.key, true) {
        Ok(verifier) if key.json => good(&json!({ "signer": verifier.to_string() }).to_string()),
        Ok(verifier) => good(&verifier.to_string()),
        Err(why) => no(&why),
    }
}

pub(super) fn sign(sign: &Sign) -> Ending {
    let directory = match directory(&sign.which) {
        Ok(directory) => directory,
        Err(problems) => return show::problems(&problems, sign.json),
    };
    let signed = policy_bundle::sign(&directory, (&sign.name, &sign.key), sign.version, clock::now());
    let (manifest, note) = match signed {
        Ok(signed) => signed,
        Err(problems) => return show::problems(&located(&directory, problems), sign.json),
    };
    let out = sign.out.clone().unwrap_or_else(|| directory.join(MANIFEST));
    if let Err(error) = policy_bundle::write(&out, &note) {
        return no(&format!("`{}`: {error}", out.display()));
    }
    let (release, files) = (&manifest.release, manifest.len());
    if sign.json {
        let told = json!({
            "name": sign.name, "version": release.version, "hash": release.set, "files": files,
            "manifest": out.display().to_string(),
        });
        return good(&told.to_string());
    }
    good(&format!("version {} of {files} files, set {}, in {}", release.version, release.set, out.display()))
}

pub(super) fn verify(verify: &Verify) -> Ending {
    let (directory, signers) =
        match directory(&verify.which).and_then(|directory| Ok((directory, signers(verify)?))) {
            Ok(found) => found,
            Err(problems) => return show::problems(&problems, verify.json),
        };
    if signers.is_empty() {
        show::error("name a key with `--signer`, or a configuration with `policies.signers`");
        return Ending::WrongUse;
    }
    let checked =
        Folder::read(&directory, Extent::Everything).map_err(|problem| vec![problem]).and_then(|folder| {
            let signed = policy_bundle::verify(&folder, &signers)?;
            Ok((signed, folder.load()?))
        });
    let (signed, set) = match checked {
        Ok(checked) => checked,
        Err(problems) => return show::problems(&located(&directory, problems), verify.json),
    };
    let manifest = &signed.manifest;
    let release = &manifest.release;
    if release.set != set.hash() {
        let message = "was signed for a build with another vocabulary: these files make another set here";
        let problem = Problem::whole_file(&directory.join(MANIFEST).display().to_string(), message);
        return show::problems(&[problem], verify.json);
    }
    if verify.json {
        let told = json!({
            "ok": true, "name": signed.name, "version": release.version, "hash": release.set,
            "created": manifest.created.to_string(), "files": manifest.len(),
        });
        return good(&told.to_string());
    }
    let (version, files) = (release.version, manifest.len());
    good(&format!(
        "{}: version {version}, {files} files, made {}, set {}",
        signed.name, manifest.created, release.set
    ))
}

pub(super) fn rollback(order: &Rollback) -> Ending {
    let Some(release) = Release::new(order.version, &order.hash) else {
        show::error("`--hash` must be the 64 hexadecimal digits that `policy verify` prints");
        return Ending::WrongUse;
    };
    if order.reason.trim().is_empty() || order.reason.len() > limits::ROLLBACK_REASON_BYTES_MAX {
        let most = limits::ROLLBACK_REASON_BYTES_MAX;
        show::error(&format!("`--reason` must say why, in at most {most} bytes"));
        return Ending::WrongUse;
    }
    let settings = match config::load(&order.config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, order.json),
    };
    if settings.policy_terms.signers.is_empty() {
        return no(
            "the configuration has no `policies.signers`: any version is taken, and none need be allowed",
        );
    }
    let trail = app::journal_settings(&settings);
    let recorded = audit::ordered(&trail, &Order::rollback(&release, &order.reason, &order.operator));
    let allowed = recorded
        .and_then(|()| app::recorded_policy_versions(&settings).map_err(|problem| problem.to_string()));
    match allowed {
        Ok(versions) if versions.allowed() == Some(&release) && order.json => {
            good(&json!({ "allowed": { "version": release.version, "hash": release.set } }).to_string())
        }
        Ok(versions) if versions.allowed() == Some(&release) => {
            good(&format!("version {} may be taken again, until a higher one than ever is", release.version))
        }
        Ok(_) => no("it was not recorded: the gate's log says why"),
        Err(why) => no(&why),
    }
}

fn signers(verify: &Verify) -> Result<Vec<VerifierKey>, Vec<Problem>> {
    let wrong = |text: &String| {
        VerifierKey::parse(text).map_err(|error| vec![Problem::whole_file("--signer", error.to_string())])
    };
    if !verify.signers.is_empty() {
        return verify.signers.iter().map(wrong).collect();
    }
    match &verify.which.config {
        Some(file) => config::load(file).map(|settings| settings.policy_terms.signers),
        None => Ok(Vec::new()),
    }
}

fn located(directory: &Path, problems: Vec<access::Problem>) -> Vec<Problem> {
    problems.into_iter().map(|problem| app::policy_problem(directory, problem)).collect()
}

fn good(line: &str) -> Ending {
    show::line(line);
    Ending::Good
}

fn no(why: &str) -> Ending {
    show::error(why);
    Ending::No
}
