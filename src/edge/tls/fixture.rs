//! Certificates for tests, made on the spot.
//!
//! Owns: a certificate authority in a temporary directory. Must never: be compiled into the product.
//! Look next: the tests of `listener` and `upstream`.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use super::{CertificateFiles, ClientFiles, ServerFiles, ServerTls};

/// A certificate authority whose files live as long as it does.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate for `name`, written to `{file}.pem` and `{file}.key`.
    pub(crate) fn issue(&self, file: &str, name: &str) -> CertificateFiles {
        self.issue_until(file, name, 2100)
    }

    pub(crate) fn issue_until(&self, file: &str, name: &str, year: i32) -> CertificateFiles {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            certificate: self.path(&format!("{file}.pem")),
            private_key: self.path(&format!("{file}.key")),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.private_key, key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn server(&self) -> std::sync::Arc<ServerTls> {
        let own = self.issue("server", "localhost");
        ServerTls::load(ServerFiles { own, client_ca: None }).unwrap()
    }

    pub(crate) fn client(&self) -> ClientFiles {
        ClientFiles { ca: Some(self.ca()), own: None }
    }
}
