//! What the daemon does with policies, sessions and records, on a kernel side in memory.

use super::{
    canary::{Canary, Silence},
    core::{Core, boot_time},
    enforcement::{AgentSlot, Hook},
    fake::{Fake, Told},
    proof, serve,
};
use crate::{
    audit::{Sink, acts},
    control::message::State,
    event::decode::tests::record,
    settings::Settings,
};
use enforcer_common::{event::kind, map::Session};
use serde_json::Value;
use std::{
    cell::{RefCell, RefMut},
    fs,
    io::{Read, Write},
    path::Path,
    rc::Rc,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zerocopy::FromZeros;

#[path = "tests_arguments.rs"]
mod arguments;
#[path = "break_glass_tests.rs"]
mod break_glass;
#[path = "tests_first_use.rs"]
mod first_use;
#[path = "tests_left_open.rs"]
mod left_open;
#[path = "tests_many.rs"]
mod many;
#[path = "metrics_tests.rs"]
mod metrics;

/// Records in memory, and why they cannot be written.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<Value>>>, Rc<RefCell<Option<&'static str>>>);
impl Sink for Memory {
    fn append(&mut self, record: &Value) {
        self.0.borrow_mut().push(record.clone());
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.1.borrow().map_or(Ok(()), |why| Err(std::io::Error::other(why)))
    }
    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn lost(&self) -> u64 {
        0
    }
}

struct World {
    dir: tempfile::TempDir,
    fake: Fake,
    log: Memory,
    core: Core,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        for name in ["policies.d", "state", "cgroups/agents.slice"] {
            fs::create_dir_all(dir.path().join(name)).expect("dir");
        }
        let (fake, log) = (Fake::default(), Memory::default());
        let core = start(dir.path(), &fake, &log);
        Self { dir, fake, log, core }
    }

    fn restart(&mut self) {
        self.core = start(self.dir.path(), &self.fake, &self.log);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("policies.d").join(name), text).expect("write");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join("policies.d").join(name)).expect("remove");
    }

    fn told(&self) -> RefMut<'_, Told> {
        self.fake.0.borrow_mut()
    }

    fn in_force(&self) -> Vec<(String, u64)> {
        self.told().agents.values().map(|(name, policy)| (name.clone(), policy >> 32)).collect()
    }

    fn kinds(&self) -> Vec<String> {
        let text = |record: &Value| record["kind"].as_str().unwrap_or_default().to_owned();
        self.log.0.borrow().iter().map(text).collect()
    }
}

fn start(dir: &Path, fake: &Fake, log: &Memory) -> Core {
    let mut settings = Settings::default();
    // The host's files are none of these tests' matter.
    settings.agents.link_seconds = 0;
    settings.paths.policies = dir.join("policies.d");
    settings.paths.state = dir.join("state");
    settings.paths.cgroups = dir.join("cgroups");
    let program = Path::new("/proc/self/exe");
    let canary = Canary::prepare(&settings, program).expect("canary");
    let (enforcement, audit) = (Box::new(fake.clone()), Box::new(log.clone()));
    Core::new(Rc::new(settings), program.to_owned(), canary, enforcement, audit).expect("core")
}

