//! The journal, in its native protocol (systemd's "Native Journal Protocol"): one datagram an entry, or a
//! sealed memory file where an entry is larger than a datagram.

use super::{Message, Receiver};
use crate::sink::{error::SinkError, item::Item, settings::JournaldSettings};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
    },
};
use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    time::Duration,
};

/// How long the journal may take for an entry.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Journald {
    settings: JournaldSettings,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(settings: JournaldSettings) -> Self {
        Self { settings, socket: None }
    }

    fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket
            }
        };
        match socket.send_to(entry, &self.settings.socket) {
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => self.send_file(&socket, entry)?,
            sent => drop(sent?),
        }
        self.socket = Some(socket);
        Ok(())
    }

    fn send_file(&self, socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd: OwnedFd = memfd_create(c"enforcer-record", flags)?;
        let mut file = File::from(fd);
        file.write_all(entry)?;
        // The journal takes only what nobody can change any more.
        let seals =
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let address = UnixAddr::new(&self.settings.socket)?;
        let descriptors = [file.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&descriptors)];
        sendmsg(socket.as_raw_fd(), &[], &message, MsgFlags::empty(), Some(&address))?;
        Ok(())
    }
}

impl Receiver for Journald {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        for message in messages {
            self.send(&entry(&message.item, message.json()))
                .map_err(|e| SinkError::io("send to", self.settings.socket.display(), e))?;
        }
        Ok(())
    }
}

fn entry(item: &Item, json: &str) -> Vec<u8> {
    let seq = item.fields().get("seq").map(ToString::to_string);
    let severity = item.severity().to_string();
    let summary = item.summary();
    let mut out = Vec::new();
    for (key, value) in [
        ("MESSAGE", Some(summary.as_str())),
        ("PRIORITY", Some(&severity)),
        ("SYSLOG_IDENTIFIER", Some("enforcer-audit")),
        ("ENFORCER_KIND", Some(item.kind())),
        ("ENFORCER_AGENT", item.text("agent")),
        ("ENFORCER_SESSION", item.text("session")),
        ("ENFORCER_VERDICT", item.text("verdict")),
        ("ENFORCER_LOG", item.text("log")),
        ("ENFORCER_SEQ", seq.as_deref()),
        ("ENFORCER_LEAF_HASH", item.text("leaf_hash")),
        ("ENFORCER_RECORD", Some(json)),
    ] {
        let Some(value) = value else { continue };
        out.extend(key.as_bytes());
        if value.contains('\n') {
            // Length and bytes, so that a value cannot begin another field.
            out.push(b'\n');
            out.extend((value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend(value.as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::settings::Format;
    use serde_json::json;
    use std::io::{IoSliceMut, Read, Seek};

    #[test]
    fn a_value_cannot_begin_another_field() {
        let item = Item::from(json!({"kind": "decision", "agent": "a\nPRIORITY=0"}));
        let text = entry(&item, "{}");
        let start = b"\nENFORCER_AGENT\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(text.windows(start.len()).any(|part| part == start), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn small_entries_come_as_datagrams_and_large_ones_as_files() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bind");
        let mut sink = Journald::new(JournaldSettings { socket: path });
        let big = "x".repeat(4 << 20);
        let messages =
            ["small", &big].map(|pad| Message::new(Item::from(json!({"pad": pad})), Format::Native));
        sink.deliver(&messages).expect("sends");
        let mut bytes = vec![0; 4096];
        let length = journal.recv(&mut bytes).expect("datagram");
        assert!(bytes[..length].ends_with(b"ENFORCER_RECORD={\"pad\":\"small\"}\n"));
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = nix::sys::socket::recvmsg::<()>(
            journal.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .expect("message");
        assert_eq!(received.bytes, 0);
        let fd = received.cmsgs().expect("parts").find_map(|part| match part {
            nix::sys::socket::ControlMessageOwned::ScmRights(all) => all.first().copied(),
            _ => None,
        });
        let mut file = File::open(format!("/proc/self/fd/{}", fd.expect("a file"))).expect("open");
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("read");
        assert!(text.len() > 4 << 20 && text.contains("ENFORCER_RECORD={\"pad\":\"xxx"));
    }
}
