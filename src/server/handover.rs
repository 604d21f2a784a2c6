//! The running process's side of an upgrade: it listens at `upgrade_sock` (`place.rs`), hands copies of its sockets to a successor
//! that asks, and leaves when that one has confirmed that it takes over. Until then it changes nothing, so that whatever
//! goes wrong on the other side, somebody serves. (Pingora's own way, to send the sockets on SIGQUIT and leave after five
//! seconds, leaves nobody when the successor fails.)
//!
//! ```text
//! successor                              running process
//! tollgate-upgrade 2\n             ->
//!                                  <-    sockets 0.0.0.0:80 127.0.0.1:9090\n   with as many descriptors (SCM_RIGHTS)
//!                                        or: refused REASON\n
//! binds what is new, looks for backends
//! without ["SERVICE", ...]\n       ->   (services without backends, key sets without keys; some at a time)
//!                                        keeps in mind what it purges from here on (`answers.rs`)
//!                                  <-    go on\n
//!                                        or: refused REASON\n, when backends of one of these are known here
//! accepts
//! serving\n                        ->
//!                                  <-    leaving\n
//! puts its socket at upgrade_sock
//! taken\n                          ->
//!                                        leaves, and hands on what it has kept (`answers.rs`)
//! ```
//!
//! What decides is whether `taken` can be written: the running process, when it has waited long enough, shuts its side
//! for reading before it looks a last time. So what was written is read, and what comes later fails, and the successor
//! knows it. Whoever gives up closes the connection, and what it has said before counts for nothing: `serving` is
//! answered, and the answer confirmed. No log line is written between two steps, for the log may block.

use std::{
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rustix::{
    io::retry_on_intr,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt},
};
use tokio::sync::{mpsc, watch};

use super::{
    answers::{self, Gift},
    line::{PROMPT, line},
    parts::{self, CHANGES},
    pid,
    place::UpgradeSocket,
    sockets::Held,
};
use crate::{
    config::PingoraConfig,
    runtime::{Shared, neighbours::Side, words::Listener},
};

/// What a successor says first.
pub(super) const HELLO: &str = "tollgate-upgrade 2";
/// What it says when it accepts connections.
pub(super) const SERVING: &str = "serving";
/// What it says before that, when there are services of which it knows no backend; their names follow.
pub(super) const WITHOUT: &str = "without ";
/// The answer to that, when none is known here either.
pub(super) const GO_ON: &str = "go on";
/// The answer to that: the running process leaves as soon as the successor has confirmed it.
pub(super) const LEAVING: &str = "leaving";
/// What it confirms that with; from then on it serves alone.
pub(super) const TAKEN: &str = "taken";
/// Begins the line with the addresses of the sockets that are handed over.
pub(super) const SOCKETS: &str = "sockets ";
/// Begins the line with the reason of a refusal.
pub(super) const REFUSED: &str = "refused ";
/// The reason of a process that has closed its sockets.
pub(super) const GOING: &str = "this process is leaving";

/// The most descriptors of one message (`SCM_MAX_FD`).
pub(super) const MOST: usize = 253;
/// Time for a successor to start.
const START: Duration = Duration::from_secs(60);
/// Time for this process to come to serve, when a successor asks meanwhile; the successor waits a little longer.
const BEGIN: Duration = Duration::from_secs(2);

/// True when the process at the other end is root's or this user's, or that of the user that this process becomes.
pub(super) fn is_ours(stream: &UnixStream, user: Option<&str>) -> bool {
    let own = nix::unistd::geteuid();
    let later = user.and_then(|name| nix::unistd::User::from_name(name).ok().flatten()).map(|user| user.uid);
    sockopt::socket_peercred(stream).is_ok_and(|other| {
        let uid = nix::unistd::Uid::from_raw(other.uid.as_raw());
        uid.is_root() || uid == own || later == Some(uid)
    })
}

/// The running process's side of a hand-over.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    pub(super) socket: Arc<UpgradeSocket>,
    pub(super) held: Held,
    user: Option<String>,
    pid_file: String,
    shared: Arc<Shared>,
    /// This process is to take over from another one.
    succeeds: bool,
    /// True when this process has not come to serve: it finishes what it has accepted, and ends.
    pub(super) failed: watch::Sender<bool>,
    taken: Arc<AtomicBool>,
    /// True when this process has come to serve, and has no predecessor that could still go on: before that, two
    /// successors of one process could both come to serve, and the pid file could name the first.
    begun: Arc<(Mutex<bool>, Condvar)>,
}

