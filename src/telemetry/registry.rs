//! How a metric is registered.

use prometheus::{Registry, core::Collector};

pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    // Names are constants of this file: a clash or a malformed name fails every test that starts anything.
    let metric = metric.unwrap_or_else(|e| panic!("metric definition: {e}"));
    registry.register(Box::new(metric.clone())).unwrap_or_else(|e| panic!("metric registration: {e}"));
    metric
}
