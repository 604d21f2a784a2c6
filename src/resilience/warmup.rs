//! Slow start: a backend that comes back gets its share of traffic little by little, while its caches fill.

use std::time::Duration;

/// The least share: without any traffic nothing warms up.
const LEAST: f64 = 0.1;

/// The part of its ordinary share that a backend gets, `since` it came back, when warming up takes `window`.
pub fn share(since: Duration, window: Duration) -> f64 {
    if since >= window {
        return 1.0;
    }
    LEAST + (1.0 - LEAST) * since.as_secs_f64() / window.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rises_from_a_tenth_to_all() {
        let s = Duration::from_secs;
        assert!((share(s(0), s(10)) - 0.1).abs() < 1e-9);
        assert!((share(s(5), s(10)) - 0.55).abs() < 1e-9);
        assert!((share(s(10), s(10)) - 1.0).abs() < 1e-9);
        assert!((share(s(0), s(0)) - 1.0).abs() < 1e-9, "no window, no slow start");
    }

    proptest! {
        #[test]
        fn never_falls(window: u32, a: u32, b: u32) {
            let (first, later) = (a.min(b), a.max(b));
            let at = |since: u32| share(Duration::from_millis(since.into()), Duration::from_millis(window.into()));
            prop_assert!(at(first) <= at(later) && (LEAST..=1.0).contains(&at(first)));
        }
    }
}
