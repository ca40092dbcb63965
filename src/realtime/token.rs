//! Tokens of channels: verification, refresh and expiry (section 13).
//!
//! A token is verified when a channel joins, when it is refreshed, and again at min(5 min, exp − now) for as long as the
//! channel lives, so a changed secret ends channels too. The connection token is never re-checked after the upgrade.

use std::rc::Rc;

use super::effects::{Effects, Timer};
use super::hub::{Hub, Now};
use super::refusal::Refusal;
use super::tenant::TenantConfig;
use crate::protocol::jwt::{JwtError, Require, Verified};
use crate::protocol::phoenix::json::{as_string, is_object, member};
use crate::protocol::phoenix::{Payload, Push};

/// A live channel's token is verified at least this often (13.4).
const TOKEN_CHECK_MS_MAX: u64 = 300_000;

/// A check this little earlier than the armed timer waits for that timer: expiry is noticed within a second.
const TIMER_SLACK_MS: u64 = 1_000;

/// Text of a token, shared by everything on the shard that uses it.
pub type Token = Rc<str>;

/// A token that may be used now.
#[derive(Debug)]
pub(super) struct UsableToken {
    pub text: Token,
    /// Time until the next check.
    pub check_in_ms: u64,
}

impl Hub {
    /// Verifies a token of the tenant, through the cache for costly algorithms.
    ///
    /// # Errors
    /// The kinds of section 2.4.
    pub fn verify(&mut self, config: &TenantConfig, token: &str, now: Now) -> Result<Verified, JwtError> {
        self.verified.verify_cached(token, &config.keys, &self.settings.claim_validators, now.unix_secs(), Require::RoleAndExp)
    }

    pub(super) fn usable_token(&mut self, config: &TenantConfig, text: Token, now: Now) -> Result<UsableToken, Refusal> {
        let verified = self.verify(config, &text, now).map_err(Refusal::Token)?;
        let left_secs = verified.seconds_left(now.unix_secs()).filter(|left| *left > 0).ok_or(Refusal::TokenExpirationInvalid)?;
        // The first moment at which whole seconds say "expired".
        let left_ms = u64::try_from(left_secs).unwrap_or(0).saturating_mul(1000).saturating_sub(now.unix_ms % 1000);
        Ok(UsableToken { text, check_in_ms: left_ms.min(TOKEN_CHECK_MS_MAX) })
    }

    /// Plans the next check. At most one timer is armed per channel, plus one for each time a refresh brings the check
    /// forward, which can happen as often as there are seconds in the longest wait.
    pub(super) fn schedule_token_check<E: Effects>(&mut self, channel: u32, check_in_ms: u64, now: Now, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        entry.token_check_ms = now.mono_ms + check_in_ms;
        let is_much_earlier = entry.token_check_ms.saturating_add(TIMER_SLACK_MS) <= entry.token_timer_ms;
        if is_much_earlier {
            self.arm_token_timer(channel, fx);
        }
    }

    fn arm_token_timer<E: Effects>(&mut self, channel: u32, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        entry.token_timer_ms = entry.token_check_ms;
        fx.timer(entry.token_check_ms, Timer::TokenCheck { channel, serial: entry.serial });
    }

    /// `access_token`: never answered; a token that cannot be used ends the channel (13.1–13.3).
    pub(super) fn refresh_token<E: Effects>(&mut self, channel: u32, push: &Push<'_>, now: Now, fx: &mut E) {
        let value = match push.payload {
            Payload::Json(payload) if is_object(payload) => member(payload, "access_token"),
            _ => None,
        };
        let token = match value {
            Some("null") => return,
            Some(span) => as_string(span),
            None => None,
        };
        let Some(token) = token else { return self.count_events(channel, 1) };
        if token.starts_with("sb_") || *token == *self.channels[channel as usize].token {
            return;
        }
        if self.use_token(channel, token.as_ref().into(), now, fx) {
            self.reauthorize(channel, now, fx);
            self.resubscribe(channel, fx);
        }
    }

    /// The running check of a live channel is due (13.4).
    pub(super) fn check_token<E: Effects>(&mut self, channel: u32, now: Now, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        if now.mono_ms < entry.token_timer_ms {
            // An earlier timer replaced this one and has been handled.
            return;
        }
        entry.token_timer_ms = u64::MAX;
        if now.mono_ms < entry.token_check_ms {
            // A refresh moved the check.
            return self.arm_token_timer(channel, fx);
        }
        let token = entry.token.clone();
        self.use_token(channel, token, now, fx);
    }

    /// False when the channel has ended.
    fn use_token<E: Effects>(&mut self, channel: u32, text: Token, now: Now, fx: &mut E) -> bool {
        let tenant = self.conns[self.channels[channel as usize].conn as usize].tenant;
        let usable = match self.tenants[tenant as usize].config.clone() {
            Some(config) => self.usable_token(&config, text, now),
            None => Err(Refusal::TenantNotFound),
        };
        match usable {
            Ok(usable) => {
                self.channels[channel as usize].token = usable.text;
                self.schedule_token_check(channel, usable.check_in_ms, now, fx);
                return true;
            }
            Err(Refusal::Token(error)) => self.stop_channel(channel, &error.close_text(), now, fx),
            Err(Refusal::TokenExpirationInvalid) => self.stop_channel(channel, "Token expiration time is invalid", now, fx),
            Err(other) => self.stop_channel(channel, &format!(":{}", other.code().as_str()), now, fx),
        }
        false
    }
}
