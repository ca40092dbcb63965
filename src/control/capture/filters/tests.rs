//! Every verdict given here is what `realtime.check_equality_op` and the operators of a real Postgres say.

use std::collections::HashMap;

use super::super::values::testing::{Dice, quoted, rows, session, type_named};
use super::*;
use crate::realtime::postgres_changes::Op;

const TYPES: &str = "create type mood as enum ('calm', 'busy', 'absent'); create domain age as integer; create domain note as text; \
    create domain price as numeric(6, 1); create type pair as (x integer, y text);";

const ORDERS: [Op; 8] = [Op::Eq, Op::Neq, Op::Lt, Op::Lte, Op::Gt, Op::Gte, Op::IsDistinct, Op::In];
const PATTERNS: [Op; 4] = [Op::Like, Op::Ilike, Op::Match, Op::Imatch];

/// Types, values that are literals as well, and literals that columns do not print. Every one is accepted by Postgres.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    ("int2", &["0", "-32768", "32767", "7"], &["+7", "007", "-0", " 7 "]),
    ("int4", &["0", "-2147483648", "2147483647", "7"], &["+7", "007"]),
    ("int8", &["0", "9007199254740993", "9007199254740992", "-9223372036854775808"], &["+0"]),
    ("oid", &["0", "42", "4294967295"], &["-1"]),
    (
        "numeric",
        &["0", "1.50", "1.5", "-1.5", "12345678901234567890.123456789", "0.00001", "NaN", "Infinity", "-Infinity", "1000"],
        &["1e3", "+1.500", "-0.0", "15e-1", ".5", "1.", "nan", "inf", " 1.5"],
    ),
    (
        "float4",
        &["0", "-0", "1.1", "3.4028235e+38", "1e-45", "NaN", "Infinity", "-Infinity"],
        &["1.10000002", "11e-1", "+1.1", ".5", "inf"],
    ),
    (
        "float8",
        &["0", "-0", "1.1", "2.5e-300", "5e-324", "1e+20", "NaN", "Infinity", "-Infinity"],
        &["100000000000000000000", "1.", "nan"],
    ),
    ("bool", &["t", "f"], &["true", "false", "yes", "off", "1", "0", "TRUE", "tr", " on "]),
    ("text", &["", "a", "A", "b", "a ", "é", "e\u{301}", "漢字", "a_b%", "a\\b", "NULL", "1"], &[]),
    ("varchar", &["", "a", "A", "é"], &["b "]),
    (
        "name",
        &["a", "B", "b", "_", "é"],
        &["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"],
    ),
    (
        "uuid",
        &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "ffffffff-0000-0000-0000-000000000000"],
        &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11"],
    ),
    (
        "date",
        &["2024-06-01", "2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "0001-01-01"],
        &["20240601", "June 1 2024", "2024-6-1", "2024-06-01 12:00:00", "epoch"],
    ),
    ("time", &["12:34:56.789", "24:00:00", "00:00:00", "23:59:59.999999"], &["12:34", "1:02 PM", "12:34:56.7890001"]),
    (
        "timestamp",
        &[
            "2024-06-01 12:00:00.5",
            "2024-06-01 00:00:00",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "294276-12-31 23:59:59.999999",
        ],
        &[
            "2024-06-01T12:00:00.5",
            "2024-06-01",
            "2024-06-01 12:00",
            "2024-06-01 12:00:00+05",
            "2024-05-31 24:00:00",
            "2024-06-01T12:00:00.5Z",
        ],
    ),
    (
        "timestamptz",
        &[
            "2024-06-01 12:00:00.5+00",
            "2024-06-01 00:00:00+00",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "1800-01-01 00:00:00+00",
        ],
        &[
            "2024-06-01T12:00:00.5Z",
            "2024-06-01T14:30:00.5+02:30",
            "2024-06-01 12:00:00.5",
            "2024-06-01",
            "2024-06-01 02:00+02",
            "2024-06-01 00:00:00 America/New_York",
            "2024-06-01T12:00:00.500001-00:00:00",
        ],
    ),
    ("varbit", &["0", "1", "10", "1000", "100000001", "01"], &["x1F", "b10", ""]),
    ("mood", &["calm", "busy"], &["absent"]),
    ("age", &["1", "20"], &["+3"]),
    ("note", &["a", "B", ""], &["b"]),
    ("price", &["1.5", "2.0"], &["1.54", "2"]),
    ("interval", &["1 day", "24:00:00"], &["1440 min"]),
    ("inet", &["10.0.0.1", "10.0.0.0/8"], &["::1"]),
    ("jsonb", &["1", "{\"a\": 1}"], &["1.0"]),
    ("int4[]", &["{1,2}", "{}"], &["{ 1, 2 }"]),
    ("int4range", &["[1,10)", "empty"], &["[1,9]"]),
    ("pair", &["(1,a)", "(,)"], &["(1,)"]),
];

