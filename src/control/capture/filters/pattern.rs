//! LIKE patterns without escapes: `%` for any text, `_` for one character.
//!
//! Matching takes time linear in the text, but for parts with `_`, which are tried at every position within a bound.

/// Most character comparisons natively spent on parts with `_`; longer ones would hold up everybody on this thread.
const STEPS_MAX: usize = 1_000_000;

/// A pattern cut at its `%`.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// One part: the whole text. Otherwise the first begins it, the last ends it.
    parts: Box<[Box<str>]>,
    has_wildcards: bool,
}

impl Pattern {
    /// `None` for a pattern with escapes.
    pub fn parse(pattern: &str) -> Option<Self> {
        if pattern.contains('\\') {
            return None;
        }
        Some(Self { parts: pattern.split('%').map(Into::into).collect(), has_wildcards: pattern.contains('_') })
    }

    /// Whether the text matches; `None` if it would take too long to find out.
    pub fn matches(&self, text: &str) -> Option<bool> {
        let bytes: usize = self.parts.iter().map(|part| part.len()).sum();
        if self.has_wildcards && bytes.saturating_mul(text.len()) > STEPS_MAX {
            return None;
        }
        Some(self.find(text))
    }

    fn find(&self, text: &str) -> bool {
        let (first, rest) = self.parts.split_first().expect("splitting yields a part");
        let Some(len) = prefix_bytes(text, first) else { return false };
        let Some((last, middle)) = rest.split_last() else { return len == text.len() };
        let mut left = &text[len..];
        for part in middle {
            let Some(end) = end_of_first(left, part) else { return false };
            left = &left[end..];
        }
        let Some(start) = last_characters(left, last.chars().count()) else { return false };
        prefix_bytes(&left[start..], last).is_some()
    }
}

/// How many bytes of the text the part takes when it stands at its start.
fn prefix_bytes(text: &str, part: &str) -> Option<usize> {
    let mut left = text.chars();
    for wanted in part.chars() {
        let found = left.next()?;
        if wanted != '_' && wanted != found {
            return None;
        }
    }
    Some(text.len() - left.as_str().len())
}

/// Where the first occurrence of the part ends.
fn end_of_first(text: &str, part: &str) -> Option<usize> {
    if !part.contains('_') {
        return text.find(part).map(|at| at + part.len());
    }
    text.char_indices().find_map(|(at, _)| prefix_bytes(&text[at..], part).map(|len| at + len))
}

/// Where the last `count` characters start.
fn last_characters(text: &str, count: usize) -> Option<usize> {
    match count {
        0 => Some(text.len()),
        _ => text.char_indices().nth_back(count - 1).map(|(at, _)| at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%%", "abc", true),
            ("_", "é", true),
            ("_", "", false),
            ("__", "é", false),
            ("%_", "", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("a%a", "a", false),
            ("a%b%c", "a--b--b-c", true),
            ("a%b_c", "abcabxc", true),
            ("%_b%_b", "xbxb", true),
            ("%_b%_b", "xbb", false),
            ("%aab%", "aaab", true),
            ("%_ab%", "aaab", true),
            ("A%", "abc", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(text), Some(expected), "{text} like {pattern}");
        }
        assert!(Pattern::parse("100\\%").is_none());
        let slow = Pattern::parse(&format!("%{}b%", "_".repeat(1_000))).unwrap();
        assert_eq!(slow.matches(&"a".repeat(10_000)), None);
    }
}
