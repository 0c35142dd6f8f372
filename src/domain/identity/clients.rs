//! The register of applications: what each may be used for, and until when.
//!
//! Owns: what an operator wrote about a client, and the checks that a caller's client must pass (S-001-29, S-003-44,
//! T-198).
//! Must never: give a client anything its token does not have.
//! Look next: `caller.rs`, which carries a client's standing; `config`, where `[[client]]` comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::binding::Binding;
use super::refusal::IdentityRefusal;

/// What sort of application a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// An application that people use, by another company or by patients' choice (SMART App Launch).
    SmartApp,
    /// A program that acts for itself, without a person (SMART Backend Services).
    BackendService,
    /// An application of the hospital's own that its staff use.
    StaffApp,
}

impl ClientKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SmartApp, Self::BackendService, Self::StaffApp];

    /// `smart-app`, `backend-service` or `staff-app`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SmartApp => "smart-app",
            Self::BackendService => "backend-service",
            Self::StaffApp => "staff-app",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How a client's tokens must be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingDemand {
    /// Not at all; a bound token must still be shown to be its sender's.
    None,
    /// To a client certificate (RFC 8705).
    Mtls,
    /// To a key (RFC 9449).
    Dpop,
    /// To either.
    Any,
}

impl BindingDemand {
    /// Every demand.
    pub const ALL: [Self; 4] = [Self::None, Self::Mtls, Self::Dpop, Self::Any];

    /// `none`, `mtls`, `dpop` or `any`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mtls => "mtls",
            Self::Dpop => "dpop",
            Self::Any => "any",
        }
    }

    /// The demand of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|demand| demand.name() == name)
    }

    fn is_met_by(self, binding: Binding) -> bool {
        match self {
            Self::None => true,
            Self::Mtls => binding.by_certificate(),
            Self::Dpop => binding.by_key(),
            Self::Any => binding.by_certificate() || binding.by_key(),
        }
    }
}

/// What stands for a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondFactor {
    /// The issuer's evidence of a person's, as for everybody.
    Person,
    /// For a program that acts for itself: the certificate or key its token is bound to.
    BoundKey,
}

/// A registered application (`[[client]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `client_id` or `azp`, to the letter.
    pub id: String,
    /// What sort of application it is.
    pub kind: ClientKind,
    /// What it may be used for; never empty.
    pub purposes: BTreeSet<String>,
    /// Scopes it may have: what is in both its token and this list counts. Without a list, the token's.
    pub scopes: Option<Vec<String>>,
    /// Roles that count when somebody comes with it; without a list, all of them. A program of its own may
    /// carry no others.
    pub roles: Option<BTreeSet<String>>,
    /// How its tokens must be bound.
    pub binding: BindingDemand,
    /// What stands for a second factor.
    pub second_factor: SecondFactor,
    /// The last day of its agreement (business associate contract, 45 CFR 164.504(e)), in UTC.
    pub agreement_expires: Option<Date>,
}

impl Client {
    /// Whole days until the agreement's last day, 0 on that day, negative after it; none where there is none.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> Option<i64> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let days =
            |date: Date| date.since(Date::constant(1970, 1, 1)).ok().map(|span| i64::from(span.get_days()));
        Some(days(self.agreement_expires?)?.saturating_sub(days(today)?))
    }

    /// Whether a program's bound key stands for a second factor, for this subject and binding.
    pub(super) fn stands_by_key(&self, subject: &str, binding: Binding) -> bool {
        self.kind == ClientKind::BackendService
            && self.second_factor == SecondFactor::BoundKey
            && subject == self.id
            && BindingDemand::Any.is_met_by(binding)
    }
}

/// The registered applications of one issuer, by id.
pub type Clients = BTreeMap<String, Arc<Client>>;

/// How a caller's application stands with us.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// There is no register: every client of a trusted issuer may come.
    Unasked,
    /// There is one, and the client is not in it, or the token names none.
    Unknown,
    /// As registered.
    Registered(Arc<Client>),
}

/// A purpose nobody has: of a caller whose client may not be used for any that the token allows.
pub(super) const NO_PURPOSE: &str = "NONE";

impl Standing {
    pub(super) fn registered(&self) -> Option<&Client> {
        match self {
            Self::Registered(client) => Some(client),
            Self::Unasked | Self::Unknown => None,
        }
    }

    /// The scopes that the register leaves to the application; `None` where it leaves the token's as they are.
    pub(super) fn scopes(&self) -> Option<&[String]> {
        match self {
            Self::Unasked => None,
            Self::Unknown => Some(&[]),
            Self::Registered(client) => client.scopes.as_deref(),
        }
    }

