//! Tasks outside the session: not read, not changed, not signalled, not killed.

use super::{floor::almighty, tree};
use crate::{
    cases,
    command::{Command, survives},
    ensure, events, fail,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};
use std::{
    fs,
    io::{self, BufRead, BufReader},
    process::{Child, Command as Process, Stdio},
};

cases!(tasks:
    no_signal_reaches_an_outsider,
    no_signal_of_a_pipe_reaches_an_outsider,
    an_outsider_is_told_by_its_own_signal_of_what_an_agent_sends,
    no_outsider_is_traced_or_read,
    a_descriptor_of_an_outsider_gives_nothing,
    a_session_has_descriptors_of_its_own_processes,
    nothing_of_an_outsider_in_proc_can_be_opened,
    no_limit_or_priority_of_an_outsider_changes,
    the_session_keeps_its_own_processes,
    no_key_of_others_is_read,
    no_child_is_born_in_another_cgroup,
);

/// A process outside every agent, which sleeps until this value goes.
pub(super) struct Victim(Child);

impl Victim {
    pub(super) fn new() -> Outcome<Self> {
        Ok(Self(Command::new("/usr/bin/sleep").args(["1000"]).spawn()?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> Outcome<bool> {
        Ok(survives(&mut self.0)?)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn no_signal_reaches_an_outsider(t: &mut Test) -> Outcome {
    tree(t)?;
    let mut victim = Victim::new()?;
    let pid = victim.pid();
    let signal = |act: &str, number: i32, name: &'static str| {
        Attempt::new(format!("{act} {pid} {number}"), Denial::floor("signal").argument(name))
    };
    let acts = ["kill", "tgkill", "tkill", "sigqueue"];
    let asking: Vec<Attempt> = acts.iter().map(|act| signal(act, 18, "SIGCONT")).collect();
    check::control(&asking)?;
    let mut attempts = asking;
    attempts.extend(acts.map(|act| signal(act, 9, "SIGKILL")));
    attempts.push(signal("kill", 19, "SIGSTOP"));
    check::refused(t, &almighty(t)?, &["kill-self".to_owned()], &attempts)?;
    ensure!(victim.lives()?, "the outsider was killed");
    Ok(())
}

fn no_signal_of_a_pipe_reaches_an_outsider(t: &mut Test) -> Outcome {
    tree(t)?;
    let mut control = Victim::new()?;
    check::allowed_outside(&[format!("sigio {} 10", control.pid())])?;
    ensure!(!control.lives()?, "the act has no effect outside");
    let mut victim = Victim::new()?;
    let agent = almighty(t)?;
    // Nobody tells the sender of such a signal; whether it arrived is what counts.
    agent.probe(&[format!("sigio {} 10", victim.pid())])?;
    ensure!(victim.lives()?, "the outsider was killed");
    Ok(())
}

/// An outsider that waits for `SIGIO` from its own socket.
const LISTENER: &str = "
import fcntl, os, signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 0))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC)
print(s.getsockname()[1], flush=True)
print('told' if signal.sigtimedwait([signal.SIGIO], 120) else 'not told', flush=True)
";

/// The signal is sent in an interrupt, while the sender's task runs.
fn an_outsider_is_told_by_its_own_signal_of_what_an_agent_sends(t: &mut Test) -> Outcome {
    let mut outsider = Process::new("/usr/bin/python3")
        .args(["-c", LISTENER])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(out) = outsider.stdout.take() else { fail!("no output") };
    let mut lines = BufReader::new(out).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let port: u16 = line()?.parse().unwrap_or_default();
    let agent = t.agent(t.policy().connect(&format!("127.0.0.1:{port}/udp")))?;
    let marker = check::marker(t)?;
    let acts = [format!("udp-send 127.0.0.1 {port}"), format!("read {marker}")];
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    let told = line()?;
    ensure!(told == "told", "the outsider was {told}");
    outsider.wait()?;
    let records = events::until_marker(session.mark, &session.id, &marker)?;
    ensure!(records.is_empty(), "it was recorded as refused: {records:?}");
    Ok(())
}

fn no_outsider_is_traced_or_read(t: &mut Test) -> Outcome {
    tree(t)?;
    let (mut victim, mut seized) = (Victim::new()?, Victim::new()?);
    let pid = victim.pid();
    let trace = |act: &str| Attempt::new(format!("{act} {pid}"), Denial::floor("ptrace|capability"));
    let attempts = [
        trace("ptrace-attach"),
        Attempt::new(format!("ptrace-seize {}", seized.pid()), Denial::floor("ptrace|capability")),
        trace("process-vm-readv").fails_outside("EFAULT"),
        trace("process-vm-writev").fails_outside("EFAULT"),
        trace("kcmp"),
        trace("move-pages"),
    ];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["proc-maps-own".to_owned()], &attempts)?;
    ensure!(victim.lives()? && seized.lives()?, "the outsider has ended");
    Ok(())
}

