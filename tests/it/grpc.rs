//! gRPC through the gateway, with a client and a server of a real library.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _};
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc as Client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
    transport::{Channel, Server},
};
use tower::service_fn;

use crate::harness::{Gateway, eventually, free_port, program};

/// Messages as plain bytes: what is in them is none of the gateway's business.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes.remaining();
        Ok(Some(bytes.copy_to_bytes(length).to_vec()))
    }
}

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

/// The server: one method of each kind. `cancelled` counts calls whose client went away.
#[derive(Clone, Default)]
struct Service {
    cancelled: Arc<AtomicUsize>,
}

impl NamedService for Service {
    const NAME: &'static str = "test.Test";
}

/// Counts when it is dropped before it was told that all is well.
struct Guard(Arc<AtomicUsize>, bool);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(usize::from(!self.1), SeqCst);
    }
}

async fn unary(request: Request<Vec<u8>>, cancelled: Arc<AtomicUsize>) -> Result<Response<Vec<u8>>, Status> {
    let deadline = request.metadata().get("grpc-timeout").map(|text| text.to_str().unwrap().to_owned());
    match request.get_ref().as_slice() {
        b"deadline" => Ok(Response::new(deadline.unwrap_or_default().into_bytes())),
        b"fail" => Err(Status::failed_precondition("not today")),
        b"hang" => {
            let _guard = Guard(cancelled, false);
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok(Response::new(Vec::new()))
        }
        other => {
            let mut response = Response::new([b"echo ", other].concat());
            response.metadata_mut().insert("x-head", "1".parse().unwrap());
            Ok(response)
        }
    }
}

async fn server_streaming(request: Request<Vec<u8>>) -> Result<Response<Answers>, Status> {
    let message = request.into_inner();
    let answers = stream::iter(0..5u8).map(move |i| Ok([&message[..], &[b'0' + i]].concat()));
    Ok(Response::new(Box::pin(answers.chain(stream::iter([Err(Status::data_loss("at the end"))])))))
}

async fn client_streaming(request: Request<Streaming<Vec<u8>>>) -> Result<Response<Vec<u8>>, Status> {
    let parts: Vec<_> = request.into_inner().map(|part| part.unwrap()).collect().await;
    Ok(Response::new(parts.concat()))
}

async fn both_streaming(request: Request<Streaming<Vec<u8>>>) -> Result<Response<Answers>, Status> {
    let answers = request.into_inner().map(|part| part.map(|bytes| bytes.into_iter().rev().collect()));
    Ok(Response::new(Box::pin(answers)))
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let cancelled = self.cancelled.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/test.Test/Unary" => grpc.unary(service_fn(|r| unary(r, cancelled.clone())), request).await,
                "/test.Test/Server" => grpc.server_streaming(service_fn(server_streaming), request).await,
                "/test.Test/Client" => grpc.client_streaming(service_fn(client_streaming), request).await,
                _ => grpc.streaming(service_fn(both_streaming), request).await,
            })
        })
    }
}

struct Peers {
    gw: Gateway,
    service: Service,
    client: Client<Channel>,
    /// Takes connections and says nothing.
    _mute: std::net::TcpListener,
}

/// Starts a server, a gateway before it, and a client. `service` and `route` are more YAML for the two.
async fn peers(service: &str, route: &str) -> Peers {
    let port = free_port();
    let server = Service::default();
    let address = ([127, 0, 0, 1], port).into();
    tokio::spawn(Server::builder().add_service(server.clone()).serve(address));
    eventually("the server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nlimits: {{ stall: 1s }}\napi_keys: [ {{ id: k, sha256: \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\" }} ]\nservices:\n  main: {{ urls: [\"h2c://127.0.0.1:{port}\"]{service} }}\n  dead: {{ urls: [\"h2c://127.0.0.1:{}\"] }}\n  mute: {{ urls: [\"h2c://127.0.0.1:{}\"] }}\nroutes:\n  - match: {{ path: /test.Test/* }}\n    service: main\n{route}  - {{ match: {{ path: /test.Key/* }}, service: main, filters: [ api_key ] }}\n  - {{ match: {{ path: /test.Dead/* }}, service: dead }}\n  - {{ match: {{ path: /test.Mute/* }}, service: mute }}\n",
        free_port(),
        mute.local_addr().unwrap().port()
    ));
    let channel = Channel::from_shared(format!("http://127.0.0.1:{}", gw.port)).unwrap().connect().await.unwrap();
    Peers { gw, service: server, client: Client::new(channel), _mute: mute }
}

