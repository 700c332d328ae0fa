//! The Enforcer.

pub mod approvals;
pub mod audit;
pub mod break_glass;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod event;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod launch;
pub mod links;
pub mod log;
pub mod policy;
pub mod settings;
#[cfg(test)]
mod settings_reference;
pub mod sink;
pub mod support;
pub mod trust;

// So that the fake kernel side serves unit tests and integration tests alike.
#[cfg(test)]
extern crate self as enforcer;
