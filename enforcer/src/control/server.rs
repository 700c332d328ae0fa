//! Serving the control socket.

use super::{
    approvals,
    connection::{Connection, ConnectionError},
    message::{Reply, Request},
    peer::{Peer, Role},
    trust,
};
use crate::{
    cli::exit::{Exit, Failure},
    daemon::core::Shared,
    launch::session,
};
use nix::unistd::{Gid, Group, chown};
use std::{
    fs, io,
    mem::ManuallyDrop,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

/// Connections at one time.
const MOST: usize = 1024;
/// After which time a peer must have said what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Binds the socket, mode 0660, for root and the group.
pub fn listen(path: &Path, group: &str) -> io::Result<(UnixListener, Option<u32>)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    make_room(path)?;
    let gid = Group::from_name(group).ok().flatten().map(|g| g.gid.as_raw());
    if gid.is_none() {
        tracing::warn!("there is no group {group}: only root can use the control socket");
    }
    // Nobody else may connect before the mode is set.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    let listener = listener?;
    if let Some(gid) = gid {
        chown(path, None, Some(Gid::from_raw(gid)))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    }
    Ok((listener, gid))
}

/// Removes the socket that an earlier daemon left, and nothing else.
pub(super) fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::other("something else than a socket is there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Serves connections until the daemon ends.
pub async fn serve(core: Shared, listener: UnixListener, group: Option<u32>) {
    // The end of the daemon closes it, and what waits there: before that it could take long (see [`super::closing`]).
    let listener = ManuallyDrop::new(listener);
    let room = std::sync::Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = listener.accept().await;
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors left, or the peer has gone: neither is worth a busy loop.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = std::sync::Arc::clone(&room).try_acquire_owned() else { continue };
        let core = core.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            if let Err(error) = converse(&core, stream, group).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

async fn converse(core: &Shared, stream: UnixStream, group: Option<u32>) -> Result<(), ConnectionError> {
    let roots = core.borrow().roots();
    let peer = Peer::of(stream.as_fd(), &roots);
    let mut connection = Connection::new(stream);
    let peer = match peer {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "a connection was refused");
            core.borrow_mut().record("control-refused", serde_json::json!({"because": error.to_string()}));
            let failure = Failure::new(Exit::Permission, "not permitted", "");
            return connection.fail(&failure).await;
        }
    };
    loop {
        let request = match tokio::time::timeout(PATIENCE, connection.request()).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => {
                let failure = Failure::new(Exit::Usage, error.to_string(), "");
                connection.fail(&failure).await?;
                return Err(error);
            }
        };
        if let Request::Exec(exec) = request {
            return session::run(core, &peer, exec, connection).await;
        }
        match answer(core, &peer, peer.role(group), &request) {
            Ok(reply) => connection.reply(&reply).await?,
            Err(failure) => connection.fail(&failure).await?,
        }
    }
}

fn answer(core: &Shared, peer: &Peer, role: Role, request: &Request) -> Result<Reply, Failure> {
    let needed = match request {
        // Who may decide is told by the signature; carrying one here takes no more than being let in.
        Request::Status
        | Request::Agents
        | Request::Metrics
        | Request::Approvals
        | Request::Decide { .. }
        | Request::Trust
        | Request::ChangeTrust { .. } => Role::Read,
        Request::Reload | Request::BreakGlass { .. } | Request::EndBreakGlass { .. } => Role::Operate,
        Request::Signal { .. } | Request::Exec(_) => {
            return Err(Failure::new(Exit::Usage, "no session was started on this connection", ""));
        }
    };
    if role < needed {
        let remedy = match needed {
            Role::Operate => "run this as root",
            Role::Read | Role::None => "run this as root, or join the group that owns the socket",
        };
        return Err(Failure::new(Exit::Permission, "not permitted", remedy));
    }
    Ok(match request {
        Request::Status => Reply::Status(Box::new(core.borrow().status())),
        Request::Agents => Reply::Agents { agents: core.borrow().agent_list() },
        Request::Metrics => Reply::Metrics { text: core.borrow().metrics() },
        Request::Approvals => approvals::list(&core.borrow()),
        Request::Decide { statement, signature } => {
            approvals::decide(&mut core.borrow_mut(), peer, statement, signature.as_deref())?
        }
        Request::Trust => Reply::Trust { agents: core.borrow().trust_list() },
        Request::ChangeTrust { statement, signature } => {
            trust::change(&mut core.borrow_mut(), peer, statement, signature.as_deref())?
        }
        Request::BreakGlass { agents, seconds, reason } => {
            let mut core = core.borrow_mut();
            core.begin_break_glass(agents, *seconds, reason, peer)?;
            Reply::BreakGlass { in_force: core.break_glass_list() }
        }
        Request::EndBreakGlass { id } => {
            let mut core = core.borrow_mut();
            core.end_break_glass(id.as_deref(), peer)?;
            Reply::BreakGlass { in_force: core.break_glass_list() }
        }
        Request::Reload => {
            let outcome = core.borrow_mut().reload();
            Reply::Reloaded {
                published: outcome.published,
                retired: outcome.retired,
                problems: outcome.problems,
            }
        }
        Request::Signal { .. } | Request::Exec(_) => {
            return Err(Failure::new(Exit::Internal, "a request was asked twice", ""));
        }
    })
}
