//! Properties over generated entries: nothing panics, what is written comes back, and ids follow the meaning.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// JSON values of the shapes that joins carry, with more nesting than they have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Texts rich in the characters that the grammars treat specially.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-c=.,()\"\\\\ #{}\u{0}\u{e9}]{0,24}", "[ab]=(not\\.)?(eq|in|like|IS|is)\\.[\"(ab,).]{0,9}"]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("schema".to_owned()),
        Just("table".to_owned()),
        Just("filter".to_owned()),
        Just("event".to_owned()),
        Just("select".to_owned()),
        Just("user_token".to_owned()),
        text(),
    ]
}

fn any_entry() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), any_json(), 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The value with white space everywhere, keys in descending order, and every character of a string escaped.
fn respelled(value: &Value) -> String {
    let quoted = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!(" \"{units}\"\n")
    };
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[ {} ]", items.iter().map(respelled).collect::<Vec<_>>().join(" ,\t")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|a, b| b.0.cmp(a.0));
            let members: Vec<String> =
                members.into_iter().map(|(key, value)| format!("{}: {}", quoted(key), respelled(value))).collect();
            format!("\r{{ {} }} ", members.join(" , "))
        }
        other => format!(" {other} "),
    }
}

/// A filter in its grammar, values quoted.
fn written(filter: &Filter) -> String {
    let value = match filter.op {
        Op::In => format!("({})", &filter.value[1..filter.value.len() - 1]),
        _ => format!("\"{}\"", filter.value.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{}={}{}.{value}", filter.column, if filter.negate { "not." } else { "" }, filter.op.as_str())
}

fn any_filter() -> impl Strategy<Value = Filter> {
    (("[a-zé_][a-z0-9_ é]{0,6}[a-z]", 0..Op::ALL.len(), text(), any::<bool>()), "[a-z0-9, ]{0,12}").prop_map(
        |((column, op, value, negate), list)| {
            let op = Op::ALL[op];
            let value = if op == Op::In { format!("{{{list}}}") } else { value };
            Filter { column, op, value, negate }
        },
    )
}

fn any_subscription() -> impl Strategy<Value = Subscription> {
    let event = prop_oneof![Just(Event::All), Just(Event::Insert), Just(Event::Update), Just(Event::Delete)];
    let select = prop::option::of(prop::collection::vec(text(), 1..4));
    let filters = prop::collection::vec(any_filter(), 0..4);
    (event, text(), text(), filters, select).prop_map(|(event, schema, table, filters, select)| {
        let select = select.filter(|_| schema != "*" && table != "*");
        Subscription { event, schema, table, filters, select }
    })
}

fn as_entry(subscription: &Subscription) -> Value {
    let filters: Vec<String> = subscription.filters.iter().map(written).collect();
    serde_json::json!({
        "event": subscription.event.as_str().to_lowercase(),
        "schema": subscription.schema,
        "table": subscription.table,
        "filter": filters.join(" ,"),
        "select": subscription.select,
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in text(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for text in [text.as_str(), &String::from_utf8_lossy(&bytes)] {
            let _ = (parse(text), legacy(text), Filter::parse_all(text));
            prop_assert!((1..=ENTRY_ID_MAX).contains(&entry_id(text)));
        }
    }

    #[test]
    fn errors_print_and_hide_tokens(entry in any_entry()) {
        let has_token = entry.get("user_token").is_some();
        if let Err(error) = parse(&entry.to_string()) {
            let message = error.to_string();
            prop_assert!(!message.contains('\0'), "{message:?}");
            prop_assert_eq!(matches!(&error, EntryError::NoTarget(printed) if printed == "<redacted>"),
                has_token && matches!(&error, EntryError::NoTarget(_)));
        }
    }

    #[test]
    fn spelling_does_not_matter(entry in any_entry()) {
        let (plain, respelled) = (entry.to_string(), respelled(&entry));
        prop_assert_eq!(entry_id(&plain), entry_id(&respelled));
        prop_assert_eq!(parse(&plain), parse(&respelled));
    }

    #[test]
    fn ids_differ_exactly_where_entries_do(entries in prop::collection::vec(any_entry(), 0..8)) {
        let texts: Vec<String> = entries.iter().map(|entry| entry.to_string()).collect();
        let found = ids(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for (a, id_a) in texts.iter().zip(&found) {
            for (b, id_b) in texts.iter().zip(&found) {
                prop_assert_eq!(a == b, id_a == id_b, "{} {}", a, b);
            }
        }
    }

    #[test]
    fn subscriptions_round_trip(subscription in any_subscription()) {
        let entry = as_entry(&subscription).to_string();
        prop_assert_eq!(parse(&entry), Ok(subscription), "{}", entry);
    }

    #[test]
    fn legacy_topics_mean_their_entry(schema in "[^:]{0,6}", table in "[^:]{0,6}", filter in text()) {
        let entry = serde_json::json!({"schema": schema, "table": table, "filter": filter}).to_string();
        prop_assert_eq!(legacy(&format!("{schema}:{table}:{filter}")), parse(&entry));
    }

    #[test]
    fn changes_are_json(schema in text(), rows in prop::collection::vec((text(), any_json()), 0..5), at in any::<i64>()) {
        let values: Vec<(String, String)> = rows.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let fields: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let change = ChangeData {
            schema: &schema,
            table: "t",
            kind: Kind::Update,
            commit_timestamp: Some(at),
            columns: &fields,
            record: Some(&fields),
            old_record: None,
            errors: None,
        };
        let message: Value = serde_json::from_str(&payload(&[7], &change.encode())).expect("the payload is JSON");
        prop_assert_eq!(&message["data"]["schema"], &Value::from(schema));
        for (name, _) in &rows {
            prop_assert!(message["data"]["record"].get(name).is_some(), "{}", name);
        }
    }
}
