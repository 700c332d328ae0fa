//! A file of JSON lines that begins anew when it is large.

use super::{Message, Receiver};
use crate::sink::{error::SinkError, settings::FileSettings};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

pub(super) struct Lines {
    settings: FileSettings,
    open: Option<Open>,
}

struct Open {
    file: File,
    length: u64,
    /// A crash or a full disk has left half a line at the end.
    torn: bool,
}

impl Lines {
    pub(super) fn new(settings: FileSettings) -> Self {
        Self { settings, open: None }
    }

    fn place(&self) -> std::path::Display<'_> {
        self.settings.path.display()
    }

    fn write(&mut self, messages: &[Message]) -> io::Result<()> {
        let limit = self.settings.rotate_megabytes.saturating_mul(1 << 20);
        let mut open = self.opened()?;
        let mut text = Vec::new();
        for message in messages {
            let after = open.length + (text.len() + message.json().len()) as u64 + 1;
            if after > limit && open.length + text.len() as u64 > 0 {
                open.put(&text)?;
                text.clear();
                open.file.sync_data()?;
                self.rotate()?;
                open = self.opened()?;
            }
            text.extend(message.json().as_bytes());
            text.push(b'\n');
        }
        open.put(&text)?;
        open.file.sync_data()?;
        self.open = Some(open);
        Ok(())
    }

    /// The file as it was left, or opened. A file that somebody else has moved away is begun again.
    fn opened(&mut self) -> io::Result<Open> {
        let path = &self.settings.path;
        if let Some(open) = self.open.take()
            && let (Ok(ours), Ok(there)) = (open.file.metadata(), fs::symlink_metadata(path))
            && (ours.dev(), ours.ino()) == (there.dev(), there.ino())
        {
            return Ok(open);
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file; name another one"));
        }
        let length = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Open { file, length, torn: last != [b'\n'] })
    }

    fn rotate(&self) -> io::Result<()> {
        let named = |number: u32| -> PathBuf {
            let mut name = self.settings.path.clone().into_os_string();
            name.push(format!(".{number}"));
            name.into()
        };
        let keep = self.settings.rotate_keep;
        if keep == 0 {
            return fs::remove_file(&self.settings.path);
        }
        for number in (1..keep).rev() {
            match fs::rename(named(number), named(number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.settings.path, named(1))
    }
}

impl Open {
    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        if self.torn && !text.is_empty() {
            self.file.write_all(b"\n")?;
            self.length += 1;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(text) {
            // The whole batch comes again; half of it would be in the file twice.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }
}

impl Receiver for Lines {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        self.write(messages).map_err(|e| SinkError::io("write", self.place(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{item::Item, settings::Format};
    use serde_json::json;
    use std::path::Path;

    fn lines(path: &Path, keep: u32) -> Lines {
        Lines::new(FileSettings { path: path.to_owned(), rotate_megabytes: 1, rotate_keep: keep })
    }

    fn messages(range: std::ops::Range<u64>, size: usize) -> Vec<Message> {
        let item = |n| Item::from(json!({"seq": n, "pad": "x".repeat(size)}));
        range.map(|n| Message::new(item(n), Format::Native)).collect()
    }

    fn seqs(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).expect("read");
        let seq = |line| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64();
        text.lines().filter_map(seq).collect()
    }

    #[test]
    fn a_large_file_is_moved_away_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("sub/events.jsonl");
        let mut sink = lines(&path, 2);
        for batch in 0..5 {
            sink.deliver(&messages(batch * 10..batch * 10 + 10, 100_000)).expect("writes");
        }
        let named = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        assert!(!named(3).exists());
        let all: Vec<u64> = [named(2), named(1), path.clone()].iter().flat_map(|p| seqs(p)).collect();
        assert_eq!(all, (20..50).collect::<Vec<_>>());
        assert!(fs::metadata(&path).expect("meta").len() <= 1 << 20);
        assert_eq!(fs::metadata(&path).expect("meta").mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_line_does_not_swallow_the_next_one_and_a_moved_file_is_begun_again() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("events.jsonl");
        fs::write(&path, "{\"seq\":").expect("write");
        let mut sink = lines(&path, 1);
        sink.deliver(&messages(0..1, 1)).expect("writes");
        assert_eq!(seqs(&path), [0]);
        fs::rename(&path, dir.path().join("moved")).expect("rename");
        sink.deliver(&messages(1..2, 1)).expect("writes");
        assert_eq!(seqs(&path), [1]);
    }

    #[test]
    fn a_link_or_a_pipe_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("x"), &path).expect("link");
        assert!(lines(&path, 1).deliver(&messages(0..1, 1)).is_err());
        assert!(lines(Path::new("/dev/null"), 1).deliver(&messages(0..1, 1)).is_err());
    }
}