fn policy(agent: &str, version: u32, glob: &str) -> String {
    format!(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
         metadata: {{ id: {agent}, version: {version}, owner: a@example.com, purpose: Test }}\n\
         match: {{ cgroup: \"{glob}\" }}\n\
         files:\n  - {{ allow: [read], paths: [\"/workspace/**\"] }}\n\
         \x20 - {{ deny: [read], paths: [\"**/.env\"], because: secrets }}\n"
    )
}

#[test]
fn the_kernel_is_told_where_agents_live_and_who_may_prepare_them() {
    let world = World::new();
    assert_eq!(world.told().roots[0].path, "/agents.slice");
    let own = fs::canonicalize("/proc/self/exe").expect("own");
    assert!(world.told().executors.contains(&own), "the launch helper must be an executor");
}

#[test]
fn policies_are_published_once_and_again_when_they_change() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    assert_eq!(world.core.reload().published, ["a"]);
    assert_eq!(world.core.reload().published, Vec::<String>::new());
    world.write("a.yaml", &policy("a", 2, "/agents.slice/a/*"));
    assert_eq!(world.core.reload().published, ["a"]);
    assert_eq!(world.in_force(), [("a".to_owned(), 2)]);
    assert_eq!(world.told().matchers, 1, "the globs have not changed");
}

#[test]
fn what_the_kernel_side_says_is_in_the_status() {
    let mut world = World::new();
    world.core.note_canary(Ok(()));
    assert_eq!(world.core.status().state, State::Enforcing);
    world.told().health.pins_gone.push("META".to_owned());
    world.told().health.missed.insert("mnt_want_write".to_owned(), 1);
    let status = world.core.status();
    assert_eq!((status.state, status.problems.len()), (State::Degraded, 2), "{:?}", status.problems);
    let gone = Hook { name: "path_unlink".to_owned(), required: true, attached: false, note: String::new() };
    world.told().health.hooks.push(gone);
    assert_eq!(world.core.status().state, State::NotEnforcing);
}

#[test]
fn a_change_that_nobody_has_told_of_is_noticed() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    let before = world.kinds().len();
    world.core.reload_what_is_stale();
    assert_eq!(world.kinds().len(), before, "nothing has changed");
    world.write("a.yaml", &policy("a", 2, "/agents.slice/a/*"));
    world.core.reload_what_is_stale();
    assert_eq!(world.in_force(), [("a".to_owned(), 1)], "it may still be written");
    world.core.reload_what_is_stale();
    assert_eq!(world.in_force(), [("a".to_owned(), 2)]);
}

#[test]
fn another_kernel_is_recorded_once() {
    let mut world = World::new();
    world.core.note_kernel();
    assert!(!world.kinds().contains(&"kernel-changed".to_owned()), "there was none before");
    fs::write(world.dir.path().join("state/kernel"), "6.1.0-old").expect("write");
    world.core.note_kernel();
    world.core.note_kernel();
    assert_eq!(world.kinds().iter().filter(|kind| *kind == "kernel-changed").count(), 1);
}

#[test]
fn a_file_that_breaks_leaves_the_last_good_policy_in_force() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    world.write("a.yaml", "kind: AgentPolicy\nnonsense: 1\n");
    let outcome = world.core.reload();
    assert!(outcome.retired.is_empty() && outcome.problems[0].contains("a.yaml:2:1"), "{outcome:?}");
    assert_eq!(world.in_force(), [("a".to_owned(), 1)]);
    world.core.note_canary(Ok(()));
    assert_eq!(world.core.status().state, State::Degraded);
}

#[test]
fn a_broken_file_keeps_its_agent_across_a_restart_and_a_repaired_one_replaces_it() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    world.write("a.yaml", "broken: [");
    world.restart();
    let outcome = world.core.reload();
    assert_eq!(outcome.retired, Vec::<String>::new());
    assert!(!outcome.problems.is_empty());
    assert_eq!(world.core.agent("a").map(|a| a.policy.head().version()), Some(1));
    world.write("a.yaml", &policy("a", 3, "/agents.slice/a/*"));
    assert_eq!(world.core.reload().problems, Vec::<String>::new());
    assert_eq!(world.core.agent("a").map(|a| a.policy.head().version()), Some(3));
}

#[test]
fn a_file_that_was_never_good_gives_its_agent_nothing() {
    let mut world = World::new();
    world.write("a.yaml", "broken: [");
    assert!(!world.core.reload().problems.is_empty());
    assert!(world.in_force().is_empty() && world.core.agent("a").is_none());
}

#[test]
fn an_agent_without_a_file_is_retired_and_keeps_its_place() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    world.remove("a.yaml");
    assert_eq!(world.core.reload().retired, ["a"]);
    assert_eq!(world.in_force(), [("a".to_owned(), 0)]);
    assert_eq!(world.core.reload().retired, Vec::<String>::new());
    world.write("b.yaml", &policy("b", 1, "/agents.slice/b/*"));
    world.core.reload();
    assert_eq!(world.core.agent("b").map(|b| b.slot), Some(AgentSlot(1)));
}

