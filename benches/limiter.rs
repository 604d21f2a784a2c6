//! Our limiter beside the two obvious choices, in one run: a map behind a mutex, and governor's keyed limiter.
//!
//! All three get the same keys and the same kind of clock reading per request, and a quota that never refuses, so that each
//! request changes state. Keys go round in an order that the processor cannot guess, as clients do.

use std::{
    collections::HashMap,
    hint::black_box,
    num::NonZeroU32,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use governor::RateLimiter;
use tollgate::limit::{KeyHasher, Quota, Table};

const RATE: u32 = 1_000_000_000;
const THREADS: u64 = 4;

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

/// Every contender, each reading the same clock once per request (governor insists on reading it itself).
fn contenders(keys: usize) -> [(&'static str, Take); 3] {
    let start = Instant::now();
    let quota = Quota::new(RATE, Duration::from_secs(1), RATE).unwrap_or_else(|problem| panic!("{problem}"));
    let table = Table::new(quota, keys);
    let naive = Naive::default();
    let rate = NonZeroU32::new(RATE).unwrap_or(NonZeroU32::MIN);
    let governor = RateLimiter::dashmap_with_clock(
        governor::Quota::per_second(rate).allow_burst(rate),
        governor::clock::MonotonicClock,
    );
    [
        ("tollgate", Arc::new(move |key| table.take(key, 1, start.elapsed()).allowed())),
        ("mutex_map", Arc::new(move |key| naive.take(key, start.elapsed()))),
        ("governor", Arc::new(move |key| governor.check_key(&key).is_ok())),
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

fn limiter(criterion: &mut Criterion) {
    for count in [1u64, 1_000, 1_000_000] {
        let keys = keys(count);
        let mut group = criterion.benchmark_group(format!("limiter/{count}_keys"));
        for (name, take) in contenders(keys.len()) {
            // Every key is known before the clock starts: this measures requests, not first requests.
            for &key in keys.iter() {
                black_box(take(key));
            }
            let mut walk = keys.iter().cycle();
            group.bench_function(BenchmarkId::new(name, "1_thread"), |bencher| {
                bencher.iter(|| take(*walk.next().unwrap_or(&0)));
            });
            group.bench_function(BenchmarkId::new(name, "4_threads"), |bencher| {
                // Per request of one thread, so that a limiter that scales shows the same figure as on one thread.
                bencher.iter_custom(|iterations| run(&take, &keys, THREADS, iterations));
            });
        }
        group.finish();
    }
}

/// The cost of what all contenders share: reading the clock once.
fn clock(criterion: &mut Criterion) {
    let start = Instant::now();
    criterion.bench_function("limiter/clock_only", |bencher| bencher.iter(|| start.elapsed()));
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = settings(); targets = clock, limiter);
criterion_main!(benches);
