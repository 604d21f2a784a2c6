//! What the gateway answers to the connections below it (`downstream/host.rs`).

use std::{net::IpAddr, time::Duration};

use super::{access_line, gateway::Gateway};
use crate::{
    downstream::{
        host::{Host, Rejection},
        limits::ClientLimits,
    },
    telemetry::MethodClass,
};

impl Host for Gateway {
    fn limits(&self) -> ClientLimits {
        self.runtime.load().limits
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.runtime.load().trusted.trusts(peer)
    }

    fn rejected(&self, rejection: &Rejection<'_>) {
        self.shared.metrics.unrouted(MethodClass::of(""), rejection.status, Duration::ZERO);
        if let Some(log) = &*self.shared.access_log.load() {
            log.line(|out| access_line::write_refused(out, &self.runtime.load().access, rejection));
        }
    }

    fn turned_away(&self, reason: &'static str) {
        self.shared.metrics.connections.refused(reason);
    }
}