/// Older kernels judge what is done with such a descriptor; newer ones open it as a file, which may be
/// refused already. Either way nothing comes of it, and it is recorded once.
fn a_descriptor_of_an_outsider_gives_nothing(t: &mut Test) -> Outcome {
    tree(t)?;
    let mut victim = Victim::new()?;
    let pid = victim.pid();
    let acts = [
        format!("pidfd-kill {pid} 9"),
        format!("pidfd-getfd {pid}"),
        format!("process-madvise {pid}"),
        format!("setns-pidfd {pid}"),
    ];
    let agent = almighty(t)?;
    for act in acts {
        let marker = check::marker(t)?;
        let session = agent.probe(&[act.clone(), format!("read {marker}")])?;
        // Kernels before 6.4 say EACCES where they look for the memory of another process.
        let refused = session.lines == ["EPERM", "EPERM"]
            || act.starts_with("process-madvise") && session.lines == ["EACCES", "EPERM"];
        ensure!(refused, "{act}: {:?}", session.lines);
        let records = crate::events::until_marker(session.mark, &session.id, &marker)?;
        let shown: Vec<String> = records.iter().map(crate::events::shown).collect();
        ensure!(records.len() == 1, "{act}: {} records\n{}", records.len(), shown.join("\n"));
    }
    ensure!(victim.lives()?, "the outsider was killed");
    check::allowed_outside(&[format!("pidfd-getfd {pid}"), format!("setns-pidfd {pid}")])?;
    Ok(())
}

fn a_session_has_descriptors_of_its_own_processes(t: &mut Test) -> Outcome {
    tree(t)?;
    let twins = ["pidfd-self".to_owned()];
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &[])
}

fn nothing_of_an_outsider_in_proc_can_be_opened(t: &mut Test) -> Outcome {
    tree(t)?;
    let victim = Victim::new()?;
    let pid = victim.pid();
    let open = |act: &str| Attempt::new(format!("{act} {pid}"), Denial::floor("open"));
    let attempts = [
        open("proc-mem"),
        // Writing to any process's memory through /proc is refused, whosever it is.
        open("proc-mem-write"),
        open("proc-environ"),
        open("proc-maps"),
        Attempt::new(format!("proc-root {pid} /etc/hostname"), Denial::floor("ptrace")).errno("EACCES"),
    ];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["proc-maps-own".to_owned()], &attempts)
}

fn no_limit_or_priority_of_an_outsider_changes(t: &mut Test) -> Outcome {
    tree(t)?;
    let victim = Victim::new()?;
    let pid = victim.pid();
    let acts = ["prlimit", "affinity", "scheduler", "priority", "io-priority"];
    let attempts = acts.map(|act| Attempt::silent(format!("{act} {pid}")));
    check::control(&attempts)?;
    let agent = almighty(t)?;
    let session = agent.probe(&check::acts(&attempts))?;
    let wrong: Vec<String> =
        acts.iter().zip(&session.lines).map(|(act, line)| format!("{act}: {line}")).collect();
    ensure!(session.lines == ["EPERM"; 5], "{}", wrong.join(", "));
    Ok(())
}

fn the_session_keeps_its_own_processes(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().exec("/usr/bin/*").allow("read", "/proc/[0-9]*/**"))?;
    let script =
        "sleep 100 & p=$!; kill -0 $p && cat /proc/$p/environ >/dev/null && kill -9 $p && wait $p; echo $?";
    let session = agent.run(&["/usr/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])?;
    ensure!(session.lines == ["137"], "{:?} {}", session.lines, session.err);
    Ok(())
}

/// `add_key` outside puts a key where all processes of the user share it.
fn no_key_of_others_is_read(t: &mut Test) -> Outcome {
    tree(t)?;
    // SAFETY: names and one byte, into the session keyring, which this process and the control have in common.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), c"theirs".as_ptr(), c"x".as_ptr(), 1, -3)
    };
    ensure!(key > 0, "no key: {}", std::io::Error::last_os_error());
    // KEY_SPEC_USER_KEYRING. The kernel says "no key" when it may not search for the keyring.
    let attempts = [
        Attempt::new("keyctl-describe -4", Denial::floor("key")).errno("ENOKEY"),
        Attempt::new(format!("keyctl-describe {key}"), Denial::floor("key")),
    ];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["add-key".to_owned(), "key-own".to_owned()], &attempts)
}

fn no_child_is_born_in_another_cgroup(t: &mut Test) -> Outcome {
    tree(t)?;
    let elsewhere = "/sys/fs/cgroup/probe-elsewhere";
    fs::create_dir_all(elsewhere)?;
    let attempts = [
        Attempt::new(format!("clone-into-cgroup {elsewhere}"), Denial::floor("fork")),
        Attempt::new("clone-into-cgroup /sys/fs/cgroup/agents.slice", Denial::floor("fork")),
    ];
    let outcome = check::control(&attempts[..1])
        .and_then(|()| check::refused(t, &almighty(t)?, &["fork".to_owned()], &attempts));
    fs::remove_dir(elsewhere)?;
    outcome
}
