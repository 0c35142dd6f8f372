//! What files make a TLS configuration, and what is offered. Handshakes are tested in `listener`.
//!
//! Owns: the list of what must be refused. Must never: leave a key behind. Look next: `fixture`.

use std::fs;

use super::fixture::Authority;
use super::*;

fn error_of(own: CertificateFiles, client_ca: Option<PathBuf>) -> String {
    ServerTls::load(ServerFiles { own, client_ca }).unwrap_err().to_string()
}

#[test]
fn files_that_do_not_serve_are_refused_by_name() {
    let authority = Authority::new();
    let good = authority.issue("good", "localhost");
    let other = authority.issue("other", "localhost");
    fs::write(authority.path("empty"), "").unwrap();
    fs::write(authority.path("text"), "not pem").unwrap();
    fs::write(authority.path("junk"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    fs::write(authority.path("huge"), vec![b'a'; usize::try_from(PEM_BYTES_MAX).unwrap() + 1]).unwrap();
    let with = |certificate: &str, private_key: &str| CertificateFiles {
        certificate: authority.path(certificate),
        private_key: authority.path(private_key),
    };
    let cases = [
        (with("good.pem", "other.key"), None, "does not belong"),
        (with("gone.pem", "good.key"), None, "cannot read"),
        (with("good.pem", "gone.key"), None, "cannot read"),
        (with("empty", "good.key"), None, "no usable certificate in"),
        (with("text", "good.key"), None, "no usable certificate in"),
        (with("junk", "good.key"), None, "no usable certificate in"),
        (with("huge", "good.key"), None, "is larger than"),
        (with("good.pem", "good.pem"), None, "no usable private key in"),
        (good.clone(), Some("empty"), "no usable certificate in"),
        (good.clone(), Some("junk"), "no usable certificate in"),
        (good.clone(), Some("gone.pem"), "cannot read"),
    ];
    for (own, ca, part) in cases {
        let message = error_of(own.clone(), ca.map(|ca| authority.path(ca)));
        assert!(message.contains(part), "{own:?}: {message}");
    }
    assert!(ServerTls::load(ServerFiles { own: other, client_ca: Some(authority.ca()) }).is_ok());
    let wrong = ClientFiles { ca: Some(authority.ca()), own: Some(with("good.pem", "other.key")) };
    assert!(matches!(client_config(&wrong), Err(TlsError::Mismatch(_))));
}

#[test]
fn a_reload_that_fails_keeps_the_last_good_configuration() {
    let authority = Authority::new();
    let tls = authority.server();
    let first = tls.current();
    fs::write(authority.path("server.pem"), "half a certifi").unwrap();
    assert!(tls.reload().is_err());
    assert!(Arc::ptr_eq(&first, &tls.current()));
    authority.issue("server", "localhost");
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&first, &tls.current()));
}

#[test]
fn only_forward_secret_aead_suites_and_no_early_data_are_offered() {
    let names: Vec<String> =
        provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(names.len(), 9);
    for name in names {
        assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
        assert!(name.contains("GCM") || name.contains("POLY1305"), "{name}");
    }
    let authority = Authority::new();
    let config = authority.server().current();
    assert_eq!(config.max_early_data_size, 0);
    assert_eq!(config.alpn_protocols, [ALPN_HTTP2, ALPN_HTTP1]);
    let own = authority.issue("server", "localhost");
    let asking = ServerTls::load(ServerFiles { own, client_ca: Some(authority.ca()) }).unwrap().current();
    assert_eq!(asking.send_tls13_tickets, 0, "no resumption where client certificates count");
    assert!(!asking.ticketer.enabled());
}

#[test]
fn debug_output_holds_no_key() {
    let authority = Authority::new();
    let tls = authority.server();
    let key = fs::read_to_string(authority.path("server.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!format!("{tls:?}").contains(secret));
}
