//! The ends that records go to. Each may block, within its time limits: its sink has a thread of its own.

mod file;
mod http;
mod journald;
mod otlp;
mod otlp_proto;
mod syslog;
mod tls;
mod web;

pub(crate) use web::Web;

use super::{
    error::SinkError,
    item::Item,
    settings::{Format, Target},
};
use std::time::Duration;

/// An item with its text.
pub(super) struct Message {
    /// The item.
    pub(super) item: Item,
    /// It as one JSON object, in the sink's format, where that is not the item's own text.
    json: Option<String>,
}

impl Message {
    pub(super) fn new(item: Item, format: Format) -> Self {
        let json = match format {
            Format::Native if item.ready().is_some() => None,
            Format::Native => Some(item.json()),
            Format::Ocsf => Some(super::ocsf::event(&item).to_string()),
        };
        Self { json, item }
    }

    /// It as one JSON object, in the sink's format.
    pub(super) fn json(&self) -> &str {
        self.json.as_deref().or(self.item.ready()).unwrap_or_default()
    }
}

/// Something that takes messages.
pub(super) trait Receiver: Send {
    /// Delivers all of them in order, or says why not; then any of them may have been delivered.
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError>;

    /// How long what was delivered may still turn out to be lost: where the other side does not confirm, it
    /// is sent again if the connection breaks within this time.
    fn doubt(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the other side is still there, as far as that can be told without sending.
    fn check(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Ends in order. If this succeeds, everything that was delivered has arrived.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The receiver of a target. Nothing is connected or opened yet.
pub(super) fn of(target: Target) -> Box<dyn Receiver> {
    match target {
        Target::File(settings) => Box::new(file::Lines::new(settings)),
        Target::Syslog(settings) => Box::new(syslog::Syslog::new(settings)),
        Target::Http(settings) => Box::new(http::Http::new(settings)),
        Target::Otlp(settings) => Box::new(otlp::Otlp::new(settings)),
        Target::Journald(settings) => Box::new(journald::Journald::new(settings)),
    }
}
