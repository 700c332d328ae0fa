//! stress-ng under a policy that allows all that rules can allow: nothing is refused but what the floor refuses everybody,
//! the kernel warns of nothing, and nothing is left behind.

use super::{lifecycle::daemon, scale::resident};
use crate::{
    agent::Agent,
    command::{Command, wait_for},
    ensure, events, fail,
    harness::{Failed, Outcome, Test},
    promise,
};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Child,
    time::Instant,
};

const SHORT: &str = "stress-ng --quiet --temp-path $W/tmp --timeout 2s --dentry 1 --link 1 --symlink 1 --rename 1 --dir 1 \
                     --fallocate 1 --fallocate-bytes 1M --mmap 1 --mmap-bytes 4M --fork 2 --clone 1 --pipe 1 --sock 1 \
                     --sock-if lo --udp 1 --udp-if lo --sem 1";

/// Of stress-ng's classes those that the hooks are about.
const CLASSES: [&str; 4] = ["filesystem", "network", "scheduler", "pipe"];

/// So long it goes on, all stressors once at least.
const SECONDS: u64 = 600;

/// What one stressor is told, and how long it is waited for: on an emulated machine many take their time to come to an end.
const EACH: &str = "--verify --oomable --timeout 4s --fallocate-bytes 16M --hdd-bytes 16M --iomix-bytes 16M \
                    --fiemap-bytes 16M --copy-file-bytes 128M --sync-file-bytes 16M";
const LIMIT: u64 = 60;

/// The file system that they write to, which is made for them: what they write stays within it.
const DISK: u64 = 768 << 20;

/// Stressors that are not tried, with the reason.
const WITHOUT: &[(&str, &str)] = &[];

/// Stressors that end otherwise inside than outside, and what of the floor they meet.
const MEETS_THE_FLOOR: &[(&str, &str)] = &[
    ("binderfs", "mounts a file system"),
    ("dccp", "a kind of socket that is not IP's usual two"),
    ("icmp-flood", "raw sockets"),
    ("mq", "POSIX message queues, which have no owner"),
    ("netlink-proc", "what the kernel tells about everybody's processes"),
    ("netlink-task", "what the kernel tells about everybody's processes"),
    ("rawpkt", "packet sockets"),
    ("rawsock", "raw sockets"),
    ("rawudp", "raw sockets"),
    ("sctp", "a kind of socket that is not IP's usual two"),
    ("sockdiag", "what the kernel tells about everybody's sockets"),
];

/// Under a policy that allows all that rules can allow. What the floor refuses everybody is refused here too, and
/// is no false denial; a rule, or an object that could not be told, would be one.
pub(super) fn some_stress_is_borne(t: &mut Test) -> Outcome {
    t.dir("w/tmp")?;
    let marker = promise::marker(t)?;
    let mut watched = Watched::start(t)?;
    let script = format!(
        "export W={w} PATH=/usr/bin; cd {w}; {SHORT}; code=$?; cat {marker} 2>/dev/null; exit $code",
        w = t.at("w")
    );
    let session = watched.agent.run_for(&["/usr/bin/sh", "-c", &script].map(str::to_owned), 400)?;
    ensure!(session.code == Some(0), "{:?} {:?} {}", session.code, session.lines, session.err);
    watched.refusals(400, session.mark, &session.id, &marker)?;
    watched.end()
}

pub(super) fn ten_minutes_of_every_kind_of_stress_are_borne(t: &mut Test) -> Outcome {
    t.needs_full()?;
    let names = stressors()?;
    let disk = Disk::make(t)?;
    let said = t.dir("said")?;
    let marker = promise::marker(t)?;
    let mut watched = Watched::start(t)?;
    let one = one("$name", &disk.0, &format!("{said}/$name"));
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    // The first round is whole, whatever it takes; others until it was long enough.
    let script = format!(
        "export PATH=/usr/bin; cd {w}; begun=$(date +%s); for round in 1 2 3 4 5 6 7 8 9; do for name in {all}; do \
         now=$(date +%s); [ $round = 1 ] || [ $((now - begun)) -lt {SECONDS} ] || break 2; \
         {one}; echo $name $? $(($(date +%s) - now)); done; done; cat {marker} 2>/dev/null",
        w = disk.0,
        all = all.join(" ")
    );
    let begun = Instant::now();
    let patience = names.len() as u64 * (LIMIT + 20);
    let session = watched.agent.run_for(&["/usr/bin/sh", "-c", &script].map(str::to_owned), patience)?;
    let took = begun.elapsed().as_secs();
    eprintln!("{} runs of {} stressors in {took} s", session.lines.len(), names.len());
    let ends: BTreeSet<(&str, i32)> = session.lines.iter().filter_map(|line| ended(line)).collect();
    let tried: BTreeSet<&str> = ends.iter().map(|(name, _)| *name).collect();
    let slow =
        session.lines.iter().filter(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()) > Some(30));
    eprintln!("took long: {}", slow.cloned().collect::<Vec<_>>().join(", "));
    watched.refusals(1_800, session.mark, &session.id, &marker)?;
    ensure!(tried.len() == names.len() && took >= SECONDS, "{took} s, {} of {}", tried.len(), names.len());
    let done = ends.iter().filter(|(_, code)| *code == 0).count();
    ensure!(
        done > names.len() / 2,
        "only {done} of {} ended well:\n{}",
        names.len(),
        tail(&format!("{said}/dentry"))
    );
    // What ends badly does so outside as well, or meets the floor.
    let mut faults = Vec::new();
    for (name, inside) in ends.into_iter().filter(|(_, code)| !FINE.contains(code)) {
        let tail = |file: &str| tail(&format!("{said}/{file}"));
        let text = tail(name);
        let outside = one_outside(name, &disk.0, &format!("{said}/outside"))?;
        let known = MEETS_THE_FLOOR.iter().any(|(known, _)| *known == name);
        eprintln!("{name}: {inside} inside, {outside} outside{}", if known { ", as expected" } else { "" });
        if FINE.contains(&outside) && !known {
            faults.push(format!("{name}: {inside} inside, {outside} outside\n{text}\n{}", tail("outside")));
        }
    }
    let disk = disk.remove();
    let ended = watched.end();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ended.and(disk)
}

