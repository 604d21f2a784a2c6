//! WebSocket and other long conversations over HTTP/1.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{
    accept_hdr_async, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        handshake::server::{Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::harness::{Gateway, eventually};

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An echo server that speaks the subprotocol `chat`; "bye" makes it close with 4001, "die" makes it vanish.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (note, notes) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let note = note.clone();
            tokio::spawn(async move {
                #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
                let choose = |request: &Request, mut response: Response| {
                    if request.headers().contains_key("sec-websocket-protocol") {
                        response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
                    }
                    Ok(response)
                };
                let Ok(mut socket) = accept_hdr_async(stream, choose).await else { return };
                loop {
                    match socket.next().await {
                        Some(Ok(Message::Text(text))) if text == "bye" => {
                            let frame = CloseFrame { code: CloseCode::from(4001), reason: "as asked".into() };
                            let _ = socket.close(Some(frame)).await;
                        }
                        Some(Ok(Message::Text(text))) if text == "die" => return,
                        Some(Ok(Message::Close(frame))) => {
                            let _ = note.send(format!("closed {}", frame.map_or(0, |frame| u16::from(frame.code))));
                            return;
                        }
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                            let _ = socket.send(message).await;
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => {
                            let _ = note.send("aborted".to_owned());
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, notes)
}

fn gateway(address: SocketAddr, timeouts: &str, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "limits: {{ stall: 1s, keepalive: 1s }}\napi_keys: [ {{ id: k, sha256: \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\" }} ]\nservices:\n  main: {{ urls: [\"http://{address}\"], timeouts: {{ {timeouts} }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {filters} ]\n"
    ))
}

#[test]
fn messages_subprotocols_and_close_codes_pass_both_ways() {
    let executor = executor();
    executor.block_on(async {
        let (address, mut notes) = echo().await;
        // Neither of these may end an upgraded connection.
        let gw = gateway(address, "read: 1s, write: 1s", "");
        let mut request = format!("ws://127.0.0.1:{}/", gw.port).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "chat, other".parse().unwrap());
        let (mut socket, response) = connect_async(request).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for message in [Message::text("hello"), Message::binary(vec![7; 100_000]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        // Longer than every other time limit there is.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        socket.send(Message::text("still there")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still there"));
        socket.send(Message::text("bye")).await.unwrap();
        let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no close frame") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "as asked"));

        let (mut socket, _) = connect_async(format!("ws://127.0.0.1:{}/", gw.port)).await.unwrap();
        socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "".into() })).await.unwrap();
        while notes.recv().await.unwrap() != "closed 1001" {}
    });
}

#[test]
fn aborts_pass_both_ways() {
    let executor = executor();
    executor.block_on(async {
        let (address, mut notes) = echo().await;
        let gw = gateway(address, "", "");
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{}/", gw.port)).await.unwrap();
        drop(socket);
        assert_eq!(notes.recv().await.unwrap(), "aborted");
        let (mut socket, _) = connect_async(format!("ws://127.0.0.1:{}/", gw.port)).await.unwrap();
        socket.send(Message::text("die")).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(3), socket.next()).await.unwrap();
        assert!(ended.is_none_or(|message| message.is_err()), "the backend has gone without a word");
    });
}

#[test]
fn silence_of_both_sides_ends_a_tunnel() {
    let executor = executor();
    executor.block_on(async {
        let (address, _notes) = echo().await;
        let gw = gateway(address, "idle: 1500ms", "");
        let (mut socket, _) = connect_async(format!("ws://127.0.0.1:{}/", gw.port)).await.unwrap();
        for _ in 0..7 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            socket.send(Message::text("tick")).await.unwrap();
            socket.next().await.unwrap().unwrap();
        }
        let begun = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(8), socket.next()).await.unwrap();
        assert!(ended.is_none_or(|message| message.is_err()));
        assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
    });
}

