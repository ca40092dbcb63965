//! Round trips through the test encoder, fixed bytes from the documentation's layouts, and
//! arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::encode::{self, ColumnOf, Value};
use super::*;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        vec(any::<u8>(), 0..40).prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Binary),
    ]
}

fn values() -> impl Strategy<Value = Vec<Value>> {
    vec(value(), 0..20)
}

fn column_of() -> impl Strategy<Value = ColumnOf> {
    ("[^\0]{0,12}", any::<u32>(), any::<i32>(), any::<bool>()).prop_map(|(name, type_oid, typmod, is_key)| ColumnOf {
        name,
        type_oid,
        typmod,
        is_key,
    })
}

fn owned(tuple: &Tuple<'_>) -> Vec<Value> {
    assert_eq!(tuple.columns().len(), tuple.len());
    let owned = |column| match column {
        Column::Null => Value::Null,
        Column::Unchanged => Value::Unchanged,
        Column::Text(bytes) => Value::Text(bytes.to_vec()),
        Column::Binary(bytes) => Value::Binary(bytes.to_vec()),
    };
    tuple.columns().map(owned).collect()
}

/// No message may be cut short or go on: the decoder accounts for every byte.
fn assert_exact(message: &[u8]) {
    for end in 0..message.len() {
        let error = Message::decode(&message[..end]).expect_err("cut short");
        assert!(error.position <= end, "{error}");
    }
    let longer = [message, &[0]].concat();
    let error = Message::decode(&longer).expect_err("goes on");
    assert_eq!(error, DecodeError { position: message.len(), expected: "the end of the message" });
}

proptest! {
    #[test]
    fn inserts(relation: u32, new in values()) {
        let bytes = encode::insert(relation, &new);
        let Ok(Message::Insert { relation: id, new: tuple }) = Message::decode(&bytes) else { panic!("insert") };
        prop_assert_eq!((id, owned(&tuple)), (relation, new));
        prop_assert_eq!(ChangeHead::peek(&bytes[..5]), Some(ChangeHead { kind: ChangeKind::Insert, relation }));
        assert_exact(&bytes);
    }

    #[test]
    fn updates(relation: u32, before in proptest::option::of((any::<bool>(), values())), after in values()) {
        let encoded = before.as_ref().map(|(full, old)| (if *full { b'O' } else { b'K' }, old.as_slice()));
        let bytes = encode::update(relation, encoded, &after);
        let Ok(Message::Update { relation: id, old, new }) = Message::decode(&bytes) else { panic!("update") };
        let old = old.map(|old| match old {
            OldTuple::Key(tuple) => (false, owned(&tuple)),
            OldTuple::Full(tuple) => (true, owned(&tuple)),
        });
        prop_assert_eq!((id, old, owned(&new)), (relation, before, after));
        assert_exact(&bytes);
    }

    #[test]
    fn deletes(relation: u32, full: bool, before in values()) {
        let bytes = encode::delete(relation, if full { b'O' } else { b'K' }, &before);
        let Ok(Message::Delete { relation: id, old }) = Message::decode(&bytes) else { panic!("delete") };
        prop_assert_eq!(matches!(old, OldTuple::Full(_)), full);
        let (OldTuple::Key(tuple) | OldTuple::Full(tuple)) = old;
        prop_assert_eq!((id, owned(&tuple)), (relation, before));
        assert_exact(&bytes);
    }

    #[test]
    fn relations(id: u32, namespace in "[^\0]{0,8}", name in "[^\0]{0,8}", identity in 0usize..4, columns in vec(column_of(), 0..12)) {
        let (tag, replica_identity) = [
            (b'd', ReplicaIdentity::Default), (b'n', ReplicaIdentity::Nothing),
            (b'f', ReplicaIdentity::Full), (b'i', ReplicaIdentity::Index),
        ][identity];
        let bytes = encode::relation(id, &namespace, &name, tag, &columns);
        let Ok(Message::Relation(message)) = Message::decode(&bytes) else { panic!("relation") };
        prop_assert_eq!(message.columns.len(), columns.len());
        let relation = Relation::from(&message);
        let namespace = if namespace.is_empty() { "pg_catalog".to_owned() } else { namespace };
        let columns: Vec<_> = columns.into_iter().map(|column| ColumnDescription {
            name: column.name, type_oid: column.type_oid, typmod: column.typmod, is_key: column.is_key,
        }).collect();
        prop_assert_eq!(relation, Relation { id, namespace, name, replica_identity, columns });
        assert_exact(&bytes);
    }

    #[test]
    fn small_messages(position: u64, end: u64, time: i64, number: u32, flag: bool, name in "[^\0]{0,8}", content in vec(any::<u8>(), 0..30)) {
        let (lsn, commit_time_us) = (Lsn(position), time);
        let cases = [
            (encode::begin(position, time, number), Message::Begin { final_lsn: lsn, commit_time_us, xid: number }),
            (encode::commit(position, end, time), Message::Commit { commit_lsn: lsn, end_lsn: Lsn(end), commit_time_us }),
            (encode::origin(position, &name), Message::Origin { commit_lsn: lsn, name: name.as_bytes() }),
            (encode::type_name(number, &name, "t"), Message::Type { id: number, namespace: name.as_bytes(), name: b"t" }),
            (
                encode::logical_message(flag, position, &name, &content),
                Message::Message { transactional: flag, lsn, prefix: name.as_bytes(), content: &content },
            ),
        ];
        for (bytes, message) in cases {
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            prop_assert_eq!(ChangeHead::peek(&bytes), None);
            assert_exact(&bytes);
        }
    }

    #[test]
    fn truncates(cascade: bool, restart: bool, ids in vec(any::<u32>(), 0..9)) {
        let bytes = encode::truncate(u8::from(cascade) | u8::from(restart) << 1, &ids);
        let Ok(Message::Truncate { cascade: c, restart_identity: r, relations }) = Message::decode(&bytes) else { panic!("truncate") };
        prop_assert_eq!((c, r, relations.iter().collect::<Vec<_>>()), (cascade, restart, ids));
        assert_exact(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in prop_oneof![any::<u8>(), prop::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec())], rest in vec(any::<u8>(), 0..200)) {
        let bytes = [vec![kind], rest].concat();
        match Message::decode(&bytes) {
            Ok(Message::Insert { new, .. }) => prop_assert_eq!(owned(&new).len(), new.len()),
            Ok(_) => {}
            Err(error) => prop_assert!(error.position <= bytes.len() && !error.expected.is_empty()),
        }
        let _ = ChangeHead::peek(&bytes);
    }
}

