//! A configuration with state of its own, for its own tests.

use super::{Config, build};
use crate::{
    filter::Registry,
    runtime::{Runtime, Shared},
    yaml::{parse, read},
};

/// Builds only the part that decides on requests, with state of its own, for the configuration's tests.
pub(crate) fn scratch(text: &str, registry: &Registry) -> Option<Runtime> {
    let (root, mut problems) = parse(text, &|name| std::env::var(name).ok()).ok()?;
    let config = read::<Config>(&root).0?;
    Some(build::build(config, &root, registry, &Shared::new(), &mut problems).0)
}
