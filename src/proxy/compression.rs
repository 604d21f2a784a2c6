//! Answers made smaller, by Pingora's encoders. When, and by which, is decided in `message/content_coding.rs`: Pingora's
//! own module knows no weights, codes parts, and loses the end of answers with trailers. Only answers that are coded get a
//! module; it is what sees every part of an answer, and its end, last.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    modules::http::{HttpModule, HttpModuleBuilder, HttpModuleCtx, HttpModules, Module},
    protocols::http::compression::{Algorithm, Encode},
    proxy::Session,
};

use super::{context::Context, request};
use crate::{
    cache::{
        body::Body,
        coded::{CodedBodies, Form},
    },
    downstream::ConnectionInfo,
    message::{
        coding_terms::CodingTerms,
        content_coding::{self, ContentCoding},
        fields::number,
    },
};

static MODULES: LazyLock<HttpModules> = LazyLock::new(|| {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Builder));
    modules
});

struct Builder;

impl HttpModuleBuilder for Builder {
    fn init(&self) -> Module {
        Box::new(Compressor::default())
    }
}

/// What is done to the answer, once its head is on its way.
struct Plan {
    coding: ContentCoding,
    terms: Arc<CodingTerms>,
    /// The answer to a HEAD request says what one to GET would, and has no body.
    head_only: bool,
    /// Over HTTP/2, where trailers follow the end of the body; HTTP/1 loses them.
    http2: Option<Arc<ConnectionInfo>>,
}

#[derive(Default)]
struct Compressor {
    plan: Option<Plan>,
    /// While a body is under way.
    encoder: Option<Encoder>,
}

/// Compresses the answer with this head by these `terms`, if the client takes it; true when it does.
///
/// # Errors
/// A field cannot be set.
pub(super) fn begin(
    session: &mut Session,
    head: &mut ResponseHeader,
    terms: Arc<CodingTerms>,
) -> pingora::Result<bool> {
    let covered = terms.cover(head);
    let http2 = if request::is_http2(session) { ConnectionInfo::of(session).cloned() } else { None };
    if let Some(modules) = modules(session.req_header(), head, terms, http2)? {
        session.downstream_modules_ctx = modules;
        return Ok(covered);
    }
    Ok(false)
}

/// What compresses the answer with this head to a request with the head `asked`, if the client takes it.
///
/// # Errors
/// A field cannot be set.
pub(super) fn modules(
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    terms: Arc<CodingTerms>,
    http2: Option<Arc<ConnectionInfo>>,
) -> pingora::Result<Option<HttpModuleCtx>> {
    if request::is_old(asked) {
        return Ok(None);
    }
    if head.status == StatusCode::NOT_MODIFIED {
        return content_coding::recall(head, &asked.headers).map(|()| None);
    }
    let Some(coding) = content_coding::wanted(&asked.headers, &terms.algorithms) else { return Ok(None) };
    let head_only = asked.method == Method::HEAD;
    let mut modules = MODULES.build_ctx();
    if let Some(module) = modules.get_mut::<Compressor>() {
        module.plan = Some(Plan { coding, terms, head_only, http2 });
    }
    Ok(Some(modules))
}

/// The body of a kept answer as its client takes it, which is made once; its head is changed to say so. Nothing when the client takes
/// it as it is, or it is not to be kept coded.
///
/// # Errors
/// It cannot be coded, or a field cannot be set.
pub(super) fn kept(
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    terms: &CodingTerms,
    context: &Context,
) -> pingora::Result<Option<Body>> {
    if request::is_old(asked) || !terms.cover(head) {
        return Ok(None);
    }
    let Some(coding) = content_coding::wanted(&asked.headers, &terms.algorithms) else { return Ok(None) };
    let body = context.cached.as_ref().and_then(|cached| cached.body());
    let bodies = context.shared.cache.coded();
    let form = body.and_then(|body| Some((body, bodies.form(body, coding, terms.level)?)));
    let Some((body, form)) = form else { return Ok(None) };
    let known = bodies.get(&form);
    let coded = known.map_or_else(|| code(body, form, &bodies), |known| Ok(Some(known)))?;
    let Some(coded) = coded else { return Ok(None) };
    content_coding::announce(head, coding, false)?;
    head.insert_header(header::CONTENT_LENGTH, number(coded.len() as u64))?;
    Ok(Some(coded))
}

/// True when the kept answer with these fields would be compressed for a request with those.
pub(super) fn would_code(asked: &HeaderMap, (status, kept): (StatusCode, &HeaderMap), context: &Context) -> bool {
    let terms = context.state.compress.as_ref();
    let wants = |terms: &CodingTerms| content_coding::wanted(asked, &terms.algorithms).is_some();
    let Some(terms) = terms.filter(|terms| wants(terms)) else { return false };
    ResponseHeader::build(status, None).is_ok_and(|mut head| {
        kept.iter().for_each(|(name, value)| drop(head.append_header(name, value.clone())));
        terms.cover(&head)
    })
}

/// Compresses what was kept and takes the place of a backend's answer: its body is with the connection. One that is not to be kept coded
/// stays as it is.
///
/// # Errors
/// It cannot be coded, or a field cannot be set.
pub(super) fn instead(
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    terms: &CodingTerms,
    context: &Context,
) -> pingora::Result<()> {
    if head.status == StatusCode::NOT_MODIFIED {
        return content_coding::recall(head, &asked.headers);
    }
    // An answer to HEAD says what one to GET would.
    let coded = kept(asked, head, terms, context)?.filter(|_| asked.method == Method::GET);
    if let (Some(coded), Some(info)) = (coded, &context.info) {
        info.leave_body(coded.parts().to_vec());
    }
    Ok(())
}

