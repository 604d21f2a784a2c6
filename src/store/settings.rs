//! `redis:`, checked: where it is and who we are to it. Nothing is asked.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo};

use super::config::{RedisConfig, RedisTls};
use crate::units::{Secret, fingerprint, read_file};

/// What is allowed for `timeout`: longer, and requests pile up behind a store that is stuck.
const LONGEST: Duration = Duration::from_secs(5);

/// What is wrong with a user who has no password.
pub const NO_PASSWORD: &str =
    "a user without a password cannot log in: add 'password' (any, if Redis wants none of this user)";

/// The variable that says where the store is, when the file wants one and does not say.
pub const REDIS_URL: &str = "REDIS_URL";

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Single(ConnectionAddr),
    Sentinel { addresses: Vec<(String, u16)>, name: String },
    Cluster(Vec<(String, u16)>),
}

/// The store, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    pub(super) place: Place,
    /// Speak TLS.
    pub(super) tls: Option<Authorities>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: i64,
    pub(super) timeout: Duration,
    by_environment: bool,
}

impl RedisSettings {
    /// Equal for those that lead to the same data, as far as that is to be seen.
    pub fn name(&self) -> u64 {
        fingerprint(&format!("{:?} {}", self.place, self.database))
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("place", &self.place)
            .field("tls", &self.tls.as_ref().map(|tls| tls.0.as_deref().map(crc32fast::hash)))
            .field("username", &self.username)
            .field("password", &self.password)
            .field("database", &self.database)
            .field("timeout", &self.timeout)
            .field("by_environment", &self.by_environment)
            .finish()
    }
}

/// The certificates of the authorities to trust, in PEM, if not the system's.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorities(pub(super) Option<Vec<u8>>);

impl Authorities {
    fn read(config: &RedisTls, wrong: &mut Mistakes) -> Self {
        let Some(file) = &config.ca else { return Self(None) };
        let read =
            file.path().and_then(|path| read_file(path.as_ref()).map_err(|e| format!("cannot read {file}: {e}")));
        let mistake = match read {
            Ok(pem) if pem.windows(10).any(|part| part == b"-----BEGIN") => return Self(Some(pem)),
            Ok(_) => format!("there is no certificate in {file}: it must be PEM"),
            Err(message) => message,
        };
        wrong.push(("tls.ca".to_owned(), mistake));
        Self(None)
    }
}

/// Mistakes, each with the key that it is about.
type Mistakes = Vec<(String, String)>;

impl RedisSettings {
    /// What `config` says. `readers` may read its secret's file, as in [`crate::units::private`].
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(config: &RedisConfig, readers: &[u32]) -> Result<Self, Vec<(String, String)>> {
        let mut wrong = Mistakes::new();
        if config.timeout.0.is_zero() || config.timeout.0 > LONGEST {
            let message = "must be more than 0 and at most 5s: requests wait for it (default 20ms)";
            wrong.push(("timeout".to_owned(), message.to_owned()));
        }
        let password = config.password.as_ref().and_then(|secret| match secret.read(readers) {
            Ok(secret) => Some(secret),
            Err(message) => {
                wrong.push(("password".to_owned(), message));
                None
            }
        });
        if password.as_ref().is_some_and(|secret| std::str::from_utf8(secret.expose()).is_err()) {
            wrong.push(("password".to_owned(), "the secret is no text".to_owned()));
        }
        let mut tls = config.tls.as_ref().map(|tls| Authorities::read(tls, &mut wrong));
        let mut url = None;
        let place = place(config, &mut url, &mut wrong);
        let of_url = url.as_ref().map(ConnectionInfo::redis_settings);
        if tls.is_none() && matches!(place, Some(Place::Single(ConnectionAddr::TcpTls { .. }))) {
            tls = Some(Authorities(None));
        }
        if tls.is_some() && matches!(place, Some(Place::Single(ConnectionAddr::Unix(_)))) {
            wrong.push(("tls".to_owned(), "a socket of this machine speaks no TLS: leave it out".to_owned()));
        }
        let username = config.username.clone().or_else(|| of_url?.username().map(str::to_owned));
        let password = password.or_else(|| of_url?.password().map(|text| Secret::from(text.as_bytes().to_vec())));
        if username.is_some() && password.is_none() && config.password.is_none() {
            // The library would not log in at all, and so be the default user.
            let key = if config.username.is_some() { "username" } else { "url" };
            wrong.push((key.to_owned(), NO_PASSWORD.to_owned()));
        }
        if of_url.is_some_and(|info| info.db() < 0) {
            wrong.push(("url".to_owned(), "the database at its end is a number from 0 on".to_owned()));
        }
        match place {
            Some(place) if wrong.is_empty() => Ok(Self {
                place,
                tls,
                username,
                password,
                database: of_url.map_or(0, redis::RedisConnectionInfo::db),
                timeout: config.timeout.0,
                by_environment: false,
            }),
            _ => Err(wrong),
        }
    }

    /// In the place of settings that are wrong, in a configuration that will not serve.
    pub fn nowhere() -> Self {
        let place = Place::Cluster(Vec::new());
        Self { place, tls: None, username: None, password: None, database: 0, timeout: LONGEST, by_environment: false }
    }

