//! `ip`: lets clients in by their address.
//!
//! YAML: `ip: { allow: [10.0.0.0/8, 2001:db8::/32], deny: [10.6.6.0/24] }`. `deny` wins; with an `allow` list,
//! whoever is not on it is refused. The address is the client's as trusted proxies tell it, never a header's word.

use std::net::IpAddr;

use async_trait::async_trait;
use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, env::schema_of},
    message::{reason::Reason, reply::Reply},
    units::Cidr,
};

/// Settings of `ip`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IpSettings")]
pub(crate) struct Config {
    /// Networks that may pass. Empty: everybody who is not denied.
    #[serde(default)]
    allow: Vec<Cidr>,
    /// Networks that may not.
    #[serde(default)]
    deny: Vec<Cidr>,
}

#[derive(Debug)]
pub(crate) struct Ip {
    allow: Box<[Cidr]>,
    deny: Box<[Cidr]>,
}

impl Ip {
    fn admits(&self, address: IpAddr) -> bool {
        let within = |networks: &[Cidr]| networks.iter().any(|network| network.contains(address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

impl Configure for Ip {
    const NAME: &'static str = "ip";
    const SAMPLES: [&'static str; 2] =
        ["{ allow: ['192.0.2.0/24'], deny: ['192.0.2.7'] }", "{ allow: ['192.0.3.0/24'], deny: ['192.0.2.8'] }"];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return Err(Invalid::at("", "neither 'allow' nor 'deny' is given: this step would do nothing"));
        }
        Ok(Self { allow: config.allow.into(), deny: config.deny.into() })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for Ip {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        if self.admits(exchange.state.client) {
            return Ok(Flow::Next);
        }
        Ok(Reply::problem(StatusCode::FORBIDDEN, "this address may not use this service")
            .because(Reason::AddressNotAllowed)
            .into())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn admits(allow: &[&str], deny: &[&str], address: &str) -> bool {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Ip { allow: list(allow), deny: list(deny) }.admits(address.parse().unwrap())
    }

    #[test]
    fn deny_wins_and_allow_closes_the_rest() {
        assert!(admits(&["10.0.0.0/8"], &[], "10.1.2.3"));
        assert!(!admits(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3"));
        assert!(!admits(&["10.0.0.0/8"], &[], "11.1.2.3"));
        assert!(admits(&[], &["10.0.0.0/8"], "2001:db8::1"));
        assert!(!admits(&[], &["10.0.0.0/8"], "::ffff:10.0.0.1"), "an IPv4 client in IPv6 spelling is the same client");
    }
}
