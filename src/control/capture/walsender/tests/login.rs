//! Logging in, against a scripted server.
//!
//! The servers that tests may use trust everyone, so the other side of each method is played
//! here; that of SCRAM-SHA-256 (RFC 5802, RFC 7677) from the primitives of `ring`.

use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::{Login, SqlState, Walsender, WalsenderError};
use super::{error_body, message};

const LOGIN: Login<'static> = Login {
    user: "realtime",
    password: "correct horse",
    database: "tenant",
    application_name: "realtime_replication_connection",
    parameters: &[("DateStyle", "ISO"), ("client_encoding", "LATIN1")],
};

const DONE: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x2a\x00\x00\x00\x07";

async fn startup(server: &mut DuplexStream) -> Vec<String> {
    let length = server.read_u32().await.unwrap();
    let mut body = vec![0; length as usize - 4];
    server.read_exact(&mut body).await.unwrap();
    assert_eq!(body[..4], 0x0003_0000u32.to_be_bytes());
    assert!(body.ends_with(b"\0\0"));
    body[4..body.len() - 2].split(|byte| *byte == 0).map(|word| String::from_utf8(word.to_vec()).unwrap()).collect()
}

async fn password(server: &mut DuplexStream) -> Vec<u8> {
    assert_eq!(server.read_u8().await.unwrap(), b'p');
    let mut body = vec![0; server.read_u32().await.unwrap() as usize - 4];
    server.read_exact(&mut body).await.unwrap();
    body
}

async fn ask(server: &mut DuplexStream, method: u32, data: &[u8]) {
    server.write_all(&message(b'R', &[&method.to_be_bytes(), data].concat())).await.unwrap();
}

async fn admit(server: &mut DuplexStream) {
    let ready = [DONE, &message(b'S', b"server_version\x0015.8\0"), &message(b'Z', b"I")].concat();
    server.write_all(&ready).await.unwrap();
}

async fn refuse(server: &mut DuplexStream, sqlstate: &str) {
    server.write_all(&message(b'E', &error_body(sqlstate, "no"))).await.unwrap();
}

#[tokio::test]
async fn trust_and_settings() {
    let (client, mut server) = duplex(4096);
    let script = async {
        let settings = startup(&mut server).await;
        admit(&mut server).await;
        settings
    };
    let (session, settings) = tokio::join!(Walsender::login(client, &LOGIN), script);
    let session = session.unwrap();
    assert_eq!((session.backend_pid(), session.parameter("server_version")), (42, Some("15.8")));
    assert_eq!(session.parameter("nothing"), None);
    let settings: Vec<(&str, &str)> = settings.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let last = |name| settings.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| *value);
    assert_eq!(last("user"), Some("realtime"));
    assert_eq!(last("database"), Some("tenant"));
    assert_eq!(last("replication"), Some("database"));
    assert_eq!(last("application_name"), Some("realtime_replication_connection"));
    assert_eq!(last("DateStyle"), Some("ISO"));
    assert_eq!(last("client_encoding"), Some("UTF8"));
}

#[tokio::test]
async fn clear_text_and_md5() {
    // md5(md5("correct horse" "realtime") salt), by another implementation.
    for (method, salt, answer) in [(3, &b""[..], &b"correct horse\0"[..]), (5, b"\x01\x02\x03\x04", MD5_ANSWER)] {
        let (client, mut server) = duplex(4096);
        let script = async {
            startup(&mut server).await;
            ask(&mut server, method, salt).await;
            assert_eq!(password(&mut server).await, answer);
            admit(&mut server).await;
        };
        let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), script);
        session.unwrap();
    }
}

const MD5_ANSWER: &[u8] = b"md5998d4638870cb5b0e33e2c786b86f8d5\0";

/// The server's side of SCRAM up to the client's proof; returns whether the proof is right,
/// and the server's own.
async fn scram(server: &mut DuplexStream, stored_password: &[u8]) -> (bool, String) {
    ask(server, 10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").await;
    let first = password(server).await;
    let first = String::from_utf8(first).unwrap();
    let (mechanism, rest) = first.split_once('\0').unwrap();
    assert_eq!(mechanism, "SCRAM-SHA-256");
    let client_first = rest[4..].strip_prefix("n,,").unwrap();
    let client_nonce = client_first.strip_prefix("n=,r=").unwrap();
    let server_first = format!("r={client_nonce}SERVER,s={},i=4096", STANDARD.encode(b"salt of 16 bytes"));
    ask(server, 11, server_first.as_bytes()).await;
    let client_final = String::from_utf8(password(server).await).unwrap();
    let (without_proof, proof) = client_final.split_once(",p=").unwrap();
    assert_eq!(without_proof, format!("c=biws,r={client_nonce}SERVER"));

    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(4096).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"salt of 16 bytes", stored_password, &mut salted);
    let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let dialogue = format!("{client_first},{server_first},{without_proof}");
    let stored_key = digest::digest(&digest::SHA256, mac(&salted, b"Client Key").as_ref());
    let signature = mac(stored_key.as_ref(), dialogue.as_bytes());
    let proof = STANDARD.decode(proof).unwrap();
    let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let right = digest::digest(&digest::SHA256, &client_key).as_ref() == stored_key.as_ref();
    let own = mac(mac(&salted, b"Server Key").as_ref(), dialogue.as_bytes());
    (right, format!("v={}", STANDARD.encode(own)))
}

