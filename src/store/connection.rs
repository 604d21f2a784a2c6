//! A connection to Redis, whichever way it was found. It is made once and shared: what many requests ask at the same time goes
//! out together.

use std::{sync::LazyLock, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, RedisResult, Script, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use super::settings::{Authorities, Place, RedisSettings};

/// A connection stands within this, or not at all.
const CONNECT: Duration = Duration::from_secs(1);

/// As many calls may wait to be written at a time; the library's 50 would make requests wait for one another.
const QUEUE: usize = 4_096;

/// Takes tokens of a bucket.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// Notes a nonce.
pub(super) static NOTE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("note.lua")));

/// Takes of several limits.
pub(super) static TAKE_ALL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take_all.lua")));

/// A connection; a clone is the same one.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Makes one, and has the scripts known there: the first request need not wait for that.
    pub(super) async fn open(settings: &RedisSettings) -> RedisResult<Self> {
        let mut connection = Self::connect(settings).await?;
        for script in [&TAKE, &TAKE_ALL, &NOTE] {
            script.load_async(&mut connection).await?;
        }
        Ok(connection)
    }

    async fn connect(settings: &RedisSettings) -> RedisResult<Self> {
        if settings.tls.is_some() {
            // The library takes the process' default. If there is one already it is good, too.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // Whoever calls has its own time limit.
            .set_response_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(QUEUE);
        match &settings.place {
            Place::Single(address) => {
                let client = client(address, settings)?;
                client.get_multiplexed_async_connection_with_config(&config).await.map(Self::Single)
            }
            Place::Sentinel { addresses, name } => {
                let mut client = sentinel(addresses, name, settings)?.build()?;
                client.get_async_connection_with_config(&config).await.map(Self::Single)
            }
            Place::Cluster(nodes) => cluster(nodes, settings)?.get_async_connection().await.map(Self::Cluster),
        }
    }
}

fn login(settings: &RedisSettings) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(settings.database).set_skip_set_lib_name();
    if let Some(name) = &settings.username {
        login = login.set_username(name);
    }
    if let Some(password) = settings.password() {
        login = login.set_password(password);
    }
    login
}

fn certificates(authorities: &Authorities) -> TlsCertificates {
    TlsCertificates { client_tls: None, root_cert: authorities.0.clone() }
}

/// `address` with TLS, if that is wanted.
fn address(host: &str, port: u16, settings: &RedisSettings) -> ConnectionAddr {
    let host = host.to_owned();
    match settings.tls {
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host, port),
    }
}

fn client(place: &ConnectionAddr, settings: &RedisSettings) -> RedisResult<Client> {
    let place = match place {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => address(host, *port, settings),
        other => other.clone(),
    };
    let info = place.into_connection_info()?.set_redis_settings(login(settings));
    match &settings.tls {
        Some(ca) => Client::build_with_tls(info, certificates(ca)),
        None => Client::open(info),
    }
}

fn sentinel(addresses: &[(String, u16)], name: &str, settings: &RedisSettings) -> RedisResult<SentinelClientBuilder> {
    let places: Vec<_> = addresses.iter().map(|(host, port)| address(host, *port, settings)).collect();
    let mut builder = SentinelClientBuilder::new(places, name, SentinelServerType::Master)?;
    if let Some(user) = &settings.username {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(ca) = &settings.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates(ca))
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates(ca));
    }
    Ok(builder)
}

fn cluster(nodes: &[(String, u16)], settings: &RedisSettings) -> RedisResult<ClusterClient> {
    let info = |(host, port): &(String, u16)| -> Result<ConnectionInfo, RedisError> {
        Ok(address(host, *port, settings).into_connection_info()?.set_redis_settings(login(settings)))
    };
    let nodes = nodes.iter().map(info).collect::<Result<Vec<_>, _>>()?;
    let mut builder = ClusterClient::builder(nodes).connection_timeout(CONNECT).response_timeout(CONNECT).retries(2);
    if let Some(ca) = &settings.tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates(ca));
    }
    builder.build()
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
