//! The command line.

use std::{
    env,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{demo, exit, hash_password, purge, run_args::from_environment, serve, verify};
use crate::{
    auth,
    config::{self, Style},
    filter::Registry,
    runtime::Shared,
    server::{failure::fail, output::print, run_args::RunArgs},
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
    /// Colours and lines of the file in what is said of it: at a terminal, always, or never.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(subcommand)]
    command: Option<Command>,
}

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Scripts read lines; people at a terminal see the file, too. `NO_COLOR` is a wish of theirs (no-color.org).
    fn style(self) -> Style {
        let terminal = io::stderr().is_terminal();
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = match self {
            Self::Auto => terminal && !unwanted,
            Self::Always => true,
            Self::Never => false,
        };
        Style { excerpts: terminal || self == Self::Always, colour }
    }
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
        /// Warnings are errors, too.
        #[arg(long)]
        strict: bool,
    },
    /// What the running gateway keeps of answers.
    #[command(subcommand)]
    Cache(purge::CacheCommand),
    /// What running gateways let pass.
    #[command(subcommand)]
    Limits(verify::LimitsCommand),
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
    /// Print the argon2id hash of a password read from standard input, for `users` of the filter `basic`.
    HashPassword {
        /// Print the line for a `users_file`, of the user of this name.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Print the SHA-256 of an API key read from standard input, for `api_keys:`.
    HashKey {
        /// Make a new random key and print it with its digest.
        #[arg(long)]
        new: bool,
    },
}

impl Cli {
    pub(super) fn run(self, registry: &Registry) -> ExitCode {
        let style = self.color.style();
        match self.command {
            None => run(&self.run, style, registry),
            Some(Command::Run(args)) => run(&args, style, registry),
            Some(Command::Check { conf, file, strict }) => {
                check(conf.or(file).or_else(from_environment).as_deref(), strict, style, registry)
            }
            Some(Command::Cache(command)) => purge::run(&command, style, registry),
            Some(Command::Limits(command)) => verify::run(&command),
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
            Some(Command::HashPassword { user }) => hash_password::run(user.as_deref()),
            Some(Command::HashKey { new }) => hash_key(new),
        }
    }
}

fn run(args: &RunArgs, style: Style, registry: &Registry) -> ExitCode {
    if args.test {
        check(args.file().as_deref(), args.strict, style, registry)
    } else {
        serve::run(args, style, registry)
    }
}

fn check(conf: Option<&Path>, strict: bool, style: Style, registry: &Registry) -> ExitCode {
    match serve::load(conf, registry, &Shared::new()) {
        Ok((name, loaded)) => {
            if let Err(message) = serve::may_start(&loaded.plan.pingora) {
                return fail(exit::CONFIG, &message);
            }
            if !loaded.warnings.found.is_empty() {
                let warnings = loaded.warnings.styled(style);
                if strict {
                    return fail(exit::CONFIG, &warnings);
                }
                let _ = writeln!(io::stderr().lock(), "{warnings}");
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
        Err(rejected) => fail(exit::CONFIG, &rejected.0.styled(style)),
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
