//! TLS, in and out.
//!
//! Owns: the one list of versions, suites and groups; certificates and keys from PEM files, checked to
//! fit together; their reload. Nothing older than TLS 1.2, forward secrecy and AEAD only (SP 800-52r2,
//! RFC 9325), no early data, and rustls has neither renegotiation nor compression.
//! Must never: offer a way to leave a certificate unchecked; print key material.
//! Look next: `listener` and `upstream`, which are handed the configurations.

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
mod validity;

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self as aws_lc, cipher_suite, kx_group};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::PEM_BYTES_MAX;

pub use validity::chain_end;

/// HTTP/2 as ALPN names it.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// HTTP/1.1 as ALPN names it.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A certificate chain (leaf first) and its private key, each a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

/// What a server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// Who we are.
    pub own: CertificateFiles,
    /// Roots for client certificates: asked for, not demanded, verified when presented.
    pub client_ca: Option<PathBuf>,
}

/// What a client needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The roots to trust instead of the machine's.
    pub ca: Option<PathBuf>,
    /// Who we are, to servers that ask.
    pub own: Option<CertificateFiles>,
}

/// A server's TLS configuration that can be read again while it is in use: new connections get the new
/// one, open connections keep theirs, and a set of files that does not work changes nothing.
pub struct ServerTls {
    files: ServerFiles,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why a set of files makes no TLS configuration. The paths are the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The file cannot be read.
    Unreadable(PathBuf, ErrorKind),
    /// The file is larger than `PEM_BYTES_MAX`.
    TooLarge(PathBuf),
    /// No usable certificate in the file.
    NoCertificate(PathBuf),
    /// No usable private key in the file.
    NoKey(PathBuf),
    /// The private key is not the certificate's.
    Mismatch(CertificateFiles),
    /// The machine has no root certificates, and none are configured.
    NoRoots,
    /// The TLS library refused the configuration.
    Unusable,
}

/// The cryptography of every connection of this program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc::default_provider()
    })
}

impl ServerTls {
    /// Reads the files and checks that they fit together.
    ///
    /// # Errors
    /// A [`TlsError`] naming the file.
    pub fn load(files: ServerFiles) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(server_config(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again. New connections use them from now on.
    ///
    /// # Errors
    /// A [`TlsError`]; the last good configuration stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(server_config(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The files to watch.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let own = &self.files.own;
        let mut files = vec![own.certificate.clone(), own.private_key.clone()];
        files.extend(self.files.client_ca.clone());
        files
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ClientFiles {
    /// The files to watch.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.ca.iter().cloned().collect();
        if let Some(own) = &self.own {
            files.extend([own.certificate.clone(), own.private_key.clone()]);
        }
        files
    }
}

/// A client configuration that verifies the server's chain, name and validity against `ca`, or against
/// the machine's roots. ALPN is left to the HTTP client.
///
/// # Errors
/// A [`TlsError`] naming the file.
pub fn client_config(files: &ClientFiles) -> Result<ClientConfig, TlsError> {
    let roots = match &files.ca {
        Some(ca) => roots_from(ca)?,
        None => native_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| TlsError::Unusable)?
        .with_root_certificates(roots);
    Ok(match &files.own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(own)?))),
        None => builder.with_no_client_auth(),
    })
}

fn server_config(files: &ServerFiles) -> Result<ServerConfig, TlsError> {
    let own = Arc::new(SingleCertAndKey::from(certified_key(&files.own)?));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| TlsError::Unusable)?;
    let mut config = match &files.client_ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_from(ca)?), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|_| TlsError::Unusable)?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    config.max_early_data_size = 0;
    config.ignore_client_order = true;
    set_resumption(&mut config, files.client_ca.is_some())?;
    Ok(config)
}

/// Tickets with keys that rotate every six hours. A resumed session brings its client certificate along
/// unverified, so where client certificates count, every connection shakes hands in full.
fn set_resumption(config: &mut ServerConfig, client_certificates: bool) -> Result<(), TlsError> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if client_certificates {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = aws_lc::Ticketer::new().map_err(|_| TlsError::Unusable)?;
    }
    Ok(())
}

/// The chain and key, checked to belong together.
fn certified_key(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read_pem(&files.private_key)?)
        .map_err(|_| TlsError::NoKey(files.private_key.clone()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unfit(&error, files))
}

fn unfit(error: &rustls::Error, files: &CertificateFiles) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        TlsError::Mismatch(files.clone())
    } else if matches!(error, rustls::Error::InvalidCertificate(_)) {
        TlsError::NoCertificate(files.certificate.clone())
    } else {
        TlsError::NoKey(files.private_key.clone())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_pem(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

fn roots_from(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsError::NoCertificate(path.to_owned()))?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error: std::io::Error| TlsError::Unreadable(path.to_owned(), error.kind());
    let mut pem = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > PEM_BYTES_MAX { Err(TlsError::TooLarge(path.to_owned())) } else { Ok(pem) }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Unreadable(path, kind) => write!(f, "cannot read `{}`: {kind}", path.display()),
            TlsError::TooLarge(path) => {
                write!(f, "`{}` is larger than {PEM_BYTES_MAX} bytes", path.display())
            }
            TlsError::NoCertificate(path) => write!(f, "no usable certificate in `{}`", path.display()),
            TlsError::NoKey(path) => write!(f, "no usable private key in `{}`", path.display()),
            TlsError::Mismatch(files) => write!(
                f,
                "the private key in `{}` does not belong to the certificate in `{}`",
                files.private_key.display(),
                files.certificate.display()
            ),
            TlsError::NoRoots => f.write_str("this machine has no root certificates; name a CA file"),
            TlsError::Unusable => f.write_str("the TLS library refused the configuration"),
        }
    }
}

impl std::error::Error for TlsError {}