fn filter(op: Op, value: &str, negate: bool) -> Filter {
    Filter { column: "v".to_owned(), op, value: value.to_owned(), negate }
}

/// A list literal, every element quoted.
fn quoted_list(items: &[&str]) -> String {
    let items: Vec<String> =
        items.iter().map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    format!("{{{}}}", items.join(","))
}

/// Filters and values of one type, and how often there was a verdict without asking.
struct Comparison {
    type_info: Rc<TypeInfo>,
    cases: Vec<(Filter, Option<String>)>,
}

impl Comparison {
    fn add(&mut self, op: Op, literal: &str, values: &[Option<&str>]) {
        for negate in [false, true] {
            for value in values {
                self.cases.push((filter(op, literal, negate), value.map(str::to_owned)));
            }
        }
    }

    /// Compares with the database; returns the count of verdicts and of cases.
    async fn run(&self, client: &tokio_postgres::Client) -> (usize, usize) {
        let compiled: Vec<_> = self.cases.iter().map(|(filter, _)| compile(filter, &self.type_info, true)).collect();
        let questions: Vec<_> =
            compiled.iter().zip(&self.cases).map(|(compiled, (_, value))| compiled.question(value.as_deref())).collect();
        let answers = ask(client, &questions).await;
        let mut native = 0;
        for ((compiled, (filter, value)), answer) in compiled.iter().zip(&self.cases).zip(&answers) {
            let verdict = compiled.test(value.as_deref());
            let said = match answer {
                Ok(Some(true)) => Verdict::True,
                Ok(Some(false)) => Verdict::False,
                Ok(None) => Verdict::Null,
                Err(error) => panic!("{} {filter:?} {value:?}: {error}", self.type_info.name),
            };
            if verdict != Verdict::AskSql {
                assert_eq!(verdict, said, "{} {filter:?} {value:?}", self.type_info.name);
                native += 1;
            }
        }
        (native, answers.len())
    }
}

#[tokio::test]
async fn verdicts_are_those_of_postgres() {
    let client = session().await;
    client.batch_execute(TYPES).await.unwrap();
    let mut shares: HashMap<&str, (usize, usize)> = HashMap::new();
    for (type_name, values, literals) in VALUES {
        let type_info = type_named(&client, type_name).await;
        let mut comparison = Comparison { type_info, cases: Vec::new() };
        // As columns print them.
        let literal_rows: Vec<String> = values.iter().map(|value| format!("({}::{type_name})", quoted(value))).collect();
        let printed = rows(&client, &format!("select v from (values {}) as t(v)", literal_rows.join(","))).await;
        let columns: Vec<Option<&str>> = printed.iter().map(|row| row[0].as_deref()).chain([None]).collect();
        // Postgres has no lists of arrays.
        let has_lists = !type_name.ends_with("[]");
        for op in ORDERS.into_iter().filter(|op| has_lists || *op != Op::In) {
            for literal in values.iter().chain(*literals) {
                match op {
                    Op::In => comparison.add(op, &quoted_list(&[literal]), &columns),
                    _ => comparison.add(op, literal, &columns),
                }
            }
        }
        let with_null = format!("{{{}, null }}", quoted_list(&values[..1]).trim_matches(['{', '}']));
        for literal in ["{}", "{ }", "{NULL}", &with_null, &quoted_list(values), &quoted_list(literals)] {
            if has_lists {
                comparison.add(Op::In, literal, &columns);
            }
        }
        comparison.add(Op::Is, "null", &columns);
        if *type_name == "bool" {
            for keyword in ["true", "false", "unknown"] {
                comparison.add(Op::Is, keyword, &columns);
            }
        }
        shares.insert(type_name, comparison.run(&client).await);
    }
    let percent = |name: &str| shares[name].0 * 100 / shares[name].1;
    for name in
        ["int2", "int4", "int8", "uuid", "date", "timestamp", "timestamptz", "numeric", "float8", "bool", "name", "varbit"]
    {
        assert!(percent(name) >= 45, "{name}: {}", percent(name));
    }
    // Without the order.
    for name in ["text", "varchar", "mood", "note"] {
        assert!(percent(name) >= 35, "{name}: {}", percent(name));
    }
}

