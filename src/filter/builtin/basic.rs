//! `basic`: who may pass, by a name and a password in `Authorization: Basic` (RFC 7617).
//!
//! YAML: `basic: { users_file: /etc/tollgate/htpasswd }`, as `htpasswd -B` makes it, or `users:` in place, with hashes in argon2id
//! or bcrypt (`tollgate hash-password` makes one). The password is hidden from the backend, which learns the name from
//! `identity_header`. A password is checked on a thread of its own; who was right, or wrong, is remembered for a short time by a
//! digest whose key is this process's own. Unknown names, wrong passwords and the time that they take are the same.

mod presented;
mod settings;
mod user_set;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use schemars::{Schema, SchemaGenerator};

use self::{
    presented::{Credentials, Presented, presented},
    settings::Config,
    user_set::{UserSet, Verdict},
};
use super::{field_names::FieldNames, identity_field};
use crate::{
    auth::{CredentialKey, Method},
    filter::{
        Background, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, PasswordChecks, State, env::schema_of,
    },
    message::{reason::Reason, reply::Reply},
};

/// A client that comes back then may find fewer passwords waiting.
const SOON: Duration = Duration::from_secs(2);

pub(crate) struct Basic {
    users: Arc<UserSet>,
    checks: Arc<PasswordChecks>,
    key: CredentialKey,
    realm: String,
    challenge: HeaderValue,
    identity: HeaderName,
    forward: bool,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, realm, identity, forward, .. } = self;
        write!(f, "Basic({users:?} {realm:?} {identity} {forward})")
    }
}

impl Configure for Basic {
    const NAME: &'static str = "basic";
    const SAMPLES: [&'static str; 2] = [
        "{ users: [{ name: a, password_hash: $2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC, scopes: \
         [a], roles: [a], tier: a }], users_file: tests/fixtures/leaves/htpasswd-a.txt, realm: a, identity_header: \
         X-User-A, forward: true, cache: 1m }",
        "{ users: [{ name: b, password_hash: $2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW, scopes: \
         [b], roles: [b], tier: b }], users_file: tests/fixtures/leaves/htpasswd-b.txt, realm: b, identity_header: \
         X-User-B, forward: false, cache: 2m }",
    ];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let mut names = FieldNames::new(&mut invalid);
        names.take(&header::AUTHORIZATION, "the password");
        let identity = names.told("identity_header", &config.identity_header);
        // What would have to be escaped in a quoted string is left out of a route's name, and not taken from anybody else.
        let realm = config.realm.clone().unwrap_or_else(|| env.route.replace(['"', '\\'], ""));
        if realm.contains(|c: char| "\"\\".contains(c) || !(' '..='~').contains(&c)) {
            invalid.push("realm", "has a quotation mark, a backslash, or what is no ASCII text");
        }
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        let challenge = challenge.unwrap_or_else(|_| HeaderValue::from_static("Basic realm=\"\", charset=\"UTF-8\""));
        let users = UserSet::new(&config, env, &mut invalid);
        let key = CredentialKey::generate().map_err(|e| invalid.push("", e.to_string())).ok();
        invalid.into_result()?;
        let (Some(users), Some(key)) = (users, key) else { return Err(Invalid::at("", "there are no users")) };
        let (users, checks) = (Arc::new(users), env.password_checks.clone());
        Ok(Self { users, checks, key, realm, challenge, identity, forward: config.forward })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

impl Basic {
    fn refuse(&self, detail: &'static str, reason: Reason) -> Flow {
        Reply::unauthorized(self.challenge.clone(), detail).because(reason).into()
    }

    /// Whose these are.
    async fn check(&self, shown: Credentials, now: Duration) -> Result<Verdict, Flow> {
        let known = self.users.known();
        let digest = self.key.digest([shown.name().as_bytes(), shown.password()]);
        if let Some(verdict) = known.remembered(&digest, now) {
            return Ok(verdict);
        }
        let check = move || {
            // Several requests of one client come at once when it begins: the first check is for all of them.
            if let Some(verdict) = known.remembered(&digest, now) {
                return verdict;
            }
            let found = known.users.check(shown.name(), shown.password());
            let verdict = found.map_or(Verdict::Wrong, |identity| Verdict::Right(identity.clone()));
            known.remember(digest, &verdict, now);
            verdict
        };
        if let Ok(verdict) = self.checks.run(check).await {
            return Ok(verdict.unwrap_or(Verdict::Wrong));
        }
        let detail = "there are too many passwords to check at the moment: try again";
        let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SOON);
        Err(reply.because(Reason::PasswordChecksBusy).into())
    }
}

#[async_trait]
impl Filter for Basic {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let shown = match presented(&exchange.request.headers) {
            Presented::Credentials(shown) => shown,
            Presented::Nothing => {
                return Ok(self.refuse("a name and a password are required", Reason::CredentialsMissing));
            }
            Presented::Malformed => {
                let detail = "the credentials are not one name with a password";
                return Ok(self.refuse(detail, Reason::PasswordMalformed));
            }
        };
        match self.check(shown, exchange.now.since_start).await {
            Ok(Verdict::Right(identity)) => {
                exchange.state.identities.note(identity);
                Ok(Flow::Next)
            }
            Ok(Verdict::Wrong) => Ok(self.refuse("the name or the password is wrong", Reason::PasswordWrong)),
            Err(busy) => Ok(busy),
        }
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(vec![header::AUTHORIZATION])
    }

    fn sole_methods(&self) -> Vec<Method> {
        vec![Method::Basic]
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        vec![self.identity.clone()]
    }

    fn known_names(&self) -> Vec<(HeaderName, String)> {
        self.users.known().users.names().map(|name| (self.identity.clone(), name.to_owned())).collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        if !self.forward && presented(&head.headers) != Presented::Nothing {
            head.remove_header(&header::AUTHORIZATION);
        }
        identity_field::tell(head, &self.identity, state, Method::Basic)
    }

    fn background(&self) -> Option<Background> {
        self.users.clone().watch()
    }
}
