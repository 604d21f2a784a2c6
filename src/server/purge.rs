//! `tollgate cache purge`: asks the admin listener of the running gateway.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{exit, failure::fail, output::print, run_args::from_environment, serve};
use crate::{config::Style, filter::Registry, runtime::Shared, units::counted};

/// Longer than any purge takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const LARGEST: u64 = 1 << 20;

/// `tollgate cache`.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Throw kept answers of the running gateway away.
    Purge(PurgeArgs),
}

/// The flags of `tollgate cache purge`.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    what: What,
    /// Only mark them as no longer fresh: backends are asked whether they are good still.
    #[arg(long)]
    soft: bool,
    /// The configuration file of the running gateway. Default: $TOLLGATE_CONFIG, or ./tollgate.yaml, if there is one.
    #[arg(short = 'c', long = "conf", visible_alias = "config", value_name = "FILE")]
    conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The answers for this URL; `/path?query` is meant on every host.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Those whose URL begins so; with a slash at its beginning, those whose path does, on every host.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Those that have this tag in `Surrogate-Key` or `Cache-Tag`.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl PurgeArgs {
    /// What the admin listener is sent.
    fn body(&self) -> Value {
        let mut body = json!({ "soft": self.soft });
        for (key, value) in [("url", &self.what.url), ("prefix", &self.what.prefix), ("tag", &self.what.tag)] {
            if let Some(value) = value {
                body[key] = value.as_str().into();
            }
        }
        if self.what.all {
            body["all"] = true.into();
        }
        body
    }
}

/// `tollgate cache`.
pub(super) fn run(command: &CacheCommand, style: Style, registry: &Registry) -> ExitCode {
    let CacheCommand::Purge(args) = command;
    let file = args.conf.clone().or_else(from_environment);
    let loaded = match serve::load(file.as_deref(), registry, &Shared::new()) {
        Ok((_, loaded)) => loaded,
        Err(rejected) => return fail(exit::CONFIG, &rejected.0.styled(style)),
    };
    let Some(admin) = loaded.plan.admin else {
        return fail(
            exit::FAILURE,
            "the admin listener is off (admin.enabled: false), so nobody can be asked to purge",
        );
    };
    match ask(&admin.address, &args.body().to_string()) {
        Ok(purged) => print(&format!("{} purged\n", counted(purged, "answer"))),
        Err(message) => fail(exit::FAILURE, &message),
    }
}

/// Has the gateway with this admin listener purge; says how many answers.
///
/// # Errors
/// Nobody is there, or it says no.
fn ask(address: &str, body: &str) -> Result<usize, String> {
    let failed = |e: io::Error| format!("the gateway cannot be asked at {address}: {e}");
    let place = reachable(address).ok_or_else(|| format!("'{address}' is not an address with a port"))?;
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let length = body.len();
    let request = format!(
        "POST /api/v1/cache/purge HTTP/1.1\r\nHost: {place}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).map_err(failed)?;
    read(&String::from_utf8_lossy(&answer)).map_err(|wrong| format!("the gateway at {address}: {wrong}"))
}

/// Where something that listens on `address` is found from this machine.
fn reachable(address: &str) -> Option<SocketAddr> {
    let mut place: SocketAddr = address.parse().ok()?;
    if place.ip().is_unspecified() {
        let here = if place.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        place.set_ip(here);
    }
    Some(place)
}

/// How many were purged, by the text of the answer.
fn read(answer: &str) -> Result<usize, String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let purged = value["purged"].as_u64().and_then(|purged| usize::try_from(purged).ok());
    if let (true, Some(purged)) = (head.starts_with("HTTP/1.1 200 "), purged) {
        return Ok(purged);
    }
    Err(value["detail"].as_str().map_or_else(|| "what answers there is no admin listener".to_owned(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_and_what_is_understood() {
        for (address, place) in [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9"), ("10.0.0.1:9", "10.0.0.1:9")] {
            assert_eq!(reachable(address).map(|place| place.to_string()).as_deref(), Some(place));
        }
        assert_eq!(reachable("nowhere"), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"purged\":7}\n"), Ok(7));
        assert_eq!(read("HTTP/1.1 400 Bad Request\r\n\r\n{\"detail\":\"no\"}"), Err("no".to_owned()));
        for other in ["", "HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 404 Not Found\r\n\r\n{\"purged\":1}", "220 mail"] {
            assert!(read(other).is_err_and(|wrong| wrong.contains("no admin listener")), "{other}");
        }
    }
}
