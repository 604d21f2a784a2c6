//! `p2c_ewma`: of two drawn by chance, the one with the lower latency times requests under way.

use std::{sync::Arc, time::Duration};

use pingora_load_balancing::Backends;

use super::{Accept, Balancer};
use crate::{
    resilience::cost,
    upstream::{backend::Backend, backend_list::BackendList, choice::Choice},
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

    fn choose(&self, all: &BackendList, choice: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        two_choices(all, choice.now, accept)
    }
}

/// How often two are drawn of all, in the hope that both may be chosen, before it is looked which ones may.
const DRAWS: usize = 4;

/// Two different numbers below `count`, which is at least 2.
fn two_of(count: usize) -> (usize, usize) {
    let first = fastrand::usize(..count);
    (first, (first + fastrand::usize(1..count)) % count)
}

/// Two that may be chosen, without a look at all of them; nothing when chance does not give them.
fn quickly_drawn<'b>(all: &'b [Arc<Backend>], accept: &Accept<'_>) -> Option<(&'b Arc<Backend>, &'b Arc<Backend>)> {
    if all.len() < 2 {
        return None;
    }
    let draw = |_| two_of(all.len());
    let two = (0..DRAWS).map(draw).map(|(first, second)| (&all[first], &all[second]));
    two.into_iter().find(|(first, second)| accept(first) && accept(second))
}

/// The same after a look at all; the only one twice.
fn drawn_of_usable<'b>(all: &'b [Arc<Backend>], accept: &Accept<'_>) -> Option<(&'b Arc<Backend>, &'b Arc<Backend>)> {
    let usable: Vec<&Arc<Backend>> = all.iter().filter(|backend| accept(backend)).collect();
    match usable.as_slice() {
        [] => None,
        [only] => Some((only, only)),
        several => {
            let (first, second) = two_of(several.len());
            Some((several[first], several[second]))
        }
    }
}

/// Of two backends drawn by chance, the one where a request costs less. Two are enough to avoid the slow and the
/// crowded, and too few for every gateway to run to the same best one.
fn two_choices(all: &[Arc<Backend>], now: Duration, accept: &Accept<'_>) -> Option<Arc<Backend>> {
    let (first, second) = quickly_drawn(all, accept).or_else(|| drawn_of_usable(all, accept))?;
    // One that has not answered yet, or not lately, is taken to be as slow as the others are on average: neither shunned nor rushed.
    let average = || {
        let known = all.iter().filter(|backend| accept(backend)).filter_map(|backend| backend.latency.value_at(now));
        let (sum, count) = known.fold((Duration::ZERO, 0u32), |(sum, count), one| (sum + one, count + 1));
        sum / count.max(1)
    };
    let of = |backend: &Backend| {
        let latency = backend.latency.value_at(now).unwrap_or_else(average).max(Duration::from_micros(1));
        cost(latency, backend.in_flight(), backend.weight)
    };
    Some(Arc::clone(if of(second) < of(first) { second } else { first }))
}
