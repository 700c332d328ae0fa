//! A program at a terminal of its own, and somebody who looks at it and presses keys.

use nix::pty::{Winsize, openpty};
use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The terminal.
pub struct Terminal {
    keys: File,
    drawn: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Starts a program as the leader of a session at a new terminal.
    pub fn start(program: &str, words: &[&str]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("descriptor"));
        let mut command = Command::new("setsid");
        command.args(["--ctty", program]).args(words).env("TERM", "xterm");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid of util-linux");
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("descriptor");
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The error comes when nobody holds the other end any more.
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                to.lock().expect("not poisoned").extend_from_slice(&bytes[..n]);
            }
        });
        Self { keys, drawn, child }
    }

    /// Presses a key.
    pub fn press(&mut self, key: char) {
        self.keys.write_all(key.to_string().as_bytes()).expect("pressed");
    }

    /// Everything that was drawn so far, with what moves the cursor.
    pub fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().expect("not poisoned")).into_owned()
    }

    /// How the program ended.
    pub fn end(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            if begun.elapsed() > Duration::from_secs(120) {
                let _ = self.child.kill();
                panic!("it does not end: {}", self.drawn());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
