//! Who is on the other side of a connection.

use super::fds;
use crate::{
    break_glass::terminal::{self, Terminal},
    settings::is_below,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The process that connected, as the kernel vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id.
    pub pid: i32,
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group when it connected.
    pub gid: u32,
    /// Its other groups when it connected.
    pub groups: Vec<u32>,
    /// The terminal at which it sat when it connected.
    pub terminal: Option<Terminal>,
}

/// What a peer may ask for, beyond launching what a policy lets it launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing else.
    None,
    /// See how things are.
    Read,
    /// Change things.
    Operate,
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel does not say who it is.
    #[error("cannot tell who connected: {0}")]
    Unknown(#[from] io::Error),
    /// It belongs to an agent.
    #[error("process {pid} belongs to an agent (cgroup {cgroup})")]
    Agent {
        /// The process.
        pid: i32,
        /// Where it lives.
        cgroup: String,
    },
    /// It ended, or passed its number on, while it was being looked at.
    #[error("process {0} is not there any more")]
    Gone(i32),
}

impl Peer {
    /// Whether the peer is in a group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// What the peer may ask for. Root operates; the group reads.
    pub fn role(&self, group: Option<u32>) -> Role {
        if self.uid == 0 {
            Role::Operate
        } else if group.is_some_and(|gid| self.in_group(gid)) {
            Role::Read
        } else {
            Role::None
        }
    }

    /// Asks the kernel who is on the other side, and refuses agents: whoever lives below a root.
    ///
    /// A look at /proc can meet another process that has taken over the number. A descriptor for the
    /// process tells whether the one that connected was still there afterwards.
    pub fn of(socket: BorrowedFd<'_>, roots: &[String]) -> Result<Self, PeerError> {
        let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
            .map_err(io::Error::from)?;
        let (pid, uid, gid) = (credentials.pid(), credentials.uid(), credentials.gid());
        let process = fds::peer_process(socket)?;
        let groups = fds::peer_groups(socket)?;
        if pid <= 0 {
            // A peer in a process namespace that this one does not see.
            return Err(PeerError::Gone(pid));
        }
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| PeerError::Gone(pid))?;
        let terminal = terminal::of(pid);
        if process.as_ref().is_some_and(has_ended) {
            return Err(PeerError::Gone(pid));
        }
        let cgroup = unified(&text).ok_or(PeerError::Gone(pid))?;
        if roots.iter().any(|root| is_below(cgroup, root)) {
            return Err(PeerError::Agent { pid, cgroup: cgroup.to_owned() });
        }
        Ok(Self { pid, uid, gid, groups, terminal })
    }
}

/// The cgroup of the process that connected, if it is still there: as [`Peer::of`], for those who live below a root.
pub fn cgroup_of(socket: BorrowedFd<'_>) -> Result<String, PeerError> {
    let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(io::Error::from)?;
    let pid = credentials.pid();
    let process = fds::peer_process(socket)?;
    if pid <= 0 {
        return Err(PeerError::Gone(pid));
    }
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| PeerError::Gone(pid))?;
    if process.as_ref().is_some_and(has_ended) {
        return Err(PeerError::Gone(pid));
    }
    unified(&text).map(str::to_owned).ok_or(PeerError::Gone(pid))
}

/// The path in the unified hierarchy, in the text of /proc/PID/cgroup (cgroups(7)).
pub fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// A descriptor of a process is readable when the process has ended (pidfd_open(2)).
fn has_ended(process: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { pid: 1, uid, gid, groups: groups.to_vec(), terminal: None }
    }

    #[test]
    fn root_operates_the_group_reads_and_others_get_nothing() {
        assert_eq!(peer(0, 0, &[]).role(Some(7)), Role::Operate);
        assert_eq!(peer(5, 7, &[]).role(Some(7)), Role::Read);
        assert_eq!(peer(5, 5, &[6, 7]).role(Some(7)), Role::Read);
        assert_eq!(peer(5, 5, &[6]).role(Some(7)), Role::None);
        assert_eq!(peer(5, 0, &[0]).role(None), Role::None);
    }

    #[test]
    fn the_unified_hierarchy_is_found_among_others() {
        assert_eq!(unified("12:pids:/x\n0::/agents.slice/a\n"), Some("/agents.slice/a"));
        assert_eq!(unified("12:pids:/x\n"), None);
    }

    #[test]
    fn a_peer_below_a_root_is_refused_and_others_are_known() {
        let (a, _b) = UnixStream::pair().expect("pair");
        let peer = Peer::of(a.as_fd(), &["/agents.slice".to_owned()]).expect("a peer");
        assert_eq!(peer.pid as u32, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());

        let text = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
        if let Some(own) = unified(&text).filter(|path| *path != "/") {
            let refused = Peer::of(a.as_fd(), &[own.to_owned()]);
            assert!(matches!(refused, Err(PeerError::Agent { .. })));
        }
    }
}