#[test]
fn agents_of_an_earlier_daemon_are_adopted_by_name() {
    let mut world = World::new();
    world.write("b.yaml", &policy("b", 1, "/agents.slice/b/*"));
    world.told().agents.insert(AgentSlot(4), ("b".to_owned(), 9 << 32));
    world.told().agents.insert(AgentSlot(6), ("gone".to_owned(), 8 << 32));
    world.restart();
    assert_eq!(world.core.reload().retired, ["gone"]);
    assert_eq!(world.core.agent("b").map(|b| b.slot), Some(AgentSlot(4)));
}

#[test]
fn overlapping_agents_are_named_and_the_earlier_matcher_stays() {
    let mut world = World::new();
    world.write("a.yaml", &policy("aa", 1, "/agents.slice/x/*"));
    world.core.reload();
    world.write("b.yaml", &policy("bb", 1, "/agents.slice/*/1"));
    let outcome = world.core.reload();
    assert!(outcome.problems.iter().any(|p| p.contains("`aa`") && p.contains("`bb`")), "{outcome:?}");
    assert_eq!(world.told().matchers, 1);
    world.write("b.yaml", &policy("bb", 1, "/agents.slice/y/*"));
    assert_eq!(world.core.reload().problems, Vec::<String>::new());
    assert_eq!(world.told().matchers, 2);
}

#[test]
fn a_policy_that_does_not_fit_leaves_the_earlier_one_in_force() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    world.told().full = true;
    world.write("a.yaml", &policy("a", 2, "/agents.slice/a/*"));
    let outcome = world.core.reload();
    assert!(outcome.problems[0].contains("the earlier one stays"), "{outcome:?}");
    assert_eq!(world.core.agent("a").map(|a| a.policy.head().version()), Some(1));
    world.told().full = false;
    assert_eq!(world.core.reload().published, ["a"]);
}

#[test]
fn a_denial_becomes_a_record_with_its_rule() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    let bytes = record(b"/workspace/.env", b"/usr/bin/cat", |h| (h.agent, h.policy) = (0, 1));
    world.told().records.push(bytes);
    world.told().records.push(b"nonsense".to_vec());
    world.core.drain();
    let log = world.log.0.borrow();
    let event = log.iter().find(|r| r["kind"] == "decision").expect("recorded");
    assert_eq!((&event["agent"], &event["policy"]["id"]), (&Value::from("a"), &Value::from("a")));
    assert_eq!(event["rule"].as_array().map(Vec::len), Some(1), "the deciding rule alone");
    let rule = event["rule"][0]["text"].as_str().expect("the denying rule");
    assert!(rule.starts_with("deny read **/.env"), "{rule}");
    assert_eq!(event["rule"][0]["because"], "secrets");
    assert!(log.iter().any(|r| r["kind"] == "malformed"));
}

#[test]
fn records_of_a_time_without_a_daemon_name_their_policy_and_its_rules() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    let refused = |number| record(b"/workspace/.env", b"/usr/bin/cat", |h| (h.agent, h.policy) = (0, number));
    world.told().records.push(refused(1));
    // The file changes too while there is no daemon.
    world.write("a.yaml", &policy("a", 2, "/agents.slice/a/*"));
    world.restart();
    world.core.reload();
    world.told().records.push(refused(2));
    world.told().records.push(refused(3));
    world.core.drain();
    let log = world.log.0.borrow();
    let events: Vec<&Value> = log.iter().filter(|r| r["kind"] == "decision").collect();
    let versions: Vec<&Value> = events.iter().map(|event| &event["policy"]["version"]).collect();
    assert_eq!(versions, [&Value::from(1), &Value::from(2), &Value::Null]);
    assert!(events[0]["rule"][0]["text"].as_str().expect("text").starts_with("deny read **/.env"));
    assert_eq!(events[2]["rule"], "unknown", "nothing is guessed");
}

#[test]
fn a_policy_that_was_not_published_leaves_no_number() {
    let mut world = World::new();
    world.told().full = true;
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    let noted = || fs::read_dir(world.dir.path().join("state/published")).map_or(0, Iterator::count);
    assert_eq!(noted(), 0);
}

