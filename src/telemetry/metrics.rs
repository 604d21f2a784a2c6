//! Prometheus metrics. Labels come from closed sets only: route, service, backend, filter, method class, status.
//!
//! Every child that the request path touches is resolved once and kept: a lookup by label values per request would
//! hash strings and take a lock.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Collector, GenericCounterVec, GenericGaugeVec},
};

use super::{
    connections::ConnectionMetrics,
    service::{ServiceFamilies, ServiceMetrics},
};
use crate::telemetry::registry::register;

/// The buckets that OpenTelemetry's semantic conventions name for `http.server.request.duration`.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Methods as a label: the known ones, everything else as `OTHER`, so that a client cannot invent label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodClass(usize);

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER"];

impl MethodClass {
    /// The class of `method`.
    pub fn of(method: &str) -> Self {
        Self(METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1))
    }

    /// The label value.
    pub fn label(self) -> &'static str {
        METHODS[self.0]
    }
}

/// Every metric family of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Instant,
    requests: IntCounterVec,
    duration: HistogramVec,
    services: ServiceFamilies,
    limited: IntCounterVec,
    checks: IntCounterVec,
    refusals: IntCounterVec,
    faults: IntCounterVec,
    success: IntCounter,
    errors: IntCounter,
    success_rate: Gauge,
    uptime: Gauge,
    memory: IntGauge,
    /// Requests that no route took.
    no_route: OnceLock<RouteMetrics>,
    /// Requests being served now.
    pub in_flight: IntGauge,
    /// Requests whose client went away before the answer was complete.
    pub canceled: IntCounter,
    /// Client connections.
    pub connections: ConnectionMetrics,
    /// Access log lines lost.
    pub log_dropped: IntCounter,
    /// Rate limit buckets thrown out to stay within their number.
    pub evictions: IntCounter,
    /// Panics caught in request tasks.
    pub panics: IntCounter,
    /// Bytes of request and response bodies.
    pub received: IntCounter,
    /// Bytes of response bodies.
    pub sent: IntCounter,
}

/// The children of one route and its service.
pub struct RouteMetrics {
    requests: IntCounterVec,
    route: String,
    service: String,
    by_status: [OnceLock<Box<StatusCounters>>; METHODS.len()],
    /// Seconds from the request's head to the end of the answer.
    pub duration: Lazy<Histogram>,
    /// Refused by a rate limit.
    pub limited: Lazy<IntCounter>,
}

/// A metric that is there from its first use on: ten thousand routes that nobody asks for cost no page of zeros.
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
}

impl Lazy<IntCounter> {
    fn of(family: &IntCounterVec, labels: &[&str]) -> Self {
        let (family, labels) = (family.clone(), labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
        Self::new(move || family.with_label_values(&labels))
    }

    /// Counts one.
    pub fn inc(&self) {
        self.get().inc();
    }
}

impl Lazy<Histogram> {
    /// Takes a value in.
    pub fn observe(&self, value: f64) {
        self.get().observe(value);
    }
}

impl<M> fmt::Debug for Lazy<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}

type StatusCounters = [OnceLock<IntCounter>; 500];

