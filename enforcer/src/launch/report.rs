//! The helper's trouble as an operator sees it.

use super::spec::{Stage, Trouble};
use crate::{
    cli::exit::{Exit, Failure},
    event::text::escape,
};
use nix::errno::Errno;

/// What happened, what to do, and the exit code that env(1) would give.
pub fn explain(agent: &str, trouble: &Trouble) -> Failure {
    let errno = Errno::from_raw(trouble.errno);
    let (what, error) = (escape(&trouble.what.0), errno.desc());
    let refused = errno == Errno::EPERM;
    match trouble.stage {
        Stage::Execute if refused => Failure::new(
            Exit::CannotExecute,
            format!("the policy of {agent} does not allow executing {what}"),
            format!(
                "add it to the policy, `exec: [{{ allow: [\"{what}\"] }}]`, and its interpreter and libraries \
                 with `load`; enforcer policy explain {agent} exec {what}"
            ),
        ),
        Stage::Execute => Failure::new(
            if errno == Errno::ENOENT { Exit::NotFound } else { Exit::CannotExecute },
            format!("cannot execute {what}: {error}"),
            match errno {
                Errno::ENOENT => "the file or its interpreter does not exist",
                Errno::EACCES => "the session's user may not execute it, or it is no program",
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
        Stage::Prepare | Stage::User => {
            Failure::new(Exit::NotStarted, format!("cannot set up the session: {what}: {error}"), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(stage: Stage, errno: i32) -> Failure {
        explain("bot", &Trouble { stage, what: "/usr/bin/x".into(), errno })
    }

    #[test]
    fn a_refused_command_names_the_policy_and_what_to_add() {
        let failure = trouble(Stage::Execute, libc::EPERM);
        assert_eq!(failure.exit, Exit::CannotExecute);
        assert_eq!(failure.message, "the policy of bot does not allow executing /usr/bin/x");
        assert!(failure.remedy.contains("exec: [{ allow: [\"/usr/bin/x\"] }]"));
    }

    #[test]
    fn exit_codes_are_those_of_env() {
        assert_eq!(trouble(Stage::Find, libc::ENOENT).exit, Exit::NotFound);
        assert_eq!(trouble(Stage::Execute, libc::ENOENT).exit, Exit::NotFound);
        assert_eq!(trouble(Stage::Execute, libc::EACCES).exit, Exit::CannotExecute);
        assert_eq!(trouble(Stage::Enter, libc::EBUSY).exit, Exit::NotStarted);
    }
}
