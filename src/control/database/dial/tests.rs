use std::sync::Arc;
use tokio::net::TcpListener;

use super::super::authorization::testing::settings;
use super::*;

/// Settings that lead to a listener of the test.
async fn listener() -> (TcpListener, DatabaseSettings) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, DatabaseSettings { host: "127.0.0.1".to_owned(), port, tls: true, ..settings("postgres") })
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_enforced() {
    let mut settings = settings("postgres");
    assert!(dial(&settings).await.unwrap().ipv4);
    settings.tls = true;
    assert_eq!(dial(&settings).await.unwrap_err(), DialError::TlsRefused);
}

#[tokio::test]
async fn answers_that_are_not_postgres_are_errors() {
    for answer in [&b"E"[..], b"HTTP/1.1 400", b"S garbage that is no handshake", b""] {
        let (listener, settings) = listener().await;
        let serve = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            tcp.read_exact(&mut request).await.unwrap();
            assert_eq!(request, SSL_REQUEST);
            tcp.write_all(answer).await.unwrap();
        };
        let (dialed, ()) = tokio::join!(dial(&settings), serve);
        assert!(matches!(dialed, Err(DialError::Tls(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_listening_and_nobody_known_are_different_errors() {
    let (listener, mut settings) = listener().await;
    drop(listener);
    assert_eq!(dial(&settings).await.unwrap_err(), DialError::Connect(io::ErrorKind::ConnectionRefused));
    settings.host = "no-such-host.invalid".to_owned();
    assert!(matches!(dial(&settings).await, Err(DialError::Resolve(_))));
}

#[tokio::test]
async fn the_next_address_is_tried_after_a_failure_and_beside_a_silent_one() {
    let (listener, _) = listener().await;
    let good = listener.local_addr().unwrap();
    let (closed, _) = self::listener().await;
    let refusing = closed.local_addr().unwrap();
    drop(closed);
    // TEST-NET-1 (RFC 5737): unreachable at once or silent for ever, depending on the network.
    let silent: SocketAddr = "192.0.2.1:5432".parse().unwrap();
    for addresses in [vec![refusing, good], vec![silent, good], vec![silent, refusing, good]] {
        let connecting = tokio::time::timeout(Duration::from_secs(2), first_to_connect(&addresses));
        assert_eq!(connecting.await.unwrap().unwrap().0, good, "{addresses:?}");
    }
    assert!(matches!(first_to_connect(&[]).await, Err(DialError::Resolve(_))));
    assert!(matches!(first_to_connect(&[refusing, refusing]).await, Err(DialError::Connect(_))));
}

#[test]
fn tls_is_configured() {
    assert!(certificate::any_server().is_some());
}

/// One DER element of less than 256 bytes.
fn der(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let content = contents.concat();
    let length = u8::try_from(content.len()).unwrap();
    let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [head, content].concat()
}

/// A certificate of version 1 or 3 for a P-256 key; its own signature is nonsense, which nobody may mind.
fn certificate_of(public_key: &[u8], version_3: bool) -> Vec<u8> {
    let elliptic_curve = der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]]);
    let p256 = der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]]);
    let key_info = der(0x30, &[&der(0x30, &[&elliptic_curve, &p256]), &der(3, &[&[0], public_key])]);
    let ecdsa_sha256 = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let version = if version_3 { der(0xa0, &[&[2, 1, 2]]) } else { Vec::new() };
    let validity = der(0x30, &[&der(0x17, &[b"240101000000Z"]), &der(0x17, &[b"340101000000Z"])]);
    let (serial, nobody) = (der(2, &[&[9]]), der(0x30, &[]));
    let to_be_signed = der(0x30, &[&version, &serial, &ecdsa_sha256, &nobody, &validity, &nobody, &key_info]);
    der(0x30, &[&to_be_signed, &ecdsa_sha256, &der(3, &[&[0, 9]])])
}

/// Shows the same certificate to everybody.
#[derive(Debug)]
struct Showing(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Showing {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Dials a server that shows a certificate, of its own key or of somebody else's, and exchanges a byte with it.
async fn exchange(version: &'static rustls::SupportedProtocolVersion, version_3: bool, own_key: bool) -> Result<u8, DialError> {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let random = ring::rand::SystemRandom::new();
    let generate = || EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let private = generate();
    let shown = if own_key { private.as_ref().to_vec() } else { generate().as_ref().to_vec() };
    let shown = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &shown, &random).unwrap();
    let certificate = CertificateDer::from(certificate_of(shown.public_key().as_ref(), version_3));
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private.as_ref().to_vec()));
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&private).unwrap();
    let resolver = Arc::new(Showing(Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], key))));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_cert_resolver(resolver)));

    let (listener, settings) = listener().await;
    let serve = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_exact(&mut [0; 8]).await.unwrap();
        tcp.write_all(b"S").await.unwrap();
        let Ok(mut tls) = acceptor.accept(tcp).await else { return };
        let byte = tls.read_u8().await.unwrap_or_default();
        let _ = tls.write_all(&[byte + 1]).await;
        let _ = tls.shutdown().await;
    };
    let ask = async {
        let mut stream = dial(&settings).await?.stream;
        assert!(matches!(stream, Stream::Tls(_)));
        stream.write_u8(41).await.unwrap();
        stream.flush().await.unwrap();
        Ok(stream.read_u8().await.unwrap())
    };
    tokio::join!(ask, serve).0
}

#[tokio::test]
async fn any_certificate_will_do_but_its_key_must_be_the_servers() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for version_3 in [true, false] {
            assert_eq!(exchange(version, version_3, true).await, Ok(42), "{version:?}, version 3: {version_3}");
            let stolen = exchange(version, version_3, false).await;
            assert!(matches!(&stolen, Err(DialError::Tls(text)) if text.contains("BadSignature")), "{stolen:?}");
        }
    }
}
