//! Keeps tokens out of log lines (operations 8: "Tokens are never logged").
//!
//! Every log line passes through `redact` before it is written, so a token is hidden wherever it came
//! from: a request line, a payload logged at info level, an error text. It hides rather too much than
//! too little. Lines without a token are returned borrowed after one scan.

use std::borrow::Cow;

/// How every JWT begins: base64url of `{"`.
const JWT_START: &[u8] = b"eyJ";

/// Shortest run of token characters hidden after `eyJ`; shorter ones cannot hold a signature.
const JWT_BYTES_MIN: usize = 16;

/// Query parameters whose value is a credential, in lower case.
const PARAMETERS: [&[u8]; 5] = [b"apikey", b"token", b"access_token", b"user_token", b"jwt"];

/// Replaces JWTs by `<jwt>` and values of credential parameters by `<redacted>`.
pub fn redact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut output = String::new();
    let mut copied = 0;
    let mut position = 0;
    // Both kinds of secret start right after (parameter) or at (JWT) one of two rare bytes.
    while let Some(found) = memchr::memchr2(b'=', b'e', &bytes[position..]) {
        let at = position + found;
        let (start, end, mark) = match secret_at(bytes, at) {
            Some(secret) => secret,
            None => {
                position = at + 1;
                continue;
            }
        };
        output.push_str(&text[copied..start]);
        output.push_str(mark);
        copied = end;
        position = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    output.push_str(&text[copied..]);
    Cow::Owned(output)
}

/// The span of the secret announced by the byte at `at`; both ends lie next to ASCII bytes.
fn secret_at(bytes: &[u8], at: usize) -> Option<(usize, usize, &'static str)> {
    if bytes[at] == b'=' {
        let start = at + 1;
        let end = end_of(bytes, start, is_parameter_byte);
        return (end > start && names_credential(&bytes[..at])).then_some((start, end, "<redacted>"));
    }
    let end = end_of(bytes, at, is_token_byte);
    (bytes[at..].starts_with(JWT_START) && end - at >= JWT_BYTES_MIN).then_some((at, end, "<jwt>"))
}

/// Whether the text before `=` ends with a whole parameter name of the list.
fn names_credential(before: &[u8]) -> bool {
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = before.iter().rev().take_while(|b| is_name_byte(b)).count();
    let name = &before[before.len() - length..];
    PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn end_of(bytes: &[u8], start: usize, belongs: fn(u8) -> bool) -> usize {
    let length = bytes[start..].iter().take_while(|&&b| belongs(b)).count();
    start + length
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=')
}

/// A value ends at the next parameter, at a blank, or at a quote around the URL.
fn is_parameter_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'&' | b'"' | b'\'' | b'#' | b'<' | b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJlLWJ5dGVz";

    #[test]
    fn tokens_anywhere_are_hidden() {
        let line = format!("join {{\"access_token\":\"{JWT}\"}} failed for Bearer {JWT}");
        let hidden = redact(&line);
        assert_eq!(hidden, "join {\"access_token\":\"<jwt>\"} failed for Bearer <jwt>");
    }

    #[test]
    fn a_token_glued_to_text_or_cut_off_is_hidden() {
        assert_eq!(redact(&format!("é{JWT}é")), "é<jwt>é");
        assert_eq!(redact(&JWT[..20]), "<jwt>");
    }

    #[test]
    fn credential_parameters_are_hidden_whatever_they_hold() {
        for name in ["apikey", "token", "access_token", "USER_TOKEN", "jwt"] {
            let line = format!("GET /socket/websocket?vsn=1.0.0&{name}=abc%20d&log_level=info 403");
            let hidden = format!("GET /socket/websocket?vsn=1.0.0&{name}=<redacted>&log_level=info 403");
            assert_eq!(redact(&line), hidden);
        }
        assert_eq!(redact("?token=x"), "?token=<redacted>");
    }

    #[test]
    fn ordinary_text_is_borrowed() {
        for line in ["", "every eye sees", "eyJshort", "tokens=5 my_token_count=7 key=value", "token= 5", "größe=1 ✓"] {
            assert!(matches!(redact(line), Cow::Borrowed(same) if same == line), "{line}");
        }
    }
}
