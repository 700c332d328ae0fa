//! What a program is, by its bytes. While it is being executed nobody can write to its file (deny_write_access(),
//! fs/exec.c, which fails if somebody has it open for that), and the kernel tells which file it is, whatever name that has
//! by now: what is read here is what runs.

use super::cmdline::still_waits;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread,
};

/// Bytes of a program beyond which its content is not told.
const MOST: u64 = 1 << 30;

/// A program that is being read by a thread of its own: a large one takes seconds, in which others are judged. Dropped,
/// it is read no further.
pub(super) struct Reading {
    told: Receiver<Option<[u8; 32]>>,
    wanted: Arc<AtomicBool>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

impl Reading {
    /// Begins to read the program of a process that was stopped before its first instruction.
    pub(super) fn begin(process: u32, started: u64) -> io::Result<Self> {
        let (to, told) = sync_channel(1);
        let wanted = Arc::new(AtomicBool::new(true));
        let read = {
            let wanted = Arc::clone(&wanted);
            move || {
                // Who does not listen any more has no use for it.
                let _ = to.send(of_program(process, started, &wanted));
            }
        };
        thread::Builder::new().name("content".to_owned()).spawn(read)?;
        Ok(Self { told, wanted })
    }

    /// Its SHA-256, or that it cannot be told. `None`: it is not read to the end yet.
    pub(super) fn told(&self) -> Option<Option<[u8; 32]>> {
        match self.told.try_recv() {
            Ok(content) => Some(content),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }
}

/// SHA-256 of the program of a process that was stopped before its first instruction; `None`: that cannot be told.
fn of_program(process: u32, started: u64, wanted: &AtomicBool) -> Option<[u8; 32]> {
    let digest = read(&format!("/proc/{process}/exe"), wanted).ok().flatten();
    // It was that process, and it has not run meanwhile.
    digest.filter(|_| still_waits(process, started))
}

/// `None` also once nobody wants it any more.
fn read(path: &str, wanted: &AtomicBool) -> io::Result<Option<[u8; 32]>> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if !before.is_file() || before.len() > MOST {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 1 << 17];
    let mut length = 0u64;
    loop {
        if !wanted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match file.read(&mut bytes)? {
            0 => break,
            n => {
                hash.update(&bytes[..n]);
                length += n as u64;
            }
        }
    }
    let same = |meta: &Metadata| (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
    let after = file.metadata()?;
    Ok((same(&before) == same(&after) && length == after.len()).then(|| hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_bytes_are_what_counts_and_a_running_process_has_none() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x").display().to_string();
        std::fs::write(&path, "abc").expect("write");
        let wanted = AtomicBool::new(true);
        let digest = read(&path, &wanted).expect("read").expect("a digest");
        assert_eq!(
            crate::event::text::hex(&digest),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(read(dir.path().to_str().expect("text"), &wanted).ok().flatten(), None);
        wanted.store(false, Ordering::Relaxed);
        assert_eq!(read(&path, &wanted).expect("read"), None, "nobody waits for it");
        let reading = Reading::begin(std::process::id(), 1).expect("a thread");
        let told = std::iter::repeat_with(|| {
            thread::yield_now();
            reading.told()
        });
        assert_eq!(told.flatten().next(), Some(None));
    }
}