#[tokio::test]
async fn verdicts_on_random_values_are_those_of_postgres() {
    let client = session().await;
    let mut dice = Dice::new(2);
    let mut native = 0;
    for type_name in ["int4", "int8", "numeric", "float4", "float8", "timestamptz", "date", "varbit", "uuid", "text", "name"] {
        let type_info = type_named(&client, type_name).await;
        let mut make = || match type_name {
            "int4" => (dice.below(7) as i64 - 3).to_string(),
            "int8" => (dice.next() as i64 >> dice.below(64)).to_string(),
            "numeric" if dice.below(2) == 0 => dice.decimal(),
            "numeric" => format!("{}.{}", dice.below(3), dice.below(3) * 10),
            "float4" => format!("{:e}", f32::from_bits(dice.next() as u32)).replace("inf", "Infinity"),
            "float8" => format!("{:e}", f64::from_bits(dice.next())).replace("inf", "Infinity"),
            "timestamptz" => format!(
                "{:04}-{:02}-{:02} {:02}:00:00+{:02}",
                1 + dice.below(9_000),
                1 + dice.below(12),
                1 + dice.below(28),
                dice.below(24),
                dice.below(15)
            ),
            "date" => format!("{:04}-{:02}-{:02}", 1 + dice.below(9_000), 1 + dice.below(12), 1 + dice.below(28)),
            "varbit" => format!("{:b}", dice.below(1 << 12)),
            "uuid" => uuid::Uuid::from_u64_pair(dice.next(), dice.next()).to_string(),
            _ => dice.text(3),
        };
        let literals: Vec<String> = (0..150).map(|_| make()).collect();
        let list: Vec<String> = (0..150).map(|_| format!("({}::{type_name})", quoted(&make()))).collect();
        let printed = rows(&client, &format!("select v from (values {}) as t(v)", list.join(","))).await;
        let mut comparison = Comparison { type_info, cases: Vec::new() };
        for (nth, (row, literal)) in printed.iter().zip(&literals).enumerate() {
            let same = row[0].as_deref().unwrap();
            let literal = if nth % 4 == 0 { same } else { literal };
            for op in ORDERS.into_iter().filter(|op| *op != Op::In) {
                comparison.add(op, literal, &[Some(same)]);
            }
            comparison.add(Op::In, &quoted_list(&[literal, &literals[nth / 2]]), &[Some(same)]);
        }
        native += comparison.run(&client).await.0;
    }
    assert!(native > 20_000, "{native}");
}

#[tokio::test]
async fn patterns_are_those_of_postgres() {
    let client = session().await;
    for type_name in ["text", "varchar", "name"] {
        compare_patterns(&client, type_name).await;
    }
}

async fn compare_patterns(client: &tokio_postgres::Client, type_name: &str) {
    let type_info = type_named(client, type_name).await;
    let mut comparison = Comparison { type_info, cases: Vec::new() };
    let mut dice = Dice::new(3);
    const PIECES: [&str; 8] = ["a", "b", "é", "%", "_", "%", "A", "漢"];
    let mut make =
        |pieces: &[&str]| -> String { (0..dice.below(7)).map(|_| pieces[dice.below(pieces.len() as u64) as usize]).collect() };
    for _ in 0..3_000 {
        let (pattern, text) = (make(&PIECES), make(&["a", "b", "é", "a", "漢"]));
        comparison.add(Op::Like, &pattern, &[Some(&text)]);
    }
    for op in PATTERNS {
        comparison.add(op, "a", &[None, Some("a"), Some("BAB"), Some("")]);
    }
    comparison.add(Op::Like, "a\\_b", &[Some("a_b"), Some("axb"), None]);
    let (native, all) = comparison.run(client).await;
    assert!(native > 6_000 && native < all, "{native} of {all}");
}

