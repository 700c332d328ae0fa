//! The configurations, one after another in one boot: nothing, twice; Landlock; AppArmor; ours, outside and inside
//! agents; programs that do nothing on the same hooks; nothing again. Every measurement is a process of its own.

use super::{Done, apparmor, ops, programs, rules};
use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// What the kernel does after a boot, and after programs were loaded or unloaded, is over by then.
const SETTLE: Duration = Duration::from_secs(12);
const PINS: &str = "/sys/fs/bpf/enforcer";
/// With how many rules others are measured.
const COMPARED: [usize; 2] = [10, 1_000];
const POLICIES: &str = "/etc/enforcer/policies.d";

/// Goes through them.
pub fn run(options: &[&str]) -> Done {
    let (mut full, mut only, mut wanted) = (false, Vec::new(), Wanted(Vec::new()));
    let mut rest = options;
    loop {
        rest = match rest {
            [] => break,
            ["--layers"] => return layers(),
            ["--full", rest @ ..] => {
                full = true;
                rest
            }
            ["--only", name, rest @ ..] => {
                only.push(*name);
                rest
            }
            ["--phase", name, rest @ ..] => {
                wanted.0.push(*name);
                rest
            }
            _ => return Err("phases takes --layers, or --full, --only NAME and --phase NAME".into()),
        };
    }
    let measure = |configuration: &str, agent: Option<&str>| {
        if wanted.has(configuration) { measure(configuration, agent, &only) } else { Ok(()) }
    };
    let sizes: &[usize] = if full { &[10, 1_000, 10_000] } else { &[10, 1_000] };
    prepare(sizes)?;
    with_layers("bench-usual-layers", "")?;
    write_policy("bench-holds", &rules::holding())?;
    thread::sleep(SETTLE);
    measure("nothing", None)?;
    measure("nothing again", None)?;
    for size in COMPARED {
        measure(&format!("landlock, {size} rules"), None)?;
    }
    if !apparmor::is_active()? {
        eprintln!("AppArmor is not active in this boot: left out");
    } else {
        for size in COMPARED.into_iter().filter(|size| wanted.has(&apparmor::name(*size))) {
            apparmor::load(size)?;
            measure(&apparmor::name(size), None)?;
            apparmor::unload(size)?;
        }
    }

    start()?;
    measure("outside", None)?;
    for size in sizes {
        measure(&format!("inside, {size} rules"), Some(&format!("bench-{size}")))?;
    }
    measure("inside, 10 rules, usual layers", Some("bench-usual-layers"))?;
    measure("inside, 20 rules, 10 hold", Some("bench-holds"))?;
    if wanted.has("records") {
        records()?;
    }
    let attached = programs::attached(Path::new(PINS))?;
    programs::print(&attached);
    command("systemctl", &["stop", "enforcer.service"])?;
    // Enforcement outlives the daemon; without its pins it ends.
    fs::remove_dir_all(PINS)?;
    let empty = programs::attach_empty(&attached)?;
    thread::sleep(SETTLE);
    measure("empty programs", None)?;
    drop(empty);
    thread::sleep(SETTLE);
    measure("nothing at the end", None)
}

/// What the layers around sessions cost: one after another, and without any.
fn layers() -> Done {
    prepare(&[10])?;
    let mut agents = Vec::new();
    for (name, seccomp, landlock) in [
        ("no layers", "none", "none"),
        ("seccomp unrecorded", "unrecorded", "none"),
        ("seccomp all", "all", "none"),
        ("landlock changes", "none", "changes"),
        ("landlock all", "none", "all"),
        ("both, unrecorded and changes", "unrecorded", "changes"),
    ] {
        let agent = format!("bench-layers-{}", agents.len());
        with_layers(&agent, &format!("seccomp: {seccomp}, landlock: {landlock}"))?;
        agents.push((name, agent));
    }
    thread::sleep(SETTLE);
    measure("nothing", None, &[])?;
    measure("nothing again", None, &[])?;
    start()?;
    for (name, agent) in agents {
        measure(&format!("inside, {name}"), Some(&agent), &[])?;
    }
    Ok(())
}

/// Starts the daemon, and waits until nothing more is to be attached.
fn start() -> Done {
    if let Err(error) = command("systemctl", &["start", "enforcer.service"]) {
        command("journalctl", &["--no-pager", "--unit=enforcer.service"])?;
        return Err(error);
    }
    while programs::some_wait(Path::new(PINS))? {
        thread::sleep(Duration::from_secs(1));
    }
    thread::sleep(SETTLE);
    Ok(())
}

