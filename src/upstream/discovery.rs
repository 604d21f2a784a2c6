//! `discovery:` of a service: how its backends are found, beyond addresses that stand in the YAML.

use std::{net::SocketAddr, sync::OnceLock};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::{url::BackendUrl, watch};
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

/// A kind of DNS record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dns {
    /// Addresses (A, AAAA).
    #[default]
    A,
    /// Services (RFC 2782).
    Srv,
}

/// So many wrong lines of a file are told one by one.
const WRONG: usize = 10;

/// Backends that a name stands for, and until when that holds.
pub(crate) struct Lookup {
    pub(crate) found: Vec<(BackendUrl, SocketAddr)>,
    pub(crate) until: Option<Instant>,
}

/// Looks up names and reads the file of backends, as `discovery:` says.
pub(crate) struct Discovery {
    pub(crate) config: DiscoveryConfig,
    /// Made at the first look: it reads the system's configuration.
    resolver: OnceLock<Result<TokioResolver, String>>,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl Discovery {
    pub(crate) fn new(config: DiscoveryConfig) -> Self {
        Self { config, resolver: OnceLock::new() }
    }

    /// The backends in the file.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub(crate) fn read_file(&self) -> Result<Vec<BackendUrl>, Vec<String>> {
        let Some(path) = &self.config.file else { return Ok(Vec::new()) };
        let text = watch::read_settled(path.as_ref()).map_err(|e| vec![format!("cannot read '{path}': {e}")])?;
        self.parse(&text)
    }

    /// The backends in the text of the file.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<BackendUrl>, Vec<String>> {
        let path = self.config.file.as_deref().unwrap_or_default();
        let (mut urls, mut wrong) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line_url(line) {
                Ok(Some(url)) if urls.contains(&url) => {}
                Ok(url) => urls.extend(url),
                Err(message) => wrong.push(format!("{path}:{}: {message}", number + 1)),
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
    pub(crate) async fn lookup(&self, url: &BackendUrl) -> Result<Lookup, String> {
        match self.config.dns {
            Dns::Srv => self.services(url).await,
            Dns::A if self.config.resolver.is_some() => self.addresses(url).await,
            Dns::A => {
                let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await.map_err(|e| e.to_string())?;
                Ok(Lookup { found: one_family(url, found.collect()), until: None })
            }
        }
    }

    async fn services(&self, url: &BackendUrl) -> Result<Lookup, String> {
        let answer = self.resolver()?.srv_lookup(url.host.as_str()).await.map_err(|e| e.to_string())?;
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some((service.priority, service.weight, service.port, service.target.to_utf8())),
            _ => None,
        });
        let records: Vec<_> = records.collect();
        let lowest = records.iter().map(|record| record.0).min();
        let heaviest = records.iter().map(|record| record.1).max().unwrap_or(1).max(1);
        let mut lookup = Lookup { found: Vec::new(), until: Some(answer.valid_until().into()) };
        // One that is gone takes no other with it.
        let mut failed = None;
        for (_, weight, port, target) in records.into_iter().filter(|record| Some(record.0) == lowest) {
            // Weights go up to 65535 there and up to 1000 here; 0 means "hardly ever".
            let weight = if heaviest > 1000 { u32::from(weight) * 1000 / u32::from(heaviest) } else { weight.into() };
            let weight = usize::try_from(weight.max(1)).unwrap_or(1);
            let host = target.trim_end_matches('.').to_owned();
            match self.addresses(&BackendUrl { scheme: url.scheme, host: host.clone(), port, weight }).await {
                Ok(of) => {
                    lookup.until = lookup.until.min(of.until.or(lookup.until));
                    lookup.found.extend(of.found);
                }
                Err(e) => failed = Some(format!("its target '{host}': {e}")),
            }
        }
        let none = || failed.unwrap_or_else(|| "no backend in the answer".to_owned());
        if lookup.found.is_empty() { Err(none()) } else { Ok(lookup) }
    }

    async fn addresses(&self, url: &BackendUrl) -> Result<Lookup, String> {
        if let Some(address) = url.address() {
            return Ok(Lookup { found: vec![(url.clone(), SocketAddr::new(address, url.port))], until: None });
        }
        let answer = self.resolver()?.lookup_ip(url.host.as_str()).await.map_err(|e| e.to_string())?;
        let found = answer.iter().map(|ip| SocketAddr::new(ip, url.port)).collect();
        Ok(Lookup { found: one_family(url, found), until: Some(answer.valid_until().into()) })
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        let made = self.resolver.get_or_init(|| {
            let builder = match self.config.resolver.as_deref().map(str::parse::<SocketAddr>) {
                Some(Ok(address)) => {
                    let mut server = NameServerConfig::udp_and_tcp(address.ip());
                    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
                    let config = ResolverConfig::from_name_servers(vec![server]);
                    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
                }
                _ => Resolver::builder_tokio().map_err(|e| e.to_string())?,
            };
            builder.build().map_err(|e| e.to_string())
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// Of a name that has both, the IPv4 addresses.
fn one_family(url: &BackendUrl, all: Vec<SocketAddr>) -> Vec<(BackendUrl, SocketAddr)> {
    let four = all.iter().any(SocketAddr::is_ipv4);
    all.into_iter().filter(|address| address.is_ipv4() == four).map(|address| (url.clone(), address)).collect()
}

fn line_url(line: &str) -> Result<Option<BackendUrl>, String> {
    let mut words = line.split_whitespace();
    let Some(url) = words.next() else { return Ok(None) };
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
    use super::*;

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
