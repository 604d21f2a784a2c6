//! Our limiters beside the two obvious choices, in one run: a map behind a mutex, and governor's keyed limiter.
//!
//! All get the same keys and the same kind of clock reading per request, and a quota that never refuses, so that each
//! request changes state. Keys go round in an order that the processor cannot guess, as clients do. The table shows nanoseconds
//! of one thread for one decision, the smallest of several rounds: a limiter that scales shows the same on all threads as on one.
//!
//! `cargo bench -p tollgate-limit`

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::{
    collections::HashMap,
    hint::black_box,
    num::NonZeroU32,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use governor::RateLimiter;
use tollgate_limit::{
    AnyTable, CalendarPeriod, CalendarQuota, KeyHasher, LocalSet, Moment, Quota, SlidingWindow, Table,
};

const RATE: u32 = 1_000_000_000;
const ROUNDS: usize = 7;
const DECISIONS: u64 = 2_000_000;

/// One contender: whether a request of `key` passes.
type Take = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// The textbook: tokens and the time of the last look, per key, behind one lock.
#[derive(Default)]
struct Naive(Mutex<HashMap<u64, (f64, Duration)>>);

impl Naive {
    fn take(&self, key: u64, now: Duration) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (tokens, seen) = buckets.entry(key).or_insert((f64::from(RATE), now));
        *tokens = (*tokens + now.saturating_sub(*seen).as_secs_f64() * f64::from(RATE)).min(f64::from(RATE));
        *seen = now;
        let pass = *tokens >= 1.0;
        if pass {
            *tokens -= 1.0;
        }
        pass
    }
}

fn quota() -> Quota {
    Quota::new(RATE, Duration::from_secs(1), RATE).unwrap_or_else(|problem| panic!("{problem}"))
}

fn window() -> SlidingWindow {
    SlidingWindow::new(33_000_000, Duration::from_secs(86_400)).unwrap_or_else(|problem| panic!("{problem}"))
}

fn calendar() -> CalendarQuota {
    CalendarQuota::new(RATE, CalendarPeriod::Month).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Every contender, each reading the same clock once per request (governor insists on reading it itself).
fn contenders(keys: usize) -> [(&'static str, Take); 6] {
    let start = Instant::now();
    let unix = Duration::from_secs(1_800_000_000);
    let moment = move || Moment { since_start: start.elapsed(), unix };
    let bucket = Table::new(quota(), keys);
    let (sliding, monthly) = (Table::new(window(), keys), Table::new(calendar(), keys));
    let three = vec![
        AnyTable::Bucket(Arc::new(Table::new(quota(), keys))),
        AnyTable::Window(Arc::new(Table::new(window(), keys))),
        AnyTable::Calendar(Arc::new(Table::new(calendar(), keys))),
    ];
    let three = LocalSet::new(three, Arc::default(), KeyHasher::with_seed(1));
    let naive = Naive::default();
    let rate = NonZeroU32::new(RATE).unwrap_or(NonZeroU32::MIN);
    let governor = RateLimiter::dashmap_with_clock(
        governor::Quota::per_second(rate).allow_burst(rate),
        governor::clock::MonotonicClock,
    );
    [
        ("token bucket", Arc::new(move |key| bucket.take(key, 1, start.elapsed()).allowed())),
        ("sliding window", Arc::new(move |key| sliding.take(key, 1, start.elapsed()).allowed())),
        ("quota of a month", Arc::new(move |key| monthly.take_at(key, 1, moment()).allowed())),
        ("all three at once", Arc::new(move |key| three.take_key(key, 1, moment()).verdict.allowed())),
        ("governor", Arc::new(move |key| governor.check_key(&key).is_ok())),
        ("map behind a mutex", Arc::new(move |key| naive.take(key, start.elapsed()))),
    ]
}

fn keys(count: u64) -> Arc<[u64]> {
    let hasher = KeyHasher::with_seed(1);
    (0..count).map(|number| hasher.key("bench").number(number).finish()).collect()
}

/// Time for `each` requests on every one of `threads`, from a common start to the last end, each at its own place in the keys.
fn run(take: &Take, keys: &Arc<[u64]>, threads: u64, each: u64) -> Duration {
    let barrier = Barrier::new(usize::try_from(threads).unwrap_or(1) + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let from = keys.len() as u64 / threads * thread;
                    let mut walk = keys.iter().cycle().skip(usize::try_from(from).unwrap_or(0));
                    barrier.wait();
                    for _ in 0..each {
                        black_box(take(*walk.next().unwrap_or(&0)));
                    }
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().unwrap_or_else(|_| panic!("a worker died"));
        }
        start.elapsed()
    })
}

/// Nanoseconds for one decision.
fn measured(take: &Take, keys: &Arc<[u64]>, threads: u64) -> u128 {
    let rounds = (0..ROUNDS).map(|_| run(take, keys, threads, DECISIONS).as_nanos() / u128::from(DECISIONS));
    rounds.min().unwrap_or_default()
}

fn main() {
    let all = thread::available_parallelism().map_or(2, |count| count.get() as u64);
    // What cargo runs with its tests is only to be seen to work.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut lines: Vec<(&str, Vec<u128>)> = Vec::new();
    for count in [1u64, 1_000, 1_000_000] {
        let keys = keys(count);
        for (place, (name, take)) in contenders(keys.len()).into_iter().enumerate() {
            // Every key is known before the clock starts: this measures requests, not first requests.
            for &key in keys.iter() {
                black_box(take(key));
            }
            if lines.len() <= place {
                lines.push((name, Vec::new()));
            }
            lines[place].1.extend([measured(&take, &keys, 1), measured(&take, &keys, all)]);
        }
    }
    println!(
        "| ns for one decision | 1 key, 1 thread | 1 key, {all} threads | 1,000 keys, 1 | 1,000 keys, {all} | 1,000,000 keys, 1 | 1,000,000 keys, {all} |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, figures) in lines {
        let figures: Vec<String> = figures.iter().map(u128::to_string).collect();
        println!("| {name} | {} |", figures.join(" | "));
    }
}
