//! What a command was asked to print.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{exit, failure::fail};

/// Writes `text` to standard output; the exit code says whether that could be done.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone (`| head`) is no failure of ours.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            fail(exit::FAILURE, &format!("standard output cannot be written to: {e}"))
        }
        _ => ExitCode::SUCCESS,
    }
}
