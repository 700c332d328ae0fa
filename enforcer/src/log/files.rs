//! Writing files so that a crash leaves each of them whole or absent, and reading them back.

use super::{error::LogError, tile::Tile};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Files of one batch above which the whole file system is synced at once: one barrier instead of many.
const MANY: usize = 12;

/// Files that were written and may still be lost with the power.
#[derive(Default)]
pub(super) struct Unsynced(Vec<PathBuf>);

impl Unsynced {
    /// Writes a file under a temporary name and renames it.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        let failed = |e| LogError::io("write", path, e);
        let fresh = temporary(path);
        let mut file = match File::create(&fresh) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                fs::create_dir_all(parent).map_err(|e| LogError::io("make", parent, e))?;
                File::create(&fresh)
            }
            other => other,
        }
        .map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        fs::rename(&fresh, path).map_err(failed)?;
        self.0.push(path.to_owned());
        Ok(())
    }

    /// Forces everything that was written to the disk, with the directories up to `top`.
    pub(super) fn sync(&mut self, top: &Path) -> Result<(), LogError> {
        if self.0.len() > MANY {
            sync_all(top)?;
            self.0.clear();
            return Ok(());
        }
        let mut directories = BTreeSet::new();
        for path in &self.0 {
            sync(path)?;
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(top));
            directories.extend(above.map(Path::to_owned));
        }
        directories.iter().try_for_each(|directory| sync(directory))?;
        self.0.clear();
        Ok(())
    }
}

/// Forces one file or directory to the disk.
pub(super) fn sync(path: &Path) -> Result<(), LogError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| LogError::io("sync", path, e))
}

/// Forces everything on the file system of this directory to the disk.
pub(super) fn sync_all(top: &Path) -> Result<(), LogError> {
    let file = File::open(top).map_err(|e| LogError::io("open", top, e))?;
    nix::unistd::syncfs(&file).map_err(|e| LogError::io("sync the disk of", top, e.into()))
}

/// The name under which a file is written before it gets its own.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// The bytes of a file, or `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::io("read", path, e)),
    }
}

/// The bytes of a tile, and which tile they are: the one asked for or, if that is gone, a longer version of
/// it, which a writer that went on has left in its place.
pub(super) fn read_tile(log: &Path, tile: Tile) -> Result<Option<(Tile, Vec<u8>)>, LogError> {
    let longer = versions(log, tile)?.into_iter().filter(|other| other.width > tile.width);
    for candidate in [tile].into_iter().chain(longer) {
        if let Some(bytes) = read(&log.join(candidate.path()))? {
            return Ok(Some((candidate, bytes)));
        }
    }
    Ok(None)
}

/// The versions of a tile that exist, the longest first.
pub(super) fn versions(log: &Path, tile: Tile) -> Result<Vec<Tile>, LogError> {
    let full = Tile { width: super::tree::TILE_WIDTH, ..tile };
    let mut all = Vec::new();
    if log.join(full.path()).exists() {
        all.push(full);
    }
    let directory = tile.partials();
    let entries = match fs::read_dir(log.join(&directory)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(e) => return Err(LogError::io("list", &log.join(directory), e)),
    };
    let mut partial: Vec<Tile> =
        entries.flatten().filter_map(|e| Tile::from_path(&directory.join(e.file_name()))).collect();
    partial.sort_by_key(|tile| std::cmp::Reverse(tile.width));
    all.extend(partial);
    Ok(all)
}

/// Moves a file that cannot be used out of the way, so that nothing is ever written over it.
pub(super) fn set_aside(log: &Path, name: &Path) -> Result<(), LogError> {
    let directory = log.join("aside");
    fs::create_dir_all(&directory).map_err(|e| LogError::io("make", &directory, e))?;
    let flat = name.display().to_string().replace('/', "-");
    let free = (0u32..).map(|n| directory.join(format!("{flat}.{n}"))).find(|path| !path.exists());
    let (from, to) = (log.join(name), free.unwrap_or_else(|| directory.join(flat)));
    fs::rename(&from, &to).map_err(|e| LogError::io("move aside", &from, e))
}

/// Every file below a directory, by its path in it.
pub(super) fn all(log: &Path) -> Result<Vec<PathBuf>, LogError> {
    let (mut waiting, mut all) = (vec![log.to_owned()], BTreeSet::new());
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).map_err(|e| LogError::io("list", &directory, e))?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            } else if let Ok(name) = path.strip_prefix(log) {
                all.insert(name.to_owned());
            }
        }
    }
    Ok(all.into_iter().collect())
}
