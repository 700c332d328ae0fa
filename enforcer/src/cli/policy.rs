//! `enforcer policy`.

use super::{Failure, Output, exit::Exit, json_text, print};
use crate::{
    control::client::Client,
    daemon::policies::is_policy,
    policy::{self, PolicyErrors, Relation, Trust, ValidPolicy},
    settings::Settings,
};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    fs,
    io::IsTerminal,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What a file turned out to be.
pub(super) enum Checked {
    Good(Box<ValidPolicy>),
    Bad(PolicyErrors),
    Uncompilable(String),
    Unreadable(String),
}

pub(super) fn read(path: &Path) -> Checked {
    let name = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => return Checked::Unreadable(format!("{name}: {e}")),
    };
    match policy::parse(&name, &text) {
        Err(errors) => Checked::Bad(errors),
        Ok(policy) => match policy::compile(&policy) {
            Err(error) => Checked::Uncompilable(format!("{name}: {error}")),
            Ok(_) => Checked::Good(Box::new(policy)),
        },
    }
}

/// The policy in a file, or what is wrong with that as an error.
pub(super) fn good(path: &Path) -> Result<ValidPolicy, Failure> {
    match read(path) {
        Checked::Good(policy) => Ok(*policy),
        Checked::Bad(errors) => Err(Failure::new(Exit::BadPolicy, errors.render(false), "")),
        Checked::Uncompilable(error) => Err(Failure::new(Exit::BadPolicy, error, "")),
        Checked::Unreadable(error) => Err(Failure::new(Exit::NoInput, error, "")),
    }
}

/// Files by their names, and what is wrong with all of them together.
pub(super) fn check_all(files: &[PathBuf]) -> (Vec<(String, Checked)>, Vec<String>) {
    let checked: Vec<(String, Checked)> =
        files.iter().map(|path| (path.display().to_string(), read(path))).collect();
    let together = together(&checked);
    (checked, together)
}

/// Prints what was found.
pub(super) fn report(
    checked: &[(String, Checked)],
    together: &[String],
    output: Output,
) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => json_text(&as_json(checked, together)),
        Output::Human => as_text(checked, together),
    })
}

/// Checks files, each by itself and all together.
pub(super) fn check(files: &[PathBuf], output: Output) -> Result<ExitCode, Failure> {
    let (checked, together) = check_all(files);
    report(&checked, &together, output)?;
    let unreadable = checked.iter().any(|(_, c)| matches!(c, Checked::Unreadable(_)));
    let bad = checked.iter().any(|(_, c)| matches!(c, Checked::Bad(_) | Checked::Uncompilable(_)));
    Ok(match (bad || !together.is_empty(), unreadable) {
        (true, _) => Exit::BadPolicy,
        (false, true) => Exit::NoInput,
        (false, false) => Exit::Ok,
    }
    .into())
}

/// What is wrong with the good ones together: agents that occur twice, cgroups that two agents claim.
fn together(checked: &[(String, Checked)]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut good: Vec<(&str, &ValidPolicy)> = Vec::new();
    for (name, checked) in checked {
        let Checked::Good(policy) = checked else { continue };
        match good.iter().find(|(_, other)| other.id() == policy.id()) {
            Some((first, _)) => {
                problems.push(format!("{name}: agent {} already has the policy {first}", policy.id()));
            }
            None => good.push((name, policy)),
        }
    }
    let agents: Vec<policy::AgentMatch<'_>> =
        good.iter().zip(0..).map(|((_, policy), index)| (index, policy.id(), policy.cgroups())).collect();
    problems.extend(policy::matcher(&agents).err().map(|error| error.to_string()));
    problems
}

fn as_text(checked: &[(String, Checked)], together: &[String]) -> String {
    let colour = std::io::stdout().is_terminal();
    let mut out = String::new();
    for (name, checked) in checked {
        match checked {
            Checked::Good(policy) => {
                for warning in policy.warnings() {
                    out += &format!("{}\n", super::printable(&warning.to_string()));
                }
                let (id, version, rules) = (policy.id(), policy.version(), policy.rules().len());
                let tests = policy.tests().len();
                let name = super::printable(name);
                out += &format!("{name}: ok: {id} version {version}, {rules} rules, {tests} tests passed\n");
            }
            Checked::Bad(errors) => out += &errors.render(colour),
            Checked::Uncompilable(error) | Checked::Unreadable(error) => {
                out += &format!("error: {}\n", super::printable(error));
            }
        }
    }
    together.iter().for_each(|problem| out += &format!("error: {problem}\n"));
    out
}

fn as_json(checked: &[(String, Checked)], together: &[String]) -> Value {
    let file = |(name, checked): &(String, Checked)| match checked {
        Checked::Good(policy) => json!({
            "file": name, "ok": true, "agent": policy.id(), "version": policy.version(),
            "digest": crate::event::text::hex(&policy.digest()), "warnings": policy.warnings(),
        }),
        Checked::Bad(errors) => json!({"file": name, "ok": false, "problems": errors.problems()}),
        Checked::Uncompilable(error) | Checked::Unreadable(error) => {
            json!({"file": name, "ok": false, "problems": [{"message": error}]})
        }
    };
    let ok = together.is_empty() && checked.iter().all(|(_, c)| matches!(c, Checked::Good(_)));
    json!({"ok": ok, "files": checked.iter().map(file).collect::<Vec<_>>(), "problems": together})
}

