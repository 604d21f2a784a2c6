//! Metrics of requests. Labels come from closed sets only: route, service, method class, status.
//!
//! Every child that the request path touches is resolved once and kept: a lookup by label values per request would
//! hash strings and take a lock.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry,
    core::Collector as _,
    proto::{Metric, MetricFamily},
};

use crate::{
    message::method_class::MethodClass,
    telemetry::{
        Lazy,
        registry::{BUCKETS, Labels, counter, counters, gauge, histograms, retain},
    },
};

/// The families of requests.
#[derive(Debug)]
pub struct RequestMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    success: IntCounter,
    errors: IntCounter,
    /// Requests that no route took.
    no_route: OnceLock<RouteMetrics>,
    /// Requests of routes that are gone, below 500 and not: totals must not fall.
    past: [AtomicU64; 2],
    /// Requests being served now.
    pub in_flight: IntGauge,
    /// Requests whose client went away before the answer was complete.
    pub canceled: IntCounter,
    /// Bytes of request bodies.
    pub received: IntCounter,
    /// Bytes of response bodies.
    pub sent: IntCounter,
}

/// The children of one route and its service.
pub struct RouteMetrics {
    requests: IntCounterVec,
    route: String,
    service: String,
    by_status: [OnceLock<Box<StatusCounters>>; MethodClass::COUNT],
    /// Seconds from the request's head to the end of the answer.
    pub duration: Lazy<Histogram>,
}

type StatusCounters = [OnceLock<IntCounter>; 500];

/// How many requests were answered: all, below 500, with 500 or above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// All of them.
    pub all: u64,
    /// Below 500.
    pub success: u64,
    /// 500 and above.
    pub errors: u64,
}

impl Totals {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    fn add(&mut self, series: &Metric) {
        let count = series.get_counter().get_value() as u64;
        let status = series.get_label().iter().find(|label| label.name() == "status");
        let failed = status.is_some_and(|label| label.value().starts_with('5'));
        self.all += count;
        *(if failed { &mut self.errors } else { &mut self.success }) += count;
    }
}

