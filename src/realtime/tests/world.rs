//! Several hubs, their mailboxes and their clients in one thread, with time and mail under the test's control.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::protocol::jwt::{ClaimValidators, Keys, sign_hs256};
use crate::protocol::phoenix::Vsn;
use crate::realtime::database::{Answer, Asker, DatabaseRefusal, Permissions, Question};
use crate::realtime::tenant::{Limits, TenantConfig, TenantShared};
use crate::realtime::{ConnId, Effects, Frame, Hub, HubSettings, Now, OpenSocket, PeerMail, Timer, Token};

pub const SECRET: &str = "a-secret-for-tests-of-the-core-0123456789";
pub const BACKOFF_MS: u64 = 5_000;
pub const BATCH_MS: u64 = 100;

/// What a client got.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Text(Value),
    Binary(Vec<u8>),
    Closed(u16),
}

/// Effects of one shard, recorded.
#[derive(Default)]
pub struct Recorder {
    pub sockets: BTreeMap<u32, Vec<Got>>,
    pub timers: Vec<(u64, Timer)>,
    pub mail: Vec<(u16, PeerMail)>,
    pub questions: Vec<Question>,
    random: u64,
}

impl Effects for Recorder {
    fn send(&mut self, conn: u32, frame: &Frame) {
        let payload = match frame[1] {
            126 => &frame[4..],
            127 => &frame[10..],
            _ => &frame[2..],
        };
        let got = if frame[0] & 0x0f == 1 {
            Got::Text(serde_json::from_slice(payload).unwrap())
        } else {
            Got::Binary(payload.to_vec())
        };
        self.sockets.entry(conn).or_default().push(got);
    }

    fn close(&mut self, conn: u32, code: u16) {
        self.sockets.entry(conn).or_default().push(Got::Closed(code));
    }

    fn timer(&mut self, due_ms: u64, timer: Timer) {
        self.timers.push((due_ms, timer));
    }

    fn peer(&mut self, shard: u16, mail: PeerMail) {
        self.mail.push((shard, mail));
    }

    fn ask(&mut self, question: Question) {
        self.questions.push(question);
    }

    fn random(&mut self) -> [u8; 16] {
        self.random += 1;
        u128::from(self.random).to_le_bytes()
    }
}

/// A client by shard and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    pub shard: u16,
    pub slot: u32,
}

pub struct World {
    pub hubs: Vec<(Hub, Recorder)>,
    /// Mail on its way, by (from, to).
    pub mail: BTreeMap<(u16, u16), VecDeque<PeerMail>>,
    pub now: Now,
    pub shared: Arc<TenantShared>,
    config: TenantConfig,
}

pub fn limits() -> Limits {
    Limits {
        concurrent_users_max: 1_000,
        channels_per_client_max: 100,
        joins_per_second_max: 1_000,
        events_per_second_max: 1_000,
        presence_events_per_second_max: 1_000,
        payload_bytes_max: 3_000_500,
        presence_pushes_per_window_max: 1_000,
        presence_window_ms: 30_000,
    }
}

fn config(limits: Limits) -> TenantConfig {
    TenantConfig {
        external_id: "t1".into(),
        keys: Keys::new(Some(SECRET), None),
        suspended: false,
        private_only: false,
        presence_enabled: false,
        has_database: false,
        limits,
    }
}

