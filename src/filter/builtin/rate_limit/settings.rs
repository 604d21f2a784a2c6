//! The settings of `rate_limit`, and the limits that they name.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::calendar_count::CalendarCount;
use crate::{
    filter::{Invalid, LimitNames, subject::KeyPart},
    limit::{CalendarQuota, Quota, SlidingWindow},
    message::reply::whole_seconds,
    store::{OnStoreDown, SyncMode},
    units::Rate,
    yaml::{FromShort, Short},
};

/// Settings of `rate_limit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimitSettings")]
pub(crate) struct RateLimitConfig {
    /// Requests per time, in the long run: `10/s`, `600/m`. There must be one of `rate`, `quota` and `limits`; of several,
    /// a request passes all or is charged to none.
    #[serde(default)]
    rate: Option<Rate>,
    /// Requests that may come at once. Default: the rate's count.
    #[serde(default)]
    burst: Option<u32>,
    /// How a rate is counted. Default `token_bucket`.
    #[serde(default)]
    algorithm: Option<Algorithm>,
    /// Requests in each second, minute, hour, day or month of the calendar (UTC): `10000/month`.
    #[serde(default)]
    quota: Option<CalendarCount>,
    /// More limits for the same requests.
    #[serde(default)]
    limits: Vec<Short<LimitConfig>>,
    /// What has a bucket of its own. Default `client_ip`.
    #[serde(default)]
    pub(super) by: Vec<KeyPart>,
    /// The limit's name in `RateLimit` headers. Default `default`; of several limits, also those of several filters of a route, those
    /// after the first are `default-2` and so on.
    #[serde(default)]
    name: Option<String>,
    /// Which headers tell the client. Default `both`.
    #[serde(default)]
    pub(super) headers: Announce,
    /// The most buckets to remember, for each limit. When they are all in use, the fullest is forgotten (and counted). Default 100000.
    #[serde(default = "default_buckets")]
    pub(super) max_buckets: usize,
    /// How many bits of an IPv6 address make one client. Default 64: a subscriber has at least a /64.
    #[serde(default = "default_prefix")]
    pub(super) ipv6_prefix: u8,
    /// Where it counts: `local` in this process, `strict` in Redis with a call for every request, `lease` in Redis with tokens
    /// that each gateway takes ahead. Default: with `redis` at the top of the file `lease` for one token bucket and `strict` for anything
    /// else, without it `local`.
    #[serde(default)]
    sync: Option<SyncMode>,
    /// What a limit in Redis does while Redis does not answer. Default `local_share`.
    #[serde(default)]
    pub(super) on_store_down: Option<OnStoreDown>,
}

/// One of several limits: a rate or a quota.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimitOfSeveral")]
struct LimitConfig {
    /// Requests per time, in the long run.
    #[serde(default)]
    rate: Option<Rate>,
    /// Requests that may come at once. Default: the rate's count.
    #[serde(default)]
    burst: Option<u32>,
    /// How a rate is counted. Default `token_bucket`.
    #[serde(default)]
    algorithm: Option<Algorithm>,
    /// Requests in each second, minute, hour, day or month of the calendar (UTC).
    #[serde(default)]
    quota: Option<CalendarCount>,
    /// Its name in `RateLimit` headers.
    #[serde(default)]
    name: Option<String>,
}

/// How a rate is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    /// A bucket of `burst` tokens that fills at the rate.
    TokenBucket,
    /// Two counters: this window's, and so much of the last one's as may still be in sight.
    SlidingWindow,
}

/// Which rate limit headers are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Announce {
    /// All of them.
    #[default]
    Both,
    /// `RateLimit` and `RateLimit-Policy`.
    Ietf,
    /// `X-RateLimit-*`.
    Legacy,
    /// None; a refusal still carries `Retry-After`. `off` says the same.
    #[serde(alias = "off")]
    None,
}

fn default_buckets() -> usize {
    100_000
}

fn default_prefix() -> u8 {
    64
}

impl FromShort for LimitConfig {
    const EXPECTED: &'static str = "a rate like 10/s, a quota like 10000/month, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        match (text.parse(), text.parse()) {
            (Ok(rate), _) => Ok(Self { rate: Some(rate), ..Self::default() }),
            (_, Ok(quota)) => Ok(Self { quota: Some(quota), ..Self::default() }),
            (Err(e), Err(_)) => Err(e),
        }
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<Rate>(), generator.subschema_for::<CalendarCount>()] })
    }
}

impl FromShort for RateLimitConfig {
    const EXPECTED: &'static str = "a rate like 10/s, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        let limit = LimitConfig::from_short(text)?;
        Ok(Self {
            rate: limit.rate,
            burst: None,
            algorithm: None,
            quota: limit.quota,
            limits: Vec::new(),
            by: Vec::new(),
            name: None,
            headers: Announce::default(),
            max_buckets: default_buckets(),
            ipv6_prefix: default_prefix(),
            sync: None,
            on_store_down: None,
        })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        LimitConfig::short_schema(generator)
    }
}

