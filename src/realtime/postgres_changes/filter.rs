//! The filter grammar (protocol 11.2, database 7.3): `column=[not.]operator.value`, joined by commas.
//!
//! Owns splitting and unquoting. What a column or value means is the database's business: values stay text, and an `in`
//! list is handed on as an array literal. Called while an entry is parsed.
//! Fails with a [`FilterError`] for the first bad segment; its text is the reason in the message to the client.

use std::fmt;

use super::inspect;

/// An operator of the grammar; the names are case-sensitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `<>`
    Neq,
    /// `<`
    Lt,
    /// `<=`
    Lte,
    /// `>`
    Gt,
    /// `>=`
    Gte,
    /// Any of a list.
    In,
    /// Pattern with `%` and `_`.
    Like,
    /// The same, whatever the letter case.
    Ilike,
    /// `null`, `true`, `false` or `unknown`.
    Is,
    /// Regular expression.
    Match,
    /// The same, whatever the letter case.
    Imatch,
    /// `IS DISTINCT FROM`
    IsDistinct,
}

impl Op {
    /// Every operator.
    pub const ALL: [Self; 13] = [
        Self::Eq,
        Self::Neq,
        Self::Lt,
        Self::Lte,
        Self::Gt,
        Self::Gte,
        Self::In,
        Self::Like,
        Self::Ilike,
        Self::Is,
        Self::Match,
        Self::Imatch,
        Self::IsDistinct,
    ];

    /// The name on the wire and in the database's enum `realtime.equality_op`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::In => "in",
            Self::Like => "like",
            Self::Ilike => "ilike",
            Self::Is => "is",
            Self::Match => "match",
            Self::Imatch => "imatch",
            Self::IsDistinct => "isdistinct",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == name)
    }
}

/// One condition on a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Everything before the first `=`, not trimmed.
    pub column: String,
    /// The comparison.
    pub op: Op,
    /// What to compare with; an array literal `{…}` for [`Op::In`].
    pub value: String,
    /// `not.` was there.
    pub negate: bool,
}

/// Why a filter does not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterError {
    /// The pieces found where column, operator and value were expected.
    Malformed(Vec<String>),
    /// Nothing between two commas.
    EmptySegment,
    /// An `in` without its parentheses.
    InWithoutParentheses,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(pieces) => {
                let mut list = String::new();
                inspect::strings(&mut list, pieces);
                f.write_str(&list)
            }
            Self::EmptySegment => f.write_str("filter must not contain empty segments (check for extra commas)"),
            Self::InWithoutParentheses => f.write_str("`in` filter value must be wrapped by parentheses"),
        }
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses a whole filter; a blank one has no conditions.
    ///
    /// # Errors
    /// The first segment that is not a condition.
    pub fn parse_all(filter: &str) -> Result<Vec<Self>, FilterError> {
        let mut filters = Vec::new();
        let mut rest = Some(filter.trim()).filter(|filter| !filter.is_empty());
        while let Some(text) = rest {
            let segment = match segment_end(text) {
                Some(comma) => {
                    rest = Some(&text[comma + 1..]);
                    &text[..comma]
                }
                None => {
                    rest = None;
                    text
                }
            };
            filters.push(Self::parse(segment.trim())?);
        }
        Ok(filters)
    }

    fn parse(segment: &str) -> Result<Self, FilterError> {
        if segment.is_empty() {
            return Err(FilterError::EmptySegment);
        }
        let malformed = |pieces: &[&str]| FilterError::Malformed(pieces.iter().map(|&piece| piece.to_owned()).collect());
        let Some((column, condition)) = segment.split_once('=') else { return Err(malformed(&[segment])) };
        let (condition, negate) = match condition.strip_prefix("not.") {
            Some(negated) => (negated, true),
            None => (condition, false),
        };
        let Some((name, value)) = condition.split_once('.') else { return Err(malformed(&[condition])) };
        let Some(op) = Op::named(name) else { return Err(malformed(&[name, value])) };
        let value = match op {
            Op::In => {
                let inside = value.strip_prefix('(').and_then(|value| value.strip_suffix(')'));
                format!("{{{}}}", inside.ok_or(FilterError::InWithoutParentheses)?)
            }
            _ => unquoted(value).unwrap_or_else(|| value.to_owned()),
        };
        Ok(Self { column: column.to_owned(), op, value, negate })
    }
}

/// Offset of the first comma outside parentheses and quotes. A quote opens only directly after `.`, `(` or `,`.
fn segment_end(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut previous = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => quoted = false,
            (true, _) => {}
            (false, b'"') => quoted = matches!(previous, Some(b'.' | b'(' | b',')),
            (false, b'(') => depth += 1,
            (false, b')') => depth = depth.saturating_sub(1),
            (false, b',') if depth == 0 => return Some(at),
            (false, _) => {}
        }
        previous = Some(byte);
    }
    None
}

