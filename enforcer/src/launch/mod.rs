//! Starting a command as an agent: who may, as whom, in what surroundings, and the step into the session.

pub mod authorize;
pub mod cgroup;
pub mod environment;
pub mod helper;
pub mod identity;
pub mod layers;
pub mod report;
pub mod scope;
pub mod session;
mod spawn;
pub mod spec;
mod stdio;
