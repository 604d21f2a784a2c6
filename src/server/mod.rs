//! From the command line to a process that serves, hands over and leaves.

mod account;
mod answers;
mod background;
mod cli;
mod daemon;
mod demo;
pub(crate) mod failure;
mod files;
mod front;
mod handover;
mod hash_password;
mod line;
mod logging;
mod notify;
mod opening;
mod output;
mod parts;
mod pid;
mod place;
mod purge;
pub(crate) mod run_args;
mod serve;
mod signals;
mod sockets;
mod upgrade;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::filter::Registry;

/// What a process ends with.
pub(crate) mod exit {
    /// Something went wrong while running.
    pub(crate) const FAILURE: u8 = 1;
    /// What was to be looked at could not be (`EX_UNAVAILABLE` of sysexits).
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The configuration is wrong (`EX_CONFIG` of sysexits).
    pub(crate) const CONFIG: u8 = 78;
}

/// Runs the gateway's command line with the filters of `registry`: the whole `main` of a gateway with filters of its
/// own.
pub fn run(registry: Registry) -> ExitCode {
    cli::Cli::parse().run(&registry)
}
