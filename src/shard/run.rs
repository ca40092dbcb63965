//! The thread of a shard: driver, tasks, ticks, drain.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use monoio::net::TcpListener;

use super::io::{Io, ShardTimer};
use super::waiters::Waiters;
use super::wheel::TICK_MS;
use super::{MESSAGE_BYTES_MAX, Settings, Shard, State, accept, now};
use crate::config::Config;
use crate::mailbox::{Receiver, Sender, ToControl, ToShard};
use crate::protocol::http1::{Cidr, HeadLimits};
use crate::protocol::websocket::DecodeLimits;
use crate::realtime::{Hub, HubSettings, Now};
use crate::telemetry::ShardCounters;

/// Sockets closed per batch while draining, over all shards, and the pause between batches (protocol 15.3).
const DRAIN_BATCH: usize = 10_000;
const DRAIN_PAUSE: Duration = Duration::from_secs(2);

/// Pause of the mail task while mail keeps coming; a ring holds more than arrives in it.
const MAIL_PAUSE: Duration = Duration::from_millis(1);

/// How long closed sockets may take to say goodbye once all were told.
const DRAIN_LINGER: Duration = Duration::from_secs(5);

/// The kernel interface a shard runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring
    IoUring,
    /// epoll, where io_uring is refused.
    Epoll,
}

/// Everything a shard's thread starts with.
pub struct ShardPlan {
    /// Number of this shard.
    pub shard: u16,
    /// Number of shards.
    pub shards: u16,
    /// Configuration.
    pub config: Arc<Config>,
    /// Kernel interface.
    pub driver: DriverKind,
    /// Core to pin the thread to.
    pub core: usize,
    /// Bound listener of this shard.
    pub listener: std::net::TcpListener,
    /// Open connections of the process.
    pub open_connections: Arc<AtomicU64>,
    /// Core settings.
    pub hub: HubSettings,
    /// Counters.
    pub counters: Arc<ShardCounters>,
    /// Mailbox.
    pub inbox: Receiver<ToShard>,
    /// Ends to the other shards, `None` at the own number.
    pub peers: Vec<Option<Sender<ToShard>>>,
    /// End to the control thread.
    pub control: Sender<ToControl>,
}

/// Why the kernel refuses io_uring here, if it does.
pub fn uring_refusal() -> Option<io::Error> {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(256).build().err()
}

/// Runs the shard for the rest of the process. Blocks the calling thread.
///
/// # Errors
/// When the driver or the listener cannot be set up.
pub fn run(plan: ShardPlan) -> io::Result<()> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: plan.core }) {
        tracing::warn!("shard {} could not be pinned to core {}", plan.shard, plan.core);
    }
    let entries = plan.config.ring_entries;
    match plan.driver {
        DriverKind::IoUring => {
            let mut runtime =
                monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(entries).enable_timer().build()?;
            runtime.block_on(serve(plan))
        }
        DriverKind::Epoll => {
            let mut runtime =
                monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().with_entries(entries).enable_timer().build()?;
            runtime.block_on(serve(plan))
        }
    }
}

async fn serve(plan: ShardPlan) -> io::Result<()> {
    let ShardPlan { shard: number, shards, config, listener, open_connections, hub, counters, inbox, peers, control, .. } = plan;
    let trusted = config.trusted_proxies.iter().map(|text| text.parse::<Cidr>());
    let trusted_proxies = trusted.collect::<Result<_, _>>().map_err(|error| io::Error::other(format!("{error:?}")))?;
    let head_limits = HeadLimits { header_value_bytes_max: config.max_header_length, ..HeadLimits::default() };
    let watch = inbox.watch();
    let control = Rc::new(RefCell::new(control));
    let state = State {
        hub: Hub::new(hub),
        io: Io::new(number, peers, control.clone(), config.outbox_bytes_max, counters, now().mono_ms),
        inbox,
        read_buffer: Vec::new(),
    };
    let shard = Rc::new(Shard {
        settings: Settings {
            shard: number,
            shards,
            head_limits,
            decode_limits: DecodeLimits { message_bytes_max: MESSAGE_BYTES_MAX },
            trusted_proxies,
            config,
        },
        state: RefCell::new(state),
        control,
        waiters: Waiters::default(),
        drain: RefCell::default(),
    });
    let listener = TcpListener::from_std(listener)?;
    let accepting = accept::accept_loop(shard.clone(), listener, open_connections);
    monoio::spawn(until_drain(shard.clone(), accepting));
    monoio::spawn(flush_task(shard.clone()));
    let mail = shard.clone();
    monoio::spawn(async move {
        loop {
            watch.pending().await;
            mail.drain_mail();
            if watch.is_pending() {
                // Mail comes faster than it can be handled: let sockets, timers and writes have their turn.
                monoio::time::sleep(MAIL_PAUSE).await;
            }
        }
    });
    ticks(&shard).await;
    Ok(())
}

