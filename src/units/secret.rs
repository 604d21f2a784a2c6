//! Secrets: never a literal in a file, never printed.
//!
//! YAML: `{ env: NAME }`, `{ file: /path }` (refused when others may read it) or `{ credential: name }`
//! (a systemd credential, `$CREDENTIALS_DIRECTORY/name`).

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{getegid, geteuid, getgroups};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::read_file;

/// Where a secret is kept.
#[derive(Debug, Clone, JsonSchema, PartialEq, Eq)]
#[schemars(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file that only its owner can read; a final newline is not part of the secret.
    File(PathBuf),
    /// A systemd credential (`LoadCredential=`).
    Credential(String),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        enum Kept {
            Env(String),
            File(PathBuf),
            Credential(String),
        }

        struct Place;

        impl<'de> Visitor<'de> for Place {
            type Value = SecretRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env: NAME }, { file: PATH } or { credential: NAME }")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretRef, A::Error> {
                Ok(match Kept::deserialize(MapAccessDeserializer::new(map))? {
                    Kept::Env(name) => SecretRef::Env(name),
                    Kept::File(path) => SecretRef::File(path),
                    Kept::Credential(name) => SecretRef::Credential(name),
                })
            }

            // serde's own messages repeat what they found.
            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretRef, E> {
                Err(E::custom(LITERAL))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretRef, E> {
                Err(E::custom(LITERAL))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretRef, E> {
                Err(E::custom(LITERAL))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretRef, E> {
                Err(E::custom(LITERAL))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretRef, E> {
                Err(E::custom(LITERAL))
            }
        }

        deserializer.deserialize_any(Place)
    }
}

const LITERAL: &str =
    "a secret does not stand in the file: say where it is, with { env: NAME }, { file: PATH } or { credential: NAME }";

/// A secret's bytes. `Debug` shows only that there are some.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl SecretRef {
    /// Fetches the secret. The error never shows the content, nor what may be the content, written where its name belongs.
    /// `groups` may read its file, as in [`private`].
    pub fn read(&self, groups: &[u32]) -> Result<Secret, String> {
        let bytes = match self {
            Self::Env(name) => {
                let like_a_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
                let shown = if name.bytes().all(like_a_name) { format!(" '{name}'") } else { String::new() };
                std::env::var(name).map_err(|_| format!("environment variable{shown} is not set"))?.into_bytes()
            }
            Self::File(path) => read_private(path, groups)?,
            Self::Credential(name) => {
                read_file(&credential(name)?).map(trimmed).map_err(|e| format!("no such credential: {e}"))?
            }
        };
        if bytes.is_empty() { Err("the secret is empty".into()) } else { Ok(Secret(bytes)) }
    }
}

/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The file of a credential.
///
/// # Errors
/// There are none, or this is no name of one.
pub(super) fn credential(name: &str) -> Result<PathBuf, String> {
    let dir =
        std::env::var_os(CREDENTIALS).ok_or("no credentials directory: systemd sets it by LoadCredential=NAME:PATH")?;
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("this is not a credential's name".to_owned());
    }
    Ok(Path::new(&dir).join(name))
}

fn read_private(path: &Path, groups: &[u32]) -> Result<Vec<u8>, String> {
    private(path, &shown(path), groups)?;
    read_file(path).map(trimmed).map_err(|e| format!("cannot read {}: {e}", shown(path)))
}

/// A path for a message: without a slash it may be the secret itself.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains('/') { format!("'{text}'") } else { "the file".to_owned() }
}

/// Nobody but its owner can read or write the file; one of root's may be read by one of `groups`, or
/// of this process' own, too. One of systemd's
/// credentials is root's, and an access list, whose mask shows as the group's part of the mode, lets the service read it.
///
/// # Errors
/// Others can, or there is none; `shown` is what the file is called.
pub fn private(path: &Path, shown: &str, groups: &[u32]) -> Result<(), String> {
    private_beside(path, shown, groups, std::env::var_os(CREDENTIALS).as_deref().map(Path::new))
}

fn private_beside(path: &Path, shown: &str, groups: &[u32], credentials: Option<&Path>) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    let is_credential = credentials.is_some() && path.parent() == credentials;
    let is_known = is_credential || groups.contains(&meta.gid()) || is_own_group(meta.gid());
    let by_group = meta.mode() & 0o037 == 0 && meta.uid() == 0 && is_known;
    if meta.mode() & 0o077 == 0 || by_group {
        return Ok(());
    }
    let way = if groups.is_empty() { "chmod 600 it" } else { "chmod 640 it, with root and a group of 'pingora.user'" };
    Err(format!("{shown} can be read by others (mode {:04o}): {way}", meta.mode() & 0o7777))
}

/// Root has set the file's group so that this process, which is not root, can read it: Debian's `ssl-cert`, say.
fn is_own_group(group: u32) -> bool {
    let own = || getgroups().unwrap_or_default().into_iter().chain([getegid()]);
    !geteuid().is_root() && own().any(|known| known.as_raw() == group)
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn refuses_a_file_that_others_can_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let reference = SecretRef::File(file.path().into());
        assert!(reference.read(&[]).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(reference.read(&[]).unwrap().expose(), b"s3cret");
    }

    #[test]
    fn a_credential_may_have_an_access_list_and_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "s3cret\n").unwrap();
        let root = std::fs::metadata(&path).unwrap().uid() == 0;
        let verdict = |mode, credentials| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            private_beside(&path, "", &[], credentials).is_ok()
        };
        assert!(verdict(0o400, Some(dir.path())) && verdict(0o400, None));
        // Only one of root's: the mode of the service's own file would say that a group can read it.
        assert_eq!(verdict(0o440, Some(dir.path())), root);
        assert!(!verdict(0o440, None) && !verdict(0o440, Some(Path::new("/elsewhere"))));
        assert!(!verdict(0o444, Some(dir.path())) && !verdict(0o460, Some(dir.path())));
    }

    #[test]
    fn debug_never_shows_it() {
        assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "[redacted]");
    }
}
