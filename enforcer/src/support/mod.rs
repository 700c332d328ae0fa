//! What helps others to help: one archive with how this host and its Enforcer stand, without secrets. What goes in is
//! gathered item by item, cleaned of everything that is known to be secret, listed, and packed; the same facts make
//! the same archive.

mod bundle;
mod facts;
mod redact;

pub use bundle::{Bundle, Item};
pub use facts::{Gather, gather};
pub use redact::{Secrets, settings};
