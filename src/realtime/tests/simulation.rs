//! Seeded simulation of several shards: random clients, random delays of mail, and what must hold at the end.
//!
//! - nobody gets a broadcast of a topic it has not joined;
//! - broadcasts of one sender arrive in sending order, none twice;
//! - whoever was a member before the sending and stays gets every one;
//! - after everything has settled, every member's view of a room's presence is what was last tracked.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{BATCH_MS, Client, Got, World};
use crate::protocol::phoenix::Vsn;

const TOPICS: [&str; 3] = ["realtime:a", "realtime:b", "realtime:c"];

/// What a client of the official library would know, computed from what it got.
#[derive(Debug, Default)]
struct View {
    /// Joined topics with their join references.
    joined: BTreeMap<String, Value>,
    /// Last number seen by (topic, sender).
    last_seen: BTreeMap<(String, String), u64>,
    received: BTreeSet<(String, String, u64)>,
    /// Metas by topic and reference.
    presence: BTreeMap<String, BTreeMap<String, Value>>,
    failures: Vec<String>,
}

fn metas(state: &Value) -> impl Iterator<Item = (String, Value)> + '_ {
    state.as_object().into_iter().flatten().flat_map(|(_, entry)| {
        let metas = entry["metas"].as_array().cloned().unwrap_or_default();
        metas.into_iter().map(|meta| (meta["phx_ref"].as_str().unwrap_or_default().to_owned(), meta["n"].clone()))
    })
}

impl View {
    fn take_in(&mut self, got: Vec<Got>) {
        for got in got {
            let Got::Text(message) = got else { continue };
            let (topic, event, payload) =
                (message[2].as_str().unwrap_or_default().to_owned(), message[3].as_str().unwrap_or_default(), &message[4]);
            match event {
                "phx_reply" if payload["response"].get("postgres_changes").is_some() => {
                    // A new join starts with a new view of who is present.
                    self.presence.remove(&topic);
                    self.joined.insert(topic, message[0].clone());
                }
                "phx_close" if self.joined.get(&topic) == Some(&message[0]) => {
                    self.joined.remove(&topic);
                    self.presence.remove(&topic);
                }
                "broadcast" => self.broadcast(topic, payload),
                "presence_state" => {
                    let state = self.presence.entry(topic).or_default();
                    state.extend(metas(payload));
                }
                "presence_diff" => {
                    let state = self.presence.entry(topic).or_default();
                    state.extend(metas(&payload["joins"]));
                    for (reference, _) in metas(&payload["leaves"]) {
                        state.remove(&reference);
                    }
                }
                _ => {}
            }
        }
    }

    fn broadcast(&mut self, topic: String, payload: &Value) {
        let sender = payload["event"].as_str().unwrap_or_default().to_owned();
        let number = payload["payload"]["n"].as_u64().unwrap_or_default();
        if !self.joined.contains_key(&topic) {
            self.failures.push(format!("broadcast of {topic} to a non-member"));
        }
        let last = self.last_seen.insert((topic.clone(), sender.clone()), number);
        if last.is_some_and(|last| last >= number) {
            self.failures.push(format!("{sender} on {topic}: {number} after {last:?}"));
        }
        self.received.insert((topic, sender, number));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(u16),
    Join(usize, usize),
    Leave(usize, usize),
    Broadcast(usize, usize),
    Track(usize, usize),
    Untrack(usize, usize),
    Close(usize),
    Deliver(u16, u16),
    Wait,
}

fn steps(shards: u16) -> impl Strategy<Value = Vec<Step>> {
    let client = 0..12usize;
    let topic = 0..TOPICS.len();
    let step = prop_oneof![
        2 => (0..shards).prop_map(Step::Open),
        4 => (client.clone(), topic.clone()).prop_map(|(c, t)| Step::Join(c, t)),
        1 => (client.clone(), topic.clone()).prop_map(|(c, t)| Step::Leave(c, t)),
        6 => (client.clone(), topic.clone()).prop_map(|(c, t)| Step::Broadcast(c, t)),
        5 => (client.clone(), topic.clone()).prop_map(|(c, t)| Step::Track(c, t)),
        1 => (client.clone(), topic.clone()).prop_map(|(c, t)| Step::Untrack(c, t)),
        1 => client.prop_map(Step::Close),
        8 => (0..shards, 0..shards).prop_map(|(from, to)| Step::Deliver(from, to)),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..200)
}

/// What the steps mean for a correct server.
#[derive(Default)]
struct Model {
    members: BTreeMap<usize, BTreeSet<usize>>,
    /// Tracked number by (client, topic).
    tracked: BTreeMap<(usize, usize), u64>,
    /// (receiver, topic, sender, number) owed to members who stay.
    owed: Vec<(usize, usize, usize, u64)>,
}

impl Model {
    fn is_member(&self, client: usize, topic: usize) -> bool {
        self.members.get(&client).is_some_and(|topics| topics.contains(&topic))
    }

