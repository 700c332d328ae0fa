//! What the daemon may do itself: capabilities named one by one, the rest given up before the first thread.
//!
//! Given up is what is effective and permitted, not what bounds what the daemon starts: programs that it executes as
//! root (the launch helper, the canary) have everything again (capabilities(7), "Capabilities and execution of
//! programs by root"). A session is to be refused by the hooks, with a record, and not for want of a capability.

use crate::cli::exit::{Exit, Failure};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What the daemon needs, and what for.
const NEEDED: [(CapabilitySet, &str); 13] = [
    (CapabilitySet::BPF, "programs and maps"),
    (CapabilitySet::PERFMON, "programs that read the kernel's memory"),
    (CapabilitySet::SYS_ADMIN, "programs of LSM hooks, walks over the ids of programs, freezing"),
    (CapabilitySet::NET_ADMIN, "programs on cgroups that see packets"),
    (CapabilitySet::SYSLOG, "addresses in /proc/kallsyms"),
    (CapabilitySet::SYS_PTRACE, "programs, descriptors and mappings of agents' processes"),
    (CapabilitySet::KILL, "stopping, waking and ending agents' processes"),
    (CapabilitySet::DAC_OVERRIDE, "sockets and logs in directories of groups"),
    (CapabilitySet::DAC_READ_SEARCH, "programs to hash, names of hard links"),
    (CapabilitySet::CHOWN, "the control socket's group"),
    (CapabilitySet::FOWNER, "modes of files that are another user's"),
    (CapabilitySet::NET_BIND_SERVICE, "metrics at a port below 1024"),
    (CapabilitySet::SYS_RESOURCE, "writing the log into the room that file systems keep for root"),
];

/// What is kept of what there is.
fn kept(now: CapabilitySets) -> CapabilitySets {
    let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    CapabilitySets {
        effective: now.effective & needed,
        permitted: now.permitted & needed,
        inheritable: CapabilitySet::empty(),
    }
}

/// Gives up what the daemon does not need. Other threads keep theirs, so there must be none yet.
///
/// # Errors
/// The kernel refuses: nothing is started with more than is known.
pub(super) fn give_up() -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| {
        let remedy = "see capabilities(7); a filter of the service manager may refuse capset(2)";
        Failure::new(Exit::Kernel, format!("cannot give up capabilities: {error}"), remedy)
    };
    set_capabilities(None, kept(capabilities(None).map_err(failed)?)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_given_up_and_nothing_is_gained() {
        let all = CapabilitySets {
            effective: CapabilitySet::all(),
            permitted: CapabilitySet::all(),
            inheritable: CapabilitySet::all(),
        };
        let left = kept(all);
        assert_eq!(left.effective.bits().count_ones() as usize, NEEDED.len(), "one is named twice");
        assert_eq!((left.permitted, left.inheritable), (left.effective, CapabilitySet::empty()));
        for gone in [CapabilitySet::SYS_MODULE, CapabilitySet::SYS_BOOT, CapabilitySet::SYS_RAWIO] {
            assert!(!left.permitted.intersects(gone));
        }
        let none = CapabilitySets { permitted: CapabilitySet::BPF, effective: CapabilitySet::empty(), ..all };
        assert_eq!(kept(none).effective, CapabilitySet::empty());
        assert_eq!(kept(none).permitted, CapabilitySet::BPF);
    }
}
