//! A request's context as Pingora holds it. A request that is dropped in the middle, because it has lasted too long while
//! its client was not looked at or its client has left (`downstream/exchange.rs`), is answered, counted and logged like
//! every other.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use http::Version;

use super::{context::Context, failure, kept_head::KeptHead, logging, reply, retry};
use crate::{
    downstream::StreamDeadlines,
    message::{reason::Reason, replies, source::ResponseSource},
};

/// The context of one request; what is left to do is done when it is dropped.
#[derive(Debug)]
pub(crate) struct Tracked(Box<Context>);

impl Tracked {
    pub(super) fn new(context: Context) -> Self {
        // Boxed: Pingora moves it through several futures.
        Self(Box::new(context))
    }
}

impl Deref for Tracked {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl DerefMut for Tracked {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let context = &mut self.0;
        let left = context.deadlines().is_some_and(StreamDeadlines::has_left);
        let cut = context.shared.is_cut();
        if !context.recorded && (left || cut || context.late().is_some()) {
            end(context, left && !cut, cut);
        }
    }
}

/// `left`: because its client has gone; `cut`: because the process ends.
fn end(context: &mut Context, left: bool, cut: bool) {
    if !left {
        let reply = if cut {
            context.reason = Some(Reason::Shutdown);
            replies::shutting_down()
        } else {
            context.at_service(|service, context| retry::cut_off(context, service));
            let reason = failure::late(context);
            context.reason = Some(reason);
            if let Some(target) = context.target.as_ref().filter(|_| !context.is_over()) {
                target.service.metrics.failure(reason);
            }
            replies::too_late(reason)
        };
        let begun = context.attempts.first_byte.is_some() || context.written.is_some();
        if !begun && let Some(info) = context.info.clone() {
            let grpc = context.kept.as_ref().is_some_and(KeptHead::is_grpc);
            let http2 = context.version == Version::HTTP_2;
            match reply::compose(context, reply, ResponseSource::Gateway, grpc, http2) {
                Ok((head, body)) => {
                    let silent = context.kept.as_ref().is_some_and(KeptHead::is_head);
                    let body = if silent { Bytes::new() } else { body };
                    (context.written, context.sent) = (Some(head.status), body.len() as u64);
                    info.leave_last_word(head, body);
                }
                Err(e) => log::error!("request {}: {e}", context.state.id),
            }
        }
    }
    logging::record_dropped(context, left);
}
