//! `process`, `capabilities` and `system` → [`Grants`].

use super::{
    check::Checker,
    decode::{self, At},
    draft::{Permission, ProcessDraft},
};
use enforcer_common::floor::{CAPABILITIES, Grants, ITEMS, NO_TRACE};

/// Why a capability that the kernel has cannot be granted. Names without `cap_`.
const NEVER: [(&str, &str); 22] = [
    ("sys_admin", "it mounts, enters namespaces and does a hundred other things that no rule sees"),
    ("sys_module", "it changes the kernel itself"),
    ("sys_rawio", "it reaches ports and memory past every file"),
    ("sys_boot", "it starts another kernel"),
    ("sys_chroot", "it changes what names mean"),
    ("sys_time", "write `system: [clock]` instead"),
    ("syslog", "write `system: [kernel-log]` instead"),
    ("sys_pacct", "it makes the kernel write to files"),
    ("net_admin", "it changes where packets go, past the address rules"),
    ("net_raw", "it makes packets that no address rule sees"),
    ("ipc_owner", "it reads other processes' shared memory and messages"),
    ("sys_tty_config", "it takes other sessions' terminals away"),
    ("setfcap", "it gives programs capabilities that whoever runs them has"),
    ("bpf", "it reaches the programs and tables that enforce the policy"),
    ("perfmon", "it reads the kernel's and other processes' memory"),
    ("dac_read_search", "it opens files by their handles, past their names"),
    ("mknod", "it makes devices, which are disks and memory under another name"),
    ("checkpoint_restore", "it opens other processes' files"),
    ("mac_override", "it switches other security modules off"),
    ("mac_admin", "it changes other security modules"),
    ("audit_control", "it switches the kernel's audit off"),
    ("audit_read", "it reads what other processes do"),
];

/// Capabilities that no session is refused: they act on the agent's own files and identity.
const ALWAYS: [&str; 9] =
    ["chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service"];

impl Checker<'_> {
    pub(super) fn grants(
        &mut self,
        process: Option<ProcessDraft>,
        capabilities: Option<Vec<At<String>>>,
        system: Option<Vec<At<String>>>,
    ) -> Grants {
        let mut grants = Grants::default();
        if let Some(ProcessDraft { trace: Some(Permission::Deny) }) = process {
            grants.floor |= NO_TRACE;
        }
        for text in system.iter().flatten() {
            grants.floor |= self.item(text).unwrap_or(0);
        }
        for text in capabilities.iter().flatten() {
            grants.capabilities |= self.capability(text).unwrap_or(0);
        }
        grants
    }

    fn item(&mut self, text: &At<String>) -> Option<u32> {
        let found = ITEMS.iter().find(|(_, name)| *name == text.value);
        if found.is_none() {
            let names: Vec<&str> = ITEMS.iter().map(|(_, name)| *name).collect();
            self.problem(
                text.at,
                format!("`{}` cannot be granted of the floor", text.value),
                format!("what can be granted is {}", decode::list(&names)),
            );
        }
        found.map(|(bit, _)| *bit)
    }

    fn capability(&mut self, text: &At<String>) -> Option<u64> {
        let lower = text.value.to_ascii_lowercase();
        let name = lower.strip_prefix("cap_").unwrap_or(&lower);
        if let Some((number, _)) = CAPABILITIES.iter().find(|(_, known)| *known == name) {
            return Some(1 << number);
        }
        let grantable = || {
            let names: Vec<&str> = CAPABILITIES.iter().map(|(_, name)| *name).collect();
            format!("what can be granted is {}", decode::list(&names))
        };
        let (message, remedy) = match NEVER.iter().find(|(never, _)| *never == name) {
            Some((_, why)) => (format!("the capability `{name}` cannot be granted: {why}"), grantable()),
            None if ALWAYS.contains(&name) => (
                format!("the capability `{name}` is refused to no session"),
                "remove the entry; an agent that runs as root has it".to_owned(),
            ),
            None => (format!("there is no capability `{}`", text.value), grantable()),
        };
        self.problem(text.at, message, remedy);
        None
    }
}
