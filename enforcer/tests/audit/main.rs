//! The signed log as a whole: what is written verifies, what is changed is found, and no death of the
//! writer breaks it. The long versions of these tests run with
//! `cargo test --release --package enforcer --test audit -- --ignored`.

mod crashes;
mod exports;
mod mutations;
mod other;
mod retention;
mod world;
