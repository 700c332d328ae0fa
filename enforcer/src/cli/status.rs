//! `enforcer status`, `agents` and `reload`: answers of the daemon for people and programs.

use super::{Failure, Output, exit::Exit, json_text, print, printable};
use crate::{
    control::message::{AgentStatus, LayerStatus, State, Status},
    daemon::enforcement::{NETWORK_LAYER, SYSTEM_CALLS},
};
use serde_json::json;
use std::{io::IsTerminal, process::ExitCode};

/// Prints the status; the exit code is the state.
pub(super) fn print_status(status: &Status, output: Output) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => json_text(status),
        Output::Human => status_text(status, std::io::stdout().is_terminal()),
    })?;
    Ok(match status.state {
        State::Enforcing => Exit::Ok,
        State::Degraded => Exit::Degraded,
        State::NotEnforcing => Exit::NotEnforcing,
    }
    .into())
}

fn status_text(status: &Status, colour: bool) -> String {
    let paint = match (colour, status.state) {
        (false, _) => ("", ""),
        (true, State::Enforcing) => ("\x1b[1;32m", "\x1b[0m"),
        (true, State::Degraded) => ("\x1b[1;33m", "\x1b[0m"),
        (true, State::NotEnforcing) => ("\x1b[1;31m", "\x1b[0m"),
    };
    let attached = status.hooks.iter().filter(|hook| hook.attached).count();
    let mut out = format!("{}{}{}\n", paint.0, status.state.word(), paint.1);
    let mut line = |name: &str, value: &str| out += &format!("  {name:<9} {}\n", printable(value));
    line("daemon", &format!("{}, process {}", status.version, status.pid));
    line("kernel", &format!("{}, generation {}", status.kernel, status.generation));
    line("hooks", &format!("{attached} of {} attached", status.hooks.len()));
    let layer = || status.hooks.iter().filter(|hook| hook.name.starts_with(NETWORK_LAYER));
    let on = layer().filter(|hook| hook.attached).count();
    line(
        "layers",
        &format!("LSM hooks; cgroup programs on the network of {on} of {} roots", layer().count()),
    );
    let calls = || status.hooks.iter().filter(|hook| hook.name.starts_with(SYSTEM_CALLS));
    let watched = calls().filter(|hook| hook.attached).count();
    let all = calls().count() + status.waiting.len();
    let more = match status.waiting.len() {
        0 => String::new(),
        waiting => format!("; {waiting} are still to be attached"),
    };
    line("calls", &format!("{watched} of {all} rare system calls leave records{more}"));
    line("roots", &status.roots.join(" "));
    line("agents", &format!("{}, {} sessions", status.agents, status.sessions));
    line(
        "canary",
        &match &status.canary {
            Some(time) => format!("refused at {time}"),
            None => "not refused yet".to_owned(),
        },
    );
    let folded = format!("{} refusals were further checks of a call that is recorded", status.folded);
    line("folded", &folded);
    for layer in &status.layers {
        line("layer", &layer_text(layer));
    }
    line(
        "cgroups",
        &match &status.plain_cgroups {
            None => "sessions of enforcer exec are scopes of systemd's".to_owned(),
            Some(why) => format!("sessions of enforcer exec have plain ones: {why}"),
        },
    );
    for table in &status.usage {
        line("table", &format!("{}: {} of {}", table.name, table.used, table.room));
    }
    for one in &status.break_glass {
        line("glass", &format!("{} for {} until {}", one.id, one.agents.join(" "), one.until));
    }
    for sink in &status.sinks {
        let state = if sink.error.is_some() { "does not deliver" } else { "delivers" };
        line("sink", &format!("{} ({}): {state}, {} records wait", sink.name, sink.target, sink.lag));
    }
    if !status.problems.is_empty() {
        out.push_str("problems:\n");
        for problem in &status.problems {
            out += &format!("  - {}\n", printable(problem));
        }
    }
    let warnings: Vec<&String> = status.policies.iter().flat_map(|file| &file.warnings).collect();
    if !warnings.is_empty() {
        out.push_str("warnings:\n");
        warnings.iter().for_each(|warning| out += &format!("  - {}\n", printable(warning)));
    }
    out
}

/// Prints the agents.
pub(super) fn print_agents(agents: &[AgentStatus], output: Output) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => json_text(&json!({"agents": agents})),
        Output::Human => agents_text(agents),
    })
}

fn agents_text(agents: &[AgentStatus]) -> String {
    if agents.is_empty() {
        return "no agent has a policy\n".to_owned();
    }
    let mut out = String::new();
    for agent in agents {
        let AgentStatus {
            name,
            owner,
            purpose,
            version,
            digest,
            mode,
            trust,
            trust_in_force,
            file,
            folded,
            decisions: _,
            left_open,
            left_open_unlisted,
            sessions,
        } = agent;
        let digest = digest.get(..12).unwrap_or(digest);
        out += &format!(
            "{}  version {version} ({digest})  {mode}  {}\n",
            printable(name),
            level(trust, trust_in_force)
        );
        out += &format!("  {} ({})\n  {}\n", printable(purpose), printable(owner), printable(file));
        if *folded > 0 {
            out += &format!("  {folded} refusals were further checks of a call that is recorded\n");
        }
        for one in left_open {
            out += &format!(
                "  left open in session {}: {} of {} by process {} ({}), {} now\n",
                printable(&one.session),
                printable(&one.how),
                printable(&one.object),
                one.process,
                printable(&one.access.join("+")),
                printable(&one.now)
            );
        }
        if *left_open_unlisted > 0 {
            out += &format!("  left open: {left_open_unlisted} more\n");
        }
        for session in sessions {
            out += &format!(
                "  session {}  {}  cgroup {}  {} s\n",
                printable(&session.id),
                printable(&session.state),
                session.cgroup,
                session.age
            );
            for layer in &session.layers {
                out += &format!("    {}\n", printable(&layer_text(layer)));
            }
            if session.layers.is_empty() {
                out.push_str("    no layers: enforcer exec did not start it\n");
            }
            if session.restart_to_widen {
                out.push_str(
                    "    its policy has changed: restart the session to widen what its layers allow\n",
                );
            }
        }
    }
    out
}

/// One layer, and why there is none.
fn layer_text(layer: &LayerStatus) -> String {
    let LayerStatus { name, state, because } = layer;
    match because {
        Some(why) => format!("{name} {state}: {why}"),
        None => format!("{name} {state}"),
    }
}

/// The level in force, and the ceiling where that is another.
pub(super) fn level(ceiling: &str, in_force: &str) -> String {
    match in_force {
        same if same == ceiling => printable(ceiling),
        lower => format!("{} (at most {})", printable(lower), printable(ceiling)),
    }
}

/// Prints what a reload did.
pub(super) fn print_reload(
    published: &[String],
    retired: &[String],
    problems: &[String],
    output: Output,
) -> Result<ExitCode, Failure> {
    let mut out = String::new();
    published.iter().for_each(|agent| out += &format!("published {}\n", printable(agent)));
    retired.iter().for_each(|agent| out += &format!("retired {}\n", printable(agent)));
    problems.iter().for_each(|problem| out += &format!("{}\n", printable(problem)));
    if out.is_empty() {
        out.push_str("nothing has changed\n");
    }
    print(&match output {
        Output::Human => out,
        Output::Json => json_text(&json!({"published": published, "retired": retired, "problems": problems})),
    })?;
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::BadPolicy }.into())
}
