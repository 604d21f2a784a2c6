//! `-d`: the command returns when the process in the background serves, with an exit code that is true.
//!
//! Pingora forks, and the process that was started ends at once; its way to wait for the other is a signal that may come
//! before anybody listens for it. So the command starts itself once more and waits at a pipe: what it reads is that the
//! process serves, or the end, when there is nobody left who could say so.

use std::{
    env,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, ExitCode},
};

use super::exit;
use crate::server::failure::fail;

/// Set for the process that is to go into the background.
const LAUNCHED: &str = "TOLLGATE_LAUNCHED";

/// What is said when it serves.
const SERVING: &[u8; 8] = b"serving\n";

/// Where to say that the process serves.
#[derive(Debug)]
pub(super) struct Launcher(File);

impl Launcher {
    /// The one that has started this process, if any.
    pub(super) fn of_this_process() -> Option<io::Result<Self>> {
        env::var_os(LAUNCHED)?;
        // The one stream that a daemon has no other use for: it keeps the others.
        Some(io::stdin().as_fd().try_clone_to_owned().map(|pipe| Self(pipe.into())))
    }

    /// The process serves.
    pub(super) fn tell(mut self) {
        if let Err(e) = self.0.write_all(SERVING) {
            log::warn!("the process that started this one cannot be told that it serves: {e}");
        }
    }
}

/// Starts this command once more, to go into the background, and waits until that serves or has failed.
pub(super) fn launch(directory: Option<&Path>) -> ExitCode {
    match start(directory) {
        Ok(code) => code,
        Err(e) => fail(exit::FAILURE, &format!("cannot start a process in the background: {e}")),
    }
}

fn start(directory: Option<&Path>) -> io::Result<ExitCode> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(env::current_exe()?);
    // The file is named from there.
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let mut child = command.args(env::args_os().skip(1)).env(LAUNCHED, "1").stdin(writer).spawn()?;
    // It keeps the other end of the pipe.
    drop(command);
    let mut said = [0; SERVING.len()];
    let serves = reader.read_exact(&mut said).is_ok() && said == *SERVING;
    let status = child.wait()?;
    if serves {
        return Ok(ExitCode::SUCCESS);
    }
    // What fails in the background has its reason in the error log.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(ExitCode::from(code.unwrap_or(exit::FAILURE)))
}
