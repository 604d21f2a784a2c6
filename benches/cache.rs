//! The store in memory: what it really takes, and how often it has what is asked for.
//!
//! `cargo bench --bench cache` puts 10 GB of answers of 1 KB to 4 MB through a store of 64 MiB and reads what the process
//! takes, then runs two traces against the store and against an exact LRU of the same size: requests by Zipf's law, and the
//! same with scans of what is never asked for again. `TOLLGATE_BENCH_GB=1` makes it shorter.

#![expect(clippy::print_stdout, reason = "a report")]

use std::{
    collections::{BTreeMap, HashMap},
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tollgate::{
    cache::{
        body::Body,
        config::CacheConfig,
        draft::Draft,
        freshness::Times,
        held::Held,
        key::{Key, KeyParts, Keys},
        memory::Memory,
        policy::Policy,
        storable::Candidate,
    },
    clock::Now,
    message::reserved::ReservedHeaders,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LARGEST: u64 = 8 << 20;
const THREADS: u64 = 2;
/// Bytes a second: about what the gateway passes on with two cores. What an allocator keeps for a while grows with it.
const RATE: f64 = 5e8;

/// What is put through: the smallest and the largest object.
const SIZES: [(f64, f64); 3] = [(1e3, 4e6), (1e3, 1e5), (1e5, 4e6)];

/// Makes keys and entries.
struct Maker {
    keys: Keys,
    policy: Policy,
    fields: HeaderMap,
    reserved: ReservedHeaders,
    now: Now,
}

impl Maker {
    fn new() -> Self {
        let policy = serde_yaml::from_str::<CacheConfig>("{}").ok().and_then(|config| config.policy().ok());
        let fields = [
            (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        ];
        Self {
            keys: Keys::default(),
            policy: policy.expect("a cache without settings"),
            fields: fields.into_iter().collect(),
            reserved: ReservedHeaders::default(),
            now: Now::read(),
        }
    }

    fn key(&self, number: u64) -> Key {
        let (path, request) = (format!("/objects/{number}"), HeaderMap::new());
        self.keys.key(&KeyParts {
            route: 1,
            policy: &self.policy,
            secure: false,
            host: "bench.test",
            path: &path,
            spelled: None,
            query: None,
            identity: &[],
            request: &request,
            told: &[],
        })
    }

    fn store(&self, memory: &Memory, key: &Key, body: &[u8]) {
        let request = HeaderMap::new();
        let candidate = Candidate {
            method: &Method::GET,
            request: &request,
            has_query: false,
            one_client: false,
            status: StatusCode::OK,
            response: &self.fields,
            times: Times { asked: self.now, answered: self.now },
            reserved: &self.reserved,
        };
        let entry = Draft::of(&candidate, &self.policy)
            .and_then(|draft| draft.with(Body::copied(&[body], &Held::default())))
            .expect("it may be kept");
        // What is too large for a shard is not kept.
        let _ = memory.insert(key, entry, memory.ticket());
    }
}

/// Bytes that the process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[expect(clippy::cast_precision_loss, reason = "ratios")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Puts so many bytes through a store of 64 MiB; objects are of every size between `smallest` and `largest`, as many of each
/// power of two.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes")]
fn memory(maker: &Maker, total: u64, smallest: f64, largest: f64) {
    const BUDGET: u64 = 64 << 20;
    let mut random = fastrand::Rng::with_seed(1);
    let source: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(largest as usize).collect();
    let memory = Memory::new(BUDGET, LARGEST);
    let before = resident();
    let (done, objects, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    // Connections of a gateway are served by several threads, and each has its part of the heap.
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let mut random = fastrand::Rng::with_seed(seed);
            let (memory, source, done, objects, most) = (&memory, &source, &done, &objects, &most);
            scope.spawn(move || {
                while done.load(Relaxed) < total {
                    let due = Duration::from_secs_f64(done.load(Relaxed) as f64 / RATE);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    let size = (smallest * (largest / smallest).powf(random.f64())) as usize;
                    let number = objects.fetch_add(1, Relaxed);
                    maker.store(memory, &maker.key(number), &source[..size]);
                    done.fetch_add(size as u64, Relaxed);
                    if number.is_multiple_of(64) || size > 100_000 {
                        most.fetch_max(resident().saturating_sub(before), Relaxed);
                    }
                }
            });
        }
    });
    let stats = memory.stats();
    let (done, objects, most) = (done.into_inner(), objects.into_inner(), most.into_inner());
    println!(
        "memory: {objects} objects of {:.0} KB to {:.0} KB, {:.1} GB in {:.1} s: resident at most {:.1} MiB, {:.3} of the budget (it counts {:.1} MiB)",
        smallest / 1e3,
        largest / 1e3,
        done as f64 / 1e9,
        begun.elapsed().as_secs_f64(),
        ratio(most, 1 << 20),
        ratio(most, BUDGET),
        ratio(stats.bytes, 1 << 20),
    );
}

/// The textbook: whatever was used longest ago goes first.
#[derive(Default)]
struct Lru {
    places: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    clock: u64,
}

impl Lru {
    /// True when it was there; now it is.
    fn ask(&mut self, key: u64, room: usize) -> bool {
        self.clock += 1;
        let before = self.places.insert(key, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, key);
        if self.places.len() > room
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.places.remove(&oldest);
        }
        before.is_some()
    }
}

