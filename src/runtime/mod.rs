//! What serves: a [`Runtime`] is built whole, never edited, only replaced; [`Shared`] is what outlives it; [`Live`] holds
//! the one that serves now.

mod built;
pub mod cache_disk;
pub mod cache_tier;
mod disk_answer;
mod disk_files;
mod disk_left;
pub mod flights;
mod heard;
pub mod heir;
mod key_refresh;
mod live;
mod metrics;
pub mod neighbours;
pub mod purging;
mod shared;
mod tasks;
pub mod underway;
pub mod untold;
pub mod words;

pub(crate) use self::tasks::Tasks;
pub use self::{built::Runtime, live::Live, metrics::Metrics, shared::Shared};
