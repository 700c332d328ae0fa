//! A person decides: requests, statements, who may decide, and the queue between them and the kernel.
//!
//! Decisions are pure: time and what was read come in, actions go out. [`drive`] is the one place that says in
//! which order actions take effect.

pub mod ancestry;
pub mod approver;
pub mod armor;
pub mod canonical;
pub mod directory;
pub mod drive;
pub mod error;
pub mod hold;
pub mod queue;
pub mod request;
pub(crate) mod sealed;
pub mod shape;
pub mod signature;
pub mod statement;
pub mod store;
pub mod webhook;
pub mod words;

#[cfg(test)]
pub(crate) mod tests;
