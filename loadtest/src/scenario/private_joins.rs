//! Joining and leaving private channels: what the authorization by the tenant's policies costs.
//!
//! Every connection keeps a window of joins outstanding. A reply ends the join's time, sends the leave and starts the
//! next join, all in one write. No topic is joined twice, so neither a cache nor a shared query can answer for another
//! join. A refused join or a channel that ends without having been left ends the run.

use super::replication::await_replication;
use super::{Context, Counting, Scenario};
use crate::client::{Endpoint, Listener, LoadError, Seat};
use crate::database::{DatabaseArgs, ROLE, TOPIC_PREFIX};
use crate::machine::monotonic_ns;
use crate::measure::{Latency, Outcome, Quantity};
use crate::wire::frame::{OPCODE_TEXT, put_client_frame};
use crate::wire::push::{Channel, Kind};
use clap::Args;
use memchr::memmem;
use std::collections::HashMap;

/// N connections that join and leave private channels.
#[derive(Debug, Clone, Args)]
pub struct PrivateJoins {
    /// Connections.
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Joins outstanding per connection.
    #[arg(long, default_value_t = 4)]
    pub window: usize,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// All connections and the joins they are waiting for.
struct Joiners {
    endpoint: Endpoint,
    window: usize,
    /// Up to the number that makes a topic unique.
    topic_prefix: String,
    next: u64,
    /// When the joins without a reply were sent, by their numbers.
    pending: HashMap<u64, u64>,
    joins: u64,
    latency: Latency,
}

impl Joiners {
    fn new(endpoint: &Endpoint, window: usize) -> Self {
        let run = monotonic_ns();
        Self {
            endpoint: endpoint.clone(),
            window,
            topic_prefix: format!("realtime:{TOPIC_PREFIX}join:{run:x}:"),
            next: 0,
            pending: HashMap::new(),
            joins: 0,
            latency: Latency::default(),
        }
    }

    fn stage_join(&mut self, seat: usize, answer: &mut Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let topic = self.topic(number);
        let channel = Channel { topic, private: true, ..Channel::named("") };
        let token = self.endpoint.join_token.then(|| self.endpoint.token(seat));
        self.stage(number, &channel.topic, "phx_join", &channel.join_payload(token.as_deref()), answer);
        self.pending.insert(number, monotonic_ns());
    }

    fn stage(&self, number: u64, topic: &str, event: &str, payload: &str, answer: &mut Vec<u8>) {
        let reference = number.to_string();
        let text = self.endpoint.dialect.message(Some(&reference), &reference, topic, event, payload);
        put_client_frame(OPCODE_TEXT, text.as_bytes(), answer);
    }

    fn topic(&self, number: u64) -> String {
        format!("{}{number}", self.topic_prefix)
    }

    /// The number of the join that `message` is about, in either dialect.
    fn number(&self, message: &[u8]) -> Option<u64> {
        let prefix = self.topic_prefix.as_bytes();
        let digits = &message[memmem::find(message, prefix)? + prefix.len()..];
        let end = memchr::memchr(b'"', digits)?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }
}

impl Listener for Joiners {
    fn on_delivery(&mut self, _seat: usize, _message: &[u8], _answer: &mut Vec<u8>) {}

    fn on_joined(&mut self, seat: usize, answer: &mut Vec<u8>) {
        (0..self.window).for_each(|_| self.stage_join(seat, answer));
    }

    fn on_control(&mut self, seat: usize, kind: Kind, message: &[u8], answer: &mut Vec<u8>) -> bool {
        let Some(number) = self.number(message) else {
            return false;
        };
        match kind {
            Kind::Accepted => {
                if let Some(sent_ns) = self.pending.remove(&number) {
                    self.latency.record(monotonic_ns().saturating_sub(sent_ns));
                    self.joins += 1;
                    self.stage(number, &self.topic(number), "phx_leave", "{}", answer);
                    self.stage_join(seat, answer);
                }
                true
            }
            Kind::Ended => !self.pending.contains_key(&number) && memmem::find(message, b"\"phx_close\"").is_some(),
            Kind::Delivery | Kind::Rejected | Kind::Other => false,
        }
    }
}

impl Counting for Joiners {
    fn count(&self) -> u64 {
        self.joins
    }

