//! Private channels: permissions of one channel, and its pushes that wait until the database has said (section 12).
//!
//! Read permissions are known when the channel exists and live in its room member, where fan-out looks. Write permissions
//! are asked for at the first push that needs them and kept until the token changes. While a question is open, every push
//! of the channel waits, so that its order is kept; other channels of the socket go on.

use super::database::{Ask, Asker, Authorize, DatabaseRefusal, Extensions, MessageId, Permissions, Question};
use super::effects::{Effects, Timer};
use super::held::Messages;
use super::hub::{Hub, Now};
use super::join::ANSWER_MS_MAX;
use crate::protocol::phoenix::Push;
use crate::telemetry::Code;

/// Bytes of pushes that may wait for answers on one socket: what a busy client sends in the time of a slow check. One push is
/// always kept, however large; a channel that sends more than fits is stopped, since a push lost in between would be worse.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// What keeping one push costs beside its bytes.
const PUSH_OVERHEAD_BYTES: usize = 64;

/// Failed evaluations of one channel are logged at most this often.
const FAILURE_LOG_MS: u64 = 1_000;

/// What a private channel has besides the rest.
#[derive(Debug)]
pub(super) struct PrivateChannel {
    /// `None`: not evaluated since the token changed.
    write: Option<Extensions>,
    /// `None`: presence was neither enabled nor used yet.
    presence_read: Option<bool>,
    presence_at_join: bool,
    /// The open question; a token refresh asks for the read permissions anew.
    open: Option<Open>,
    rounds: u32,
    waiting: Messages,
    pub waiting_bytes: usize,
    failure_logged_ms: Option<u64>,
    /// The last evaluation failed and the pushes that waited for it are being handled.
    failing: bool,
    replayed: Box<[MessageId]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Push { presence: bool },
    Refresh,
}

impl PrivateChannel {
    pub fn new(presence_read: Option<bool>, replayed: impl Iterator<Item = MessageId>) -> Self {
        Self {
            write: None,
            presence_read,
            presence_at_join: presence_read.is_some(),
            open: None,
            rounds: 0,
            waiting: Messages::new(),
            waiting_bytes: 0,
            failure_logged_ms: None,
            failing: false,
            replayed: replayed.collect(),
        }
    }
}

impl Hub {
    /// What a channel may write, as far as it has been asked for.
    pub(super) fn may_write(&self, channel: u32) -> Extensions {
        match &self.channels[channel as usize].private {
            None => Extensions::ALL,
            Some(private) => private.write.unwrap_or_default(),
        }
    }

    /// The permissions of a private channel could not be evaluated for the push that is being handled.
    pub(super) fn is_failing(&self, channel: u32) -> bool {
        self.channels[channel as usize].private.as_ref().is_some_and(|private| private.failing)
    }

    pub(super) fn was_replayed(&self, channel: u32, id: &MessageId) -> bool {
        self.channels[channel as usize].private.as_ref().is_some_and(|private| private.replayed.contains(id))
    }

    /// A private channel with presence switched off has tracked: it sees presence from now on, if it may (10.5).
    pub(super) fn note_tracked(&mut self, channel: u32) {
        let entry = &self.channels[channel as usize];
        if entry.private.as_ref().is_some_and(|private| private.presence_read == Some(true)) {
            self.rooms[entry.room as usize].members[entry.member as usize].reads_presence = true;
        }
    }

    /// Keeps a push of a private channel whose permissions are not known yet; false when it can be handled now.
    pub(super) fn defer<E: Effects>(&mut self, channel: u32, push: &Push<'_>, raw: (bool, &[u8]), now: Now, fx: &mut E) -> bool {
        let Some(private) = self.channels[channel as usize].private.as_deref_mut() else { return false };
        if push.event == "phx_join" || (private.failing && private.open.is_none()) {
            return false;
        }
        let presence_unknown = push.event == "presence" && private.presence_read.is_none();
        let unknown = match &*push.event {
            "broadcast" => private.write.is_none(),
            "presence" => private.write.is_none() || presence_unknown,
            _ => false,
        };
        if private.open.is_none() && !unknown {
            return false;
        }
        let bytes = raw.1.len() + PUSH_OVERHEAD_BYTES;
        let slot = self.channels[channel as usize].conn;
        let on_socket = &mut self.conns[slot as usize].waiting_bytes;
        let private = self.channels[channel as usize].private.as_deref_mut().expect("it was there above");
        if !private.waiting.is_empty() && *on_socket + bytes > WAITING_BYTES_MAX {
            self.stop_channel(channel, "Too many messages per second", now, fx);
            return true;
        }
        *on_socket += bytes;
        private.waiting_bytes += bytes;
        private.waiting.push_back((raw.0, raw.1.to_vec()));
        if private.open.is_none() {
            let write = private.write.is_none();
            let read = Extensions { broadcast: false, presence: presence_unknown };
            self.ask_for_channel(channel, Open::Push { presence: presence_unknown }, read, write, now, fx);
        }
        true
    }

