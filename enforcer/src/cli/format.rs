//! `enforcer policy fmt`.

use super::{Failure, Output, exit::Exit, json_text, print};
use crate::policy;
use serde_json::json;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Lays files out, or says which would change.
pub(super) fn format(files: &[PathBuf], check: bool, output: Output) -> Result<ExitCode, Failure> {
    let mut changed = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|e| Failure::new(Exit::NoInput, format!("cannot read {name}: {e}"), ""))?;
        let new = policy::format(&name, &text).map_err(|error| match error {
            policy::FormatError::Document(errors) => Failure::new(Exit::BadPolicy, errors.to_string(), ""),
            policy::FormatError::Unsure { .. } => {
                Failure::new(Exit::Internal, error.to_string(), "report it; the file is as it was")
            }
        })?;
        if new == text {
            continue;
        }
        if !check {
            replace(path, &new)
                .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot write {name}: {e}"), ""))?;
        }
        changed.push(name);
    }
    let verb = if check { "would change" } else { "changed" };
    print(&match output {
        Output::Human => changed.iter().map(|name| format!("{name}: {verb}\n")).collect(),
        Output::Json => json_text(&json!({ "changed": changed })),
    })?;
    Ok(if check && !changed.is_empty() { Exit::OtherLayout } else { Exit::Ok }.into())
}

/// Puts the new text in the file's place at once, with its owner and mode: the daemon may read it at any
/// time, and takes only what root owns.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let before = fs::metadata(&path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Not a name that the daemon takes for a policy.
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = fs::File::create_new(&beside)?;
    let written = (|| {
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        chown(&beside, Some(before.uid()), Some(before.gid()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    })();
    if written.is_err() {
        // The error that counts is the one above.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: AgentPolicy\napiVersion: enforcer/v1\nmetadata: { id: a, version: 1, owner: me, purpose: x }\nfiles:\n- { allow: [read], paths: [/a] }\n";

    #[test]
    fn a_file_is_replaced_with_its_mode_and_check_changes_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.yaml");
        fs::write(&path, TEXT).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode");
        let files = [path.clone()];
        let other: ExitCode = Exit::OtherLayout.into();
        let shown = |code: ExitCode| format!("{code:?}");
        assert_eq!(shown(format(&files, true, Output::Human).expect("check")), shown(other));
        assert_eq!(fs::read_to_string(&path).expect("read"), TEXT);
        format(&files, false, Output::Human).expect("format");
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.starts_with("apiVersion: enforcer/v1\nkind: AgentPolicy\n"), "{text}");
        assert_eq!(fs::metadata(&path).expect("meta").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
        assert_eq!(shown(format(&files, true, Output::Human).expect("check")), shown(Exit::Ok.into()));
    }
}
