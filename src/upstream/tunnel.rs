//! Connections to backends for requests that may become tunnels.
//!
//! Pingora takes the backend's answer and the end of the client's request in whichever order they come. When the answer
//! is 101 and comes first, it takes the end of the request, which has been in its queue all the time, for the end of
//! the tunnel. So these connections give out nothing until that end has been taken from the queue: Pingora flushes then,
//! for the second time after the request's head.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    connectors::{ConnectorOptions, L4Connect, TransportConnector},
    prelude::HttpPeer,
    protocols::{
        IO,
        l4::{
            socket::SocketAddr,
            stream::Stream,
            virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
        },
    },
    server::configuration::ServerConf,
    upstreams::peer::Scheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is flushed before the answer may be read: the head of the request, and its end.
const FLUSHES: u8 = 2;

/// Connects for requests that may become tunnels.
pub struct Tunnels(Arc<TransportConnector>);

impl Tunnels {
    /// Connects as everything else does: from the same addresses, with the same authorities.
    pub(crate) fn new(conf: &ServerConf) -> Self {
        let mut options = ConnectorOptions::from_server_conf(conf);
        // Nothing that it opens comes back to it.
        options.keepalive_pool_size = 0;
        Self(Arc::new(TransportConnector::new(Some(options))))
    }

    /// A peer for a request without a body that asks for an upgrade, and is connected to as `peer` is.
    pub(crate) fn peer(&self, peer: Box<HttpPeer>) -> Box<HttpPeer> {
        let mut outer = peer.clone();
        // TLS lies below, and what it needs, with all time limits for connecting, holds there.
        outer.scheme = Scheme::HTTP;
        outer.sni.clear();
        outer.client_cert_key = None;
        outer.options.ca = None;
        outer.options.connection_timeout = None;
        outer.options.total_connection_timeout = None;
        outer.options.custom_l4 = Some(Arc::new(Dial { connector: self.0.clone(), peer }));
        // Pingora's pool tells connections apart by their sockets, and this one shows none: it must neither come from
        // there nor stay.
        outer.group_key = fastrand::u64(..);
        outer.options.idle_timeout = Some(Duration::ZERO);
        outer
    }
}

/// Opens a new connection to this backend, for one request that may become a tunnel.
struct Dial {
    connector: Arc<TransportConnector>,
    peer: Box<HttpPeer>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dial").field(&self.peer).finish()
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<Stream> {
        let stream = self.connector.new_stream(&*self.peer).await?;
        Ok(VirtualSocketStream::new(Box::new(Held::new(stream))).into())
    }
}

/// A connection that is read from once the whole request has been sent.
#[derive(Debug)]
struct Held<S> {
    stream: S,
    /// Flushes to come before that.
    flushes: u8,
    /// The task that waits for bytes to read.
    reader: Option<Waker>,
}

impl<S> Held<S> {
    fn new(stream: S) -> Self {
        Self { stream, flushes: FLUSHES, reader: None }
    }

    /// Counts a flush. After a failure nothing more may be sent, and the answer says more than the failure.
    fn sent(&mut self, failed: bool) {
        self.flushes = if failed { 0 } else { self.flushes.saturating_sub(1) };
        if self.flushes == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flushes > 0 {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        if written.is_err() {
            self.sent(true);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.sent(flushed.is_err());
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Held<Box<dyn IO>> {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // The real socket has had them since it was connected.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_answer_is_read_when_the_end_of_the_request_has_been_flushed() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut held = Held::new(near);
        far.write_all(b"101").await.unwrap();
        held.write_all(b"head").await.unwrap();
        held.flush().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(held);
        let reading = tokio::spawn(async move {
            let mut answer = [0; 3];
            reader.read_exact(&mut answer).await.map(|_| answer)
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!reading.is_finished());
        writer.flush().await.unwrap();
        assert_eq!(&reading.await.unwrap().unwrap(), b"101");
    }

    #[tokio::test]
    async fn what_a_backend_said_before_it_broke_off_is_read() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut held = Held::new(near);
        far.write_all(b"413").await.unwrap();
        drop(far);
        held.write_all(b"head").await.unwrap_err();
        let mut answer = Vec::new();
        held.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"413");
    }
}
