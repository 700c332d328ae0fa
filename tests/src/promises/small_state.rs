//! A daemon whose state lies on a small file system, which can be filled.

use crate::{
    command::{Command, Ran, systemctl, wait_for},
    ensure,
    harness::Outcome,
};
use serde_json::Value;
use std::fs;

const SETTINGS: &str = "/etc/enforcer/enforcer.toml";
pub(super) const STATE: &str = "/var/lib/enforcer";

/// The daemon with its state on a small file system of its own, until this goes.
pub(super) struct SmallState {
    settings: String,
}

impl SmallState {
    /// With 8 MiB, and this in the settings for a log that cannot be written.
    pub(super) fn begin(on_failure: &str) -> Outcome<Self> {
        Self::with("8m", &[("on_failure", &format!("\"{on_failure}\""))])
    }

    /// With a file system of this size, and these values in the settings.
    pub(super) fn with(size: &str, values: &[(&str, &str)]) -> Outcome<Self> {
        let settings = fs::read_to_string(SETTINGS)?;
        let small = Self { settings };
        systemctl("stop enforcer.service")?;
        let options = format!("size={size},mode=700");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", STATE]).run()?;
        ensure!(ran.code == Some(0), "{ran}");
        let mut lines: Vec<String> = small.settings.lines().map(str::to_owned).collect();
        for (key, value) in values {
            let begins = format!("{key} =");
            let line = lines.iter_mut().find(|line| line.starts_with(&begins));
            *line.ok_or_else(|| format!("{SETTINGS} says nothing about {key}"))? =
                format!("{begins} {value}");
        }
        fs::write(SETTINGS, lines.join("\n") + "\n")?;
        systemctl("start enforcer.service")?;
        Ok(small)
    }

    /// The daemon is back with the state that it had before.
    pub(super) fn end(self) -> Outcome {
        drop(self);
        let answers = || enforcer(&["status"]).ok().filter(|ran| matches!(ran.code, Some(0 | 1))).map(drop);
        Ok(wait_for("the daemon with its own state", 120, answers)?)
    }
}

impl Drop for SmallState {
    fn drop(&mut self) {
        let _ = systemctl("stop enforcer.service");
        let _ = fs::write(SETTINGS, &self.settings);
        let _ = Command::new("umount").args([STATE]).run();
        let _ = systemctl("reset-failed enforcer.service");
        let _ = systemctl("start enforcer.service");
    }
}

pub(super) fn enforcer(words: &[&str]) -> Outcome<Ran> {
    Ok(Command::new("enforcer").args(words).patience(300).run()?)
}

pub(super) fn frozen(cgroup: &str) -> Option<bool> {
    Some(fs::read_to_string(format!("{cgroup}/cgroup.events")).ok()?.lines().any(|line| line == "frozen 1"))
}

/// Takes what room is left where the state lies.
pub(super) fn fill() -> Outcome {
    let filler = format!("of={STATE}/filler");
    let ran =
        Command::new("dd").args(["if=/dev/zero", &filler, "bs=4k", "oflag=append", "conv=notrunc"]).run()?;
    ensure!(ran.code != Some(0), "the disk is not full: {ran}");
    Ok(())
}

/// The record of this kind in the signed log: the live copy has half a line where the disk became full.
pub(super) fn signed(kind: &str) -> Outcome<Value> {
    let words = ["audit", "search", "--kind", kind, "--output", "json"];
    Ok(wait_for(kind, 120, || {
        let ran = Command::new("enforcer").args(words).run().ok()?;
        serde_json::from_str(ran.out.lines().next()?).ok()
    })?)
}
