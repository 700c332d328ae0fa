//! What is shown, from two looks at the daemon: pure.

use crate::{
    control::break_glass::BreakGlassStatus,
    control::message::{AgentStatus, DecisionCounts, Lost, State, Status},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Seconds of some clock that never goes back.
    pub at: f64,
    pub status: Status,
    pub agents: Vec<AgentStatus>,
    /// The agent of each request that waits for a person.
    pub waiting: Vec<String>,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    pub state: State,
    pub problems: Vec<String>,
    pub version: String,
    pub kernel: String,
    /// Seconds that the rates are about.
    pub seconds: f64,
    pub sessions: usize,
    pub waiting: usize,
    pub agents: Vec<Row>,
    pub tables: Vec<Fill>,
    pub lost: Lost,
    /// Records lost in these seconds.
    pub lost_now: u64,
    pub sinks: Vec<SinkRow>,
    pub break_glass: Vec<BreakGlassStatus>,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub name: String,
    pub mode: String,
    pub trust: String,
    pub sessions: usize,
    /// Seconds since the oldest session was bound.
    pub oldest: u64,
    /// Requests that wait for a person.
    pub waiting: usize,
    pub per_second: Rates,
    /// Since the daemon started.
    pub total: DecisionCounts,
}

/// Acts in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub denied: f64,
    pub held: f64,
    pub granted: f64,
    pub would: f64,
}

/// A table of the kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Fill {
    pub name: String,
    pub used: u64,
    pub room: u64,
    pub percent: u64,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SinkRow {
    pub name: String,
    pub waiting: u64,
    pub error: Option<String>,
}

impl View {
    /// The difference of two looks. Without an earlier one there are no rates yet.
    pub(super) fn of(before: Option<&Look>, now: &Look) -> Self {
        let seconds = before.map_or(0.0, |before| (now.at - before.at).max(0.0));
        let earlier: BTreeMap<&str, DecisionCounts> = before
            .iter()
            .flat_map(|look| look.agents.iter().map(|agent| (agent.name.as_str(), agent.decisions)))
            .collect();
        // Another daemon counts from zero again.
        let same = before.is_some_and(|before| before.status.pid == now.status.pid);
        let rate = |before: u64, now: u64| {
            if same && seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 }
        };
        let row = |agent: &AgentStatus| {
            let total = agent.decisions;
            let before = earlier.get(agent.name.as_str()).copied().unwrap_or_default();
            Row {
                name: agent.name.clone(),
                mode: agent.mode.clone(),
                trust: agent.trust_in_force.clone(),
                sessions: agent.sessions.len(),
                oldest: agent.sessions.iter().map(|session| session.age).max().unwrap_or(0),
                waiting: now.waiting.iter().filter(|waits| **waits == agent.name).count(),
                per_second: Rates {
                    denied: rate(before.denied, total.denied),
                    held: rate(before.held, total.held),
                    granted: rate(before.granted, total.granted),
                    would: rate(before.would, total.would),
                },
                total,
            }
        };
        let mut agents: Vec<Row> = now.agents.iter().map(row).collect();
        // Whoever needs attention first; the order of the names otherwise.
        agents.sort_by(|a, b| {
            let weight = |row: &Row| row.per_second.denied + row.per_second.held;
            let waits = b.waiting.cmp(&a.waiting);
            waits.then(weight(b).total_cmp(&weight(a))).then_with(|| a.name.cmp(&b.name))
        });
        let lost = |lost: &Lost| lost.decisions + lost.activity + lost.malformed + lost.unwritten;
        let Status { state, problems, version, kernel, sessions, usage, sinks, break_glass, .. } =
            &now.status;
        Self {
            state: *state,
            problems: problems.clone(),
            version: version.clone(),
            kernel: kernel.clone(),
            seconds,
            sessions: *sessions,
            waiting: now.waiting.len(),
            agents,
            tables: usage
                .iter()
                .map(|table| Fill {
                    name: table.name.clone(),
                    used: table.used,
                    room: table.room,
                    percent: table.used.saturating_mul(100).checked_div(table.room).unwrap_or(0),
                })
                .collect(),
            lost: now.status.lost,
            lost_now: match before {
                Some(before) if same => lost(&now.status.lost).saturating_sub(lost(&before.status.lost)),
                _ => 0,
            },
            sinks: sinks
                .iter()
                .map(|sink| SinkRow { name: sink.name.clone(), waiting: sink.lag, error: sink.error.clone() })
                .collect(),
            break_glass: break_glass.clone(),
        }
    }
}
