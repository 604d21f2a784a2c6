//! Secrets: never a literal in a file, never printed.
//!
//! YAML: `{ env: NAME }`, `{ file: /path }` (refused when others may read it) or `{ credential: name }`
//! (a systemd credential, `$CREDENTIALS_DIRECTORY/name`).

use std::{fmt, os::unix::fs::MetadataExt as _, path::Path, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

/// Where a secret is kept.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file that only its owner can read; a final newline is not part of the secret.
    File(PathBuf),
    /// A systemd credential (`LoadCredential=`).
    Credential(String),
}

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
    /// Fetches the secret. The error names the place, never the content.
    pub fn read(&self) -> Result<Secret, String> {
        let bytes = match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| format!("environment variable '{name}' is not set"))?.into_bytes()
            }
            Self::File(path) => read_private(path)?,
            Self::Credential(name) => {
                let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    format!("no credentials directory for '{name}': systemd sets it by LoadCredential={name}:PATH")
                })?;
                if name.contains('/') || name.starts_with('.') {
                    return Err(format!("'{name}' is not a credential name"));
                }
                read_trimmed(&Path::new(&dir).join(name))?
            }
        };
        if bytes.is_empty() { Err("the secret is empty".into()) } else { Ok(Secret(bytes)) }
    }
}

fn read_private(path: &Path) -> Result<Vec<u8>, String> {
    private(path)?;
    read_trimmed(path)
}

/// Nobody but its owner can read or write the file.
///
/// # Errors
/// Others can, or there is none.
pub fn private(path: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?;
    if meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(format!("'{}' can be read by others (mode {:04o}): chmod 600 it", path.display(), meta.mode() & 0o7777))
}

fn read_trimmed(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?;
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
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
        assert!(reference.read().unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(reference.read().unwrap().expose(), b"s3cret");
    }

    #[test]
    fn debug_never_shows_it() {
        assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "[redacted]");
    }
}
