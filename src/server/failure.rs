//! How a command that cannot be carried out ends.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Says why, and ends.
pub(crate) fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{message}");
    ExitCode::from(code)
}
