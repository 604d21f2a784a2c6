//! `discovery:` of a service: how its backends are found, beyond addresses that stand in the YAML.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    time::SystemTime,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, rdata::SRV},
    },
};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    lookup::{Answer, Dns, Lookup, Question, Target},
    url::BackendUrl,
    watch,
};
use crate::units::Span;

/// `discovery:` of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// What the names in `urls` are: hosts with addresses (`a`, the default), or SRV records (`srv`), which also tell
    /// port and weight; of those, the ones with the lowest priority are used.
    pub dns: Dns,
    /// Time between two looks at names; sooner when a record's time to live ends. Default 30s.
    pub every: Span,
    /// A name server to ask, such as `127.0.0.1:8600`. Default: the system's.
    pub resolver: Option<String>,
    /// A file with further backends, one a line: a URL, and a weight if it is not 1. A change is taken up when the file
    /// has settled: nothing has been written for half a second, or for two if its last line is not complete. A file
    /// without any backend changes nothing.
    pub file: Option<String>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { dns: Dns::A, every: Span(std::time::Duration::from_secs(30)), resolver: None, file: None }
    }
}

/// So many wrong lines of a file are told one by one.
const WRONG: usize = 10;

/// Looks up names and reads the file of backends, as `discovery:` says.
pub(crate) struct Discovery {
    pub(crate) config: DiscoveryConfig,
    /// Made when it is needed, and again when the system's configuration has changed: at boot, or in another network.
    resolver: Mutex<Option<(SystemStamp, TokioResolver)>>,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl Discovery {
    pub(crate) fn new(config: DiscoveryConfig) -> Self {
        Self { config, resolver: Mutex::new(None) }
    }

    /// The backends in the file, beside those that are `fixed`.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub(crate) fn read_file(&self, fixed: &[BackendUrl]) -> Result<Vec<BackendUrl>, Vec<String>> {
        let Some(path) = &self.config.file else { return Ok(Vec::new()) };
        let text = watch::read_settled(path.as_ref()).map_err(|e| vec![format!("cannot read '{path}': {e}")])?;
        self.parse(&text, fixed)
    }

