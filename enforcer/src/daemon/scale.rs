//! What many agents cost the daemon: reading, publishing, resting, retiring. The kernel side is in memory, so what the
//! kernel's tables take is not in it. Measured; asserted only is that it grows no faster than the number of agents.
//!
//! `cargo test --release --package enforcer --lib scale -- --ignored --nocapture --test-threads=1`

use super::{canary::Canary, core::Core, fake::Fake, throughput::settings};
use crate::audit::Recorder;
use std::{
    fs,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

/// A policy such as `tests/src/promises/scale.rs` has many of. `own`: with a path that no other has, so that no two share
/// tables.
fn policy(number: usize, own: bool) -> String {
    let path = if own { format!("/srv/agents/{number}/**") } else { "/srv/agents/all/**".to_owned() };
    format!(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
         metadata: {{ id: many-{number}, version: 1, owner: t, purpose: be many }}\n\
         match: {{ cgroup: '/agents.slice/many-{number}.service' }}\ninclude: [base@1]\n\
         files:\n  - {{ allow: [read, write, create], paths: ['{path}'] }}\n\
         exec:\n  - {{ allow: ['/usr/bin/true'] }}\nnetwork:\n  - {{ allow: [connect], to: ['192.0.2.0/24:443/tcp'] }}\n"
    )
}

fn core(dir: &Path, fake: &Fake) -> Core {
    let settings = settings(dir);
    let program = Path::new("/proc/self/exe");
    let canary = Canary::prepare(&settings, program).expect("canary");
    let log = Recorder::open(&settings).expect("log");
    Core::new(Rc::new(settings), program.to_owned(), canary, Box::new(fake.clone()), Box::new(log))
        .expect("core")
}

/// Kilobytes of this process in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// CPU time, which other work on the machine does not change.
fn timed(what: &str, act: impl FnOnce()) -> Duration {
    let busy = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock");
    let (begun, before) = (Instant::now(), busy());
    act();
    let took = Duration::from(busy() - before);
    let all = begun.elapsed().as_millis();
    println!("  {what}: {} ms of a CPU, {all} ms in all, {} kB", took.as_millis(), resident());
    took
}

/// Publishes that many, starts another daemon on them, and retires them.
fn measure(count: usize, own: bool) -> [Duration; 3] {
    let dir = tempfile::tempdir().expect("dir");
    for name in ["policies.d", "state", "cgroups/agents.slice"] {
        fs::create_dir_all(dir.path().join(name)).expect("dir");
    }
    println!(
        "{count} agents, {}: {} kB",
        if own { "tables of their own" } else { "shared tables" },
        resident()
    );
    let fake = Fake::default();
    let policies = dir.path().join("policies.d");
    let mut first = core(dir.path(), &fake);
    for number in 0..count {
        fs::write(policies.join(format!("many-{number}.yaml")), policy(number, own)).expect("write");
    }
    let published = timed("published", || assert_eq!(first.reload().published.len(), count));
    timed("read again", || assert!(first.reload().published.is_empty()));
    drop(first);
    let mut next = core(dir.path(), &fake);
    let restarted = timed("published by the next daemon", || drop(next.reload()));
    fs::remove_dir_all(&policies).expect("remove");
    let retired = timed("retired", || assert_eq!(next.reload().retired.len(), count));
    [published, restarted, retired]
}

#[test]
#[ignore = "a measurement"]
fn ten_times_as_many_agents_take_about_ten_times_as_long() {
    for own in [true, false] {
        let few = measure(1_000, own);
        let many = measure(10_000, own);
        for (few, many) in few.iter().zip(many) {
            assert!(many < *few * 20, "{few:?} for a thousand, {many:?} for ten thousand");
        }
    }
}