#[tokio::test]
async fn scram_proves_both_sides() {
    let (client, mut server) = duplex(4096);
    let script = async {
        startup(&mut server).await;
        let (right, own) = scram(&mut server, b"correct horse").await;
        assert!(right);
        ask(&mut server, 12, own.as_bytes()).await;
        admit(&mut server).await;
    };
    let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), script);
    session.unwrap();
}

#[tokio::test]
async fn scram_with_another_password() {
    let (client, mut server) = duplex(4096);
    let script = async {
        startup(&mut server).await;
        assert!(!scram(&mut server, b"battery staple").await.0);
        refuse(&mut server, "28P01").await;
    };
    let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), script);
    let error = session.err().unwrap();
    assert_eq!(error.sqlstate(), Some(SqlState(*b"28P01")));
    assert!(!format!("{error} {error:?}").contains("horse"));
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_not_believed() {
    for prove in [true, false] {
        let (client, mut server) = duplex(4096);
        let script = async {
            startup(&mut server).await;
            let (_, own) = scram(&mut server, b"battery staple").await;
            if prove {
                ask(&mut server, 12, own.as_bytes()).await;
            } else {
                admit(&mut server).await;
            }
        };
        let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), script);
        assert!(matches!(session.err(), Some(WalsenderError::Protocol(_))));
    }
}

#[tokio::test]
async fn refusals_come_with_their_sqlstate() {
    let (client, mut server) = duplex(4096);
    let script = async {
        startup(&mut server).await;
        refuse(&mut server, "53300").await;
        drop(server);
    };
    let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), script);
    assert_eq!(session.err().unwrap().sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS));

    // Said before the startup message was even read.
    let (client, mut server) = duplex(1024);
    refuse(&mut server, "53300").await;
    drop(server);
    let error = Walsender::login(client, &LOGIN).await.err().unwrap();
    assert_eq!(error.sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS));
}

#[tokio::test]
async fn strange_servers() {
    let method = |method: u32| message(b'R', &method.to_be_bytes());
    let cases = [
        method(7),
        method(11),
        method(12),
        message(b'R', b"\x00\x00\x00\x05abc"),
        message(b'R', b"\x00\x00\x00\x0aGSSAPI\0\0"),
        message(b'R', b"\x00"),
        message(b'Z', b"I"),
        [DONE, &message(b'D', b"\x00\x00")].concat(),
        b"R\x00\x00\x00\x00".to_vec(),
        b"N\x00\x10\x00\x00".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ];
    for answer in cases {
        let (client, mut server) = duplex(4096);
        server.write_all(&answer).await.unwrap();
        let error = Walsender::login(client, &LOGIN).await.err().unwrap();
        assert!(matches!(error, WalsenderError::Protocol(_)), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn silence_has_a_deadline() {
    let short = Duration::from_millis(20);
    let (client, mut server) = duplex(4096);
    let login = Walsender::login_within(short, client, &LOGIN).await;
    assert!(matches!(login.err(), Some(WalsenderError::Timeout("login"))));
    startup(&mut server).await;

    let (client, mut server) = duplex(4096);
    let (session, ()) = tokio::join!(Walsender::login(client, &LOGIN), admit(&mut server));
    let mut session = session.unwrap();
    session.command_deadline = short;
    assert!(matches!(session.simple_query("select 1").await, Err(WalsenderError::Timeout("a command"))));
    // Whatever comes now answers the first command.
    assert!(matches!(session.simple_query("select 2").await, Err(WalsenderError::Protocol(_))));
}

#[tokio::test]
async fn text_with_a_zero_byte_is_never_sent() {
    let (client, mut server) = duplex(4096);
    let login = Walsender::login(client, &Login { user: "a\0b", ..LOGIN }).await;
    assert!(matches!(login.err(), Some(WalsenderError::Name(_))));
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);

    let (client, mut server) = duplex(4096);
    let nameless = Login { parameters: &[("", "x")], ..LOGIN };
    assert!(matches!(Walsender::login(client, &nameless).await.err(), Some(WalsenderError::Name(_))));
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}
