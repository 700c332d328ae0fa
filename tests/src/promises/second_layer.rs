//! The second layer on the network: what it refuses where the LSM hooks do not.

use super::units;
use crate::{
    agent::{Agent, ROOT},
    cases,
    command::{Command, systemctl, wait_for},
    ensure,
    events::{self, Mark},
    fail,
    harness::{Outcome, Test, outside_all},
    peer::Port,
    policy::Policy,
    promise::{self as check, Attempt, Denial},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

cases!(second_layer:
    without_the_hooks_on_the_network_cgroup_programs_refuse,
    a_root_made_anew_and_a_link_taken_away_get_the_programs_again,
);

const PINS: &str = "/sys/fs/bpf/enforcer";
const HERE: &str = "127.0.0.1";
/// What an agent could use the network by, if nothing else refused it.
const HOOKS: [&str; 5] =
    ["socket_create", "socket_connect", "socket_sendmsg", "socket_bind", "socket_listen"];

/// Where the links of the programs that decide are pinned.
fn links() -> Outcome<PathBuf> {
    let all = fs::read_dir(PINS)?.flatten().map(|entry| entry.path());
    let found: Vec<PathBuf> = all
        .filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"links-")))
        .collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        _ => fail!("{PINS} has {found:?}"),
    }
}

/// The directory of the links to the cgroup that is the root now.
fn layer() -> Outcome<PathBuf> {
    Ok(links()?.join(format!("network-{}", fs::metadata(ROOT)?.ino())))
}

fn status() -> Outcome<(Option<i32>, Value)> {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    match serde_json::from_str(&ran.out) {
        Ok(value) => Ok((ran.code, value)),
        Err(error) => fail!("{error}: {ran}"),
    }
}

/// What the status says of the layer on the root.
fn entry(status: &Value) -> Value {
    let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
    let name = "network layer of /agents.slice";
    hooks.into_iter().find(|hook| hook["name"] == name).unwrap_or_default()
}

/// The daemon looks at the root every second.
fn layer_is_live() -> Outcome {
    let lines = ["enforcer_network_layer_roots 1\n", "enforcer_network_layer_missing 0\n"];
    let mut seen = String::new();
    let live = wait_for("a layer that is live", 120, || {
        let (_, status) = status().ok()?;
        let figures = Command::new("enforcer").args(["metrics"]).run().ok()?;
        seen = format!("{} {figures}", entry(&status));
        let told = lines.iter().all(|line| figures.out.contains(line));
        (told && entry(&status)["attached"] == true).then_some(())
    });
    live.map_err(|error| format!("{error}: {seen}").into())
}

/// The hooks on the network are gone until this goes, and with it, until the daemon has started again.
struct NoHooks(Vec<String>);

impl NoHooks {
    /// Takes them away, and waits until the refusal of `act` is the second layer's: links go a moment after their pins.
    fn take(agent: &Agent, act: &str) -> Outcome<Self> {
        let links = links()?;
        let mut taken = Self(Vec::new());
        for name in HOOKS {
            fs::remove_file(links.join(name))?;
            taken.0.push(name.to_owned());
        }
        wait_for("the end of the hooks", 120, || {
            let session = agent.probe(&[act.to_owned()]).ok()?;
            let refusal =
                events::wait("a refusal", session.mark, |r| events::decides(r, &session.id)).ok()?;
            (session.lines == ["EPERM"] && refusal["reason"] == "second-layer").then_some(())
        })?;
        Ok(taken)
    }

    /// Starts the daemon again, which must bring back what was taken and say so.
    fn brought_back(mut self) -> Outcome {
        let (mark, taken) = (events::mark()?, std::mem::take(&mut self.0));
        restart()?;
        let said = events::wait("what was brought back", mark, |r| r["kind"] == "hooks-brought-back")?;
        ensure!(said["hooks"] == Value::from(taken), "{said}");
        Ok(())
    }
}

impl Drop for NoHooks {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = restart();
        }
    }
}

fn restart() -> Outcome {
    systemctl("restart enforcer.service")?;
    units::enforcing()
}

