//! The rules of the specification one by one, where conformance scenarios need waiting or several shards.

use serde_json::{Value, json};

use super::world::{BACKOFF_MS, BATCH_MS, Got, World};
use crate::protocol::phoenix::Vsn;

fn reason(message: &Value) -> &str {
    message[4]["response"]["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_refused_join_waits_and_holds_only_its_topic() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.text(client, &json!(["1", "1", "realtime:x", "phx_join", {"config": {}, "access_token": "bad"}]));
    world.text(client, &json!(["1", "2", "realtime:x", "broadcast", {}]));
    world.join(client, "realtime:y", json!({}));
    let before = world.texts(client);
    assert_eq!(before.len(), 1, "only the other topic is answered: {before:?}");
    world.advance(BACKOFF_MS);
    let after = world.texts(client);
    assert_eq!(reason(&after[0]), "MalformedJWT: The token provided is not a valid JWT");
    assert_eq!((after[1][1].as_str(), reason(&after[1])), (Some("2"), "unmatched topic"));
}

#[test]
fn held_messages_are_bounded() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.text(client, &json!(["1", "1", "realtime:x", "phx_join", {"config": {}, "access_token": "bad"}]));
    for n in 0..500 {
        world.text(client, &json!(["1", n, "realtime:x", "broadcast", {}]));
    }
    world.advance(BACKOFF_MS);
    assert_eq!(world.texts(client).len(), 1 + 100);
}

#[test]
fn a_channel_ends_when_its_token_expires() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    let token = world.token(3);
    world.text(client, &json!(["1", "1", "realtime:x", "phx_join", {"config": {}, "access_token": &*token}]));
    world.take(client);
    world.advance(2_900);
    assert_eq!(world.take(client), []);
    world.advance(100);
    let got = world.texts(client);
    assert_eq!(got[0][4]["message"], "Token has expired 0 seconds ago");
    assert_eq!(got[1], json!(["1", "1", "realtime:x", "phx_close", {}]));
}

#[test]
fn a_refresh_moves_the_expiry() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    let (short, long) = (world.token(3), world.token(600));
    world.text(client, &json!(["1", "1", "realtime:x", "phx_join", {"config": {}, "access_token": &*short}]));
    world.push(client, "realtime:x", "access_token", json!({"access_token": &*long}));
    world.take(client);
    world.advance(10_000);
    assert_eq!(world.take(client), []);
    for _ in 0..3 {
        world.advance(300_000);
    }
    assert_eq!(world.texts(client)[0][4]["status"], "error");
}

#[test]
fn a_changed_secret_ends_channels_at_their_next_check() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({}));
    world.configure(|config| config.keys = crate::protocol::jwt::Keys::new(Some("another-secret-another-secret-0123"), None));
    world.take(client);
    world.advance(300_000);
    assert_eq!(world.texts(client)[0][4]["message"], ":signature_error");
}

#[test]
fn users_are_counted_once_and_given_back() {
    let mut world = World::with(1, |config| config.limits.concurrent_users_max = 1);
    let (first, second) = (world.open(0, Vsn::V2), world.open(0, Vsn::V2));
    world.join(first, "realtime:x", json!({}));
    world.join(first, "realtime:y", json!({}));
    world.join(second, "realtime:x", json!({}));
    world.advance(BACKOFF_MS);
    assert_eq!(reason(&world.texts(second)[0]), "ConnectionRateLimitReached: Too many connected users");
    assert_eq!(world.shared.users(), 1);
    world.close(first);
    assert_eq!(world.shared.users(), 0);
}

#[test]
fn a_triggered_message_limiter_stops_receivers_after_their_message() {
    let mut world = World::new(2);
    let (sender, near, far) = (world.open(0, Vsn::V2), world.open(0, Vsn::V2), world.open(1, Vsn::V1));
    for client in [sender, near] {
        world.join(client, "realtime:x", json!({"broadcast": {"ack": true}}));
    }
    world.text(far, &json!({"topic": "realtime:x", "event": "phx_join", "payload": {"config": {}}, "ref": "1", "join_ref": "1"}));
    world.settle();
    world.shared.events_triggered.store(true, std::sync::atomic::Ordering::Relaxed);
    [sender, near, far].into_iter().for_each(|client| drop(world.take(client)));
    world.push(sender, "realtime:x", "broadcast", json!({"event": "e"}));
    world.settle();
    assert_eq!(world.texts(sender).len(), 1, "the sender is acknowledged and not stopped");
    let near: Vec<_> = world.texts(near).iter().map(|message| message[3].clone()).collect();
    assert_eq!(near, ["broadcast", "system", "phx_close"]);
    let far: Vec<_> = world.texts(far).iter().map(|message| message["event"].clone()).collect();
    assert_eq!(far, ["broadcast", "system", "phx_close"]);
}