/// The text inside the quotes, if they enclose the value completely; backslashes protect the character that follows.
fn unquoted(value: &str) -> Option<String> {
    let mut chars = value.strip_prefix('"')?.chars();
    let mut inside = String::with_capacity(value.len());
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(inside),
            '\\' => inside.push(chars.next()?),
            c => inside.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(filter: &str) -> Vec<(String, &'static str, String, bool)> {
        let filters = Filter::parse_all(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        filters.into_iter().map(|filter| (filter.column, filter.op.as_str(), filter.value, filter.negate)).collect()
    }

    fn one(filter: &str, expected: (&str, &str, &str, bool)) {
        let filters = parsed(filter);
        let found: Vec<_> = filters.iter().map(|(c, op, v, n)| (c.as_str(), *op, v.as_str(), *n)).collect();
        assert_eq!(found, [expected], "{filter}");
    }

    #[test]
    fn single_conditions() {
        one("id=eq.5", ("id", "eq", "5", false));
        one("id=not.eq.5", ("id", "eq", "5", true));
        one(r#"name=in.(red,"dark, blue")"#, ("name", "in", r#"{red,"dark, blue"}"#, false));
        one("id=in.()", ("id", "in", "{}", false));
        one(r#"name=eq."a,b""#, ("name", "eq", "a,b", false));
        one(r#"name=eq."a\"b""#, ("name", "eq", "a\"b", false));
        one(r#"name=eq."abc"#, ("name", "eq", "\"abc", false));
        one(r#"v=eq."x"y"#, ("v", "eq", "\"x\"y", false));
        one("a=eq.not.b", ("a", "eq", "not.b", false));
        one("note=eq.", ("note", "eq", "", false));
        one("created=gte.2026-01-01T00:00:00.5Z", ("created", "gte", "2026-01-01T00:00:00.5Z", false));
        one("subject=in.(hidee,ho)", ("subject", "in", "{hidee,ho}", false));
        one("subject=not.like.hey%", ("subject", "like", "hey%", true));
        one("id =eq. 1", ("id ", "eq", " 1", false));
        one("=eq.1", ("", "eq", "1", false));
        for op in Op::ALL.into_iter().filter(|op| *op != Op::In) {
            one(&format!("c=not.{}.v", op.as_str()), ("c", op.as_str(), "v", true));
        }
    }

    #[test]
    fn several_conditions() {
        let columns = |filter: &str| {
            parsed(filter).into_iter().map(|(c, op, v, _)| format!("{c} {op} {v}")).collect::<Vec<_>>().join(" & ")
        };
        assert_eq!(columns("price=gt.10,price=lte.20"), "price gt 10 & price lte 20");
        assert_eq!(columns(" id=eq.1 , done=is.false "), "id eq 1 & done is false");
        assert_eq!(columns("id=gt.0,id=lt.100"), "id gt 0 & id lt 100");
        assert_eq!(columns("name=eq.a\"b,c=eq.1"), "name eq a\"b & c eq 1");
        assert_eq!(columns("path=match.^(a|b,c),id=eq.2"), "path match ^(a|b,c) & id eq 2");
        assert_eq!(columns("a=eq.),b=eq.2"), "a eq ) & b eq 2");
        assert_eq!(columns("a=in.((1,2),3),b=eq.2"), "a in {(1,2),3} & b eq 2");
        assert_eq!(columns("a=in.(1,\"x)\\\",y\"),b=eq.2"), "a in {1,\"x)\\\",y\"} & b eq 2");
        assert_eq!(columns("a=eq.\"x\"\",b=eq.2"), "a eq \"x\"\" & b eq 2", "the third quote follows no opener");
        assert_eq!(columns("a=eq.1,\"b=eq.2,c=eq.3"), "a eq 1 & \"b eq 2 & c eq 3", "a comma between segments opens no quote");
        assert_eq!(columns("a=eq.\"x,b=eq.2"), "a eq \"x,b=eq.2", "an open quote swallows the rest");
        assert_eq!(columns("a=eq.(x,b=eq.2"), "a eq (x,b=eq.2");
        assert_eq!(columns("näme=eq.\"ü\\é,\",b=eq.☃"), "näme eq üé, & b eq ☃");
        assert_eq!(columns(" \t\u{a0}"), "");
        assert_eq!(columns(""), "");
    }

    #[test]
    fn quotes_are_removed_only_when_they_enclose_the_value() {
        for (value, expected) in [
            (r#""""#, ""),
            ("\"", "\""),
            (r#""a\""#, r#""a\""#),
            (r#""a\\""#, r"a\"),
            (r#""a\\\""#, r#""a\\\""#),
            (r"a\b", r"a\b"),
            (r#"a"b""#, r#"a"b""#),
            (r#""a\n""#, "an"),
        ] {
            one(&format!("c=eq.{value}"), ("c", "eq", expected, false));
        }
    }

    #[test]
    fn errors_name_the_pieces() {
        for (filter, reason) in [
            ("undefined", r#"["undefined"]"#),
            ("id", r#"["id"]"#),
            ("id=eq", r#"["eq"]"#),
            ("id=", r#"[""]"#),
            ("id=not.eq", r#"["eq"]"#),
            ("subject=foo.hey", r#"["foo", "hey"]"#),
            ("subject=not.foo.hey", r#"["foo", "hey"]"#),
            ("id=not.not.eq.1", r#"["not", "eq.1"]"#),
            ("id=EQ.1", r#"["EQ", "1"]"#),
            ("id= eq.1", r#"[" eq", "1"]"#),
            ("id=eq.1,a\"b", r#"["a\"b"]"#),
            ("id=in.1,2", "`in` filter value must be wrapped by parentheses"),
            ("id=in.(", "`in` filter value must be wrapped by parentheses"),
            ("id=in.(1", "`in` filter value must be wrapped by parentheses"),
            ("id=eq.1,", "filter must not contain empty segments (check for extra commas)"),
            (",", "filter must not contain empty segments (check for extra commas)"),
            ("a=eq.1, ,undefined", "filter must not contain empty segments (check for extra commas)"),
            ("undefined,,", r#"["undefined"]"#),
        ] {
            assert_eq!(Filter::parse_all(filter).unwrap_err().to_string(), reason, "{filter}");
        }
    }
}
