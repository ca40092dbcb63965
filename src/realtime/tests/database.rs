//! Joins and pushes that need the tenant's database: what is asked, what waits, and what the answers mean (12, 13).

use serde_json::{Value, json};

use super::world::{BACKOFF_MS, Client, Got, World};
use crate::protocol::phoenix::Vsn;
use crate::realtime::database::{
    Ask, Asker, Authorize, DatabaseRefusal, Extensions, Permissions, Question, Replay, StoredBody, StoredMessage,
};

const READ: Extensions = Extensions { broadcast: true, presence: false };

fn world() -> World {
    World::with(1, |config| config.has_database = true)
}

fn ready(world: &World) {
    world.shared.database_ready.store(true, std::sync::atomic::Ordering::Release);
}

fn granting(read: Extensions, write: Extensions) -> Result<Permissions, DatabaseRefusal> {
    Ok(Permissions { read, write, replay: Vec::new() })
}

fn stored(n: u8) -> StoredMessage {
    let body = StoredBody::Json(format!("{{\"n\": {n}}}").into());
    StoredMessage { id: [n; 16], private: true, sub_topic: "x".into(), event: "e".into(), body }
}

fn authorize(question: &Question) -> &Authorize {
    match &question.ask {
        Ask::Authorize(authorize) => authorize,
        other => panic!("an authorisation was expected, not {other:?}"),
    }
}

fn only_question(world: &mut World) -> Question {
    let mut questions = world.questions(0);
    assert_eq!(questions.len(), 1, "{questions:?}");
    questions.remove(0)
}

fn reason(message: &Value) -> &str {
    message[4]["response"]["reason"].as_str().unwrap_or_default()
}

/// A private channel on topic `x`, joined with these permissions.
fn joined(world: &mut World, config: Value, read: Extensions) -> Client {
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", config);
    let question = only_question(world);
    world.answer(0, question.asker, granting(read, Extensions::NONE));
    assert_eq!(world.texts(client)[0][4]["status"], "ok");
    client
}

#[test]
fn public_joins_ask_only_while_the_database_is_not_known_to_be_there() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:a", json!({}));
    let question = only_question(&mut world);
    assert!(matches!(question.ask, Ask::Connect));
    assert_eq!(world.take(client), []);
    world.answer(0, question.asker, Ok(Permissions::default()));
    assert_eq!(world.texts(client)[0][4]["status"], "ok");

    ready(&world);
    world.join(client, "realtime:b", json!({}));
    assert!(world.questions(0).is_empty());
    assert_eq!(world.texts(client)[0][4]["status"], "ok");
}

#[test]
fn an_unreachable_database_refuses_after_the_delay_and_keeps_the_order_of_the_topic() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:a", json!({}));
    world.text(client, &json!(["1", "2", "realtime:a", "broadcast", {}]));
    let question = only_question(&mut world);
    world.answer(0, question.asker, Err(DatabaseRefusal::Unavailable));
    assert_eq!(world.take(client), []);
    world.advance(BACKOFF_MS);
    let got = world.texts(client);
    assert_eq!(reason(&got[0]), "UnableToConnectToProject: Realtime was unable to connect to the project database");
    assert_eq!((got[1][1].as_str(), reason(&got[1])), (Some("2"), "unmatched topic"));
    // The same answer once more finds nothing.
    world.answer(0, question.asker, Ok(Permissions::default()));
    assert_eq!(world.take(client), []);
}

#[test]
fn a_lost_answer_is_an_answer_at_the_deadline() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:a", json!({"private": true}));
    world.advance(20_000);
    world.advance(BACKOFF_MS);
    let got = world.texts(client);
    assert_eq!(reason(&got[0]), "InitializingProjectConnection: Realtime is initializing the project connection");
}

