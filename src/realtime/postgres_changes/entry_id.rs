//! The number that stands for an entry in the reply to a join and in every change delivered for it (protocol 5.5).
//!
//! Taken from what the entry means, not from how it is written: key order, white space, escapes and repeated keys do not
//! count. So a client that joins again finds the same number, and equal entries of one join share it.
//! Invariants: never zero, since clients test it for truth; at most [`ENTRY_ID_MAX`]; the numbers of one join differ where
//! its entries do. The hash is part of what clients see across servers and releases: it must not change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::inspect::{DEPTH_MAX, double, sorted_members};
use crate::protocol::phoenix::json::{Numbers, Scanner, as_string, elements};

/// Largest id: 27 bits, as in the original.
pub const ENTRY_ID_MAX: u32 = (1 << 27) - 1;

/// The id of an entry that is alone in its join: 1 to [`ENTRY_ID_MAX`].
pub fn entry_id(entry_json: &str) -> u32 {
    preferred(fingerprint(entry_json))
}

/// The ids of the entries of one join, in their order. Equal entries share one; different ones never do: an entry whose
/// number is taken by an earlier one gets the next that is free. Lists of more than [`ENTRY_ID_MAX`] different entries do
/// not fit a message.
pub fn ids(entries: &[&str]) -> Vec<u32> {
    assigned(entries.iter().map(|entry| fingerprint(entry)))
}

fn assigned(fingerprints: impl Iterator<Item = u64>) -> Vec<u32> {
    let mut owners: HashMap<u32, u64> = HashMap::new();
    let mut assign = |fingerprint: u64| {
        let mut id = preferred(fingerprint);
        loop {
            match owners.entry(id) {
                Entry::Vacant(free) => {
                    free.insert(fingerprint);
                    return id;
                }
                Entry::Occupied(taken) if *taken.get() == fingerprint => return id,
                Entry::Occupied(_) => id = id % ENTRY_ID_MAX + 1,
            }
        }
    };
    fingerprints.map(&mut assign).collect()
}

fn preferred(fingerprint: u64) -> u32 {
    u32::try_from(fingerprint % u64::from(ENTRY_ID_MAX)).expect("the remainder has 27 bits") + 1
}

/// Hash of the meaning of a JSON text; of a text that is not JSON, of its bytes.
fn fingerprint(entry_json: &str) -> u64 {
    match Scanner::new(entry_json, Numbers::Any).value() {
        Ok(span) => Fnv::new(b'v').number(meaning(span, DEPTH_MAX)).spread(),
        Err(_) => Fnv::new(b'?').bytes(entry_json.as_bytes()).spread(),
    }
}

/// Hash of a span that the scanner accepted. Lists and objects deeper than entries ever are count as written.
fn meaning(span: &str, depth_left: usize) -> u64 {
    let hash = match span.as_bytes().first() {
        Some(b'{' | b'[') if depth_left == 0 => Fnv::new(b'.').bytes(span.as_bytes()),
        Some(b'{') => sorted_members(span).iter().fold(Fnv::new(b'{'), |hash, (key, span)| {
            // No UTF-8 text holds the byte 0xff, so it ends the key.
            hash.bytes(key.as_bytes()).bytes(&[0xff]).number(meaning(span, depth_left - 1))
        }),
        Some(b'[') => elements(span).fold(Fnv::new(b'['), |hash, span| hash.number(meaning(span, depth_left - 1))),
        Some(b'"') => Fnv::new(b'"').bytes(as_string(span).unwrap_or_default().as_bytes()),
        _ => match double(span) {
            Some(value) => Fnv::new(b'r').number(value.to_bits()),
            None => Fnv::new(b'w').bytes(if span == "-0" { b"0" } else { span.as_bytes() }),
        },
    };
    hash.spread()
}

/// FNV-1a, 64 bits: the same on every machine and in every release.
struct Fnv(u64);

impl Fnv {
    /// Starts a value of the kind that `tag` names.
    fn new(tag: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).bytes(&[tag])
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Lets every bit of the input reach every bit of the result.
    fn spread(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_have_equal_ids() {
        let id = entry_id(r#"{"event":"*","schema":"public","table":"orders","x":{"a":1.50,"b":[1,2]}}"#);
        for same in [
            r#"{"table":"orders","schema":"public","x":{"b":[1,2],"a":15e-1},"event":"*"}"#,
            " { \"event\" : \"*\",\n\"schema\":\"\\u0070ublic\",\"table\":\"orders\",\"x\":{\"a\":1.5,\"b\":[ 1 , 2 ]} } ",
            r#"{"event":"*","event":"INSERT","schema":"public","table":"orders","x":{"a":1.5,"b":[1,2]}}"#,
        ] {
            assert_eq!(entry_id(same), id, "{same}");
        }
    }

    #[test]
    fn different_entries_have_different_fingerprints() {
        let different = [
            "{}",
            "[]",
            "{\"a\":{}}",
            "{\"a\":[]}",
            "{\"a\":\"\"}",
            "{\"a\":null}",
            "{\"a\":\"null\"}",
            "{\"a\":0}",
            "{\"a\":0.0}",
            "{\"a\":1}",
            "{\"a\":1,\"b\":1}",
            "{\"a\":[1,2]}",
            "{\"a\":[2,1]}",
            "{\"a\":[[1],2]}",
            "{\"ab\":1}",
            "{\"a\":\"b1\"}",
            "{\"b\":{\"a\":1}}",
            "",
            "\"",
        ];
        let fingerprints: std::collections::HashSet<u64> = different.iter().map(|entry| fingerprint(entry)).collect();
        assert_eq!(fingerprints.len(), different.len());
        assert_eq!(fingerprint("{\"a\":-0}"), fingerprint("{\"a\":0}"));
    }

    /// Clients that reconnect to another release meet the same numbers.
    #[test]
    fn ids_never_change() {
        assert_eq!(entry_id("{}"), 53_477_619);
        assert_eq!(entry_id(r#"{"event":"*","schema":"public","table":"orders"}"#), 80_492_715);
        assert_eq!(entry_id(r#"{"schema":"public","table":"orders","filter":"id=gt.10","select":["id"]}"#), 38_961_827);
    }

    #[test]
    fn ids_of_one_join() {
        let entries = [r#"{"table":"a"}"#, r#"{"table":"b"}"#, r#"{ "table":"a" }"#];
        let found = ids(&entries);
        assert_eq!(found, [entry_id(entries[0]), entry_id(entries[1]), entry_id(entries[0])]);
        assert_ne!(found[0], found[1]);
        assert!(ids(&[]).is_empty());
    }

    #[test]
    fn colliding_entries_take_the_next_free_number() {
        let period = u64::from(ENTRY_ID_MAX);
        let last = period - 1;
        let found = assigned([5, 5 + period, 6, 5, 5 + period, 6, last, last + period].into_iter());
        assert_eq!(found, [6, 7, 8, 6, 7, 8, ENTRY_ID_MAX, 1]);
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_ne!(entry_id(&deep), entry_id(&deep[1..deep.len() - 1]));
    }
}