#[test]
fn fixed_bytes_of_an_insert() {
    let bytes = b"I\x00\x00\x40\x01N\x00\x03t\x00\x00\x00\x02hinu";
    let Ok(Message::Insert { relation, new }) = Message::decode(bytes) else { panic!("insert") };
    assert_eq!(relation, 0x4001);
    assert_eq!(new.columns().collect::<Vec<_>>(), [Column::Text(b"hi"), Column::Null, Column::Unchanged]);
}

#[test]
fn lengths_are_not_believed() {
    let negative = DecodeError { position: 9, expected: "a text value" };
    assert_eq!(Message::decode(b"I\x00\x00\x40\x01N\x00\x01t\xff\xff\xff\xff"), Err(negative));
    let beyond = DecodeError { position: 13, expected: "a text value" };
    assert_eq!(Message::decode(b"I\x00\x00\x40\x01N\x00\x01t\x7f\xff\xff\xffhi"), Err(beyond));
    let many_ids = DecodeError { position: 6, expected: "the ids of the relations" };
    assert_eq!(Message::decode(b"T\xff\xff\xff\xff\x00"), Err(many_ids));
}

#[test]
fn later_protocol_versions_are_named_as_such() {
    for kind in *b"SEcA" {
        let error = Message::decode(&[kind, 0, 0, 0, 1, 1]).unwrap_err();
        assert_eq!(error.position, 0);
        assert!(error.expected.contains("streamed"), "{error}");
    }
    for kind in *b"bPKrp" {
        assert!(Message::decode(&[kind, 0, 0]).unwrap_err().expected.contains("prepared"));
    }
    assert!(Message::decode(b"").is_err());
    assert_eq!(Message::decode(b"?").unwrap_err().to_string(), "pgoutput message: expected a message of a known kind at byte 0");
}

#[test]
fn a_new_description_replaces_the_old_one() {
    let column = |name: &str| ColumnOf { name: name.to_owned(), type_oid: 25, typmod: -1, is_key: true };
    let mut relations = Relations::default();
    assert!(relations.get(7).is_none());
    for columns in [vec![column("a")], vec![column("a"), column("b")]] {
        let bytes = encode::relation(7, "public", "t", b'd', &columns);
        let Ok(Message::Relation(message)) = Message::decode(&bytes) else { panic!("relation") };
        assert_eq!(relations.describe(&message).columns.len(), columns.len());
    }
    let relation = relations.get(7).unwrap();
    assert_eq!((relation.column_index("b"), relation.column_index("c")), (Some(1), None));
}

#[test]
fn names_that_are_not_utf8_do_not_stop_the_stream() {
    let bytes = b"R\x00\x00\x00\x01s\xff\x00t\x00d\x00\x00";
    let Ok(Message::Relation(message)) = Message::decode(bytes) else { panic!("relation") };
    assert_eq!(message.namespace, b"s\xff");
    assert_eq!(Relation::from(&message).namespace, "s\u{fffd}");
}
