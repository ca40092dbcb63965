//! Every value printed here is what `to_jsonb` prints, in a real Postgres.

use super::testing::{Dice, quoted, rows, session, type_named};
use super::*;

const TYPES: &str = "
    create type mood as enum ('calm', 'busy', 'a \"b\" \\ c');
    create type pair as (x integer, y text);
    create type nested as (bb pair, a double precision[], \"Ünï\" timestamptz, c mood, d bytea, e jsonb);
    create type gapped as (x integer, gone text, y text);
    alter type gapped drop attribute gone;
    create domain amount as numeric(10, 2) check (value < 1e6);
    create domain couple as pair;
    create domain raw as bytea;
    create domain tags as text[];
    create type span as range (subtype = float8);
    create table shown (a integer, b text);
    create type odd as enum ('x');
    create function odd_json(odd) returns json language sql as $$ select '{\"odd\":1}'::json $$;
    create cast (odd as json) with function odd_json(odd);";

/// Types and literals. Literals that this release of Postgres lacks would fail the test.
const VALUES: &[(&str, &[&str])] = &[
    ("int2", &["0", "-32768", "32767"]),
    ("int4", &["0", "-2147483648", "2147483647"]),
    ("int8", &["0", "9007199254740993", "-9223372036854775808"]),
    ("oid", &["0", "42", "4294967295"]),
    ("numeric", &["0", "-0.00", "1.50", "12345678901234567890.123456789", "1e-20", "1e30", "NaN", "Infinity", "-Infinity"]),
    ("float4", &["0", "-0", "1.1", "3.4e38", "1e-45", "1e15", "NaN", "Infinity", "-Infinity"]),
    ("float8", &["0", "-0", "1.1", "2.5e-300", "1e308", "5e-324", "1e15", "123456789012345678", "NaN", "Infinity", "-Infinity"]),
    ("bool", &["t", "f"]),
    ("text", &["", "a", "text \"quoted\" \\ \t é\u{1}\u{7f}", "NULL", "null", "{}", "\u{2028}😀"]),
    ("varchar", &["", "abc"]),
    ("name", &["abc", "x y"]),
    ("bpchar", &["abc  ", ""]),
    ("\"char\"", &["a", ""]),
    ("uuid", &["A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("bytea", &["\\x", "\\x0001ff", "abc"]),
    ("date", &["2024-06-01", "infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "0001-01-01"]),
    ("time", &["12:34:56.789", "24:00:00", "00:00:00"]),
    ("timetz", &["12:34:56.789+05:30", "00:00:00-00"]),
    ("timestamp", &["2024-06-01 12:00:00.5", "infinity", "-infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"]),
    (
        "timestamptz",
        &[
            "2024-06-01 12:00:00.5+00",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "1800-01-01 00:00:00+00",
            "294276-12-31 00:00:00Z",
        ],
    ),
    ("interval", &["1 day 02:00:00", "-1 mon +3 days", "0", "1 year 00:00:00.001"]),
    ("inet", &["10.0.0.0/8", "::1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("money", &["12.34", "-1"]),
    ("bit(5)", &["10101"]),
    ("varbit", &["", "101"]),
    ("xml", &["<a b=\"c\">d</a>"]),
    ("tsvector", &["a:1 'b c':2"]),
    ("point", &["(1,2.5)"]),
    ("box", &["(3,4),(1,2)"]),
    ("pg_lsn", &["16/B374D848"]),
    ("regclass", &["pg_class"]),
    ("jsonpath", &["$.a ? (@ > 1)"]),
    ("int4range", &["[1,10)", "empty"]),
    ("int4multirange", &["{[1,3),[5,9)}"]),
    ("tstzrange", &["[2024-01-01 00:00:00+00,)"]),
    ("span", &["[1.5,2.5]"]),
    (
        "json",
        &[
            "null",
            " { \"b\": 1 , \"a\" : [1.50, 1e2, -0], \"b\": {\"x\": \"\\u00e9\\/\"} } ",
            "\"text\"",
            "5",
            "[]",
            "{}",
            "[[],{}]",
        ],
    ),
    ("jsonb", &["null", "{\"b\": 1, \"aa\": 1.50, \"a\": [1e2]}", "\"text\"", "5"]),
    ("int4[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:-1][2:3]={{1,2}}", "{{{1}},{{2}}}"]),
    ("float8[]", &["{NaN,Infinity,1e20,-0}"]),
    ("text[]", &["{a,\"b,c\",NULL,\"q\\\"q\",\"NULL\",\"\",\" x \",\"{}\",\"\\\\\"}"]),
    ("bytea[]", &["{\"\\\\x01ff\"}"]),
    ("timestamptz[]", &["{\"2024-06-01 12:00:00+00\",infinity}"]),
    ("bool[]", &["{t,f}"]),
    ("bpchar[]", &["{\"ab \",c}"]),
    ("jsonb[]", &["{\"{\\\"a\\\": [1, 2]}\",\"\\\"x\\\"\"}"]),
    ("json[]", &["{\"{\\\"a\\\":1e1}\"}"]),
    ("box[]", &["{(3,4),(1,2);(7,8),(5,6)}"]),
    ("mood", &["busy", "a \"b\" \\ c"]),
    ("mood[]", &["{calm,\"a \\\"b\\\" \\\\ c\"}"]),
    ("amount", &["1.5"]),
    ("amount[]", &["{1.5,2}"]),
    ("couple", &["(1,x)"]),
    ("raw", &["\\x01"]),
    ("tags", &["{a,b}"]),
    ("pair", &["(5,five)", "(,)", "(1,\"\")", "(1,\"a \"\"b\"\" \\\\ (c), d\")"]),
    ("pair[]", &["{\"(1,a)\",NULL,\"(2,\\\"b,c\\\")\"}"]),
    ("gapped", &["(1,a)"]),
    ("shown", &["(1,a)"]),
    (
        "nested",
        &["(\"(1,\"\"a b\"\")\",\"{1,NaN}\",\"2024-06-01 12:00:00+00\",busy,\"\\\\x01\",\"{\"\"a\"\": 1}\")", "(,{},,,,)"],
    ),
];

/// What is left to the database.
const ASKED: &[(&str, &str)] = &[("odd", "x"), ("int2vector", "1 2"), ("oidvector", "1 2"), ("odd[]", "{x}"), ("hstore", "a=>1")];

fn native(type_info: &TypeInfo, text: &str) -> Result<String, NeedsSql> {
    let mut out = b"kept".to_vec();
    let written = write_json(type_info, text, &mut out);
    let json = String::from_utf8(out).unwrap().split_off(4);
    if written.is_err() {
        assert_eq!(json, "");
    }
    written.map(|()| json)
}

/// What the database says, with the deviations of the original for scalars.
fn expected(type_info: &TypeInfo, json: &str) -> String {
    let is_number = matches!(type_info.oid, oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC);
    match json {
        "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"" if is_number => "null".to_owned(),
        _ if type_info.oid == oid::BYTEA => json.replacen("\\\\x", "", 1),
        _ => json.to_owned(),
    }
}

/// Prints every literal here and there; returns how many were compared.
async fn compare(client: &tokio_postgres::Client, type_name: &str, literals: &[String]) -> usize {
    let type_info = type_named(client, type_name).await;
    let list: Vec<String> = literals.iter().map(|literal| format!("({}::{type_name})", quoted(literal))).collect();
    let found = rows(client, &format!("select v, to_jsonb(v)::text from (values {}) as t(v)", list.join(","))).await;
    assert_eq!(found.len(), literals.len());
    for row in &found {
        let (text, json) = (row[0].as_ref().unwrap(), row[1].as_ref().unwrap());
        assert_eq!(native(&type_info, text), Ok(expected(&type_info, json)), "{type_name} {text}");
        serde_json::from_str::<serde_json::Value>(&native(&type_info, text).unwrap()).unwrap();
    }
    found.len()
}

#[tokio::test]
async fn values_are_what_postgres_prints() {
    let client = session().await;
    client.batch_execute(TYPES).await.unwrap();
    for zone in ["UTC", "Asia/Kolkata", "America/St_Johns", "Europe/Amsterdam"] {
        client.batch_execute(&format!("set timezone = '{zone}'")).await.unwrap();
        for (type_name, literals) in VALUES {
            let literals: Vec<String> = literals.iter().map(|literal| (*literal).to_owned()).collect();
            compare(&client, type_name, &literals).await;
        }
    }
}

#[tokio::test]
async fn random_values_are_what_postgres_prints() {
    let client = session().await;
    client.batch_execute(TYPES).await.unwrap();
    let mut dice = Dice::new(1);
    let mut compared = 0;
    let mut make =
        |count: usize, one: &mut dyn FnMut(&mut Dice) -> String| -> Vec<String> { (0..count).map(|_| one(&mut dice)).collect() };
    let numbers = make(1_000, &mut Dice::decimal);
    compared += compare(&client, "numeric", &numbers).await;
    let doubles = make(2_000, &mut |dice| f64::from_bits(dice.next()).to_string().replace("inf", "Infinity"));
    compared += compare(&client, "float8", &doubles).await;
    let singles = make(2_000, &mut |dice| f32::from_bits(dice.next() as u32).to_string().replace("inf", "Infinity"));
    compared += compare(&client, "float4", &singles).await;
    let documents = make(1_500, &mut |dice| dice.document(4));
    compared += compare(&client, "json", &documents).await;
    compared += compare(&client, "jsonb", &documents).await;
    let texts = make(500, &mut |dice| dice.text(12));
    compared += compare(&client, "text", &texts).await;

    // Values that Postgres itself puts together: arrays and composites of nasty texts, moments of all times.
    let mut texts = texts.into_iter().map(|text| quoted(&text)).cycle();
    let mut text = || texts.next().unwrap();
    let lists: Vec<String> = (0..300).map(|_| format!("array[{},{},null,{}]", text(), text(), text())).collect();
    let grids: Vec<String> = (0..100).map(|_| format!("array[[{},{}],[{},{}]]", text(), text(), text(), text())).collect();
    let pairs: Vec<String> = (0..300).map(|n| format!("row({n},{})::pair", text())).collect();
    let pair_lists: Vec<String> =
        (0..100).map(|n| format!("array[row({n},{})::pair, row(null,{})::pair]", text(), text())).collect();
    let moments: Vec<String> =
        (0..1_000).map(|n| format!("to_timestamp({} + 0.{n})", n * 300_000_003_i64 - 150_000_000_000)).collect();
    for (type_name, expressions) in
        [("text[]", lists), ("text[]", grids), ("pair", pairs), ("pair[]", pair_lists), ("timestamptz", moments)]
    {
        let type_info = type_named(&client, type_name).await;
        let list: Vec<String> = expressions.iter().map(|expression| format!("({expression})")).collect();
        for row in rows(&client, &format!("select v, to_jsonb(v)::text from (values {}) as t(v)", list.join(","))).await {
            let (text, json) = (row[0].as_ref().unwrap(), row[1].as_ref().unwrap());
            assert_eq!(native(&type_info, text).as_ref(), Ok(json), "{type_name} {text}");
            compared += 1;
        }
    }
    assert!(compared > 8_000);
}

#[tokio::test]
async fn what_is_not_known_is_asked() {
    let client = session().await;
    client.batch_execute(TYPES).await.unwrap();
    let has_hstore = client.batch_execute("create extension hstore").await.is_ok();
    let mut questions = Vec::new();
    let mut answers = Vec::new();
    for (type_name, literal) in ASKED.iter().filter(|(name, _)| has_hstore || *name != "hstore") {
        let type_info = type_named(&client, type_name).await;
        assert_eq!(native(&type_info, literal), Err(NeedsSql), "{type_name}");
        let found = rows(&client, &format!("select to_jsonb({}::{type_name})::text", quoted(literal))).await;
        answers.push(Ok(found[0][0].clone().unwrap()));
        questions.push((type_info.oid, *literal));
    }
    questions.insert(1, (oid::INT4, "x"));
    answers.insert(1, Err("invalid input syntax for type integer: \"x\"".to_owned()));
    assert_eq!(ask(&client, &questions).await, answers);
    assert_eq!(ask(&client, &[]).await, vec![]);
    assert!(load(&client, &[0, 4_000_000_000]).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_lost_connection_fails_all() {
    let client = session().await;
    let _ = client.batch_execute("select pg_terminate_backend(pg_backend_pid())").await;
    let answers = ask(&client, &[(oid::INT4, "1"), (oid::INT4, "2")]).await;
    assert!(answers.len() == 2 && answers.iter().all(Result::is_err), "{answers:?}");
}

#[test]
fn text_of_another_form_is_not_guessed_at() {
    let base = |oid| TypeInfo { oid, name: String::new(), kind: TypeKind::Base };
    let cases = [
        (oid::INT4, "1 "),
        (oid::INT4, ""),
        (oid::FLOAT8, "nan"),
        (oid::BOOL, "true"),
        (oid::BYTEA, "abc"),
        (oid::JSON, "{"),
        (oid::TIMESTAMP, "06/01/2024 12:00:00"),
        (oid::TIMESTAMP, "2024-06-01 12:00:00+00"),
        (oid::TIMESTAMPTZ, "2024-06-01 12:00:00"),
        (oid::TIMESTAMPTZ, "Sat Jun 01 12:00:00 2024 UTC"),
        (oid::TIMESTAMPTZ, "2024-06-01 12:00:00 UTC"),
    ];
    for (oid, text) in cases {
        assert_eq!(native(&base(oid), text), Err(NeedsSql), "{oid} {text}");
    }
    let array = TypeInfo {
        oid: 1007,
        name: "_int4".into(),
        kind: TypeKind::Array { element: Rc::new(base(oid::INT4)), delimiter: b',' },
    };
    assert_eq!(native(&array, "{1,x}"), Err(NeedsSql));
    let attributes = vec![("x".to_owned(), Rc::new(base(oid::INT4)))];
    let composite = TypeInfo { oid: 20_000, name: "c".into(), kind: TypeKind::Composite { attributes } };
    assert_eq!(native(&composite, "(1,2)"), Err(NeedsSql));
    assert_eq!(native(&composite, "(1)"), Ok("{\"x\": 1}".to_owned()));
}

#[test]
fn no_text_makes_it_panic_or_print_what_is_no_json() {
    let base = |oid| Rc::new(TypeInfo { oid, name: String::new(), kind: TypeKind::Base });
    let list = |element| {
        let kind = TypeKind::Array { element, delimiter: b',' };
        Rc::new(TypeInfo { oid: 0, name: String::new(), kind })
    };
    let attributes = vec![("x".to_owned(), base(oid::INT4)), ("y".to_owned(), list(base(oid::TEXT)))];
    let row = Rc::new(TypeInfo { oid: 0, name: String::new(), kind: TypeKind::Composite { attributes } });
    let types = [
        base(oid::INT4),
        base(oid::FLOAT8),
        base(oid::NUMERIC),
        base(oid::BOOL),
        base(oid::BYTEA),
        base(oid::JSON),
        base(oid::TEXT),
        base(oid::TIMESTAMP),
        base(oid::TIMESTAMPTZ),
        list(base(oid::TEXT)),
        list(base(oid::JSON)),
        row.clone(),
        list(row),
    ];
    let literals: Vec<&str> = VALUES.iter().flat_map(|(_, literals)| *literals).copied().collect();
    let mut dice = Dice::new(4);
    let mut printed = 0;
    for _ in 0..20_000 {
        let text = dice.near(&literals);
        for type_info in &types {
            if let Ok(json) = native(type_info, &text) {
                let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&json);
                assert!(parsed.is_ok(), "{} {text:?} {json}", type_info.oid);
                printed += 1;
            }
        }
    }
    assert!(printed > 20_000, "{printed}");
}

#[test]
fn small_is_64_bytes() {
    assert!(is_small(&[b'1'; 64]) && !is_small(&[b'1'; 65]));
}