/// How one limit counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    Bucket(Quota),
    Window(SlidingWindow),
    Calendar(CalendarQuota),
}

impl Counted {
    /// The most that can pass at once, and the time in seconds in which that comes back.
    pub(super) fn announced(&self) -> (u32, u64) {
        match self {
            // As it was written: what comes back is counted in tokens of whole nanoseconds.
            Self::Bucket(quota) => {
                let nanos = u128::from(quota.burst()) * quota.per().as_nanos();
                let seconds = nanos.div_ceil(u128::from(quota.count()) * 1_000_000_000).max(1);
                (quota.burst(), u64::try_from(seconds).unwrap_or(u64::MAX))
            }
            Self::Window(window) => (window.count(), whole_seconds(window.per())),
            Self::Calendar(quota) => (quota.count(), quota.per().seconds()),
        }
    }
}

/// One limit, and its name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) counted: Counted,
}

impl RateLimitConfig {
    /// Every limit that it names, in the order of the keys; what is wrong goes to `invalid`. `names`: those of the route's limits so
    /// far, to which these are added.
    pub(super) fn limits(&self, names: &mut LimitNames, invalid: &mut Invalid) -> Vec<Named> {
        let mut named = Vec::new();
        let before = invalid.0.len();
        let mut add = |at: &str, name: Option<&str>, counted: Option<Counted>, invalid: &mut Invalid| {
            let Some(counted) = counted else { return };
            let name = match (name, &self.name, named.len()) {
                (Some(name), ..) => name.to_owned(),
                (None, Some(base), 0) => base.clone(),
                (None, Some(base), place) => format!("{base}-{}", place + 1),
                (None, None, place) => unused(&names.taken, names.unnamed + place),
            };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                invalid.push(format!("{at}name"), format!("'{name}' is not a name of letters, digits and -_."));
            } else if names.taken.contains(&name) {
                let message = format!("another limit of this route is called '{name}': name one of them");
                invalid.push(format!("{at}name"), message);
            }
            names.taken.push(name.clone());
            named.push(Named { name, counted });
        };
        let counted = rate("", self.rate, self.burst, self.algorithm, invalid);
        add("", None, counted, invalid);
        add("", None, self.quota.map(|quota| Counted::Calendar(quota.0)), invalid);
        for (i, Short(limit)) in self.limits.iter().enumerate() {
            let at = format!("limits[{i}].");
            if limit.rate.is_some() == limit.quota.is_some() {
                let message = "one limit of a list is a 'rate' or a 'quota': write two of them";
                invalid.push(at.trim_end_matches('.'), message);
                continue;
            }
            let counted = rate(&at, limit.rate, limit.burst, limit.algorithm, invalid);
            let counted = counted.or(limit.quota.map(|quota| Counted::Calendar(quota.0)));
            add(&at, limit.name.as_deref(), counted, invalid);
        }
        if self.name.is_none() {
            names.unnamed += named.len();
        }
        if named.is_empty() && invalid.0.len() == before {
            let message = "there is no limit: write 'rate: 10/s', 'quota: 10000/month', or a list of 'limits'";
            invalid.push("", message);
        }
        named
    }

    /// Where it counts. `bucket`: it is one token bucket.
    pub(super) fn sync(&self, bucket: bool, redis: bool, invalid: &mut Invalid) -> SyncMode {
        if matches!(self.sync, Some(SyncMode::Strict | SyncMode::Lease)) && !redis {
            let message = "there is no 'redis' at the top of the file, in which gateways would count together: add it (redis: { url: \"redis://host:6379\" }), or write 'local'";
            invalid.push("sync", message);
        }
        if self.sync == Some(SyncMode::Lease) && !bucket {
            let message = "only one token bucket alone can be leased: several limits, sliding windows and quotas in Redis are 'strict'";
            invalid.push("sync", message);
        }
        let shared = if bucket { SyncMode::Lease } else { SyncMode::Strict };
        let sync = self.sync.unwrap_or(if redis { shared } else { SyncMode::Local });
        if sync == SyncMode::Local && self.on_store_down.is_some() {
            invalid.push("on_store_down", "has no effect on a limit that counts in this process: leave it out");
        }
        sync
    }
}

/// The name of a limit that has none: `default`, or by its place among those of filters without a name.
fn unused(taken: &[String], place: usize) -> String {
    let name = |place: usize| if place == 0 { "default".to_owned() } else { format!("default-{}", place + 1) };
    (place..=place + taken.len()).map(name).find(|name| !taken.contains(name)).unwrap_or_default()
}

