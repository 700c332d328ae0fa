//! Records of the kernel's rings: bytes in, values out. No clock, no I/O.

mod call;
mod context;
pub mod decode;
pub mod flat;
pub mod json;
pub mod kinds;
mod names;
pub mod text;
pub mod why;
