//! The users of one `basic`: those of the configuration and those of a file, which is read again when it has changed, and what
//! was found out about passwords that were shown.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use super::settings::{Config, UserConfig};
use crate::{
    auth::{Digest, Identity, Method, PasswordHash, User, Users},
    filter::{Background, Env, Invalid},
    tls::stamp::{Reread, Stamp, stamp},
    units::{FileRef, private, read_text},
};

/// Time between two looks at the file. It is read when two in a row find the same: whoever writes it may be in the middle.
const LOOK: Duration = Duration::from_secs(1);

/// So many passwords that were right, and so many that were wrong, are remembered. Each has room of its own: garbage does not push
/// out what is good.
const REMEMBERED: usize = 10_000;

/// A password that was wrong may be right soon: somebody has just been added.
const WRONG: Duration = Duration::from_secs(10);

/// What a check of a name with a password has found.
#[derive(Clone)]
pub(super) enum Verdict {
    /// They are this user's.
    Right(Arc<Identity>),
    /// They are nobody's.
    Wrong,
}

/// Users, and what is remembered of them; both are replaced together.
pub(super) struct Known {
    pub(super) users: Users,
    right: Cache<Digest, (Arc<Identity>, Duration)>,
    wrong: Cache<Digest, Duration>,
    cache: Duration,
}

impl Known {
    fn new(users: Users, cache: Duration) -> Self {
        Self { users, right: Cache::new(REMEMBERED), wrong: Cache::new(REMEMBERED), cache }
    }

    /// These users in the place of others: whoever has the same password as before need not be checked again.
    fn after(before: &Self, users: Users) -> Self {
        let new = Self::new(users, before.cache);
        for (shown, (identity, until)) in before.right.iter() {
            if let Some(user) = new.users.unchanged(&before.users, &identity.subject) {
                new.right.insert(shown, (user.identity.clone(), until));
            }
        }
        new
    }

    /// What the last check of these credentials found, if it still counts.
    pub(super) fn remembered(&self, shown: &Digest, now: Duration) -> Option<Verdict> {
        if let Some((identity, until)) = self.right.get(shown)
            && now < until
        {
            // Whoever goes on is known as long as the users stay as they are.
            if until.saturating_sub(now) < self.cache / 2 {
                self.right.insert(*shown, (identity.clone(), now.saturating_add(self.cache)));
            }
            return Some(Verdict::Right(identity));
        }
        self.wrong.get(shown).is_some_and(|until| now < until).then_some(Verdict::Wrong)
    }

    /// Notes what a check found.
    pub(super) fn remember(&self, shown: Digest, verdict: &Verdict, now: Duration) {
        if self.cache.is_zero() {
            return;
        }
        match verdict {
            Verdict::Right(identity) => self.right.insert(shown, (identity.clone(), now.saturating_add(self.cache))),
            Verdict::Wrong => self.wrong.insert(shown, now.saturating_add(self.cache.min(WRONG))),
        }
    }
}

/// The users of one filter.
pub(super) struct UserSet {
    known: ArcSwap<Known>,
    /// Those of the configuration.
    listed: Vec<User>,
    file: Option<FileRef>,
    /// The file as it was when it was read first.
    read: Stamp,
    readers: Arc<[u32]>,
    cache: Duration,
}

impl fmt::Debug for UserSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.known.load().users, self.file, self.cache)
    }
}

impl UserSet {
    /// The users of `config`; nothing, and what is wrong, when there are none.
    pub(super) fn new(config: &Config, env: &Env, invalid: &mut Invalid) -> Option<Self> {
        let before = invalid.0.len();
        let listed: Vec<User> =
            config.users.iter().enumerate().filter_map(|(i, user)| listed(i, user, invalid)).collect();
        let file = config.users_file.clone();
        // Looked at first: what is written meanwhile is another file.
        let read = file.as_ref().and_then(stamp);
        let all = match file.as_ref().map(|file| read_users(file, &env.readers)).transpose() {
            Ok(more) => listed.iter().cloned().chain(more.into_iter().flatten()).collect(),
            Err(message) => {
                invalid.push("users_file", message);
                listed.clone()
            }
        };
        let users = match Users::new(all) {
            Ok(Some(users)) => users,
            // What follows from a mistake would only repeat it.
            Ok(None) if invalid.0.len() > before => return None,
            Ok(None) => {
                invalid.push("", "there are no users, so nobody can pass: list some under 'users' or in 'users_file'");
                return None;
            }
            Err(name) => {
                invalid.push("", format!("there are two users of the name '{name}'"));
                return None;
            }
        };
        let (cache, readers) = (config.cache.0, env.readers.clone());
        Some(Self { known: ArcSwap::from_pointee(Known::new(users, cache)), listed, file, read, readers, cache })
    }

    /// The users as they are now.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Reads the file again whenever it has changed.
    pub(super) fn watch(self: Arc<Self>) -> Option<Background> {
        let file = self.file.clone()?;
        Some(Box::pin(async move {
            let mut reread = Reread::new(self.read);
            let mut last = self.read;
            loop {
                tokio::time::sleep(LOOK).await;
                let found = stamp(&file);
                let settled = std::mem::replace(&mut last, found) == found;
                if !settled || !reread.have_changed(&found) {
                    continue;
                }
                match self.read_again(&file) {
                    Ok(users) => {
                        log::info!("users of '{file}': {users} after a change");
                        reread = Reread::new(found);
                    }
                    Err(message) => reread.failed(found, &format!("{message}; the users that are known stay")),
                }
            }
        }))
    }

