//! The control socket: length-prefixed JSON frames, descriptors beside them, and who may ask for what.

pub mod agent;
pub mod agent_server;
pub mod approvals;
pub mod break_glass;
pub mod client;
mod closing;
pub mod connection;
pub mod fds;
pub mod frame;
pub mod message;
pub mod peer;
pub mod server;
pub mod trust;
