//! Whether a file's directory is this user's alone. Whoever can put a socket of their own in the place of the upgrade
//! socket is asked for sockets, or asks for ours.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Gid, Group, User, eaccess, geteuid, getgrouplist};

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

/// This process, when it serves, can write to `file` or create it there. Nothing is created to find out.
///
/// # Errors
/// What is in the way.
pub(super) fn can_write(file: &Path, account: Option<&Account>) -> Result<(), String> {
    let file = std::path::absolute(file).map_err(|e| format!("'{}' is not a file's path: {e}", file.display()))?;
    match fs::metadata(&file) {
        Ok(meta) if meta.is_dir() => Err(format!("'{}' is a directory", file.display())),
        Ok(meta) if meta.file_type().is_socket() => Err(format!("'{}' is a socket", file.display())),
        Ok(_) => may(&file, AccessFlags::W_OK, account),
        Err(_) => can_create(&file, account),
    }
}

/// This process, when it serves, can put files beside `file`.
///
/// # Errors
/// What is in the way.
pub(super) fn can_create(file: &Path, account: Option<&Account>) -> Result<(), String> {
    let Some(dir) = file.parent() else { return Err(format!("'{}' is not a file's path", file.display())) };
    if !dir.is_dir() {
        return Err(format!("the directory '{}' is not there", dir.display()));
    }
    may(dir, AccessFlags::W_OK | AccessFlags::X_OK, account)
}

/// This process, when it serves, can read `file`.
///
/// # Errors
/// What is in the way, and the way out.
pub(super) fn can_read(file: &Path, account: &Account) -> Result<(), String> {
    let refused = |what: &Path, change: &str| {
        let (name, file, what) = (&account.name, file.display(), what.display());
        Err(format!(
            "the user '{name}' cannot read '{file}', which is needed when the process has become that user: '{what}' wants chgrp to a group of '{name}', and {change}"
        ))
    };
    // What cannot be found is said by whoever reads it.
    let Ok(real) = fs::canonicalize(file) else { return Ok(()) };
    if let Some(dir) = real.ancestors().skip(1).find(|dir| !account.may(dir, 0o1)) {
        return refused(dir, "chmod g+x");
    }
    if account.may(&real, 0o4) { Ok(()) } else { refused(&real, "chmod 640") }
}

fn may(path: &Path, how: AccessFlags, account: Option<&Account>) -> Result<(), String> {
    let Some(account) = account else {
        return eaccess(path, how).map_err(|e| format!("'{}' cannot be written to: {}", path.display(), e.desc()));
    };
    let refused = || format!("the user '{}' cannot write to '{}'", account.name, path.display());
    let real = fs::canonicalize(path).map_err(|_| refused())?;
    let way = real.ancestors().skip(1).all(|dir| account.may(dir, 0o1));
    let bits = if how.contains(AccessFlags::X_OK) { 0o3 } else { 0o2 };
    if way && account.may(&real, bits) { Ok(()) } else { Err(refused()) }
}

/// Who this process becomes.
pub(super) struct Account {
    name: String,
    uid: u32,
    groups: Vec<Gid>,
}

impl Account {
    /// The account of a user by its name, with what `group` adds; nothing when there is no such user.
    pub(super) fn of(name: &str, group: Option<&str>) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        let mut groups = std::ffi::CString::new(name).ok().and_then(|name| getgrouplist(&name, user.gid).ok())?;
        groups.extend(group.and_then(|name| Group::from_name(name).ok().flatten()).map(|group| group.gid));
        Some(Self { name: name.to_owned(), uid: user.uid.as_raw(), groups })
    }

    /// Its groups, which may read keys.
    pub(super) fn groups(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.as_raw()).collect()
    }

    /// By the file's mode; what else there is (access control lists) may allow more.
    fn may(&self, path: &Path, bits: u32) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        let shift = match () {
            () if self.uid == 0 => return true,
            () if meta.uid() == self.uid => 6,
            () if self.groups.contains(&Gid::from_raw(meta.gid())) => 3,
            () => 0,
        };
        meta.mode() >> shift & bits == bits
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn whether_a_file_can_be_written_is_found_without_writing() {
        let dir = tempfile::tempdir().unwrap();
        let other = Account { name: "other".into(), uid: 4711, groups: vec![Gid::from_raw(4712)] };
        let root = Account { name: "root".into(), uid: 0, groups: Vec::new() };
        let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let file = dir.path().join("file");
        mode(0o755);
        assert_eq!(can_write(&file, None), Ok(()));
        assert_eq!(can_write(&file, Some(&root)), Ok(()));
        assert!(can_write(&file, Some(&other)).unwrap_err().contains("the user 'other' cannot write to"));
        mode(0o777);
        assert_eq!(can_write(&file, Some(&other)), Ok(()));
        assert!(!file.exists());
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(can_write(&file, Some(&other)).is_err());
        assert!(can_write(dir.path(), None).unwrap_err().contains("is a directory"));
        assert!(can_write(&dir.path().join("no/file"), None).unwrap_err().contains("is not there"));
    }

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
