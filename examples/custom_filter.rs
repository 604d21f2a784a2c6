//! A gateway with a filter of its own: `tenant` lets a request through only if its `X-Tenant` header names a tenant that
//! the YAML lists, and tells the backend. Run it: `cargo run --example custom_filter -- -c FILE`, with a route that has
//! `filters: [ { tenant: { allowed: [acme, globex] } } ]`.

use std::process::ExitCode;

use tollgate::{
    Configure, Exchange, Fault, Filter, Flow, Registry, Reply,
    filter::{Env, Invalid},
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    allowed: Vec<String>,
}

#[derive(Debug)]
struct Tenant(Vec<String>);

impl Configure for Tenant {
    const NAME: &'static str = "tenant";
    type Config = Settings;

    fn configure(settings: Settings, _: &Env) -> Result<Self, Invalid> {
        if settings.allowed.is_empty() {
            Err(Invalid::at("allowed", "name at least one tenant"))
        } else {
            Ok(Self(settings.allowed))
        }
    }
}

#[async_trait::async_trait]
impl Filter for Tenant {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        match exchange.header("x-tenant") {
            Some(name) if self.0.iter().any(|allowed| allowed == name) => Ok(Flow::Next),
            _ => Ok(Reply::problem(http::StatusCode::FORBIDDEN, "this tenant may not use this service").into()),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    tollgate::run(Registry::builtin().with::<Tenant>())
}

#[cfg(test)]
#[tokio::test]
async fn lets_a_known_tenant_through_without_a_socket() -> pingora::Result<()> {
    use tollgate::filter::{Now, State};

    let filter = Tenant(vec!["acme".into()]);
    for (tenant, passes) in [("acme", true), ("evil", false)] {
        let mut head = pingora::http::RequestHeader::build("GET", b"/", None)?;
        head.insert_header("x-tenant", tenant)?;
        let mut state = State::default();
        let flow = filter.request(&mut Exchange::new(&head, &mut state, Now::read())).await;
        assert_eq!(matches!(flow, Ok(Flow::Next)), passes, "{tenant}");
    }
    Ok(())
}
