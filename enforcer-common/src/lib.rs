//! What the kernel programs and the daemon must agree on, compiled for both: limits, map values,
//! ring records, the list of kernel structure offsets, and the verdict itself.
//!
//! Nothing here touches anything: no clock, no I/O, no allocation.
#![no_std]

pub mod access;
pub mod address;
pub mod calls;
pub mod event;
pub mod floor;
pub mod hold;
pub mod limits;
pub mod map;
pub mod offsets;
pub mod scratch;
pub mod verdict;

/// Version of everything in this crate that is visible in pinned maps or ring records.
///
/// A daemon that finds pins of another version refuses to adopt them instead of guessing.
pub const ABI_VERSION: u32 = 8;