impl Metrics {
    /// A fresh set; one per process, and one per test.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counter = |name: &str, help: &str| register(r, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register::<IntCounterVec>(r, GenericCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register::<IntGaugeVec>(r, GenericGaugeVec::new(Opts::new(name, help), labels))
        };
        let bytes = counters("gateway_transferred_bytes_total", "Body bytes moved.", &["direction"]);
        let build = gauges("gateway_build_info", "Always 1; the version is in the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let duration = HistogramOpts::new(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
        )
        .buckets(BUCKETS.to_vec());
        let limited_labels = ["route"];
        Arc::new(Self {
            started: Instant::now(),
            requests: counters(
                "gateway_requests_total",
                "Requests answered.",
                &["route", "service", "method", "status"],
            ),
            duration: register(r, HistogramVec::new(duration, &["route", "service"])),
            services: ServiceFamilies::new(r),
            limited: counters("gateway_rate_limited_total", "Requests refused by a rate limit.", &limited_labels),
            checks: counters("rate_limit_checks_total", "Rate limit decisions.", &["result"]),
            refusals: counters(
                "gateway_filter_refusals_total",
                "Requests that a filter answered.",
                &["route", "filter"],
            ),
            faults: counters(
                "gateway_filter_faults_total",
                "Filters that could not do their work.",
                &["route", "filter"],
            ),
            success: counter("gateway_requests_success_total", "Requests answered below 500."),
            errors: counter("gateway_requests_error_total", "Requests answered with 500 or above."),
            success_rate: register(
                r,
                Gauge::new("gateway_success_ratio", "Share of requests answered below 500, since the start."),
            ),
            uptime: register(r, Gauge::new("gateway_uptime_seconds", "Time since the start.")),
            memory: register(r, IntGauge::new("gateway_memory_alloc_bytes", "Resident memory of the process.")),
            received: bytes.with_label_values(&["received"]),
            sent: bytes.with_label_values(&["sent"]),
            in_flight: register(r, IntGauge::new("gateway_requests_in_flight", "Requests being served now.")),
            canceled: counter("gateway_proxy_canceled_total", "Requests whose client went away early."),
            connections: ConnectionMetrics::new(r),
            log_dropped: counter("gateway_access_log_dropped_total", "Access log lines lost."),
            evictions: counter("gateway_limiter_evictions_total", "Buckets evicted while still in use."),
            panics: counter("gateway_panics_total", "Panics caught."),
            no_route: OnceLock::new(),
            registry,
        })
    }

    /// Counts a request that no route took.
    pub fn unrouted(&self, method: MethodClass, status: u16, duration: std::time::Duration) {
        let metrics = self.no_route.get_or_init(|| self.route("none", ""));
        metrics.count(method, status);
        metrics.duration.observe(duration.as_secs_f64());
    }

    /// The children of a route. A reload asks again and gets the same counters.
    pub fn route(&self, route: &str, service: &str) -> RouteMetrics {
        RouteMetrics {
            requests: self.requests.clone(),
            route: route.to_owned(),
            service: service.to_owned(),
            by_status: std::array::from_fn(|_| OnceLock::new()),
            duration: {
                let (family, labels) = (self.duration.clone(), [route.to_owned(), service.to_owned()]);
                Lazy::new(move || family.with_label_values(&labels))
            },
            limited: Lazy::<IntCounter>::of(&self.limited, &[route]),
        }
    }

    /// The children of a service.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        self.services.of(service)
    }

    /// Requests that `filter` answered on `route`.
    pub fn refusals(&self, route: &str, filter: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.refusals, &[route, filter])
    }

    /// Times that `filter` failed on `route`.
    pub fn faults(&self, route: &str, filter: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.faults, &[route, filter])
    }

    /// Rate limit decisions: (allowed, refused).
    pub fn limit_checks(&self) -> (IntCounter, IntCounter) {
        (self.checks.with_label_values(&["allowed"]), self.checks.with_label_values(&["refused"]))
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// (all, below 500, 500 and above), summed over routes.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    pub fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for family in self.requests.collect() {
            for metric in family.get_metric() {
                let count = metric.get_counter().get_value() as u64;
                let status = metric.get_label().iter().find(|label| label.name() == "status");
                let failed = status.is_some_and(|label| label.value().starts_with('5'));
                totals.0 += count;
                *(if failed { &mut totals.2 } else { &mut totals.1 }) += count;
            }
        }
        totals
    }

    /// The text exposition of everything.
    pub fn render(&self) -> Vec<u8> {
        let (all, success, errors) = self.totals();
        // Derived at scrape time: a request then pays for one counter, not three.
        self.success.inc_by(success.saturating_sub(self.success.get()));
        self.errors.inc_by(errors.saturating_sub(self.errors.get()));
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        self.success_rate.set(if all == 0 { 1.0 } else { success as f64 / all as f64 });
        self.uptime.set(self.uptime());
        self.memory.set(i64::try_from(super::resident_bytes()).unwrap_or(i64::MAX));
        let mut out = Vec::with_capacity(16 << 10);
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            log::error!("metrics: {e}");
        }
        out
    }
}

// Counters are not settings: what a Runtime shows of itself must not change with traffic.
impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteMetrics({}, {})", self.route, self.service)
    }
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn count(&self, method: MethodClass, status: u16) {
        let slot = usize::from(status.clamp(100, 599) - 100);
        let counters = self.by_status[method.0].get_or_init(|| Box::new([const { OnceLock::new() }; 500]));
        let counter = counters[slot].get_or_init(|| {
            let status = (slot + 100).to_string();
            self.requests.with_label_values(&[&self.route, &self.service, method.label(), &status])
        });
        counter.inc();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn counts_by_closed_labels_and_derives_totals() {
        let metrics = Metrics::new();
        let route = metrics.route("users", "users");
        route.count(MethodClass::of("GET"), 200);
        route.count(MethodClass::of("BREW"), 503);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(
            text.contains(r#"gateway_requests_total{method="OTHER",route="users",service="users",status="503"} 1"#)
        );
        assert!(text.contains("gateway_requests_success_total 1"), "{text}");
        assert!(text.contains("gateway_success_ratio 0.5"));
        assert_eq!(metrics.totals(), (2, 1, 1));
    }

    #[test]
    fn a_route_that_nobody_asked_for_takes_no_room() {
        let metrics = Metrics::new();
        let route = metrics.route("users", "users");
        let (refusals, faults) = (metrics.refusals("users", "jwt"), metrics.faults("users", "jwt"));
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(!text.contains("users") && !text.contains("jwt"), "{text}");
        route.duration.observe(0.1);
        [&route.limited, &refusals, &faults].into_iter().for_each(Lazy::<IntCounter>::inc);
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            r#"http_server_request_duration_seconds_count{route="users",service="users"} 1"#,
            r#"gateway_rate_limited_total{route="users"} 1"#,
            r#"gateway_filter_refusals_total{filter="jwt",route="users"} 1"#,
            r#"gateway_filter_faults_total{filter="jwt",route="users"} 1"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
