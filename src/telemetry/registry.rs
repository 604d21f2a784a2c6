//! How metrics are registered, and how the series of things that are gone end. Each room has its own struct of families,
//! made of a [`Registry`]; the runtime puts them together.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, GenericCounterVec, GenericGaugeVec, MetricVec, MetricVecBuilder},
    proto::{Metric, MetricFamily},
};

/// The buckets that OpenTelemetry's semantic conventions name for `http.server.request.duration`.
pub(crate) const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Registers `metric`.
pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    // Names are constants of this program: a clash or a malformed name fails every test that starts anything.
    let metric = metric.unwrap_or_else(|e| panic!("metric definition: {e}"));
    registry.register(Box::new(metric.clone())).unwrap_or_else(|e| panic!("metric registration: {e}"));
    metric
}

/// A counter without labels.
pub(crate) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

/// A family of counters.
pub(crate) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, GenericCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge without labels.
pub(crate) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

/// A family of gauges.
pub(crate) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, GenericGaugeVec::new(Opts::new(name, help), labels))
}

/// A family of histograms with these bounds.
pub(crate) fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

/// The labels of a series, by name.
pub(crate) type Labels<'a> = HashMap<&'a str, &'a str>;

/// Ends the series of `family` that `keep` does not want, and returns what they were.
pub(crate) fn retain<B: MetricVecBuilder>(family: &MetricVec<B>, keep: &dyn Fn(&Labels<'_>) -> bool) -> Vec<Metric> {
    let mut gone = Vec::new();
    for series in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: Labels<'_> = series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if !keep(&labels) && family.remove(&labels).is_ok() {
            gone.push(series.clone());
        }
    }
    gone
}

/// A metric that is there from its first use on: ten thousand routes that nobody asks for cost no page of zeros, and a
/// configuration that is rejected leaves no trace.
#[derive(Clone)]
pub struct Lazy<M> {
    make: Arc<dyn Fn() -> M + Send + Sync>,
    made: OnceLock<M>,
}

impl<M> Lazy<M> {
    fn new(make: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), made: OnceLock::new() }
    }

    fn get(&self) -> &M {
        self.made.get_or_init(|| (self.make)())
    }

    /// Makes it, so that it shows as zero.
    pub fn show(&self) {
        self.get();
    }
}

impl Lazy<IntCounter> {
    /// A counter of `family` with these labels.
    pub(crate) fn of(family: &IntCounterVec, labels: &[&str]) -> Self {
        let (family, labels) = (family.clone(), labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
        Self::new(move || family.with_label_values(&labels))
    }

    /// What it has come to. Another clone may have counted, so it is made first.
    pub fn value(&self) -> u64 {
        self.get().get()
    }

    /// Counts one.
    pub fn inc(&self) {
        self.get().inc();
    }
}

impl Lazy<Histogram> {
    /// A histogram of `family` with these labels.
    pub(crate) fn histogram(family: &HistogramVec, labels: &[&str]) -> Self {
        let (family, labels) = (family.clone(), labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
        Self::new(move || family.with_label_values(&labels))
    }

    /// Takes a value in.
    pub fn observe(&self, value: f64) {
        self.get().observe(value);
    }
}

// Counters are not settings: what a Runtime shows of itself must not change with traffic.
impl<M> fmt::Debug for Lazy<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}
