//! Standard input, output and error between the caller and a session. The session never gets the caller's
//! own descriptors: a terminal of its own where the caller sits at one, pipes elsewhere.

use super::exec::at_terminal;
use crate::control::fds;
use nix::{
    fcntl::OFlag,
    pty::openpty,
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    unistd::pipe2,
};
use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread::JoinHandle,
};

/// Both ends of the relay, before the session has its own.
pub(super) struct Stdio {
    far: [OwnedFd; 3],
    near: Near,
}

/// The caller's ends.
#[derive(Default)]
struct Near {
    /// The terminal, if there is one.
    master: Option<File>,
    input: Option<File>,
    output: Option<File>,
    error: Option<File>,
}

impl Stdio {
    /// A terminal where the caller's input is one, else pipes. A detached session has neither input nor
    /// output.
    pub(super) fn new(detach: bool) -> io::Result<Self> {
        if detach {
            let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
            return Ok(Self { far: [null()?, null()?, null()?], near: Near::default() });
        }
        let mut near = Near::default();
        let mut slave = None;
        if at_terminal() {
            let pty = openpty(fds::window_size(io::stdin().as_fd()).as_ref(), None)?;
            for end in [&pty.master, &pty.slave] {
                fds::close_on_exec(end.as_fd())?;
            }
            near.master = Some(File::from(pty.master));
            slave = Some(pty.slave);
        }
        let input = match &slave {
            Some(slave) => fds::duplicate(slave)?,
            None => {
                let (far, write) = pipe2(OFlag::O_CLOEXEC)?;
                near.input = Some(File::from(write));
                far
            }
        };
        let back = |terminal: bool, near: &mut Option<File>| -> io::Result<OwnedFd> {
            match &slave {
                Some(slave) if terminal => fds::duplicate(slave),
                _ => {
                    let (read, far) = pipe2(OFlag::O_CLOEXEC)?;
                    *near = Some(File::from(read));
                    Ok(far)
                }
            }
        };
        let output = back(io::stdout().is_terminal(), &mut near.output)?;
        let error = back(io::stderr().is_terminal(), &mut near.error)?;
        Ok(Self { far: [input, output, error], near })
    }

    /// Whether the session gets a terminal.
    pub(super) fn terminal(&self) -> bool {
        self.near.master.is_some()
    }

    /// The ends for the session.
    pub(super) fn far_ends(&self) -> [BorrowedFd<'_>; 3] {
        let [input, output, error] = &self.far;
        [input.as_fd(), output.as_fd(), error.as_fd()]
    }

    /// Gives the session's ends up.
    pub(super) fn relay(self) -> Relay {
        Relay { near: self.near, outputs: Vec::new(), master: None, raw: None, running: false }
    }
}

/// The relay on the caller's side.
pub(super) struct Relay {
    near: Near,
    outputs: Vec<JoinHandle<()>>,
    master: Option<File>,
    raw: Option<Raw>,
    running: bool,
}

impl Relay {
    /// Begins to copy.
    pub(super) fn start(&mut self) -> io::Result<()> {
        self.running = true;
        let near = std::mem::take(&mut self.near);
        if let Some(master) = near.master {
            self.master = Some(master.try_clone()?);
            self.raw = Raw::enter();
            self.resize();
            let keyboard = master.try_clone()?;
            std::thread::Builder::new().spawn(move || copy(io::stdin(), keyboard))?;
            if near.output.is_none() || near.error.is_none() {
                let screen = move || {
                    if io::stdout().is_terminal() {
                        copy(master, io::stdout())
                    } else {
                        copy(master, io::stderr())
                    }
                };
                self.outputs.push(std::thread::Builder::new().spawn(screen)?);
            }
        }
        if let Some(input) = near.input {
            std::thread::Builder::new().spawn(move || copy(io::stdin(), input))?;
        }
        if let Some(output) = near.output {
            self.outputs.push(std::thread::Builder::new().spawn(move || copy(output, io::stdout()))?);
        }
        if let Some(error) = near.error {
            self.outputs.push(std::thread::Builder::new().spawn(move || copy(error, io::stderr()))?);
        }
        Ok(())
    }

    /// Whether copying has begun.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Gives the session's terminal the size of the caller's.
    pub(super) fn resize(&self) {
        if let (Some(master), Some(size)) = (&self.master, fds::window_size(io::stdin().as_fd())) {
            fds::set_window_size(master.as_fd(), &size);
        }
    }

    /// Waits until everything that the session wrote has arrived: nobody can write any more.
    pub(super) fn finish(mut self) {
        for output in self.outputs.drain(..) {
            // A thread that panicked has said so.
            let _ = output.join();
        }
        self.raw = None;
    }
}

/// The caller's terminal passes every key on; restored when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Copies until either side ends. Both are closed then, so that the other side notices.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            // A terminal without users answers with EIO.
            Ok(0) => return,
            Ok(n) if to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_err() => return,
            Err(e) if e.kind() != ErrorKind::Interrupted => return,
            Ok(_) | Err(_) => {}
        }
    }
}