    fn leave(&mut self, client: usize, topic: usize) {
        if let Some(topics) = self.members.get_mut(&client) {
            topics.remove(&topic);
        }
        self.tracked.remove(&(client, topic));
        self.owed.retain(|owed| (owed.0, owed.1) != (client, topic));
    }
}

fn run(shards: u16, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(shards);
    let mut clients: Vec<Client> = Vec::new();
    let mut views: Vec<View> = Vec::new();
    let mut closed: BTreeSet<usize> = BTreeSet::new();
    let mut model = Model::default();
    let mut next = 0;
    let open = |client: usize, clients: &[Client], closed: &BTreeSet<usize>| client < clients.len() && !closed.contains(&client);
    for step in steps {
        next += 1;
        match *step {
            Step::Open(shard) => {
                clients.push(world.open(shard, Vsn::V2));
                views.push(View::default());
            }
            Step::Join(client, topic) if open(client, &clients, &closed) => {
                // A second join replaces the channel and its presence.
                model.leave(client, topic);
                let config = json!({"presence": {"enabled": true, "key": format!("k{}", client % 3)}});
                world.text(clients[client], &json!([next, next, TOPICS[topic], "phx_join", {"config": config}]));
                model.members.entry(client).or_default().insert(topic);
            }
            Step::Leave(client, topic) if open(client, &clients, &closed) => {
                world.push(clients[client], TOPICS[topic], "phx_leave", json!({}));
                model.leave(client, topic);
            }
            Step::Broadcast(client, topic) if open(client, &clients, &closed) => {
                let payload = json!({"type": "broadcast", "event": format!("c{client}"), "payload": {"n": next}});
                world.push(clients[client], TOPICS[topic], "broadcast", payload);
                if model.is_member(client, topic) {
                    let receivers = model.members.iter().filter(|(other, topics)| **other != client && topics.contains(&topic));
                    let owed: Vec<_> = receivers.map(|(other, _)| (*other, topic, client, next)).collect();
                    model.owed.extend(owed);
                }
            }
            Step::Track(client, topic) if open(client, &clients, &closed) => {
                world.push(clients[client], TOPICS[topic], "presence", json!({"event": "track", "payload": {"n": next}}));
                if model.is_member(client, topic) {
                    model.tracked.insert((client, topic), next);
                }
            }
            Step::Untrack(client, topic) if open(client, &clients, &closed) => {
                world.push(clients[client], TOPICS[topic], "presence", json!({"event": "untrack"}));
                model.tracked.remove(&(client, topic));
            }
            Step::Close(client) if open(client, &clients, &closed) => {
                views[client].take_in(world.take(clients[client]));
                world.close(clients[client]);
                world.take(clients[client]);
                closed.insert(client);
                (0..TOPICS.len()).for_each(|topic| model.leave(client, topic));
                // The slot may be used again by a later client of this shard.
            }
            Step::Deliver(from, to) => world.deliver_one(from, to),
            Step::Wait => world.advance(BATCH_MS),
            _ => {}
        }
        for (client, view) in views.iter_mut().enumerate().filter(|(client, _)| !closed.contains(client)) {
            view.take_in(world.take(clients[client]));
        }
    }
    for _ in 0..3 {
        world.settle();
        world.advance(BATCH_MS);
    }
    world.settle();
    for (client, view) in views.iter_mut().enumerate().filter(|(client, _)| !closed.contains(client)) {
        view.take_in(world.take(clients[client]));
    }
    for (client, view) in views.iter().enumerate().filter(|(client, _)| !closed.contains(client)) {
        prop_assert!(view.failures.is_empty(), "client {}: {:?}", client, view.failures);
        for &topic in model.members.get(&client).into_iter().flatten() {
            let mut expected: Vec<u64> = model.tracked.iter().filter(|((_, t), _)| *t == topic).map(|(_, n)| *n).collect();
            let seen = view.presence.get(TOPICS[topic]).into_iter().flatten().filter_map(|(_, n)| n.as_u64());
            let mut seen: Vec<u64> = seen.collect();
            expected.sort_unstable();
            seen.sort_unstable();
            prop_assert_eq!(seen, expected, "presence of topic {} as client {} sees it", topic, client);
        }
    }
    for (receiver, topic, sender, number) in &model.owed {
        let key = (TOPICS[*topic].to_owned(), format!("c{sender}"), *number);
        prop_assert!(views[*receiver].received.contains(&key), "client {} missed {:?}", receiver, key);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_shard(steps in steps(1)) {
        run(1, &steps)?;
    }

    #[test]
    fn three_shards(steps in steps(3)) {
        run(3, &steps)?;
    }
}
