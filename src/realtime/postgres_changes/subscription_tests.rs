//! The tables of protocol 11.1, 11.4 and database 7.2.

use super::*;
use crate::realtime::postgres_changes::filter::Op;

fn target(entry: &str) -> (String, String, usize) {
    let subscription = parse(entry).unwrap_or_else(|error| panic!("{entry}: {error}"));
    (subscription.schema, subscription.table, subscription.filters.len())
}

fn refusal(entry: &str) -> String {
    parse(entry).expect_err(entry).to_string()
}

#[test]
fn a_full_entry() {
    let entry = r#"{"event":"INSERT","schema":"public","table":"orders","filter":"id=gt.10","select":["id","total"],"x":[1]}"#;
    let filter = Filter { column: "id".into(), op: Op::Gt, value: "10".into(), negate: false };
    let expected = Subscription {
        event: Event::Insert,
        schema: "public".into(),
        table: "orders".into(),
        filters: vec![filter],
        select: Some(vec!["id".into(), "total".into()]),
    };
    assert_eq!(parse(entry), Ok(expected));
}

#[test]
fn accepted_targets() {
    for (entry, schema, table, filters) in [
        (r#"{"schema":"a","table":"b","filter":"c=eq.1,d=eq.2"}"#, "a", "b", 2),
        (r#"{"schema":"a","table":"b","filter":" "}"#, "a", "b", 0),
        (r#"{"schema":"a","table":"b"}"#, "a", "b", 0),
        (r#"{"schema":"a"}"#, "a", "*", 0),
        (r#"{"table":"b"}"#, "public", "b", 0),
        (r#" { "schema" : "*" , "table" : "*" } "#, "*", "*", 0),
        (r#"{"schema":"\u00e4\"","table":""}"#, "ä\"", "", 0),
        (r#"{"schema":"first","schema":"second"}"#, "first", "*", 0),
    ] {
        assert_eq!(target(entry), (schema.to_owned(), table.to_owned(), filters), "{entry}");
    }
}

#[test]
fn entries_without_a_target_are_printed() {
    for (entry, rendering) in [
        ("{}", "%{}"),
        (r#"{"event":"INSERT"}"#, r#"%{"event" => "INSERT"}"#),
        (r#"{"schema":"public","filter":"id=eq.1"}"#, r#"%{"filter" => "id=eq.1", "schema" => "public"}"#),
        (r#"{"table":"conf_items","filter":"id=eq.1"}"#, r#"%{"filter" => "id=eq.1", "table" => "conf_items"}"#),
        (r#"{"schema":"public","table":null}"#, r#"%{"schema" => "public", "table" => nil}"#),
        (r#"{"schema":5}"#, r#"%{"schema" => 5}"#),
        (r#"{"schema":"public","table":"t","filter":null}"#, r#"%{"filter" => nil, "schema" => "public", "table" => "t"}"#),
        (r#"{"schema":"public","table":"t","filter":{}}"#, r#"%{"filter" => %{}, "schema" => "public", "table" => "t"}"#),
        (r#"{"schema":null,"table":"t"}"#, r#"%{"schema" => nil, "table" => "t"}"#),
        (r#"{"filter":"id=eq.1"}"#, r#"%{"filter" => "id=eq.1"}"#),
        (r#"{"event":"INSERT","user_token":"secret"}"#, "<redacted>"),
        (r#"{"auth_token":null}"#, "<redacted>"),
        ("17", "17"),
        ("not json", "%{}"),
    ] {
        let expected = format!(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {rendering}"
        );
        assert_eq!(refusal(entry), expected, "{entry}");
        assert!(!format!("{:?}", parse(entry)).contains("secret"));
    }
}

#[test]
fn events_in_any_letter_case() {
    for (event, expected) in [
        ("\"INSERT\"", Event::Insert),
        ("\"update\"", Event::Update),
        ("\"Delete\"", Event::Delete),
        ("\"*\"", Event::All),
        ("\"UPSERT\"", Event::All),
        ("\" insert\"", Event::All),
        ("null", Event::All),
        ("[\"INSERT\"]", Event::All),
    ] {
        assert_eq!(parse(&format!(r#"{{"event":{event},"schema":"s"}}"#)).unwrap().event, expected, "{event}");
    }
    assert_eq!(parse(r#"{"schema":"s"}"#).unwrap().event, Event::All);
    let kinds = [Kind::Insert, Kind::Update, Kind::Delete];
    assert!(kinds.into_iter().all(|kind| Event::All.includes(kind)));
    assert_eq!(kinds.map(|kind| Event::Update.includes(kind)), [false, true, false]);
    assert_eq!(kinds.map(|kind| Event::named(kind.as_str()).includes(kind)), [true; 3]);
}

#[test]
fn selections() {
    let select = |span: &str| parse(&format!(r#"{{"schema":"s","table":"t","select":{span}}}"#)).map(|found| found.select);
    assert_eq!(select(r#"["b", 1, "a", null, ["c"], "b"]"#), Ok(Some(vec!["b".into(), "a".into(), "b".into()])));
    for none in ["[]", "[1,null]", "null", "{}", "{\"a\":\"b\"}", "17", "true"] {
        assert_eq!(select(none), Ok(None), "{none}");
    }
    assert_eq!(
        select(r#""a,b""#).unwrap_err().to_string(),
        r#"Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]"#
    );
}

#[test]
fn selections_need_a_table() {
    let text = "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.";
    for entry in [
        r#"{"schema":"s","select":["a"]}"#,
        r#"{"schema":"s","table":"*","select":["a"]}"#,
        r#"{"schema":"*","table":"t","select":["a"]}"#,
    ] {
        assert_eq!(refusal(entry), text, "{entry}");
    }
    assert!(parse(r#"{"schema":"s","select":[]}"#).is_ok());
    assert_eq!(parse(r#"{"table":"t","select":["a"]}"#).unwrap().schema, "public");
}

#[test]
fn the_first_broken_rule_is_reported() {
    assert!(refusal(r#"{"select":"a"}"#).starts_with("Error parsing `select`"));
    assert!(refusal(r#"{"schema":"s","filter":"bad","select":["a"]}"#).starts_with("No subscription params"));
    assert_eq!(
        refusal(r#"{"schema":"*","table":"t","filter":"undefined","select":["a"]}"#),
        r#"Error parsing `filter` params: ["undefined"]"#
    );
    assert_eq!(
        refusal(r#"{"schema":"s","table":"t","filter":"id=eq.1,"}"#),
        "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)"
    );
}

#[test]
fn legacy_topics_name_their_target() {
    let parts = |sub_topic: &str| legacy(sub_topic).map(|found| (found.event, found.schema, found.table, found.filters.len()));
    assert_eq!(parts("room1"), Ok((Event::All, "room1".into(), "*".into(), 0)));
    assert_eq!(parts("public:orders"), Ok((Event::All, "public".into(), "orders".into(), 0)));
    assert_eq!(parts("public:orders:id=eq.961"), Ok((Event::All, "public".into(), "orders".into(), 1)));
    assert_eq!(legacy("public:orders:at=gt.10:30").unwrap().filters[0].value, "10:30");
    assert_eq!(parts("public:orders:"), Ok((Event::All, "public".into(), "orders".into(), 0)));
    assert_eq!(parts(":"), Ok((Event::All, String::new(), String::new(), 0)));
    assert_eq!(legacy("a:b:c").unwrap_err().to_string(), r#"Error parsing `filter` params: ["c"]"#);
}