/// Answers what a policy says about an operation.
pub(super) fn explain(
    settings: &Settings,
    named: &OsStr,
    operation: &str,
    object: &str,
    run: &super::RunArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let policy = find(settings, named)?;
    let arguments: Vec<Vec<u8>> = run.arguments.iter().map(|one| one.as_bytes().to_vec()).collect();
    let wrong = |what: &str| Failure::new(Exit::Usage, what.to_owned(), "");
    let content = match run.sha256.as_deref().map(policy::digest) {
        Some(None) => return Err(wrong("--sha256 takes 64 hexadecimal digits, as sha256sum prints them")),
        digest => digest.flatten(),
    };
    let parent = match run.parent.as_deref().map(policy::path_bytes) {
        Some(Err(why)) => return Err(wrong(&format!("--parent: {why}"))),
        path => path.transpose().unwrap_or_default(),
    };
    let run = policy::Run { arguments: &arguments, content, parent: parent.as_deref() };
    let tiers_of = |level| settings.trust.tiers(level);
    let at = |level| {
        policy::explain_with(&policy, operation, object, &run, level, &tiers_of)
            .map_err(|e| Failure::new(Exit::Usage, e.to_string(), ""))
    };
    let explanation = at(None)?;
    // The ceiling is the policy's own; only the daemon knows how far the agent is trusted.
    let now = level_in_force(settings, policy.id()).map(|level| at(Some(level))).transpose()?;
    print(&match output {
        Output::Human => {
            let mut out = explanation.to_string();
            match &now {
                None => {}
                Some(now) if now.trust == explanation.trust => {
                    out += &format!("trust: {} is the ceiling and in force\n", now.trust);
                }
                Some(now) => {
                    out += &format!("trust: {} is the ceiling; in force: {now}", explanation.trust);
                }
            }
            out
        }
        Output::Json => {
            let mut out = serde_json::to_value(&explanation).unwrap_or_default();
            out["in_force"] = serde_json::to_value(&now).unwrap_or_default();
            json_text(&out)
        }
    })
}

/// The level of an agent, if there is a daemon that says it.
fn level_in_force(settings: &Settings, agent: &str) -> Option<Trust> {
    let agents = super::trust::fetch(&mut Client::connect(&settings.paths.socket).ok()?).ok()?;
    agents.iter().find(|known| known.agent == agent).and_then(|known| Trust::named(&known.in_force))
}

/// Says how the authority of two policies differs.
pub(super) fn diff(
    settings: &Settings,
    before: &OsStr,
    after: &OsStr,
    trust: Option<Trust>,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (before, after) = (find(settings, before)?, find(settings, after)?);
    let diff = policy::diff(&before, &after, trust)
        .map_err(|e| Failure::new(Exit::BadPolicy, e.to_string(), e.remedy()))?;
    print(&match output {
        Output::Human => super::printable(&diff.to_string()) + "\n",
        Output::Json => json_text(&diff),
    })?;
    Ok(match diff.relation {
        Relation::Same => Exit::Ok,
        Relation::Less => Exit::LessAuthority,
        Relation::More => Exit::MoreAuthority,
        Relation::Both => Exit::OtherAuthority,
    }
    .into())
}

/// A level of trust by its name.
pub(super) fn trust_level(name: &str) -> Result<Trust, String> {
    let levels = [Trust::Probation, Trust::Supervised, Trust::Trusted, Trust::Autonomous];
    let found = levels.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| format!("write {}", levels.map(Trust::name).join(", ")))
}

/// The policy in a file, or of an agent.
pub(super) fn find(settings: &Settings, named: &OsStr) -> Result<ValidPolicy, Failure> {
    let path = Path::new(named);
    let is_file = path.components().count() > 1 || is_policy(path) || path.exists();
    if is_file {
        return good(path);
    }
    let directory = &settings.paths.policies;
    let entries = fs::read_dir(directory).map_err(|e| {
        Failure::new(Exit::NoInput, format!("cannot read {}: {e}", directory.display()), "name a policy file")
    })?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_policy(p)).collect();
    paths.sort();
    let found = paths.iter().find_map(|path| match read(path) {
        Checked::Good(policy) if named == policy.id() => Some(*policy),
        _ => None,
    });
    found.ok_or_else(|| {
        let shown = crate::event::text::escape(named.as_encoded_bytes());
        let message = format!("no valid policy in {} is for an agent {shown}", directory.display());
        Failure::new(Exit::Usage, message, "name a policy file, or see enforcer agents")
    })
}

/// Prints the JSON Schema.
pub(super) fn schema() -> Result<ExitCode, Failure> {
    print(&schema_text())
}

/// The JSON Schema of policies.
pub(super) fn schema_text() -> String {
    json_text(&policy::schema())
}
