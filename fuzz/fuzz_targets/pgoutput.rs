//! One message of the replication stream, as a tenant's database might send it.
//!
//! Besides not panicking: a tuple or a description that was handed out has as many columns
//! as it says, and an error points into the message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringcast::protocol::pgoutput::{ChangeHead, Message, OldTuple, Relation, Tuple};

fn walk(tuple: &Tuple<'_>) {
    assert_eq!(tuple.columns().count(), tuple.len());
}

fn walk_old(old: &OldTuple<'_>) {
    let (OldTuple::Key(tuple) | OldTuple::Full(tuple)) = old;
    walk(tuple);
}

fuzz_target!(|data: &[u8]| {
    let head = ChangeHead::peek(data);
    match Message::decode(data) {
        Ok(Message::Insert { new, .. }) => walk(&new),
        Ok(Message::Update { old, new, .. }) => {
            old.iter().for_each(walk_old);
            walk(&new);
        }
        Ok(Message::Delete { old, .. }) => walk_old(&old),
        Ok(Message::Relation(relation)) => {
            assert_eq!(Relation::from(&relation).columns.len(), relation.columns.len());
            assert!(head.is_none());
        }
        Ok(Message::Truncate { relations, .. }) => {
            assert_eq!(relations.iter().count(), relations.iter().len());
        }
        Ok(_) => assert!(head.is_none()),
        Err(error) => assert!(error.position <= data.len()),
    }
});
