//! One line of the access log. The query is left out unless asked for: it is where secrets end up.

use std::{cell::RefCell, io::Write as _, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::RequestHeader;

use super::{attempts::Attempts, context::Context};
use crate::{
    downstream::host::Rejection,
    message::{fields, host::host_of, json},
    telemetry::access_log::config::{AccessConfig, AccessFormat},
};

/// What the client says of itself.
static SENDER: [HeaderName; 3] = [HeaderName::from_static("traceparent"), header::USER_AGENT, header::REFERER];

/// A request that has ended.
pub(crate) struct Ended<'a> {
    /// Its head.
    pub(crate) head: &'a RequestHeader,
    /// The status that its client has seen.
    pub(crate) written: Option<StatusCode>,
    /// Bytes of its body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// The client, and nobody else, ended it.
    pub(crate) left: bool,
}

/// Appends the line of a finished request.
pub(crate) fn write(
    out: &mut Vec<u8>,
    config: &AccessConfig,
    ended: &Ended<'_>,
    context: &Context,
    status: u16,
    duration: Duration,
) {
    match config.format {
        AccessFormat::Json => json(out, config, ended, context, status, duration),
        AccessFormat::Common => common(out, config, ended, context, status),
    }
}

/// Appends the line of a head that was refused: nothing that stood there can be trusted to be what it says.
pub(crate) fn write_refused(out: &mut Vec<u8>, config: &AccessConfig, rejection: &Rejection<'_>) {
    let Rejection { id, client, status, detail, reason } = rejection;
    match config.format {
        AccessFormat::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            timestamp(out);
            let mut line = Line(out);
            let _ = write!(line.0, "\",\"id\":\"{id}\",\"client\":\"{client}\"");
            line.number(br#","status":"#, u64::from(*status));
            line.word(br#","by":""#, "gateway");
            if let Some(reason) = reason {
                line.word(br#","reason":""#, reason.label());
            }
            line.text(br#","error":"#, detail);
            out.push(b'}');
        }
        AccessFormat::Common => {
            let _ = write!(out, "{client} - - [{}] \"-\" {status} 0", common_date());
        }
    }
}

fn json(
    out: &mut Vec<u8>,
    config: &AccessConfig,
    ended: &Ended<'_>,
    context: &Context,
    status: u16,
    duration: Duration,
) {
    let head = ended.head;
    // Room for what most lines take: it would be made in several steps otherwise.
    out.reserve(512);
    out.extend_from_slice(b"{\"time\":\"");
    timestamp(out);
    out.extend_from_slice(b"\",\"id\":\"");
    context.state.id.append_to(out);
    out.extend_from_slice(b"\",\"client\":\"");
    client(out, context);
    out.push(b'"');
    let mut line = Line(out);
    line.text(br#","method":"#, head.method.as_str());
    line.text(br#","host":"#, host_of(head));
    line.text(br#","path":"#, head.uri.path());
    if let (true, Some(query)) = (config.query, head.uri.query()) {
        line.text(br#","query":"#, query);
    }
    line.word(br#","protocol":""#, protocol(head.version));
    line.connection(context);
    line.number(br#","status":"#, u64::from(status));
    line.text(br#","by":"#, context.answered_by.label());
    if let Some(reason) = context.reason {
        line.word(br#","reason":""#, reason.label());
    }
    if let Some(error) = &context.error {
        line.text(br#","error":"#, error);
    }
    line.destination(context);
    if let Some(label) = context.cached.as_ref().and_then(|cached| cached.label()) {
        line.word(br#","cache":""#, label);
    }
    line.number(br#","received":"#, ended.received);
    line.number(br#","sent":"#, ended.sent);
    line.millis(br#","duration_ms":"#, duration);
    if let Some(connect) = context.attempts.connect {
        line.millis(br#","connect_ms":"#, connect);
    }
    if let Some(first) = context.attempts.first_byte {
        line.millis(br#","first_byte_ms":"#, first.duration_since(context.start));
    }
    if let Some(status) = context.grpc_status {
        line.number(br#","grpc_status":"#, u64::from(status));
    }
    line.judgement(context);
    line.sender(config, head);
    out.push(b'}');
}

/// `host ident authuser [date] "request" status bytes`.
fn common(out: &mut Vec<u8>, config: &AccessConfig, ended: &Ended<'_>, context: &Context, status: u16) {
    let head = ended.head;
    let user = context.state.identities.last().and_then(|identity| identity.name()).unwrap_or("-");
    let date = common_date();
    let _ = write!(out, "{} - ", context.state.client);
    escape(out, user);
    let _ = write!(out, " [{date}] \"{} ", head.method);
    escape(out, head.uri.path());
    if let (true, Some(query)) = (config.query, head.uri.query()) {
        out.push(b'?');
        escape(out, query);
    }
    let _ = write!(out, " {}\" {status} {}", protocol(head.version), ended.sent);
}

/// Writes a field so that it stays one, in one line: whatever is no printable ASCII, and spaces, quotes and backslashes,
/// as nginx writes them.
fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
}

fn common_date() -> String {
    jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

/// The client's address: as text it is mostly known from what the backend was told.
fn client(out: &mut Vec<u8>, context: &Context) {
    match &context.info {
        Some(info) if info.address().to_canonical() == context.state.client => {
            out.extend_from_slice(info.address_text().as_bytes());
        }
        _ => {
            let _ = write!(out, "{}", context.state.client);
        }
    }
}

/// A line in the making; names of its fields are given with what stands around them.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    /// Who was let in, and what the last limit said.
    fn judgement(&mut self, context: &Context) {
        if let Some(name) = context.state.identities.last().and_then(|identity| identity.name()) {
            self.text(br#","identity":"#, name);
        }
        if let Some(key) = context.state.identities.key_id() {
            self.text(br#","key_id":"#, key);
        }
        if let Some(applied) = context.state.limits.last() {
            self.text(br#","limit":"#, &applied.policy);
            self.number(br#","limit_remaining":"#, u64::from(applied.verdict.remaining));
        }
    }

    /// How the client is connected.
    fn connection(&mut self, context: &Context) {
        self.word(br#","scheme":""#, if context.origin.secure { "https" } else { "http" });
        if let Some(info) = &context.info {
            self.text(br#","listener":"#, &info.listener_name);
            if let Some(tls) = &info.tls {
                self.text(br#","tls":"#, tls.version);
                tls.sni.iter().for_each(|name| self.text(br#","sni":"#, name));
            }
        }
    }

    /// Where it went.
    fn destination(&mut self, context: &Context) {
        if let Some(route) = &context.route {
            self.text(br#","route":"#, &route.id);
        }
        if let Some(target) = &context.target {
            self.text(br#","service":"#, &target.service.name);
        }
        if let Some(backend) = &context.attempts.backend {
            self.text(br#","upstream":"#, &backend.name);
            self.number(br#","attempts":"#, u64::from(context.attempts.count));
            self.tried(&context.attempts);
        }
    }

    /// What the client says of itself.
    fn sender(&mut self, config: &AccessConfig, head: &RequestHeader) {
        let [trace, agent, referer] = fields::first(&head.headers, &SENDER);
        if let Some(trace) = trace_id(trace) {
            self.text(br#","trace_id":"#, trace);
        }
        if let Some(agent) = agent.and_then(|value| value.to_str().ok()) {
            self.text(br#","user_agent":"#, agent);
        }
        if let Some(referer) = referer.and_then(|value| value.to_str().ok()) {
            // Its query too is left out unless asked for.
            let shown = if config.query { referer } else { referer.split(['?', '#']).next().unwrap_or_default() };
            self.text(br#","referer":"#, shown);
        }
    }

    /// Backends that were tried before the last one, in order.
    fn tried(&mut self, attempts: &Attempts) {
        let earlier = usize::try_from(attempts.count.saturating_sub(1)).unwrap_or(usize::MAX);
        for (place, address) in attempts.tried.iter().take(earlier).enumerate() {
            self.0.extend_from_slice(if place == 0 { br#","tried":[""# } else { br#"",""# });
            let _ = write!(self.0, "{address}");
        }
        if earlier > 0 && !attempts.tried.is_empty() {
            self.0.extend_from_slice(br#""]"#);
        }
    }

    /// A word of ours, which needs no escape; the name comes with the quote before it.
    fn word(&mut self, name: &[u8], value: &'static str) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    fn text(&mut self, name: &[u8], value: &str) {
        self.0.extend_from_slice(name);
        json::string(self.0, value);
    }

    fn number(&mut self, name: &[u8], value: u64) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Milliseconds with three decimals, without the detour over floating point.
    fn millis(&mut self, name: &[u8], value: Duration) {
        self.0.extend_from_slice(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        let rest = (micros % 1000).to_le_bytes();
        let rest = u16::from_le_bytes([rest[0], rest[1]]);
        let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or(0);
        self.0.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// The trace id of a W3C `traceparent`, when it has the right form.
fn trace_id(value: Option<&HeaderValue>) -> Option<&str> {
    let id = value?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// RFC 3339 in UTC with milliseconds; the part before the dot is formatted once a second.
fn timestamp(out: &mut Vec<u8>) {
    thread_local!(static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) });
    let now = jiff::Timestamp::now();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            *second = now.as_second();
            *text = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(text.as_bytes());
    });
    let millis = now.subsec_millisecond();
    let digit = |n: i32| b'0' + u8::try_from(n.rem_euclid(10)).unwrap_or(0);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}
