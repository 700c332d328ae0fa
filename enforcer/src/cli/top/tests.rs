//! What the view has in it and what it looks like.

use super::{
    draw::lines,
    model::{Look, View},
    show,
};
use crate::control::{
    break_glass::BreakGlassStatus,
    message::{AgentStatus, DecisionCounts, Lost, SessionStatus, State, Status, UsageStatus},
};
use ratatui::{Terminal, backend::TestBackend, style::Color};

fn agent(name: &str, denied: u64) -> AgentStatus {
    let session = |age| SessionStatus {
        id: "0f".to_owned(),
        state: "armed".to_owned(),
        cgroup: 7,
        age,
        layers: vec![],
        restart_to_widen: false,
    };
    AgentStatus {
        name: name.to_owned(),
        owner: String::new(),
        purpose: String::new(),
        version: 1,
        digest: String::new(),
        mode: "enforce".to_owned(),
        trust: "trusted".to_owned(),
        trust_in_force: "probation".to_owned(),
        file: String::new(),
        folded: 0,
        left_open: Vec::new(),
        left_open_unlisted: 0,
        decisions: DecisionCounts { denied, held: 4, ..DecisionCounts::default() },
        sessions: vec![session(130), session(7)],
    }
}

fn look(at: f64, agents: Vec<AgentStatus>) -> Look {
    let status = Status {
        state: State::Degraded,
        problems: vec!["sink siem: \u{1b}[2J".to_owned()],
        version: "1.0".to_owned(),
        pid: 7,
        kernel: "6.12".to_owned(),
        generation: 1,
        roots: Vec::new(),
        agents: agents.len(),
        sessions: 2,
        hooks: Vec::new(),
        waiting: Vec::new(),
        usage: vec![UsageStatus { name: "arena".to_owned(), used: 30, room: 120 }],
        policies: Vec::new(),
        canary: None,
        lost: Lost { decisions: at as u64, ..Lost::default() },
        folded: 0,
        break_glass: Vec::new(),
        layers: vec![],
        plain_cgroups: None,
        sinks: Vec::new(),
    };
    Look { at, status, agents, waiting: Vec::new() }
}

#[test]
fn rates_are_what_came_between_two_looks() {
    let before = look(10.0, vec![agent("a", 100), agent("b", 5)]);
    let now = look(14.0, vec![agent("a", 100), agent("b", 25)]);
    let view = View::of(Some(&before), &now);
    let rates: Vec<(&str, f64)> =
        view.agents.iter().map(|row| (row.name.as_str(), row.per_second.denied)).collect();
    assert_eq!(rates, [("b", 5.0), ("a", 0.0)], "whoever is refused most stands first");
    assert_eq!((view.lost_now, view.tables[0].percent, view.agents[0].oldest), (4, 25, 130));

    // No earlier look, or one at another daemon: no rates, instead of wrong ones.
    assert_eq!(View::of(None, &now).agents[1].per_second.denied, 0.0);
    let mut other = before.clone();
    other.status.pid = 8;
    let view = View::of(Some(&other), &now);
    assert_eq!((view.agents[1].per_second.denied, view.lost_now), (0.0, 0));
}

#[test]
fn whoever_waits_for_a_person_stands_first() {
    let mut now = look(1.0, vec![agent("a", 0), agent("b", 0)]);
    now.waiting = vec!["b".to_owned(), "b".to_owned()];
    let view = View::of(None, &now);
    assert_eq!((view.agents[0].name.as_str(), view.agents[0].waiting, view.waiting), ("b", 2, 2));
}

#[test]
fn every_column_has_its_figure_and_nothing_reaches_the_terminal_as_it_is() {
    let mut now = look(14.0, vec![agent("bad\u{1b}]0;name", 25), agent(&"x".repeat(40), 0)]);
    now.status.break_glass = vec![BreakGlassStatus {
        id: "1f".to_owned(),
        agents: vec!["a\n".to_owned()],
        reason: String::new(),
        until: String::new(),
        seconds_left: 60,
    }];
    let text = lines(&View::of(Some(&look(10.0, vec![agent("bad\u{1b}]0;name", 5)])), &now));
    assert!(text.iter().all(|line| line.chars().all(crate::event::text::is_plain)), "{text:?}");
    assert!(
        text[0].starts_with("degraded  daemon 1.0, kernel 6.12, 2 agents, 2 sessions, 0 wait"),
        "{text:?}"
    );
    assert_eq!(text[1], "BREAK-GLASS 1f for a?, 60 s left");
    assert_eq!(text[2], "  ! sink siem: ?[2J");
    let head: Vec<&str> = text[4].split_whitespace().collect();
    let row: Vec<&str> = text[5].split_whitespace().collect();
    assert_eq!(head.len(), row.len());
    assert_eq!(
        row,
        ["bad?]0;name", "enforce", "probation", "2", "2m", "0", "5.0", "0.0", "0.0", "0.0", "25"]
    );
    assert!(text[6].starts_with(&format!("{}~ enforce", "x".repeat(27))), "{}", text[6]);
    assert!(text.iter().any(|line| line == "tables  arena 25 % (30 of 120)"), "{text:?}");
    assert!(
        text.iter()
            .any(|line| line.starts_with("lost    14 decisions") && line.contains("; 4 in the last 4.0 s"))
    );
}

#[test]
fn the_screen_has_the_same_lines_the_state_in_its_colour_and_scrolls() {
    let view = View::of(None, &look(1.0, vec![agent("a", 0)]));
    let mut terminal = Terminal::new(TestBackend::new(120, 12)).expect("memory");
    let mut row = |scroll: u16, y: u16| {
        terminal.draw(|frame| show(frame, &view, scroll)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let text: String = (0..120).map(|x| buffer[(x, y)].symbol().to_owned()).collect();
        (text.trim_end().to_owned(), buffer[(0, y)].fg)
    };
    let text = lines(&view);
    assert_eq!(row(0, 0), (text[0].clone(), Color::Yellow));
    assert_eq!(row(0, 4).0, text[4].trim_end());
    assert_eq!(row(3, 0).0, text[3].trim_end());
}
