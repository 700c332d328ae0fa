//! Every kind of record there is: docs/records.md has a row for each, and the log takes no other.

/// Kinds of the kernel's records.
pub const KERNEL: &[&str] = &[
    "arguments",
    "decision",
    "entered",
    "executed",
    "held",
    "root-created",
    "session-armed",
    "session-bound",
    "session-removed",
    "strayed",
];

/// Kinds of the daemon's own records.
pub const DAEMON: &[&str] = &[
    "alert",
    "alive",
    "approval-decided",
    "approval-ended",
    "approval-refused",
    "approval-rejected",
    "approval-requested",
    "approval-timed-out",
    "approval-void",
    "approval-withdrawn",
    "approvals-lost",
    "approvals-silenced",
    "break-glass-begun",
    "break-glass-ended",
    "break-glass-refused",
    "canary",
    "control-refused",
    "daemon-started",
    "daemon-stopped",
    "enforcement-ended",
    "enforcement-ends",
    "enforcement-not-ended",
    "first-use",
    "hooks-brought-back",
    "key-handover",
    "key-made",
    "launch-refused",
    "launched",
    "layer-attached",
    "log-begun",
    "log-failed",
    "log-recovered",
    "lost",
    "malformed",
    "other",
    "policy-problems",
    "policy-published",
    "policy-retired",
    "session-ended",
    "sink-failed",
    "sink-recovered",
    "state",
    "truncated",
    "trust-changed",
    "trust-lost",
    "trust-problems",
    "trust-rejected",
    "trust-void",
    "witness-failed",
    "witness-recovered",
];

/// Whether records may be of this kind: one of those, or one that a newer kernel side has made.
pub fn is_known(kind: &str) -> bool {
    KERNEL.contains(&kind) || DAEMON.contains(&kind) || kind.starts_with("unknown-")
}
