//! How far an agent is trusted: the table of levels and tiers, statements that change an agent's level, and the
//! book of the last ones.
//!
//! The level in force is the lower of the policy's ceiling and the last statement; without a statement it is
//! probation. Decisions are pure; [`change`] says in which order they take effect.

pub mod book;
pub mod change;
pub mod statement;
pub mod store;
pub mod table;

#[cfg(test)]
mod tests;
