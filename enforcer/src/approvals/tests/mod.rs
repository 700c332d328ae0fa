//! The queue, its driver and a world in memory: what may never happen, whatever happens.

mod forgery;
mod promises;
mod world;
