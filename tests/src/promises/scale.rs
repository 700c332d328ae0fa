//! Many agents: what the daemon takes at rest, and that they are governed all the same.

use crate::{
    agent::PROBE,
    cases,
    command::{Command, systemctl, wait_for},
    ensure,
    harness::{Outcome, Test, outside},
    promises::{
        lifecycle::daemon,
        units::{enforcing, start_from_nothing},
    },
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

cases!(scale:
    a_daemon_at_rest_with_a_thousand_agents_takes_little,
    ten_thousand_agents_that_share_tables_are_loaded_and_governed,
);

const POLICIES: &str = "/etc/enforcer/policies.d";
/// Seconds. An emulated machine compiles some ten policies in one.
const PATIENCE: u64 = 3_600;
const SETTINGS: &str = "/etc/enforcer/enforcer.toml";

/// Policies of many agents, which go with this value.
struct Many(usize);

impl Many {
    /// Writes them and waits until all are in force. `own`: each has a path that no other has, so tables of its own.
    fn publish(count: usize, own: bool) -> Outcome<Self> {
        let many = Self(count);
        for number in 0..count {
            let path = if own { format!("/srv/agents/{number}/**") } else { "/srv/agents/all/**".to_owned() };
            let text = format!(
                "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                 metadata: {{ id: many-{number}, version: 1, owner: t, purpose: be many }}\n\
                 match: {{ cgroup: '/agents.slice/many-{number}.service' }}\ninclude: [base@1]\n\
                 files:\n  - {{ allow: [read, write, create], paths: ['{path}'] }}\n\
                 exec:\n  - {{ allow: ['{PROBE}'] }}\nnetwork:\n  - {{ allow: [connect], to: ['192.0.2.0/24:443/tcp'] }}\n"
            );
            fs::write(format!("{POLICIES}/many-{number}.yaml"), text)?;
        }
        let begun = Instant::now();
        let ran = Command::new("enforcer").args(["reload", "--output", "json"]).patience(PATIENCE).run()?;
        wait_for(&format!("{count} agents in force ({ran})"), PATIENCE, || {
            let status = status().ok()?;
            (status["agents"].as_u64()? >= count as u64).then_some(())
        })?;
        eprintln!("{count} agents were in force after {} s", begun.elapsed().as_secs());
        Ok(many)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        for number in 0..self.0 {
            let _ = fs::remove_file(format!("{POLICIES}/many-{number}.yaml"));
        }
        let _ = Command::new("enforcer").args(["reload"]).patience(PATIENCE).run();
    }
}

/// A larger arena: the tables of a thousand agents that share none take twice the usual one. A table keeps its size, so all
/// are made anew, and again at the end.
struct LargeArena(String);

impl LargeArena {
    fn new() -> Outcome<Self> {
        let usual = fs::read_to_string(SETTINGS)?;
        let changed = usual.replace("arena_mib = 64", "arena_mib = 256");
        ensure!(changed != usual, "{SETTINGS} does not say arena_mib = 64");
        fs::write(SETTINGS, changed)?;
        let large = Self(usual);
        start_from_nothing()?;
        Ok(large)
    }
}

impl Drop for LargeArena {
    fn drop(&mut self) {
        let _ = fs::write(SETTINGS, &self.0);
        let _ = start_from_nothing();
    }
}

/// How much of one of the kernel's tables is used, by what the status calls it.
pub(super) fn used(name: &str) -> Outcome<u64> {
    let status = status()?;
    let table = status["usage"].as_array().into_iter().flatten().find(|one| one["name"] == name);
    table.and_then(|one| one["used"].as_u64()).ok_or_else(|| format!("no {name} in {status}").into())
}

fn status() -> Outcome<Value> {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    serde_json::from_str(&ran.out).map_err(|error| format!("{error}: {ran}").into())
}

/// Kilobytes of a process in memory.
pub(super) fn resident(pid: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("VmRSS is {line:?}").into())
}

