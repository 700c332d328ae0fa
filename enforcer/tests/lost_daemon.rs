//! `enforcer exec` when the daemon goes away while the session runs.

use enforcer::control::{
    fds,
    frame::{REPLY, encode},
    message::Reply,
};
use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    process::{Command, Stdio},
};

#[test]
fn the_relay_goes_on_until_the_session_ends() {
    let dir = tempfile::tempdir().expect("dir");
    let (socket, settings) = (dir.path().join("control.sock"), dir.path().join("enforcer.toml"));
    std::fs::write(&settings, format!("[paths]\nsocket = '{}'\n", socket.display())).expect("write");
    let listener = UnixListener::bind(&socket).expect("bind");
    let daemon = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        let mut polled = [nix::poll::PollFd::new(stream.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE).expect("poll");
        let received = fds::receive(stream.as_fd(), &mut [0; 4096]).expect("request");
        let [input, output, error]: [_; 3] = received.fds.try_into().expect("three descriptors");
        let session = Command::new("sh")
            .args(["-c", "echo before; sleep 0.3; cat; echo after >&2"])
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(error))
            .spawn()
            .expect("sh");
        let started = Reply::Started { session: "0".to_owned(), pid: session.id() };
        fds::send_all(stream.as_fd(), &encode(&started, REPLY).expect("encode"), &[]).expect("send");
        drop(stream);
        session
    });
    let output = Command::new(env!("CARGO_BIN_EXE_enforcer"))
        .arg("--settings")
        .arg(&settings)
        .args(["exec", "bot", "--", "ignored"])
        .stdin(Stdio::null())
        .output()
        .expect("run");
    daemon.join().expect("daemon").wait().expect("wait");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert_eq!(output.stdout, b"before\n");
    assert!(error.starts_with("after\n") && error.contains("is not known"), "{error}");
}
