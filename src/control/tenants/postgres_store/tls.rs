//! TLS towards the registry (`DB_SSL`, `DB_SSL_CA_CERT`).
//!
//! With a file of certification authorities the server's certificate must descend from one of them and bear the host's name.
//! Without, the line is encrypted but the server can be anybody, as with the reference.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::control::certificate;

/// A connector for the registry. Reads the file, once at boot; the error says what is wrong with it.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let config = match ca_file {
        Some(path) => {
            let provider = rustls::crypto::ring::default_provider().into();
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.map_err(|error| error.to_string())?;
            builder.with_root_certificates(authorities(path)?).with_no_client_auth()
        }
        None => (*certificate::any_server().ok_or("no TLS version is usable")?).clone(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let failed = |reason: &dyn std::fmt::Display| format!("DB_SSL_CA_CERT {}: {reason}", path.display());
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        authorities.add(certificate).map_err(|error| failed(&error))?;
    }
    if authorities.is_empty() { Err(failed(&"contains no certificate")) } else { Ok(authorities) }
}