/// Where the bare name of a type cuts values to one character, and where the original compares digits instead of bytes.
#[tokio::test]
async fn types_that_are_compared_otherwise_than_by_the_original() {
    let client = session().await;
    for (type_name, full_name, values) in
        [("bpchar", "bpchar", ["abc  ", "abc", "ab", "B  "]), ("bit", "varbit", ["101", "10", "1010", "011"])]
    {
        let type_info = type_named(&client, type_name).await;
        for (value, literal) in values.iter().flat_map(|value| values.iter().map(move |literal| (value, literal))) {
            for (op, symbol) in
                [(Op::Eq, "="), (Op::Neq, "<>"), (Op::Lt, "<"), (Op::Gte, ">="), (Op::Like, "like"), (Op::Ilike, "ilike")]
            {
                if matches!(op, Op::Like | Op::Ilike) && type_name == "bit" {
                    continue;
                }
                let sql = format!("select {}::{full_name} {symbol} {}::{full_name}", quoted(value), quoted(literal));
                let said = rows(&client, &sql).await[0][0].as_deref() == Some("t");
                let compiled = compile(&filter(op, literal, false), &type_info, true);
                let asked = ask(&client, &[compiled.question(Some(value))]).await;
                assert_eq!(asked, vec![Ok(Some(said))], "{sql}");
                let verdict = compiled.test(Some(value));
                assert!(verdict == Verdict::AskSql || (verdict == Verdict::True) == said, "{sql}");
                assert!(
                    verdict != Verdict::AskSql || type_name == "bpchar" && !matches!(op, Op::Eq | Op::Neq | Op::Like),
                    "{sql}"
                );
            }
        }
    }
    let bytea = type_named(&client, "bytea").await;
    let mut comparison = Comparison { type_info: Rc::clone(&bytea), cases: Vec::new() };
    for op in [Op::Eq, Op::Neq, Op::Lt, Op::Gt, Op::IsDistinct] {
        for literal in ["01ff", "01", "", "zz", "0\\061ff"] {
            comparison.add(op, literal, &[Some("\\x01ff"), Some("\\x"), Some("\\xff00"), None]);
        }
    }
    comparison.add(Op::Like, "01%", &[Some("\\x01ff"), Some("\\xff01")]);
    comparison.add(Op::In, "{01ff,\"02\"}", &[Some("\\x01ff"), Some("\\xff01")]);
    let (native, all) = comparison.run(&client).await;
    assert!(native >= 44 && native < all, "{native} of {all}");
    // A prefix says what is meant; the original finds nothing then.
    for (literal, expected) in
        [("\\x01ff", Verdict::True), ("\\x01FF", Verdict::True), ("\\x01", Verdict::False), ("01ff", Verdict::True)]
    {
        assert_eq!(compile(&filter(Op::Eq, literal, false), &bytea, true).test(Some("\\x01ff")), expected, "{literal}");
    }
}

#[tokio::test]
async fn refused_questions_do_not_spoil_others() {
    let client = session().await;
    let integer = type_named(&client, "int4").await;
    let text = type_named(&client, "text").await;
    let mut compiled = vec![compile(&filter(Op::Lt, "b", false), &text, true); 40];
    // Neither is decided here, for Postgres refuses them.
    compiled[7] = compile(&filter(Op::Eq, "99999999999", false), &integer, true);
    compiled[31] = compile(&filter(Op::Match, "(", false), &text, true);
    compiled[32] = compile(&filter(Op::Is, "true", false), &integer, true);
    assert!(compiled.iter().all(Compiled::needs_sql));
    let questions: Vec<_> = compiled.iter().map(|compiled| compiled.question(Some("1"))).collect();
    let answers = ask(&client, &questions).await;
    for (nth, answer) in answers.iter().enumerate() {
        match nth {
            7 => assert_eq!(*answer, Err("value \"99999999999\" is out of range for type integer".to_owned())),
            31 => assert_eq!(*answer, Err("invalid regular expression: parentheses () not balanced".to_owned())),
            32 => assert!(answer.as_ref().unwrap_err().contains("must be type boolean"), "{answer:?}"),
            _ => assert_eq!(*answer, Ok(Some(true))),
        }
    }
}