#[test]
fn a_private_join_asks_for_what_it_needs_and_is_judged_by_the_answer() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    let cases = [
        (json!({"private": true}), READ, ""),
        (
            json!({"private": true}),
            Extensions::NONE,
            "Unauthorized: You do not have permissions to read from this Channel topic: x",
        ),
        (json!({"private": true, "presence": {"enabled": true}}), Extensions { broadcast: false, presence: true }, ""),
        (
            json!({"private": true, "presence": {"enabled": true}, "broadcast": {"replay": null}}),
            Extensions { broadcast: false, presence: true },
            "Unauthorized: You do not have permissions to read from this Channel topic: x",
        ),
        (json!({"private": true, "broadcast": {"replay": {}}}), READ, "UnableToReplayMessages: Replay params are not valid"),
        (json!({"private": true, "broadcast": {"replay": "x"}}), READ, ""),
    ];
    for (config, read, expected) in cases {
        world.join(client, "realtime:x", config.clone());
        let question = only_question(&mut world);
        let asked = authorize(&question);
        assert_eq!((&*asked.sub_topic, asked.write, asked.replay), ("x", false, None));
        assert_eq!(asked.read.presence, config["presence"]["enabled"] == true);
        world.answer(0, question.asker, granting(read, Extensions::NONE));
        world.advance(BACKOFF_MS);
        assert_eq!(reason(&world.texts(client)[0]), expected, "{config}");
        world.push(client, "realtime:x", "phx_leave", json!({}));
        world.take(client);
    }
}

#[test]
fn stored_messages_follow_the_reply_and_do_not_come_twice() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({"private": true, "broadcast": {"replay": {"since": 5, "limit": 2}}}));
    let question = only_question(&mut world);
    assert_eq!(authorize(&question).replay, Some(Replay { since_unix_ms: 5, limit: 2 }));
    let replay = vec![stored(1), StoredMessage { body: StoredBody::Binary([7].into()), ..stored(2) }];
    world.answer(0, question.asker, Ok(Permissions { read: READ, write: Extensions::NONE, replay }));
    let got = world.take(client);
    let (Got::Text(reply), Got::Text(first), Got::Binary(second)) = (&got[0], &got[1], &got[2]) else { panic!("{got:?}") };
    assert_eq!(reply[4]["status"], "ok");
    let id = uuid::Uuid::from_bytes([1; 16]).to_string();
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"n": 1}, "meta": {"id": id, "replayed": true}});
    assert_eq!(*first, json!(["1", null, "realtime:x", "broadcast", payload]));
    assert_eq!(second[0], 4);

    let shared = world.shared.clone();
    let now = world.now;
    for n in [1, 2, 3] {
        world.act(0, |hub, fx| hub.publish_stored(&shared, &stored(n), now, fx));
    }
    assert_eq!(world.take(client).len(), 1, "only the third is new");
}

#[test]
fn broadcasts_are_withheld_from_whoever_may_not_read_them() {
    let mut world = world();
    let reader = joined(&mut world, json!({"private": true}), READ);
    let blind = joined(
        &mut world,
        json!({"private": true, "presence": {"enabled": true}}),
        Extensions { broadcast: false, presence: true },
    );
    let public = world.open(0, Vsn::V2);
    ready(&world);
    world.join(public, "realtime:x", json!({}));
    world.settle();
    for client in [reader, blind, public] {
        world.take(client);
    }
    let shared = world.shared.clone();
    let now = world.now;
    world.act(0, |hub, fx| hub.publish_stored(&shared, &stored(1), now, fx));
    assert_eq!((world.take(reader).len(), world.take(blind).len(), world.take(public).len()), (1, 0, 0));
    world.act(0, |hub, fx| hub.publish_stored(&shared, &StoredMessage { private: false, ..stored(2) }, now, fx));
    assert_eq!((world.take(reader).len(), world.take(blind).len(), world.take(public).len()), (0, 0, 1));
}

