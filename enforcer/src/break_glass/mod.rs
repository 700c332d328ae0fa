//! Break-glass: for a while a person on this host lifts what the policies of agents refuse. The kernel holds the
//! deadline and compares it with its own clock, so it ends whether or not a daemon runs; everything here is who may
//! begin it, what is recorded, and what is known about it.

pub mod book;
mod settings;
pub mod terminal;

pub use settings::BreakGlass;