#[test]
fn join_limiter_refuses_and_closes_the_socket() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.shared.joins_triggered.store(true, std::sync::atomic::Ordering::Relaxed);
    world.join(client, "realtime:x", json!({}));
    world.advance(BACKOFF_MS);
    let got = world.take(client);
    assert!(matches!(&got[0], Got::Text(message) if reason(message).starts_with("ClientJoinRateLimitReached")));
    assert_eq!(got[1], Got::Closed(1001));
}

#[test]
fn a_tenant_wide_disconnect_tells_every_channel() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({}));
    world.join(client, "realtime:y", json!({}));
    world.take(client);
    let now = world.now;
    world.act(0, |hub, recorder| hub.disconnect_tenant("t1", now, recorder));
    let got = world.take(client);
    assert_eq!(got.len(), 3);
    assert_eq!(got[2], Got::Closed(1012));
    world.join(client, "realtime:z", json!({}));
    assert_eq!(world.take(client), [], "a closing socket is not served");
}

#[test]
fn draining_refuses_joins_and_closes_in_batches() {
    let mut world = World::new(1);
    let clients: Vec<_> = (0..5).map(|_| world.open(0, Vsn::V2)).collect();
    world.act(0, |hub, _| hub.start_draining());
    world.join(clients[4], "realtime:x", json!({}));
    let now = world.now;
    world.act(0, |hub, recorder| assert_eq!(hub.drain_batch(2, now, recorder), 3));
    assert_eq!(world.take(clients[0]), [Got::Closed(1012)]);
    world.advance(BACKOFF_MS);
    assert_eq!(reason(&world.texts(clients[4])[0]), "RealtimeRestarting: Realtime is restarting, please standby");
    let now = world.now;
    world.act(0, |hub, recorder| assert_eq!(hub.drain_batch(10, now, recorder), 0));
}

#[test]
fn large_rooms_gather_presence_changes() {
    let mut world = World::new(1);
    let watcher = world.open(0, Vsn::V2);
    world.join(watcher, "realtime:x", json!({"presence": {"enabled": true}}));
    let members = 200;
    for _ in 0..members {
        let client = world.open(0, Vsn::V2);
        world.join(client, "realtime:x", json!({"presence": {"enabled": true}}));
        world.push(client, "realtime:x", "presence", json!({"event": "track", "payload": {}}));
    }
    world.advance(BATCH_MS);
    let diffs: Vec<_> = world.texts(watcher).into_iter().filter(|message| message[3] == "presence_diff").collect();
    let joined: usize = diffs.iter().map(|diff| diff[4]["joins"].as_object().unwrap().len()).sum();
    assert_eq!(joined, members);
    assert!(diffs.len() <= 17, "{} diffs", diffs.len());
}

#[test]
fn binary_and_text_cross_versions_and_shards() {
    let mut world = World::new(2);
    let (v2, v1) = (world.open(0, Vsn::V2), world.open(1, Vsn::V1));
    world.join(v2, "realtime:room1", json!({"broadcast": {"self": true}}));
    world.text(v1, &json!({"topic": "realtime:room1", "event": "phx_join", "payload": {"config": {}}, "ref": "1"}));
    world.settle();
    [v2, v1].into_iter().for_each(|client| drop(world.take(client)));
    world.raw(v2, true, b"\x03\x00\x00\x0e\x04\x00\x01realtime:room1move{\"big\":12345678901234567890}");
    world.settle();
    assert_eq!(world.take(v2), [Got::Binary(b"\x04\x0e\x04\x00\x01realtime:room1move{\"big\":12345678901234567890}".to_vec())]);
    let expected = json!({"type": "broadcast", "event": "move", "payload": {"big": 12345678901234567890u64}});
    assert_eq!(world.texts(v1)[0]["payload"], expected);
    world.raw(v2, true, b"\x03\x00\x00\x0e\x04\x00\x00realtime:room1blob\x00\xff");
    world.settle();
    assert_eq!(world.take(v1), [], "version 1 cannot carry bytes");
}

