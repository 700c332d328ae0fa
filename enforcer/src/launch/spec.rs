//! What the daemon tells the launch helper, and what the helper reports when it fails.

use super::layers::Layers;
use crate::control::message::Bytes;
use serde::{Deserialize, Serialize};

/// Everything that the helper needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// `cgroup.procs` of the session, which the helper enters by itself. Without it systemd moves the helper, which
    /// says when it is ready for that and waits to hear that it may go on.
    pub procs: Option<Bytes>,
    /// The command and its arguments.
    pub command: Vec<Bytes>,
    /// The whole environment.
    pub environment: Vec<(Bytes, Bytes)>,
    /// Where the command is looked up.
    pub path: String,
    /// The directory to start in.
    pub directory: Bytes,
    /// The directory is the home directory: `/` does where it cannot be entered.
    pub directory_is_home: bool,
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Standard input is a terminal, to become the controlling one.
    pub terminal: bool,
    /// What is put around it.
    pub layers: Layers,
}

/// How far the helper came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reading the order, descriptors, namespaces, limits.
    Prepare,
    /// The terminal.
    Terminal,
    /// Looking for the command.
    Find,
    /// Entering the session's cgroup.
    Enter,
    /// The layers around the session.
    Layers,
    /// Becoming the user.
    User,
    /// The directory to start in.
    Directory,
    /// Executing the command.
    Execute,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How far the helper came.
    pub stage: Stage,
    /// The thing that it happened to.
    pub what: Bytes,
    /// The error number.
    pub errno: i32,
}

impl Trouble {
    /// Whether the command was refused in the way in which policies refuse, and others may.
    pub fn is_refused_execution(&self) -> bool {
        self.stage == Stage::Execute && self.errno == libc::EPERM
    }
}
