//! Listeners by their names.

use crate::{
    downstream::ListenerConfig,
    units::nearest,
    yaml::{Short, Spanned},
};

/// The place in the file of the listener with this name.
pub(crate) fn numbered(listeners: &[Spanned<Short<ListenerConfig>>], name: &str) -> Result<usize, String> {
    let names = || listeners.iter().filter_map(|listener| listener.name.as_deref());
    listeners.iter().position(|listener| listener.name.as_deref() == Some(name)).ok_or_else(|| {
        let near = nearest(name, names());
        let hint = match near {
            Some(near) => format!(" (did you mean '{near}'?)"),
            None if names().next().is_none() => ": give one a 'name'".to_owned(),
            None => String::new(),
        };
        format!("there is no listener '{name}'{hint}")
    })
}
