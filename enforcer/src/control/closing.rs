//! Closing what strangers have sent something to.
//!
//! Descriptors in a message that nobody takes are closed with the socket, by whoever closes that. To close one can take as
//! long as its sender likes: a connection that lingers (`SO_LINGER`, socket(7)), a huge file that nobody else has open.
//! The daemon's own thread must never wait for it.

use std::{
    collections::HashMap,
    io::Read,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of stack of a thread that closes one descriptor.
const STACK: usize = 64 * 1024;

/// Reads before the rest is left where it is.
const MOST_READ: usize = 64;

/// How many connections each session has that are not closed.
#[derive(Clone, Debug, Default)]
pub struct Open(Arc<Mutex<HashMap<[u64; 2], usize>>>);

impl Open {
    /// One more for a session that has fewer than `most`.
    pub fn take(&self, session: [u64; 2], most: usize) -> Option<OpenOne> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(session).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(OpenOne { open: self.clone(), session })
    }
}

/// One of them, counted until it is dropped.
#[derive(Debug)]
pub struct OpenOne {
    open: Open,
    session: [u64; 2],
}

impl Drop for OpenOne {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.session);
            }
        }
    }
}

/// What a connection takes up until it is closed.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _own: Option<OpenOne>,
}

impl Place {
    /// A place among all, and one among those of its session, if it has one.
    pub fn new(permit: OwnedSemaphorePermit, own: Option<OpenOne>) -> Self {
        Self { _permit: permit, _own: own }
    }
}

/// Closes a connection, in a thread of its own, and gives its place back.
pub fn close(stream: tokio::net::UnixStream, place: Place) {
    // Out of the event loop first: nothing may come of it any more.
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(%error, "a connection is closed where others wait for it"),
    };
    let work = move || end(stream, place);
    if let Err(error) = thread::Builder::new().name("closing".to_owned()).stack_size(STACK).spawn(work) {
        tracing::error!(%error, "a connection was closed where others wait for it");
    }
}

/// What was sent is read first, since whoever finds the connection closed with something unread in it is told that it was
/// broken off.
fn end(mut stream: UnixStream, place: Place) {
    let mut bytes = [0; 4096];
    // Nobody is waited for: the socket does not block.
    let more = |_: &usize| stream.read(&mut bytes).is_ok_and(|n| n > 0);
    (0..MOST_READ).take_while(more).for_each(drop);
    drop(stream);
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_as_many_as_it_may_until_they_are_closed() {
        let open = Open::default();
        let mine: Vec<_> = (0..3).map(|_| open.take([1, 1], 3)).collect();
        assert!(mine.iter().all(Option::is_some) && open.take([1, 1], 3).is_none());
        assert!(open.take([1, 2], 3).is_some(), "another session");
        drop(mine);
        assert!(open.take([1, 1], 3).is_some());
        assert!(open.0.lock().expect("lock").is_empty(), "who has none is forgotten");
    }
}
