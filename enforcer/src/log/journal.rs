//! Records that are not in a bundle on the disk yet. A killed daemon loses nothing that is here; the power
//! failing may take it, which is what checkpoints are for.
//!
//! A frame is the index (8 bytes), the lengths of leaf and clear part (4 bytes each, all big-endian), both,
//! and the first 8 bytes of the SHA-256 of all that.

use super::{error::LogError, leaf::Sealed};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const HEAD: usize = 16;
const CHECK: usize = 8;

/// The journal's name in a log's directory.
pub(super) const NAME: &str = "journal";

/// The journal of a log, open for writing.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Whole frames, with their index.
    pub(super) frames: Vec<(u64, Sealed)>,
    /// Bytes of them.
    pub(super) whole: u64,
    /// Bytes after them, which are no frame.
    pub(super) torn: u64,
}

impl Journal {
    /// Opens the journal of a log, or makes it.
    pub(super) fn open(log: &Path) -> Result<Self, LogError> {
        let path = log.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|e| LogError::io("open", &path, e))?;
        let length = file.metadata().map_err(|e| LogError::io("open", &path, e))?.len();
        Ok(Self { path, file, length })
    }

    /// Everything that is in it.
    pub(super) fn content(&mut self) -> Result<Content, LogError> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(|e| LogError::io("read", &self.path, e))?;
        Ok(content(&bytes))
    }

    /// Adds frames. After an error none of them is there.
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), LogError> {
        if let Err(error) = self.file.write_all(frames) {
            // Half a frame must not stand before the next attempt.
            let _ = self.file.set_len(self.length);
            return Err(LogError::io("write", &self.path, error));
        }
        self.length += frames.len() as u64;
        Ok(())
    }

    /// Cuts it to this length: bytes.
    pub(super) fn cut(&mut self, length: u64) -> Result<(), LogError> {
        if length == self.length {
            return Ok(());
        }
        self.file.set_len(length).map_err(|e| LogError::io("cut", &self.path, e))?;
        self.length = length;
        Ok(())
    }
}

/// Appends the frame of a record.
pub(super) fn put_frame(out: &mut Vec<u8>, index: u64, leaf: &[u8], clear: &[u8]) {
    let start = out.len();
    out.extend(index.to_be_bytes());
    out.extend((leaf.len() as u32).to_be_bytes());
    out.extend((clear.len() as u32).to_be_bytes());
    out.extend(leaf);
    out.extend(clear);
    let check = Sha256::digest(&out[start..]);
    out.extend(&check[..CHECK]);
}

/// The frames at the start of these bytes.
pub(super) fn content(bytes: &[u8]) -> Content {
    let (mut rest, mut content) = (bytes, Content::default());
    while let Some((index, record, length)) = frame(rest) {
        content.frames.push((index, record));
        content.whole += length as u64;
        rest = &rest[length..];
    }
    content.torn = rest.len() as u64;
    content
}

fn frame(bytes: &[u8]) -> Option<(u64, Sealed, usize)> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let index = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let leaf_end = HEAD.checked_add(number(8)?)?;
    let end = leaf_end.checked_add(number(12)?)?;
    let check = bytes.get(end..end.checked_add(CHECK)?)?;
    if Sha256::digest(&bytes[..end])[..CHECK] != *check {
        return None;
    }
    let record = Sealed { leaf: bytes[HEAD..leaf_end].to_vec(), clear: bytes[leaf_end..end].to_vec() };
    Some((index, record, end + CHECK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 7, b"leaf", b"clear");
        put_frame(&mut bytes, 8, b"other", b"");
        bytes
    }

    #[test]
    fn wherever_it_is_cut_whole_frames_are_read_and_the_rest_is_said() {
        let bytes = two();
        let first = HEAD + 9 + CHECK;
        for cut in 0..=bytes.len() {
            let content = content(&bytes[..cut]);
            let frames = usize::from(cut >= first) + usize::from(cut == bytes.len());
            assert_eq!(content.frames.len(), frames, "{cut}");
            assert_eq!(content.whole + content.torn, cut as u64);
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_ends_it(at in 0usize..70, to: u8) {
            let mut bytes = two();
            let at = at % bytes.len();
            if bytes[at] != to {
                bytes[at] = to;
                let whole = content(&bytes);
                prop_assert!(whole.frames.len() < 2 && whole.torn > 0);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = content(&bytes);
        }
    }
}
