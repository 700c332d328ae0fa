//! `enforcer exec`: asks the daemon to start a command as an agent and stays between it and the caller.

use super::{
    ExecArgs, Failure,
    exit::Exit,
    printable,
    relay::{Relay, Stdio},
};
use crate::{
    control::{
        client::Client,
        message::{Bytes, Ended, ExecRequest, Reply, Request},
    },
    settings::Settings,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use std::{
    ffi::OsStr,
    io::{IsTerminal, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    process::ExitCode,
};

/// Signals that are passed on to the session.
const PASSED_ON: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs a command as an agent and ends as it ends.
pub(super) fn run(settings: &Settings, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let environment = args.environment.iter().map(|text| variable(text)).collect::<Result<Vec<_>, _>>()?;
    let signals = catch_signals().map_err(|e| not_started("catch signals", e))?;
    let mut client = Client::connect(&settings.paths.socket)?;
    let stdio = Stdio::new(args.detach).map_err(|e| not_started("prepare the standard descriptors", e))?;
    let request = ExecRequest {
        agent: args.agent.clone(),
        command: args.command.iter().cloned().map(Bytes::from).collect(),
        environment,
        directory: args.cwd.clone().map(|dir| Bytes::from(dir.into_os_string())),
        task: args.task.clone(),
        detach: args.detach,
        terminal: stdio.terminal(),
        term: std::env::var("TERM").ok(),
        lang: std::env::var("LANG").ok(),
    };
    client.send(&Request::Exec(request), &stdio.far_ends())?;
    // The far ends are the session's alone now: what it closes must end the relay.
    let mut relay = stdio.relay();
    loop {
        match next(&mut client, &signals)? {
            Next::Signal(Signal::SIGWINCH) => relay.resize(),
            Next::Signal(signal) if !relay.is_running() => {
                // Nothing of the session exists for the caller yet; leaving ends it.
                return Ok(ExitCode::from(128 + signal as u8));
            }
            Next::Signal(signal) => client.send(&Request::Signal { signal: signal as i32 }, &[])?,
            Next::Lost(failure) if !relay.is_running() => return Err(failure),
            Next::Lost(_) => return Err(alone(relay)),
            Next::Reply(reply) => match *reply {
                Reply::Started { session, pid: _ } => {
                    if args.detach {
                        return super::print(&format!("{}\n", printable(&session)));
                    }
                    if args.verbose {
                        // A caller without standard error does not hear it.
                        let _ = writeln!(std::io::stderr(), "session {}", printable(&session));
                    }
                    relay.start().map_err(|e| not_started("relay", e))?;
                }
                Reply::Ended(ended) => {
                    relay.finish();
                    return Ok(status(ended));
                }
                other => return Err(super::unexpected(&other)),
            },
        }
    }
}

/// The daemon has ended, is restarted perhaps; the session goes on, and so does the relay until the
/// session closes its side. Signals are the caller's own again.
fn alone(relay: Relay) -> Failure {
    let mut all = SigSet::empty();
    PASSED_ON.into_iter().for_each(|signal| all.add(signal));
    // Where they stay blocked the caller still has SIGKILL.
    let _ = all.thread_unblock();
    relay.finish();
    Failure::new(
        Exit::Unavailable,
        "the daemon ended while the session ran, so how the command ended is not known",
        "see systemctl status enforcer",
    )
}

enum Next {
    Signal(Signal),
    Reply(Box<Reply>),
    /// The daemon has gone.
    Lost(Failure),
}

/// Waits for a signal or a reply.
fn next(client: &mut Client, signals: &SignalFd) -> Result<Next, Failure> {
    loop {
        let (socket_ready, signal_ready) = {
            let mut polled = [
                PollFd::new(client.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(not_started("wait", e)),
            }
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            (ready(&polled[0]), ready(&polled[1]))
        };
        if signal_ready
            && let Ok(Some(info)) = signals.read_signal()
            && let Ok(signal) = Signal::try_from(info.ssi_signo as i32)
        {
            return Ok(Next::Signal(signal));
        }
        if socket_ready {
            return match client.receive() {
                Ok(reply) => Ok(Next::Reply(Box::new(reply))),
                Err(failure) if failure.exit == Exit::Unavailable => Ok(Next::Lost(failure)),
                Err(failure) => Err(failure),
            };
        }
    }
}

/// From here on these signals wait to be read; the relay's threads inherit that.
fn catch_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    PASSED_ON.into_iter().chain([Signal::SIGWINCH]).for_each(|signal| set.add(signal));
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn variable(text: &OsStr) -> Result<(Bytes, Bytes), Failure> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=');
    let at = at.ok_or_else(|| Failure::new(Exit::Usage, "--env takes NAME=VALUE", ""))?;
    Ok((Bytes(bytes[..at].to_vec()), Bytes(bytes[at + 1..].to_vec())))
}

fn status(ended: Ended) -> ExitCode {
    match ended {
        Ended::Exited { status } => ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
        Ended::Killed { signal } => ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(127))),
    }
}

fn not_started(what: &str, error: impl Into<std::io::Error>) -> Failure {
    Failure::new(Exit::NotStarted, format!("cannot {what}: {}", error.into()), "")
}

/// Whether the caller sits at a terminal.
pub(super) fn at_terminal() -> bool {
    std::io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        let (name, value) = variable(OsStr::new("A=b=c")).expect("valid");
        assert_eq!((name.0, value.0), (b"A".to_vec(), b"b=c".to_vec()));
        assert!(variable(OsStr::new("A")).is_err());
    }

    #[test]
    fn a_command_killed_by_a_signal_ends_as_a_shell_would_say() {
        let text = |code: ExitCode| format!("{code:?}");
        assert_eq!(text(status(Ended::Killed { signal: 9 })), text(ExitCode::from(137)));
        assert_eq!(text(status(Ended::Exited { status: 3 })), text(ExitCode::from(3)));
    }
}