/// The limit of a rate, if there is one.
fn rate(
    at: &str,
    rate: Option<Rate>,
    burst: Option<u32>,
    algorithm: Option<Algorithm>,
    invalid: &mut Invalid,
) -> Option<Counted> {
    let Some(rate) = rate else {
        for (key, set) in [("burst", burst.is_some()), ("algorithm", algorithm.is_some())] {
            if set {
                invalid.push(format!("{at}{key}"), "has no effect without a 'rate': leave it out");
            }
        }
        return None;
    };
    let sliding = algorithm == Some(Algorithm::SlidingWindow);
    if sliding && burst.is_some() {
        invalid.push(format!("{at}burst"), "a sliding window has no burst: leave it out");
    }
    let counted = if sliding {
        SlidingWindow::new(rate.count, rate.per).map(Counted::Window)
    } else {
        Quota::new(rate.count, rate.per, burst.unwrap_or(rate.count)).map(Counted::Bucket)
    };
    let key = if burst == Some(0) { format!("{at}burst") } else { at.trim_end_matches('.').to_owned() };
    counted.map_err(|e| invalid.push(key, e.to_string())).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn limits(yaml: &str) -> (Vec<String>, Vec<(String, String)>) {
        limits_after(&mut LimitNames::default(), yaml)
    }

    fn limits_after(names: &mut LimitNames, yaml: &str) -> (Vec<String>, Vec<(String, String)>) {
        let config: RateLimitConfig = serde_json::from_value(serde_json::from_str(yaml).unwrap()).unwrap();
        let mut invalid = Invalid::default();
        let named = config.limits(names, &mut invalid);
        (named.into_iter().map(|limit| limit.name).collect(), invalid.0)
    }

    #[test]
    fn every_limit_has_a_name_of_its_own() {
        let (names, wrong) = limits(
            r#"{"rate": "1/s", "quota": "9/day", "limits": ["5/m", "7/month", {"rate": "9/h", "name": "hourly"}]}"#,
        );
        assert_eq!((names.join(" "), wrong), ("default default-2 default-3 default-4 hourly".to_owned(), vec![]));
        let (_, wrong) = limits(r#"{"limits": ["1/s", {"quota": "2/day", "name": "default"}]}"#);
        assert_eq!(wrong[0].0, "limits[1].name");
    }

    #[test]
    fn filters_of_a_route_do_not_share_names() {
        let taken = &mut LimitNames::default();
        for (yaml, expected) in [
            (r#"{"rate": "1/s"}"#, "default"),
            (r#"{"rate": "1/s", "quota": "9/day"}"#, "default-2 default-3"),
            (r#"{"rate": "1/s", "quota": "9/day", "name": "api"}"#, "api api-2"),
            (r#"{"rate": "1/s", "name": "default-4"}"#, "default-4"),
            (r#"{"rate": "1/s"}"#, "default-5"),
        ] {
            let (names, wrong) = limits_after(taken, yaml);
            assert_eq!((names.join(" "), wrong), (expected.to_owned(), vec![]), "{yaml}");
        }
        for yaml in [r#"{"rate": "2/s", "name": "api"}"#, r#"{"rate": "2/s", "name": "default"}"#] {
            let (_, wrong) = limits_after(taken, yaml);
            assert_eq!(wrong[0].0, "name", "{yaml}");
        }
    }

    #[test]
    fn what_is_announced_is_what_was_written() {
        for (count, seconds, burst, announced) in
            [(7, 60, 7, 60), (7, 3600, 7, 3600), (11, 1, 11, 1), (1, 60, 2, 120), (10, 1, 1, 1), (3, 10, 4, 14)]
        {
            let quota = Quota::new(count, std::time::Duration::from_secs(seconds), burst).unwrap();
            assert_eq!(Counted::Bucket(quota).announced(), (burst, announced), "{count} in {seconds} s");
        }
    }

    #[test]
    fn settings_without_effect_are_mistakes() {
        for (yaml, key) in [
            ("{}", ""),
            (r#"{"burst": 3}"#, "burst"),
            (r#"{"quota": "3/day", "algorithm": "sliding_window"}"#, "algorithm"),
            (r#"{"rate": "3/s", "algorithm": "sliding_window", "burst": 4}"#, "burst"),
            (r#"{"rate": "200000/s", "algorithm": "sliding_window"}"#, ""),
            (r#"{"limits": [{"rate": "3/s", "quota": "3/day"}]}"#, "limits[0]"),
            (r#"{"limits": [{"name": "none"}]}"#, "limits[0]"),
            (r#"{"limits": [{"rate": "3/s", "burst": 0}]}"#, "limits[0].burst"),
            (r#"{"limits": [{"quota": "3/day", "burst": 1}]}"#, "limits[0].burst"),
        ] {
            let (_, wrong) = limits(yaml);
            assert_eq!((wrong.len(), wrong[0].0.as_str()), (1, key), "{yaml}: {wrong:?}");
        }
        for text in ["", "3", "0/day", "3/d", "3/days", "-1/day", "4294967296/day"] {
            assert!(text.parse::<CalendarCount>().unwrap_err().contains("10000/month"), "{text}");
        }
    }
}
