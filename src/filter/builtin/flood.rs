//! `flood`: addresses that send far more than anybody should are refused before anything dear is done for them.
//!
//! YAML: `flood: 500/s` or `flood: { rate: 500/s, others: 100000 }`, first among a route's filters. Counting is pingora-limits'
//! `Rate`: four rows of counters, of fixed size, for any number of clients, that begin anew with each interval. It can count too high, when
//! others share a counter in every row; so it is no limit, which is `rate_limit`, and wants no exact number. What is refused is counted, too: whoever
//! floods is refused until it sends less.
//!
//! # Whom it may hit
//!
//! A row has as many counters as `others` send requests in an interval, so that one of them is hit by one request of somebody else on
//! average, and by more than 10 once in 100 million times; that all four of a client are is out of the question (1e-32). Hence a
//! client that stays 10 below the rate is not refused, whoever the others are. Three times as many others still leave it at 1e-14.
//! The crate's own size, 4 x 1024, would add some 90 to everybody with 100,000 others.

use std::{fmt, net::IpAddr, time::Duration};

use async_trait::async_trait;
use http::StatusCode;
use pingora_limits::rate::Rate as Sketch;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, env::schema_of},
    limit::{KeyHasher, KeySink as _},
    message::{reason::Reason, reply::Reply},
    units::Rate,
    yaml::{FromShort, Short},
};

/// Rows of counters: a client's count is the smallest of as many.
const ROWS: usize = 4;

/// So much a count may be too high.
const ERROR: u32 = 10;

/// Settings of `flood`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FloodSettings")]
pub(crate) struct FloodConfig {
    /// What nobody should send: `500/s`. The time is from 1s to 1h, the count at least 20; an address that stays 10 below it is never refused.
    rate: Rate,
    /// Requests that all other clients send in that time, together. Each takes 64 bytes. Default 100000.
    #[serde(default = "default_others")]
    others: usize,
    /// How many bits of an IPv6 address make one client. Default 64.
    #[serde(default = "default_prefix")]
    ipv6_prefix: u8,
}

fn default_others() -> usize {
    100_000
}

fn default_prefix() -> u8 {
    64
}

impl FromShort for FloodConfig {
    const EXPECTED: &'static str = "a rate like 500/s, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { rate: text.parse()?, others: default_others(), ipv6_prefix: default_prefix() })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Rate>()
    }
}

pub(crate) struct Flood {
    most: isize,
    per: Duration,
    counters: usize,
    hasher: KeyHasher,
    sketch: Sketch,
}

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.hasher.ipv6_bits();
        write!(f, "Flood {{ {}/{:?}, {} counters, ipv6 /{bits} }}", self.most, self.per, self.counters)
    }
}

impl Flood {
    fn new(rate: Rate, others: usize, hasher: KeyHasher) -> Self {
        let counters = others.next_power_of_two();
        let sketch = Sketch::new_with_estimator_config(rate.per, ROWS, counters);
        Self { most: isize::try_from(rate.count).unwrap_or(isize::MAX), per: rate.per, counters, hasher, sketch }
    }

    /// Counts a request; whether it is one too many.
    fn is_too_much(&self, client: IpAddr) -> bool {
        let mut key = self.hasher.key("");
        key.ip(client);
        self.sketch.observe(&key.finish(), 1) > self.most
    }
}

impl Configure for Flood {
    const NAME: &'static str = "flood";
    const SAMPLES: [&'static str; 2] =
        ["{ rate: '600/s', others: 3000, ipv6_prefix: 56 }", "{ rate: '700/s', others: 9000, ipv6_prefix: 48 }"];
    type Config = Short<FloodConfig>;

    fn configure(Short(config): Short<FloodConfig>, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if config.rate.count < 2 * ERROR {
            let message = format!("counts may be {ERROR} too high here: at least {} (rate_limit is exact)", 2 * ERROR);
            invalid.push("rate", message);
        }
        // The crate's own arithmetic does not stand shorter ones, and counts milliseconds.
        if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&config.rate.per) {
            invalid.push("rate", "the time must be from 1s to 1h");
        }
        if !(1_000..=4_000_000).contains(&config.others) {
            invalid.push("others", format!("{} is not a number from 1000 to 4000000", config.others));
        }
        if !(1..=128).contains(&config.ipv6_prefix) {
            invalid.push("ipv6_prefix", format!("{} is not a prefix from 1 to 128", config.ipv6_prefix));
        }
        invalid.into_result()?;
        Ok(Self::new(config.rate, config.others, env.tables.hasher().clone().ipv6_prefix(config.ipv6_prefix)))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Short<FloodConfig>>(generator)
    }
}

#[async_trait]
impl Filter for Flood {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        if !self.is_too_much(exchange.state.client) {
            return Ok(Flow::Next);
        }
        let detail = "far too many requests from this address";
        let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, detail)
            .because(Reason::RateLimited)
            .kind("https://iana.org/assignments/http-problem-types#abnormal-usage-detected", None);
        Ok(reply.retry_after(self.per).into())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::net::Ipv4Addr;

    use super::*;

    fn flood(rate: &str, others: usize) -> Flood {
        Flood::new(rate.parse().unwrap(), others, KeyHasher::new())
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0b00_0000 + number).into()
    }

    #[test]
    fn a_hundred_thousand_others_get_no_innocent_client_refused() {
        let flood = flood("20/h", 100_000);
        for number in 0..100_000 {
            assert!(!flood.is_too_much(address(number)), "one request of its own");
        }
        // Clients that were never seen, at 10 below the rate.
        for number in 200_000..202_000 {
            assert!((0..10).all(|_| !flood.is_too_much(address(number))), "{number}");
        }
        // One that floods is refused, and harms nobody.
        let passed = (0..100_000).filter(|_| !flood.is_too_much(address(500_000))).count();
        assert!((10..=20).contains(&passed), "{passed}");
        assert!((300_000..302_000).all(|number| !flood.is_too_much(address(number))));
    }

    #[test]
    fn a_sketch_of_the_crates_own_size_would_have_hit_them() {
        let small = flood("20/h", 1_000);
        let refused = (0..100_000).filter(|&number| small.is_too_much(address(number))).count();
        assert!(refused > 50_000, "{refused}: then the size is no matter, and this file says something wrong");
    }
}
