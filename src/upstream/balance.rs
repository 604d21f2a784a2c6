//! Choosing among backends. Round robin, random and ketama hashing are Pingora's; it has neither least-connections nor
//! a choice by latency, and its selectors know nothing of ejection, breakers or what a request has tried, so that comes
//! in by its `select_with` predicate.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora_load_balancing::{
    Backend as LbBackend, Backends, LoadBalancer,
    discovery::ServiceDiscovery,
    selection::{Consistent, Random, RoundRobin},
};

use super::{
    backend::Backend,
    health::Probe,
    settings::service::{Balance, HashBy},
};
use crate::{
    message::fields,
    resilience::cost,
    upstream::{backend::Endpoints, choice::Choice},
};

/// So many candidates ketama looks at before giving up; it may need several steps per backend.
const STEPS: usize = 256;

pub(crate) enum Balancer {
    RoundRobin(LoadBalancer<RoundRobin>),
    Random(LoadBalancer<Random>),
    Hash(LoadBalancer<Consistent>, HashBy),
    Least(LoadBalancer<RoundRobin>, AtomicUsize),
    P2c(LoadBalancer<RoundRobin>),
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin(_) => f.write_str("RoundRobin"),
            Self::Random(_) => f.write_str("Random"),
            Self::Hash(_, by) => write!(f, "Hash({by:?})"),
            Self::Least(..) => f.write_str("Least"),
            Self::P2c(_) => f.write_str("P2c"),
        }
    }
}

/// Hands Pingora the backends that `pool.rs` found.
struct Known(Endpoints);

#[async_trait]
impl ServiceDiscovery for Known {
    async fn discover(&self) -> pingora::Result<(BTreeSet<LbBackend>, HashMap<u64, bool>)> {
        Ok((self.0.load().iter().map(|backend| for_pingora(backend)).collect(), HashMap::new()))
    }
}

fn for_pingora(backend: &Backend) -> LbBackend {
    LbBackend { addr: L4Address::Inet(backend.address), weight: backend.weight, ext: http::Extensions::new() }
}

impl Balancer {
    pub(crate) fn new(balance: &Balance, endpoints: Endpoints, probe: Option<Probe>) -> Self {
        let mut backends = Backends::new(Box::new(Known(endpoints)));
        if let Some(probe) = probe {
            backends.set_health_check(Box::new(probe));
        }
        match balance {
            Balance::RoundRobin => Self::RoundRobin(LoadBalancer::from_backends(backends)),
            Balance::Random => Self::Random(LoadBalancer::from_backends(backends)),
            Balance::LeastConnections => Self::Least(LoadBalancer::from_backends(backends), AtomicUsize::new(0)),
            Balance::P2cEwma => Self::P2c(LoadBalancer::from_backends(backends)),
            Balance::ConsistentHash(by) => Self::Hash(LoadBalancer::from_backends(backends), by.clone()),
        }
    }

    /// Pingora's view of the backends, for health checks.
    pub(crate) fn view(&self) -> &Backends {
        match self {
            Self::RoundRobin(lb) | Self::Least(lb, _) | Self::P2c(lb) => lb.backends(),
            Self::Random(lb) => lb.backends(),
            Self::Hash(lb, _) => lb.backends(),
        }
    }

    /// Takes over the backends as they are known now.
    pub(crate) async fn update(&self) -> pingora::Result<()> {
        match self {
            Self::RoundRobin(lb) | Self::Least(lb, _) | Self::P2c(lb) => lb.update().await,
            Self::Random(lb) => lb.update().await,
            Self::Hash(lb, _) => lb.update().await,
        }
    }

    /// True when it decides by latency.
    pub(crate) fn wants_latency(&self) -> bool {
        matches!(self, Self::P2c(_))
    }

    /// The next backend among those that `accept` takes.
    pub(crate) fn choose(
        &self,
        all: &[Arc<Backend>],
        choice: &Choice<'_>,
        accept: &dyn Fn(&Backend) -> bool,
    ) -> Option<Arc<Backend>> {
        let find = |wanted: &LbBackend| all.iter().find(|backend| wanted.addr.as_inet() == Some(&backend.address));
        let takes = |candidate: &LbBackend, _: bool| find(candidate).is_some_and(|backend| accept(backend));
        let found = |wanted: LbBackend| find(&wanted).cloned();
        let chance = || by_chance(all, accept);
        match self {
            // A further attempt takes no turn: with one of two backends down, every attempt that fails would take the
            // good one's, and every request would begin at the bad one.
            Self::RoundRobin(_) if !choice.tried.is_empty() => chance(),
            // One step: beyond it, Pingora's selectors forget weights, and a small backend would drown when a big one fails.
            Self::RoundRobin(lb) => lb.select_with(b"", 1, takes).and_then(found).or_else(chance),
            Self::Random(lb) => lb.select_with(b"", 1, takes).and_then(found).or_else(chance),
            Self::Hash(lb, by) => with_key(by, choice, |key| {
                lb.select_with(key, STEPS, takes).and_then(found).or_else(|| by_key(all, accept, key))
            }),
            Self::Least(_, turn) => least(all, turn.fetch_add(1, Ordering::Relaxed), accept),
            Self::P2c(_) => two_choices(all, accept),
        }
    }
}

