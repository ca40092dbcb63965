//! The hub, with everything it checks and nothing of the network: broadcasts, joins and presence.
//!
//! Guards P1 and P2 (what one broadcast costs, and each further member of the room), P6 (join with an HS256 token, and the
//! same with the socket's beginning and end) and P10 (presence of a whole room leaves as one diff per batching interval).
//!
//! Effects are counted, not carried out, so that only the product rules are measured; the counts are checked once before
//! measuring. One shard: fan-out to other shards is the mailbox's benchmark.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringcast::protocol::jwt::{ClaimValidators, Keys, sign_hs256};
use ringcast::protocol::phoenix::Vsn;
use ringcast::realtime::database::Question;
use ringcast::realtime::tenant::{Limits, TenantConfig, TenantShared};
use ringcast::realtime::{Effects, Frame, Hub, HubSettings, Now, OpenSocket, PeerMail, Timer, Token};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a-secret-for-benchmarks-0123456789abcdef";
const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_750_000_000_000 };

fn main() {
    divan::main();
}

/// Effects, counted.
#[derive(Default)]
struct Counter {
    sent: usize,
    flushes: Vec<Timer>,
    random: u128,
}

impl Effects for Counter {
    fn send(&mut self, conn: u32, frame: &Frame) {
        black_box((conn, frame));
        self.sent += 1;
    }

    fn close(&mut self, conn: u32, code: u16) {
        panic!("socket {conn} was closed with {code}");
    }

    fn timer(&mut self, _due_ms: u64, timer: Timer) {
        if matches!(timer, Timer::PresenceFlush(_)) {
            self.flushes.push(timer);
        }
    }

    fn peer(&mut self, _shard: u16, _mail: PeerMail) {}

    fn ask(&mut self, _question: Question) {}

    fn random(&mut self) -> [u8; 16] {
        self.random += 1;
        self.random.to_le_bytes()
    }
}

/// One shard with one tenant that has no limits to speak of.
struct Bench {
    hub: Hub,
    effects: Counter,
    token: Token,
}

impl Bench {
    fn new() -> Self {
        let mut hub = Hub::new(HubSettings {
            shard: 0,
            shards: 1,
            origin: 1,
            room_secret: [7; 32],
            channel_error_backoff_ms: 5_000,
            presence_batch_ms: 100,
            claim_validators: ClaimValidators::default(),
        });
        let config = TenantConfig {
            external_id: "t1".into(),
            keys: Keys::new(Some(SECRET), None),
            suspended: false,
            private_only: false,
            presence_enabled: false,
            has_database: false,
            limits: Limits {
                concurrent_users_max: i64::MAX,
                channels_per_client_max: i64::MAX,
                joins_per_second_max: i64::MAX,
                events_per_second_max: i64::MAX,
                presence_events_per_second_max: i64::MAX,
                payload_bytes_max: 3_000_000,
                presence_pushes_per_window_max: u32::MAX,
                presence_window_ms: 30_000,
            },
        };
        hub.set_tenant(Arc::new(config), Arc::new(TenantShared::new("t1".into(), 1)));
        let claims = json!({"role": "authenticated", "sub": "7b0c9d", "exp": NOW.unix_secs() + 3_600});
        Self { hub, effects: Counter::default(), token: sign_hs256(&claims, SECRET).into() }
    }

    fn open(&mut self, vsn: Vsn) -> u32 {
        self.hub.open(OpenSocket { tenant: 0, vsn, token: self.token.clone(), headers: None }).slot
    }

    fn text(&mut self, slot: u32, message: &str) {
        self.hub.message(slot, false, black_box(message.as_bytes()), NOW, &mut self.effects);
    }

