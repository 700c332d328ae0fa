//! What a run brings into its guest, and what it brings back.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tar::{Archive, Builder, EntryType, Header};
use walkdir::WalkDir;

/// Whose modes a copied tree keeps.
#[derive(Clone, Copy)]
pub(crate) enum Modes {
    Kept,
    /// Configuration: 0644, whatever the checkout's umask was.
    Plain,
}

/// A tar archive that is unpacked over the guest's root file system; everything in it belongs to root.
pub(crate) struct Payload {
    tar: Builder<BufWriter<File>>,
}

impl Payload {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { tar: Builder::new(BufWriter::new(file)) })
    }

    pub(crate) fn dir(&mut self, path: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        Ok(self.tar.append_data(&mut header, format!("{path}/"), io::empty())?)
    }

    pub(crate) fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
        Ok(self.tar.append_data(&mut header, path, bytes)?)
    }

    pub(crate) fn file(&mut self, path: &Path, from: &Path, mode: Option<u32>) -> Result<()> {
        let read = || -> Result<(File, fs::Metadata)> {
            let file = File::open(from)?;
            let meta = file.metadata()?;
            Ok((file, meta))
        };
        let (file, meta) = read().with_context(|| format!("cannot read {}", from.display()))?;
        let mode = mode.unwrap_or(meta.permissions().mode() & 0o7777);
        let mut header = header(EntryType::Regular, mode, meta.len());
        let modified = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        header.set_mtime(modified.map_or(0, |since| since.as_secs()));
        // A file that grows meanwhile must not spill into the next entry.
        Ok(self.tar.append_data(&mut header, path, file.take(meta.len()))?)
    }

    /// Copies what is below `from` to `to`; returns the relative paths.
    pub(crate) fn tree(&mut self, to: &str, from: &Path, modes: Modes) -> Result<BTreeSet<PathBuf>> {
        let mut copied = BTreeSet::new();
        for entry in WalkDir::new(from).min_depth(1).sort_by_file_name() {
            let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
            let relative = entry.path().strip_prefix(from)?;
            let target = Path::new(to).join(relative);
            let kind = entry.file_type();
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            if kind.is_dir() {
                let mode = if matches!(modes, Modes::Plain) { 0o755 } else { mode };
                let mut header = header(EntryType::Directory, mode, 0);
                self.tar.append_data(&mut header, &target, io::empty())?;
            } else if kind.is_symlink() {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                self.tar.append_link(&mut header, &target, fs::read_link(entry.path())?)?;
            } else if kind.is_file() {
                let mode = matches!(modes, Modes::Plain).then_some(0o644);
                self.file(&target, entry.path(), mode)?;
            } else {
                continue;
            }
            copied.insert(relative.to_path_buf());
        }
        Ok(copied)
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Makes `dir` what the guest's /share is: new and changed files, modes, links; of what was `sent` and is
/// gone, the removal too.
pub(crate) fn take_back(archive: &Path, dir: &Path, sent: &BTreeSet<PathBuf>) -> Result<()> {
    let mut returned = BTreeSet::new();
    let mut modes = Vec::new();
    // The archive's first entry is /share itself; without it, the disk was never written.
    let mut begun = false;
    for entry in Archive::new(File::open(archive)?).entries()? {
        let mut entry = entry?;
        // Names come from the guest: nothing of them may lead out of `dir`.
        let relative = normal(&entry.path()?);
        if relative.as_os_str().is_empty() {
            begun = true;
            continue;
        }
        let path = dir.join(&relative);
        let mode = fs::Permissions::from_mode(entry.header().mode()? & 0o777);
        let present = fs::symlink_metadata(&path).ok();
        match entry.header().entry_type() {
            EntryType::Directory => {
                if !present.as_ref().is_some_and(fs::Metadata::is_dir) {
                    remove(&path)?;
                    fs::create_dir_all(&path)?;
                }
                modes.push((path, mode));
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.context("a symlink has a target")?.into_owned();
                if fs::read_link(&path).ok().as_ref() != Some(&target) {
                    remove(&path)?;
                    symlink(&target, &path)?;
                }
            }
            EntryType::Link => {
                let target = entry.link_name()?.context("a hard link has a target")?.into_owned();
                remove(&path)?;
                fs::hard_link(dir.join(normal(&target)), &path)?;
            }
            EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                let same = present.is_some_and(|meta| meta.is_file() && meta.len() == bytes.len() as u64)
                    && fs::read(&path)? == bytes;
                if !same {
                    remove(&path)?;
                    fs::write(&path, &bytes)?;
                }
                fs::set_permissions(&path, mode)?;
            }
            // Devices, pipes: they mean nothing outside the guest.
            _ => continue,
        }
        returned.insert(relative);
    }
    if !begun {
        bail!("the guest returned nothing");
    }
    // A directory may have become unwritable; its content is complete only now.
    for (path, mode) in modes.into_iter().rev() {
        fs::set_permissions(path, mode)?;
    }
    for gone in sent.difference(&returned) {
        remove(&dir.join(gone))?;
    }
    Ok(())
}

fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Arguments as the guest reads them: each ends with a zero byte.
pub(crate) fn zero_terminated(words: &[std::ffi::OsString]) -> Vec<u8> {
    words.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_comes_back_with_changes_and_removals_and_nothing_outside() -> Result<()> {
        let (before, after) = (tempfile::tempdir()?, tempfile::tempdir()?);
        fs::write(before.path().join("kept"), "same")?;
        fs::write(before.path().join("gone"), "x")?;
        let work = tempfile::tempdir()?;
        let tar = work.path().join("sent.tar");
        let mut payload = Payload::create(&tar)?;
        let sent = payload.tree("share", before.path(), Modes::Kept)?;
        payload.finish()?;
        assert_eq!(sent.len(), 2);

        fs::create_dir(after.path().join("new"))?;
        fs::write(after.path().join("new/script"), "#!/bin/sh\n")?;
        fs::set_permissions(after.path().join("new/script"), fs::Permissions::from_mode(0o755))?;
        fs::write(after.path().join("kept"), "same")?;
        symlink("/etc/passwd", after.path().join("link"))?;
        let mut payload = Payload::create(&tar)?;
        payload.tree("../..", after.path(), Modes::Kept).expect_err("the tar crate refuses to write `..`");
        let mut payload = Payload::create(&tar)?;
        payload.dir(".")?;
        payload.tree(".", after.path(), Modes::Kept)?;
        payload.finish()?;
        take_back(&tar, before.path(), &sent)?;

        assert!(!before.path().join("gone").exists());
        assert_eq!(fs::metadata(before.path().join("new/script"))?.permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(before.path().join("link"))?, Path::new("/etc/passwd"));
        Ok(())
    }
}
