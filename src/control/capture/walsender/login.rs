//! Startup and authentication of a replication connection.
//!
//! Knows trust, clear text, MD5 and SCRAM-SHA-256. The stream is encrypted by the caller or
//! not at all; channel binding is not offered, because the certificate is out of sight here.
//! The password goes into the answers to the server and nowhere else.

use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::command::Walsender;
use super::error::{ServerError, WalsenderError};
use super::wire::Wire;

/// Everything from the first byte to the server's readiness.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(15);

/// Largest message before the login is done, in bytes. The other side may not even be a
/// database yet; the longest honest message is an error text.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Settings that the server reports and that are kept. It reports some 15; extensions may
/// add a few.
const PARAMETERS_MAX: usize = 64;

/// Who logs in, where to, and with which settings.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The role; needs the attribute REPLICATION.
    pub user: &'a str,
    /// Its password; sent only if the server asks for it.
    pub password: &'a str,
    /// The database whose changes are to be decoded.
    pub database: &'a str,
    /// Name of the session in `pg_stat_activity` (spec 2.3).
    pub application_name: &'a str,
    /// More settings for the session, such as `DateStyle` and `TimeZone`: the text of values
    /// in the stream depends on them. `client_encoding` is UTF8 in any case.
    pub parameters: &'a [(&'a str, &'a str)],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Walsender<S> {
    /// Logs in for logical replication, within [`LOGIN_DEADLINE`].
    ///
    /// # Errors
    /// [`WalsenderError::Server`] with, among others, 28P01 (password), 53300 (no walsender
    /// free), 42501 (no REPLICATION attribute), 3D000 (no such database).
    pub async fn login(stream: S, login: &Login<'_>) -> Result<Self, WalsenderError> {
        Self::login_within(LOGIN_DEADLINE, stream, login).await
    }

    pub(super) async fn login_within(deadline: Duration, stream: S, login: &Login<'_>) -> Result<Self, WalsenderError> {
        let steps = async {
            let mut wire = Wire::new(stream);
            start(&mut wire, login).await?;
            authenticate(&mut wire, login).await?;
            become_ready(wire).await
        };
        timeout(deadline, steps).await.unwrap_or(Err(WalsenderError::Timeout("login")))
    }
}

async fn start<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, login: &Login<'_>) -> Result<(), WalsenderError> {
    let own = [
        ("user", login.user),
        ("database", login.database),
        ("application_name", login.application_name),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
    ];
    // An empty name would end the list early. Of two settings of one name the last one counts.
    if login.parameters.iter().any(|(name, _)| name.is_empty()) {
        return Err(WalsenderError::Name("parameter: it has no name"));
    }
    let parameters = login.parameters.iter().copied().chain(own);
    wire.compose(|output| frontend::startup_message(parameters, output))?;
    wire.send().await
}

/// How far a SCRAM exchange has come.
enum Scram {
    NotStarted,
    Proving(ScramSha256),
    /// The server has proved that it knows the password, too.
    Proved,
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, login: &Login<'_>) -> Result<(), WalsenderError> {
    let mut scram = Scram::NotStarted;
    loop {
        let frame = wire.receive(BODY_BYTES_MAX).await?;
        match frame.tag {
            b'R' => {}
            b'N' => continue,
            b'E' => return Err(WalsenderError::Server(ServerError::parse(&frame.body))),
            _ => return Err(WalsenderError::Protocol("expected a request for authentication")),
        }
        let Some((method, data)) = frame.body.split_first_chunk::<4>() else {
            return Err(WalsenderError::Protocol("a request for authentication without a method"));
        };
        scram = match (u32::from_be_bytes(*method), scram) {
            (0, Scram::Proving(_)) => return Err(WalsenderError::Protocol("the server did not prove itself")),
            (0, _) => return Ok(()),
            (3, state) => {
                wire.compose(|output| frontend::password_message(login.password.as_bytes(), output))?;
                state
            }
            (5, state) => {
                let salt = data.try_into().map_err(|_| WalsenderError::Protocol("an MD5 salt is not of 4 bytes"))?;
                let hash = md5_hash(login.user.as_bytes(), login.password.as_bytes(), salt);
                wire.compose(|output| frontend::password_message(hash.as_bytes(), output))?;
                state
            }
            (10, Scram::NotStarted) => {
                if !data.split(|byte| *byte == 0).any(|mechanism| mechanism == SCRAM_SHA_256.as_bytes()) {
                    return Err(WalsenderError::Protocol("the server offers no SASL mechanism that is known here"));
                }
                let scram = ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported());
                wire.compose(|output| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), output))?;
                Scram::Proving(scram)
            }
            (11, Scram::Proving(scram)) => {
                let scram = prove(scram, frame.body.slice(4..)).await?;
                wire.compose(|output| frontend::sasl_response(scram.message(), output))?;
                Scram::Proving(scram)
            }
            (12, Scram::Proving(mut scram)) => {
                scram.finish(data).map_err(|_| WalsenderError::Protocol("the server's SCRAM proof is wrong"))?;
                Scram::Proved
            }
            _ => return Err(WalsenderError::Protocol("a method of authentication that is not known here")),
        };
        wire.send().await?;
    }
}

/// Hashes the password as often as the server asks: milliseconds, so not on this thread.
async fn prove(mut scram: ScramSha256, challenge: Bytes) -> Result<ScramSha256, WalsenderError> {
    let hashing = tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram));
    match hashing.await {
        Ok(Ok(scram)) => Ok(scram),
        _ => Err(WalsenderError::Protocol("the server's SCRAM challenge is malformed")),
    }
}

async fn become_ready<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>) -> Result<Walsender<S>, WalsenderError> {
    let mut parameters = Vec::new();
    let mut backend_pid = 0;
    loop {
        let frame = wire.receive(BODY_BYTES_MAX).await?;
        match frame.tag {
            b'Z' => return Ok(Walsender::new(wire, backend_pid, parameters)),
            b'K' => backend_pid = frame.body.first_chunk().map_or(0, |pid| i32::from_be_bytes(*pid)),
            b'S' if parameters.len() < PARAMETERS_MAX => {
                let mut words = frame.body.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
                parameters.extend(words.next().zip(words.next()));
            }
            b'S' | b'N' => {}
            b'E' => return Err(WalsenderError::Server(ServerError::parse(&frame.body))),
            _ => return Err(WalsenderError::Protocol("expected the end of the login")),
        }
    }
}
