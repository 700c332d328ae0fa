//! Putting the layers around the running process, for good and for all that it executes. One of the
//! three files with `unsafe`: two system calls that nothing wraps as they are needed here.

use super::{Layers, filter, places, scope::Scope};
use landlock::{
    ABI, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope as LandlockScope,
};
use nix::{errno::Errno, sys::prctl};
use std::io;

/// Layers that are ready to be put on.
pub struct Ready {
    no_new_privileges: bool,
    ruleset: Option<RulesetCreated>,
    filter: Option<seccompiler::BpfProgram>,
}

/// Landlock's version in this kernel; none where it is not there or not among the active LSMs.
pub fn landlock_version() -> Option<u32> {
    /// include/uapi/linux/landlock.h
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag and no attributes the call answers a number and touches nothing
    // (landlock_create_ruleset(2)).
    let version = unsafe {
        let none = std::ptr::null::<libc::c_void>();
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).ok()
}

/// Looks up the places of the scope and makes the filter. What a kernel cannot do is an error, except for what came
/// to Landlock after its first version with renames, which is left out: it is then the other layers' alone.
pub fn prepare(layers: &Layers) -> io::Result<Ready> {
    let Layers { no_new_privileges, seccomp, landlock } = layers;
    let ruleset = landlock.as_ref().map(ruleset).transpose()?;
    let filter = match seccomp {
        Some(calls) => Some(filter::program(calls).map_err(io::Error::other)?),
        None => None,
    };
    Ok(Ready { no_new_privileges: *no_new_privileges, ruleset, filter })
}

fn ruleset(scope: &Scope) -> io::Result<RulesetCreated> {
    let version = landlock_version().ok_or(Errno::EOPNOTSUPP)?;
    if version < ABI::V2 as u32 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let handled = places::handled(scope.reading, version >= ABI::V3 as u32);
    let mut ports: BitFlags<AccessNet> = BitFlags::EMPTY;
    if version >= ABI::V4 as u32 {
        ports |= scope.connect.as_ref().map_or(BitFlags::EMPTY, |_| AccessNet::ConnectTcp.into());
        ports |= scope.bind.as_ref().map_or(BitFlags::EMPTY, |_| AccessNet::BindTcp.into());
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)
        .map_err(io::Error::other)?;
    if !ports.is_empty() {
        rules = rules.handle_access(ports).map_err(io::Error::other)?;
    }
    if version >= ABI::V6 as u32 {
        let mut apart = BitFlags::from(LandlockScope::Signal);
        if !scope.abstract_sockets {
            apart |= LandlockScope::AbstractUnixSocket;
        }
        rules = rules.scope(apart).map_err(io::Error::other)?;
    }
    let mut made = rules.create().map_err(io::Error::other)?;
    for (path, access) in places::find(&scope.places, handled)? {
        if let Some((fd, access)) = places::open_place(&path, access)? {
            made = made.add_rule(PathBeneath::new(fd, access)).map_err(io::Error::other)?;
        }
    }
    for (access, numbers) in [(AccessNet::ConnectTcp, &scope.connect), (AccessNet::BindTcp, &scope.bind)] {
        for port in numbers.iter().flatten().filter(|_| ports.contains(access)) {
            made = made.add_rule(NetPort::new(*port, access)).map_err(io::Error::other)?;
        }
    }
    Ok(made)
}

impl Ready {
    /// Puts them on. Takes `CAP_SYS_ADMIN` where `no_new_privs` is not among them.
    pub fn put_on(self) -> io::Result<()> {
        if self.no_new_privileges {
            prctl::set_no_new_privs()?;
        }
        if let Some(ruleset) = self.ruleset {
            let status = ruleset.no_new_privs(false).restrict_self().map_err(io::Error::other)?;
            if status.ruleset != RulesetStatus::FullyEnforced {
                return Err(Errno::EOPNOTSUPP.into());
            }
        }
        if let Some(filter) = &self.filter {
            install(filter)?;
        }
        Ok(())
    }
}

/// By the system call itself: the compiler's own function also sets `no_new_privs`.
fn install(filter: &[seccompiler::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        // The kernel reads it and nothing else does.
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: SECCOMP_SET_MODE_FILTER reads the program and its `len` instructions (seccomp(2)), which live until the
    // call returns; the compiler's instruction has the layout of the kernel's (`repr(C)`: code, jt, jf, k).
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program))
    };
    Errno::result(done)?;
    Ok(())
}
