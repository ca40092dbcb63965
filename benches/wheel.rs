//! Timer wheel: setting timers, and what each tick costs with many of them waiting.
//!
//! Guards P4 (a tick is a pause for everybody on the shard: its p99 must not show it) and the idle cost behind P5 (15,000
//! joined connections have a token check each, minutes ahead, that every turn of the wheel passes by).

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringcast::shard::wheel::{TICK_MS, Wheel};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Largest interval between two token checks (protocol 13.4).
const TOKEN_CHECK_MS: u64 = 300_000;

/// As large as the timers of a shard.
type Entry = [u64; 4];

fn main() {
    divan::main();
}

/// A wheel with `timers` due evenly over the next five minutes.
fn wheel(timers: u64) -> Wheel<Entry> {
    let mut wheel = Wheel::new(0);
    for n in 0..timers {
        wheel.add(TICK_MS + n * TOKEN_CHECK_MS / timers, [n; 4]);
    }
    wheel
}

/// One tick of a wheel whose timers are set anew, five minutes ahead, when they fire.
#[divan::bench(args = [0, 15_000, 100_000])]
fn tick(bencher: Bencher, timers: u64) {
    let mut wheel = wheel(timers);
    let mut due = Vec::new();
    let mut now_ms = 0;
    bencher.bench_local(|| {
        now_ms += TICK_MS;
        wheel.advance(now_ms, &mut due);
        for timer in due.drain(..) {
            wheel.add(now_ms + TOKEN_CHECK_MS, black_box(timer));
        }
    });
}

/// Timers of the next second, set and fired: presence batches, back-offs. Items are timers.
#[divan::bench(args = [16, 1_000])]
fn add_and_fire(bencher: Bencher, timers: u64) {
    const SPREAD_MS: u64 = 1_000;
    let mut wheel = Wheel::<Entry>::new(0);
    let mut due = Vec::new();
    let mut now_ms = 0;
    bencher.counter(ItemsCount::new(timers)).bench_local(|| {
        for n in 0..timers {
            wheel.add(now_ms + n * SPREAD_MS / timers, black_box([n; 4]));
        }
        // A tick past the spread, so that all of them have fired.
        now_ms += SPREAD_MS + TICK_MS;
        wheel.advance(now_ms, &mut due);
        assert_eq!(due.len() as u64, timers);
        due.clear();
    });
}

/// The first tick after the thread was held up for longer than a turn of the wheel.
#[divan::bench(args = [100_000])]
fn tick_after_a_long_pause(bencher: Bencher, timers: u64) {
    let mut due = Vec::with_capacity(timers as usize);
    bencher.with_inputs(|| wheel(timers)).bench_local_refs(|wheel| {
        due.clear();
        wheel.advance(20_000, &mut due);
        due.len()
    });
}