#[test]
fn auth_and_limits_run_on_the_upgrade_request() {
    let executor = executor();
    executor.block_on(async {
        let (address, _notes) = echo().await;
        let gw = gateway(address, "", "api_key, { rate_limit: { rate: 1/h, burst: 1 } }");
        let url = format!("ws://127.0.0.1:{}/", gw.port);
        let refused = connect_async(&url).await.unwrap_err().to_string();
        assert!(refused.contains("401"), "{refused}");
        let with_key = || {
            let mut request = url.as_str().into_client_request().unwrap();
            request.headers_mut().insert("x-api-key", "key".parse().unwrap());
            request
        };
        connect_async(with_key()).await.unwrap();
        let refused = connect_async(with_key()).await.unwrap_err().to_string();
        assert!(refused.contains("429"), "{refused}");
    });
}

/// Sends a handshake by hand, so that casing is ours to choose.
#[test]
fn both_casings_of_connection_upgrade() {
    let executor = executor();
    let (address, _notes) = executor.block_on(echo());
    let gw = gateway(address, "", "");
    for connection in ["Upgrade", "upgrade", "keep-alive, Upgrade"] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{connection}: {answer}");
        assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    }
}

/// A backend of a few lines: answers each connection with what `script` writes.
fn scripted(script: impl Fn(&mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            script(&mut stream.unwrap());
        }
    });
    address
}

/// Reads until `part` is there.
fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(part) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it ended at {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn connect(gw: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    stream
}

#[test]
fn an_upgrade_that_nobody_answers_is_a_504() {
    let address = scripted(|stream| {
        read_until(stream, "\r\n\r\n");
        std::thread::sleep(Duration::from_secs(2));
    });
    let gw = gateway(address, "read: 500ms", "");
    let mut stream = connect(&gw);
    let begun = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let said = read_until(&mut stream, "\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 504 ") && begun.elapsed() < Duration::from_millis(1500), "{said}");
    assert_eq!(gw.log(1)[0]["error"], "ReadTimedout");
    assert_eq!(gw.metric("gateway_upstream_attempts_total{outcome=\"timeout\",service=\"main\"}"), Some(1.0));
    assert_eq!(gw.metric("gateway_proxy_canceled_total"), Some(0.0));
}

#[test]
fn server_sent_events_are_not_held_back() {
    let address = scripted(|stream| {
        read_until(stream, "\r\n\r\n");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(600));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    });
    let gw = gateway(address, "", "compression");
    let mut stream = connect(&gw);
    let begun = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    read_until(&mut stream, "data: 1");
    assert!(begun.elapsed() < Duration::from_millis(400), "the first event took {:?}", begun.elapsed());
    read_until(&mut stream, "data: 2");
    read_until(&mut stream, "0\r\n\r\n");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_when_the_backend_says_so() {
    let address = scripted(|stream| {
        let head = read_until(stream, "\r\n\r\n");
        if head.to_lowercase().contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        read_until(stream, "hello");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let gw = gateway(address, "", "");
    let mut stream = connect(&gw);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 100 "));
    stream.write_all(b"hello").unwrap();
    assert!(read_until(&mut stream, "\r\n\r\nok").starts_with("HTTP/1.1 200 "));
}

#[test]
fn early_hints_come_before_the_answer() {
    let address = scripted(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let gw = gateway(address, "", "request_id");
    let mut stream = connect(&gw);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let hints = read_until(&mut stream, "\r\n\r\n").to_lowercase();
    assert!(hints.starts_with("http/1.1 103 ") && hints.contains("link: </a.css>"), "{hints}");
    let answer = read_until(&mut stream, "\r\n\r\nok").to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("x-request-id"), "{answer}");
}

#[test]
fn an_abort_of_the_client_reaches_the_backend() {
    let (note, noted) = std::sync::mpsc::channel();
    let address = scripted(move |stream| {
        read_until(stream, "\r\n\r\n");
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Closed or reset: over in any case; only a time-out would mean that it goes on.
        let ended = !matches!(stream.read(&mut [0; 10]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        note.send(ended).unwrap();
    });
    let gw = gateway(address, "", "");
    let mut stream = connect(&gw);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    drop(stream);
    assert_eq!(noted.recv_timeout(Duration::from_secs(6)), Ok(true), "the backend's connection goes on");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("it is counted", || gw.metric("gateway_proxy_canceled_total") == Some(1.0));
}
