//! Serving the socket at which sessions ask about themselves. In the kernel only tasks that bear a session's label
//! reach it, of all that are governed; here the peer's cgroup says which session that is.
//!
//! Anybody may send anything to it, descriptors too. So a question is looked at and not taken out of the socket, and the
//! socket is closed elsewhere ([`closing`]).

use super::{
    agent::{AgentReply, AgentRequest, REPLY, REQUEST},
    closing::{self, Open, Place},
    fds, frame,
    peer::{PeerError, cgroup_of},
};
use crate::{
    cli::exit::{Exit, Failure},
    daemon::core::{Core, Shared},
};
use enforcer_common::map::FileId;
use std::{
    collections::HashMap,
    fs, io,
    mem::ManuallyDrop,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// Connections at one time, of all sessions, until they are closed.
const MOST: usize = 512;
/// The same of one session: more than it has by what it may ask, if it reads the answers.
const OF_ONE: usize = 64;
/// The same of those that are turned away, which do not take the others' room. Beyond, nothing is said to them.
const TURNED_AWAY: usize = 32;
/// The same of those to whom nothing is said: while so many are being closed, nobody is let in.
const UNHEARD: usize = 128;
/// After which time a peer must have asked, or read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that a session may ask at once.
const BURST: u32 = 20;
/// The time that one question takes to be forgotten.
const EACH: Duration = Duration::from_millis(500);

/// How much sessions have asked.
#[derive(Debug, Default)]
pub struct Meter {
    sessions: HashMap<[u64; 2], (u32, Instant)>,
}

impl Meter {
    /// Whether a session may ask one thing more now.
    pub fn take(&mut self, session: [u64; 2], now: Instant) -> bool {
        // Those that have asked nothing for long begin anew anyway.
        self.sessions.retain(|_, (_, last)| now.duration_since(*last) < EACH * BURST);
        let (asked, last) = self.sessions.entry(session).or_insert((0, now));
        let forgotten = now.duration_since(*last).as_millis() / EACH.as_millis();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        if forgotten > 0 {
            *asked = asked.saturating_sub(forgotten);
            *last = now;
        }
        if *asked >= BURST {
            return false;
        }
        *asked += 1;
        true
    }
}

/// Binds the socket. Everybody may connect; who is no session's is told nothing.
pub fn listen(path: &Path) -> io::Result<(UnixListener, FileId)> {
    super::server::make_room(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let meta = fs::symlink_metadata(path)?;
    let device = nix::sys::stat::major(meta.dev()) << 20 | nix::sys::stat::minor(meta.dev());
    Ok((listener, FileId { device, inode: meta.ino() }))
}

/// Serves connections until the daemon ends.
pub async fn serve(core: Shared, listener: UnixListener) {
    // The end of the daemon closes it, and what waits there: before that it could take long (see [`closing`]).
    let listener = ManuallyDrop::new(listener);
    let (room, door) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(TURNED_AWAY)));
    let (street, open) = (Arc::new(Semaphore::new(UNHEARD)), Open::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors left, or the peer has gone: neither is worth a busy loop.
                tracing::warn!(%error, "cannot accept a session's connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let mut session = admit(&core, &stream);
        let own = session.as_ref().ok().and_then(|session| open.take(*session, OF_ONE));
        if session.is_ok() && own.is_none() {
            let why = "the session has too many connections that are not closed";
            session = Err(Failure::new(Exit::Unavailable, why, "read the answers, and send nothing else"));
        }
        let place = if session.is_ok() { &room } else { &door };
        let Ok(permit) = Arc::clone(place).try_acquire_owned() else {
            let Ok(permit) = Arc::clone(&street).acquire_owned().await else { return };
            closing::close(stream, Place::new(permit, None));
            continue;
        };
        let core = core.clone();
        tokio::task::spawn_local(async move {
            let mut stream = stream;
            if let Ok(Err(error)) = timeout(2 * PATIENCE, converse(&core, &mut stream, session)).await {
                tracing::debug!(%error, "a session's connection ended");
            }
            closing::close(stream, Place::new(permit, own));
        });
    }
}

/// One question, one answer.
async fn converse(
    core: &Shared,
    stream: &mut UnixStream,
    session: Result<[u64; 2], Failure>,
) -> io::Result<()> {
    let reply = match asked(core, stream, session).await {
        Ok(reply) => reply,
        Err(failure) => {
            AgentReply::Failed { exit: failure.exit as u8, message: failure.message, remedy: failure.remedy }
        }
    };
    let bytes = frame::encode(&reply, REPLY).map_err(io::Error::other)?;
    match timeout(PATIENCE, stream.write_all(&bytes)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The session that a connection belongs to, if it may ask now. Decided before anything is read: a question costs what
/// it costs whether it can be understood or not.
fn admit(core: &Shared, stream: &UnixStream) -> Result<[u64; 2], Failure> {
    let nobody = |why: String| Failure::new(Exit::Permission, why, "ask from inside a session");
    let cgroup = cgroup_of(stream.as_fd()).map_err(|error| nobody(told(&error)))?;
    let session = session_of(&core.borrow(), &cgroup);
    let session = session.ok_or_else(|| nobody("this process belongs to no session".to_owned()))?;
    if !core.borrow_mut().asks_of_sessions().take(session, Instant::now()) {
        return Err(Failure::new(Exit::Unavailable, "the session asks too much", "wait some seconds"));
    }
    Ok(session)
}

async fn asked(
    core: &Shared,
    stream: &UnixStream,
    session: Result<[u64; 2], Failure>,
) -> Result<AgentReply, Failure> {
    let session = match session {
        Ok(session) => session,
        Err(failure) => {
            // Who is turned away has written all the same, and would see a broken pipe instead of the answer.
            let _ = timeout(PATIENCE, read(stream)).await;
            return Err(failure);
        }
    };
    let request = match timeout(PATIENCE, read(stream)).await {
        Ok(request) => request.map_err(|why| Failure::new(Exit::Usage, why, ""))?,
        Err(_) => return Err(Failure::new(Exit::Usage, "nothing was asked in time", "")),
    };
    let mut core = core.borrow_mut();
    match request {
        AgentRequest::Who => core.who_is(session).map(AgentReply::Who),
        AgentRequest::Why => {
            // What the kernel has told by now is in it.
            core.drain();
            let (refusals, waiting) = (core.refusals_of(session), core.waits_of(session));
            Ok(AgentReply::Why { refusals, waiting })
        }
        AgentRequest::Justify { hold, text } => {
            core.drain();
            core.justify(session, hold.as_deref(), &text).map(|hold| AgentReply::Justified { hold })
        }
    }
}

fn told(error: &PeerError) -> String {
    tracing::debug!(%error, "who asks cannot be told");
    "who asks cannot be told".to_owned()
}

/// The innermost session that the cgroup is in or below.
fn session_of(core: &Core, cgroup: &str) -> Option<[u64; 2]> {
    let top = &core.settings.paths.cgroups;
    let mut at = top.join(cgroup.trim_start_matches('/'));
    let sessions = core.session_cgroups();
    while at.starts_with(top) && at != *top {
        // The id of a cgroup is its inode number in cgroupfs.
        let id = fs::metadata(&at).ok()?.ino();
        if let Some((_, session)) = sessions.iter().find(|(cgroup, _)| *cgroup == id) {
            return Some(*session);
        }
        at.pop();
    }
    None
}

/// The question, which stays in the socket: what is taken out would bring the descriptors beside it along. Bytes behind
/// the first descriptor are not seen, so whoever sends one in front of the question's end gets no answer.
async fn read(stream: &UnixStream) -> Result<AgentRequest, String> {
    let mut bytes = vec![0; REQUEST + frame::HEAD];
    let mut seen = 0;
    loop {
        let ready = stream.ready(Interest::READABLE).await.map_err(|e| e.to_string())?;
        // The same again is nothing new, and the event loop has to wait for more.
        let look = || match fds::look(stream.as_fd(), &mut bytes)? {
            n if n == seen && n > 0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        };
        match stream.try_io(Interest::READABLE, look) {
            Ok(0) => return Err(ENDED.to_owned()),
            Ok(n) => seen = n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Err(ENDED.to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.to_string()),
        }
        let mut buffer = frame::Buffer::new(REQUEST);
        buffer.push(&bytes[..seen]);
        if let Some(frame) = buffer.take().map_err(|e| e.to_string())? {
            return frame::decode(&frame).map_err(|e| e.to_string());
        }
    }
}

const ENDED: &str = "the connection ended inside a message";

/// Asks the daemon, from inside a session.
pub fn ask(socket: &Path, request: &AgentRequest) -> io::Result<AgentReply> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    stream.write_all(&frame::encode(request, REQUEST).map_err(io::Error::other)?)?;
    let mut buffer = frame::Buffer::new(REPLY);
    let mut bytes = [0; 4096];
    loop {
        if let Some(frame) = buffer.take().map_err(io::Error::other)? {
            return frame::decode(&frame).map_err(io::Error::other);
        }
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => buffer.push(&bytes[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_asks_too_much_waits_and_others_do_not() {
        let (mut meter, begun) = (Meter::default(), Instant::now());
        let taken = (0..100).filter(|_| meter.take([1, 1], begun)).count();
        assert_eq!(taken, BURST as usize);
        assert!(meter.take([1, 2], begun), "another session");
        assert!(!meter.take([1, 1], begun + EACH / 2));
        assert!(meter.take([1, 1], begun + EACH) && !meter.take([1, 1], begun + EACH));
        assert_eq!((0..100).filter(|_| meter.take([1, 1], begun + 1000 * EACH)).count(), BURST as usize);
        assert_eq!(meter.sessions.len(), 1, "who asks no more is forgotten");
    }
}
