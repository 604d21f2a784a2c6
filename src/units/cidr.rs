//! A network: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.

use std::{borrow::Cow, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// True when `address` lies within; an IPv4 address in IPv6 spelling counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net
            .map_err(|_| format!("'{text}' is not a network: write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1"))?;
        if net.trunc() != net {
            return Err(format!("'{text}' has bits beyond its prefix (did you mean '{}'?)", net.trunc()));
        }
        Ok(Self(net))
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A network (10.0.0.0/8, 2001:db8::/32) or one address." })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::Cidr;

    #[test]
    fn one_address_is_a_network_of_one() {
        let one: Cidr = "192.0.2.1".parse().unwrap();
        assert!(one.contains("192.0.2.1".parse().unwrap()) && !one.contains("192.0.2.2".parse().unwrap()));
        assert!("10.0.0.1/8".parse::<Cidr>().unwrap_err().contains("did you mean '10.0.0.0/8'"));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }
}
