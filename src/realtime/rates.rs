//! Rate counters of one tenant (operations section 4): owned by the control plane, which ticks them and publishes the
//! results into [`TenantShared`].

use super::tenant::{Cell, Limits, TenantShared, Total};
use crate::base::rate::RateWindow;
use std::sync::atomic::Ordering;

/// Tick and buckets of the per-message counters: a one-minute moving average.
const EVENT_TICK_MS: u64 = 5_000;
const EVENT_BUCKETS_MAX: usize = 12;

/// Tick and buckets of the HTTP request counter.
const HTTP_TICK_MS: u64 = 1_000;
const HTTP_BUCKETS_MAX: usize = 60;

/// A counter without events for this long starts anew at its next event.
const DORMANT_AFTER_MS: u64 = 300_000;

/// One counter: the shards' running total and the window over its growth.
#[derive(Debug)]
struct Counter {
    window: RateWindow,
    seen: u64,
    tick_ms: u64,
    buckets_max: usize,
    active_ms: u64,
}

impl Counter {
    fn new(tick_ms: u64, buckets_max: usize, now_ms: u64) -> Self {
        Self { window: RateWindow::new(tick_ms, buckets_max, now_ms), seen: 0, tick_ms, buckets_max, active_ms: now_ms }
    }

    /// Ticks when due; true when the average may have changed.
    fn tick(&mut self, total: u64, now_ms: u64) -> bool {
        if total != self.seen && now_ms.saturating_sub(self.active_ms) >= DORMANT_AFTER_MS {
            self.window = RateWindow::new(self.tick_ms, self.buckets_max, now_ms);
            self.active_ms = now_ms;
        }
        if !self.window.due(now_ms) {
            return false;
        }
        if total != self.seen {
            self.active_ms = now_ms;
        }
        self.window.tick(now_ms, total.wrapping_sub(self.seen));
        self.seen = total;
        true
    }

    fn restart(&mut self, total: u64, now_ms: u64) {
        *self = Self::new(self.tick_ms, self.buckets_max, now_ms);
        self.seen = total;
    }
}

/// Which counters start anew after a change of settings (operations 3.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restart {
    /// `max_events_per_second` changed.
    pub events: bool,
    /// `max_joins_per_second` changed.
    pub joins: bool,
    /// `max_presence_events_per_second` changed.
    pub presence: bool,
}

/// What a tick found out that an operator wants to read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Triggered {
    /// `ClientJoinRateLimitReached`
    Joins,
    /// `MessagePerSecondRateLimitReached`
    Events,
}

/// The rate counters of a tenant.
#[derive(Debug)]
pub struct TenantRates {
    joins: Counter,
    events: Counter,
    presence: Counter,
    http: Counter,
}

impl TenantRates {
    /// Counters that start now.
    pub fn new(now_ms: u64) -> Self {
        let event = || Counter::new(EVENT_TICK_MS, EVENT_BUCKETS_MAX, now_ms);
        Self { joins: event(), events: event(), presence: event(), http: Counter::new(HTTP_TICK_MS, HTTP_BUCKETS_MAX, now_ms) }
    }

    /// Ticks what is due and publishes averages and limiter states. Returns limiters that became triggered.
    pub fn tick(&mut self, shared: &TenantShared, limits: &Limits, now_ms: u64) -> impl Iterator<Item = Triggered> {
        let sum = |counter: fn(&Cell) -> &Total| shared.sum(counter);
        let joins = self.joins.tick(sum(|cell| &cell.joins), now_ms);
        let events = self.events.tick(sum(|cell| &cell.events), now_ms);
        self.presence.tick(sum(|cell| &cell.presence_events), now_ms);
        self.http.tick(sum(|cell| &cell.http_requests), now_ms);
        shared.publish_averages(self.events.window.average(), self.presence.window.average(), self.http.window.average());
        let set = |due: bool, flag: &std::sync::atomic::AtomicBool, average: f64, limit: i64| {
            let over = average >= limit as f64;
            due && over != flag.swap(over, Ordering::Relaxed) && over
        };
        let joins = set(joins, &shared.joins_triggered, self.joins.window.average(), limits.joins_per_second_max);
        let events = set(events, &shared.events_triggered, self.events.window.average(), limits.events_per_second_max);
        [joins.then_some(Triggered::Joins), events.then_some(Triggered::Events)].into_iter().flatten()
    }

    /// Starts counters anew and releases their limiters.
    pub fn restart(&mut self, which: Restart, shared: &TenantShared, now_ms: u64) {
        if which.joins {
            self.joins.restart(shared.sum(|cell| &cell.joins), now_ms);
            shared.joins_triggered.store(false, Ordering::Relaxed);
        }
        if which.events {
            self.events.restart(shared.sum(|cell| &cell.events), now_ms);
            shared.events_triggered.store(false, Ordering::Relaxed);
        }
        if which.presence {
            self.presence.restart(shared.sum(|cell| &cell.presence_events), now_ms);
        }
        shared.publish_averages(self.events.window.average(), self.presence.window.average(), self.http.window.average());
    }
}
