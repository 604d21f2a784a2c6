//! Answers made smaller by Pingora's module. Pingora gives every request the modules that it knew at start, a box each;
//! here only requests that are compressed get one, and a reload may begin to compress.

use std::sync::LazyLock;

use pingora::{
    modules::http::{
        HttpModules,
        compression::{ResponseCompression, ResponseCompressionBuilder},
    },
    proxy::Session,
};

static MODULES: LazyLock<HttpModules> = LazyLock::new(|| {
    let mut modules = HttpModules::new();
    modules.add_module(ResponseCompressionBuilder::enable(0));
    modules
});

/// Compresses the answer to come at `level`, if the client takes it.
pub(super) fn begin(session: &mut Session, level: u32) {
    session.downstream_modules_ctx = MODULES.build_ctx();
    if let Some(module) = session.downstream_modules_ctx.get_mut::<ResponseCompression>() {
        module.adjust_level(level);
        // It reads Accept-Encoding only if it is switched on by then.
        module.request_filter(session.downstream_session.req_header());
    }
}

/// The answer's head is known, and has changed the level; `None`: it stays as it is.
pub(super) fn adjust(session: &mut Session, level: Option<u32>) {
    if let Some(module) = session.downstream_modules_ctx.get_mut::<ResponseCompression>() {
        module.adjust_level(level.unwrap_or(0));
    }
}
