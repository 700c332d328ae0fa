//! How far a sink has come, on the disk. Losing it costs deliveries that are repeated, never one that is
//! left out.

use super::error::SinkError;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A place in the logs of a host: everything before it was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The log's number: 1 is `0001`.
    pub log: u32,
    /// Index of the next record.
    pub index: u64,
}

/// Where every sink without a cursor begins.
pub const BEGINNING: Position = Position { log: 1, index: 0 };

/// The file with a sink's position.
pub struct Cursor {
    path: PathBuf,
    saved: Option<Position>,
}

impl Cursor {
    /// The cursor of the sink `name`, and where it stands; `None` where there is none yet. One that cannot be
    /// read is moved aside and said: the sink then begins at the beginning.
    pub fn open(directory: &Path, name: &str) -> Result<(Self, Option<Position>), SinkError> {
        let path = directory.join(name);
        let saved = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(position) => Some(position),
                Err(error) => {
                    let aside = path.with_extension("damaged");
                    tracing::error!(%error, "the cursor {} makes no sense; everything is sent again", path.display());
                    fs::rename(&path, &aside).map_err(|e| SinkError::io("move aside", path.display(), e))?;
                    Some(BEGINNING)
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(SinkError::io("read", path.display(), e)),
        };
        Ok((Self { path, saved }, saved))
    }

    /// Notes a position, on the disk.
    pub fn save(&mut self, position: Position) -> Result<(), SinkError> {
        if self.saved == Some(position) {
            return Ok(());
        }
        self.write(position).map_err(|e| SinkError::io("write", self.path.display(), e))?;
        self.saved = Some(position);
        Ok(())
    }

    fn write(&self, position: Position) -> io::Result<()> {
        let fresh = self.path.with_extension("tmp");
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        serde_json::to_writer(&mut file, &position)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_outlives_its_sink_and_a_damaged_one_means_everything_again() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut cursor, at) = Cursor::open(&dir.path().join("sinks"), "siem").expect("opens");
        assert_eq!(at, None);
        let position = Position { log: 2, index: 77 };
        cursor.save(position).expect("saves");
        let directory = dir.path().join("sinks");
        assert_eq!(Cursor::open(&directory, "siem").expect("opens").1, Some(position));
        fs::write(directory.join("siem"), "{\"log\":1").expect("write");
        assert_eq!(Cursor::open(&directory, "siem").expect("opens").1, Some(BEGINNING));
        assert!(directory.join("siem.damaged").exists());
    }
}