impl RequestMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let bytes = counters(r, "gateway_transferred_bytes_total", "Body bytes moved.", &["direction"]);
        let labels = ["route", "service", "method", "status"];
        Self {
            requests: counters(r, "gateway_requests_total", "Requests answered.", &labels),
            duration: histograms(
                r,
                "http_server_request_duration_seconds",
                "Time from a request's head to the end of its answer.",
                &labels[..2],
                BUCKETS,
            ),
            success: counter(r, "gateway_requests_success_total", "Requests answered below 500."),
            errors: counter(r, "gateway_requests_error_total", "Requests answered with 500 or above."),
            no_route: OnceLock::new(),
            past: Default::default(),
            in_flight: gauge(r, "gateway_requests_in_flight", "Requests being served now."),
            canceled: counter(r, "gateway_proxy_canceled_total", "Requests whose client went away early."),
            received: bytes.with_label_values(&["received"]),
            sent: bytes.with_label_values(&["sent"]),
        }
    }

    /// Counts a request that no route took.
    pub fn unrouted(&self, method: MethodClass, status: u16, duration: Duration) {
        let metrics = self.no_route.get_or_init(|| self.route(NONE, NONE));
        metrics.count(method, status);
        metrics.duration.observe(duration.as_secs_f64());
    }

    /// The children of a route. A reload asks again and gets the same counters.
    pub fn route(&self, route: &str, service: &str) -> RouteMetrics {
        let service = if service.is_empty() { NONE } else { service };
        RouteMetrics {
            requests: self.requests.clone(),
            route: route.to_owned(),
            service: service.to_owned(),
            by_status: std::array::from_fn(|_| OnceLock::new()),
            duration: Lazy::histogram(&self.duration, &[route, service]),
        }
    }

    /// Ends the series of routes that are gone.
    pub fn keep_routes(&self, keep: &dyn Fn(&str) -> bool) {
        let keep = |labels: &Labels<'_>| labels["route"] == NONE || keep(labels["route"]);
        let mut gone = Totals::default();
        for series in retain(&self.requests, &keep) {
            gone.add(&series);
        }
        retain(&self.duration, &keep);
        self.past[0].fetch_add(gone.success, Relaxed);
        self.past[1].fetch_add(gone.errors, Relaxed);
    }

    /// Sums over routes.
    pub fn totals(&self) -> Totals {
        let (success, errors) = (self.past[0].load(Relaxed), self.past[1].load(Relaxed));
        let mut totals = Totals { all: success + errors, success, errors };
        let families = self.requests.collect();
        for series in families.iter().flat_map(MetricFamily::get_metric) {
            totals.add(series);
        }
        totals
    }

    /// Requests answered, by route and service, and by the status' first digit: `2xx`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    pub fn by_route(&self) -> BTreeMap<(String, String), BTreeMap<String, u64>> {
        let mut all = BTreeMap::<_, BTreeMap<String, u64>>::new();
        let families = self.requests.collect();
        for series in families.iter().flat_map(MetricFamily::get_metric) {
            let labels: Labels<'_> = series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            let class = format!("{}xx", labels["status"].get(..1).unwrap_or_default());
            let route = all.entry((labels["route"].to_owned(), labels["service"].to_owned())).or_default();
            *route.entry(class).or_default() += series.get_counter().get_value() as u64;
        }
        all
    }

    /// Takes what is only known when somebody asks: a request then pays for one counter, not three.
    pub fn refresh(&self) {
        let Totals { success, errors, .. } = self.totals();
        self.success.inc_by(success.saturating_sub(self.success.get()));
        self.errors.inc_by(errors.saturating_sub(self.errors.get()));
    }
}

/// What requests are counted under that no route took, or that went to no service.
const NONE: &str = "none";

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
        let counters = self.by_status[method.index()].get_or_init(|| Box::new([const { OnceLock::new() }; 500]));
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

    use prometheus::{Encoder as _, TextEncoder};

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut out = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn counts_by_closed_labels_and_derives_totals() {
        let registry = Registry::new();
        let metrics = RequestMetrics::new(&registry);
        let route = metrics.route("users", "users");
        route.count(MethodClass::of("GET"), 200);
        route.count(MethodClass::of("BREW"), 503);
        metrics.refresh();
        let text = text(&registry);
        assert!(
            text.contains(r#"gateway_requests_total{method="OTHER",route="users",service="users",status="503"} 1"#)
        );
        assert!(text.contains("gateway_requests_success_total 1"), "{text}");
        assert_eq!(metrics.totals(), Totals { all: 2, success: 1, errors: 1 });
        let counts = &metrics.by_route()[&("users".to_owned(), "users".to_owned())];
        assert_eq!(*counts, [("2xx".to_owned(), 1), ("5xx".to_owned(), 1)].into());
    }

    #[test]
    fn a_route_that_nobody_asked_for_takes_no_room_and_one_that_is_gone_ends() {
        let registry = Registry::new();
        let metrics = RequestMetrics::new(&registry);
        let route = metrics.route("users", "users");
        assert!(!text(&registry).contains("users"));
        route.duration.observe(0.1);
        route.count(MethodClass::of("GET"), 502);
        metrics.unrouted(MethodClass::of("GET"), 404, Duration::ZERO);
        assert!(
            text(&registry).contains(r#"http_server_request_duration_seconds_count{route="users",service="users"} 1"#)
        );
        metrics.keep_routes(&|_| false);
        let shown = text(&registry);
        assert!(!shown.contains("users") && shown.contains(r#"route="none""#), "{shown}");
        assert_eq!(metrics.totals(), Totals { all: 2, success: 1, errors: 1 }, "totals do not fall");
    }
}
