//! Closing what strangers have sent something to.
//!
//! Descriptors in a message that nobody takes are closed with the socket, by whoever closes that. To close one can take as
//! long as its sender likes: a connection that lingers (`SO_LINGER`, socket(7)), a huge file that nobody else has open.
//! The daemon's own thread must never wait for it. And who exits does not wait for what lingers (`inet_release()`,
//! net/ipv4/af_inet.c): each connection is closed by the end of a thread that has descriptors of its own.

use super::fds;
use nix::sched::{CloneFlags, unshare};
use std::{
    collections::HashMap,
    io::Read,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, Sender, SyncSender, sync_channel},
    },
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
    // Begun by this thread, whose descriptors are everybody's.
    others();
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

/// Ends a connection. Its descriptor is closed twice: here for all other threads, which does not close the connection yet,
/// and with this thread.
fn end(stream: UnixStream, place: Place) {
    empty(&stream);
    if unshare(CloneFlags::CLONE_FILES).is_ok() {
        let (done, is_done) = sync_channel(1);
        // Whoever cannot be asked has closed it already, by giving it back.
        if others().is_some_and(|others| others.send((stream, done)).is_ok()) {
            let _ = is_done.recv();
        }
    }
    drop(place);
}

/// What was sent is read, since whoever finds the connection closed with something unread in it is told that it was
/// broken off. Not what has descriptors beside it: they would be closed here and now.
fn empty(mut stream: &UnixStream) {
    let mut bytes = [0; 4096];
    // Nobody is waited for: the socket does not block.
    for _ in 0..MOST_READ {
        match fds::look_beside(stream.as_fd(), &mut bytes) {
            Ok((n @ 1.., false)) if stream.read(&mut bytes[..n]).is_ok() => {}
            _ => return,
        }
    }
}

/// What is to be closed, and whom that is told.
type Closed = (UnixStream, SyncSender<()>);

/// A thread that shares its descriptors with all others, and closes what others still have.
fn others() -> Option<&'static Sender<Closed>> {
    static OTHERS: OnceLock<Option<Sender<Closed>>> = OnceLock::new();
    OTHERS.get_or_init(start).as_ref()
}

fn start() -> Option<Sender<Closed>> {
    let (to, all) = mpsc::channel::<Closed>();
    let work = move || {
        for (stream, done) in all {
            drop(stream);
            let _ = done.send(());
        }
    };
    match thread::Builder::new().name("closing".to_owned()).stack_size(STACK).spawn(work) {
        Ok(_) => Some(to),
        Err(error) => {
            tracing::error!(%error, "what strangers send is closed where it came");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener's other side, with something unread on its way, which lingers for a minute.
    fn lingering() -> std::io::Result<(std::net::TcpStream, std::net::TcpListener)> {
        use nix::{
            libc::linger,
            sys::socket::{setsockopt, sockopt},
        };
        use std::io::Write as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let mut stream = std::net::TcpStream::connect(listener.local_addr()?)?;
        setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 60 })?;
        stream.set_nonblocking(true)?;
        while stream.write(&[0; 65536]).is_ok() {}
        Ok((stream, listener))
    }

    #[test]
    fn what_lingers_in_a_message_keeps_nobody_waiting() {
        let (stream, _listener) = lingering().expect("a connection");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        fds::send(theirs.as_fd(), b"x", &[stream.as_fd()]).expect("sent");
        drop(stream);
        others();
        let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
        let place = Place::new(Arc::clone(&semaphore).try_acquire_owned().expect("a place"), None);
        let begun = std::time::Instant::now();
        thread::spawn(move || end(ours, place)).join().expect("the end");
        // The other side learns of it, so it has been closed.
        theirs.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("set");
        let told = (&theirs).read(&mut [0]);
        assert!(
            matches!(told, Ok(0)) || told.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
        assert!(begun.elapsed().as_secs() < 20 && semaphore.available_permits() == 1);
    }

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
