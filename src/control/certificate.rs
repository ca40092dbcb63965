//! Judges the certificate of a database server, a tenant's or the registry's: any will do (database.md 2.1, "TLS required,
//! certificate not verified").
//!
//! Databases mostly have self-signed certificates and the settings hold no root to check them against, so encryption protects against listeners and not against impostors, as with the reference. What is still checked is that the
//! server owns the key of the certificate it shows: the handshake is signed with it. X.509 version 1 certificates, which
//! older `openssl x509 -req` makes and rustls does not parse, get the same check on the key found by [`key_of`].

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// One configuration for all servers: nothing in it depends on the server. `None` cannot happen with the built-in provider.
pub fn any_server() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let build = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyCertificate { algorithms: provider.signature_verification_algorithms });
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
    };
    CONFIG.get_or_init(build).clone()
}

/// Accepts every certificate, and a handshake only when its signature is good.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    fn verify_with_bare_key(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (algorithm, key) = key_of(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let candidates = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let verified = candidates.flat_map(|(_, algorithms)| algorithms.iter()).any(|candidate| {
            candidate.public_key_alg_id().as_ref() == algorithm
                && candidate.verify_signature(key, message, signed.signature()).is_ok()
        });
        if verified {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls12_signature(message, certificate, signed, &self.algorithms) {
            Err(error) if unparsed(&error) => self.verify_with_bare_key(message, certificate, signed),
            outcome => outcome,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, certificate, signed, &self.algorithms) {
            Err(error) if unparsed(&error) => self.verify_with_bare_key(message, certificate, signed),
            outcome => outcome,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificate itself was the problem and not the signature. (TLS 1.3 refuses old schemes with another error.)
fn unparsed(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::BadEncoding | CertificateError::Other(_)))
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const VERSION: u8 = 0xa0;

/// Algorithm identifier and key bytes of a certificate's `SubjectPublicKeyInfo`, both without their DER heads.
fn key_of(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, certificate, _) = element(certificate)?;
    let (to_be_signed_tag, to_be_signed, _) = element(certificate)?;
    if tag != SEQUENCE || to_be_signed_tag != SEQUENCE {
        return None;
    }
    let (first, _, after_first) = element(to_be_signed)?;
    // Version 1 has no version field; the serial number comes first then.
    let mut rest = if first == VERSION { element(after_first)?.2 } else { after_first };
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, key_info, _) = element(rest)? else { return None };
    let (SEQUENCE, algorithm, after_algorithm) = element(key_info)? else { return None };
    let (BIT_STRING, key, _) = element(after_algorithm)? else { return None };
    // The first byte of a bit string counts unused bits; a key has none.
    let (0, key) = key.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm, key))
}

/// Splits off the first DER element: its tag, its content and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&short, der) = der.split_first()?;
    let (length, der) = if short < 0x80 {
        (usize::from(short), der)
    } else {
        // TLS carries certificates of less than 2^24 bytes.
        let length_bytes = usize::from(short & 0x7f);
        if !(1..=3).contains(&length_bytes) || der.len() < length_bytes {
            return None;
        }
        let (length, der) = der.split_at(length_bytes);
        (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), der)
    };
    (der.len() >= length).then(|| (tag, &der[..length], &der[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate skeleton: fields of one byte each around the key.
    fn skeleton(version: bool) -> Vec<u8> {
        let mut fields = if version { vec![VERSION, 3, 2, 1, 2] } else { Vec::new() };
        fields.extend([2, 1, 9, SEQUENCE, 1, 1, SEQUENCE, 1, 2, SEQUENCE, 1, 3, SEQUENCE, 1, 4]);
        fields.extend([SEQUENCE, 9, SEQUENCE, 2, 6, 0, BIT_STRING, 3, 0, 0xaa, 0xbb]);
        let inner = [&[SEQUENCE, u8::try_from(fields.len()).unwrap()], fields.as_slice()].concat();
        [&[SEQUENCE, 0x81, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat()
    }

    #[test]
    fn the_key_is_found_with_and_without_a_version_field() {
        for version in [true, false] {
            assert_eq!(key_of(&skeleton(version)), Some((&[6, 0][..], &[0xaa, 0xbb][..])), "version field: {version}");
        }
    }

    #[test]
    fn damaged_certificates_have_no_key_and_do_not_panic() {
        let whole = skeleton(true);
        for length in 0..whole.len() {
            assert_eq!(key_of(&whole[..length]), None, "cut to {length}");
        }
        for position in 0..whole.len() {
            for byte in 0..=255 {
                let mut damaged = whole.clone();
                damaged[position] = byte;
                let _ = key_of(&damaged);
            }
        }
    }
}
