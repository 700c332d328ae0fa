//! `enforcer break-glass`: what policies refuse goes on for a while, recorded.

use super::{Failure, Output, json_text, print, printable, unexpected};
use crate::control::{
    break_glass::BreakGlassStatus,
    client::Client,
    message::{Reply, Request},
};
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// `enforcer break-glass …`.
#[derive(Debug, Subcommand)]
pub(super) enum BreakGlassCommand {
    /// Begin: what the policies of these agents refuse goes on and is recorded. Only for root at a terminal, outside
    /// every agent; it ends by itself.
    Start {
        /// An agent; can be given several times.
        #[arg(long = "agent", value_name = "ID", required_unless_present = "all")]
        agents: Vec<String>,
        /// All agents that have a policy now.
        #[arg(long, conflicts_with = "agents")]
        all: bool,
        /// For how long: 90s, 15m, 1h; at most what the settings say.
        #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = seconds)]
        time: u64,
        /// Why; goes into the audit log and into the alert.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End it before its time.
    Stop {
        /// Its id [default: all that are in force].
        id: Option<String>,
    },
    /// Say what is in force.
    Status,
}

/// Runs the command; `connect` reaches the daemon.
pub(super) fn run(
    command: &BreakGlassCommand,
    output: Output,
    connect: &dyn Fn() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let request = match command {
        BreakGlassCommand::Start { agents, all: _, time, reason } => {
            Request::BreakGlass { agents: agents.clone(), seconds: *time, reason: reason.clone() }
        }
        BreakGlassCommand::Stop { id } => Request::EndBreakGlass { id: id.clone() },
        BreakGlassCommand::Status => Request::Status,
    };
    let in_force = match connect()?.ask(&request)? {
        Reply::BreakGlass { in_force } => in_force,
        Reply::Status(status) => status.break_glass,
        other => return Err(unexpected(&other)),
    };
    print(&match output {
        Output::Json => json_text(&json!({"break_glass": in_force})),
        Output::Human => text(&in_force),
    })
}

fn text(in_force: &[BreakGlassStatus]) -> String {
    if in_force.is_empty() {
        return "break-glass is not in force\n".to_owned();
    }
    let line = |text: &str| printable(text).replace('\n', " ");
    let mut out = String::new();
    for BreakGlassStatus { id, agents, reason, until, seconds_left } in in_force {
        out += &format!("BREAK-GLASS {}, {seconds_left} s left, until {}\n", line(id), line(until));
        out += &format!("  agents: {}\n  because: {}\n", line(&agents.join(" ")), line(reason));
    }
    out + "What the policies of these agents refuse goes on and is recorded.\n"
}

/// A time in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a time like 90s, 15m or 1h".to_owned();
    let (number, factor) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => (number, 1),
        Some((number, "m")) => (number, 60),
        Some((number, "h")) => (number, 3600),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_are_not_nothing() {
        assert_eq!((seconds("90s"), seconds("15m"), seconds("1h")), (Ok(90), Ok(900), Ok(3600)));
        for wrong in
            ["", "15", "m", "0s", "-1m", "1d", "99999999999999999999h", "18446744073709551615h", "5é"]
        {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_in_a_reason_reaches_the_terminal_as_it_is() {
        let one = BreakGlassStatus {
            id: "1f".to_owned(),
            agents: vec!["a".to_owned()],
            reason: "\x1b[2J\nfine".to_owned(),
            until: "now".to_owned(),
            seconds_left: 9,
        };
        let text = text(&[one]);
        assert!(text.contains("because: ?[2J fine\n") && text.contains("9 s left"), "{text}");
    }
}
