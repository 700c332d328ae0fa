//! What keeps a host from enforcing, before and after the installation: facts are gathered, judged by a pure
//! function, and each finding says how to mend it on this distribution.

mod facts;
mod judge;
mod layers;
mod remedy;

pub use facts::{DaemonFact, Facts, KeyFact, gather, missing_links, needed, pinned_links};
pub use judge::{Finding, Level, Report, judge};
pub use layers::LayerFacts;
pub use remedy::{Family, family};
