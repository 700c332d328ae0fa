//! The audit log's way out of the host. The signed log is the queue: each sink has a thread that reads
//! what is under a checkpoint from where its cursor stands and delivers it in order, at least once; what was written
//! a moment ago is in memory still (`fresh`), the rest is read from the disk. A
//! receiver that is gone costs disk, and nothing else ever waits for it.
//!
//! queue → item → format (`native` or `ocsf`) → receiver → cursor. Pure: `item`, `ocsf`, `retry`, `settings`.

mod cursor;
mod error;
mod fresh;
mod item;
mod ocsf;
mod queue;
mod receiver;
mod retry;
pub mod settings;
mod wake;
mod worker;

pub use cursor::{Cursor, Position};
pub use error::SinkError;
pub use fresh::Fresh;
pub use item::Item;
pub(crate) use item::Making;
pub use queue::Queue;
pub(crate) use receiver::Web;
pub use wake::Wake;
pub use worker::{Passed, Sinks};

use serde::{Deserialize, Serialize};

/// How a sink does, for `status` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name in the settings.
    pub name: String,
    /// `file`, `syslog`, `http`, `otlp` or `journald`.
    pub target: String,
    /// Signed records that it has not delivered yet.
    pub lag: u64,
    /// Records that it has delivered since the daemon started; repeated deliveries count again.
    pub delivered: u64,
    /// Deliveries that failed since the daemon started.
    pub failures: u64,
    /// Why the last delivery failed, while none has succeeded since.
    pub error: Option<String>,
}
