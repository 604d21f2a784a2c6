//! `tollgate hash-password`: the hash of a password that comes from standard input, and never from the command line, which
//! others on the machine can read.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::{exit, failure::fail, output::print};
use crate::auth::{LONGEST_CREDENTIALS, PasswordHash};

/// More than any password that can be presented.
const MOST_READ: u64 = 4096;

/// Reads a password and prints its hash, or with `user` the line of a `users_file`.
pub(super) fn run(user: Option<&str>) -> ExitCode {
    // The line of a `users_file` that begins with '#' is a comment.
    let named = user.is_none_or(|name| {
        let apart = name.contains(|c: char| c == ':' || c.is_control());
        !name.is_empty() && name.trim() == name && !name.starts_with('#') && !apart
    });
    if !named {
        return fail(
            exit::FAILURE,
            "a name must not be empty, begin with '#', nor have a colon, control characters or spaces around it",
        );
    }
    let line = match read() {
        Ok(line) => line,
        Err(e) => return fail(exit::FAILURE, &format!("no password could be read: {e}")),
    };
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return fail(exit::FAILURE, "no password on standard input: printf %s PASSWORD | tollgate hash-password");
    }
    // Clients cannot send any (RFC 7617 §2).
    if password.contains(char::is_control) {
        return fail(exit::FAILURE, "a password has no control characters");
    }
    // A name has one byte at least.
    let most = LONGEST_CREDENTIALS - 1 - user.map_or(1, str::len).min(LONGEST_CREDENTIALS - 1);
    if password.len() > most {
        return fail(exit::FAILURE, &format!("this password is longer than the {most} bytes that can be presented"));
    }
    match (PasswordHash::of(password.as_bytes()), user) {
        (Ok(hash), Some(name)) => print(&format!("{name}:{hash}\n")),
        (Ok(hash), None) => print(&format!("{hash}\n")),
        (Err(e), _) => fail(exit::FAILURE, &format!("no hash could be made: {e}")),
    }
}

/// One line of a terminal, or all that comes from elsewhere: of two lines, neither alone is what was meant.
fn read() -> io::Result<String> {
    let mut line = String::new();
    let input = io::stdin();
    if !input.is_terminal() {
        input.lock().take(MOST_READ).read_to_string(&mut line)?;
        return Ok(line);
    }
    let _ = write!(io::stderr().lock(), "password: ");
    let silent = Silent::begin()?;
    input.lock().read_line(&mut line)?;
    drop(silent);
    let _ = writeln!(io::stderr().lock());
    Ok(line)
}

/// A terminal that does not show what is typed.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
