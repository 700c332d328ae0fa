//! `enforcer audit`: verifying, proving and reading the signed log. Needs no daemon.

mod filter;
mod prove;
mod show;
mod verify;

use super::{Failure, Output, exit::Exit, print};
use crate::{
    audit,
    log::{error::LogError, key, segments, store::CHECKPOINT},
    settings::Settings,
};
use clap::{Args, Subcommand};
use filter::Filter;
use serde_json::{Map, Value};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check that a log, or an export, is complete and what was signed. Exits with 74 if it is not.
    Verify(VerifyArgs),
    /// Print the proof that a record is in the log, or that the log has only grown since.
    Prove(ProveArgs),
    /// Print the last records.
    Tail {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
        /// How many records.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: usize,
        /// Go on with records as they are signed.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the records that fit.
    Search {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
    },
    /// Print records as lines that can be verified elsewhere, with `audit verify --export`.
    Export {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
        /// Withhold paths, arguments and whatever else is sealed.
        #[arg(long)]
        redact: bool,
        /// Leave the proofs out of a complete export: it is smaller, and verified as a whole only, so that a record that
        /// was changed is found and not named.
        #[arg(long)]
        without_proofs: bool,
    },
    /// Make a new signing key. The daemon records the change, signed with both keys, at its next start.
    RotateKey,
}

/// Which log.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// A log's directory, or one with logs [default: audit/log in the state directory].
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

impl Place {
    /// Whether one is named.
    pub(super) fn is_named(&self) -> bool {
        self.log.is_some()
    }
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// Verify this export instead of a log; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    export: Option<PathBuf>,
    /// The public key, as text or in a file [default: audit/key.pub in the state directory].
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// A checkpoint that was kept elsewhere: the log must contain what it says.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The public key of a witness, as it publishes it: the checkpoint that was kept, or the one beside the log, must be
    /// signed by it.
    #[arg(long, value_name = "KEY")]
    witness: Vec<String>,
    /// How many of the witnesses must have signed.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "witness")]
    witnesses_wanted: usize,
    /// Accept sealed values whose clear text is withheld.
    #[arg(long)]
    redacted: bool,
}

#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    #[command(flatten)]
    place: Place,
    /// Prove that this record is in the log.
    #[arg(long, value_name = "N", conflicts_with = "from", required_unless_present = "from")]
    index: Option<u64>,
    /// Prove that the log begins with its first so many records.
    #[arg(long, value_name = "SIZE")]
    from: Option<u64>,
    /// As of this size [default: that of the checkpoint].
    #[arg(long, value_name = "SIZE")]
    size: Option<u64>,
}

/// The newest record that fits, of the log at `place`.
pub(super) fn newest(
    place: &Place,
    settings: &Settings,
    fits: impl Fn(&Map<String, Value>) -> bool,
) -> Result<Option<Map<String, Value>>, Failure> {
    show::newest(&place.all(&|| Ok(settings.clone()))?, fits)
}

/// Runs one of the commands.
pub(super) fn run(
    command: &AuditCommand,
    output: Output,
    settings: &dyn Fn() -> Result<Settings, Failure>,
) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Verify(args) => verify::run(args, output, settings),
        AuditCommand::Prove(args) => prove::run(args, output, &args.place.last(settings)?),
        AuditCommand::Tail { place, filter, lines, follow } => {
            show::tail(&place.all(settings)?, filter, *lines, *follow, output)
        }
        AuditCommand::Search { place, filter } => show::search(&place.all(settings)?, filter, output),
        AuditCommand::Export { place, filter, redact, without_proofs } => {
            show::export(&place.last(settings)?, filter, *redact, !without_proofs)
        }
        AuditCommand::RotateKey => rotate_key(&settings()?),
    }
}

impl Place {
    /// Every log, the oldest first.
    fn all(&self, settings: &dyn Fn() -> Result<Settings, Failure>) -> Result<Vec<PathBuf>, Failure> {
        let directory = match &self.log {
            Some(directory) => directory.clone(),
            None => audit::directory(&settings()?.paths.state),
        };
        if directory.join(CHECKPOINT).exists() {
            return Ok(vec![directory]);
        }
        let logs = segments::list(&directory).map_err(|e| failure(&e))?;
        if logs.is_empty() {
            let message = format!("{} has no audit log that can be read", directory.display());
            return Err(Failure::new(Exit::NoInput, message, "name its directory with --log"));
        }
        Ok(logs.into_iter().map(|(_, path)| path).collect())
    }

    /// The log that is being written.
    fn last(&self, settings: &dyn Fn() -> Result<Settings, Failure>) -> Result<PathBuf, Failure> {
        self.all(settings).map(|mut all| all.pop().unwrap_or_default())
    }
}

fn rotate_key(settings: &Settings) -> Result<ExitCode, Failure> {
    let path = audit::secret_key(settings);
    let public = key::replace(&path).map_err(|e| failure(&e))?;
    print(&format!(
        "{}\nThe daemon signs with it from its next start on, and records the change with both keys.\n",
        public.text()
    ))
}

/// An error of the log, as an operator sees it.
fn failure(error: &LogError) -> Failure {
    let exit = match error {
        LogError::Damaged { .. } | LogError::OtherKey { .. } => Exit::NotVerified,
        LogError::Io { .. } => Exit::NoInput,
        LogError::Key { .. } | LogError::Sign(_) | LogError::Sink(_) => Exit::BadSettings,
    };
    Failure::new(exit, error.to_string(), error.remedy())
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|e| Failure::new(Exit::NoInput, format!("cannot read {}: {e}", path.display()), ""))
}
