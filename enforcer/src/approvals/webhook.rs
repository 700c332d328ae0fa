//! Announces requests to a chat or ticket system. A thread of its own does it: whoever is slow or gone holds up
//! nothing, and what could not be delivered is said in the daemon's log.

use crate::event::text::hex;
use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

/// Announcements that wait; what comes after them is dropped, and that is said.
const WAITING: usize = 1024;
/// How often one is tried.
const ATTEMPTS: u32 = 6;
/// The first pause between attempts; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// After which time a receiver must have answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// A shorter secret could be guessed.
const SECRET: usize = 16;

/// Who hears of new requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Where to.
    pub url: String,
    /// The file with the secret that bodies are signed with.
    pub secret_file: PathBuf,
}

impl Target {
    /// What cannot be.
    pub fn problem(&self) -> Option<String> {
        let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
        let plain = local.iter().any(|prefix| {
            self.url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        });
        if !self.url.starts_with("https://") && !plain {
            return Some(format!("url: {:?} is neither https nor on this host", self.url));
        }
        (!self.secret_file.is_absolute()).then(|| "secret_file: must be an absolute path".to_owned())
    }
}

/// The thread's inbox.
#[derive(Debug)]
pub struct Webhook {
    bodies: SyncSender<String>,
}

impl Webhook {
    /// Starts the thread.
    pub fn start(target: &Target) -> Result<Self, String> {
        let secret = secret(&target.secret_file)?;
        let (bodies, inbox) = sync_channel(WAITING);
        let url = target.url.clone();
        let work = move || deliver_all(&url, &secret, &inbox, PAUSE);
        thread::Builder::new().name("webhook".to_owned()).spawn(work).map_err(|e| e.to_string())?;
        Ok(Self { bodies })
    }

    /// Hands a body over. `false`: too many wait already.
    pub fn send(&self, body: String) -> bool {
        !matches!(self.bodies.try_send(body), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
    }
}

/// The header that a receiver compares: `sha256=` and the HMAC of the body.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key fits");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

fn secret(file: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let secret = bytes.trim_ascii().to_vec();
    match secret.len() < SECRET {
        true => Err(format!("{}: shorter than {SECRET} bytes", file.display())),
        false => Ok(secret),
    }
}

fn deliver_all(url: &str, secret: &[u8], inbox: &Receiver<String>, pause: Duration) {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0).build();
    let agent = ureq::Agent::new_with_config(config);
    for body in inbox {
        let mut pause = pause;
        for attempt in 1..=ATTEMPTS {
            let sent = agent
                .post(url)
                .header("content-type", "application/json")
                .header("x-enforcer-signature", signature(secret, body.as_bytes()))
                .send(body.as_str());
            match sent {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => tracing::warn!(
                    attempt,
                    status = answer.status().as_u16(),
                    "the webhook refused a request"
                ),
                Err(error) => tracing::warn!(attempt, %error, "the webhook cannot be reached"),
            }
            if attempt == ATTEMPTS {
                // Not the body: it has paths and arguments.
                let said: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                let hold = said["hold"].as_str().unwrap_or_default();
                tracing::error!(hold, "the webhook did not take a request; nobody was told of it this way");
                break;
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    #[test]
    fn the_signature_is_the_standard_one() {
        // RFC 4231, test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn only_encrypted_or_local_addresses_are_taken() {
        let problem = |url: &str| Target { url: url.to_owned(), secret_file: "/s".into() }.problem();
        for good in ["https://example.com/x", "http://127.0.0.1:8080/x", "http://localhost"] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in ["http://example.com", "http://127.0.0.1.example.com/", "file:///etc/passwd", ""] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_receiver_that_fails_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("http://{}/hook", listener.local_addr().expect("address"));
        let receiver = thread::spawn(move || {
            let mut seen = Vec::new();
            for answer in ["500 No", "302 Elsewhere\r\nlocation: http://127.0.0.1:1/", "200 OK"] {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut bytes = vec![0; 4096];
                let mut text = String::new();
                while !text.ends_with("{\"a\":1}") {
                    let n = stream.read(&mut bytes).expect("read");
                    assert_ne!(n, 0, "cut: {text}");
                    text += &String::from_utf8_lossy(&bytes[..n]);
                }
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .expect("write");
                seen.push(text);
            }
            seen
        });
        let (bodies, inbox) = sync_channel(1);
        bodies.send("{\"a\":1}".to_owned()).expect("send");
        drop(bodies);
        deliver_all(&url, b"0123456789abcdef", &inbox, Duration::from_millis(1));
        let seen = receiver.join().expect("receiver");
        assert_eq!(seen.len(), 3);
        let expected = signature(b"0123456789abcdef", b"{\"a\":1}");
        assert!(
            seen.iter().all(|text| text.contains(&format!("x-enforcer-signature: {expected}"))),
            "{seen:?}"
        );
    }
}
