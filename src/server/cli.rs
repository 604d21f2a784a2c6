//! The command line.

use std::{
    env,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use super::{demo, exit, run_args::CONFIG, serve};
use crate::{
    auth, config,
    filter::Registry,
    runtime::Shared,
    server::{failure::fail, run_args::RunArgs},
    units::counted,
};

/// The version, and what it was built of.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TOLLGATE_BUILD"), ")");

/// A programmable API gateway and reverse proxy.
///
/// Without a file, and without ./tollgate.yaml, it proxies $BACKEND_URL (default http://localhost:8000) on $GATEWAY_PORT (default 8080), with
/// 10 requests a second per client, burst 20.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, long_version = VERSION, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run(RunArgs),
    /// Check the configuration and run its tests.
    Check {
        /// The configuration file. Default: $TOLLGATE_CONFIG.
        #[arg(short = 'c', long = "conf", visible_alias = "config", value_name = "FILE")]
        conf: Option<PathBuf>,
        /// The same, without the flag.
        #[arg(value_name = "FILE", conflicts_with = "conf")]
        file: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Run three small backends and the gateway in front of them.
    Demo(demo::DemoArgs),
    /// Print the completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// Print the SHA-256 of an API key read from standard input, for `api_keys:`.
    HashKey {
        /// Make a new random key and print it with its digest.
        #[arg(long)]
        new: bool,
    },
}

impl Cli {
    pub(super) fn run(self, registry: &Registry) -> ExitCode {
        match self.command {
            None => run(&self.run, registry),
            Some(Command::Run(args)) => run(&args, registry),
            Some(Command::Check { conf, file }) => {
                // Not clap's doing: it would take the variable and FILE for two that conflict.
                let given = || env::var_os(CONFIG).map(PathBuf::from);
                check(conf.or(file).or_else(given).as_deref(), registry)
            }
            Some(Command::Schema) => print(&format!("{:#}\n", config::schema(registry))),
            Some(Command::Demo(args)) => demo::run(&args, registry),
            Some(Command::Completions { shell }) => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "tollgate", &mut text);
                print(&String::from_utf8_lossy(&text))
            }
            Some(Command::Man) => {
                let mut text = Vec::new();
                match clap_mangen::Man::new(Self::command()).render(&mut text) {
                    Ok(()) => print(&String::from_utf8_lossy(&text)),
                    Err(e) => fail(exit::FAILURE, &format!("no manual page could be made: {e}")),
                }
            }
            Some(Command::HashKey { new }) => hash_key(new),
        }
    }
}

/// Output of a command that was asked for it.
fn print(text: &str) -> ExitCode {
    // A reader that has gone (`| head`) is no failure of ours.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn run(args: &RunArgs, registry: &Registry) -> ExitCode {
    if args.test { check(args.conf.as_deref(), registry) } else { serve::run(args, registry) }
}

fn check(conf: Option<&Path>, registry: &Registry) -> ExitCode {
    match serve::load(conf, registry, &Shared::new()) {
        Ok((name, loaded)) => {
            if let Err(message) = serve::may_start(&loaded.plan.pingora) {
                return fail(exit::CONFIG, &message);
            }
            let (routes, services) = (loaded.runtime.router.routes().count(), loaded.runtime.services.len());
            let _ = writeln!(
                io::stderr().lock(),
                "{name}: ok ({}, {}, {})",
                counted(routes, "route"),
                counted(services, "service"),
                counted(loaded.tests, "test")
            );
            ExitCode::SUCCESS
        }
        Err(rejected) => fail(exit::CONFIG, &rejected.to_string()),
    }
}

fn hash_key(new: bool) -> ExitCode {
    if new {
        return match auth::generate_key() {
            Ok(key) => print(&format!("key: {key}\nsha256: {}\n", auth::Digest::of(key.as_bytes()))),
            Err(e) => fail(exit::FAILURE, &format!("no key could be made: {e}")),
        };
    }
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr().lock(), "key: ");
    }
    let mut line = String::new();
    if let Err(e) = io::stdin().lock().read_line(&mut line) {
        return fail(exit::FAILURE, &format!("no key could be read: {e}"));
    }
    match line.trim_end_matches(['\n', '\r']) {
        "" => fail(exit::FAILURE, "no key on standard input: printf %s KEY | tollgate hash-key"),
        key => print(&format!("{}\n", auth::Digest::of(key.as_bytes()))),
    }
}