    fn read_again(&self, file: &FileRef) -> Result<usize, String> {
        let more = read_users(file, &self.readers)?;
        let number = more.len();
        let users = Users::new(self.listed.iter().cloned().chain(more).collect());
        let users = users.map_err(|name| format!("'{file}': there are two users of the name '{name}'"))?;
        let users = users.ok_or_else(|| format!("'{file}' has no users"))?;
        let before = self.known.load();
        self.known.store(Arc::new(Known::after(&before, users)));
        Ok(number)
    }
}

/// A user of the configuration.
fn listed(place: usize, config: &UserConfig, invalid: &mut Invalid) -> Option<User> {
    let before = invalid.0.len();
    if let Err(message) = named(&config.name) {
        invalid.push(format!("users[{place}].name"), message);
    }
    if config.tier.as_deref() == Some("") {
        invalid.push(format!("users[{place}].tier"), "is empty: name one, or leave it out");
    }
    let hash = PasswordHash::read(&config.password_hash);
    let hash = hash.map_err(|e| invalid.push(format!("users[{place}].password_hash"), e.to_string())).ok()?;
    let mut claims = Map::new();
    if !config.roles.is_empty() {
        claims.insert("roles".to_owned(), config.roles.iter().map(|role| Value::from(role.as_str())).collect());
    }
    if let Some(tier) = &config.tier {
        claims.insert("tier".to_owned(), tier.as_str().into());
    }
    (invalid.0.len() == before).then(|| user(&config.name, hash, config.scopes.clone(), claims))
}

fn user(name: &str, hash: PasswordHash, scopes: Vec<String>, claims: Map<String, Value>) -> User {
    let identity = Identity { subject: name.to_owned(), method: Method::Basic, scopes, claims, key_id: None };
    User { identity: Arc::new(identity), hash }
}

/// Clients send it before a colon, and backends and logs are told it.
fn named(name: &str) -> Result<(), &'static str> {
    let good = !name.is_empty() && name.trim() == name && !name.contains(|c: char| c == ':' || c.is_control());
    if good {
        Ok(())
    } else {
        Err("a name must not be empty, nor have a colon, control characters or spaces around it")
    }
}

/// The users of a file as `htpasswd` writes it.
fn read_users(file: &FileRef, readers: &[u32]) -> Result<Vec<User>, String> {
    let path = file.path()?;
    let path = Path::new(&path);
    private(path, &format!("'{file}'"), readers)?;
    let text = read_text(path).map_err(|e| format!("cannot read '{file}': {e}"))?;
    let mut users = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_end())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Nothing of the line is repeated: it may be a password.
        let (name, hash) = line.split_once(':').ok_or_else(|| format!("'{file}', line {number}: it has no ':'"))?;
        named(name).map_err(|e| format!("'{file}', line {number}: {e}"))?;
        let hash = PasswordHash::read(hash).map_err(|e| format!("'{file}', line {number}: {e}"))?;
        users.push(user(name, hash, Vec::new(), Map::new()));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::CredentialKey;

    fn users(all: &[(&str, &str)]) -> Users {
        let read = |(name, password): &(&str, &str)| {
            let hash = bcrypt::hash(password, 4).unwrap();
            user(name, PasswordHash::read(&hash).unwrap(), Vec::new(), Map::new())
        };
        Users::new(all.iter().map(read).collect()).unwrap().unwrap()
    }

    #[test]
    fn whoever_goes_on_is_known_and_a_new_file_forgets_only_who_has_changed() {
        let s = Duration::from_secs;
        let known = Known::new(users(&[("a", "a"), ("b", "b")]), s(10));
        let key = CredentialKey::generate().unwrap();
        let shown = |name: &str| key.digest([name.as_bytes(), name.as_bytes()]);
        for name in ["a", "b"] {
            let identity = known.users.check(name, name.as_bytes()).unwrap().clone();
            known.remember(shown(name), &Verdict::Right(identity), s(0));
        }
        let is_known = |known: &Known, name: &str, now| known.remembered(&shown(name), now).is_some();
        assert!([4, 8, 12, 16, 20].into_iter().all(|now| is_known(&known, "a", s(now))));
        assert!(!is_known(&known, "b", s(20)), "who stays away is checked again");
        let b = known.users.check("b", b"b").unwrap().clone();
        known.remember(shown("b"), &Verdict::Right(b), s(20));
        let a = known.users.clone();
        let more =
            Users::new(vec![a_user(&a, "a"), a_user(&users(&[("b", "new")]), "b"), a_user(&users(&[("c", "c")]), "c")]);
        let after = Known::after(&known, more.unwrap().unwrap());
        assert!(is_known(&after, "a", s(21)) && !is_known(&after, "b", s(21)), "b has another password");
        known.remember(shown("x"), &Verdict::Wrong, s(20));
        assert!(!is_known(&Known::after(&known, a), "x", s(21)), "somebody may have been added");
    }

    fn a_user(users: &Users, name: &str) -> User {
        users.unchanged(users, name).unwrap().clone()
    }
}