impl Peers {
    async fn unary(&self, path: &'static str, message: &[u8]) -> Result<Response<Vec<u8>>, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        client.unary(Request::new(message.to_vec()), path.parse().unwrap(), Raw).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_kinds_with_trailers() {
    let peers = peers("", "").await;
    let answer = peers.unary("/test.Test/Unary", b"one").await.unwrap();
    assert_eq!(
        (answer.get_ref().as_slice(), answer.metadata().get("x-head").unwrap().to_str().unwrap()),
        (&b"echo one"[..], "1")
    );
    let failed = peers.unary("/test.Test/Unary", b"fail").await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not today"));

    let mut client = peers.client.clone();
    client.ready().await.unwrap();
    let answer = client.server_streaming(Request::new(b"m".to_vec()), "/test.Test/Server".parse().unwrap(), Raw).await;
    let answers: Vec<_> = answer.unwrap().into_inner().collect().await;
    assert_eq!(answers.iter().flatten().count(), 5);
    assert_eq!(answers[5].as_ref().unwrap_err().code(), Code::DataLoss, "the status is in the trailers");

    client.ready().await.unwrap();
    let parts = stream::iter(["a", "b", "c"].map(|part| part.as_bytes().to_vec()));
    let answer = client.client_streaming(Request::new(parts), "/test.Test/Client".parse().unwrap(), Raw).await;
    assert_eq!(answer.unwrap().into_inner(), b"abc");

    // Both at once, with silences longer than a client's body may otherwise have.
    client.ready().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let parts = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let answer = client.streaming(Request::new(parts), "/test.Test/Both".parse().unwrap(), Raw).await;
    let mut answers = answer.unwrap().into_inner();
    for _ in 0..3 {
        sender.send(b"abc".to_vec()).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), b"cba");
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    drop(sender);
    assert!(answers.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_cancels_pass() {
    let peers = peers("", "").await;
    let mut request = Request::new(b"deadline".to_vec());
    request.set_timeout(Duration::from_secs(7));
    let mut client = peers.client.clone();
    client.ready().await.unwrap();
    let answer = client.unary(request, "/test.Test/Unary".parse().unwrap(), Raw).await.unwrap();
    assert!(String::from_utf8(answer.into_inner()).unwrap().starts_with('7'), "the server knows the deadline");

    let call = tokio::time::timeout(Duration::from_millis(300), peers.unary("/test.Test/Unary", b"hang"));
    assert!(call.await.is_err());
    let cancelled = peers.service.cancelled.clone();
    tokio::task::spawn_blocking(move || eventually("the server learns of the cancel", || cancelled.load(SeqCst) == 1))
        .await
        .unwrap();

    // Neither the client nor the server enforces this one: the gateway does.
    let message = peers.gw.path("message");
    std::fs::write(&message, b"\0\0\0\0\x04hang").unwrap();
    let begun = Instant::now();
    let output = std::process::Command::new(program("curl", "curl"))
        .args(["-si", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", "grpc-timeout: 400m", "--data-binary", &format!("@{}", message.display())])
        .arg(format!("http://127.0.0.1:{}/test.Mute/Unary", peers.gw.port))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("HTTP/2 200") && said.contains("grpc-status: 4"), "{said}");
    assert!((300..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_gateway_are_grpc_statuses() {
    let peers = peers("", "    filters: [ { rate_limit: { rate: 1/h, burst: 1 } } ]\n").await;
    let code = async |path| peers.unary(path, b"x").await.unwrap_err().code();
    assert_eq!(code("/test.Key/Unary").await, Code::Unauthenticated);
    assert_eq!(code("/test.Dead/Unary").await, Code::Unavailable);
    assert_eq!(code("/nowhere/Unary").await, Code::Unimplemented);
    peers.unary("/test.Test/Unary", b"x").await.unwrap();
    let limited = peers.unary("/test.Test/Unary", b"x").await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    assert!(!limited.message().is_empty());
    let refused = peers
        .gw
        .metric("gateway_requests_total{method=\"POST\",route=\"/test.Test/*\",service=\"none\",status=\"429\"}");
    assert_eq!(refused, Some(1.0), "metrics tell the real status");
    let mut said: Vec<_> = peers.gw.log(5).iter().map(|line| line["grpc_status"].as_u64()).collect();
    // Lines are written by several threads.
    said.sort_unstable();
    assert_eq!(said, [Some(0), Some(8), Some(12), Some(14), Some(16)]);
}
