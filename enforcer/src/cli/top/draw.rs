//! The view as lines: the same for a screen, a file and a test. Pure.

use super::model::{Row, View};
use crate::{control::message::State, event::text::is_plain};

/// Characters of an agent's name that are shown.
const NAME: usize = 28;

/// The view in lines, at least one. Whatever an agent or a file may have chosen is made fit for a terminal.
pub(super) fn lines(view: &View) -> Vec<String> {
    let View { state, problems, version, kernel, seconds, sessions, waiting, .. } = view;
    let mut out = vec![format!(
        "{}  daemon {}, kernel {}, {} agents, {sessions} sessions, {waiting} wait for a person",
        state.word(),
        safe(version),
        safe(kernel),
        view.agents.len(),
    )];
    for one in &view.break_glass {
        let agents = safe(&one.agents.join(" "));
        out.push(format!("BREAK-GLASS {} for {agents}, {} s left", safe(&one.id), one.seconds_left));
    }
    problems.iter().for_each(|problem| out.push(format!("  ! {}", safe(problem))));
    out.push(String::new());
    out.push(format!(
        "{:<NAME$} {:<8} {:<11} {:>5} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "AGENT",
        "MODE",
        "TRUST",
        "SESS",
        "OLDEST",
        "WAIT",
        "DENIED/s",
        "HELD/s",
        "GRANTED/s",
        "WOULD/s",
        "DENIED"
    ));
    out.extend(view.agents.iter().map(row));
    out.push(String::new());
    let tables: Vec<String> = view
        .tables
        .iter()
        .map(|t| format!("{} {} % ({} of {})", safe(&t.name), t.percent, t.used, t.room))
        .collect();
    out.push(format!("tables  {}", tables.join(", ")));
    let lost = &view.lost;
    out.push(format!(
        "lost    {} decisions, {} activity, {} malformed, {} unwritten; {} in the last {seconds:.1} s",
        lost.decisions, lost.activity, lost.malformed, lost.unwritten, view.lost_now
    ));
    for sink in &view.sinks {
        let state = sink.error.as_ref().map_or("delivers".to_owned(), |why| format!("fails: {}", safe(why)));
        out.push(format!("sink    {}: {} wait, {state}", safe(&sink.name), sink.waiting));
    }
    out
}

fn row(row: &Row) -> String {
    let Row { name, mode, trust, sessions, oldest, waiting, per_second, total } = row;
    format!(
        "{:<NAME$} {:<8} {:<11} {sessions:>5} {:>7} {waiting:>5} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>10}",
        cut(&safe(name)),
        safe(mode),
        safe(trust),
        age(*oldest),
        per_second.denied,
        per_second.held,
        per_second.granted,
        per_second.would,
        total.denied,
    )
}

/// In one line, with nothing in it that a terminal would take for a command.
fn safe(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// A long name is cut, and says so.
fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(NAME - 1).chain(['~']).collect(),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0 => "-".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if s < 7200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// The colour of the first line.
pub(super) fn colour(state: State) -> ratatui::style::Color {
    match state {
        State::Enforcing => ratatui::style::Color::Green,
        State::Degraded => ratatui::style::Color::Yellow,
        State::NotEnforcing => ratatui::style::Color::Red,
    }
}
