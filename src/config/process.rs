//! `pingora:` in the YAML, with the names of Pingora's `ServerConf`. Pingora itself ignores keys it does not know, takes
//! `threads: 0` until it panics, and puts its upgrade socket, world-writable, into /tmp: so this block is checked here.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{Group, User};
use pingora::server::configuration::ServerConf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::private::{self, Account};
use crate::{telemetry::access_log::writer::Output, tls::pem::only_authorities, units::Problems, yaml::Node};

/// Settings of the engine.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct PingoraConfig {
    /// Worker threads of the proxy. Default: one per core.
    pub threads: usize,
    /// Let idle workers take work from busy ones. Default true.
    pub work_stealing: bool,
    /// Tasks that accept connections, per listener. Default 1.
    pub listener_tasks_per_fd: usize,
    /// Run in the background. Default false; `-d` does the same.
    pub daemon: bool,
    /// Standard error of a daemon goes here; one in the foreground keeps its own, and warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_log: Option<String>,
    /// The process id is written here, in a directory of this user or root alone. Default: beside the upgrade socket.
    pub pid_file: String,
    /// The running process hands its listening sockets over here (`tollgate -u`); in a directory of this user or root
    /// alone. Default: one of our own making.
    pub upgrade_sock: String,
    /// Where a predecessor may be whose first listener was another one of ours.
    #[serde(skip)]
    pub(crate) earlier_socks: Vec<String>,
    /// Become this user when the listeners are bound, in its groups; only root can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Become this group. Default: that of `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Certificates to trust towards backends, as PEM. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The most time that requests under way get when the process leaves. Default 30.
    pub grace_period_seconds: u64,
    /// After that, time for the threads to end. Default 5.
    pub graceful_shutdown_timeout_seconds: u64,
    /// Unused connections to backends that are kept, per thread, for all services together. Default: 16 for each backend
    /// that is listed, at least 128; a name counts as 8 backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_keepalive_pool_size: Option<usize>,
    /// Source addresses towards IPv4 backends.
    pub client_bind_to_ipv4: Vec<String>,
    /// Source addresses towards IPv6 backends.
    pub client_bind_to_ipv6: Vec<String>,
}

impl Default for PingoraConfig {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            work_stealing: true,
            listener_tasks_per_fd: 1,
            daemon: false,
            error_log: None,
            pid_file: String::new(),
            upgrade_sock: String::new(),
            earlier_socks: Vec::new(),
            user: None,
            group: None,
            ca_file: None,
            grace_period_seconds: 30,
            graceful_shutdown_timeout_seconds: 5,
            upstream_keepalive_pool_size: None,
            client_bind_to_ipv4: Vec::new(),
            client_bind_to_ipv6: Vec::new(),
        }
    }
}

/// The most bytes of a Unix socket's path (`sun_path`), less those of `.` and the number of a process.
const SOCKET_PATH: usize = 99;

/// Kept connections for each backend, and how many there are at least.
const KEPT: usize = 16;
const KEPT_AT_LEAST: usize = 128;

/// Pingora makes room for all of them at once, some hundred bytes each; a process has no more descriptors either.
const MOST_KEPT: usize = 1 << 20;

impl PingoraConfig {
    /// Sizes the pool of unused connections by the number of backends, unless that has been decided. Pingora has one pool
    /// for all of them: where it is too small, each request throws out a connection that the next one would have used.
    pub(super) fn size_pool(&mut self, backends: usize) {
        let enough = backends.saturating_mul(KEPT).max(KEPT_AT_LEAST);
        self.upstream_keepalive_pool_size.get_or_insert(enough);
    }

    /// Fills in the paths that were left out, for an instance whose listeners have these `ports`, and checks the rest.
    pub(super) fn complete(&mut self, ports: &[u16], node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        self.name_paths(ports);
        self.numbers(&mut wrong);
        if self.upgrade_sock.len() > SOCKET_PATH {
            wrong("upgrade_sock", format!("the path is longer than the {SOCKET_PATH} bytes that a socket may have"));
        }
        let account = self.account(&mut wrong);
        // Opened before the process becomes another user.
        if let Some(Err(message)) = self.error_log.as_ref().map(|path| private::can_write(Path::new(path), None)) {
            wrong("error_log", message);
        }
        // A successor puts its files there when it has become that user.
        let later = |path: &str| match &account {
            Some(account) => private::can_create(Path::new(path), Some(account)),
            None => Ok(()),
        };
        self.socket(node, later, &mut wrong);
        // One that was left out lies beside the socket, which has just been checked.
        if node.get("pid_file").is_some() {
            // A daemon writes it through a link that somebody else has put there.
            let alone = || private::check(Path::new(&self.pid_file), &private::owners(self.user.as_deref()));
            let place = directory_of(&self.pid_file).and_then(|()| alone()).and_then(|()| later(&self.pid_file));
            if let Err(message) = place {
                wrong("pid_file", message);
            } else if self.pid_file == self.upgrade_sock {
                wrong("pid_file", "this is the upgrade socket's path: give it one of its own".to_owned());
            } else if fs::symlink_metadata(&self.pid_file).is_ok_and(|meta| !meta.is_file()) {
                wrong("pid_file", format!("'{}' is there, and is not a file", self.pid_file));
            }
        }
        // Pingora panics on what is wrong with it, when the process has become that user.
        if let Some(Err(message)) = self.ca_file.as_ref().map(|path| {
            only_authorities(path)?;
            account.as_ref().map_or(Ok(()), |account| private::can_read(Path::new(path), account))
        }) {
            wrong("ca_file", message);
        }
        self.addresses(&mut wrong);
    }

