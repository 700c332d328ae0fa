//! One connection on the daemon's side.

use super::{
    fds,
    frame::{self, FrameError},
    message::{Reply, Request},
};
use crate::cli::exit::Failure;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

/// Descriptors that may come with a request: standard input, output and error.
const STANDARD: usize = 3;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent more descriptors than any request takes.
    #[error("too many descriptors")]
    Descriptors,
    /// The peer closed the connection inside a message.
    #[error("the connection ended inside a message")]
    Cut,
}

/// A connection: requests in, replies out.
pub struct Connection {
    stream: UnixStream,
    buffer: frame::Buffer,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// A connection on a stream.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: frame::Buffer::new(frame::REQUEST), fds: Vec::new() }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next request, or `None` at the end. May be dropped while it waits without losing anything.
    pub async fn request(&mut self) -> Result<Option<Request>, ConnectionError> {
        let mut bytes = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.buffer.take()? {
                return Ok(Some(frame::decode(&frame)?));
            }
            let received = self
                .stream
                .async_io(Interest::READABLE, || fds::receive(self.stream.as_fd(), &mut bytes))
                .await?;
            self.fds.extend(received.fds);
            if received.cut || self.fds.len() > STANDARD {
                return Err(ConnectionError::Descriptors);
            }
            if received.bytes == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ConnectionError::Cut) };
            }
            self.buffer.push(&bytes[..received.bytes]);
        }
    }

    /// The descriptors that came so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// Sends a reply.
    pub async fn reply(&mut self, reply: &Reply) -> Result<(), ConnectionError> {
        let bytes = frame::encode(reply, frame::REPLY)?;
        self.stream.write_all(&bytes).await?;
        Ok(())
    }

    /// Sends an error as a reply.
    pub async fn fail(&mut self, failure: &Failure) -> Result<(), ConnectionError> {
        self.reply(&Reply::Failed {
            exit: failure.exit as u8,
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
        })
        .await
    }
}
