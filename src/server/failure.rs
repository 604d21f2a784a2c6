//! How a command that cannot be carried out ends.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Writes the reason to standard error and returns the exit code.
pub(crate) fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{message}");
    ExitCode::from(code)
}
