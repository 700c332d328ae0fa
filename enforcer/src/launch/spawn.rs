//! The launch helper as the daemon sees it: started with its order, moved into the session if systemd does that, and
//! heard until it has executed the command.

use super::spec::{Spec, Trouble};
use crate::control::fds;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    process::{Child, Command},
    time::timeout,
};

/// After which time the helper must have done its next step or failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest report that is read.
const REPORT: usize = 64 * 1024;

/// A helper that has not executed the command yet.
pub(super) struct Helper {
    child: Child,
    pid: i32,
    socket: tokio::net::UnixStream,
    report: pipe::Receiver,
}

/// How far a helper came.
pub(super) enum Heard {
    /// It waits to be moved into the session.
    Ready(Helper),
    /// It has executed the command, or died without a word.
    Executed(Child, i32),
    /// It has failed.
    Failed(Trouble),
}

impl Helper {
    /// Starts it as a process of this one's cgroup.
    pub(super) fn start(program: &Path, spec: &Spec, stdio: [OwnedFd; 3]) -> io::Result<Self> {
        let order = sealed(spec)?;
        let (ours, theirs) = UnixStream::pair()?;
        let [input, output, error] = &stdio;
        fds::send_all(ours.as_fd(), b"!", &[input.as_fd(), output.as_fd(), error.as_fd(), order.as_fd()])?;
        ours.set_nonblocking(true)?;
        let (report, report_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let child = Command::new(program)
            .arg("launch-helper")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(report_end))
            .stderr(Stdio::inherit())
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the helper has no process id"))?;
        let socket = tokio::net::UnixStream::from_std(ours)?;
        Ok(Self { child, pid, socket, report: pipe::Receiver::from_owned_fd(report)? })
    }

    /// Its process.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it may be moved into the session, or has failed.
    pub(super) async fn ready(mut self) -> io::Result<Heard> {
        let mut word = [0; 1];
        let said = timeout(PATIENCE, self.socket.read(&mut word)).await;
        match self.or_kill(said)? {
            0 => self.outcome().await,
            _ => Ok(Heard::Ready(self)),
        }
    }

    /// Lets one that was moved go on.
    pub(super) async fn release(&mut self) -> io::Result<()> {
        let sent = timeout(PATIENCE, self.socket.write_all(b"g")).await;
        self.or_kill(sent)
    }

    /// Waits until it has executed the command or failed.
    pub(super) async fn outcome(mut self) -> io::Result<Heard> {
        let mut text = Vec::new();
        let mut report = (&mut self.report).take(REPORT as u64);
        let said = timeout(PATIENCE, report.read_to_end(&mut text)).await;
        self.or_kill(said)?;
        if text.is_empty() {
            // The report ends without a word when the command is executed - or when the helper dies.
            return Ok(Heard::Executed(self.child, self.pid));
        }
        Ok(Heard::Failed(serde_json::from_slice(&text)?))
    }

    /// Ends it. It may not have entered the cgroup yet, so cgroup.kill need not reach it.
    pub(super) fn kill(&self) {
        // It has not been waited for, so the number is still its own.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    fn or_kill<T>(&self, result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> io::Result<T> {
        let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if result.is_err() {
            self.kill();
        }
        result
    }
}

/// The order to the helper, in memory that cannot be changed any more.
fn sealed(spec: &Spec) -> io::Result<File> {
    let fd = memfd_create(c"enforcer-launch", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(spec)?)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}
