//! A certificate authority of a test's own, and the certificate of its Redis.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::keeper;

pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let mut own = CertificateParams::new(Vec::new()).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();

        let made = Self(keeper::folder());
        std::fs::write(made.file(), authority.pem()).unwrap();
        std::fs::write(made.certificate(), certificate.pem()).unwrap();
        std::fs::write(made.key(), key.serialize_pem()).unwrap();
        made
    }

    /// The authority's certificate, for a client's `SSL_CERT_FILE`.
    pub fn file(&self) -> PathBuf {
        self.0.path().join("authority.pem")
    }

    /// The certificate of `localhost` and `127.0.0.1`.
    pub fn certificate(&self) -> PathBuf {
        self.0.path().join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.0.path().join("server.key")
    }
}
