//! What runs inside the guests: acts ([`probe`]), the machinery of the suite, the promises that it checks on a
//! running kernel, and the [`attacks`] on them.

pub mod agent;
pub mod approvals;
pub mod attacks;
pub mod command;
pub mod events;
pub mod harness;
pub mod passing;
pub mod peer;
pub mod policy;
pub mod probe;
pub mod program;
pub mod promise;
pub mod promises;
pub mod semantics;
pub mod terminal;
