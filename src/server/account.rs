//! `pingora.user` and `group`: who the process is once it has its sockets. A daemon becomes it when it forks (Pingora's
//! doing, and nobody else's: without a fork Pingora does not look at them).

use std::{ffi::CString, fs};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, getegid, geteuid, initgroups, setgid, setuid},
};

use crate::config::PingoraConfig;

/// The capabilities for it (capabilities(7)): `CAP_SETGID` and `CAP_SETUID`.
const NEEDED: u64 = 1 << 6 | 1 << 7;

/// Whether this process may become who it should be; a daemon that may not would only find out when it has forked.
///
/// # Errors
/// Why it may not.
pub(super) fn may_assume(config: &PingoraConfig) -> Result<(), String> {
    let stays = || account(config).is_some_and(|(_, account)| account.uid == geteuid());
    let (key, name) = match (&config.user, &config.group) {
        (Some(name), _) if !stays() => ("user", name),
        (None, Some(name)) if group(config).is_none_or(|(_, gid)| gid != getegid()) => ("group", name),
        _ => return Ok(()),
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    if effective.is_some_and(|effective| effective & NEEDED != NEEDED) {
        return Err(failed(key, name, Errno::EPERM));
    }
    Ok(())
}

/// This process becomes who it should be, for good.
///
/// # Errors
/// Why it cannot.
pub(super) fn assume(config: &PingoraConfig) -> Result<(), String> {
    let (user, group) = (account(config), group(config));
    if let Some((name, account)) = user.as_ref().filter(|(_, account)| account.uid != geteuid()) {
        let list = CString::new(name.as_str()).map_err(|_| failed("user", name, Errno::EINVAL))?;
        initgroups(&list, account.gid).map_err(|e| failed("user", name, e))?;
        setgid(account.gid).map_err(|e| failed("user", name, e))?;
    }
    if let Some((name, gid)) = group {
        setgid(gid).map_err(|e| failed("group", name, e))?;
    }
    if let Some((name, account)) = user {
        setuid(account.uid).map_err(|e| failed("user", name, e))?;
    }
    Ok(())
}

/// The user whom this process becomes, when that is another one.
pub(super) fn later_user(config: &PingoraConfig) -> Option<u32> {
    account(config).map(|(_, account)| account.uid).filter(|uid| *uid != geteuid()).map(Uid::as_raw)
}

fn account(config: &PingoraConfig) -> Option<(&String, User)> {
    let name = config.user.as_ref()?;
    Some((name, User::from_name(name).ok()??))
}

fn group(config: &PingoraConfig) -> Option<(&String, Gid)> {
    let name = config.group.as_ref()?;
    Some((name, Group::from_name(name).ok()??.gid))
}

fn failed(key: &str, name: &str, e: Errno) -> String {
    format!("pingora.{key}: this process cannot become '{name}': {}; start it as root, or leave the key out", e.desc())
}