/// Any backend, by weight.
fn by_chance(all: &[Arc<Backend>], accept: &dyn Fn(&Backend) -> bool) -> Option<Arc<Backend>> {
    let usable = || all.iter().filter(|backend| accept(backend));
    let weight: usize = usable().map(|backend| backend.weight).sum();
    let mut drawn = fastrand::usize(..weight.max(1));
    let chosen = usable().find(|backend| {
        let hit = drawn < backend.weight;
        drawn = drawn.saturating_sub(backend.weight);
        hit
    });
    chosen.cloned()
}

/// The backend that a key falls to when the ring has shown none in so many steps, because a heavy backend that is away
/// holds most of it: by rendezvous hashing, so that it is the same one for the same key in every process.
fn by_key(all: &[Arc<Backend>], accept: &dyn Fn(&Backend) -> bool, key: &[u8]) -> Option<Arc<Backend>> {
    let score = |backend: &Backend| {
        let mut hasher = DefaultHasher::new();
        (key, backend.address).hash(&mut hasher);
        // A number between 0 and 1, never 0 itself; divided by it, the weight gives each backend its share of the keys.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are plenty")]
        let drawn = ((hasher.finish() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        #[expect(clippy::cast_precision_loss, reason = "a weight is at most 1000")]
        let weight = backend.weight as f64;
        -drawn.ln() / weight
    };
    let usable = all.iter().filter(|backend| accept(backend));
    usable.min_by(|one, other| score(one).total_cmp(&score(other))).cloned()
}

/// The backend with the fewest requests per weight; `turn` decides between equals, or an idle service would send
/// everything to the first one.
fn least(all: &[Arc<Backend>], turn: usize, accept: &dyn Fn(&Backend) -> bool) -> Option<Arc<Backend>> {
    let start = turn % all.len().max(1);
    let (later, first) = all.split_at(start);
    // load/weight compared without division: a/wa < b/wb <=> a*wb < b*wa.
    let best = first.iter().chain(later).filter(|backend| accept(backend)).reduce(|best, next| {
        if (next.in_flight() + 1) * best.weight < (best.in_flight() + 1) * next.weight { next } else { best }
    });
    best.cloned()
}

/// Of two backends drawn by chance, the one where a request costs less. Two are enough to avoid the slow and the
/// crowded, and too few for every gateway to run to the same best one.
fn two_choices(all: &[Arc<Backend>], accept: &dyn Fn(&Backend) -> bool) -> Option<Arc<Backend>> {
    let usable: Vec<&Arc<Backend>> = all.iter().filter(|backend| accept(backend)).collect();
    let (first, second) = match usable.as_slice() {
        [] => return None,
        [only] => return Some(Arc::clone(only)),
        several => {
            let first = fastrand::usize(..several.len());
            let second = (first + fastrand::usize(1..several.len())) % several.len();
            (several[first], several[second])
        }
    };
    // One that has not answered yet is taken to be as slow as the others are on average: neither shunned nor rushed.
    let known: Vec<Duration> = usable.iter().filter_map(|backend| backend.latency.value()).collect();
    let average = known.iter().sum::<Duration>() / u32::try_from(known.len().max(1)).unwrap_or(u32::MAX);
    let of = |backend: &Backend| {
        let latency = backend.latency.value().unwrap_or(average).max(Duration::from_micros(1));
        cost(latency, backend.in_flight(), backend.weight)
    };
    Some(Arc::clone(if of(second) < of(first) { second } else { first }))
}

/// Calls `with` with what `by` looks at; a request that lacks it hashes as empty.
fn with_key<R>(by: &HashBy, choice: &Choice<'_>, with: impl FnOnce(&[u8]) -> R) -> R {
    match by {
        HashBy::ClientIp => match choice.client {
            std::net::IpAddr::V4(address) => with(&address.octets()),
            std::net::IpAddr::V6(address) => with(&address.octets()),
        },
        HashBy::Header(name) => with(choice.headers.get(name).map_or(b"", |value| value.as_bytes())),
        HashBy::Cookie(name) => with(fields::cookie(choice.headers, name).unwrap_or_default()),
        HashBy::Path => with(choice.path.as_bytes()),
    }
}
