//! A strict reader of Prometheus text for tests; panics on anything a scraper could reject.

/// Label names and values.
type Labels = Vec<(String, String)>;

pub struct Parsed {
    pub families: Vec<String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Parsed {
    /// The value of the sample with exactly these labels, which must be sorted by name.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let same = |found: &[(String, String)]| {
            let found = found.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            found.eq(labels.iter().copied())
        };
        let matches = |(sample, found, _): &&(String, Vec<_>, f64)| sample == name && same(found);
        self.samples.iter().find(matches).map(|(.., value)| *value)
    }

    /// How many samples a family has.
    pub fn count(&self, name: &str) -> usize {
        self.samples.iter().filter(|(n, ..)| n == name).count()
    }
}

pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed { families: Vec::new(), samples: Vec::new() };
    let body = text.strip_suffix("# EOF\n").expect("one EOF at the end");
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) =
            line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("HELP expected: {line}"));
        assert!(!help.is_empty(), "{line}");
        assert!(!parsed.families.contains(&name.to_owned()), "{name} repeats");
        let kind = lines.next().expect("TYPE follows HELP");
        let kinds = ["counter", "gauge"].map(|kind| format!("# TYPE {name} {kind}"));
        assert!(kinds.contains(&kind.to_owned()), "{kind}");
        parsed.families.push(name.to_owned());
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (found, labels, value) = parse_sample(sample);
            assert_eq!(found, name, "sample outside its family");
            assert!(parsed.value(name, &borrow(&labels)).is_none(), "{sample} repeats");
            parsed.samples.push((found, labels, value));
        }
    }
    parsed
}

fn borrow(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    pairs.collect()
}

fn parse_sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a name and a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels: Labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect("label=\"value\"");
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
            let (value, after) = quoted(after);
            if let Some((previous, _)) = labels.last() {
                assert!(previous.as_str() < label, "labels sorted, no repeats: {line}");
            }
            labels.push((label.to_owned(), value));
            match after.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("garbage after a label: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("one blank before the value");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

/// Reads up to the closing quote; the result is unescaped.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next().expect("an escaped character").1 {
                'n' => value.push('\n'),
                other @ ('\\' | '"') => value.push(other),
                other => panic!("unknown escape {other}"),
            },
            other => value.push(other),
        }
    }
    panic!("unterminated label value: {text}");
}
