//! `p2c_ewma`: of two drawn by chance, the one with the lower latency times requests under way.

use std::{sync::Arc, time::Duration};

use pingora_load_balancing::Backends;

use super::{Accept, Balancer};
use crate::{
    resilience::cost,
    upstream::{backend::Backend, choice::Choice},
};

pub(crate) struct P2cEwma;

impl P2cEwma {
    pub(super) fn new(_: Backends) -> Self {
        Self
    }
}

impl Balancer for P2cEwma {
    fn wants_latency(&self) -> bool {
        true
    }

    fn choose(&self, all: &[Arc<Backend>], choice: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        two_choices(all, choice.now, accept)
    }
}

/// Of two backends drawn by chance, the one where a request costs less. Two are enough to avoid the slow and the
/// crowded, and too few for every gateway to run to the same best one.
fn two_choices(all: &[Arc<Backend>], now: Duration, accept: &Accept<'_>) -> Option<Arc<Backend>> {
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
    // One that has not answered yet, or not lately, is taken to be as slow as the others are on average: neither shunned nor rushed.
    let known: Vec<Duration> = usable.iter().filter_map(|backend| backend.latency.value_at(now)).collect();
    let average = known.iter().sum::<Duration>() / u32::try_from(known.len().max(1)).unwrap_or(u32::MAX);
    let of = |backend: &Backend| {
        let latency = backend.latency.value_at(now).unwrap_or(average).max(Duration::from_micros(1));
        cost(latency, backend.in_flight(), backend.weight)
    };
    Some(Arc::clone(if of(second) < of(first) { second } else { first }))
}