/// Says by hook what operations cost inside an agent: how often each program runs and what a run takes, by the kernel's
/// own clock, which counts instructions too. A run's figure has the reading of that clock in it.
pub fn profile(operations: &[&str]) -> Done {
    prepare(&[10])?;
    start()?;
    let _statistics = programs::count_runs()?;
    let run = |only: &str| -> Result<(Vec<programs::Runs>, u64), Box<dyn std::error::Error>> {
        let _listener = listen()?;
        let before = programs::attached(Path::new(PINS))?;
        let output = Command::new("enforcer")
            .args(["exec", "bench-10", "--", rules::SELF, "measure", "profile", only])
            .stdin(Stdio::null())
            .output()?;
        let after = programs::attached(Path::new(PINS))?;
        let mut times = 0;
        for line in String::from_utf8(output.stdout)?.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            times += line["operations"].as_u64().unwrap_or(0);
        }
        Ok((programs::between(&before, &after), times))
    };
    // What starting and ending the process takes.
    let (without, _) = run("clock")?;
    for operation in operations {
        let (with, times) = run(operation)?;
        if times == 0 {
            return Err(format!("no operation begins with {operation:?}").into());
        }
        println!("{operation}: program, runs an operation, instructions a run, instructions an operation");
        for ((name, runs, took), (_, runs_without, took_without)) in with.iter().zip(&without) {
            let runs = runs.saturating_sub(*runs_without);
            let took = took.saturating_sub(*took_without) as f64;
            let often = runs as f64 / times as f64;
            if often >= 0.2 {
                let (each, all) = (took / runs as f64, took / times as f64);
                println!("  {name:<28}{often:>8.2}{each:>10.0}{all:>10.0}");
            }
        }
    }
    Ok(())
}

/// An agent with ten rules, whose sessions have these layers: keys of `launch`, or nothing for the usual ones.
fn with_layers(agent: &str, keys: &str) -> Done {
    let launch = format!("launch: {{ by: [uid:root], {keys} }}").replace(",  }", " }");
    write_policy(agent, &rules::policy(10).replace(rules::LAUNCH, &launch))
}

/// A policy that was made for `bench-10`, for another agent.
fn write_policy(agent: &str, policy: &str) -> Done {
    fs::write(format!("{POLICIES}/{agent}.yaml"), policy.replace("id: bench-10,", &format!("id: {agent},")))?;
    Ok(())
}

/// What the daemon does for the record of one refusal: the difference between many and few of them.
fn records() -> Done {
    const MORE: u64 = 2_000;
    let shown =
        Command::new("systemctl").args(["show", "--property=MainPID", "--value", "enforcer"]).output()?;
    let daemon = String::from_utf8(shown.stdout)?;
    let took = |count: u64| -> Result<u64, Box<dyn std::error::Error>> {
        let before = busy(daemon.trim())?;
        command("enforcer", &["exec", "bench-10", "--", rules::SELF, "refused", &count.to_string()])?;
        thread::sleep(Duration::from_secs(3));
        Ok(busy(daemon.trim())? - before)
    };
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let (few, many) = (took(10)?, took(10 + MORE)?);
        rounds.push((many as f64 - few as f64) / MORE as f64);
    }
    println!(
        "{}",
        serde_json::json!({
            "configuration": "inside, 10 rules", "operation": "denied, in the daemon", "rounds": rounds,
        })
    );
    Ok(())
}

/// Nanoseconds, which are instructions, that all threads of a process have run.
fn busy(process: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let statistics = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += statistics.split(' ').next().unwrap_or("").parse::<u64>()?;
    }
    Ok(sum)
}

/// Makes the files and writes the policies.
pub fn prepare(sizes: &[usize]) -> Done {
    fs::create_dir_all(rules::ROOT)?;
    command("mount", &["-t", "tmpfs", "tmpfs", rules::ROOT])?;
    ops::populate()?;
    for size in sizes {
        fs::write(format!("{POLICIES}/bench-{size}.yaml"), rules::policy(*size))?;
    }
    Ok(())
}

/// Which configurations are measured: those whose name begins with one of these, or all. The first base always is.
struct Wanted<'a>(Vec<&'a str>);

impl Wanted<'_> {
    fn has(&self, configuration: &str) -> bool {
        self.0.is_empty()
            || configuration == "nothing"
            || self.0.iter().any(|start| configuration.starts_with(start))
    }
}

fn measure(configuration: &str, agent: Option<&str>, only: &[&str]) -> Done {
    eprintln!("measuring: {configuration}");
    let _listener = listen()?;
    let what = [&["measure", configuration], only].concat();
    match agent {
        None => command(rules::SELF, &what),
        Some(agent) => command("enforcer", &[&["exec", agent, "--", rules::SELF], &what[..]].concat()),
    }
}

/// Listens, outside every agent, on a unix socket with room for all connections of one measurement.
fn listen() -> io::Result<UnixListener> {
    match fs::remove_file(rules::SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(rules::SOCKET)?;
    // SAFETY: a descriptor and a number.
    if unsafe { libc::listen(listener.as_raw_fd(), 1_024) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

fn command(program: &str, arguments: &[&str]) -> Done {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("{program} {}: {status}", arguments.join(" ")).into());
    }
    Ok(())
}
