//! Records of the kernel's rings: bytes in, values out. No clock, no I/O.

pub mod decode;
pub mod json;
pub mod text;
pub mod why;
