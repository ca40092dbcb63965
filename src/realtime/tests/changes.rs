//! Row changes on a shard: who is asked for when, and what clients get of a delivery (5.5, 5.6, 11.3, 11.5).

use std::sync::Arc;

use serde_json::{Value, json};

use super::world::{Client, World};
use crate::protocol::phoenix::Vsn;
use crate::protocol::phoenix::encode::Status;
use crate::realtime::database::{Ask, Asker, ChangeDelivery, ChangeTarget};

fn world() -> World {
    let world = World::with(1, |config| config.has_database = true);
    world.shared.database_ready.store(true, std::sync::atomic::Ordering::Release);
    world
}

/// Joins and returns the channel's identity as the control plane knows it, with the ids it was asked about.
fn subscribed(world: &mut World, client: Client, topic: &str, payload: Value) -> (u32, u64, Vec<u32>) {
    world.text(client, &json!(["1", "1", topic, "phx_join", payload]));
    let mut questions = world.questions(0);
    assert_eq!(questions.len(), 1);
    let question = questions.remove(0);
    let (Asker::Channel { channel, serial, .. }, Ask::Subscribe(subscribe)) = (question.asker, question.ask) else {
        panic!("a subscription was expected")
    };
    (channel, serial, subscribe.entries.iter().map(|(id, _)| *id).collect())
}

fn deliver(world: &mut World, targets: Vec<ChangeTarget>) {
    let delivery = ChangeDelivery { data: "{\"type\":\"INSERT\"}".into(), kind: "INSERT", targets };
    world.act(0, |hub, fx| hub.deliver_change(&delivery, fx));
}

fn target(channel: u32, serial: u64, ids: Option<&str>) -> ChangeTarget {
    ChangeTarget { channel, serial, ids: ids.map(Arc::from) }
}

#[test]
fn the_reply_and_the_question_name_the_same_ids() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    let entries = json!([{"event": "*", "table": "a"}, {"table": "b"}, {"event": "*", "table": "a"}]);
    let (channel, serial, ids) = subscribed(&mut world, client, "realtime:x", json!({"config": {"postgres_changes": entries}}));
    let reply = &world.texts(client)[0];
    let echoed = reply[4]["response"]["postgres_changes"].as_array().unwrap().iter();
    assert_eq!(
        echoed.map(|entry| entry["id"].as_u64().unwrap()).collect::<Vec<_>>(),
        ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>()
    );
    assert!(ids[0] == ids[2] && ids[0] != ids[1]);

    world.act(0, |hub, fx| hub.notice(channel, serial, Status::Ok, "Subscribed to PostgreSQL", fx));
    let notice = &world.texts(client)[0];
    assert_eq!(
        (&notice[3], &notice[4]["extension"], &notice[4]["status"]),
        (&json!("system"), &json!("postgres_changes"), &json!("ok"))
    );
}

#[test]
fn one_change_in_every_form() {
    let mut world = world();
    let (new, old) = (world.open(0, Vsn::V2), world.open(0, Vsn::V1));
    let payload = json!({"config": {"postgres_changes": [{"table": "a"}]}});
    let (a, a_serial, _) = subscribed(&mut world, new, "realtime:x", payload);
    world.text(old, &json!({"topic": "realtime:public:a", "event": "phx_join", "payload": {}, "ref": "1"}));
    let Asker::Channel { channel: b, serial: b_serial, .. } = world.questions(0).remove(0).asker else {
        panic!("a channel asks")
    };
    world.take(new);
    world.take(old);
    deliver(&mut world, vec![target(b, b_serial, None), target(a, a_serial, Some("[7,9]"))]);
    let expected = json!([null, null, "realtime:x", "postgres_changes", {"ids": [7, 9], "data": {"type": "INSERT"}}]);
    assert_eq!(world.texts(new), [expected]);
    let expected = json!({"topic": "realtime:public:a", "event": "INSERT", "payload": {"type": "INSERT"}, "ref": null});
    assert_eq!(world.texts(old), [expected]);
}

#[test]
fn a_channel_that_ended_is_reported_and_gets_nothing() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    let payload = json!({"config": {"postgres_changes": [{"table": "a"}]}});
    let (channel, serial, _) = subscribed(&mut world, client, "realtime:x", payload.clone());
    world.push(client, "realtime:x", "phx_leave", json!({}));
    let questions = world.questions(0);
    assert!(matches!(questions[0].ask, Ask::Unsubscribe));
    assert_eq!(questions[0].asker, Asker::Channel { channel, serial, round: 0 });
    let (again, again_serial, _) = subscribed(&mut world, client, "realtime:x", payload);
    world.take(client);
    deliver(&mut world, vec![target(channel, serial, Some("[1]"))]);
    assert!(world.take(client).is_empty(), "the slot is used again, the serial is not");
    deliver(&mut world, vec![target(again, again_serial, Some("[1]"))]);
    assert_eq!(world.take(client).len(), 1);
}

#[test]
fn a_new_token_renews_the_subscriptions() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    subscribed(&mut world, client, "realtime:x", json!({"config": {"postgres_changes": [{"table": "a"}]}}));
    let new = world.token(600);
    world.push(client, "realtime:x", "access_token", json!({"access_token": &*new}));
    let Ask::Resubscribe { token } = world.questions(0).remove(0).ask else { panic!("a renewal was expected") };
    assert_eq!(*token, *new);
}

#[test]
fn without_a_database_only_the_old_form_joins() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.text(client, &json!(["1", "1", "realtime:x", "phx_join", {}]));
    let got = world.texts(client);
    assert_eq!(
        (&got[0][4]["status"], &got[1][4]["extension"], &got[1][4]["status"]),
        (&json!("ok"), &json!("postgres_changes"), &json!("error"))
    );
    assert!(world.questions(0).is_empty());
}
