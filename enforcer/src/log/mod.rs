//! The signed log of everything that happened: a Merkle tree in tiles (C2SP tlog-tiles) under checkpoints
//! (C2SP tlog-checkpoint) that an Ed25519 key signs. Records flow leaf → bundle and tree → files →
//! checkpoint; verification goes the other way and trusts nothing but a public key.
//!
//! Pure: `tree`, `tile`, `leaf`, `note`, `witness`. Files: the rest.

pub mod error;
pub mod export;
mod files;
mod journal;
pub mod key;
pub mod leaf;
pub mod note;
pub mod reader;
pub mod recover;
pub mod retention;
pub mod segments;
pub mod store;
pub mod tile;
pub mod tree;
pub mod verify;
pub mod witness;
