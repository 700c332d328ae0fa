//! What can be wrong with the log as files, each with its remedy.

use super::note::NoteError;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system says no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The signing key cannot be used.
    #[error("the key {path}: {why}")]
    Key {
        /// The key.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is there is not what was signed.
    #[error("the audit log is damaged: {path}: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The last checkpoint is signed by a key that this daemon does not have.
    #[error("the audit log {path} is not signed with this daemon's key: {why}")]
    OtherKey {
        /// The checkpoint.
        path: PathBuf,
        /// What was expected.
        why: NoteError,
    },
    /// A sink cannot be started.
    #[error("a sink: {0}")]
    Sink(String),
    /// A checkpoint cannot be signed.
    #[error("cannot sign the audit log: {0}")]
    Sign(NoteError),
}

impl LogError {
    /// What was tried on what, and why it failed.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// The key cannot be used.
    pub fn key(path: &Path, why: impl Into<String>) -> Self {
        Self::Key { path: path.to_owned(), why: why.into() }
    }

    /// A file is damaged.
    pub fn damaged(path: &Path, why: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.to_string() }
    }

    /// Whether the log that is there must not be continued, though a new one can be begun.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::OtherKey { .. })
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { .. } => "make room, or make the directory writable for root",
            Self::Key { .. } => "restore the key from its backup, or move it away to have a new one made",
            Self::Damaged { .. } => {
                "keep the directory as evidence; audit.on_damage = \"new-log\" begins a new log beside it"
            }
            Self::OtherKey { .. } => "restore the key, or see `enforcer audit rotate-key` for replacing it",
            Self::Sink(_) => "see its entry under [[sinks]] in the settings",
            Self::Sign(_) => "check the key",
        }
    }
}
