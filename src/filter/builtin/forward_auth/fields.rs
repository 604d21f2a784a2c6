//! Fields that `forward_auth` takes from one side to another: what the service sees of the client's, what backends see of the service's.

use http::{HeaderName, header};

use super::{question::MADE, settings::ForwardAuthConfig};
use crate::{
    filter::{Invalid, builtin::field_names::FieldNames},
    message::{forwarded::FORWARDED, hop_by_hop},
};

/// The client's fields that the service sees.
pub(super) fn shown(names: &[String], invalid: &mut Invalid) -> Vec<HeaderName> {
    let mut shown: Vec<HeaderName> = Vec::new();
    for (i, text) in names.iter().enumerate() {
        let mut wrong = |message: String| invalid.push(format!("request_headers[{i}]"), message);
        let Ok(name) = text.parse::<HeaderName>() else {
            wrong(format!("'{text}' is not a header name"));
            continue;
        };
        let dashed = name.as_str().replace('_', "-");
        // `Content-Length` is among the first: there is no body.
        let message = hop_by_hop::NOT_EDITABLE.contains(&name) || name == header::EXPECT;
        if message {
            wrong(format!("'{text}' belongs to the connection, or to the body, which is not sent"));
        } else if FORWARDED.contains(&dashed.as_str()) || MADE.iter().any(|made| made.as_str() == dashed) {
            wrong(format!("'{text}' is made by the gateway, and not taken from the client"));
        } else if shown.contains(&name) {
            wrong(format!("'{text}' is there twice"));
        } else {
            shown.push(name);
        }
    }
    shown
}

/// The fields of the answer that backends see.
pub(super) fn told(config: &ForwardAuthConfig, invalid: &mut Invalid) -> Vec<HeaderName> {
    let mut told = Vec::new();
    for (i, text) in config.response_headers.iter().enumerate() {
        if text.eq_ignore_ascii_case("authorization") {
            if config.forward {
                invalid.push(
                    format!("response_headers[{i}]"),
                    "with 'forward' it is the client's: leave one of the two out",
                );
            }
            told.push(header::AUTHORIZATION);
        }
    }
    let mut names = FieldNames::new(invalid);
    for (i, text) in config.response_headers.iter().enumerate() {
        if !text.eq_ignore_ascii_case("authorization") {
            told.push(names.told(&format!("response_headers[{i}]"), text));
        }
    }
    told
}

/// The field of the answer that says who the client is; `told` are those that backends see. No client may send it either.
pub(super) fn identity(config: &ForwardAuthConfig, told: &[HeaderName], invalid: &mut Invalid) -> Option<HeaderName> {
    let text = config.identity.as_ref()?;
    let known = text.parse().ok().filter(|name| told.contains(name));
    Some(known.unwrap_or_else(|| FieldNames::new(invalid).told("identity", text)))
}
