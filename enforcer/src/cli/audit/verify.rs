//! `enforcer audit verify`.

use super::{Failure, Output, VerifyArgs, read_file};
use crate::{
    audit,
    cli::{exit::Exit, json_text, print},
    event::text::{hex, rfc3339},
    log::{
        export,
        note::{Checkpoint, PublicKey},
        retention::Claim,
        verify::{self, Demands, Finding, Verified},
        witness::{self, Cosignature, WITNESSED, WitnessKey},
    },
    settings::Settings,
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

type SettingsOf<'a> = &'a dyn Fn() -> Result<Settings, Failure>;

/// Verifies what is asked for; the first thing that is wrong is the error.
pub(super) fn run(args: &VerifyArgs, output: Output, settings: SettingsOf<'_>) -> Result<ExitCode, Failure> {
    let (keys, own_key) = keys(args, settings)?;
    let kept = args.checkpoint.as_deref().map(read_file).transpose()?;
    let parsed = args.witness.iter().map(|key| WitnessKey::parse(key));
    let witnesses: Vec<WitnessKey> =
        parsed.collect::<Result<_, _>>().map_err(|e| Failure::new(Exit::Usage, e.to_string(), ""))?;
    let demands = Demands { keys, kept, redacted: args.redacted };
    let (mut text, mut values) = (String::new(), Vec::new());
    if let Some(path) = &args.export {
        if !witnesses.is_empty() && demands.kept.is_none() {
            let remedy = "with --checkpoint; an export has none";
            return Err(Failure::new(Exit::Usage, "name the checkpoint that witnesses have signed", remedy));
        }
        let cosignatures = witnessed(path, &demands, &witnesses, args.witnesses_wanted)?;
        let export = export::verify(&mut *input(path)?, &demands).map_err(|e| found(path, &e))?;
        let what = if export.complete {
            complete(&export.verified)
        } else {
            format!(
                "{}: each of the {} records is in the log of {} records; whether others are missing \
                 cannot be told from a selection",
                export.verified.origin, export.records, export.verified.size
            )
        };
        text += &(what + "\n" + &more(&export.verified));
        let mut value = value(&export.verified);
        value["records"] = export.records.into();
        value["complete"] = export.complete.into();
        let names = cosignatures.into_iter().flat_map(|(_, all)| all).map(|one| one.witness);
        value["witnesses"] = names.collect();
        values.push(value);
    } else {
        for (log, demands) in of_logs(args.place.all(settings)?, demands)? {
            let witnessed = witnessed(&log, &demands, &witnesses, args.witnesses_wanted)?;
            let demands = match &witnessed {
                // What witnesses have signed must be in the log, like anything else that was kept.
                Some((note, _)) if demands.kept.is_none() => Demands { kept: Some(note.clone()), ..demands },
                _ => demands,
            };
            let verified = verify::directory(&log, &demands).map_err(|e| found(&log, &e))?;
            text += &(complete(&verified) + "\n" + &more(&verified));
            let mut value = value(&verified);
            let cosignatures = witnessed.map(|(_, all)| all).unwrap_or_default();
            for one in &cosignatures {
                let time = rfc3339(i128::from(one.time) * 1_000_000_000);
                text += &format!("  that checkpoint was signed by the witness {} at {time}\n", one.witness);
            }
            let shown = cosignatures.iter().map(|one| json!({"witness": one.witness, "time": one.time}));
            value["witnesses"] = shown.collect();
            values.push(value);
        }
    }
    if own_key {
        text += "The public key came from the directory of the log itself: whoever controls the host could \
                 have replaced both. Give the key that you noted with --key.\n";
    }
    print(&match output {
        Output::Human => text,
        Output::Json => json_text(&json!({"verified": values, "key_from_log": own_key})),
    })
}

/// The checkpoint that witnesses have signed, and those that have: the one that was kept, else the one beside the log.
type Witnessed = Option<(Vec<u8>, Vec<Cosignature>)>;

fn witnessed(
    log: &Path,
    demands: &Demands,
    witnesses: &[WitnessKey],
    wanted: usize,
) -> Result<Witnessed, Failure> {
    if witnesses.is_empty() {
        return Ok(None);
    }
    let path = log.join(WITNESSED);
    let note = match &demands.kept {
        Some(kept) => kept.clone(),
        None => std::fs::read(&path).map_err(|e| {
            let message = format!("no checkpoint that witnesses have signed: {}: {e}", path.display());
            Failure::new(Exit::NotVerified, message, "name one that was kept with --checkpoint")
        })?,
    };
    let all = witness::check(&note, witnesses, wanted).map_err(|e| {
        let remedy = "keep both as evidence; ask the witnesses what they have signed";
        Failure::new(Exit::NotVerified, format!("{}: {e}", log.display()), remedy)
    })?;
    Ok(Some((note, all)))
}

/// Each log with what must hold for it: a kept checkpoint is one of a single log.
fn of_logs(logs: Vec<PathBuf>, demands: Demands) -> Result<Vec<(PathBuf, Demands)>, Failure> {
    let kept = demands.kept.as_deref().map(Checkpoint::unverified).transpose();
    let kept = kept.map_err(|e| Failure::new(Exit::NotVerified, format!("the kept checkpoint: {e}"), ""))?;
    let origin_of = |log: &Path| {
        let bytes = std::fs::read(log.join(crate::log::store::CHECKPOINT)).ok()?;
        Checkpoint::unverified(&bytes).ok().map(|c| c.origin)
    };
    let single = logs.len() == 1;
    let mut asked = single || kept.is_none();
    let mut all = Vec::new();
    for log in logs {
        let mut demands = demands.clone();
        if let (false, Some(kept)) = (single, &kept) {
            let same = origin_of(&log).as_ref() == Some(&kept.origin);
            asked |= same;
            demands.kept = demands.kept.filter(|_| same);
        }
        all.push((log, demands));
    }
    match (asked, kept) {
        (false, Some(kept)) => {
            let message = format!("there is no log {}, of which the kept checkpoint is", kept.origin);
            Err(Failure::new(Exit::NotVerified, message, ""))
        }
        _ => Ok(all),
    }
}

/// The trusted keys, and whether they are only what the log's own host says.
fn keys(args: &VerifyArgs, settings: SettingsOf<'_>) -> Result<(Vec<PublicKey>, bool), Failure> {
    let parse = |text: &str| {
        PublicKey::parse(text).map_err(|e| {
            Failure::new(Exit::Usage, e.to_string(), "the key is in audit/key.pub of the log's host")
        })
    };
    if args.key.is_empty() {
        let path = audit::public_key(&settings()?.paths.state);
        let text = String::from_utf8_lossy(&read_file(&path)?).into_owned();
        return Ok((text.lines().map(parse).collect::<Result<_, _>>()?, true));
    }
    let mut keys = Vec::new();
    for key in &args.key {
        // A key has two plus signs; a file of that name is still a file.
        if Path::new(key).exists() || key.matches('+').count() < 2 {
            let text = String::from_utf8_lossy(&read_file(Path::new(key))?).into_owned();
            keys.extend(text.lines().map(parse).collect::<Result<Vec<_>, _>>()?);
        } else {
            keys.push(parse(key)?);
        }
    }
    Ok((keys, false))
}

fn input(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path)
        .map_err(|e| Failure::new(Exit::NoInput, format!("cannot read {}: {e}", path.display()), ""))?;
    Ok(Box::new(BufReader::new(file)))
}

