//! Decoding of the two parts of a request target (protocol 1.2, http-api 1).
//!
//! Called by the routes with `Head::path` and `Head::query`, which are visible ASCII.
//! Nothing fails: what cannot be decoded to UTF-8 is absent in a query, where a value is
//! looked up by name, and becomes replacement characters in a path, where it then
//! matches no known name.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The decoded value of the last parameter called `name` in a form-encoded `query`.
///
/// `None` if there is none or if its value is not UTF-8. A parameter without `=` has the
/// empty value. Bracketed names are names of their own and never match a plain one.
pub fn query_param(query: &str, name: &str) -> Option<String> {
    let (_, value) = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .rfind(|(sent, _)| decode_form(sent).is_some_and(|sent| sent == name))?;
    decode_form(value)
}

/// The segments of `path`, each percent-decoded on its own, so that `%2F` stays inside
/// one. Empty segments, and with them trailing slashes, are left out.
pub fn path_segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect()
}

fn decode_form(encoded: &str) -> Option<String> {
    let spaced = if encoded.contains('+') { Cow::Owned(encoded.replace('+', " ")) } else { Cow::Borrowed(encoded) };
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters() {
        let cases = [
            ("vsn=2.0.0&apikey=x", "vsn", Some("2.0.0")),
            ("vsn=2.0.0&apikey=x", "apikey", Some("x")),
            ("vsn=2.0.0", "apikey", None),
            ("a=1&a=2", "a", Some("2")),
            ("a=1&a[]=2", "a", Some("1")),
            ("a[]=2", "a", None),
            ("a%5B%5D=2", "a", None),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("a=b+c%2Bd%20e", "a", Some("b c+d e")),
            ("%61=1", "a", Some("1")),
            ("a=%c3%A9", "a", Some("é")),
            ("a=1&a=%ff", "a", None),
            ("a=100%", "a", Some("100%")),
            ("&&a=1&", "a", Some("1")),
            ("", "a", None),
        ];
        for (query, name, expected) in cases {
            assert_eq!(query_param(query, name).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn segments() {
        let cases: [(&str, &[&str]); 7] = [
            ("/socket/websocket/", &["socket", "websocket"]),
            ("/", &[]),
            ("*", &["*"]),
            ("//a//b", &["a", "b"]),
            ("/a%3Ab%2Fc%20%C3%A9/e+v", &["a:b/c é", "e+v"]),
            ("/%ff", &["\u{fffd}"]),
            ("/%zz", &["%zz"]),
        ];
        for (path, expected) in cases {
            assert_eq!(path_segments(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_value_survives_encoding(name in "[a-z]{1,5}", value in any::<String>()) {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let query = format!("{name}=no&x{name}=no&{name}={encoded}");
            prop_assert_eq!(query_param(&query, &name), Some(value.clone()));
            let expected = if value.is_empty() { vec![] } else { vec![value] };
            prop_assert_eq!(path_segments(&format!("/{encoded}/")), expected);
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), name in any::<String>()) {
            let _ = query_param(&text, &name);
            let _ = path_segments(&text);
        }
    }
}
