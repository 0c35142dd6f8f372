//! The people of the demo: who they are, what their tokens say, how they log in.
//!
//! Owns: `Persona`, the six personas, their raw role values and what these mean.
//! Must never: hold a fixed second factor: one-time-code secrets are drawn when the issuer starts.
//! Look next: `issuer::Issuer`, `charts` (the records they are linked to).

use std::fmt;

use aws_lc_rs::rand;
use totp_rs::{Algorithm, Builder, Secret, Totp};

use super::IssuerError;

/// A person who can log in. Synthetic.
#[derive(Clone)]
pub struct Persona {
    /// Short name: `nurse`, `physician`, `front-desk`, `billing-clerk`, `researcher`, `patient`.
    pub name: &'static str,
    /// User name at the login.
    pub user: &'static str,
    /// Display name.
    pub display: &'static str,
    /// The `sub` claim.
    pub subject: &'static str,
    /// The password. For a sandbox; it opens nothing else.
    pub password: &'static str,
    /// The values of the `roles` claim, as a hospital directory would write them.
    pub roles: &'static [&'static str],
    /// The `purpose_of_use` claim, an HL7 PurposeOfUse code.
    pub purpose: &'static str,
    /// The `fhirUser` claim, `Type/id` in `charts`.
    pub fhir_user: Option<&'static str>,
    /// The `patient` claim (launch patient), a logical id in `charts`.
    pub patient: Option<&'static str>,
    /// The `scope` claim.
    pub scope: &'static str,
    /// The client (`client_id` and `azp`).
    pub client: &'static str,
    totp: Totp,
}

/// Raw role values of the personas, and the role names the shipped policies use: a ready `[issuer] roles` table.
pub const ROLE_NAMES: &[(&str, &str)] = &[
    ("hosp-rn", "nurse"),
    ("hosp-md", "physician"),
    ("hosp-reg", "front-desk"),
    ("hosp-billing", "billing-clerk"),
    ("hosp-research", "researcher"),
    ("portal-patient", "patient"),
];

impl Persona {
    /// The one-time-code secret, base32, for an authenticator app.
    #[must_use]
    pub fn totp_secret(&self) -> String {
        base32(self.totp.secret().as_bytes())
    }

    /// The one-time code that is valid now (RFC 6238: SHA-1, 6 digits, 30 s).
    #[must_use]
    pub fn code(&self) -> String {
        self.code_at(super::now_seconds())
    }

    /// The one-time code at `seconds` since 1970.
    #[must_use]
    pub fn code_at(&self, seconds: u64) -> String {
        self.totp.generate(seconds).to_string()
    }

    /// The code of now, or of one step before or after.
    pub(super) fn accepts(&self, code: &str) -> bool {
        self.totp.check(code.trim(), super::now_seconds()).is_some()
    }
}

impl fmt::Debug for Persona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Persona({})", self.name)
    }
}

/// The six, each with a fresh one-time-code secret.
pub(super) fn all() -> Result<Vec<Persona>, IssuerError> {
    Ok(vec![
        Persona { patient: None, ..staff("nurse", "hosp-rn", "TREAT", Some("Practitioner/pr-nurse"))? },
        staff("physician", "hosp-md", "TREAT", Some("Practitioner/pr-physician"))?,
        staff("front-desk", "hosp-reg", "HOPERAT", None)?,
        staff("billing-clerk", "hosp-billing", "HPAYMT", None)?,
        staff("researcher", "hosp-research", "HRESCH", None)?,
        Persona {
            fhir_user: Some("Patient/p1"),
            patient: Some("p1"),
            scope: "openid fhirUser launch/patient patient/*.rs",
            client: "patient-portal",
            ..staff("patient", "portal-patient", "PATRQT", None)?
        },
    ])
}

fn staff(
    name: &'static str,
    role: &'static str,
    purpose: &'static str,
    fhir_user: Option<&'static str>,
) -> Result<Persona, IssuerError> {
    let (display, password, roles): (_, _, &'static [&'static str]) = match role {
        "hosp-rn" => ("Test Nurse", "nurse-demo", &["hosp-rn"]),
        "hosp-md" => ("Test Physician", "physician-demo", &["hosp-md"]),
        "hosp-reg" => ("Test Front Desk", "front-desk-demo", &["hosp-reg"]),
        "hosp-billing" => ("Test Billing Clerk", "billing-clerk-demo", &["hosp-billing"]),
        "hosp-research" => ("Test Researcher", "researcher-demo", &["hosp-research"]),
        _ => ("Test Patient", "patient-demo", &["portal-patient"]),
    };
    Ok(Persona {
        name,
        user: name,
        display,
        subject: name,
        password,
        roles,
        purpose,
        fhir_user,
        patient: None,
        scope: "openid fhirUser user/*.rs",
        client: "ward-app",
        totp: totp()?,
    })
}

fn totp() -> Result<Totp, IssuerError> {
    let mut secret = [0u8; 20];
    rand::fill(&mut secret).map_err(|_| IssuerError::Keys)?;
    let builder =
        Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1).with_step_duration(30);
    builder.with_secret(Secret::new_stack(secret)).build().map_err(|_| IssuerError::Keys)
}

/// RFC 4648 base32 without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    let (mut held, mut bits) = (0u32, 0u32);
    let letter = |five: u32| LETTERS.get((five & 31) as usize).map_or('A', |b| char::from(*b));
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(letter(held >> bits));
        }
    }
    if bits > 0 {
        out.push(letter(held << (5 - bits)));
    }
    out
}
