//! The command line's side of the control socket.

use super::{
    fds,
    frame::{self, Buffer},
    message::{Reply, Request},
};
use crate::cli::exit::{Exit, Failure};
use std::{
    io::{self, ErrorKind, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

/// A connection to the daemon.
pub struct Client {
    stream: UnixStream,
    buffer: Buffer,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        let at = socket.display();
        let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => Failure::new(
                Exit::Permission,
                format!("not permitted to use {at}"),
                "run this as root, or join the group that owns the socket",
            ),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
                Exit::Unavailable,
                format!("the daemon is not running (nobody answers at {at})"),
                "start it: systemctl start enforcer; programs that are pinned in the kernel keep enforcing \
                 meanwhile",
            ),
            _ => Failure::new(Exit::Unavailable, format!("cannot connect to {at}: {e}"), ""),
        })?;
        Ok(Self { stream, buffer: Buffer::new(frame::REPLY) })
    }

    /// The socket, to wait for replies together with something else.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a request with descriptors beside it.
    pub fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let bytes = frame::encode(request, frame::REQUEST)
            .map_err(|e| Failure::new(Exit::Usage, format!("the request cannot be sent: {e}"), ""))?;
        fds::send_all(self.stream.as_fd(), &bytes, fds).map_err(|e| broken(&e))
    }

    /// Waits for the next reply.
    pub fn receive(&mut self) -> Result<Reply, Failure> {
        let mut bytes = [0; 16 * 1024];
        loop {
            let frame = self.buffer.take().map_err(|e| nonsense(&e))?;
            if let Some(frame) = frame {
                return match frame::decode(&frame).map_err(|e| nonsense(&e))? {
                    Reply::Failed { exit, message, remedy } => {
                        let exit = Exit::from_number(exit).unwrap_or(Exit::Internal);
                        Err(Failure::new(exit, message, remedy))
                    }
                    reply => Ok(reply),
                };
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(broken(&ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.buffer.push(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(&e)),
            }
        }
    }

    /// Asks one thing.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.send(request, &[])?;
        self.receive()
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!("the connection to the daemon broke: {error}"),
        "see journalctl -u enforcer",
    )
}

fn nonsense(error: &frame::FrameError) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!("the daemon answers something else: {error}"),
        "daemon and command line may be of different versions; see enforcer version",
    )
}
