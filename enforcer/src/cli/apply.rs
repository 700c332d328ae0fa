//! `enforcer policy apply`: files go into the policy directory as a whole, or not at all.

use super::{
    Failure, Output,
    exit::Exit,
    json_text,
    policy::{Checked, check_all, good, read, report},
    print, printable,
};
use crate::{
    control::{
        client::Client,
        message::{Reply, Request},
    },
    daemon::policies::is_policy,
    settings::Settings,
};
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A policy on its way into the directory.
struct Change {
    agent: String,
    /// What the file is to say.
    text: Vec<u8>,
    /// Where it goes.
    target: PathBuf,
    /// What stood there.
    before: Option<Vec<u8>>,
}

/// Puts policies in force. They are checked first, each and together with the ones that stay; where the daemon
/// then refuses one of them, all files are put back as they were.
pub(super) fn apply(
    settings: &Settings,
    files: &[PathBuf],
    client: &mut Client,
    output: Output,
) -> Result<ExitCode, Failure> {
    let directory = &settings.paths.policies;
    let changes = plan(directory, files)?;
    let replaced: Vec<&Path> = changes.iter().map(|change| change.target.as_path()).collect();
    let mut all: Vec<PathBuf> = files.to_vec();
    all.extend(policies_in(directory)?.into_iter().filter(|path| !replaced.contains(&path.as_path())));
    let (checked, together) = check_all(&all);
    let ours = &checked[..files.len()];
    if !together.is_empty() || ours.iter().any(|(_, one)| !matches!(one, Checked::Good(_))) {
        report(ours, &together, output)?;
        return Ok(Exit::BadPolicy.into());
    }
    for (done, change) in changes.iter().enumerate() {
        if let Err(error) = put(&change.target, Some(&change.text)) {
            put_back(&changes[..done])?;
            return Err(cannot_write(&change.target, &error));
        }
    }
    let refused = match reload(client, &changes) {
        Ok(refused) => refused,
        Err(failure) => {
            put_back(&changes)?;
            return Err(failure);
        }
    };
    if !refused.is_empty() {
        put_back(&changes)?;
        // What the daemon says of the restored files is what it said before.
        client.ask(&Request::Reload)?;
        let text = refused.iter().map(|problem| printable(problem)).collect::<Vec<_>>().join("\n");
        let remedy = "mend it and apply it again; every file is as it was, and what was in force is in force";
        return Err(Failure::new(Exit::BadPolicy, text, remedy));
    }
    let line = |change: &Change| format!("{} in force from {}\n", change.agent, change.target.display());
    print(&match output {
        Output::Human => changes.iter().map(line).collect::<String>(),
        Output::Json => json_text(&json!({
            "applied": changes.iter().map(|c| json!({"agent": c.agent, "file": c.target})).collect::<Vec<_>>(),
        })),
    })
}

/// Where each file goes: to the place that its agent's policy has already, else to a file named after the agent.
fn plan(directory: &Path, files: &[PathBuf]) -> Result<Vec<Change>, Failure> {
    let mut present = Vec::new();
    for path in policies_in(directory)? {
        if let Checked::Good(policy) = read(&path) {
            present.push((policy.id().to_owned(), path));
        }
    }
    let mut changes: Vec<Change> = Vec::new();
    for file in files {
        let agent = good(file)?.id().to_owned();
        let text = fs::read(file)
            .map_err(|e| Failure::new(Exit::NoInput, format!("cannot read {}: {e}", file.display()), ""))?;
        let own = present.iter().find(|(id, _)| *id == agent).map(|(_, path)| path.clone());
        let target = own.unwrap_or_else(|| directory.join(format!("{agent}.yaml")));
        let before = match fs::read(&target) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                let message = format!("cannot read {}, which would be replaced: {e}", target.display());
                return Err(Failure::new(Exit::NoInput, message, "mend that file, or move it away"));
            }
        };
        changes.push(Change { agent, text, target, before });
    }
    Ok(changes)
}

fn policies_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            let message = format!("cannot read {}: {e}", directory.display());
            return Err(Failure::new(Exit::NoInput, message, "run this as root"));
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_policy(p)).collect();
    paths.sort();
    Ok(paths)
}

/// The daemon's word on what was changed: what is wrong with it, if anything.
fn reload(client: &mut Client, changes: &[Change]) -> Result<Vec<String>, Failure> {
    client.ask(&Request::Reload)?;
    // The daemon may have seen the files before it was asked, so its standing opinion counts.
    let status = match client.ask(&Request::Status)? {
        Reply::Status(status) => status,
        other => return Err(super::unexpected(&other)),
    };
    let opinion = |change: &Change| {
        let path = change.target.display().to_string();
        match status.policies.iter().find(|file| file.path == path) {
            None => Some(format!("{path}: the daemon does not read this directory")),
            Some(file) => file.error.clone(),
        }
    };
    Ok(changes.iter().filter_map(opinion).collect())
}

/// Brings every file back to what it was.
fn put_back(changes: &[Change]) -> Result<(), Failure> {
    for change in changes {
        put(&change.target, change.before.as_deref()).map_err(|error| {
            let message = format!("cannot put {} back as it was: {error}", change.target.display());
            Failure::new(Exit::CannotWrite, message, "look at the file: it may be the new one")
        })?;
    }
    Ok(())
}

/// Makes `target` say `text`, or not be there: in one step, and on the disk.
fn put(target: &Path, text: Option<&[u8]>) -> io::Result<()> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    match text {
        Some(text) => {
            // Hidden, so that the daemon does not take it for a policy.
            let fresh = directory.join(format!(".apply-{}", std::process::id()));
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&fresh, target)?;
        }
        None => match fs::remove_file(target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        },
    }
    File::open(directory)?.sync_all()
}

fn cannot_write(target: &Path, error: &io::Error) -> Failure {
    let exit =
        if error.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { Exit::CannotWrite };
    let remedy = "run this as root, on a file system with room; nothing has changed";
    Failure::new(exit, format!("cannot write {}: {error}", target.display()), remedy)
}
