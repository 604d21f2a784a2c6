//! What the gateway answers to the connections below it (`downstream/host.rs`).

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use pingora::http::RequestHeader;
use tokio::{io::AsyncWrite, sync::watch};

use super::{access_line, direct, gateway::Gateway};
use crate::{
    downstream::{
        ConnectionInfo,
        h1::head::HeaderNames,
        host::{DirectAnswers, Host, Rejection},
        limits::ClientLimits,
    },
    message::method_class::MethodClass,
};

impl Host for Gateway {
    fn limits(&self) -> ClientLimits {
        self.live.load().limits
    }

    fn header_names(&self) -> HeaderNames {
        self.live.load().header_names
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.live.load().trusted.trusts(peer)
    }

    fn cut(&self) -> watch::Receiver<bool> {
        self.live.shared.cut_signal()
    }

    fn cut_flag(&self) -> Arc<AtomicBool> {
        self.live.shared.cut_flag.clone()
    }

    fn rejected(&self, rejection: &Rejection<'_>) {
        self.live.shared.metrics.requests.unrouted(MethodClass::of(""), rejection.status, Duration::ZERO);
        if let Some(log) = &*self.live.shared.access_log.load() {
            log.line(|out| access_line::write_refused(out, &self.live.load().access, rejection));
        }
    }

    fn turned_away(&self, reason: &'static str) {
        self.live.shared.metrics.connections.refused(reason);
    }
}

impl DirectAnswers for Gateway {
    fn answer<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        info: &'a Arc<ConnectionInfo>,
        connection: &'a mut (dyn AsyncWrite + Send + Unpin),
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(direct::answer(self, head, info, connection))
    }
}