impl Handover {
    /// `succeeds`: from a process that serves until this one does.
    pub(super) fn new(
        socket: UpgradeSocket,
        held: Held,
        config: &PingoraConfig,
        shared: Arc<Shared>,
        succeeds: bool,
    ) -> Self {
        Self {
            shared,
            succeeds,
            socket: Arc::new(socket),
            held,
            user: config.user.clone(),
            pid_file: config.pid_file.clone(),
            failed: watch::Sender::new(false),
            taken: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// From now on there may be a successor.
    pub(super) fn begin(&self) {
        *self.begun.0.lock() = true;
        self.begun.1.notify_all();
    }

    /// True when a successor has taken over, or is about to.
    pub(super) fn has_successor(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// True when this process was to take over, and has not done so.
    pub(super) fn is_unfinished(&self) -> bool {
        self.succeeds && !*self.begun.0.lock()
    }

    /// Waits, for `BEGIN` at most, until this process serves itself.
    fn has_begun(&self) -> bool {
        let mut begun = self.begun.0.lock();
        self.begun.1.wait_while_for(&mut begun, |begun| !*begun, BEGIN);
        *begun
    }

    /// Waits for successors in threads of its own; says so when one serves.
    pub(super) fn listen(&self) -> mpsc::Receiver<()> {
        let (relieved, receiver) = mpsc::channel(1);
        let this = self.clone();
        thread::spawn(move || {
            for stream in this.socket.listener.incoming() {
                let Ok(stream) = stream else {
                    // Too many open files: one of them will be closed.
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                let (this, relieved) = (this.clone(), relieved.clone());
                thread::spawn(move || match this.converse(stream) {
                    Ok(Some((stream, words))) => {
                        let _ = relieved.blocking_send(());
                        if let Some(gift) = Gift::wanted(stream, words, &this.shared) {
                            gift.give(&this.shared);
                        }
                    }
                    Ok(None) => {}
                    Err(reason) if this.held.lock().is_empty() => log::warn!("upgrade: {reason}"),
                    Err(reason) => log::warn!("upgrade: {reason}; this process goes on serving"),
                });
            }
        });
        receiver
    }

    /// The whole of it; the connection and what is to be told when the successor serves, nothing when somebody only looked whether there is an answer.
    fn converse(&self, mut stream: UnixStream) -> Result<Option<(UnixStream, Listener)>, String> {
        let lost = |e: io::Error| format!("the successor cannot be talked to: {e}");
        stream.set_read_timeout(Some(PROMPT)).and_then(|()| stream.set_write_timeout(Some(PROMPT))).map_err(lost)?;
        if !is_ours(&stream, self.user.as_deref()) {
            return Err(refuse(&mut stream, "this process belongs to another user"));
        }
        let hello = line(&mut stream).map_err(lost)?;
        if hello.is_empty() {
            return Ok(None);
        }
        if hello == CHANGES {
            let _ = stream.set_read_timeout(None);
            answers::hear(&stream, &self.shared);
            return Ok(None);
        }
        if hello != HELLO {
            return Err(refuse(&mut stream, &format!("'{}' is not '{HELLO}'", hello.escape_debug())));
        }
        if !self.has_begun() {
            return Err(refuse(&mut stream, "this process has not taken over itself yet: try again"));
        }
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(refuse(&mut stream, "another successor is taking over"));
        }
        let mut may_accept = false;
        let outcome = self.hand_over(&mut stream, &mut may_accept);
        if let Err(reason) = &outcome {
            self.shared.neighbours.has_no_successor();
            if may_accept {
                // Requests to it may have changed something.
                parts::miss(&self.shared, Side::After, false, reason);
            }
            self.socket.put_back();
            pid::take_back(&self.pid_file);
            self.taken.store(false, Ordering::SeqCst);
            // One that is killed closes its connection before its socket.
            thread::sleep(Duration::from_millis(100));
            self.socket.sweep();
        }
        outcome.map(|words| Some((stream, words)))
    }

    /// A successor knows no backend of these services: it must not replace a process that does.
    fn allow_without(&self, names: &[String], stream: &mut UnixStream) -> Result<(), String> {
        let has_backends = |name: &&String| self.shared.service(name).is_some_and(|service| service.has_backends());
        if let Some(name) = names.iter().find(has_backends) {
            let reason = format!("the successor knows no backend of service {name}, and this one does");
            return Err(refuse(stream, &reason));
        }
        let sets = self.shared.key_sets.all();
        if let Some(set) = sets.iter().find(|set| set.is_loaded() && names.contains(&set.source.place.name())) {
            let reason = format!("the successor has not got the keys of {}, and this one has", set.source.place.name());
            return Err(refuse(stream, &reason));
        }
        stream.write_all(format!("{GO_ON}\n").as_bytes()).map_err(|e| format!("the successor cannot be talked to: {e}"))
    }

    /// What was purged since the successor may accept, which is noted as soon as it may.
    fn hand_over(&self, stream: &mut UnixStream, may_accept: &mut bool) -> Result<Listener, String> {
        let lost = |e: io::Error| format!("the successor cannot be talked to: {e}");
        {
            let held = self.held.lock();
            if held.is_empty() {
                return Err(refuse(stream, GOING));
            }
            let addresses: Vec<String> = held.iter().map(|(address, _)| address.to_string()).collect();
            let descriptors: Vec<BorrowedFd<'_>> = held.iter().map(|(_, socket)| socket.as_fd()).collect();
            let text = format!("{SOCKETS}{}\n", addresses.join(" "));
            send(stream, text.as_bytes(), &descriptors).map_err(lost)?;
        }
        stream.set_read_timeout(Some(START)).map_err(lost)?;
        let next =
            |stream: &mut UnixStream| line(stream).map_err(|e| format!("the successor did not begin to serve: {e}"));
        let mut said = next(stream)?;
        let words = self.shared.neighbours.precede();
        loop {
            match said.strip_prefix(WITHOUT).map(serde_json::from_str::<Vec<String>>) {
                Some(Ok(names)) => {
                    self.allow_without(&names, stream)?;
                    *may_accept = true;
                }
                None if said == SERVING => break,
                None if said.is_empty() => return Err("the successor has gone before it served".to_owned()),
                _ => return Err(format!("the successor said '{}'", said.escape_debug())),
            }
            said = next(stream)?;
        }
        let gone = |e: io::Error| format!("the successor has gone before it took over: {e}");
        stream.set_read_timeout(Some(PROMPT)).map_err(gone)?;
        stream.write_all(format!("{LEAVING}\n").as_bytes()).map_err(gone)?;
        confirmed(stream).map(|()| words)
    }
}

/// Whether the successor has taken over: after this, it has said so or cannot any more.
fn confirmed(stream: &mut UnixStream) -> Result<(), String> {
    let mut said = line(stream);
    if said.is_err() {
        let _ = stream.shutdown(Shutdown::Read);
        said = line(stream);
    }
    match said.as_deref() {
        Ok(TAKEN) => Ok(()),
        Ok("") => Err("the successor has gone before it took over".to_owned()),
        Ok(other) => Err(format!("the successor said '{}'", other.escape_debug())),
        Err(e) => Err(format!("the successor did not take over: {e}")),
    }
}

/// Says why not; answers the same for the log.
fn refuse(stream: &mut UnixStream, reason: &str) -> String {
    let _ = stream.write_all(format!("{REFUSED}{reason}\n").as_bytes());
    format!("a successor was refused: {reason}")
}

fn send(stream: &mut UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("there are too many sockets"));
    }
    let text_part = [IoSlice::new(text)];
    let sent = retry_on_intr(|| sendmsg(&*stream, &text_part, &mut control, SendFlags::NOSIGNAL))?;
    stream.write_all(&text[sent..])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_confirmation_is_read_or_fails_and_nothing_between() {
        for (said, taken) in [(&b"taken\n"[..], true), (b"taken", true), (b"serving\n", false), (b"", false)] {
            let (mut own, mut other) = UnixStream::pair().unwrap();
            own.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            other.write_all(said).unwrap();
            other.shutdown(Shutdown::Write).unwrap();
            assert_eq!(confirmed(&mut own).is_ok(), taken, "{said:?}");
        }
        let (mut own, mut other) = UnixStream::pair().unwrap();
        own.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(confirmed(&mut own).unwrap_err().contains("gone before it took over"));
        assert!(other.write_all(b"taken\n").is_err(), "who comes too late must know it");
    }
}
