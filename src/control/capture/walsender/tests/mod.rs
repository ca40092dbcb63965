//! Against a server of flesh and blood (`replication`), and against scripted ones that do
//! what a real one will not do on demand (`login`, `framing`).

mod framing;
mod login;
mod replication;

/// A message as either side sends it.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// The body of an ErrorResponse.
fn error_body(sqlstate: &str, text: &str) -> Vec<u8> {
    format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0Dmore\0\0").into_bytes()
}