#[test]
fn repeated_denials_are_recorded_once_and_then_together() {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.core.reload();
    let begin = u64::try_from(boot_time()).expect("boot time") - 5_000_000_000;
    for n in 0..1000 {
        let path: &[u8] = if n % 10 == 9 { b"/workspace/b/.env" } else { b"/workspace/a/.env" };
        world.told().records.push(record(path, b"/usr/bin/cat", |h| {
            (h.agent, h.policy, h.time) = (0, 1, begin + n * 4_000_000);
        }));
    }
    let mut turns = 1;
    while world.core.drain().more {
        turns += 1;
    }
    assert_eq!(turns, 4, "256 records a turn");
    let log = world.log.0.borrow();
    let of = |path: &str| {
        let mine = |r: &&Value| r["kind"] == "decision" && r["object"]["path"] == path;
        log.iter().filter(mine).cloned().collect::<Vec<Value>>()
    };
    for (path, attempted) in [("/workspace/a/.env", 900), ("/workspace/b/.env", 100)] {
        let records = of(path);
        assert_eq!(records.iter().map(|r| acts(r.get("count"))).sum::<u64>(), attempted);
        assert_eq!(records.len(), 8, "two for each of four seconds");
        assert!(records[0]["count"].is_null() && records[1]["count"].is_u64());
        let (first, last) = (records[1]["first"].as_str().expect("first"), records[1]["last"].as_str());
        assert!(Some(first) < last && last == records[1]["time"].as_str());
        assert_eq!(records[1]["rule"], records[0]["rule"]);
    }
}

#[test]
fn what_still_gathers_at_the_end_is_recorded() {
    let mut world = World::new();
    // Of an hour from now, so that its second is not over, however slow this is.
    let time = u64::try_from(boot_time()).expect("boot time") + 3_600_000_000_000;
    for n in 0..3 {
        world.told().records.push(record(b"/x", b"", |h| h.time = time + n));
    }
    world.core.drain();
    assert_eq!(world.kinds().iter().filter(|k| *k == "decision").count(), 1);
    world.core.drain_all();
    let log = world.log.0.borrow();
    assert_eq!(log.last().map(|r| acts(r.get("count"))), Some(2));
}

#[test]
fn losses_are_recorded_once_each() {
    let mut world = World::new();
    world.told().lost.insert(AgentSlot(0), (3, 1));
    world.core.note_losses();
    world.core.note_losses();
    let lost = |world: &World| world.kinds().iter().filter(|k| *k == "lost").count();
    assert_eq!((lost(&world), world.core.status().lost.decisions), (1, 3));
    world.restart();
    world.core.note_losses();
    assert_eq!(lost(&world), 1, "the daemon before has told that");
    // What was lost while none ran.
    world.told().lost.insert(AgentSlot(0), (5, 1));
    world.restart();
    world.core.note_losses();
    assert_eq!((lost(&world), world.core.status().lost.decisions), (2, 2));
}

