//! A client: one fluent line per fact.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A request in the making.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn new(method: &str, url: String) -> Self {
        Self { method: method.to_owned(), url, headers: Vec::new(), body: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("X-API-KEY", key)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    /// Sends it on a connection of its own; the error, when there was no answer.
    pub(crate) fn try_send(self) -> Result<Answer, String> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .accept_encoding("")
            .allow_non_standard_methods(true)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut builder = ureq::http::Request::builder().method(self.method.as_str()).uri(&self.url);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let sent =
            match self.body {
                Some(body) => agent
                    .run(agent.configure_request(builder.body(body).unwrap()).allow_non_standard_methods(true).build()),
                None => agent
                    .run(agent.configure_request(builder.body(()).unwrap()).allow_non_standard_methods(true).build()),
            };
        let mut response = sent.map_err(|e| e.to_string())?;
        let body = response.body_mut().read_to_vec().map_err(|e| e.to_string())?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    pub(crate) fn send(self) -> Answer {
        self.try_send().unwrap()
    }

    /// Sends it and wants this status.
    pub(crate) fn expect(self, status: u16) -> Answer {
        let what = format!("{} {}", self.method, self.url);
        let answer = self.send();
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        answer
    }
}

impl Answer {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The values of all lines of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub(crate) fn has(self, name: &str, value: &str) -> Self {
        assert_eq!(self.get(name), value, "header {name} of {:?}", self.headers);
        self
    }

    pub(crate) fn lacks(self, name: &str) -> Self {
        assert!(!self.headers.contains_key(name), "header {name} of {:?}", self.headers);
        self
    }

    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.body.contains(text), "'{text}' is not in: {}", self.body);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// A problem document (RFC 9457) with a request id and without addresses.
    pub(crate) fn problem(self) -> Self {
        assert_eq!(self.get("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
        assert!(!self.body.contains("127.0.0.1"), "{problem}");
        self
    }
}

/// Sends bytes and reads until the other side closes or is silent for a second.
pub(crate) fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut out, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        out.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&out).into_owned()
}
