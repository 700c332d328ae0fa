//! Numbers of the kernel as words.

use enforcer_common::event::flag;
use nix::{errno::Errno, sys::signal::Signal};
use std::borrow::Cow;

/// A protocol of sockets.
pub(super) fn protocol(number: u16) -> Cow<'static, str> {
    match i32::from(number) {
        libc::IPPROTO_TCP => "tcp".into(),
        libc::IPPROTO_UDP => "udp".into(),
        other => other.to_string().into(),
    }
}

/// An address family.
pub(super) fn family(number: u16) -> Cow<'static, str> {
    match i32::from(number) {
        libc::AF_UNIX => "unix".into(),
        libc::AF_INET => "inet".into(),
        libc::AF_INET6 => "inet6".into(),
        libc::AF_NETLINK => "netlink".into(),
        libc::AF_PACKET => "packet".into(),
        other => other.to_string().into(),
    }
}

/// A capability.
pub(super) fn capability(number: u32) -> String {
    let name = CAPABILITIES.get(number as usize);
    name.map_or_else(|| format!("capability-{number}"), |name| format!("cap_{name}"))
}

/// A signal.
pub(super) fn signal(number: u32) -> String {
    let signal = i32::try_from(number).ok().and_then(|n| Signal::try_from(n).ok());
    signal.map_or_else(|| number.to_string(), |signal| signal.as_str().to_owned())
}

/// An error that a system call returned; `None` for none.
pub(super) fn error(number: i32) -> Option<Cow<'static, str>> {
    match number.unsigned_abs() {
        0 => None,
        1 => Some("EPERM".into()),
        n => Some(match i32::try_from(n).map(Errno::from_raw) {
            Ok(errno) if errno != Errno::UnknownErrno => format!("{errno:?}").into(),
            _ => n.to_string().into(),
        }),
    }
}

/// The names of flags. A bit without a name is named by its number.
pub(super) fn flags(bits: u16) -> impl Iterator<Item = Cow<'static, str>> {
    const NAMES: [(u16, &str); 8] = [
        (flag::OBJECT_CUT, "object-cut"),
        (flag::EXE_CUT, "exe-cut"),
        (flag::WOULD, "would"),
        (flag::STRAY, "stray"),
        (flag::LAUNCHING, "launching"),
        (flag::FOREIGN, "foreign"),
        (flag::OTHER_NAME, "other-name"),
        (flag::BREAK_GLASS, "break-glass"),
    ];
    let set = (0..16u16).map(|bit| 1 << bit).filter(move |bit: &u16| bits & bit != 0);
    set.map(|bit| {
        let name = NAMES.iter().find(|(known, _)| *known == bit);
        name.map_or_else(|| format!("bit-{}", bit.trailing_zeros()).into(), |(_, name)| (*name).into())
    })
}

/// Capabilities by number (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