#[test]
fn sessions_whose_cgroup_is_gone_are_ended() {
    let mut world = World::new();
    let root = world.dir.path().join("cgroups/agents.slice");
    let alive = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&root).expect("root"));
    for (slot, cgroup) in [(1, alive), (2, u64::MAX)] {
        let mut session = Session::new_zeroed();
        session.cgroup = cgroup;
        world.told().sessions.insert(slot, session);
    }
    world.told().records.push(record(b"", b"", |h| h.kind = kind::SESSION_REMOVED));
    world.core.drain();
    assert!(world.core.sweep_due());
    world.core.sweep();
    assert_eq!(world.told().sessions.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn left_over_cgroups_are_removed_but_not_those_of_a_launch() {
    let mut world = World::new();
    let root = world.dir.path().join("cgroups/agents.slice");
    for name in ["session-a-1", "session-a-2", "other"] {
        fs::create_dir(root.join(name)).expect("dir");
    }
    world.core.set_launching(root.join("session-a-2"), true);
    world.core.sweep();
    assert!(!root.join("session-a-1").exists());
    assert!(root.join("session-a-2").exists() && root.join("other").exists());
}

#[test]
fn without_a_refused_canary_nothing_is_enforced() {
    let mut world = World::new();
    assert_eq!(world.core.status().state, State::NotEnforcing);
    world.core.note_canary(Ok(()));
    assert_eq!(world.core.status().state, State::Enforcing);
    world.core.note_canary(Err(Silence::NotRefused));
    assert_eq!(world.core.status().state, State::NotEnforcing);
    assert!(world.core.no_proof().is_some());
}

#[path = "tests_unwritten.rs"]
mod unwritten;

#[test]
fn the_canarys_cgroup_stays_nobodys() {
    let mut world = World::new();
    let id = world.core.canary.cgroup().expect("canary");
    let mut session = Session::new_zeroed();
    session.cgroup = id;
    world.told().sessions.insert(1, session);
    world.core.free_canary().expect("freed");
    assert!(world.told().sessions.is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn a_proof_needs_the_refusals_record_with_its_agent_and_session() {
    let World { dir, fake, log: _, mut core } = World::new();
    // A canary that sings as if it had been refused: what is tested is the record.
    core.canary = Canary::prepare(&core.settings, Path::new("/bin/true")).expect("canary");
    let core = Rc::new(RefCell::new(core));
    let root = dir.path().join("cgroups/agents.slice");
    assert_eq!(proof::prove_first(&core).await, Ok(()));
    assert_eq!(core.borrow().status().state, State::Enforcing);
    assert_eq!(core.borrow().status().agents, 0, "the daemon's own agent is not listed");
    assert!(fake.0.borrow().sessions.is_empty() && root.join("enforcer-canary").exists());

    fake.0.borrow_mut().mute = true;
    assert_eq!(proof::round(&core).await, Err(Silence::NoRecord));
    assert_eq!(proof::prove_first(&core).await, Err(Silence::NoRecord));
    assert_eq!(core.borrow().status().state, State::NotEnforcing);
    let failure = crate::cli::exit::Failure::from(Silence::NoRecord);
    assert_eq!(failure.exit as u8, 71);

    let settings = Rc::clone(&core.borrow().settings);
    let silent = Canary::prepare(&settings, Path::new("/bin/false")).expect("canary");
    core.borrow_mut().canary = silent;
    assert!(matches!(proof::round(&core).await, Err(Silence::CannotTell(_))));
}

#[test]
fn the_daemons_own_agent_outlives_a_reload() {
    let mut world = World::new();
    world.told().agents.insert(AgentSlot(3), ("enforcer-canary".to_owned(), 5 << 32));
    world.restart();
    assert_eq!(world.core.reload().retired, Vec::<String>::new());
    assert_eq!(world.in_force(), [("enforcer-canary".to_owned(), 5)]);
}

#[tokio::test(flavor = "current_thread")]
async fn others_are_served_while_a_flood_never_ends() {
    let World { dir: _dir, fake, log: _, core } = World::new();
    fake.0.borrow_mut().flood = Some(record(b"/workspace/.env", b"/usr/bin/cat", |_| ()));
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("nonblocking");
    let mut ours = tokio::net::UnixStream::from_std(ours).expect("stream");
    let client = std::thread::spawn(move || {
        (0..20).for_each(|_| {
            theirs.write_all(b"?").expect("ask");
            theirs.read_exact(&mut [0]).expect("answer");
        });
    });
    let served = async {
        for _ in 0..20 {
            ours.read_exact(&mut [0]).await.expect("question");
            ours.write_all(b"!").await.expect("answer");
        }
    };
    let local = tokio::task::LocalSet::new();
    local.spawn_local(serve::drain(Rc::new(RefCell::new(core)), Rc::default()));
    let patience = std::time::Duration::from_secs(120);
    tokio::time::timeout(patience, local.run_until(served)).await.expect("served in time");
    client.join().expect("client");
}

#[test]
fn a_new_session_may_ask_whatever_the_one_before_it_in_the_same_place_had_left() {
    let mut world = World::new();
    world.told().quotas.insert(1, 0);
    let tiers = enforcer_common::map::TierMap { allow: [0; 3], hold: [0; 3], level: 0 };
    let session = world.core.bind(4711, [7, 1], AgentSlot(0), tiers).expect("bound");
    assert_eq!((session.slot, world.told().quotas[&1]), (1, 16));
}
