//! How many connections there are, in all and of one address.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, atomic::AtomicUsize},
};

use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::units::{CountPermit, Counter};

/// Counts connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    all: AtomicUsize,
    by_address: [Mutex<HashMap<IpAddr, u32, ahash::RandomState>>; 16],
    hasher: ahash::RandomState,
    gauge: Option<IntGauge>,
}

/// One connection more in all, until it is dropped.
pub(crate) type ConnectionPermit = CountPermit<Arc<ConnectionLimits>>;

/// One connection more of an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit(Arc<ConnectionLimits>, IpAddr);

impl ConnectionLimits {
    pub(crate) fn new(gauge: Option<IntGauge>) -> Arc<Self> {
        Arc::new(Self {
            all: AtomicUsize::new(0),
            by_address: Default::default(),
            hasher: ahash::RandomState::new(),
            gauge,
        })
    }

    /// A place for one more connection; `None` when there are `most` (0: no limit).
    pub(crate) fn permit(self: &Arc<Self>, most: u32) -> Option<ConnectionPermit> {
        let most = if most == 0 { usize::MAX } else { usize::try_from(most).unwrap_or(usize::MAX) };
        CountPermit::within(self.clone(), most)
    }

    /// A place for one more connection of `address`; `None` when it has `most`. An IPv6 network of 64 bits is one
    /// customer, and counts as one address, as in limits.
    pub(crate) fn address_permit(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressPermit> {
        let address = network(address);
        let mut counts = self.shard(address).lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPermit(self.clone(), address))
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, u32, ahash::RandomState>> {
        let hash = self.hasher.hash_one(address);
        &self.by_address[usize::try_from(hash % 16).unwrap_or(0)]
    }
}

/// The address itself, or the first 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        four @ IpAddr::V4(_) => four,
    }
}

impl Counter for ConnectionLimits {
    fn count(&self) -> &AtomicUsize {
        &self.all
    }

    fn taken(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
    }

    fn given_back(&self, _: usize) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.0.shard(self.1).lock().entry(self.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn counts_in_all_and_by_address() {
        let limits = ConnectionLimits::new(Some(IntGauge::new("a", "b").unwrap()));
        let (first, second) = (limits.permit(2).unwrap(), limits.permit(2).unwrap());
        assert!(limits.permit(2).is_none());
        assert!(limits.permit(0).is_some(), "0 is no limit");
        drop(first);
        assert!(limits.permit(2).is_some());
        drop(second);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let permit = limits.address_permit(a, 1).unwrap();
        assert!(limits.address_permit(a, 1).is_none() && limits.address_permit(b, 1).is_some());
        drop(permit);
        assert!(limits.address_permit(a, 1).is_some());
        assert_eq!(limits.gauge.as_ref().unwrap().get(), 0);
        assert!(limits.by_address.iter().all(|shard| shard.lock().is_empty()), "nothing is left behind");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let limits = ConnectionLimits::new(None);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let _one = limits.address_permit(ip("2001:db8::1"), 1).unwrap();
        assert!(limits.address_permit(ip("2001:db8::ffff:1"), 1).is_none());
        let _other = limits.address_permit(ip("2001:db8:0:1::1"), 1).unwrap();
        let _mapped = limits.address_permit(ip("::ffff:192.0.2.1"), 1).unwrap();
        assert!(
            limits.address_permit(ip("192.0.2.1"), 1).is_none() && limits.address_permit(ip("192.0.2.2"), 1).is_some()
        );
    }
}
