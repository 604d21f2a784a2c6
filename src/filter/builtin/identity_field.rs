//! The field by which a filter tells backends who the client is.

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::{
    auth::Method,
    filter::{Fault, State},
    message::edit::Edit as _,
};

/// Writes into `field` whom the credential of this kind names, in place of whatever is there; nothing, when there is none.
pub(super) fn tell(head: &mut RequestHeader, field: &HeaderName, state: &State, method: Method) -> Result<(), Fault> {
    head.remove_header(field);
    let Some(identity) = state.identities.by(method) else { return Ok(()) };
    let value = HeaderValue::try_from(&identity.subject).map_err(|e| Fault(format!("identity header: {e}")))?;
    head.edit(|fields| fields.insert(field.clone(), value)).map_err(|e| Fault(e.to_string()))
}