/// Codes a body, and keeps it for the next clients.
fn code(body: &Body, form: Form, bodies: &CodedBodies) -> pingora::Result<Option<Body>> {
    let (Some(mut encoder), Some(mut coded)) = (Encoder::of(form.coding, form.level), bodies.filling(body.len()))
    else {
        return Ok(None);
    };
    for part in body.parts() {
        coded.extend(&encoder.encode(part)?);
    }
    coded.extend(&encoder.end(&[])?);
    let coded = coded.finish();
    bodies.keep(form, &coded);
    Ok(Some(coded))
}

/// An encoder that has not ended.
struct Encoder {
    coding: ContentCoding,
    inner: Box<dyn Encode + Send + Sync>,
}

impl Encoder {
    fn of(coding: ContentCoding, level: u32) -> Option<Self> {
        let algorithm = match coding {
            ContentCoding::Zstd => Algorithm::Zstd,
            ContentCoding::Brotli => Algorithm::Brotli,
            ContentCoding::Gzip => Algorithm::Gzip,
        };
        algorithm.compressor(level).map(|inner| Self { coding, inner })
    }

    fn encode(&mut self, part: &[u8]) -> pingora::Result<Bytes> {
        self.inner.encode(part, false)
    }

    /// Encodes the last part of the body.
    fn end(mut self, last: &[u8]) -> pingora::Result<Bytes> {
        let coded = self.inner.encode(last, true)?;
        if self.coding != ContentCoding::Brotli {
            return Ok(coded);
        }
        // Pingora's encoder flushes here, and never says the end: that is an empty last block (RFC 7932 §9.2). A flush ends
        // with a whole byte.
        Ok([&coded[..], &[3]].concat().into())
    }
}

impl Compressor {
    /// Encodes the last part of the body, if there is an encoder that has not ended.
    fn end(&mut self, last: &[u8]) -> pingora::Result<Option<Bytes>> {
        self.encoder.take().map(|encoder| encoder.end(last)).transpose()
    }
}

#[async_trait]
impl HttpModule for Compressor {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }

    async fn response_header_filter(&mut self, head: &mut ResponseHeader, end: bool) -> pingora::Result<()> {
        self.encoder = None;
        let Some(plan) = &self.plan else { return Ok(()) };
        if !plan.terms.cover(head) || end && !plan.head_only {
            return Ok(());
        }
        if !plan.head_only {
            self.encoder = Encoder::of(plan.coding, plan.terms.level);
        }
        content_coding::announce(head, plan.coding, !plan.head_only && plan.http2.is_none())
    }

    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end: bool) -> pingora::Result<()> {
        let part = body.as_deref().unwrap_or_default();
        let coded = match &mut self.encoder {
            None => return Ok(()),
            Some(_) if end => self.end(part)?,
            Some(encoder) => Some(encoder.encode(part)?),
        };
        // To HTTP/1 an empty part would be the last chunk.
        *body = coded.filter(|coded| !coded.is_empty());
        Ok(())
    }

    fn response_trailer_filter(&mut self, _: &mut Option<Box<HeaderMap>>) -> pingora::Result<Option<Bytes>> {
        let last = self.end(&[])?;
        let Some(info) = self.plan.as_ref().and_then(|plan| plan.http2.as_ref()) else { return Ok(last) };
        // What is handed back here would take the place of the trailers.
        if let Some(last) = last {
            info.leave_for_trailers(last);
        }
        Ok(None)
    }

    fn response_done_filter(&mut self) -> pingora::Result<Option<Bytes>> {
        self.end(&[])
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn bodies_of_every_kind_can_be_read_back_to_their_end() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|number| (number * number).to_string().into_bytes()).collect();
        for coding in [ContentCoding::Gzip, ContentCoding::Brotli, ContentCoding::Zstd] {
            for (level, length, parts) in [(1, 0, 1), (5, 1, 1), (5, 3000, 7), (9, 200_000, 3), (3, 200_000, 300)] {
                let terms = CodingTerms { level, ..CodingTerms::default() };
                let plan = Plan { coding, terms: terms.into(), head_only: false, http2: None };
                let mut module = Compressor { plan: Some(plan), encoder: None };
                let mut head = ResponseHeader::build(200, None).unwrap();
                head.insert_header("content-type", "text/plain").unwrap();
                module.response_header_filter(&mut head, false).await.unwrap();
                let mut out = Vec::new();
                for part in text[..length].chunks(length.div_ceil(parts).max(1)) {
                    let mut body = Some(Bytes::copy_from_slice(part));
                    module.response_body_filter(&mut body, false).unwrap();
                    out.extend_from_slice(&body.unwrap_or_default());
                }
                out.extend_from_slice(&module.response_done_filter().unwrap().unwrap());
                assert!(module.response_done_filter().unwrap().is_none(), "it has ended");
                let mut back = Vec::new();
                let read = match coding {
                    ContentCoding::Gzip => flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back),
                    ContentCoding::Brotli => {
                        brotli_decompressor::Decompressor::new(&out[..], 4096).read_to_end(&mut back)
                    }
                    ContentCoding::Zstd => zstd::stream::read::Decoder::new(&out[..]).unwrap().read_to_end(&mut back),
                };
                assert!(read.is_ok() && back == text[..length], "{coding:?} {level} {length}: {read:?}");
            }
        }
    }
}