    /// The token of a private channel changed: every permission is evaluated anew (13.2).
    pub(super) fn reauthorize<E: Effects>(&mut self, channel: u32, now: Now, fx: &mut E) {
        let Some(private) = self.channels[channel as usize].private.as_deref_mut() else { return };
        private.write = None;
        let read = Extensions { broadcast: true, presence: private.presence_read.is_some() };
        self.ask_for_channel(channel, Open::Refresh, read, false, now, fx);
    }

    fn ask_for_channel<E: Effects>(&mut self, channel: u32, open: Open, read: Extensions, write: bool, now: Now, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        let private = entry.private.as_deref_mut().expect("only private channels ask");
        private.open = Some(open);
        private.rounds = private.rounds.wrapping_add(1);
        let asker = Asker::Channel { channel, serial: entry.serial, round: private.rounds };
        let conn = &self.conns[entry.conn as usize];
        let authorize = Authorize {
            sub_topic: self.rooms[entry.room as usize].sub_topic().into(),
            token: (&*entry.token).into(),
            headers: conn.headers.clone(),
            read,
            write,
            replay: None,
        };
        let external_id = conn.shared.external_id.clone();
        fx.timer(now.mono_ms + ANSWER_MS_MAX, Timer::AnswerDeadline(asker));
        fx.ask(Question { external_id, asker, ask: Ask::Authorize(Box::new(authorize)) });
    }

    pub(super) fn channel_answered<E: Effects>(
        &mut self,
        channel: u32,
        round: u32,
        outcome: Result<Permissions, DatabaseRefusal>,
        now: Now,
        fx: &mut E,
    ) {
        let entry = &mut self.channels[channel as usize];
        let (slot, serial) = (entry.conn, entry.serial);
        let Some(private) = entry.private.as_deref_mut() else { return };
        if private.rounds != round {
            return;
        }
        let Some(open) = private.open.take() else { return };
        self.conns[slot as usize].waiting_bytes -= std::mem::take(&mut private.waiting_bytes);
        let waiting = std::mem::take(&mut private.waiting);
        match open {
            Open::Refresh => self.refreshed(channel, outcome, now, fx),
            Open::Push { presence } => self.push_answered(channel, presence, outcome, now),
        }
        self.handle_held(slot, waiting, now, fx);
        if self.channel_is(channel, serial)
            && let Some(private) = self.channels[channel as usize].private.as_deref_mut()
            && std::mem::take(&mut private.failing)
        {
            // The next push asks again.
            private.write = None;
        }
    }

    fn push_answered(&mut self, channel: u32, presence: bool, outcome: Result<Permissions, DatabaseRefusal>, now: Now) {
        let entry = &mut self.channels[channel as usize];
        let private = entry.private.as_deref_mut().expect("only private channels ask");
        match outcome {
            Ok(permissions) => {
                private.write.get_or_insert(permissions.write);
                if presence {
                    private.presence_read = Some(permissions.read.presence);
                }
            }
            Err(refusal) => {
                private.write.get_or_insert(Extensions::NONE);
                private.failing = true;
                let is_due = private.failure_logged_ms.is_none_or(|logged| now.mono_ms >= logged + FAILURE_LOG_MS);
                if is_due {
                    private.failure_logged_ms = Some(now.mono_ms);
                    let topic = self.rooms[entry.room as usize].sub_topic();
                    let code = if presence { Code::UnableToHandlePresence } else { Code::UnableToHandleBroadcast };
                    let tenant = &self.conns[entry.conn as usize].shared.external_id;
                    code.log(tenant, format_args!("permissions of topic {topic} could not be evaluated: {}", refusal.log_text()));
                }
            }
        }
    }

    fn refreshed<E: Effects>(&mut self, channel: u32, outcome: Result<Permissions, DatabaseRefusal>, now: Now, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        let room = &mut self.rooms[entry.room as usize];
        let member = &mut room.members[entry.member as usize];
        let read = match outcome {
            Ok(permissions) => permissions.read,
            Err(refusal) => {
                let tenant = &self.conns[entry.conn as usize].shared.external_id;
                refusal.log(tenant);
                return self.stop_channel(channel, refusal.close_text(), now, fx);
            }
        };
        let private = entry.private.as_deref_mut().expect("only private channels ask");
        let lost_presence = private.presence_read == Some(true) && !read.presence;
        if !read.any() {
            let text = format!("You do not have permissions to read from this Channel topic: {}", room.sub_topic());
            return self.stop_channel(channel, &text, now, fx);
        }
        if lost_presence || (member.reads_broadcast && !read.broadcast) {
            let text = format!("You no longer have permission to read from this Channel topic: {}", room.sub_topic());
            return self.stop_channel(channel, &text, now, fx);
        }
        member.reads_broadcast = read.broadcast;
        if let Some(presence_read) = &mut private.presence_read {
            *presence_read = read.presence;
            member.reads_presence |= read.presence && private.presence_at_join;
        }
    }
}
