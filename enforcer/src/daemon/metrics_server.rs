//! Answers whoever scrapes: one HTTP request, one answer, on a unix socket and perhaps on a loopback address.

use super::core::Shared;
use crate::{
    cli::exit::{Exit, Failure},
    control::{peer::Peer, server},
    settings::Settings,
};
use std::{io, os::fd::AsFd, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::spawn_local,
    time::{sleep, timeout},
};

/// What a request may be long; all of it is read, and only its first line counts.
const REQUEST: usize = 8 * 1024;
/// What asking and answering may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who may ask at one time; others wait.
const MOST: usize = 8;
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics are served, bound.
pub(super) struct Listeners {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
}

/// Binds what the settings name.
pub(super) async fn bind(settings: &Settings) -> Result<Listeners, Failure> {
    let failed = |key: &str, at: String, e: io::Error| {
        let message = format!("cannot serve metrics at {at}: {e}");
        Failure::new(Exit::Internal, message, format!("change {key} in the settings"))
    };
    let mut listeners = Listeners { unix: None, tcp: None };
    let socket = &settings.metrics.socket;
    if !socket.as_os_str().is_empty() {
        let bound = server::listen(socket, &settings.control.group);
        let (unix, _) = bound.map_err(|e| failed("metrics.socket", socket.display().to_string(), e))?;
        listeners.unix = Some(unix);
    }
    if let Some(address) = settings.metrics.address {
        let bound = TcpListener::bind(address).await;
        listeners.tcp = Some(bound.map_err(|e| failed("metrics.address", address.to_string(), e))?);
    }
    Ok(listeners)
}

/// Serves until the daemon ends.
pub(super) async fn serve(core: Shared, listeners: Listeners) {
    let room = Rc::new(Semaphore::new(MOST));
    let Listeners { unix, tcp } = listeners;
    let over_unix = async {
        let Some(listener) = unix else { return std::future::pending().await };
        loop {
            let permit = Rc::clone(&room);
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Agents are refused here as on the control socket; the mode keeps others out.
                    let roots = core.borrow().roots();
                    if let Err(error) = Peer::of(stream.as_fd(), &roots) {
                        tracing::warn!(%error, "a connection for metrics was refused");
                        continue;
                    }
                    spawn_local(answer(core.clone(), stream, permit));
                }
                Err(error) => pause(&error).await,
            }
        }
    };
    let over_tcp = async {
        let Some(listener) = tcp else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(spawn_local(answer(core.clone(), stream, Rc::clone(&room)))),
                Err(error) => pause(&error).await,
            }
        }
    };
    tokio::select! { () = over_unix => {}, () = over_tcp => {} }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection for metrics");
    sleep(Duration::from_millis(50)).await;
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(core: Shared, mut stream: S, room: Rc<Semaphore>) {
    let conversation = async {
        let Ok(_permit) = room.acquire().await else { return Ok(()) };
        let request = request(&mut stream).await?;
        let text = respond(&request, || core.borrow().metrics());
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    match timeout(PATIENCE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics ended"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

/// Reads to the empty line that ends a request's head; what is longer than a request may be is cut.
async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while head.len() < REQUEST && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&bytes[..count]);
    }
    Ok(head)
}

/// The answer to a request: pure but for the figures.
fn respond(request: &[u8], metrics: impl FnOnce() -> String) -> String {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (status, kind, body) = match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some("/metrics"), Some(version)) if version.starts_with("HTTP/1.") => {
            ("200 OK", TYPE, metrics())
        }
        (Some("GET"), Some(_), Some(version)) if version.starts_with("HTTP/1.") => {
            ("404 Not Found", "text/plain", "what there is, is at /metrics\n".to_owned())
        }
        _ => ("400 Bad Request", "text/plain", "ask with GET /metrics HTTP/1.1\n".to_owned()),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_for_the_metrics_gets_them() {
        let answer = |request: &str| respond(request.as_bytes(), || "figures\n".to_owned());
        let good = answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\nfigures\n"), "{good}");
        assert!(good.contains("Content-Length: 8\r\n"));
        assert!(answer("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        for bad in
            ["", "POST /metrics HTTP/1.1\r\n\r\n", "GET /metrics\r\n\r\n", "\u{0}\u{1}", "GET /metrics FTP"]
        {
            let said = answer(bad);
            assert!(said.starts_with("HTTP/1.1 400") && !said.contains("figures"), "{bad:?}: {said}");
        }
    }

    #[tokio::test]
    async fn a_request_without_an_end_is_cut() {
        let endless = vec![b'x'; 1 << 20];
        let head = request(&mut &endless[..]).await.expect("read");
        assert!(head.len() <= REQUEST + 1024);
    }
}
