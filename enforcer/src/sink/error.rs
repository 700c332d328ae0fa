//! Why a sink cannot deliver, each with its place.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why records were not delivered. They wait in the log, and the sink tries again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A file or a socket says no.
    #[error("cannot {what} {place}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// The receiver could be reached and did not take the records.
    #[error("{place} answered {answer}; look at its own log, then at this sink's token and format")]
    Refused {
        /// The receiver.
        place: String,
        /// What it said.
        answer: String,
    },
    /// The receiver wants less at a time.
    #[error("{place} says that {records} records in one request are too large; raise its limit")]
    TooLarge {
        /// The receiver.
        place: String,
        /// How many there were.
        records: usize,
    },
    /// A certificate, key or token cannot be used.
    #[error("{path}: {why}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        why: String,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] crate::log::error::LogError),
}

impl SinkError {
    /// What was tried on what, and why it failed.
    pub fn io(what: &'static str, place: impl ToString, source: io::Error) -> Self {
        Self::Io { what, place: place.to_string(), source }
    }

    /// A file with a secret or a certificate cannot be used.
    pub fn secret(path: &Path, why: impl ToString) -> Self {
        Self::Secret { path: path.to_owned(), why: why.to_string() }
    }
}
