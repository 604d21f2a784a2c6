//! A client that speaks HTTP/2 without TLS, and tells how an answer ended.

use axum::http::{HeaderMap, Request, Response};

/// An answer.
#[derive(Debug)]
pub(crate) struct H2Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Why it broke off.
    pub(crate) reset: Option<h2::Reason>,
}

/// Sends a request without a body on a connection of its own.
pub(crate) fn h2_request(port: u16, method: &str, path: &str, fields: &[(&str, &str)]) -> H2Answer {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(format!("http://h{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let (parts, mut stream) = answer.await.unwrap().into_parts();
        let (mut body, mut reset) = (Vec::new(), None);
        while let Some(data) = stream.data().await {
            match data {
                Ok(data) => {
                    body.extend_from_slice(&data);
                    let _ = stream.flow_control().release_capacity(data.len());
                }
                Err(e) => {
                    reset = e.reason();
                    break;
                }
            }
        }
        let trailers = if reset.is_none() { stream.trailers().await.unwrap_or(None) } else { None };
        H2Answer { head: Response::from_parts(parts, ()), body, trailers, reset }
    })
}
