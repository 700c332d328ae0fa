//! What the figures say, and that another reader of them agrees with their form.

use super::*;
use std::process::{Command, Stdio};

/// Some of everything.
fn busy() -> World {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.write("b.yaml", "nonsense");
    world.core.reload();
    for agent in [0, 0, 0, enforcer_common::event::NO_AGENT] {
        world.told().records.push(record(b"/workspace/.env", b"/usr/bin/cat", |h| {
            (h.agent, h.policy) = (agent, 1);
        }));
    }
    world.told().lost.insert(AgentSlot(0), (3, 1));
    world.told().folded.insert(AgentSlot(0), 11);
    world.told().health.timed.insert("file_open".to_owned(), (4, 2_500_000_000));
    world.core.drain();
    world.core.note_losses();
    world
}

#[test]
fn figures_name_agents_verdicts_losses_and_the_state() {
    let world = busy();
    let text = world.core.metrics();
    for line in [
        "enforcer_state{state=\"NOT ENFORCING\"} 1",
        "enforcer_state{state=\"enforcing\"} 0",
        "enforcer_decisions_total{agent=\"a\",operation=\"open\",verdict=\"deny\",reason=\"rule\",mode=\"enforce\"} 3",
        "enforcer_decisions_total{agent=\"\",operation=\"open\",verdict=\"deny\",reason=\"rule\",mode=\"enforce\"} 1",
        "enforcer_lost_records_total{kind=\"decisions\"} 3",
        "enforcer_folded_refusals_total{agent=\"a\"} 11",
        "enforcer_policy_errors 1",
        "enforcer_hook_runs_total{hook=\"file_open\"} 4",
        "enforcer_hook_seconds_total{hook=\"file_open\"} 2.5",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n") && !text.contains("canary_age"), "{text}");
    let status = world.core.status();
    let agents = world.core.agent_list();
    assert_eq!((status.folded, agents.first().map(|agent| agent.folded)), (11, Some(11)));
}

/// promtool reads the format before OpenMetrics, in which a counter's suffix stands in its comments too, and
/// there is no end mark.
fn older(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[0] == "#" && words.len() > 2 && counters.contains(&words[2].as_str()) {
            words[2] += "_total";
        }
        words.join(" ") + "\n"
    };
    text.lines().filter(|l| *l != "# EOF").map(line).collect()
}

#[test]
#[ignore = "needs promtool, of Debian's package prometheus: cargo xtask test --full"]
fn promtool_finds_nothing_to_complain_about() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: apt install prometheus");
    let text = older(&busy().core.metrics());
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("write");
    let out = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success() && said.is_empty(), "{said}\n{text}");
}