    /// The backends in the text of the file, beside those that are `fixed`.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub(crate) fn parse(&self, text: &str, fixed: &[BackendUrl]) -> Result<Vec<BackendUrl>, Vec<String>> {
        let path = self.config.file.as_deref().unwrap_or_default();
        let (mut urls, mut wrong) = (Vec::new(), Vec::new());
        // In which line each place stands; in none, when it is fixed.
        let place = |url: &BackendUrl| (url.host.clone(), url.port);
        let known = fixed.iter().map(|url| (place(url), (None, url.clone())));
        let mut places: HashMap<(String, u16), (Option<usize>, BackendUrl)> = known.collect();
        // Some editors begin a file with a byte order mark.
        for (line, number) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().zip(1..) {
            let whole = line;
            let line = line.split('#').next().unwrap_or_default().trim();
            match line_url(line) {
                Ok(None) => {}
                Ok(Some(url)) => match places.entry(place(&url)) {
                    Entry::Vacant(entry) => {
                        entry.insert((Some(number), url.clone()));
                        urls.push(url);
                    }
                    // The same line twice says nothing new.
                    Entry::Occupied(first) if first.get().1 == url => {}
                    Entry::Occupied(first) => {
                        let (place, first) = (url.authority(), first.get().0);
                        let first = first.map_or_else(|| "in 'urls'".to_owned(), |line| format!("in line {line}"));
                        let twice = format!("'{place}' is listed twice, and otherwise (first {first})");
                        wrong.push(format!("{path}:{number}: {twice}: leave one of them out"));
                    }
                },
                // What stands before an '@' may be a password, and what was cut off may belong to it.
                Err(_) if whole.contains('@') => wrong.push(format!("{path}:{number}: {EXPECTED}")),
                Err(message) => wrong.push(format!("{path}:{number}: {message}")),
            }
        }
        // A file of another kind is wrong in each line.
        if wrong.len() > WRONG {
            let more = wrong.len() - WRONG;
            wrong.truncate(WRONG);
            wrong.push(format!("{path}: and {more} lines more are wrong"));
        }
        if wrong.is_empty() { Ok(urls) } else { Err(wrong) }
    }

    /// Looks up a name: addresses, or the services that its SRV records name.
    pub(crate) async fn lookup(&self, question: &Question) -> Result<Lookup, String> {
        let name = question.name.as_str();
        match question.kind {
            Dns::Srv => self.services(name).await,
            Dns::A if self.config.resolver.is_some() || self.config.dns == Dns::Srv => self.addresses(name).await,
            Dns::A => {
                let found = tokio::net::lookup_host((name, 0)).await.map_err(|e| e.to_string())?;
                let answer = one_family(found.map(|address| address.ip()).collect());
                Ok(Lookup { answer, until: None, useless: Vec::new() })
            }
        }
    }

    async fn services(&self, name: &str) -> Result<Lookup, String> {
        let answer = self.resolver()?.srv_lookup(name).await.map_err(|e| failure(&e))?;
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service),
            _ => None,
        });
        let (targets, useless) = usable(records);
        if targets.is_empty() {
            let none = || "no backend in the answer".to_owned();
            return Err(useless.into_iter().reduce(|all, part| format!("{all}; {part}")).unwrap_or_else(none));
        }
        Ok(Lookup { answer: Answer::Services(targets), until: Some(answer.valid_until().into()), useless })
    }

    async fn addresses(&self, name: &str) -> Result<Lookup, String> {
        let answer = self.resolver()?.lookup_ip(name).await.map_err(|e| failure(&e))?;
        let until = Some(answer.valid_until().into());
        Ok(Lookup { answer: one_family(answer.iter().collect()), until, useless: Vec::new() })
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let found = system_stamp();
        let mut known = self.resolver.lock();
        if let Some((stamp, resolver)) = &*known
            && (*stamp == found || self.config.resolver.is_some())
        {
            return Ok(resolver.clone());
        }
        let resolver = self.make()?;
        *known = Some((found, resolver.clone()));
        Ok(resolver)
    }

    fn make(&self) -> Result<TokioResolver, String> {
        let mut builder = match self.config.resolver.as_deref().map(str::parse::<SocketAddr>) {
            Some(Ok(address)) => {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server.connections.iter_mut().for_each(|connection| connection.port = address.port());
                let config = ResolverConfig::from_name_servers(vec![server]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            _ => Resolver::builder_tokio().map_err(|e| e.to_string())?,
        };
        // `names.rs` knows for how long an answer holds, and when to ask again: also after none, and sooner than that.
        builder.options_mut().cache_size = 0;
        builder.build().map_err(|e| e.to_string())
    }
}

/// Why a name is not known. The resolver shows the question that was asked last, as its own types have it; the name is said
/// by whoever asked.
fn failure(error: &NetError) -> String {
    let code = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        NetError::Timeout => return "the name server does not answer".to_owned(),
        other => return other.to_string(),
    };
    match code {
        ResponseCode::NXDomain => "the name server knows no such name".to_owned(),
        ResponseCode::NoError => "the name server knows the name, and no record of this kind".to_owned(),
        other => format!("the name server answers: {other}"),
    }
}

/// Which file the system's configuration is, and when it was written.
type SystemStamp = Option<(u64, SystemTime)>;

fn system_stamp() -> SystemStamp {
    let meta = std::fs::metadata("/etc/resolv.conf").ok()?;
    Some((meta.ino(), meta.modified().ok()?))
}

