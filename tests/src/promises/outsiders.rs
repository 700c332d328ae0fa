//! Outsiders are unaffected: one works from the first test to the last.

use crate::{
    cases,
    command::Command,
    ensure, events,
    harness::{HOME, Outcome, Test},
};
use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

cases!(outsiders: an_outsider_was_never_refused_anything_during_all_this);

static ROUNDS: AtomicU64 = AtomicU64::new(0);
static TROUBLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts the outsider.
pub fn start() {
    thread::spawn(|| {
        let result = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| {
            let address = listener.local_addr()?;
            thread::spawn(move || {
                for stream in listener.incoming() {
                    drop(stream);
                }
            });
            loop {
                if let Err(error) = work(address) {
                    note(&error);
                }
                ROUNDS.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(500));
            }
        });
        let _: io::Result<()> = result.inspect_err(note);
    });
}

fn note(error: &io::Error) {
    if let Ok(mut trouble) = TROUBLE.lock() {
        trouble.push(error.to_string());
    }
}

/// A bit of everything that agents are refused.
fn work(address: std::net::SocketAddr) -> io::Result<()> {
    let said = |what: &'static str| move |error: io::Error| io::Error::other(format!("{what}: {error}"));
    let directory = format!("{HOME}-outsider");
    let (a, b) = (format!("{directory}/a"), format!("{directory}/b"));
    fs::create_dir_all(&directory).map_err(said("mkdir"))?;
    fs::File::create(&a).and_then(|mut file| file.write_all(b"text")).map_err(said("create"))?;
    fs::rename(&a, &b).map_err(said("rename"))?;
    fs::hard_link(&b, &a).map_err(said("link"))?;
    fs::read("/etc/shadow").map_err(said("read"))?;
    fs::set_permissions(&b, fs::metadata(&b)?.permissions()).map_err(said("chmod"))?;
    fs::remove_dir_all(&directory).map_err(said("remove"))?;
    TcpStream::connect(address).map_err(said("connect"))?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| s.send_to(b"x", address)).map_err(said("send"))?;
    UnixStream::connect("/run/systemd/private").map_err(said("unix"))?;
    let ran = Command::new("/usr/bin/true").run().map_err(said("exec"))?;
    if ran.code == Some(0) { Ok(()) } else { Err(io::Error::other(ran.to_string())) }
}

fn an_outsider_was_never_refused_anything_during_all_this(_: &mut Test) -> Outcome {
    let before = ROUNDS.load(Ordering::SeqCst);
    crate::command::wait_for("another round of the outsider", 120, || {
        (ROUNDS.load(Ordering::SeqCst) > before + 1).then_some(())
    })?;
    let trouble = TROUBLE.lock().map(|trouble| trouble.join("\n")).unwrap_or_default();
    ensure!(trouble.is_empty(), "{trouble}");
    let log = fs::metadata("/var/lib/enforcer/audit/events.jsonl")?;
    ensure!(log.len() > 0, "the log is empty");
    let mine = std::process::id();
    let about_me = events::since(events::Mark::START)?.into_iter().find(|record| {
        record["kind"] == "decision"
            && (record["tgid"] == mine || record["exe"] == "/usr/lib/enforcer-tests/guest-suite")
    });
    ensure!(about_me.is_none(), "an outsider is in the log: {about_me:?}");
    Ok(())
}
