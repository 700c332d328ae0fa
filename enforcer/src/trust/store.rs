//! The book on the disk: a file for each agent, replaced as a whole.

use super::book::{Book, Kept, Standing};
use crate::approvals::{
    canonical::{Digest, parse_digest},
    sealed::{read_sealed, sealed, write_whole},
};
use crate::event::text::hex;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The file with the origin; no agent's name begins with a dot.
const ORIGIN: &str = ".origin";

/// Where the book is kept.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in the daemon's state directory.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("trust") }
    }

    /// Keeps a statement. When this returns it survives a crash of the host.
    pub fn keep(&self, agent: &str, kept: &Kept) -> io::Result<()> {
        write_whole(&self.directory.join(format!("{agent}.json")), &sealed(&serde_json::to_vec(kept)?))
    }

    /// Reads the book. Whatever cannot be read leaves its agent on probation, and is said. `random` makes numbers
    /// that nobody can guess.
    pub fn load(&self, host: String, random: &mut dyn FnMut() -> Digest) -> Book {
        let (mut entries, mut problem) = (BTreeMap::new(), None);
        match self.files() {
            Ok(files) => {
                for (agent, file) in files {
                    let kept = self.read(&file);
                    entries.insert(agent.clone(), Standing::of(&host, &agent, kept));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                let directory = self.directory.display();
                problem = Some(format!("{directory} cannot be read, so every agent is on probation: {e}"));
            }
        }
        let origin = self.origin(random).unwrap_or_else(|(origin, why)| {
            problem.get_or_insert(why);
            origin
        });
        Book::new(host, (origin, random()), entries, problem)
    }

    fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            if let Some(agent) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_json) {
                out.push((agent.to_owned(), path.clone()));
            }
        }
        Ok(out)
    }

    fn read(&self, file: &Path) -> Result<Kept, String> {
        let gone = || format!("{}: it has gone", file.display());
        let json = read_sealed(file)?.ok_or_else(gone)?;
        serde_json::from_slice(&json).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// The origin; where it cannot be kept, one for this daemon's life, and why.
    fn origin(&self, random: &mut dyn FnMut() -> Digest) -> Result<Digest, (Digest, String)> {
        let file = self.directory.join(ORIGIN);
        let kept = read_sealed(&file).ok().flatten();
        if let Some(known) = kept.and_then(|bytes| parse_digest(std::str::from_utf8(&bytes).ok()?)) {
            return Ok(known);
        }
        // None yet, or a damaged one: with another one no earlier first statement counts.
        let origin = random();
        write_whole(&file, &sealed(hex(&origin).as_bytes()))
            .map(|()| origin)
            .map_err(|e| (origin, format!("{} cannot be written: {e}", file.display())))
    }
}