    /// The purposes that both token and register allow. A token that names none leaves it to the register.
    pub(super) fn purposes(&self, token: Vec<String>) -> Vec<String> {
        let both = match self {
            Self::Unasked => return token,
            Self::Unknown => Vec::new(),
            Self::Registered(client) if token.is_empty() => client.purposes.iter().cloned().collect(),
            Self::Registered(client) => {
                token.into_iter().filter(|purpose| client.purposes.contains(purpose)).collect()
            }
        };
        if both.is_empty() { vec![NO_PURPOSE.to_owned()] } else { both }
    }

    /// The roles that count. A program's foreign roles are kept, for [`Standing::admits`] to refuse.
    pub(super) fn roles(&self, token: BTreeSet<String>) -> BTreeSet<String> {
        match self {
            Self::Unasked => token,
            Self::Unknown => BTreeSet::new(),
            Self::Registered(client) => match &client.roles {
                Some(roles) if client.kind != ClientKind::BackendService => &token & roles,
                Some(_) | None => token,
            },
        }
    }
}

/// Why a caller's application may not be used. The token is good, so a new one of the same kind would not help:
/// status 403, except `Unbound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRefusal {
    /// There is a register of clients and this one is not in it.
    Unknown,
    /// Its agreement has ended.
    AgreementEnded,
    /// Its tokens must be bound to a certificate or key, and this one is not.
    Unbound(BindingDemand),
    /// It may not be used for any purpose that the token allows.
    PurposeNotAllowed,
    /// A program's client came with a person: `sub`, `fhirUser` or a role is not the program's.
    UsedByPerson,
    /// A client that people use came without a person.
    WithoutPerson,
}

impl ClientRefusal {
    /// Stable code for audit records and `OperationOutcome`s.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "client-unknown",
            Self::AgreementEnded => "client-agreement-ended",
            Self::Unbound(_) => "client-token-unbound",
            Self::PurposeNotAllowed => "client-purpose-not-allowed",
            Self::UsedByPerson => "client-used-by-person",
            Self::WithoutPerson => "client-without-person",
        }
    }

    /// Whether another token could help.
    #[must_use]
    pub fn is_of_token(self) -> bool {
        matches!(self, Self::Unbound(_))
    }
}

impl From<ClientRefusal> for IdentityRefusal {
    fn from(refusal: ClientRefusal) -> Self {
        Self::Client(refusal)
    }
}

impl fmt::Display for ClientRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "the application is not registered here",
            Self::AgreementEnded => "the agreement about this application has ended",
            Self::Unbound(_) => "the application's tokens must be bound to a certificate or key",
            Self::PurposeNotAllowed => "the application may not be used for this purpose",
            Self::UsedByPerson => "the application is a program's, and a person came with it",
            Self::WithoutPerson => "the application is for people, and nobody came with it",
        })
    }
}

/// What a client's checks look at.
pub(super) struct Visitor<'c> {
    pub(super) subject: &'c str,
    pub(super) application: Option<&'c str>,
    pub(super) fhir_user: Option<&'c str>,
    pub(super) roles: &'c BTreeSet<String>,
    pub(super) purposes: &'c [String],
    pub(super) binding: Binding,
}

impl Standing {
    /// Whether the caller may come with this client at this time.
    pub(super) fn admits(&self, visitor: &Visitor<'_>, now: Timestamp) -> Result<(), ClientRefusal> {
        let client = match self {
            Self::Unasked => return Ok(()),
            Self::Unknown => return Err(ClientRefusal::Unknown),
            Self::Registered(client) => client,
        };
        if client.days_left(now).is_some_and(|days| days < 0) {
            return Err(ClientRefusal::AgreementEnded);
        }
        if !client.binding.is_met_by(visitor.binding) {
            return Err(ClientRefusal::Unbound(client.binding));
        }
        if visitor.purposes.iter().all(|purpose| purpose == NO_PURPOSE) {
            return Err(ClientRefusal::PurposeNotAllowed);
        }
        // RFC 9068 section 2.2: a client acting for itself has its own id as `sub`.
        let alone = visitor.application == Some(visitor.subject);
        match client.kind {
            ClientKind::BackendService if !alone || names_person(client, visitor) => {
                Err(ClientRefusal::UsedByPerson)
            }
            ClientKind::SmartApp | ClientKind::StaffApp if alone => Err(ClientRefusal::WithoutPerson),
            ClientKind::BackendService | ClientKind::SmartApp | ClientKind::StaffApp => Ok(()),
        }
    }
}

/// Whether a program's token has something that only people have.
fn names_person(client: &Client, visitor: &Visitor<'_>) -> bool {
    let own = |role: &String| client.roles.as_ref().is_some_and(|roles| roles.contains(role));
    visitor.fhir_user.is_some() || !visitor.roles.iter().all(own)
}
