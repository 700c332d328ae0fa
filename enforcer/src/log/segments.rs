//! The logs of a host, `0001`, `0002`, …: one that is damaged is left as it is and the next one begun.

use super::{
    error::LogError,
    key::{KeyPlaces, Keys},
    note::{self, Checkpoint},
    recover::{self, Recovered},
    store::{CHECKPOINT, Store},
};
use serde_json::{Value, json};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// What to do when the last log is not what was signed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnDamage {
    /// Leave it as it is and begin a new one, which says so in its first record.
    #[default]
    NewLog,
    /// Do not start.
    Refuse,
}

/// A log that is ready, and what must be recorded in it first.
pub struct Ready {
    /// The log.
    pub store: Store,
    /// The keys, whose `previous` signs along until the records below are committed.
    pub keys: Keys,
    /// Kind and fields of records about what happened before.
    pub notes: Vec<(&'static str, Value)>,
}

/// Opens the last log in `directory`, or makes the first one under the name `name`.
pub fn open(
    directory: &Path,
    places: &KeyPlaces,
    name: &str,
    on_damage: OnDamage,
) -> Result<Ready, LogError> {
    let keys = places.load(name)?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|e| LogError::io("make", directory, e))?;
    let mut notes = Vec::new();
    if keys.fresh {
        notes.push(("key-made", json!({"public": keys.current.public().text()})));
    }
    let last = list(directory)?.pop();
    let store = match &last {
        None => create(directory, 1, &keys)?,
        Some((number, path)) => match recover::open(path, &keys) {
            Ok(recovered) => continued(recovered, &keys, &mut notes)?,
            Err(error) if error.is_damage() && on_damage == OnDamage::NewLog => {
                tracing::error!("{error}; a new log is begun");
                notes.insert(0, ("log-begun", after(path, &error)));
                create(directory, number + 1, &keys)?
            }
            Err(error) => return Err(error),
        },
    };
    Ok(Ready { store, keys, notes })
}

/// The logs of a directory by their numbers.
pub fn list(directory: &Path) -> Result<Vec<(u32, PathBuf)>, LogError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(LogError::io("list", directory, e)),
    };
    let number = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let digits = name.len() >= 4 && name.bytes().all(|b| b.is_ascii_digit());
        Some((name.parse().ok().filter(|_| digits)?, path))
    };
    let mut all: Vec<_> = entries.flatten().filter_map(|entry| number(entry.path())).collect();
    all.sort();
    Ok(all)
}

fn create(directory: &Path, number: u32, keys: &Keys) -> Result<Store, LogError> {
    let name = format!("{number:04}");
    let origin = format!("{}/{name}", keys.current.public().name());
    recover::create(&directory.join(name), &origin, vec![keys.current.clone()])
}

fn continued(
    recovered: Recovered,
    keys: &Keys,
    notes: &mut Vec<(&'static str, Value)>,
) -> Result<Store, LogError> {
    let Recovered { mut store, adopted, dropped, hand_over } = recovered;
    if adopted > 0 || dropped > 0 {
        notes.push((
            "lost",
            json!({
                "agent": null, "records": dropped, "adopted": adopted,
                "because": "the daemon ended before its last records were signed; `adopted` of them were \
                            whole, at least `records` were not",
            }),
        ));
    }
    if let (true, Some(previous)) = (hand_over, &keys.previous) {
        let note = note::hand_over(previous, &keys.current).map_err(LogError::Sign)?;
        let public = keys.current.public().text();
        notes.push(("key-handover", json!({"note": note, "public": public})));
        store.set_signers(vec![previous.clone(), keys.current.clone()]);
    }
    Ok(store)
}

/// What a new log says about the damaged one before it.
fn after(path: &Path, error: &LogError) -> Value {
    let checkpoint = fs::read(path.join(CHECKPOINT)).ok();
    let known = checkpoint.as_deref().and_then(|bytes| Checkpoint::unverified(bytes).ok());
    json!({
        "because": error.to_string(),
        "previous": known.map(|c| json!({
            "origin": c.origin, "size": c.size, "root": crate::event::text::hex(&c.root),
        })),
        "checkpoint": checkpoint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    })
}