    /// Fills in the paths that were left out, after the listeners' `ports`, and makes all of them absolute.
    fn name_paths(&mut self, ports: &[u16]) {
        if self.upgrade_sock.is_empty() {
            let dir = runtime_dir();
            let ports = if ports.is_empty() { &[0] } else { ports };
            let named = |port| dir.join(format!("tollgate-{port}.sock")).to_string_lossy().into_owned();
            self.earlier_socks = ports.iter().map(named).collect();
            self.upgrade_sock = self.earlier_socks.remove(0);
        }
        if self.pid_file.is_empty() {
            self.pid_file = pid_beside(&self.upgrade_sock);
        }
        // A daemon lives in another directory.
        for path in [&mut self.upgrade_sock, &mut self.pid_file] {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute.to_string_lossy().into_owned();
            }
        }
    }

    /// What only has to be within bounds.
    fn numbers(&self, wrong: &mut impl FnMut(&str, String)) {
        if !(1..=1024).contains(&self.threads) {
            wrong("threads", format!("{} is not a number of threads from 1 to 1024", self.threads));
        }
        if !(1..=64).contains(&self.listener_tasks_per_fd) {
            wrong("listener_tasks_per_fd", format!("{} is not a number from 1 to 64", self.listener_tasks_per_fd));
        }
        if self.upstream_keepalive_pool_size.is_some_and(|size| !(1..=MOST_KEPT).contains(&size)) {
            wrong("upstream_keepalive_pool_size", format!("not a number of connections from 1 to {MOST_KEPT}"));
        }
    }

    /// For a successor whose first listener is another one than its predecessor's: the paths that are named after the
    /// listeners, when none is given, follow the process that `answers`: a socket may have been left by one that was killed.
    pub(crate) fn follow_predecessor(&mut self, answers: impl Fn(&str) -> bool) {
        // Where there is nothing to choose from, the process that is there is asked once.
        if self.earlier_socks.is_empty() || answers(&self.upgrade_sock) {
            return;
        }
        let Some(found) = self.earlier_socks.iter().find(|path| answers(path)).cloned() else { return };
        if self.pid_file == pid_beside(&self.upgrade_sock) {
            self.pid_file = pid_beside(&found);
        }
        self.upgrade_sock = found;
    }

    /// Makes the directory of our own for paths that were left out.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn make_directory(&self) -> Result<(), String> {
        let Some(dir) = Path::new(&self.upgrade_sock).parent().filter(|dir| !dir.exists()) else { return Ok(()) };
        let made = fs::DirBuilder::new().mode(0o700).create(dir);
        made.map_err(|e| format!("upgrade_sock: the directory '{}' cannot be made: {e}", dir.display()))
    }

    /// What connections to backends come from.
    fn addresses(&self, wrong: &mut impl FnMut(&str, String)) {
        for (key, list) in
            [("client_bind_to_ipv4", &self.client_bind_to_ipv4), ("client_bind_to_ipv6", &self.client_bind_to_ipv6)]
        {
            let six = key.ends_with('6');
            for (i, text) in list.iter().enumerate() {
                if !text.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_ipv6() == six) {
                    wrong(&format!("{key}[{i}]"), format!("'{text}' is not an address of that kind"));
                }
            }
        }
    }

    /// Who this process becomes.
    fn account(&self, wrong: &mut impl FnMut(&str, String)) -> Option<Account> {
        if let Some(group) = self.group.as_ref().filter(|group| !matches!(Group::from_name(group), Ok(Some(_)))) {
            wrong("group", format!("there is no group '{group}'"));
        }
        let user = self.user.as_ref()?;
        let account = Account::of(user, self.group.as_deref());
        if account.is_none() {
            wrong("user", format!("there is no user '{user}'"));
        }
        account
    }

    /// The place of the upgrade socket is this user's alone, and the user that this process becomes can put one there.
    fn socket(&self, node: &Node, later: impl Fn(&str) -> Result<(), String>, wrong: &mut impl FnMut(&str, String)) {
        let given = node.get("upgrade_sock").is_some();
        // One that was left out is in a directory of our own making, below whatever there is for temporary files.
        let to_be_made = !given && !Path::new(&self.upgrade_sock).parent().is_some_and(Path::exists);
        let place = if to_be_made { own_directory(&self.upgrade_sock) } else { directory_of(&self.upgrade_sock) };
        let place = place.and_then(|()| {
            if !given {
                return Ok(());
            }
            private::check(Path::new(&self.upgrade_sock), &private::owners(self.user.as_deref()))
        });
        match (place, later(&self.upgrade_sock)) {
            (Ok(()), Err(message)) if !given => {
                wrong("user", format!("{message}: give 'upgrade_sock' in a directory of that user"));
            }
            (Err(message), _) | (_, Err(message)) => wrong("upgrade_sock", message),
            (Ok(()), Ok(())) => {}
        }
    }

    /// The access log can be opened when this process serves.
    ///
    /// # Errors
    /// What is in the way.
    pub(super) fn can_log_to(&self, output: &Output) -> Result<(), String> {
        let Output::File(path) = output else { return Ok(()) };
        private::can_write(path, self.later().as_ref())
    }

    /// Who this process becomes, when there is such a user.
    pub(super) fn later(&self) -> Option<Account> {
        Account::of(self.user.as_deref()?, self.group.as_deref())
    }

    /// The groups of that user, which may read keys and secrets of root's.
    pub(super) fn readers(&self) -> Vec<u32> {
        self.later().as_ref().map(Account::groups).unwrap_or_default()
    }

    /// The same settings as Pingora takes them. Through YAML, so that a name that Pingora does not know shows in tests.
    pub fn server_conf(&self) -> Result<ServerConf, String> {
        let text = serde_yaml::to_string(self).map_err(|e| e.to_string())?;
        let mut conf: ServerConf = serde_yaml::from_str(&text).map_err(|e| e.to_string())?;
        if let (Some(user), None) = (&self.user, &self.group) {
            // Or a daemon would keep root's.
            let account = User::from_name(user).ok().flatten();
            let group = account.and_then(|account| Group::from_gid(account.gid).ok().flatten());
            conf.group = Some(group.ok_or_else(|| format!("the group of '{user}' has no name: give 'group'"))?.name);
        }
        // Our own limit (`retry.max_attempts`) is lower.
        conf.max_retries = 64;
        // Or a daemon would live in `/`, where relative paths of the file mean something else.
        conf.working_directory = Some(std::env::current_dir().map_err(|e| format!("the working directory: {e}"))?);
        Ok(conf)
    }
}

