//! The queue, its driver and a world in memory: what may never happen, whatever happens.

mod forgery;
mod hardware;
pub(crate) mod mutation;
mod promises;
mod store;
mod world;
