//! The floor under every figure of ours: the barest proxy that Pingora can be, with no routing, no limits, no log and no
//! metrics. `floor LISTEN BACKEND`, both `address:port`; one thread. What Tollgate costs beyond this is Tollgate's.

use async_trait::async_trait;
use pingora::{
    listeners::{L4BufferSettings, ListenerConfig},
    prelude::HttpPeer,
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{Server, configuration::ServerConf},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Floor(HttpPeer);

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(backend)) = (arguments.next(), arguments.next()) else {
        panic!("usage: floor LISTEN BACKEND");
    };
    let mut server = Server::new_with_opt_and_conf(None, ServerConf { threads: 1, ..ServerConf::default() });
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Floor(HttpPeer::new(backend, false, String::new())));
    service.add_listener(ListenerConfig::tcp(listen).l4_buffer(L4BufferSettings::new(4096, 1460)));
    server.add_service(service);
    server.run_forever();
}