/// Accepts until draining starts; dropping the listener refuses further connections.
async fn until_drain(shard: Rc<Shard>, accepting: impl Future<Output = ()>) {
    let draining = async {
        while shard.drain.borrow().is_none() {
            monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        }
    };
    monoio::select! {
        () = accepting => {}
        () = draining => {}
    }
}

/// Sends what the turn has queued: woken by the first dirty outbox, so it runs behind everything that was ready.
async fn flush_task(shard: Rc<Shard>) {
    std::future::poll_fn(|context| {
        let mut state = shard.state.borrow_mut();
        state.io.flush_dirty(context.waker());
        let blocked = std::mem::take(&mut state.io.newly_blocked);
        drop(state);
        for (id, stream) in blocked {
            let shard = shard.clone();
            monoio::spawn(async move {
                while stream.writable(false).await.is_ok() {
                    let mut state = shard.state.borrow_mut();
                    if state.io.socket(id).is_none() || !state.io.flush(id.slot) {
                        break;
                    }
                }
            });
        }
        std::task::Poll::<()>::Pending
    })
    .await;
}

/// Progress of a drain.
#[derive(Debug)]
pub(super) struct Drain {
    deadline_ms: u64,
    next_batch_ms: u64,
    linger_until_ms: Option<u64>,
    /// The control thread knows that this shard is done.
    reported: bool,
}

/// SIGTERM reached this shard: stop accepting, refuse joins, tell the sockets in batches.
pub(super) fn start_draining(shard: &Rc<Shard>) {
    let now_ms = now().mono_ms;
    shard.state.borrow_mut().hub.start_draining();
    shard.drain.borrow_mut().get_or_insert(Drain {
        deadline_ms: now_ms + shard.settings.config.drain_timeout_ms,
        next_batch_ms: now_ms,
        linger_until_ms: None,
        reported: false,
    });
}

/// The clock of the shard. A drained shard goes on for the others, whose rooms it may own; the process ends when all are.
async fn ticks(shard: &Rc<Shard>) {
    let mut due = Vec::new();
    let sweep_ms = shard.settings.config.no_channel_timeout_ms.max(1);
    let mut next_sweep_ms = now().mono_ms + sweep_ms;
    // A pass over the sockets ten times per idle timeout, as the original does, costs less than a timer for each.
    let idle_ms = shard.settings.config.idle_timeout_ms;
    let mut next_idle_check_ms = now().mono_ms + idle_ms;
    loop {
        monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        let mut state = shard.state.borrow_mut();
        let State { hub, io, .. } = &mut *state;
        let now = now();
        io.wheel.advance(now.mono_ms, &mut due);
        for timer in due.drain(..) {
            match timer {
                ShardTimer::Hub(timer) => hub.timer(timer, now, io),
                ShardTimer::Linger(id) => {
                    if io.socket(id).is_some() {
                        io.shut_down(id.slot);
                    }
                }
            }
        }
        if now.mono_ms >= next_idle_check_ms {
            next_idle_check_ms = now.mono_ms + (idle_ms / 10).max(TICK_MS);
            for slot in io.silent_since(now.mono_ms.saturating_sub(idle_ms)) {
                hub.close_idle(slot, now, io);
            }
        }
        if now.mono_ms >= next_sweep_ms {
            next_sweep_ms = now.mono_ms + sweep_ms;
            hub.close_channelless(now, io);
        }
        io.tick();
        publish_stats(hub, io);
        shard.control.borrow_mut().flush();
        if let Some(drain) = &mut *shard.drain.borrow_mut()
            && !drain.reported
            && drain_step(drain, shard, hub, io, now)
        {
            drain.reported = true;
            shard.control.borrow_mut().send(ToControl::Drained);
        }
    }
}

/// One tick of a drain; true when it is over.
fn drain_step(drain: &mut Drain, shard: &Shard, hub: &mut Hub, io: &mut Io, now: Now) -> bool {
    let now_ms = now.mono_ms;
    if now_ms >= drain.deadline_ms || hub.connections() == 0 {
        return true;
    }
    if let Some(until_ms) = drain.linger_until_ms {
        return now_ms >= until_ms;
    }
    if now_ms >= drain.next_batch_ms {
        let batch = (DRAIN_BATCH / usize::from(shard.settings.shards)).max(1);
        drain.next_batch_ms = now_ms + DRAIN_PAUSE.as_millis() as u64;
        let left = hub.drain_batch(batch, now, io);
        tracing::info!("shard {}: draining, {left} sockets still to be told", shard.settings.shard);
        if left == 0 {
            drain.linger_until_ms = Some(now_ms + DRAIN_LINGER.as_millis() as u64);
        }
    }
    false
}

fn publish_stats(hub: &mut Hub, io: &Io) {
    let stats = hub.take_stats();
    let counters = &io.counters;
    counters.malformed_frames.add(stats.malformed);
    counters.joins_ok.add(stats.joins_ok);
    counters.joins_error.add(stats.joins_error);
    counters.broadcasts.add(stats.broadcasts);
    counters.deliveries.add(stats.deliveries);
    counters.presence_diffs.add(stats.presence_diffs);
    counters.turns.increment();
}
