//! Sinks as a whole, against real ends: what is in the log arrives, in order, whatever dies between.

mod http;
mod otlp;
mod rsyslog;
mod witness;
mod world;