#[test]
fn a_legacy_join_is_told_that_there_is_no_database() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.text(client, &json!(["1", "1", "realtime:public:orders", "phx_join", {}]));
    let got = world.texts(client);
    let entry = &got[0][4]["response"]["postgres_changes"][0];
    assert_eq!((&entry["schema"], &entry["table"]), (&json!("public"), &json!("orders")));
    assert!(entry["id"].as_u64().is_some_and(|id| id > 0));
    assert_eq!(got[1][4]["extension"], "postgres_changes");
    for (config, expected) in [
        (json!({"private": true}), "UnableToConnectToProject: Realtime was unable to connect to the project database"),
        (json!({"broadcast": {"replay": null}}), "UnableToReplayMessages: Replay is not allowed for public channels"),
        (
            json!({"postgres_changes": [{"schema": "public"}]}),
            "UnableToConnectToProject: Realtime was unable to connect to the project database",
        ),
    ] {
        world.join(client, "realtime:z", config);
        world.advance(BACKOFF_MS);
        assert_eq!(reason(&world.texts(client)[0]), expected);
    }
}

#[test]
fn replication_that_never_comes_ends_the_channel() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({"broadcast": {"replication_ready": "false"}}));
    world.take(client);
    world.advance(60_000);
    assert_eq!(world.texts(client)[0][4]["message"], "Replication connection was not established in time");
}

#[test]
fn sockets_whose_channels_are_gone_are_swept() {
    let mut world = World::new(1);
    let (never, left) = (world.open(0, Vsn::V2), world.open(0, Vsn::V2));
    world.join(left, "realtime:x", json!({}));
    world.push(left, "realtime:x", "phx_leave", json!({}));
    world.take(left);
    let now = world.now;
    world.act(0, |hub, recorder| hub.close_channelless(now, recorder));
    assert_eq!((world.take(never), world.take(left)), (vec![], vec![Got::Closed(1001)]));
}

#[test]
fn a_join_over_the_presence_limit_ends_its_channel_and_nothing_else() {
    let mut world = World::with(1, |config| {
        config.presence_enabled = true;
        config.limits.presence_events_per_second_max = -1;
    });
    let client = world.open(0, Vsn::V2);
    let payloads = [json!({}), json!({"config": {"broadcast": {"replication_ready": true}}})];
    for payload in payloads {
        world.text(client, &json!(["1", "1", "realtime:x", "phx_join", payload]));
        let got = world.texts(client);
        assert_eq!(got[got.len() - 2][4]["message"], "Too many presence messages per second");
        assert_eq!(got[got.len() - 1][3], "phx_close");
    }
}

#[test]
fn a_recreated_tenant_starts_with_fresh_counters() {
    let mut world = World::new(1);
    let old = world.open(0, Vsn::V2);
    world.join(old, "realtime:x", json!({}));
    let before = world.shared.clone();
    world.shared = std::sync::Arc::new(crate::realtime::tenant::TenantShared::new("t1".into(), 1));
    world.configure(|_| {});
    world.close(old);
    assert_eq!((before.users(), world.shared.users()), (0, 0));
    assert_eq!(world.shared.connections_by_shard().sum::<u64>(), 0);
}

#[test]
fn large_refused_joins_are_answered_at_once_instead_of_held() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    for n in 0..3 {
        let topic = format!("realtime:{n}{}", "x".repeat(900_000));
        world.text(client, &json!(["1", "1", topic, "phx_join", {"config": {"private": true}}]));
    }
    assert_eq!(world.texts(client).len(), 3);
}

#[test]
fn refreshing_over_and_over_arms_no_more_timers() {
    let mut world = World::new(1);
    let client = world.open(0, Vsn::V2);
    world.join(client, "realtime:x", json!({}));
    let tokens = [world.token(3_000), world.token(3_001)];
    for n in 0..100 {
        world.push(client, "realtime:x", "access_token", json!({"access_token": &*tokens[n % 2]}));
    }
    assert_eq!(world.hubs[0].1.timers.len(), 1);
}

#[test]
fn a_socket_that_says_goodbye_is_gone_at_once() {
    let mut world = World::new(1);
    let (leaver, watcher) = (world.open(0, Vsn::V2), world.open(0, Vsn::V2));
    for client in [leaver, watcher] {
        world.join(client, "realtime:x", json!({"presence": {"enabled": true}}));
    }
    world.push(leaver, "realtime:x", "presence", json!({"event": "track", "payload": {}}));
    world.take(watcher);
    let now = world.now;
    world.act(0, |hub, recorder| hub.detach(leaver.slot, now, recorder));
    assert_eq!(world.texts(watcher)[0][3], "presence_diff");
    assert_eq!(world.shared.users(), 1);
    world.close(leaver);
    assert_eq!(world.shared.users(), 1);
}