    /// These settings, and whether the environment has said where the store is.
    #[must_use]
    pub fn by_environment(self, by_environment: bool) -> Self {
        Self { by_environment, ..self }
    }

    /// The environment has said where the store is.
    pub fn is_by_environment(&self) -> bool {
        self.by_environment
    }

    /// How long a request waits for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The password as text.
    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_ref().and_then(|secret| std::str::from_utf8(secret.expose()).ok())
    }
}

fn place(config: &RedisConfig, url: &mut Option<ConnectionInfo>, wrong: &mut Mistakes) -> Option<Place> {
    let cluster = !config.cluster.is_empty();
    if [config.url.is_some(), config.sentinel.is_some(), cluster].iter().filter(|set| **set).count() != 1 {
        let message = "say where it is, by one of these: url: redis://host:6379, sentinel: { addresses: [host:26379], name: … }, cluster: [host:6379]; or set REDIS_URL in the environment";
        wrong.push((String::new(), message.to_owned()));
        return None;
    }
    if let Some(text) = &config.url {
        // What the library says of it may repeat a password.
        let info = text.parse::<ConnectionInfo>().ok().filter(|_| !text.contains('#'));
        let Some(info) = info else {
            let message = "this is no URL of a Redis: write it like redis://host:6379/0, rediss://host:6379 or unix:///run/redis.sock";
            wrong.push(("url".to_owned(), message.to_owned()));
            return None;
        };
        let address = info.addr().clone();
        *url = Some(info);
        return Some(Place::Single(address));
    }
    let mut read = |key: &str, list: &[String]| -> Vec<(String, u16)> {
        let mut all = Vec::new();
        for (i, text) in list.iter().enumerate() {
            if let Some(address) = address(text) {
                all.push(address);
            } else {
                // What stands before it may be a password.
                let message = match text.rsplit_once('@') {
                    Some(_) => "a login does not stand here: write host:6379, and 'username' and 'password' beside it"
                        .to_owned(),
                    None => format!("'{text}' is not a host with a port: write host:6379"),
                };
                wrong.push((format!("{key}[{i}]"), message));
            }
        }
        all
    };
    if let Some(sentinel) = &config.sentinel {
        let addresses = read("sentinel.addresses", &sentinel.addresses);
        if sentinel.addresses.is_empty() {
            wrong.push(("sentinel.addresses".to_owned(), "there must be one at least".to_owned()));
        }
        if sentinel.name.is_empty() {
            wrong.push(("sentinel.name".to_owned(), "must not be empty: it is what the Sentinels watch".to_owned()));
        }
        return Some(Place::Sentinel { addresses, name: sentinel.name.clone() });
    }
    Some(Place::Cluster(read("cluster", &config.cluster)))
}

/// `host:port`, an IPv6 address in brackets.
fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let good = !host.is_empty() && !host.contains(['/', '@', ' ']);
    good.then_some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn settings(url: &str) -> Result<RedisSettings, Mistakes> {
        RedisSettings::new(&RedisConfig { url: Some(url.to_owned()), ..RedisConfig::default() }, &[])
    }

    #[test]
    fn a_url_says_all_of_it_and_its_password_is_not_shown() {
        let one = settings("rediss://me:hunter2@redis.example:7000/3").unwrap();
        assert_eq!((one.username.as_deref(), one.password(), one.database), (Some("me"), Some("hunter2"), 3));
        assert!(one.tls.is_some() && matches!(&one.place, Place::Single(ConnectionAddr::TcpTls { port: 7000, .. })));
        assert!(!format!("{one:?}").contains("hunter2"), "{one:?}");
        for (url, key) in [("redis://me@h", "url"), ("redis://me:@h", "url"), ("redis://h/-1", "url")] {
            assert_eq!(settings(url).unwrap_err()[0].0, key, "{url}");
        }
        assert!(matches!(settings("unix:///run/r.sock").unwrap().place, Place::Single(ConnectionAddr::Unix(_))));
        for bad in
            ["", "redis", "http://host:1", "redis://:hunter2@", "redis://h:hunter2@x:99999", "rediss://h/#insecure"]
        {
            let wrong = settings(bad).unwrap_err();
            assert!(wrong[0].0 == "url" && !wrong[0].1.contains("hunter2"), "{bad}: {wrong:?}");
        }
    }

    #[test]
    fn there_is_one_place() {
        let none = RedisSettings::new(&RedisConfig::default(), &[]).unwrap_err();
        assert!(none[0].1.contains("say where it is"));
        let cluster = |nodes: &[&str]| RedisConfig {
            cluster: nodes.iter().map(|&node| node.to_owned()).collect(),
            ..RedisConfig::default()
        };
        let good = RedisSettings::new(&cluster(&["a:1", "[::1]:2"]), &[]).unwrap();
        assert_eq!(good.place, Place::Cluster(vec![("a".to_owned(), 1), ("::1".to_owned(), 2)]));
        let bad = RedisSettings::new(&cluster(&["a:1", "redis://b:2", "c"]), &[]).unwrap_err();
        assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["cluster[1]", "cluster[2]"]);
    }
}