    /// A socket that has joined the room.
    fn join(&mut self, vsn: Vsn) -> u32 {
        let slot = self.open(vsn);
        self.text(slot, &message(vsn, "phx_join", &join_payload()));
        slot
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> usize {
        std::mem::take(&mut self.effects.sent)
    }

    fn flush_presence(&mut self) {
        while let Some(timer) = self.effects.flushes.pop() {
            self.hub.timer(timer, NOW, &mut self.effects);
        }
    }
}

fn message(vsn: Vsn, event: &str, payload: &str) -> String {
    const TOPIC: &str = "realtime:room-4711";
    match vsn {
        Vsn::V1 => format!(r#"{{"topic":"{TOPIC}","event":"{event}","payload":{payload},"ref":"9","join_ref":"1"}}"#),
        Vsn::V2 => format!(r#"["1","9","{TOPIC}","{event}",{payload}]"#),
    }
}

fn join_payload() -> String {
    json!({"config": {"broadcast": {"ack": false, "self": false}, "presence": {"key": ""}, "private": false}}).to_string()
}

/// One broadcast of 200 bytes to `members` others, of which every `v1_of`-th uses version 1: items are deliveries.
fn broadcast_to(bencher: Bencher, members: usize, v1_of: usize) {
    let mut bench = Bench::new();
    let sender = bench.join(Vsn::V2);
    for n in 1..=members {
        bench.join(if n % v1_of == 0 { Vsn::V1 } else { Vsn::V2 });
    }
    let payload = json!({"type": "broadcast", "event": "move", "payload": {"text": "x".repeat(140)}}).to_string();
    let push = message(Vsn::V2, "broadcast", &payload);
    bench.sent();
    bench.text(sender, &push);
    assert_eq!(bench.sent(), members);
    bencher.counter(ItemsCount::new(members)).bench_local(|| bench.text(sender, &push));
}

#[divan::bench(args = [1, 100, 1_000])]
fn broadcast(bencher: Bencher, members: usize) {
    broadcast_to(bencher, members, usize::MAX);
}

/// Half of the members use the other serializer: one encoding more, not a thousand.
#[divan::bench(args = [1_000])]
fn broadcast_both_serializers(bencher: Bencher, members: usize) {
    broadcast_to(bencher, members, 2);
}

/// Join and leave of one socket while `members` others are in the room.
#[divan::bench(args = [0, 1_000])]
fn join_and_leave(bencher: Bencher, members: usize) {
    let mut bench = Bench::new();
    for _ in 0..members {
        bench.join(Vsn::V2);
    }
    let slot = bench.open(Vsn::V2);
    let (join, leave) = (message(Vsn::V2, "phx_join", &join_payload()), message(Vsn::V2, "phx_leave", "{}"));
    let mut round = || {
        bench.text(slot, &join);
        bench.text(slot, &leave);
        bench.sent()
    };
    assert!(round() >= 2);
    bencher.bench_local(round);
}

/// The life of a socket as the hub sees it: opened, joined, gone.
#[divan::bench]
fn open_join_close(bencher: Bencher) {
    let mut bench = Bench::new();
    let join = message(Vsn::V2, "phx_join", &join_payload());
    bencher.bench_local(|| {
        let slot = bench.open(Vsn::V2);
        bench.text(slot, &join);
        bench.hub.close(slot, NOW, &mut bench.effects);
    });
    assert_eq!(bench.hub.connections(), 0);
}

/// `tracking` of the `members` change their presence, then the batching interval ends. Items are tracks.
fn track(bencher: Bencher, members: usize, tracking: usize) {
    let mut bench = Bench::new();
    let slots: Vec<u32> = (0..members).map(|_| bench.join(Vsn::V2)).collect();
    let push = |state: &str| message(Vsn::V2, "presence", &format!(r#"{{"type":"presence","event":"track","payload":{state}}}"#));
    let states = [push(r#"{"user":"7b0c9d","status":"here"}"#), push(r#"{"user":"7b0c9d","status":"away"}"#)];
    slots.iter().for_each(|&slot| bench.text(slot, &states[1]));
    bench.flush_presence();
    bench.sent();
    let mut turn = 0;
    let mut change = || {
        slots[..tracking].iter().for_each(|&slot| bench.text(slot, &states[turn % 2]));
        bench.flush_presence();
        turn += 1;
        bench.sent()
    };
    // One reply per track; one diff per member.
    assert_eq!(change(), tracking + members);
    bencher.counter(ItemsCount::new(tracking)).bench_local(change);
}

#[divan::bench(args = [1, 100])]
fn presence_track(bencher: Bencher, members: usize) {
    track(bencher, members, 1);
}

/// Everybody at once, within one batching interval.
#[divan::bench(args = [100, 1_000])]
fn presence_track_all(bencher: Bencher, members: usize) {
    track(bencher, members, members);
}
