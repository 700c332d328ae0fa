//! Prints what many agents cost the userland: time and memory to read and compile their policies, how
//! much of the tables is the same, and the automaton that tells their cgroups apart:
//! `cargo run --release -p enforcer --example many_agents -- 10000 [POLICY]`. Every agent has the rules of
//! the policy under a name of its own; without a policy, a few rules and one path that is its alone.

use enforcer::policy::{AgentMatch, Image, ValidPolicy, compile, matcher, parse};
use enforcer_common::limits;
use std::{collections::HashMap, error::Error, fs, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(1_000), |n| n.parse())?;
    let template = arguments.next().map(fs::read_to_string).transpose()?;
    let before = resident()?;
    let start = Instant::now();
    let mut policies: Vec<ValidPolicy> = Vec::with_capacity(count);
    for agent in 0..count {
        policies.push(parse("agent.yaml", &text(agent, template.as_deref()))?);
    }
    let parsed = start.elapsed();
    let held = resident()?.saturating_sub(before);
    let images: Vec<Image> = policies.iter().map(compile).collect::<Result<_, _>>()?;
    let bytes: usize = images.iter().map(Image::len).sum();
    let start = Instant::now();
    let distinct: HashMap<[u8; 32], usize> =
        images.iter().map(|image| (image.digest(), image.len())).collect();
    let digested = start.elapsed();
    println!("agents                 {count:>12}");
    println!("read, checked, compiled{:>12.1} ms, {:.2} ms each", ms(parsed), ms(parsed) / count as f64);
    println!("resident               {:>12} KiB, {:.1} KiB each", held, held as f64 / count as f64);
    println!("tables                 {:>12} bytes; the arena has {}", bytes, limits::ARENA);
    println!(
        "distinct tables        {:>12} of {} bytes; digests took {:.1} ms",
        distinct.len(),
        distinct.values().sum::<usize>(),
        ms(digested)
    );
    println!("policy slots           {:>12}; agent slots {}", limits::POLICIES, limits::AGENTS);
    let agents: Vec<AgentMatch<'_>> =
        policies.iter().zip(0..).map(|(policy, slot)| (slot, policy.id(), policy.cgroups())).collect();
    let start = Instant::now();
    let of_cgroups = matcher(&agents)?;
    println!(
        "matcher                {:>12} bytes, {} states, {:.1} ms",
        of_cgroups.len(),
        of_cgroups.states(),
        ms(start.elapsed())
    );
    Ok(())
}

/// The policy of one agent.
fn text(agent: usize, template: Option<&str>) -> String {
    let own = format!("/agents.slice/agent-{agent:05}.slice/*");
    match template {
        Some(text) => {
            let lines = text.lines().filter(|line| !line.starts_with("match:"));
            let renamed = lines.map(|line| match line.strip_prefix("  id: ") {
                Some(_) => format!("  id: agent-{agent:05}\n"),
                None => format!("{line}\n"),
            });
            renamed.collect::<String>() + &format!("match: {{ cgroup: \"{own}\" }}\n")
        }
        None => format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: agent-{agent:05}, version: 1, owner: me, purpose: figures }}\n\
             match: {{ cgroup: \"{own}\" }}\n\
             files:\n  - {{ allow: [read, list], paths: [\"/usr/**\", \"/etc/ssl/**\"] }}\n\
             \x20 - {{ allow: [read, write, create], paths: [\"/srv/agents/{agent:05}/**\"] }}\n\
             \x20 - {{ deny: [all], paths: [\"**/.env\"] }}\n\
             exec:\n  - {{ allow: [\"/usr/bin/python3*\"] }}\n"
        ),
    }
}

/// KiB of this process in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
