//! `-u`: the successor's side of taking over. The conversation is in `handover.rs`.
//!
//! Until this process has confirmed that it takes over, the predecessor serves; whatever fails before ends this process
//! and nothing else.

use std::{
    io::{self, IoSliceMut, Write as _},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use rustix::{
    io::retry_on_intr,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::{
    handover::{GO_ON, GOING, HELLO, LEAVING, MOST, REFUSED, SERVING, SOCKETS, TAKEN, WITHOUT, is_ours},
    line::{PROMPT, line},
    place::{UpgradeSocket, answers},
    sockets::Bound,
};

/// So many names are in a line, which has room for more.
const MOST_NAMED: usize = 20;

/// The running process that is being taken over from.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    path: String,
}

/// Asks the process that answers at `path` for its sockets.
///
/// # Errors
/// Why there are none.
pub(super) fn ask(path: &str, user: Option<&str>) -> Result<(Predecessor, Vec<Bound>), String> {
    let stream = UnixStream::connect(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!(
            "no running gateway: there is no upgrade socket '{path}' (without 'pingora.upgrade_sock' its name comes from the first listener's port)"
        ),
        io::ErrorKind::ConnectionRefused => format!("no running gateway answers at '{path}'"),
        _ => format!("the running gateway cannot be asked at '{path}': {e}"),
    })?;
    if !is_ours(&stream, user) {
        return Err(format!("upgrade: what answers at '{path}' belongs to another user"));
    }
    let mut predecessor = Predecessor { stream, path: path.to_owned() };
    let sockets = predecessor.sockets().map_err(|reason| {
        let now = match () {
            () if reason.ends_with(GOING) => "start without -u",
            () if answers(path) => "it goes on serving",
            () => "now no running gateway answers there",
        };
        format!("upgrade: {reason}; {now}")
    })?;
    Ok((predecessor, sockets))
}

impl Predecessor {
    fn sockets(&mut self) -> Result<Vec<Bound>, String> {
        let lost = |e: io::Error| format!("the running process cannot be talked to: {e}");
        self.stream.set_read_timeout(Some(PROMPT)).map_err(lost)?;
        self.stream.set_write_timeout(Some(PROMPT)).map_err(lost)?;
        self.stream.write_all(format!("{HELLO}\n").as_bytes()).map_err(lost)?;
        let (answer, descriptors) = receive(&mut self.stream).map_err(lost)?;
        if answer.is_empty() {
            return Err("the running process closed the connection".to_owned());
        }
        if let Some(reason) = answer.strip_prefix(REFUSED) {
            return Err(format!("the running process refused: {reason}"));
        }
        let Some(addresses) = answer.strip_prefix(SOCKETS) else {
            return Err(format!("the running process answered '{}'", answer.escape_debug()));
        };
        let addresses: Vec<SocketAddr> = addresses
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("the running process answered '{}'", answer.escape_debug()))?;
        if addresses.len() != descriptors.len() {
            return Err(format!(
                "the running process named {} sockets and sent {}",
                addresses.len(),
                descriptors.len()
            ));
        }
        Ok(addresses.into_iter().zip(descriptors.into_iter().map(TcpListener::from)).collect())
    }

    /// Tells it that this process serves, puts `socket` in the place of its own, and lets it go, unless this process
    /// `leaves` itself. Gives back the connection to it, if it has not ended by itself.
    ///
    /// # Errors
    /// It does not go.
    pub(super) fn relieve(
        mut self,
        socket: &UpgradeSocket,
        leaves: impl Fn() -> bool,
    ) -> Result<Option<UnixStream>, String> {
        let Err(reason) = self.take_over(socket, leaves) else { return Ok(Some(self.stream)) };
        // It may have died meanwhile: then nobody serves if we do not.
        if socket.withdraw() {
            if answers(&self.path) {
                return Err(format!("upgrade: the running process stays: {reason}"));
            }
            if let Err(e) = socket.install() {
                log::error!("upgrade: {e}; 'tollgate -u' will not find this process");
            }
        }
        log::warn!("upgrade: the process before has ended by itself");
        Ok(None)
    }

    /// Asks whether this process may replace it although it knows no backend of these services. It asks without any, too: from
    /// then on the running process keeps in mind what it purges, for this one begins to accept.
    ///
    /// # Errors
    /// It may not: the running process knows one.
    pub(super) fn ask_to_be_without(&mut self, names: &[String]) -> Result<(), String> {
        let (first, rest) = names.split_at(names.len().min(MOST_NAMED));
        for some in std::iter::once(first).chain(rest.chunks(MOST_NAMED)) {
            self.say(&format!("{WITHOUT}{}", serde_json::json!(some))).map_err(|e| e.to_string())?;
            let answer = line(&mut self.stream).map_err(|e| e.to_string())?;
            if answer != GO_ON {
                let reason = answer.strip_prefix(REFUSED).unwrap_or("it has not answered");
                return Err(format!("upgrade: the running process stays: {reason}"));
            }
        }
        Ok(())
    }

    fn say(&self, what: &str) -> io::Result<()> {
        (&self.stream).write_all(format!("{what}\n").as_bytes())
    }

    fn take_over(&mut self, socket: &UpgradeSocket, leaves: impl Fn() -> bool) -> Result<(), String> {
        self.say(SERVING).map_err(|e| e.to_string())?;
        let answer = line(&mut self.stream).map_err(|e| e.to_string())?;
        if answer != LEAVING {
            return Err(format!("it answered '{}'", answer.escape_debug()));
        }
        if leaves() {
            return Err("this one has been told to leave".to_owned());
        }
        // Before it goes: a process that cannot be asked could never be replaced.
        socket.exchange().map_err(|e| format!("this one cannot be asked at upgrade_sock {}: {e}", self.path))?;
        self.say(TAKEN).map_err(|e| format!("it has not waited: {e}"))
    }
}

/// A line, and the descriptors that came with it.
fn receive(stream: &mut UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let read = retry_on_intr(|| recvmsg(&*stream, &mut [IoSliceMut::new(&mut first)], &mut control, flags))?.bytes;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if read == 0 || first == *b"\n" {
        return Ok((String::new(), descriptors));
    }
    let mut text = String::from_utf8_lossy(&first).into_owned();
    text.push_str(&line(stream)?);
    Ok((text, descriptors))
}
