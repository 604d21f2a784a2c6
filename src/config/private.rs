//! Whether a file's directory is this user's alone. Whoever can put a socket of their own in the place of the upgrade
//! socket is asked for sockets, or asks for ours.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};

/// Users that may own what leads to a private file: root, this one, and the one that this process becomes.
pub(super) fn owners(becomes: Option<&str>) -> Vec<u32> {
    let later = becomes.and_then(|name| User::from_name(name).ok().flatten()).map(|user| user.uid.as_raw());
    [Some(0), Some(geteuid().as_raw()), later].into_iter().flatten().collect()
}

/// Nobody but `owners` can put another file in the place of `file`: not in its directory, and not by exchanging a
/// directory or link on the way there.
///
/// # Errors
/// Who can.
pub(super) fn check(file: &Path, owners: &[u32]) -> Result<(), String> {
    let Some(dir) = file.parent() else { return Ok(()) };
    let real = fs::canonicalize(dir).map_err(|e| format!("cannot look at '{}': {e}", dir.display()))?;
    for (chain, last) in [(dir, dir), (&real, &real)] {
        for place in chain.ancestors() {
            if let Err(reason) = alone(place, place == last, owners) {
                let suggestion = suggestion(dir);
                return Err(format!(
                    "'{}' {reason}: use a directory of this user alone, {suggestion}",
                    place.display()
                ));
            }
        }
    }
    Ok(())
}

fn suggestion(dir: &Path) -> String {
    let own: PathBuf = dir.join("tollgate");
    format!("like '{}' after mkdir -m 700, or leave the key out", own.display())
}

fn alone(place: &Path, last: bool, owners: &[u32]) -> Result<(), String> {
    let meta = fs::symlink_metadata(place).map_err(|e| format!("cannot be looked at: {e}"))?;
    if !owners.contains(&meta.uid()) {
        return Err(format!("belongs to another user ({})", meta.uid()));
    }
    // A link cannot be written to, and has no mode of its own.
    if meta.is_symlink() {
        return Ok(());
    }
    // In a sticky directory others can put files, but not exchange ours.
    let (sticky, mode) = (meta.mode() & 0o1000 != 0, meta.mode() & 0o7777);
    let open = if last { mode & 0o022 != 0 } else { mode & 0o002 != 0 && !sticky };
    if open { Err(format!("can be written to by others (mode {mode:04o})")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_must_be_ones_own_all_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let (open, inner) = (dir.path().join("open"), dir.path().join("open/inner"));
        fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let verdict = |path: &Path| check(&path.join("sock"), &owners(None));
        mode(&inner, 0o755);
        mode(&open, 0o755);
        assert_eq!(verdict(&inner), Ok(()));
        for wide in [0o777, 0o1777, 0o775] {
            mode(&open, wide);
            assert!(verdict(&open).unwrap_err().contains("can be written to by others (mode"), "{wide:o}");
        }
        mode(&open, 0o1777);
        assert_eq!(verdict(&inner), Ok(()), "nobody else can exchange it");
        mode(&open, 0o777);
        assert!(verdict(&inner).is_err(), "its parent can be exchanged");
        let link = dir.path().join("link");
        symlink(&open, &link).unwrap();
        assert!(verdict(&link).is_err(), "where it leads counts");
        mode(&open, 0o700);
        assert_eq!(verdict(&link), Ok(()));
        assert!(check(&open.join("sock"), &[4711]).unwrap_err().contains("belongs to another user"));
    }
}
