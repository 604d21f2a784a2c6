//! Requests over HTTP/1 without a body are decided on before there is a session for them. One that no backend is asked for is
//! answered here and now: whatever Pingora sets up to proxy a request costs more than the answer.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::header;
use pingora::{
    ErrorType::WriteError, OrErr as _, http::RequestHeader, modules::http::HttpModuleCtx, proxy::ProxyHttp as _,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{compression, context::Context, gateway::Gateway, logging, reply, request};
use crate::{
    downstream::{
        ConnectionInfo,
        h1::outgoing::{Asked, Outgoing},
    },
    message::{grpc, reply::Reply, source::ResponseSource},
    proxy::cached::{
        follow,
        look::{Found, look},
        serve::Served,
    },
    runtime::underway::Follower,
};

const WRITING: &str = "while writing an answer";

/// Answers the request with this `head`; false when it goes to a backend: then what has been found out waits for the hooks.
pub(super) async fn answer(
    gateway: &Gateway,
    head: &mut RequestHeader,
    info: &Arc<ConnectionInfo>,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> bool {
    let (shared, mut context) = (&gateway.live.shared, gateway.new_ctx());
    if request::meet(shared, head, Some(info.clone()), false, false, &mut context) {
        info.close_after_this();
    }
    let written = match gateway.decide(head, &mut context).await {
        Some((reply, by)) => write(head, &mut context, reply, by, connection).await,
        None => match look(shared, head, false, &mut context).await {
            Found::Refused(reply) => write(head, &mut context, *reply, ResponseSource::Cache, connection).await,
            Found::Answer(served) => give(head, &mut context, *served, connection).await,
            Found::Nothing => {
                info.leave_found(context);
                return false;
            }
        },
    };
    if let Err(e) = &written {
        log::debug!("answer not delivered: {e}");
        info.close_after_this();
    }
    logging::record_direct(shared, head, written.as_ref().err().map(|e| &**e), &mut context);
    true
}

/// Writes a stored answer to a request with this head: a small one all at once.
async fn give(
    head: &RequestHeader,
    context: &mut Context,
    served: Served,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> pingora::Result<()> {
    let Served { head: answer_head, mut parts, whole, rest } = served;
    let mut answer_head = reply::finish(context, answer_head)?;
    let bodiless = parts.is_empty() && rest.is_none();
    let info = context.info.as_ref();
    if let Some(info) = info
        && head.headers.contains_key(header::EXPECT)
    {
        info.close_after_this();
    }
    let mut modules = None;
    if let Some(terms) = context.state.compress.take() {
        let coded = if whole { compression::kept(head, &mut answer_head, &terms, context)? } else { None };
        match coded {
            Some(coded) => parts = coded.parts().to_vec(),
            None => modules = compression::modules(head, &mut answer_head, terms, None)?,
        }
    }
    if let Some(modules) = &mut modules {
        modules.response_header_filter(&mut answer_head, bodiless).await?;
    }
    let mut answer = Outgoing::to(Asked::by(head));
    answer.head(&mut answer_head, bodiless, info.is_some_and(|info| info.closes()))?;
    context.written = Some(answer_head.status);
    if let Some(rest) = rest {
        Box::pin(write_followed(rest, &mut modules, &mut answer, context, connection)).await?;
    }
    for part in parts {
        give_coded(part, &mut modules, &mut answer, context, connection).await?;
    }
    let last = modules.as_mut().map_or(Ok(None), HttpModuleCtx::response_done_filter)?;
    give_part(last, &mut answer, context, connection).await?;
    end(&mut answer, connection).await
}

/// Writes a body as it comes.
async fn write_followed(
    mut rest: Follower,
    modules: &mut Option<HttpModuleCtx>,
    answer: &mut Outgoing,
    context: &mut Context,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> pingora::Result<()> {
    while !rest.has_ended() {
        if let Some(part) = follow::next(&mut rest)? {
            give_coded(part, modules, answer, context, connection).await?;
            continue;
        }
        let before = answer.out.split();
        let written = async {
            connection.write_all(&before).await?;
            connection.flush().await
        };
        written.await.or_err(WriteError, WRITING)?;
        follow::more(&mut rest, context.deadline).await?;
    }
    Ok(())
}

/// Takes a part into the answer, compressed if its client takes it so.
async fn give_coded(
    part: Bytes,
    modules: &mut Option<HttpModuleCtx>,
    answer: &mut Outgoing,
    context: &mut Context,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> pingora::Result<()> {
    let mut part = Some(part);
    if let Some(modules) = modules {
        modules.response_body_filter(&mut part, false)?;
    }
    give_part(part, answer, context, connection).await
}

/// Takes a part into the answer; a large one is written at once.
async fn give_part(
    part: Option<Bytes>,
    answer: &mut Outgoing,
    context: &mut Context,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> pingora::Result<()> {
    let large = part.and_then(|part| answer.part(part));
    context.sent = answer.sent;
    let Some((large, after)) = large else { return Ok(()) };
    let mut connection = connection;
    let mut all = answer.out.split().chain(large).chain(after);
    let written = tokio::io::AsyncWriteExt::write_all_buf(&mut connection, &mut all).await;
    written.or_err(WriteError, WRITING)
}

/// Writes `reply` to a request with this `head`: all of it at once.
async fn write(
    head: &RequestHeader,
    context: &mut Context,
    reply: Reply,
    by: ResponseSource,
    connection: &mut (dyn AsyncWrite + Send + Unpin),
) -> pingora::Result<()> {
    let closes = reply::closes(&reply, head);
    let (mut answer_head, body) = reply::compose(context, reply, by, grpc::is(&head.headers), false)?;
    let info = context.info.as_ref();
    if closes && let Some(info) = info {
        info.close_after_this();
    }
    let mut answer = Outgoing::to(Asked::by(head));
    answer.head(&mut answer_head, body.is_empty(), info.is_some_and(|info| info.closes()))?;
    context.written = Some(answer_head.status);
    give_part(Some(body), &mut answer, context, connection).await?;
    end(&mut answer, connection).await
}

/// Ends the answer, and writes what has not been written.
async fn end(answer: &mut Outgoing, connection: &mut (dyn AsyncWrite + Send + Unpin)) -> pingora::Result<()> {
    answer.end(None)?;
    let written = async {
        connection.write_all(&answer.out).await?;
        connection.flush().await
    };
    written.await.or_err(WriteError, WRITING)
}
