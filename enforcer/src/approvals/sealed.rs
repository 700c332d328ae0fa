//! Small files that are replaced as a whole, with a digest that tells damage.

use crate::event::text::hex;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// One line with the digest of what follows.
pub(crate) fn sealed(json: &[u8]) -> Vec<u8> {
    [hex(&Sha256::digest(json)).as_bytes(), b"\n", json].concat()
}

/// What was sealed in a file; `None` where there is no file.
pub(crate) fn read_sealed(file: &Path) -> Result<Option<Vec<u8>>, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", file.display())),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let json = bytes.get(end + 1..).unwrap_or_default();
    match hex(&Sha256::digest(json)).as_bytes() == &bytes[..end] {
        true => Ok(Some(json.to_vec())),
        false => Err(format!("{}: it is damaged", file.display())),
    }
}

/// Replaces a file as a whole.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let fresh = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(directory)?.sync_all()
}