fn found(path: &Path, finding: &Finding) -> Failure {
    let remedy = match finding {
        Finding::Log(error) => return Failure { exit: Exit::NotVerified, ..super::failure(error) },
        Finding::Checkpoint { .. } => "is it the right key? If so, the checkpoint was changed",
        Finding::Record { .. } | Finding::File { .. } => "keep the log as evidence; compare it with copies",
        Finding::Kept(_) => "keep both as evidence: the log was cut or rewritten since, or is another one",
    };
    Failure::new(Exit::NotVerified, format!("{}: {finding}", path.display()), remedy)
}

fn complete(verified: &Verified) -> String {
    let Verified { origin, size, .. } = verified;
    match size {
        0 => format!("{origin}: no records; later unknown"),
        size => {
            let from = verified.removed.as_ref().map(|claim| format!("from record {} ", claim.to));
            let (from, last) = (from.unwrap_or_default(), size - 1);
            format!("{origin}: complete {from}to record {last} ({size} records); later unknown")
        }
    }
}

fn more(verified: &Verified) -> String {
    let mut text = String::new();
    if let Some(Claim { to, time, because, .. }) = &verified.removed {
        let last = to - 1;
        text +=
            &format!("  records 0..{last} removed by retention on {time}, signed; because of {because}\n");
    }
    if let Some(kept) = verified.kept {
        text += &format!("  contains the kept checkpoint of {kept} records\n");
    }
    for key in &verified.handovers {
        text += &format!("  handed over to the key {}\n", key.text());
    }
    if verified.withheld > 0 {
        text += &format!("  {} values are withheld\n", verified.withheld);
    }
    if verified.uncommitted > 0 {
        text += &format!("  {} files beyond the checkpoint, not signed yet\n", verified.uncommitted);
    }
    text
}

fn value(verified: &Verified) -> Value {
    let Verified { origin, size, root, kept, handovers, withheld, uncommitted, removed } = verified;
    let removed = removed.as_ref().map(
        |Claim { to, root, time, because }| json!({"to": to, "root": root, "time": time, "because": because}),
    );
    json!({
        "removed": removed,
        "origin": origin, "size": size, "root": hex(root), "kept": kept, "withheld": withheld,
        "handovers": handovers.iter().map(PublicKey::text).collect::<Vec<_>>(), "uncommitted": uncommitted,
    })
}
