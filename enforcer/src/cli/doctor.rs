//! `enforcer doctor`: what keeps this host from enforcing, and how to mend it.

use super::{Failure, Output, exit::Exit, json_text, print, printable};
use crate::{
    control::message::State,
    doctor::{self, Level, Report},
    settings::Settings,
};
use std::process::ExitCode;

/// Prints the findings; the exit code is the state, or with `host` whether this host can enforce.
pub(super) fn run(
    settings: Result<Settings, Failure>,
    host: bool,
    output: Output,
) -> Result<ExitCode, Failure> {
    let report = doctor::judge(&doctor::gather(settings.map_err(|failure| failure.message)));
    print(&match output {
        Output::Json => json_text(&report),
        Output::Human => text(&report),
    })?;
    Ok(match report.state {
        _ if host && report.host_can_enforce => Exit::Ok,
        _ if host => Exit::Kernel,
        State::Enforcing => Exit::Ok,
        State::Degraded => Exit::Degraded,
        State::NotEnforcing => Exit::NotEnforcing,
    }
    .into())
}

fn text(report: &Report) -> String {
    let can = if report.host_can_enforce { "this host can enforce" } else { "this host cannot enforce" };
    let mut out = format!("{}\n  {can}\n", report.state.word());
    for finding in &report.findings {
        let mark = match finding.level {
            Level::Good => "ok",
            Level::Note => "note",
            Level::Unknown => "unknown",
            Level::Problem => "problem",
            Level::Fatal => "FATAL",
        };
        out += &format!("{mark:>9}  {:<9} {}\n", finding.check, printable(&finding.says));
        if !finding.remedy.is_empty() {
            out += &format!("{:>21} {}\n", "->", printable(&finding.remedy));
        }
    }
    out
}
