//! The helper's trouble as an operator sees it.

use super::spec::{Stage, Trouble};
use crate::{
    cli::exit::{Exit, Failure},
    daemon::watch::Refusal,
    event::text::escape,
};
use nix::errno::Errno;

/// Who refused to execute the command, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The policy: there is a record of it.
    Policy(Refusal),
    /// Not the policy: every record has arrived, and there is none.
    Nobody,
    /// Records were lost meanwhile, so it may have been the policy.
    Unknown,
}

/// What happened, what to do, and the exit code that env(1) would give.
pub fn explain(agent: &str, trouble: &Trouble, blame: &Blame) -> Failure {
    let errno = Errno::from_raw(trouble.errno);
    let (what, error) = (escape(&trouble.what.0), errno.desc());
    match trouble.stage {
        Stage::Execute if trouble.is_refused_execution() => refused(agent, &what, blame),
        Stage::Execute => Failure::new(
            if errno == Errno::ENOENT { Exit::NotFound } else { Exit::CannotExecute },
            format!("cannot execute {what}: {error}"),
            match errno {
                Errno::ENOENT => "the file or its interpreter does not exist",
                Errno::EACCES => {
                    "the session's user may not execute it, it is no program, or the session's Landlock layer is narrower"
                }
                Errno::ENOEXEC => "it is neither a program nor a script that begins with #!",
                Errno::E2BIG => "the command line and the environment are too long",
                _ => "",
            },
        ),
        Stage::Find => Failure::new(
            Exit::NotFound,
            format!("there is no command {what} on the session's PATH"),
            "name it with its directory, or set launch.path in the settings",
        ),
        Stage::Directory => Failure::new(
            Exit::NotStarted,
            format!("cannot start in the directory {what}: {error}"),
            "name another with --cwd",
        ),
        Stage::Enter => Failure::new(
            Exit::NotStarted,
            format!("cannot enter the session's cgroup {what}: {error}"),
            "see enforcer status",
        ),
        Stage::Terminal => Failure::new(
            Exit::NotStarted,
            format!("cannot use the terminal: {what}: {error}"),
            "only a terminal of its own can be given to a session",
        ),
        Stage::Layers => Failure::new(
            Exit::NotStarted,
            format!("cannot put the session's layers on: {what}: {error}"),
            "see enforcer status; launch.seccomp and launch.landlock, in the policy or the settings, say which it has",
        ),
        Stage::Prepare | Stage::User => {
            Failure::new(Exit::NotStarted, format!("cannot set up the session: {what}: {error}"), "")
        }
    }
}

/// The command failed with EPERM, which is the policy's answer, but not the policy's alone.
fn refused(agent: &str, what: &str, blame: &Blame) -> Failure {
    let ask = format!("enforcer policy explain {agent} exec {what}");
    let (message, remedy) = match blame {
        Blame::Policy(refusal) => {
            let object = escape(&refusal.object);
            let how = if refusal.operation == "exec" && object == *what {
                String::new()
            } else {
                format!(": it refuses {} {object}", refusal.operation)
            };
            (
                format!("the policy of {agent} does not allow executing {what}{how}"),
                format!(
                    "add it to the policy, `exec: [{{ allow: [\"{}\"] }}]`, and its interpreter and libraries \
                     with `load`; {ask}",
                    if refusal.operation == "exec" { &object } else { what },
                ),
            )
        }
        Blame::Nobody => (
            format!("cannot execute {what}: {} (the policy of {agent} did not refuse it)", Errno::EPERM.desc()),
            "another security module, a file access monitor (fanotify) or a seccomp filter refuses it, or the file \
             has capabilities that a session cannot get (getcap); see the kernel's log"
                .to_owned(),
        ),
        Blame::Unknown => (
            format!(
                "cannot execute {what}: {} (records were lost, so it is not known whether the policy of {agent} \
                 refused it)",
                Errno::EPERM.desc()
            ),
            format!("try again, or ask: {ask}"),
        ),
    };
    Failure::new(Exit::CannotExecute, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blaming(stage: Stage, errno: i32, blame: &Blame) -> Failure {
        explain("bot", &Trouble { stage, what: "/usr/bin/x".into(), errno }, blame)
    }

    fn trouble(stage: Stage, errno: i32) -> Failure {
        blaming(stage, errno, &Blame::Nobody)
    }

    fn policy(operation: &str, object: &str) -> Failure {
        let (operation, object) = (operation.to_owned(), object.as_bytes().to_vec());
        let refusal = Refusal { agent: 0, policy: 1, operation, object };
        blaming(Stage::Execute, libc::EPERM, &Blame::Policy(refusal))
    }

    #[test]
    fn a_refused_command_names_the_policy_and_what_to_add() {
        let failure = policy("exec", "/usr/bin/x");
        assert_eq!(failure.exit, Exit::CannotExecute);
        assert_eq!(failure.message, "the policy of bot does not allow executing /usr/bin/x");
        assert!(failure.remedy.contains("exec: [{ allow: [\"/usr/bin/x\"] }]"));
        let failure = policy("map", "/usr/lib/ld.so");
        assert!(
            failure.message.ends_with("executing /usr/bin/x: it refuses map /usr/lib/ld.so"),
            "{failure}"
        );
        let failure = policy("exec", "/usr/bin/python3");
        assert!(failure.remedy.contains("allow: [\"/usr/bin/python3\"]"), "{failure:?}");
    }

    #[test]
    fn a_refusal_without_a_record_is_not_the_policys() {
        let failure = trouble(Stage::Execute, libc::EPERM);
        assert_eq!(failure.exit, Exit::CannotExecute);
        assert!(failure.message.contains("Operation not permitted (the policy of bot did not refuse it)"));
        assert!(failure.remedy.contains("another security module"));
        let failure = blaming(Stage::Execute, libc::EPERM, &Blame::Unknown);
        assert!(failure.exit == Exit::CannotExecute && failure.message.contains("not known whether"));
    }

    #[test]
    fn exit_codes_are_those_of_env() {
        assert_eq!(trouble(Stage::Find, libc::ENOENT).exit, Exit::NotFound);
        assert_eq!(trouble(Stage::Execute, libc::ENOENT).exit, Exit::NotFound);
        assert_eq!(trouble(Stage::Execute, libc::EACCES).exit, Exit::CannotExecute);
        assert_eq!(trouble(Stage::Enter, libc::EBUSY).exit, Exit::NotStarted);
    }
}
