//! Lines that a process and its successor say to one another.

use std::{
    io::{self, Read},
    time::Duration,
};

/// Time for a line that is due at once.
pub(super) const PROMPT: Duration = Duration::from_secs(5);

/// The longest line: as many IPv6 addresses as there can be sockets in one message.
const LINE: usize = 16 << 10;

/// Reads a line without its end; nothing at the end of the stream. A process that is stopped and goes on finds its read
/// interrupted, and repeats it.
pub(super) fn line(stream: &mut impl Read) -> io::Result<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while text.len() < LINE {
        match stream.read(&mut byte) {
            Ok(1) if byte[0] != b'\n' => text.push(byte[0]),
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