#[test]
fn the_first_push_asks_and_everything_behind_it_waits_in_order() {
    let mut world = world();
    let client = joined(&mut world, json!({"private": true, "broadcast": {"ack": true}}), READ);
    for n in 2..5 {
        world.text(client, &json!(["1", n.to_string(), "realtime:x", "broadcast", {"event": "e"}]));
    }
    world.text(client, &json!(["1", "5", "realtime:x", "phx_leave", {}]));
    world.join(client, "realtime:y", json!({"private": true}));
    let questions = world.questions(0);
    assert_eq!(questions.len(), 2, "the other topic goes on");
    assert!(authorize(&questions[0]).write && !authorize(&questions[0]).read.any());
    assert_eq!(world.take(client), []);
    world.answer(0, questions[0].asker, granting(Extensions::NONE, Extensions::ALL));
    let refs: Vec<Value> = world.texts(client).iter().map(|text| text[1].clone()).collect();
    assert_eq!(refs, ["2", "3", "4", "5", "1"], "three acknowledgements, the leave, and phx_close with the join reference");
}

#[test]
fn what_may_not_be_written_is_dropped_and_remembered() {
    let mut world = world();
    let client = joined(&mut world, json!({"private": true, "broadcast": {"ack": true}}), READ);
    world.push(client, "realtime:x", "broadcast", json!({"event": "e"}));
    let question = only_question(&mut world);
    world.answer(0, question.asker, granting(Extensions::NONE, Extensions::NONE));
    world.push(client, "realtime:x", "broadcast", json!({"event": "e"}));
    assert!(world.questions(0).is_empty(), "a denial is remembered");
    assert_eq!(world.take(client), [], "and never answered");
}

#[test]
fn a_failed_evaluation_drops_the_push_and_is_tried_again() {
    let mut world = world();
    let client = joined(&mut world, json!({"private": true, "broadcast": {"ack": true}}), READ);
    world.push(client, "realtime:x", "broadcast", json!({"event": "e"}));
    world.push(client, "realtime:x", "presence", json!({"type": "presence", "event": "track", "payload": {}}));
    let question = only_question(&mut world);
    world.answer(0, question.asker, Err(DatabaseRefusal::PoolExhausted));
    assert!(world.questions(0).is_empty(), "what waited shares the failure");
    let got = world.texts(client);
    assert_eq!((got.len(), &got[0][4]), (1, &json!({"status": "error", "response": {}})), "presence is always answered");
    world.push(client, "realtime:x", "broadcast", json!({"event": "e"}));
    let question = only_question(&mut world);
    world.answer(0, question.asker, granting(Extensions::NONE, Extensions::ALL));
    assert_eq!(world.texts(client)[0][4]["status"], "ok");
}

#[test]
fn a_refresh_asks_anew_and_may_end_the_channel() {
    let both = Extensions::ALL;
    let cases = [
        (both, granting(both, Extensions::NONE), None),
        (both, granting(READ, Extensions::NONE), Some("You no longer have permission to read from this Channel topic: x")),
        (
            READ,
            granting(Extensions::NONE, Extensions::NONE),
            Some("You do not have permissions to read from this Channel topic: x"),
        ),
        (READ, Err(DatabaseRefusal::QueryCanceled("57014".into())), Some("Query was cancelled, please try again")),
        (READ, Err(DatabaseRefusal::MissingPartition), Some("Realtime was unable to connect to the project database")),
        (READ, Err(DatabaseRefusal::RlsPolicy("no".into())), Some("Realtime was unable to connect to the project database")),
    ];
    for (before, outcome, expected) in cases {
        let mut world = world();
        let client = joined(&mut world, json!({"private": true, "presence": {"enabled": before.presence}}), before);
        world.take(client);
        let token = world.token(600);
        world.push(client, "realtime:x", "access_token", json!({"access_token": &*token}));
        world.push(client, "realtime:x", "broadcast", json!({"event": "e"}));
        let question = only_question(&mut world);
        let asked = authorize(&question);
        assert_eq!((&*asked.token, asked.read, asked.write), (&*token, before, false));
        world.answer(0, question.asker, outcome);
        match expected {
            None => {
                assert_eq!(world.take(client), []);
                assert!(authorize(&only_question(&mut world)).write, "write permissions are forgotten");
            }
            Some(text) => {
                let got = world.texts(client);
                assert_eq!((&got[0][3], &got[0][4]["message"]), (&json!("system"), &json!(text)));
                assert_eq!(got[1][3], "phx_close");
            }
        }
    }
}

