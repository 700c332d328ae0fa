//! Every exit code of the program, in one place. docs/cli.md lists the same table.

use std::process::ExitCode;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)*) => {
        /// What the program's exit status says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Exit { $($(#[doc = $doc])+ $name = $number),* }

        impl Exit {
            /// Every code with what it means, as docs/cli.md has it.
            pub const TABLE: &'static [(Exit, u8, &'static str)] = &[$((Exit::$name, $number, $text)),*];
        }
    };
}

codes! {
    /// Done as asked.
    Ok = 0, "done as asked; for `status`: enforcing; for `policy diff`: the same authority";
    /// `status`: something is missing that is not essential.
    Degraded = 1, "`status`: enforcing, but degraded";
    /// `status`: agents are not confined.
    NotEnforcing = 2, "`status`: NOT ENFORCING";
    /// `policy diff`: less authority.
    LessAuthority = 10, "`policy diff`: the second policy only takes away";
    /// `policy diff`: more authority.
    MoreAuthority = 11, "`policy diff`: the second policy only grants";
    /// `policy diff`: both.
    OtherAuthority = 12, "`policy diff`: the second policy grants and takes away";
    /// `policy fmt --check`: a file would change.
    OtherLayout = 13, "`policy fmt --check`: a file is not in the canonical layout";
    /// `approvals`, `trust`, `break-glass`: the decision does not count.
    NotApproved = 14, "`approvals`, `trust`, `break-glass`: the decision does not count, and why is said; nothing has changed";
    /// `why`: nothing to explain.
    NoRefusal = 15, "`why`: no refusal is recorded that fits";
    /// The command line is wrong.
    Usage = 64, "wrong command line, or an agent that does not exist";
    /// A policy is broken.
    BadPolicy = 65, "a policy is not valid";
    /// A named file cannot be read.
    NoInput = 66, "a file named on the command line cannot be read";
    /// The daemon does not answer.
    Unavailable = 69, "the daemon cannot be reached, or the connection to it broke";
    /// A fault of the program itself.
    Internal = 70, "internal error";
    /// The kernel lacks something.
    Kernel = 71, "the kernel lacks something: BPF LSM, BTF, a required hook, a supported version";
    /// Not pure cgroup v2.
    CgroupMode = 72, "the host does not run pure cgroup v2";
    /// State cannot be written.
    CannotWrite = 73, "state cannot be written: disk full or read-only";
    /// `audit`: not what was signed.
    NotVerified = 74, "`audit`: the log or the export is not what was signed";
    /// Something else must end first.
    Busy = 75, "`daemon --uninstall`: a daemon or agents are still running";
    /// Not allowed.
    Permission = 77, "not permitted: not root, or not allowed to launch this agent";
    /// The settings file is broken.
    BadSettings = 78, "the settings file is not valid";
    /// `exec`: the command was not started.
    NotStarted = 125, "`exec`: the session could not be set up";
    /// `exec`: the command cannot be executed.
    CannotExecute = 126, "`exec`: the command was found but cannot be executed, or the policy refuses it";
    /// `exec`: no such command.
    NotFound = 127, "`exec`: the command was not found";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The code with this number, for a number that came over the control socket.
    pub fn from_number(number: u8) -> Option<Exit> {
        Self::TABLE.iter().find(|(_, n, _)| *n == number).map(|(exit, _, _)| *exit)
    }
}

/// An error as an operator sees it: what happened, what to do about it, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What happened, naming the thing.
    pub message: String,
    /// What to do about it; empty where nothing sensible can be said.
    pub remedy: String,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// An error with its remedy.
    pub fn new(exit: Exit, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into(), exit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented() {
        let page = include_str!("../../../docs/cli.md");
        for (_, number, text) in Exit::TABLE {
            let row = format!("| {number} | {text} |");
            assert!(page.contains(&row), "docs/cli.md lacks the row {row}");
        }
    }

    #[test]
    fn numbers_lead_back_to_their_code() {
        for (exit, number, _) in Exit::TABLE {
            assert_eq!(Exit::from_number(*number), Some(*exit));
            assert_eq!(*exit as u8, *number);
        }
        assert_eq!(Exit::from_number(3), None);
    }
}