/// The backends among SRV records, and what is wrong with the others.
fn usable<'r>(records: impl Iterator<Item = &'r SRV>) -> (Vec<Target>, Vec<String>) {
    let (mut services, mut useless) = (Vec::new(), Vec::new());
    for service in records {
        let host = service.target.to_ascii().to_lowercase();
        let shown = host.trim_end_matches('.');
        if shown.is_empty() {
            useless.push("a record has the target '.': the service is not available there (RFC 2782)".to_owned());
        } else if service.port == 0 {
            useless.push(format!("the record of '{shown}' has port 0, which is nobody's"));
        } else {
            services.push((service, host));
        }
    }
    let lowest = services.iter().map(|(service, _)| service.priority).min();
    services.retain(|(service, _)| Some(service.priority) == lowest);
    let heaviest = services.iter().map(|(service, _)| service.weight).max().unwrap_or(1).max(1);
    let target = |(service, host): (&SRV, String)| {
        // Weights go up to 65535 there and up to 1000 here; 0 means "hardly ever".
        let weight = u32::from(service.weight);
        let weight = if heaviest > 1000 { weight * 1000 / u32::from(heaviest) } else { weight };
        Target { host, port: service.port, weight: usize::try_from(weight.max(1)).unwrap_or(1) }
    };
    let mut targets: Vec<Target> = services.into_iter().map(target).collect();
    // Name servers turn them round, which is no change.
    targets.sort_unstable();
    useless.sort_unstable();
    (targets, useless)
}

/// Of a name that has both, the IPv4 addresses. Name servers turn them round, which is no change.
fn one_family(mut all: Vec<IpAddr>) -> Answer {
    let four = all.iter().any(IpAddr::is_ipv4);
    all.retain(|address| address.is_ipv4() == four);
    all.sort_unstable();
    Answer::Addresses(all)
}

const EXPECTED: &str = "expected a URL, and a weight if it is not 1: write it like 'http://127.0.0.1:8081 3'";

fn line_url(line: &str) -> Result<Option<BackendUrl>, String> {
    let mut words = line.split_whitespace();
    let Some(url) = words.next() else { return Ok(None) };
    // The file may be another one, such as that of a key: nothing of it is repeated.
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| ["http", "https", "h2c"].contains(&scheme.to_ascii_lowercase().as_str())) {
        return Err(EXPECTED.to_owned());
    }
    let url: BackendUrl = url.parse()?;
    let weight = match words.next().map(str::parse::<usize>) {
        None => 1,
        Some(Ok(weight @ 1..=1000)) => weight,
        Some(_) => return Err("the weight is not a number from 1 to 1000".to_owned()),
    };
    if words.next().is_some() {
        return Err("expected a URL and a weight, nothing else".to_owned());
    }
    Ok(Some(BackendUrl { weight, ..url }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::upstream::url::BackendScheme;

    #[test]
    fn names_in_records_are_absolute() {
        let record = |priority, weight, port, name: &str| SRV::new(priority, weight, port, name.parse().unwrap());
        let records = [
            record(2, 9, 80, "later.test."),
            record(1, 60_000, 80, "Two.dots.test."),
            record(1, 30_000, 81, "one.test."),
            record(0, 1, 0, "none.test."),
            record(0, 1, 80, "."),
        ];
        let (targets, useless) = usable(records.iter());
        let of = |target: &Target| (target.host.clone(), target.port, target.weight);
        let expected = [("one.test.".to_owned(), 81, 500), ("two.dots.test.".to_owned(), 80, 1000)];
        assert_eq!(targets.iter().map(of).collect::<Vec<_>>(), expected);
        // Where it is shown, and in what is said to the backend, the final dot is left out.
        assert_eq!(targets[1].url(BackendScheme::Http).host, "two.dots.test");
        assert_eq!(useless.len(), 2, "{useless:?}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let discovery = Discovery::new(DiscoveryConfig::default());
        let found = discovery.parse("\u{feff}http://127.0.0.1:81\nhttp://127.0.0.1:82\n", &[]).unwrap();
        assert_eq!(found.iter().map(|url| url.port).collect::<Vec<_>>(), [81, 82]);
        assert!(discovery.parse("http://127.0.0.1:81\n\u{feff}http://127.0.0.1:82\n", &[]).is_err());
    }

    #[test]
    fn reads_lines() {
        assert_eq!(line_url(""), Ok(None));
        let url = line_url("http://a:80 3").ok().flatten();
        assert_eq!(url.map(|url| (url.host, url.weight)), Some(("a".to_owned(), 3)));
        for wrong in ["a:80", "http://a 0", "http://a x", "http://a 1 2"] {
            assert!(line_url(wrong).is_err(), "{wrong}");
        }
    }
}