#[test]
fn presence_of_a_private_channel_follows_its_permissions() {
    let mut world = world();
    let tracker = joined(&mut world, json!({"private": true}), READ);
    let watcher = joined(&mut world, json!({"private": true, "presence": {"enabled": true}}), Extensions::ALL);
    let denied = joined(&mut world, json!({"private": true, "presence": {"enabled": true}}), READ);
    for client in [tracker, watcher, denied] {
        world.take(client);
    }
    world.push(tracker, "realtime:x", "presence", json!({"type": "presence", "event": "track", "payload": {"a": 1}}));
    let question = only_question(&mut world);
    let asked = authorize(&question);
    assert_eq!((asked.read, asked.write), (Extensions { broadcast: false, presence: true }, true));
    world.answer(0, question.asker, granting(Extensions { broadcast: false, presence: true }, Extensions::ALL));
    let events = |world: &mut World, client| world.texts(client).iter().map(|text| text[3].clone()).collect::<Vec<_>>();
    assert_eq!(events(&mut world, tracker), ["phx_reply", "presence_diff"], "it sees presence once it has tracked");
    assert_eq!(events(&mut world, watcher), ["presence_diff"]);
    assert!(events(&mut world, denied).is_empty());
}

#[test]
fn answers_for_what_is_gone_are_dropped() {
    let mut world = world();
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({"private": true}));
    let question = only_question(&mut world);
    world.close(client);
    let next = world.open(0, Vsn::V2);
    assert_eq!(next.slot, client.slot, "the slot is used again");
    world.answer(0, question.asker, granting(Extensions::ALL, Extensions::ALL));
    assert_eq!(world.take(next), []);

    let channel = joined(&mut world, json!({"private": true}), READ);
    world.push(channel, "realtime:x", "broadcast", json!({}));
    let question = only_question(&mut world);
    world.join(channel, "realtime:x", json!({"private": true}));
    let Asker::Channel { .. } = question.asker else { panic!("a channel asked") };
    world.answer(0, question.asker, granting(Extensions::NONE, Extensions::ALL));
    world.take(channel);
    assert_eq!(world.questions(0).len(), 1, "only the new join's question is open");
}

#[test]
fn asking_joins_count_as_channels_and_are_bounded() {
    let mut world = World::with(1, |config| {
        config.has_database = true;
        config.limits.channels_per_client_max = 2;
    });
    let client = world.open(0, Vsn::V2);
    for topic in ["realtime:a", "realtime:b", "realtime:c"] {
        world.join(client, topic, json!({"private": true}));
    }
    assert_eq!(world.questions(0).len(), 2);
    world.advance(BACKOFF_MS);
    assert_eq!(reason(&world.texts(client)[0]), "ChannelRateLimitReached: Too many channels");
}

#[test]
fn replication_ready_is_told_once_the_stream_is_up() {
    let mut world = world();
    ready(&world);
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({"broadcast": {"replication_ready": true}}));
    assert_eq!(world.texts(client).len(), 1);
    world.advance(400);
    assert_eq!(world.take(client), []);
    world.shared.stream_ready.store(true, std::sync::atomic::Ordering::Release);
    world.advance(200);
    let got = world.texts(client);
    assert_eq!(got[0][4]["message"], "Replication connection established");
    world.advance(100_000);
    assert_eq!(world.take(client), []);
}