/// It was done, it needs what is not there, or it is not built in.
const FINE: [i32; 3] = [0, 3, 4];

/// `NAME CODE SECONDS`
fn ended(line: &str) -> Option<(&str, i32)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// The words that run one stressor.
fn one(name: &str, w: &str, log: &str) -> String {
    format!("timeout -k 5 {LIMIT} stress-ng --{name} 1 --temp-path {w} {EACH} >{log} 2>&1")
}

fn one_outside(name: &str, w: &str, log: &str) -> Outcome<i32> {
    let words = format!("cd {w}; {}", one(name, w, log));
    Ok(Command::new("sh").args(["-c", &words]).patience(LIMIT + 60).run()?.code.unwrap_or(-1))
}

fn tail(file: &str) -> String {
    let text = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(1_500)..]).into_owned()
}

/// Every stressor of the classes.
fn stressors() -> Outcome<Vec<String>> {
    let mut all = BTreeSet::new();
    for class in CLASSES {
        let ran = Command::new("stress-ng").args(["--class", &format!("{class}?")]).run()?;
        let text = format!("{}{}", ran.out, ran.err);
        let Some((_, names)) = text.split_once("stressors:") else { fail!("{class}: {ran}") };
        all.extend(names.split_whitespace().map(str::to_owned));
    }
    all.retain(|name| !WITHOUT.iter().any(|(without, _)| without == name));
    ensure!(all.len() > 100, "only {all:?}");
    Ok(all.into_iter().collect())
}

/// A file system of its own, in a file.
struct Disk(String, String);

impl Disk {
    fn make(t: &Test) -> Outcome<Self> {
        let (at, image) = (t.dir("w")?, t.at("image"));
        fs::File::create(&image)?.set_len(DISK)?;
        let disk = Self(at.clone(), image.clone());
        for words in [format!("mke2fs -q -F -t ext4 {image}"), format!("mount -o loop {image} {at}")] {
            let ran = Command::new("sh").args(["-c", &words]).run()?;
            ensure!(ran.code == Some(0), "{ran}");
        }
        Ok(disk)
    }

    /// Fails if somebody still uses it.
    fn remove(self) -> Outcome {
        let unmounted =
            || Command::new("umount").args([&self.0]).run().ok().filter(|ran| ran.code == Some(0));
        wait_for("a file system that nobody uses", 60, unmounted).map(drop).map_err(Failed::from)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).run();
        let _ = fs::remove_file(&self.1);
    }
}

/// An agent that is allowed everything, and what the kernel says and keeps meanwhile.
struct Watched {
    agent: Agent,
    memory: u64,
    daemon: (String, u64),
    messages: (Child, String),
    _quiet: NoLockups,
}

impl Watched {
    fn start(t: &Test) -> Outcome<Self> {
        let marker = promise::marker(t)?;
        let all = t.policy().allow("all", "/**").exec("/**").connect("*:*/*").bind("*:*/*");
        let agent: Agent = t.agent(all.deny("read", &marker))?;
        // Once before, so that what is made once is there.
        agent.run(&["/usr/bin/true".to_owned()])?;
        let file = t.at("kernel");
        let follow = format!("exec dmesg --follow-new >{file}");
        let messages = (Command::new("sh").args(["-c", &follow]).spawn()?, file);
        let (pid, _quiet) = (daemon()?, NoLockups::new()?);
        let daemon = (pid.clone(), resident(&pid)?);
        Ok(Self { agent, memory: unreclaimable()?, daemon, messages, _quiet })
    }

