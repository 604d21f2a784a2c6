//! How a service survives its backends. Circuit breakers, retry budgets, backoff, ejection, slow start,
//! latency estimates and limits that follow latency.
//!
//! Pure: `now` is an argument (monotonic, since the process began), randomness too; nothing here knows HTTP or a
//! backend's address. Everything is shared between threads and cheap where nothing goes wrong.

mod backoff;
mod breaker;
mod budget;
mod ejection;
mod ewma;
mod gradient;
mod note;
mod quantile;
mod warmup;
mod window;

pub use backoff::Backoff;
pub use breaker::{Admission, Breaker, BreakerPolicy, BreakerState, FailureRate, Transition};
pub use budget::{Budget, BudgetPolicy};
pub use ejection::{EjectionPolicy, Health};
pub use ewma::{Ewma, cost};
pub use gradient::{Gradient, GradientPolicy};
pub use note::Note;
pub use quantile::Quantile;
pub use warmup::share as warm_share;
