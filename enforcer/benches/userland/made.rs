//! Records as the kernel makes them, and what the daemon would know of their numbers.

use enforcer::event::{
    decode::Event,
    json::{Context, PolicyNote, RuleNote},
};
use enforcer_common::{
    access,
    event::{Header, VERSION, kind, operation, reason},
    verdict::Verdict,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// What is added to boot time to get nanoseconds since 1970.
pub const OFFSET: i128 = 1_700_000_000_000_000_000;
/// As many as the daemon takes from the ring at once.
pub const BATCH: usize = 256;

/// Denials of different files, as the kernel writes them.
pub fn denials(count: usize) -> Vec<Vec<u8>> {
    let exe = b"/usr/bin/python3.11";
    let denial = |n: usize| {
        let object = format!("/home/someone/secrets/file-{n}");
        let mut header = Header::new_zeroed();
        header.version = VERSION;
        header.kind = kind::DECISION;
        header.operation = operation::OPEN;
        header.verdict = Verdict::Deny as u16;
        header.reason = reason::RULE;
        header.error = -libc::EPERM;
        header.access = u32::from(access::file::READ);
        header.object_len = object.len() as u16;
        header.exe_len = exe.len() as u16;
        header.length = (size_of::<Header>() + object.len() + exe.len()) as u32;
        header.comm[..7].copy_from_slice(b"python3");
        (header.policy, header.session, header.cgroup) = (1, [7, 7], 4712);
        (header.tgid, header.pid, header.parent, header.uid) = (4711, 4711, 1, 1000);
        (header.device, header.inode) = (8 << 20 | 1, 1 + n as u64);
        header.time = 1_000_000_000 + n as u64 * 10_000;
        [header.as_bytes(), object.as_bytes(), exe].concat()
    };
    (0..count).map(denial).collect()
}

/// What the daemon knows of the numbers in a record.
pub struct Known;

impl Context for Known {
    fn agent(&self, _: u32) -> Option<String> {
        Some("billing-bot".to_owned())
    }

    fn policy(&self, _: u32) -> Option<PolicyNote> {
        Some(PolicyNote { id: "billing-bot".to_owned(), version: 7, digest: "ab".repeat(32) })
    }

    fn rules(&self, _: &Event<'_>) -> Option<Vec<RuleNote>> {
        Some(vec![RuleNote { text: "deny read **/secrets/**".to_owned(), because: None }])
    }

    fn break_glass(&self, _: u32, _: u64) -> Option<String> {
        None
    }
}
