//! Syslog (RFC 5424) over TCP or TLS, each message with its length before it (RFC 6587, RFC 5425).
//!
//! Syslog confirms nothing: what was written may still be lost with the connection. So the cursor stays
//! [`DOUBT`] behind, a broken connection means that everything since is sent again, and an end in order waits
//! until the other side has closed too, which it does after the last message.

use super::{Message, Receiver, tls};
use crate::sink::{error::SinkError, item::Item, settings::SyslogSettings};
use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long what was written may still turn out to be lost.
const DOUBT: Duration = Duration::from_secs(10);
/// How long the other side may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an end in order may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// "log audit" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;
/// The number that RFC 5612 sets aside for what has none of its own.
const DATA: &str = "enforcer@32473";

pub(super) struct Syslog {
    settings: SyslogSettings,
    stream: Option<Stream>,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Syslog {
    pub(super) fn new(settings: SyslogSettings) -> Self {
        Self { settings, stream: None }
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> SinkError {
        let place = self.settings.address.clone();
        move |e| SinkError::io(what, &place, e)
    }

    fn connect(&self) -> Result<Stream, SinkError> {
        let address = &self.settings.address;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let all = address.to_socket_addrs().map_err(self.failed("find"))?;
        let mut last = io::Error::other("the name has no address");
        for one in all {
            match TcpStream::connect_timeout(&one, PATIENCE) {
                Ok(socket) => {
                    let set = socket
                        .set_read_timeout(Some(PATIENCE))
                        .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
                        .and_then(|()| socket.set_nodelay(true));
                    set.map_err(self.failed("set up the socket to"))?;
                    return Ok(match &self.settings.tls {
                        None => Stream::Clear(socket),
                        Some(settings) => Stream::Tls(Box::new(tls::connect(settings, host, socket)?)),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(self.failed("connect to")(last))
    }
}

impl Receiver for Syslog {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        self.check()?;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut bytes = Vec::new();
        for message in messages {
            let line = line(&message.item, message.json());
            bytes.extend(format!("{} ", line.len()).as_bytes());
            bytes.extend(line.as_bytes());
        }
        stream.send(&bytes).map_err(self.failed("send to"))?;
        // After an error it is gone: the next delivery connects anew.
        self.stream = Some(stream);
        Ok(())
    }

    fn doubt(&self) -> Duration {
        DOUBT
    }

    fn check(&mut self) -> Result<(), SinkError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let alive = stream.is_alive();
        if alive.is_err() {
            self.stream = None;
        }
        alive.map_err(self.failed("go on sending to"))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.stream.take() {
            None => Ok(()),
            Some(mut stream) => stream.farewell().map_err(self.failed("end in order with")),
        }
    }
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }

    /// Syslog receivers say nothing, so there is something to read only when they have closed.
    fn is_alive(&mut self) -> io::Result<()> {
        self.socket().set_nonblocking(true)?;
        let read = self.read(&mut [0; 64]);
        self.socket().set_nonblocking(false)?;
        match read {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says that nothing follows, and waits until the other side has read that.
    fn farewell(&mut self) -> io::Result<()> {
        self.socket().set_read_timeout(Some(FAREWELL))?;
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.socket().shutdown(Shutdown::Write)?;
        let mut bytes = [0; 256];
        let mut socket = self.socket();
        while socket.read(&mut bytes)? > 0 {}
        Ok(())
    }
}

/// An RFC 5424 message without the count before it.
fn line(item: &Item, json: &str) -> String {
    let priority = FACILITY * 8 + item.severity();
    // At most microseconds there; the record has all of it.
    let time = item.text("time").filter(|time| time.len() == 30).map(|time| format!("{}Z", &time[..26]));
    let kind = if item.kind().is_empty() { "-" } else { item.kind() };
    let mut data = String::new();
    for key in ["log", "seq", "agent", "session", "leaf_hash"] {
        let value = match item.fields().get(key) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        let _ = write!(data, " {key}=\"");
        for c in value.chars().filter(|c| crate::event::text::is_plain(*c)) {
            if matches!(c, '"' | '\\' | ']') {
                data.push('\\');
            }
            data.push(c);
        }
        data.push('"');
    }
    format!(
        "<{priority}>1 {} {} enforcer {} {} [{DATA}{data}] {}",
        time.as_deref().unwrap_or("-"),
        printable(item.text("host"), 255),
        std::process::id(),
        printable(Some(kind), 32),
        ascii(json),
    )
}

/// A header field: printable ASCII of limited length, or a hyphen.
fn printable(text: Option<&str>, most: usize) -> String {
    let text: String = text.unwrap_or("-").chars().filter(char::is_ascii_graphic).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// JSON in ASCII: RFC 5424 wants a mark before UTF-8, which readers of JSON do not want.
fn ascii(json: &str) -> String {
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_message_has_the_form_of_the_rfc_and_the_record_survives() {
        let item = Item::from(json!({
            "kind": "decision", "verdict": "deny", "time": "2026-01-02T03:04:05.123456789Z", "host": "h0",
            "agent": "a\"]\\b", "seq": 7, "log": "l", "object": {"path": "/\u{fc}\u{1f600}\n"},
        }));
        let text = line(&item, &serde_json::to_string(&item.fields()).expect("json"));
        let start = "<108>1 2026-01-02T03:04:05.123456Z h0 enforcer ";
        assert!(text.starts_with(start) && text.is_ascii() && !text.contains('\n'), "{text}");
        assert!(text.contains(r#" decision [enforcer@32473 log="l" seq="7" agent="a\"\]\\b"] {"#), "{text}");
        let json = &text[text.find("] {").expect("json") + 2..];
        assert_eq!(serde_json::from_str::<Value>(json).expect("json"), Value::Object(item.fields().clone()));
    }

    #[test]
    fn what_a_record_does_not_say_is_a_hyphen() {
        let text = line(&Item::from(json!({})), "{}");
        assert!(
            text.starts_with("<110>1 - - enforcer ") && text.ends_with(" - [enforcer@32473] {}"),
            "{text}"
        );
    }
}
