//! Something that the gateway asks for by itself, by `http` or `https`: where it is, and whose word for that is taken.

use std::{fmt, sync::Arc, time::Duration};

use http::Uri;
use pingora::protocols::tls::CaType;

use crate::auth::Digest;

/// Who is asked, and for what.
#[derive(Clone)]
pub struct HttpPlace {
    /// `https` or `http`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What is asked for, with its query.
    pub target: String,
    /// Who may have signed the server's certificate, when it is not one of the usual authorities.
    pub authorities: Option<Arc<CaType>>,
    /// Tells these authorities from others.
    pub stamp: u64,
    /// The longest that an answer may take.
    pub timeout: Duration,
}

impl HttpPlace {
    /// What is at `url`.
    ///
    /// # Errors
    /// Why it is no URL of anything. Nothing of it is repeated: a query may hold a secret.
    pub fn new(url: &str, trusted: Option<(Arc<CaType>, u64)>, timeout: Duration) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "this is not a URL")?;
        let authority = uri.authority().ok_or("the host is missing")?;
        if authority.as_str().contains('@') {
            return Err("credentials do not belong into it");
        }
        if url.contains('#') {
            return Err("a fragment is never sent");
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err("the host is missing");
        }
        if authority.as_str().len() > host.len() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("the port is not a number from 1 to 65535");
        }
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the scheme is neither http nor https"),
        };
        let (authorities, stamp) = trusted.map_or((None, 0), |(list, stamp)| (Some(list), stamp));
        Ok(Self {
            tls,
            host: bare.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            authorities,
            stamp,
            timeout,
        })
    }

    /// The same thing, from somebody who shows the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let place = |place: &Self| (place.tls, place.port, place.stamp);
        place(self) == place(other) && self.host == other.host && self.target == other.target
    }

    /// Host and port, as in URLs.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// The URL without its query, which may hold what is nobody's business.
    pub fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = Digest::of(self.target.as_bytes());
        write!(f, "HttpPlace({}, {target}, {:x}, {:?})", self.name(), self.stamp, self.timeout)
    }
}