fn columns() -> impl Fn(&str) -> Option<FilterColumn> {
    let base = |oid| Rc::new(TypeInfo { oid, name: String::new(), kind: super::super::values::TypeKind::Base });
    move |name| {
        let (index, type_info) = match name {
            "id" => (0, base(23)),
            "name" => (1, base(25)),
            _ => return None,
        };
        Some(FilterColumn { index, type_info, deterministic: true })
    }
}

fn on(column: &str, op: Op, value: &str) -> Filter {
    Filter { column: column.to_owned(), op, value: value.to_owned(), negate: false }
}

#[test]
fn groups_join_by_and() {
    use Cell::{Absent, Null, Text};
    let test = |filters: &[Filter], id, name| {
        let group = compile_all(filters, columns());
        let cell = move |index| if index == 0 { id } else { name };
        let questions = group.questions(cell).count();
        (group.test(cell), questions)
    };
    assert_eq!(compile_all(&[], columns()).test(|_| Cell::Absent), Verdict::True);
    assert_eq!(test(&[], Absent, Absent), (Verdict::True, 0));
    assert_eq!(test(&[on("gone", Op::Is, "null")], Null, Null), (Verdict::False, 0));
    let both = [on("name", Op::Match, "^a"), on("id", Op::Gt, "5")];
    assert_eq!(test(&both, Text("6"), Text("abc")), (Verdict::AskSql, 1));
    assert_eq!(test(&both, Text("5"), Text("abc")).0, Verdict::False);
    assert_eq!(test(&both, Null, Text("abc")).0, Verdict::False);
    assert_eq!(test(&both, Absent, Text("abc")).0, Verdict::False);
    assert_eq!(test(&both, Text("6"), Null), (Verdict::False, 0));
    let native = [on("id", Op::In, "{1,2}"), on("name", Op::Like, "a%")];
    assert_eq!(test(&native, Text("2"), Text("abc")), (Verdict::True, 0));
    assert_eq!(test(&native, Text("3"), Text("abc")), (Verdict::False, 0));
    assert_eq!(test(&[on("name", Op::Is, "null")], Absent, Absent).0, Verdict::False);
}

#[test]
fn no_text_makes_it_panic() {
    use super::super::values::TypeKind;
    let texts: Vec<&str> = VALUES.iter().flat_map(|(_, values, literals)| values.iter().chain(*literals)).copied().collect();
    let mut dice = Dice::new(5);
    let mut verdicts = 0;
    for _ in 0..3_000 {
        let (literal, value) = (dice.near(&texts), dice.near(&texts));
        for oid in [16, 17, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1560, 1562, 1700, 2950, 3802] {
            let type_info = TypeInfo { oid, name: String::new(), kind: TypeKind::Base };
            for op in Op::ALL {
                let literal = if op == Op::In { format!("{{{literal}}}") } else { literal.clone() };
                let compiled = compile(&filter(op, &literal, false), &type_info, true);
                verdicts += usize::from(compiled.test(Some(&value)) != Verdict::AskSql);
                assert!(compiled.question(Some(&value)).value.is_some());
            }
        }
    }
    assert!(verdicts > 3_000, "{verdicts}");
}

#[test]
fn collations_that_fold_are_asked() {
    let type_info = columns()("name").unwrap().type_info;
    for op in [Op::Eq, Op::Neq, Op::In, Op::IsDistinct, Op::Like] {
        let filter = filter(op, "{a}", false);
        assert!(compile(&filter, &type_info, false).needs_sql() && !compile(&filter, &type_info, true).needs_sql(), "{op:?}");
    }
    assert!(!compile(&filter(Op::Is, "null", false), &type_info, false).needs_sql());
}
