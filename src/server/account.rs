//! `pingora.user` and `group`: who the process is once it has its sockets. A daemon becomes it when it forks (Pingora's
//! doing, and nobody else's: without a fork Pingora does not look at them).

use std::ffi::CString;

use nix::{
    errno::Errno,
    unistd::{Group, User, geteuid, initgroups, setgid, setuid},
};

use crate::config::PingoraConfig;

/// This process becomes who it should be, for good.
///
/// # Errors
/// Why it cannot.
pub(super) fn assume(config: &PingoraConfig) -> Result<(), String> {
    let failed = |key: &str, name: &str, e: Errno| {
        format!(
            "pingora.{key}: this process cannot become '{name}': {}; start it as root, or leave the key out",
            e.desc()
        )
    };
    let group = config.group.as_ref().and_then(|name| Some((name, Group::from_name(name).ok()??.gid)));
    let user = config.user.as_ref().and_then(|name| Some((name, User::from_name(name).ok()??)));
    if let Some((name, account)) = &user
        && account.uid != geteuid()
    {
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
