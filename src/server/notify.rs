//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how far we are. Does nothing anywhere else.

use sd_notify::NotifyState;

/// The process serves. `MAINPID` goes along, so that after an upgrade systemd follows the successor.
pub(super) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// The process leaves.
pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
