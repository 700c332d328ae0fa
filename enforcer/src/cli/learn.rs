//! `enforcer policy learn`.

use super::{Failure, Output, exit::Exit, json_text, policy::find, print};
use crate::{
    event::text::escape,
    policy::{LearnError, Learner},
    settings::Settings,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Longest line of a log: a record has a few paths, each of which may be escaped.
const LINE: u64 = 1 << 20;

/// Prints a draft of the rules that sessions in audit mode would have needed.
pub(super) fn learn(
    settings: &Settings,
    sessions: &[String],
    logs: &[PathBuf],
    base: Option<&OsStr>,
    output: Output,
) -> Result<ExitCode, Failure> {
    let mut learner = Learner::new(sessions);
    let own = [settings.paths.state.join("audit/events.jsonl")];
    for path in if logs.is_empty() { &own[..] } else { logs } {
        read(path, &mut learner)?;
    }
    let wrong = |error: LearnError| {
        let remedy = match error {
            LearnError::NoSession(_) => "name the older logs too: --log FILE; enforcer agents lists sessions",
            LearnError::Agents(_) => "learn for one agent at a time",
            LearnError::OtherAgent { .. } => "name the agent's own policy: --base FILE",
        };
        Failure::new(Exit::Usage, escape(error.to_string().as_bytes()), remedy)
    };
    let base = match base {
        Some(named) => Some(find(settings, named)?),
        // The draft says what follows from not knowing it.
        None => find(settings, OsStr::new(learner.agent().map_err(wrong)?)).ok(),
    };
    let draft = learner.draft(base.as_ref()).map_err(wrong)?;
    print(&match output {
        Output::Human => draft.to_string(),
        Output::Json => json_text(&draft),
    })
}

fn read(path: &Path, learner: &mut Learner) -> Result<(), Failure> {
    let name = path.display().to_string();
    let unreadable =
        |e| Failure::new(Exit::NoInput, format!("cannot read {name}: {e}"), "name it with --log");
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut limited = std::io::Read::take(&mut reader, LINE);
        if limited.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        learner.line(&name, number, &String::from_utf8_lossy(&bytes));
    }
    Ok(())
}
