//! What a session may have as its standard descriptors.

use crate::cli::exit::{Exit, Failure};
use nix::sys::{stat::fstat, statfs::fstatfs};
use std::os::fd::OwnedFd;

/// Only pipes, one terminal and the null device are relayed: anything else would be an open file, socket or
/// device that the policy has never seen. The terminal is standard input's; the session's user becomes its
/// owner, so no other may stand beside it.
pub(super) fn check_stdio(stdio: Vec<OwnedFd>, terminal: bool) -> Result<[OwnedFd; 3], Failure> {
    /// include/uapi/linux/magic.h
    const PIPEFS: i64 = 0x5049_5045;
    const NULL: u64 = libc::makedev(1, 3);
    let stdio: [OwnedFd; 3] = stdio.try_into().map_err(|given: Vec<OwnedFd>| {
        let message = format!("{} standard descriptors instead of 3", given.len());
        Failure::new(Exit::Usage, message, "use enforcer exec")
    })?;
    let own = if terminal { terminal_of(&stdio[0]) } else { None };
    for (index, fd) in stdio.iter().enumerate() {
        let kind = fstatfs(fd).map(|fs| fs.filesystem_type().0).unwrap_or(0);
        let is_null = fstat(fd).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFCHR && s.st_rdev == NULL);
        let is_own = own.is_some() && terminal_of(fd) == own;
        if !(kind == PIPEFS || is_own || is_null) || (terminal && own.is_none()) {
            let message = format!("standard descriptor {index} is neither a pipe nor a terminal of its own");
            return Err(Failure::new(Exit::Usage, message, "use enforcer exec, which relays them"));
        }
    }
    Ok(stdio)
}

/// Which terminal a descriptor is, if it is the user's side of a pseudo terminal: by file system and inode,
/// because every devpts counts its terminals from 0, so that their device numbers are not unique.
fn terminal_of(fd: &OwnedFd) -> Option<(u64, u64)> {
    /// include/uapi/linux/magic.h
    const DEVPTS: i64 = 0x1cd1;
    let stat = fstat(fd).ok()?;
    // UNIX98_PTY_SLAVE_MAJOR and the seven after it, include/uapi/linux/major.h
    let is_slave =
        stat.st_mode & libc::S_IFMT == libc::S_IFCHR && (136..=143).contains(&libc::major(stat.st_rdev));
    let is_devpts = fstatfs(fd).is_ok_and(|fs| fs.filesystem_type().0 == DEVPTS);
    (is_slave && is_devpts).then_some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::unix::net::UnixStream};

    #[test]
    fn only_pipes_and_terminals_are_relayed() {
        let pipe = || nix::unistd::pipe().expect("pipe").0;
        let file = || OwnedFd::from(File::open("/proc/self/exe").expect("a file"));
        let null = || OwnedFd::from(File::open("/dev/null").expect("null"));
        assert!(check_stdio(vec![pipe(), pipe()], false).is_err());
        assert!(check_stdio(vec![pipe(), pipe(), file()], false).is_err());
        let (socket, _other) = UnixStream::pair().expect("pair");
        assert!(check_stdio(vec![socket.into(), pipe(), pipe()], true).is_err());
        assert!(check_stdio(vec![pipe(), pipe(), pipe()], false).is_ok());
        assert!(check_stdio(vec![null(), null(), null()], false).is_ok());
    }

    #[test]
    fn a_session_gets_one_terminal_and_nobody_elses() {
        let pipe = || nix::unistd::pipe().expect("pipe").0;
        let same = |fd: &OwnedFd| fd.try_clone().expect("duplicate");
        let (Ok(one), Ok(other)) = (nix::pty::openpty(None, None), nix::pty::openpty(None, None)) else {
            eprintln!("SKIPPED: no pseudo terminals here");
            return;
        };
        let terminal = || same(&one.slave);
        assert!(check_stdio(vec![terminal(), terminal(), terminal()], true).is_ok());
        assert!(check_stdio(vec![terminal(), pipe(), terminal()], true).is_ok());
        assert!(check_stdio(vec![terminal(), terminal(), same(&other.slave)], true).is_err());
        assert!(check_stdio(vec![pipe(), terminal(), terminal()], true).is_err(), "input is the terminal");
        assert!(check_stdio(vec![terminal(), terminal(), terminal()], false).is_err());
        assert!(check_stdio(vec![same(&one.master), pipe(), pipe()], true).is_err());
    }
}