    fn begin(&mut self) {
        self.latency.clear();
    }
}

impl Scenario for PrivateJoins {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.connections == 0 || self.window == 0 {
            return Err(LoadError::Argument("private-joins needs connections and a window above zero".to_owned()));
        }
        let endpoint = context.endpoint.clone().for_role(ROLE);
        let context = &Context { endpoint, postgres: self.database.probe()?, ..context.clone() };
        let database = self.database.open()?;
        await_replication(context)?;
        let mut joiners = Joiners::new(&context.endpoint, self.window);
        let mut fleet = context.open(&vec![Seat::default(); self.connections], &mut joiners)?;
        let (usage, joins) = context.measure(&mut fleet, &mut joiners, |_, _, _| Ok(u64::MAX))?;
        drop(database);
        let mut outcome = Outcome::default();
        usage.report(joins, Quantity::Joins, Quantity::CpuPerJoin, &mut outcome);
        usage.report_postgres(joins, Quantity::PostgresCpuPerJoin, &mut outcome);
        outcome.put(Quantity::Counted, joins as f64);
        joiners.latency.report(&mut outcome);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Credentials;
    use crate::wire::frame::parse_header;
    use crate::wire::push::Dialect;

    fn joiners(dialect: Dialect, window: usize) -> Joiners {
        let endpoint = Endpoint {
            address: "127.0.0.1:1".parse().unwrap(),
            path: "/".to_owned(),
            host: "a".to_owned(),
            credentials: Credentials::Token("t".to_owned()),
            dialect,
            binary: false,
            join_token: false,
            sources: Vec::new(),
        };
        Joiners::new(&endpoint, window)
    }

    fn texts(mut frames: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(header) = parse_header(frames).unwrap() {
            let end = header.head_bytes + header.payload_bytes;
            texts.push(String::from_utf8(frames[header.head_bytes..end].to_vec()).unwrap());
            frames = &frames[end..];
        }
        texts
    }

    #[test]
    fn an_accepted_join_is_left_and_followed_by_the_next() {
        for dialect in [Dialect::V1, Dialect::V2] {
            let mut joiners = joiners(dialect, 2);
            let mut answer = Vec::new();
            joiners.on_joined(0, &mut answer);
            let joins = texts(&answer);
            assert!(joins.len() == 2 && joins[0] != joins[1] && joins[0].contains(r#""private":true"#), "{joins:?}");
            answer.clear();
            let reply = dialect.message(Some("1"), "1", &joiners.topic(1), "phx_reply", r#"{"status":"ok","response":{}}"#);
            assert!(joiners.on_control(0, Kind::Accepted, reply.as_bytes(), &mut answer));
            let next = texts(&answer);
            assert!(next[0].contains("phx_leave") && next[0].contains(&joiners.topic(1)), "{next:?}");
            assert!(next[1].contains("phx_join") && next[1].contains(&joiners.topic(2)), "{next:?}");
            assert_eq!((joiners.joins, joiners.latency.count(), joiners.pending.len()), (1, 1, 2));
            answer.clear();
            assert!(joiners.on_control(0, Kind::Accepted, reply.as_bytes(), &mut answer), "the reply to the leave");
            assert_eq!((joiners.joins, answer.len()), (1, 0));
        }
    }

    #[test]
    fn only_channels_that_were_left_may_close() {
        let mut joiners = joiners(Dialect::V2, 2);
        joiners.on_joined(0, &mut Vec::new());
        let close = |number: u64, event: &str, joiners: &Joiners| {
            Dialect::V2.message(Some("1"), "1", &joiners.topic(number), event, r#"{"status":"ok"}"#)
        };
        let text = close(0, "phx_close", &joiners);
        assert!(!joiners.on_control(0, Kind::Ended, text.as_bytes(), &mut Vec::new()), "still pending");
        assert!(joiners.on_control(0, Kind::Accepted, text.as_bytes(), &mut Vec::new()));
        assert!(joiners.on_control(0, Kind::Ended, text.as_bytes(), &mut Vec::new()));
        let text = close(0, "phx_error", &joiners);
        assert!(!joiners.on_control(0, Kind::Ended, text.as_bytes(), &mut Vec::new()));
        assert!(!joiners.on_control(0, Kind::Rejected, text.as_bytes(), &mut Vec::new()));
        assert!(!joiners.on_control(0, Kind::Ended, b"[null,null,\"phoenix\",\"phx_close\",{}]", &mut Vec::new()));
    }
}