/// Attempts at the port `shut`, refused by the second layer: act, host, the operation and the address in its record.
fn reaching(acts: &[(&str, &str, &'static str, &str)], shut: u16, protocol: &'static str) -> Vec<Attempt> {
    let one = |(act, host, operation, address): &(&str, &str, &'static str, &str)| {
        let denial = Denial::because(operation, "second-layer").to(address, shut, protocol).asking("connect");
        Attempt::new(format!("{act} {host} {shut}"), denial)
    };
    acts.iter().map(one).collect()
}

fn attempts(open: u16, shut: u16, held: u16) -> Vec<Attempt> {
    let second = |operation| Denial::because(operation, "second-layer");
    let mut all = reaching(
        &[
            ("tcp", HERE, "connect", HERE),
            ("tcp", "::1", "connect", "::1"),
            ("tcp", "::ffff:127.0.0.1", "connect", HERE),
            ("v4mapped", HERE, "connect", HERE),
            ("tcp", "0.0.0.0", "connect", HERE),
            ("tfo", HERE, "connect", HERE),
            ("tfo", "::1", "connect", "::1"),
            ("tfo-mapped", HERE, "connect", HERE),
            ("tfo-option", HERE, "connect", HERE),
        ],
        shut,
        "tcp",
    );
    all.extend(reaching(
        &[
            ("udp-connect", HERE, "connect", HERE),
            ("udp-send", HERE, "send", HERE),
            ("udp-send", "::1", "send", "::1"),
            ("udp-corked", HERE, "send", HERE),
            ("udp-corked", "::1", "send", "::1"),
            ("udp-segments", HERE, "send", HERE),
            ("udp-segments", "::1", "send", "::1"),
            ("udp-mapped", HERE, "send", HERE),
            ("udp6-inet", HERE, "send", HERE),
            ("udp-sendmsg", HERE, "send", HERE),
            ("udp-sendmmsg", "::1", "send", "::1"),
            ("udp-unspec", HERE, "send", HERE),
        ],
        shut,
        "udp",
    ));
    all.push(Attempt::new(
        format!("udp-connected-elsewhere {HERE} {open} {HERE} {shut}"),
        second("send").to(HERE, shut, "udp").asking("connect"),
    ));
    // Nobody was asked, so nobody can have granted it.
    all.push(Attempt::new(
        format!("tcp {HERE} {held}"),
        second("connect").to(HERE, held, "tcp").asking("connect"),
    ));
    for (act, host) in [("bind", "127.0.0.2"), ("bind", "0.0.0.0"), ("bind-udp", "::1")] {
        let (protocol, port) = (if act == "bind" { "tcp" } else { "udp" }, shut + 1000);
        let denial = second("bind").to(host, port, protocol).asking("bind");
        all.push(Attempt::new(format!("{act} {host} {port}"), denial));
    }
    all
}

/// Sockets over IP that are neither TCP nor UDP: MPTCP, UDP-Lite, SCTP; those that this kernel has.
fn sockets() -> Outcome<Vec<Attempt>> {
    let acts = ["socket 2 1 262", "socket 10 1 262", "socket 2 2 136", "socket 2 1 132"].map(str::to_owned);
    let outside = outside_all(&acts)?;
    let possible = acts.iter().zip(&outside).filter(|(_, line)| *line == "ok");
    let found: Vec<Attempt> = possible
        .map(|(act, _)| Attempt::new(act.clone(), Denial::because("socket", "second-layer")))
        .collect();
    ensure!(!found.is_empty(), "this kernel makes none of {acts:?}: {outside:?}");
    Ok(found)
}

fn without_the_hooks_on_the_network_cgroup_programs_refuse(t: &mut Test) -> Outcome {
    t.fresh()?;
    layer_is_live()?;
    let (open, shut, held) = (Port::open()?, Port::open()?, Port::open()?);
    let (o, s, h) = (open.number, shut.number, held.number);
    let nothing = t.policy();
    let narrow = nothing
        .next()
        .connect(&format!("{HERE}:{o}/*"))
        .connect(&format!("[::1]:{o}/*"))
        .connect_hold(&format!("{HERE}:{h}/tcp"))
        .bind(&format!("{HERE}:{}/*", o + 1000));
    let wide = nothing.next().connect("*:*/*").bind("*:*/*");
    let audit = narrow.next().line("mode: audit");
    let mut attempts = attempts(o, s, h);
    attempts.extend(sockets()?);
    let twins = [
        format!("tcp {HERE} {o}"),
        format!("tcp ::1 {o}"),
        format!("tfo {HERE} {o}"),
        format!("udp-send {HERE} {o}"),
        format!("udp-send ::1 {o}"),
        format!("udp-connected-elsewhere {HERE} {o} {HERE} {o}"),
        format!("udp-sendmmsg {HERE} {o}"),
        format!("udp-corked ::1 {o}"),
        format!("udp-segments {HERE} {o}"),
        "tcp-disconnect".to_owned(),
        format!("bind {HERE} {}", o + 1000),
        format!("bind-listen {HERE} {}", o + 1000),
    ];
    check::control(&attempts)?;
    let before = shut.arrivals.count()? + held.arrivals.count()?;
    let mut agent = t.agent(narrow)?;
    let gone = NoHooks::take(&agent, &format!("tcp {HERE} {s}"))?;
    let (_, said) = status()?;
    ensure!(said["state"] == "NOT ENFORCING", "{said}");
    check::refused(t, &agent, &twins, &attempts)?;
    let after = shut.arrivals.count()? + held.arrivals.count()?;
    ensure!(after == before, "{} connections or packets arrived although refused", after - before);
    agent.change(wide)?;
    let reach: Vec<String> =
        check::acts(&attempts).into_iter().filter(|act| !act.starts_with("socket")).collect();
    check::allowed(&agent, &reach)?;
    // In audit mode rules only record, and that is the hooks' part.
    agent.change(audit)?;
    check::allowed(&agent, &[format!("tcp {HERE} {s}")])?;
    gone.brought_back()?;
    again(t, agent, nothing.next(), s)
}

/// The hooks decide again: it is they who record.
fn again(t: &Test, mut agent: Agent, nothing: Policy, shut: u16) -> Outcome {
    agent.change(nothing)?;
    let denial = Denial::no_rule("connect").to(HERE, shut, "tcp").asking("connect");
    check::refused(t, &agent, &[], &[Attempt::new(format!("tcp {HERE} {shut}"), denial)])
}

fn attached_anew(mark: Mark) -> Outcome {
    let id = fs::metadata(ROOT)?.ino();
    events::wait("the layer on the root", mark, |record| {
        record["kind"] == "layer-attached" && record["cgroup"] == id && record["root"] == "/agents.slice"
    })?;
    let whole = fs::read_dir(layer()?)?.count();
    ensure!(whole == 6, "{whole} links");
    layer_is_live()
}

fn a_root_made_anew_and_a_link_taken_away_get_the_programs_again(t: &mut Test) -> Outcome {
    t.fresh()?;
    let shut = Port::open()?;
    let attempts = [
        Attempt::new(
            format!("tcp {HERE} {}", shut.number),
            Denial::because("connect", "second-layer").to(HERE, shut.number, "tcp").asking("connect"),
        ),
        Attempt::new(
            format!("udp-send {HERE} {}", shut.number),
            Denial::because("send", "second-layer").to(HERE, shut.number, "udp").asking("connect"),
        ),
    ];
    let agent = t.agent(t.policy())?;
    let nothing = agent.policy().next();
    let (before, mark) = (layer()?, events::mark()?);
    systemctl("stop agents.slice")?;
    wait_for("the end of the slice's cgroup", 120, || (!Path::new(ROOT).exists()).then_some(()))?;
    systemctl("start agents.slice")?;
    ensure!(layer()? != before, "the slice has the same cgroup as before");
    attached_anew(mark)?;
    wait_for("the end of the links to the old cgroup", 120, || (!before.exists()).then_some(()))?;
    let mark = events::mark()?;
    fs::remove_file(layer()?.join("connect4"))?;
    attached_anew(mark)?;
    let gone = NoHooks::take(&agent, &format!("tcp {HERE} {}", shut.number))?;
    check::refused(t, &agent, &[], &attempts)?;
    gone.brought_back()?;
    again(t, agent, nothing, shut.number)
}