impl World {
    pub fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub fn with(shards: u16, change: impl Fn(&mut TenantConfig)) -> Self {
        let hub = |shard| {
            Hub::new(HubSettings {
                shard,
                shards,
                origin: 1_000 + u64::from(shard),
                room_secret: [7; 32],
                channel_error_backoff_ms: BACKOFF_MS,
                presence_batch_ms: BATCH_MS,
                claim_validators: ClaimValidators::default(),
            })
        };
        let mut world = Self {
            hubs: (0..shards)
                .map(|shard| (hub(shard), Recorder { random: u64::from(shard) << 32, ..Recorder::default() }))
                .collect(),
            mail: BTreeMap::new(),
            now: Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 },
            shared: Arc::new(TenantShared::new("t1".into(), usize::from(shards))),
            config: config(limits()),
        };
        change(&mut world.config);
        world.configure(|_| {});
        world
    }

    /// Changes the tenant's settings on every shard.
    pub fn configure(&mut self, change: impl Fn(&mut TenantConfig)) {
        let mut next = config(self.config.limits.clone());
        next.suspended = self.config.suspended;
        next.private_only = self.config.private_only;
        next.presence_enabled = self.config.presence_enabled;
        next.has_database = self.config.has_database;
        change(&mut next);
        let shared_config = Arc::new(next);
        for (hub, _) in &mut self.hubs {
            hub.set_tenant(shared_config.clone(), self.shared.clone());
        }
    }

    pub fn token(&self, exp_in_secs: i64) -> Token {
        let claims = json!({"role": "anon", "exp": self.now.unix_secs() + exp_in_secs});
        sign_hs256(&claims, SECRET).into()
    }

    pub fn open(&mut self, shard: u16, vsn: Vsn) -> Client {
        let token = self.token(3_600);
        let (hub, recorder) = &mut self.hubs[usize::from(shard)];
        let ConnId { slot, .. } = hub.open(OpenSocket { tenant: 0, vsn, token, headers: None });
        recorder.sockets.insert(slot, Vec::new());
        Client { shard, slot }
    }

    /// A text message from a client; mail for its shard is taken first, as shards do.
    pub fn text(&mut self, client: Client, message: &Value) {
        self.deliver_to(client.shard);
        self.raw(client, false, message.to_string().as_bytes());
    }

    pub fn raw(&mut self, client: Client, binary: bool, data: &[u8]) {
        let now = self.now;
        self.act(client.shard, |hub, recorder| hub.message(client.slot, binary, data, now, recorder));
    }

    /// A push of version 2 without a join reference, which every rule accepts.
    pub fn push(&mut self, client: Client, topic: &str, event: &str, payload: Value) {
        self.text(client, &json!([null, "9", topic, event, payload]));
    }

    pub fn join(&mut self, client: Client, topic: &str, config: Value) {
        self.text(client, &json!(["1", "1", topic, "phx_join", {"config": config}]));
    }

    pub fn close(&mut self, client: Client) {
        let now = self.now;
        self.act(client.shard, |hub, recorder| hub.close(client.slot, now, recorder));
    }

    pub fn act(&mut self, shard: u16, action: impl FnOnce(&mut Hub, &mut Recorder)) {
        let (hub, recorder) = &mut self.hubs[usize::from(shard)];
        action(hub, recorder);
        for (to, mail) in recorder.mail.drain(..) {
            self.mail.entry((shard, to)).or_default().push_back(mail);
        }
    }

    /// Delivers one message of a pair.
    pub fn deliver_one(&mut self, from: u16, to: u16) {
        if let Some(mail) = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            let now = self.now;
            self.act(to, |hub, recorder| hub.peer(from, mail, now, recorder));
        }
    }

    pub fn deliver_to(&mut self, to: u16) {
        for from in 0..self.hubs.len() as u16 {
            for _ in 0..self.mail.get(&(from, to)).map_or(0, VecDeque::len) {
                self.deliver_one(from, to);
            }
        }
    }

    /// Delivers until nothing is on its way.
    pub fn settle(&mut self) {
        while let Some((&(from, to), _)) = self.mail.iter().find(|(_, queue)| !queue.is_empty()) {
            self.deliver_one(from, to);
        }
    }

    /// Lets time pass and fires what is due.
    pub fn advance(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        for shard in 0..self.hubs.len() as u16 {
            loop {
                let now = self.now;
                let timers = &mut self.hubs[usize::from(shard)].1.timers;
                let Some(position) = timers.iter().position(|(due, _)| *due <= now.mono_ms) else { break };
                let (_, timer) = timers.remove(position);
                self.act(shard, |hub, recorder| hub.timer(timer, now, recorder));
            }
        }
    }

    /// Takes what a shard has asked.
    pub fn questions(&mut self, shard: u16) -> Vec<Question> {
        std::mem::take(&mut self.hubs[usize::from(shard)].1.questions)
    }

    /// Answers a question of a shard.
    pub fn answer(&mut self, shard: u16, asker: Asker, outcome: Result<Permissions, DatabaseRefusal>) {
        let now = self.now;
        self.act(shard, |hub, recorder| hub.answered(Answer { asker, outcome }, now, recorder));
    }

    /// Takes what a client got so far.
    pub fn take(&mut self, client: Client) -> Vec<Got> {
        std::mem::take(self.hubs[usize::from(client.shard)].1.sockets.entry(client.slot).or_default())
    }

    /// The same, texts only.
    pub fn texts(&mut self, client: Client) -> Vec<Value> {
        let text = |got| match got {
            Got::Text(value) => Some(value),
            Got::Binary(_) | Got::Closed(_) => None,
        };
        self.take(client).into_iter().filter_map(text).collect()
    }
}
