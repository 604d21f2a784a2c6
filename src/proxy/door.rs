//! The door between a listener and Pingora's HTTP layer: it sees connections before any request does.
//!
//! Why there is one: Pingora drops connections that wait for their first request as soon as the service shuts down. A
//! connection that was accepted a moment earlier has such a request on the wire, and its client sees a reset: that is
//! the request which stock upgrades lose. The door tells the HTTP layer of the shutdown a little later, when
//! whoever had connected has asked.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{apps::ServerApp, protocols::Stream, proxy::HttpProxy, server::ShutdownWatch};

use super::gateway::Gateway;

/// Time for connections accepted last to send their request.
const LINGER: Duration = Duration::from_millis(1500);

/// A listener's application.
pub struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
}

impl Door {
    /// A door to `proxy`.
    pub fn new(proxy: HttpProxy<Gateway>) -> Self {
        Self { proxy: Arc::new(proxy) }
    }
}

#[async_trait]
impl ServerApp for Door {
    // Written out instead of `async fn`, which would put a second box around every request's future.
    fn process_new<'life0, 'life1, 'async_trait>(
        self: &'life0 Arc<Self>,
        stream: Stream,
        shutdown: &'life1 ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<Stream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.proxy.process_new(stream, shutdown)
    }

    async fn cleanup(&self) {
        tokio::time::sleep(LINGER).await;
        self.proxy.cleanup().await;
    }
}
