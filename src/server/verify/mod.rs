//! `tollgate limits verify`: sends running gateways more than they may let pass, and compares what has passed with what one exact
//! bucket would have.

mod client;
mod policy;
mod report;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};

use self::{
    client::{Asked, Target},
    policy::Policy,
    report::{Found, Phase},
};
use super::{exit, failure::fail, output::print};
use crate::units::Rate;

/// Beyond that a burst is no longer sent at once.
const MOST: u32 = 5_000;

/// The longest pause between two bursts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// `tollgate limits`.
#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// Send bursts to running gateways, and compare what passes with what their limit says.
    Verify(VerifyArgs),
}

/// The flags of `tollgate limits verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The same path on every gateway, like http://10.0.0.1:8080/users; requests go to each in turn. They are real requests.
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// The limit, like 1000/s. Default: as the gateways' RateLimit-Policy says, which knows whole seconds only.
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Its burst. Default: the rate's count.
    #[arg(long, requires = "rate", value_name = "COUNT")]
    burst: Option<u32>,
    /// A field of every request, like 'X-API-KEY: secret'.
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,
    /// How many times the rate to send after the bursts; several are tried one after another.
    #[arg(long = "load", default_values_t = [4.0], value_name = "FACTOR", value_parser = factor)]
    loads: Vec<f64>,
    /// How long to send each load.
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.01..=1000.0).contains(factor));
    factor.ok_or_else(|| "a factor is a number from 0.01 to 1000".to_owned())
}

/// `tollgate limits`.
pub(super) fn run(command: &LimitsCommand) -> ExitCode {
    let LimitsCommand::Verify(args) = command;
    match verify(args) {
        Ok((text, Found::Kept)) => print(&text),
        Ok((text, found)) => {
            let _ = print(&text);
            let (code, why) = match found {
                Found::Untried => {
                    (exit::UNAVAILABLE, "nothing has passed, so the limit was not tried: -H adds a field, a key say")
                }
                _ => (exit::FAILURE, "more has passed than the limit says"),
            };
            fail(code, why)
        }
        Err(message) => fail(exit::UNAVAILABLE, &message),
    }
}

/// The table, and whether the limit was kept.
fn verify(args: &VerifyArgs) -> Result<(String, Found), String> {
    let fields = client::fields(&args.headers)?;
    let targets: Vec<Target> = args.urls.iter().map(|url| Target::new(url, &fields)).collect::<Result<_, _>>()?;
    let policy = match args.rate {
        Some(rate) => Policy::given(rate, args.burst)?,
        None => told(&targets)?,
    };
    // The request that was asked for its policy has taken a token, and so have earlier ones: every bucket is full after this.
    std::thread::sleep(policy.quota.refill().min(LONGEST_PAUSE));
    let (begun, count) = (Instant::now(), (2 * u64::from(policy.quota.burst())).clamp(10, MOST.into()));
    let mut phases = Vec::new();
    let at_once = || client::at_once(&targets, count, begun);
    phases.push(Phase::new("burst", at_once()?));
    // A counter that begins anew at the edge of a window lets a second burst pass here.
    std::thread::sleep((policy.quota.refill() / 2).min(LONGEST_PAUSE));
    phases.push(Phase::new("burst again", at_once()?));
    let rate = f64::from(policy.quota.count()) / policy.quota.per().as_secs_f64();
    let seconds = Duration::from_secs(args.seconds);
    // Whoever sends less than the limit finds a token from the first request on.
    std::thread::sleep(Duration::from_secs_f64(2.0 / rate).min(LONGEST_PAUSE));
    for load in &args.loads {
        phases.push(Phase::new(&format!("{load} x rate"), client::steadily(&targets, load * rate, seconds, begun)?));
    }
    Ok(report::table(&policy, phases))
}

/// What the gateways say of their limit; all must say the same.
fn told(targets: &[Target]) -> Result<Policy, String> {
    let mut known: Option<Policy> = None;
    for target in targets {
        let Asked { policy, status, .. } = target.connect()?.ask(Instant::now())?;
        let text = policy.ok_or_else(|| {
            format!(
                "{} answers {status} without RateLimit-Policy: say what to expect with --rate and --burst",
                target.url()
            )
        })?;
        let policy = Policy::read(&text).map_err(|wrong| format!("{}: {wrong}", target.url()))?;
        if known.as_ref().is_some_and(|known| *known != policy) {
            return Err(format!("{} has another limit than the first one: {text}", target.url()));
        }
        known = Some(policy);
    }
    known.ok_or_else(|| "there is no URL".to_owned())
}
