//! Fields of a head, several of them changed at once.
//!
//! Pingora's heads take a field with the spelling of its name, and read its name from that again: several times the work of
//! putting it into a map. Most heads here keep no spelling, so that their map can be taken out, changed and put back.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, request, response};
use pingora::{
    ErrorType, OrErr as _, Result,
    http::{RequestHeader, ResponseHeader},
};

const TOO_MANY: &str = "more fields than a head can hold";

/// Fields that can be changed.
pub(crate) trait FieldsMut {
    /// All of them.
    fn all(&self) -> &HeaderMap;
    /// Sets a field in place of all lines of that name.
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Adds a line.
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
}

/// A head whose fields can be changed together.
pub(crate) trait Edit {
    /// Changes them.
    fn edit<R>(&mut self, change: impl FnOnce(&mut dyn FieldsMut) -> R) -> R;
}

impl FieldsMut for HeaderMap {
    fn all(&self) -> &HeaderMap {
        self
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_insert(name, value).map(drop).or_err(ErrorType::InvalidHTTPHeader, TOO_MANY)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_append(name, value).map(drop).or_err(ErrorType::InvalidHTTPHeader, TOO_MANY)
    }
}

impl FieldsMut for RequestHeader {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(drop)
    }
}

impl FieldsMut for ResponseHeader {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(drop)
    }
}

/// Forgets how the names of a head's fields were written: it costs to keep that in step with them.
pub(crate) fn forget_spelling(head: &mut ResponseHeader) -> Result<()> {
    if !head.has_case() {
        return Ok(());
    }
    let reason = head.get_reason_phrase().filter(|reason| head.status.canonical_reason() != Some(*reason));
    let reason = reason.map(str::to_owned);
    let own = std::mem::replace(head, ResponseHeader::from(Response::new(()).into_parts().0));
    *head = ResponseHeader::from(response::Parts::from(own));
    match reason {
        Some(reason) => head.set_reason_phrase(Some(&reason)),
        None => Ok(()),
    }
}

impl Edit for RequestHeader {
    fn edit<R>(&mut self, change: impl FnOnce(&mut dyn FieldsMut) -> R) -> R {
        // A target that was not written as the URI writes it would be lost with its head.
        let target = self.uri.path_and_query().map(|target| target.as_str().as_ptr());
        if self.has_case() || target != Some(self.raw_path().as_ptr()) {
            return change(self);
        }
        let ends_with_head = self.send_end_stream();
        let own = std::mem::replace(self, RequestHeader::from(Request::new(()).into_parts().0));
        let mut parts = request::Parts::from(own);
        let result = change(&mut parts.headers);
        *self = RequestHeader::from(parts);
        if let Some(ends_with_head) = ends_with_head {
            self.set_send_end_stream(ends_with_head);
        }
        result
    }
}

impl Edit for ResponseHeader {
    fn edit<R>(&mut self, change: impl FnOnce(&mut dyn FieldsMut) -> R) -> R {
        // A reason phrase of its own would be lost with its head.
        if self.has_case() || self.get_reason_phrase() != self.status.canonical_reason() {
            return change(self);
        }
        let own = std::mem::replace(self, ResponseHeader::from(Response::new(()).into_parts().0));
        let mut parts = response::Parts::from(own);
        let result = change(&mut parts.headers);
        *self = ResponseHeader::from(parts);
        result
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::{Version, header};

    use super::*;

    fn change(fields: &mut dyn FieldsMut) -> Result<()> {
        fields.insert(header::VIA, HeaderValue::from_static("a"))?;
        fields.append(header::VIA, HeaderValue::from_static("b"))?;
        fields.insert(HeaderName::from_static("x-one"), HeaderValue::from_static("1"))?;
        assert_eq!(fields.all().len(), 4);
        fields.insert(HeaderName::from_static("x-one"), HeaderValue::from_static("2"))
    }

    #[test]
    fn a_request_keeps_what_is_no_field() {
        for (target, with_case) in [("/a?b", false), ("/a?b", true), ("http://h/a?b", false), ("*", false)] {
            let build = if with_case { RequestHeader::build } else { RequestHeader::build_no_case };
            let mut head = build("POST", target.as_bytes(), None).unwrap();
            head.insert_header("X-Two", "2").unwrap();
            head.set_version(Version::HTTP_2);
            head.set_send_end_stream(false);
            let path = head.uri.clone();
            head.edit(change).unwrap();
            assert_eq!((head.raw_path(), &head.uri), (target.as_bytes(), &path));
            assert_eq!(
                (head.method.as_str(), head.version, head.send_end_stream()),
                ("POST", Version::HTTP_2, Some(false))
            );
            let mut wire = Vec::new();
            head.header_to_h1_wire(&mut wire);
            let two = if with_case { "X-Two" } else { "x-two" };
            assert_eq!(
                String::from_utf8(wire).unwrap(),
                format!("{two}: 2\r\nvia: a\r\nvia: b\r\nx-one: 2\r\n"),
                "{target}"
            );
        }
    }

    #[test]
    fn an_answer_keeps_what_is_no_field() {
        for (reason, with_case) in [(None, false), (None, true), (Some("Fine"), false)] {
            let build = if with_case { ResponseHeader::build } else { ResponseHeader::build_no_case };
            let mut head = build(404, None).unwrap();
            head.set_reason_phrase(reason).unwrap();
            head.insert_header("X-Two", "2").unwrap();
            head.edit(change).unwrap();
            assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (404, reason.or(Some("Not Found"))));
            assert_eq!((head.headers["x-one"].as_bytes(), head.has_case()), (&b"2"[..], with_case));
            forget_spelling(&mut head).unwrap();
            assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (404, reason.or(Some("Not Found"))));
            assert_eq!((head.headers.len(), head.has_case()), (4, false));
        }
    }
}
