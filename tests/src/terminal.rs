//! Pseudo terminals of outsiders.

use crate::command::wait_for;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    process::{Child, Command},
};

/// A pseudo terminal.
pub struct Pty {
    /// The side of whoever made it.
    pub maker: OwnedFd,
    /// The other side.
    pub user: File,
    /// The other side's name.
    pub name: String,
}

impl Pty {
    /// One that controls nobody.
    pub fn new() -> io::Result<Self> {
        let open = |path: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
                .open(path)
        };
        let maker = OwnedFd::from(open("/dev/ptmx")?);
        let (mut number, unlocked) = (0i32, 0i32);
        // SAFETY: the kernel writes one number and reads one.
        let done = unsafe {
            libc::ioctl(maker.as_raw_fd(), libc::TIOCGPTN, &raw mut number)
                | libc::ioctl(maker.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let name = format!("/dev/pts/{number}");
        Ok(Self { maker, user: open(&name)?, name })
    }

    /// A process that it controls from now on.
    pub fn control(&self) -> io::Result<Child> {
        let child =
            Command::new("setsid").args(["--ctty", "sleep", "600"]).stdin(self.user.try_clone()?).spawn()?;
        wait_for("a process with a terminal", 60, || {
            // The terminal's number is the fifth word behind the name (proc_pid_stat(5)).
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
            let number = stat.rsplit_once(") ")?.1.split(' ').nth(4)?.to_owned();
            (number != "0").then_some(())
        })?;
        Ok(child)
    }
}
