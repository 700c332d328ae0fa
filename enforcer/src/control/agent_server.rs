//! Serving the socket at which sessions ask about themselves. In the kernel only tasks that bear a session's label
//! reach it, of all that are governed; here the peer's cgroup says which session that is.

use super::{
    agent::{AgentReply, AgentRequest, REPLY, REQUEST},
    frame,
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
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// Connections at one time, of all sessions. One session has some forty at most, by what it may ask.
const MOST: usize = 512;
/// The same of those that are turned away, which do not take the others' room. Beyond, nothing is said to them.
const TURNED_AWAY: usize = 32;
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
    let (room, door) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(TURNED_AWAY)));
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
        let session = admit(&core, &stream);
        let place = if session.is_ok() { &room } else { &door };
        let Ok(permit) = Arc::clone(place).try_acquire_owned() else { continue };
        let core = core.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            if let Ok(Err(error)) = timeout(2 * PATIENCE, converse(&core, stream, session)).await {
                tracing::debug!(%error, "a session's connection ended");
            }
        });
    }
}

/// One question, one answer.
async fn converse(
    core: &Shared,
    mut stream: UnixStream,
    session: Result<[u64; 2], Failure>,
) -> io::Result<()> {
    let reply = match asked(core, &mut stream, session).await {
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
    stream: &mut UnixStream,
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

/// The question. Descriptors that come beside it are closed by the kernel, since nobody takes them.
async fn read(stream: &mut UnixStream) -> Result<AgentRequest, String> {
    let mut buffer = frame::Buffer::new(REQUEST);
    let mut bytes = [0; 1024];
    loop {
        if let Some(frame) = buffer.take().map_err(|e| e.to_string())? {
            return frame::decode(&frame).map_err(|e| e.to_string());
        }
        match stream.read(&mut bytes).await.map_err(|e| e.to_string())? {
            0 => return Err("the connection ended inside a message".to_owned()),
            n => buffer.push(&bytes[..n]),
        }
    }
}

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