    /// Nothing but the floor refused anything in the session.
    fn refusals(&self, seconds: u64, mark: events::Mark, session: &str, marker: &str) -> Outcome {
        // The root of a file system that only the kernel mounts has no name, and is nobody's to open.
        let nameless =
            |record: &Value| record["reason"] == "unknown-object" && record["object"]["path"] == "/";
        // Nor has what lies deeper than can be told.
        let too_deep = |record: &Value| {
            let depth = record["object"]["path"].as_str().map_or(0, |path| path.matches('/').count());
            record["reason"] == "unknown-object" && depth > 100
        };
        // What the Enforcer keeps for itself is denied by rules that every policy has.
        let own = |record: &Value| {
            let rules = record["rule"].as_array().map(Vec::as_slice).unwrap_or_default();
            rules.iter().any(|rule| rule["text"].as_str().is_some_and(|text| text.contains(" at floor@1:")))
        };
        let (mut unexpected, floor) = (Vec::new(), RefCell::new(BTreeMap::<String, u64>::new()));
        let is_marker = |r: &Value| events::decides(r, session) && r["object"]["path"] == marker;
        events::follow(("the record about the marker", seconds), mark, is_marker, |record| {
            if !events::decides(record, session) || record["verdict"] == "allow" {
                return;
            }
            if record["reason"] == "floor" {
                let what = format!("{} {}", record["operation"], record["argument"]);
                *floor.borrow_mut().entry(what).or_default() += record["count"].as_u64().unwrap_or(1);
            } else if !nameless(record) && !too_deep(record) && !own(record) && unexpected.len() < 20 {
                unexpected.push(events::shown(record));
            }
        })?;
        eprintln!("refused by the floor: {:?}", floor.into_inner());
        ensure!(unexpected.is_empty(), "refused although everything is allowed:\n{}", unexpected.join("\n"));
        Ok(())
    }

    fn end(&mut self) -> Outcome {
        let _ = self.messages.0.kill();
        let _ = self.messages.0.wait();
        let said = fs::read_to_string(&self.messages.1)?;
        let bad = ["WARNING:", "BUG:", "Oops", "rcu_sched self-detected", "Call Trace"];
        let warned: Vec<&str> =
            said.lines().filter(|line| bad.iter().any(|word| line.contains(word))).collect();
        ensure!(warned.is_empty(), "the kernel warned: {}\n{}", warned.join("\n"), tail(&self.messages.1));
        let status = self.agent.status()?.unwrap_or_default();
        let gone =
            || self.agent.status().ok().flatten().filter(|agent| agent["sessions"] == serde_json::json!([]));
        wait_for("the end of the sessions", 120, gone).map_err(|e| format!("{e}: {status}"))?;
        ensure!(daemon()? == self.daemon.0, "another daemon runs than at the beginning");
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        let grown = || unreclaimable().map(|now| now.saturating_sub(self.memory)).unwrap_or(u64::MAX);
        // What goes after a grace period comes back late.
        let _ = wait_for("memory that comes back", 60, || (grown() <= KEPT).then_some(()));
        let (kernel, daemon) = (grown(), resident(&self.daemon.0)?.saturating_sub(self.daemon.1));
        eprintln!("more than before: {kernel} KiB of the kernel's memory, {daemon} KiB of the daemon's");
        ensure!(kernel <= KEPT, "{kernel} KiB of the kernel's memory did not come back");
        ensure!(daemon <= KEPT, "the daemon has {daemon} KiB more than before");
        Ok(())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.messages.0.kill();
        let _ = self.messages.0.wait();
    }
}

/// Kilobytes that may stay.
const KEPT: u64 = 64 * 1024;

/// Kilobytes of what the kernel keeps and cannot give back.
fn unreclaimable() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default()
    };
    Ok(["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:"].map(of).iter().sum())
}

/// The kernel warns of no CPU that seems to be stuck, until this goes: an emulated one is, whenever its host lets it wait.
struct NoLockups(Vec<(&'static str, String)>);

impl NoLockups {
    fn new() -> Outcome<Self> {
        let mut before = Self(Vec::new());
        let settings = [
            ("/proc/sys/kernel/watchdog", "0"),
            ("/proc/sys/kernel/hung_task_timeout_secs", "0"),
            ("/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress", "1"),
        ];
        for (file, value) in settings.into_iter().filter(|(file, _)| Path::new(file).exists()) {
            before.0.push((file, fs::read_to_string(file)?.trim().to_owned()));
            fs::write(file, value)?;
        }
        Ok(before)
    }
}

impl Drop for NoLockups {
    fn drop(&mut self) {
        self.0.iter().for_each(|(file, value)| drop(fs::write(file, value)));
    }
}