/// The pid file that belongs to an upgrade socket, when none is named.
fn pid_beside(sock: &str) -> String {
    Path::new(sock).with_extension("pid").to_string_lossy().into_owned()
}

/// The directory of `path` may be made: what it is to be in is there.
fn own_directory(path: &str) -> Result<(), String> {
    directory_of(&Path::new(path).parent().unwrap_or(Path::new("/")).to_string_lossy())
}

fn directory_of(path: &str) -> Result<(), String> {
    match Path::new(path).parent() {
        Some(dir) if dir.is_dir() => Ok(()),
        Some(dir) => Err(format!("the directory '{}' is not there", dir.display())),
        None => Err(format!("'{path}' is not a file's path")),
    }
}

/// A directory that only this user can write to. Whoever could bind the upgrade socket first would be handed our
/// listening sockets.
fn runtime_dir() -> PathBuf {
    let uid = nix::unistd::geteuid().as_raw();
    let given = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    for dir in given {
        if fs::metadata(&dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid) {
            return dir;
        }
    }
    let dir = std::env::temp_dir().join(format!("tollgate-{uid}"));
    let ours = match fs::symlink_metadata(&dir) {
        Ok(meta) => meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0,
        // It is made by whoever serves.
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    // A directory that somebody else made is left alone; the check of paths then says what is missing.
    if ours { dir } else { dir.join("refused: not owned by this user alone") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use crate::{Registry, config::load, runtime::Shared};

    #[test]
    fn the_pool_of_connections_grows_with_the_backends() {
        let pool = |pingora: &str, backends: usize, more: &str| {
            let urls: Vec<String> = (1..=backends).map(|i| format!("'http://127.0.0.{i}'")).collect();
            let yaml = format!(
                "pingora: {{ {pingora} }}\nlisteners: [{{ address: '127.0.0.1:1' }}]\nservices: {{ s: {{ urls: [{}{more}] }} }}\nroutes: [{{ match: {{ path: /* }}, service: s }}]\n",
                urls.join(", ")
            );
            let plan = load("t", &yaml, &Registry::builtin(), &Shared::new()).unwrap().plan;
            plan.pingora.server_conf().unwrap().upstream_keepalive_pool_size
        };
        assert_eq!(pool("", 3, ""), 128);
        assert_eq!(pool("", 200, ""), 3200);
        assert_eq!(pool("", 20, ", 'http://a.test'"), 28 * 16);
        assert_eq!(pool("upstream_keepalive_pool_size: 64", 200, ""), 64, "what is set stays as it is set");
    }
}
