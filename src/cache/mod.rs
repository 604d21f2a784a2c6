//! A shared cache by RFC 9111: what may be kept, for whom, for how long, and what is said about it. No proxy, no clock: who
//! asks says what time it is (`clock::Now`). Fetching, waiting and writing to clients is `proxy/`'s.
//!
//! The way of a request: `bypass::past` (is it for a cache at all), `key::Keys` (under what it is found), `memory::Memory`
//! (the store), `reuse::decide` (what an entry is good for now), `conditional` and `range` (what of it is sent), `said` (what
//! the answer says about it). The way of an answer: `draft::Draft` (on what terms it is kept: `storable`), `entry::Entry`, the store;
//! after a 304 or a HEAD `refresh`; after an unsafe method `invalidate`.

pub mod allocated;
pub mod body;
pub mod bypass;
pub mod coded;
pub mod condition;
pub mod conditional;
pub mod config;
pub mod date;
pub mod directives;
pub mod disk;
pub mod disk_config;
pub mod draft;
pub mod entry;
pub mod freshness;
pub mod handed_file;
pub mod handed_on;
mod hashed;
pub mod held;
mod index;
pub mod invalidate;
pub mod key;
pub mod list;
pub mod memory;
pub mod metrics;
pub mod overflow;
pub mod policy;
pub mod purge;
pub mod purged;
pub mod query;
pub mod range;
pub mod refresh;
pub mod refusal;
pub mod reuse;
pub mod said;
pub mod shared;
pub mod storable;
pub mod store_config;
pub mod stored_form;
pub mod tags;
pub mod taken_back;
pub mod targeted;
pub mod tier_config;
pub mod trial;
pub mod variants;
pub mod vary;
pub mod whole;

#[cfg(test)]
pub(crate) mod test_entry;
