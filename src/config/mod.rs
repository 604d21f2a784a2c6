//! The one path from YAML to traffic.
//!
//! `text -> tree -> Config -> build -> Loaded`. Start, `-t`, upgrade and the configuration's own `tests:` all take it:
//! there is no second validator and no second matcher. Settings live beside the code they configure; this room only
//! composes them.

mod api_keys;
mod build;
mod cache_trial;
mod caching;
mod consequences;
mod excerpt;
pub(crate) mod expectations;
mod filters;
mod hidden;
pub(crate) mod listener_names;
mod load;
mod plan;
mod private;
mod process;
mod report;
pub(crate) mod root;
mod route_ids;
mod schema;
mod schema_reading;
pub(crate) mod scratch;
#[cfg(test)]
mod seams;
mod shared_store;
pub(crate) mod test_config;
mod warnings;

pub use self::root::{ApiKeyConfig, Config, ShutdownConfig, Via};
pub use load::{Loaded, Rejected, load, read_text};
pub use plan::Plan;
pub use process::PingoraConfig;
pub use report::{Report, Style};
pub use schema::schema;
pub use test_config::TestConfig;