/// Numbers by Zipf's law: `weights[n]` is the share of all up to the n-th.
fn zipf(count: u32, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut all: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    for share in &mut all {
        *share /= sum;
    }
    all
}

/// Runs a trace against both; `scan`: the share of requests for what is never asked for again.
fn hits(maker: &Maker, requests: u32, name: &str, exponent: f64, scan: f64) {
    const BODY: usize = 3 << 10;
    let shares = zipf(100_000, exponent);
    let mut random = fastrand::Rng::with_seed(7);
    let (memory, body) = (Memory::new(16 << 20, 1 << 20), vec![0; BODY]);
    // As many objects as the store has room for, with all that it counts.
    maker.store(&memory, &maker.key(u64::MAX), &body);
    let room = usize::try_from((16 << 20) / memory.stats().bytes.max(1)).unwrap_or(usize::MAX);
    let mut lru = Lru::default();
    let (mut ours, mut theirs, mut wanted, mut once) = (0u64, 0u64, 0u64, 1u64 << 32);
    for _ in 0..requests {
        let scanned = random.f64() < scan;
        let number = if scanned {
            once += 1;
            once
        } else {
            let share = random.f64();
            shares.partition_point(|upto| *upto < share) as u64
        };
        let key = maker.key(number);
        let hit = memory.get(&key).is_some();
        if !hit {
            maker.store(&memory, &key, &body);
        }
        let other = lru.ask(number, room);
        if !scanned {
            (ours, theirs, wanted) = (ours + u64::from(hit), theirs + u64::from(other), wanted + 1);
        }
    }
    println!(
        "hits: {name}, room for {room} of 100000: {:.1} % here, {:.1} % with LRU",
        100.0 * ratio(ours, wanted),
        100.0 * ratio(theirs, wanted)
    );
}

fn main() {
    // `cargo test` runs this too, to see that it runs.
    let short = !std::env::args().any(|argument| argument == "--bench");
    let gigabytes = std::env::var("TOLLGATE_BENCH_GB").ok().and_then(|text| text.parse::<u64>().ok());
    let total =
        gigabytes.map_or(if short { 100_000_000 } else { 10_000_000_000 }, |gigabytes| gigabytes * 1_000_000_000);
    let maker = Maker::new();
    // In a process of its own: what one leaves behind the next would find.
    if let Ok(which) = std::env::var("TOLLGATE_BENCH_SIZES") {
        let (smallest, largest) = SIZES[which.parse::<usize>().expect("the number of a line of SIZES")];
        return memory(&maker, total, smallest, largest);
    }
    for which in 0..SIZES.len() {
        let program = std::env::current_exe().expect("the name of this program");
        let mut run = Command::new(program);
        let run = run.args(std::env::args().skip(1)).env("TOLLGATE_BENCH_SIZES", which.to_string()).status();
        assert!(run.is_ok_and(|status| status.success()), "a run failed");
    }
    // Zipf's exponent of web traffic is between 0.6 and 1.
    let requests = if short { 20_000 } else { 1_000_000 };
    hits(&maker, requests, "Zipf 0.9", 0.9, 0.0);
    hits(&maker, requests, "Zipf 0.7", 0.7, 0.0);
    hits(&maker, requests, "Zipf 0.9, half of all requests a scan", 0.9, 0.5);
}