/// Nanoseconds that a process, with all its threads, has had a CPU for.
fn busy(pid: &str) -> Outcome<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(thread.path().join("schedstat"))?;
        sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(sum)
}

/// What a unit of one of them can do: read what its policy allows, and nothing else.
fn is_governed(t: &Test, number: usize, allowed: &str) -> Outcome {
    use super::units::{Unit, probe};
    if let Some(parent) = Path::new(allowed).parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(allowed, "text\n")?;
    let shut = t.file("shut")?;
    ensure!(outside(&format!("read {shut}"))? == "ok", "it cannot be read outside either");
    let acts = [format!("read {allowed}"), format!("read {shut}")];
    let (unit, code) = Unit::start(t, &format!("many-{number}"), &probe(&acts), true)?;
    ensure!(unit.lines() == ["ok", "EPERM"], "agent {number}: {code:?} {:?}", unit.lines());
    Ok(())
}

fn a_daemon_at_rest_with_a_thousand_agents_takes_little(t: &mut Test) -> Outcome {
    let _large = LargeArena::new()?;
    let many = Many::publish(1_000, true)?;
    is_governed(t, 0, "/srv/agents/0/f")?;
    is_governed(t, 999, "/srv/agents/999/f")?;
    // As after a boot: what reading and compiling took is not held against it while it rests.
    let loaded = resident(&daemon()?)?;
    systemctl("restart enforcer.service")?;
    enforcing()?;
    let pid = daemon()?;
    thread::sleep(Duration::from_secs(10));
    let (before, begun) = (busy(&pid)?, Instant::now());
    thread::sleep(Duration::from_secs(if t.full { 300 } else { 60 }));
    let (took, during, rss) = (busy(&pid)? - before, begun.elapsed(), resident(&pid)?);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parts: Vec<&str> = status.lines().filter(|line| line.starts_with("Rss")).collect();
    eprintln!("{}", parts.join(", "));
    let share = took as f64 * 100.0 / during.as_nanos() as f64;
    eprintln!(
        "1000 agents: {loaded} kB once they were published, {rss} kB at rest after a restart, {share:.3} % of a CPU \
         during {} s",
        during.as_secs()
    );
    drop(many);
    ensure!(rss <= 30_000 && loaded <= 60_000, "{rss} kB at rest, {loaded} kB after publishing");
    // An emulated CPU takes many times as long for everything.
    let most = if is_emulated() { 1.0 } else { 0.1 };
    let is_little = share <= most;
    ensure!(is_little, "{share:.3} % of a CPU at rest");
    Ok(())
}

fn is_emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}

fn ten_thousand_agents_that_share_tables_are_loaded_and_governed(t: &mut Test) -> Outcome {
    let count = if t.full { 10_000 } else { 200 };
    let many = Many::publish(count, false)?;
    let [policies, arena, prefixes] = [used("policies")?, used("arena")?, used("prefixes")?];
    eprintln!(
        "{count} agents: {policies} policies, {arena} bytes of the arena, {prefixes} address prefixes, {} kB",
        resident(&daemon()?)?
    );
    // One table for all their policies, and the one that knows their cgroups: a row or two for each byte in which two
    // names differ, and one for each byte behind, since each leads to another agent.
    let most = (2 << 20) + 2_048 * count as u64;
    ensure!(policies >= count as u64 && arena < most, "{policies} policies, {arena} of {most} bytes");
    is_governed(t, 0, "/srv/agents/all/f")?;
    is_governed(t, count - 1, "/srv/agents/all/f")?;
    drop(many);
    wait_for("an end of all of them", PATIENCE, || (status().ok()?["agents"].as_u64()? < 10).then_some(()))?;
    // What they took is given back.
    wait_for("free tables", 120, || {
        let usage = status().ok()?["usage"].as_array().cloned()?;
        let policies = usage.iter().find(|one| one["name"] == "policies")?["used"].as_u64()?;
        (policies < 16).then_some(())
    })?;
    Ok(())
}
