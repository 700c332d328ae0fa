//! What sessions hold open after their policy got tighter: lists and kills, in a hierarchy that is a directory.

use super::World;
use crate::{control::message::State, daemon::enforcement::AgentSlot};
use enforcer_common::map::{Session, TierMap};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command},
};
use zerocopy::FromZeros;

/// A session of the agent in place 0 with one process that has a file open as its standard input.
struct Session1 {
    world: World,
    cgroup: PathBuf,
    file: PathBuf,
    child: Child,
}

impl Session1 {
    fn new(first: &str) -> Self {
        let world = World::new();
        let file = world.dir.path().join("data/kept");
        fs::create_dir_all(file.parent().expect("parent")).expect("dir");
        fs::write(&file, "x").expect("write");
        let cgroup = world.dir.path().join("cgroups/agents.slice/one");
        fs::create_dir_all(&cgroup).expect("cgroup");
        let child =
            Command::new("sleep").arg("1000").stdin(File::open(&file).expect("open")).spawn().expect("sleep");
        fs::write(cgroup.join("cgroup.procs"), format!("{}\n", child.id())).expect("procs");
        fs::write(cgroup.join("cgroup.events"), "populated 0\n").expect("events");
        let mut this = Self { world, cgroup, file, child };
        this.policy(1, first);
        let mut session = Session::new_zeroed();
        (session.version, session.agent, session.generation, session.id) = (1, 0, 1, [7, 1]);
        session.cgroup = fs::metadata(&this.cgroup).expect("meta").ino();
        session.tiers = TierMap { allow: [u16::MAX; 3], hold: [0; 3], level: 1 };
        this.world.told().sessions.insert(1, session);
        this
    }

    fn policy(&mut self, version: u32, rest: &str) {
        let data = self.file.parent().expect("parent").display().to_string();
        let rest = rest.replace("DATA", &data);
        let text = format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: a, version: {version}, owner: a@example.com, purpose: Test }}\n{rest}"
        );
        self.world.write("a.yaml", &text);
        let outcome = self.world.core.reload();
        assert!(outcome.problems.is_empty() && outcome.published == ["a"], "{outcome:?}");
        assert_eq!(self.world.core.agent("a").map(|a| a.slot), Some(AgentSlot(0)));
    }

    fn listed(&self) -> Vec<(String, String)> {
        let agents = self.world.core.agent_list();
        agents[0].left_open.iter().map(|one| (one.how.clone(), one.object.clone())).collect()
    }

    fn record(&self) -> Option<Value> {
        let log = self.world.log.0.borrow();
        log.iter().rfind(|record| record["kind"] == "policy-tightened").cloned()
    }
}

impl Drop for Session1 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WIDE: &str = "files:\n  - { allow: [read, write], paths: ['DATA/**'] }\n";
const NARROW: &str = "files:\n  - { allow: [read], paths: ['/elsewhere'] }\n";

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_a_tighter_policy_refuses_is_listed_until_it_is_closed() {
    let mut session = Session1::new(WIDE);
    assert!(session.record().is_none(), "the first policy tightens nothing");
    session.policy(2, NARROW);
    assert_eq!(session.listed(), [("descriptor".to_owned(), shown(&session.file))]);
    let record = session.record().expect("a record");
    assert_eq!((&record["source"], &record["on_tighten"]), (&"proc".into(), &"list".into()));
    assert_eq!(record["left_open"][0]["access"], serde_json::json!(["read"]));
    assert_eq!(record["killed"], serde_json::json!([]));
    session.world.core.note_canary(Ok(()));
    let status = session.world.core.status();
    assert_eq!(status.state, State::Degraded);
    assert!(status.problems.iter().any(|p| p.contains("1 things open")), "{:?}", status.problems);
    // A third policy that says nothing new about it: it is open as before.
    session.policy(3, &format!("{NARROW}  - {{ allow: [write], paths: ['/more'] }}\n"));
    session.world.core.look_at_open_again(true);
    assert_eq!(session.listed().len(), 1);
    session.child.kill().expect("kill");
    session.child.wait().expect("wait");
    session.world.core.look_at_open_again(true);
    assert!(session.listed().is_empty() && session.world.core.status().state == State::Enforcing);
}

#[test]
fn a_wider_policy_and_one_in_audit_mode_leave_nothing_open() {
    let mut session = Session1::new(WIDE);
    session.policy(2, &format!("{WIDE}  - {{ allow: [read], paths: ['/more'] }}\n"));
    session.policy(3, &format!("mode: audit\n{NARROW}"));
    assert!(session.listed().is_empty() && session.record().is_none());
}

#[test]
fn whoever_holds_open_what_is_refused_is_killed_before_the_policy_counts() {
    let mut session = Session1::new(WIDE);
    let kill = session.cgroup.join("cgroup.kill");
    fs::write(&kill, "").expect("file");
    session.policy(2, &format!("on_tighten: kill\n{WIDE}  - {{ allow: [read], paths: ['/more'] }}\n"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "", "nothing is refused that was allowed");
    session.policy(3, &format!("on_tighten: kill\n{NARROW}"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "1");
    let record = session.record().expect("a record");
    assert_eq!(record["killed"].as_array().map(Vec::len), Some(1), "{record}");
    assert_eq!(record["still_ending"], serde_json::json!([]));
    let kinds = session.world.kinds();
    let last = |kind: &str| kinds.iter().rposition(|other| other == kind);
    assert!(last("policy-tightened") < last("policy-published"), "{kinds:?}");
}

#[test]
fn a_session_that_cannot_be_looked_at_is_killed_too() {
    let mut session = Session1::new(WIDE);
    let kill = session.cgroup.join("cgroup.kill");
    fs::write(&kill, "").expect("file");
    // Processes that cannot be told.
    fs::remove_file(session.cgroup.join("cgroup.procs")).expect("remove");
    fs::create_dir(session.cgroup.join("cgroup.procs")).expect("dir");
    session.policy(2, &format!("on_tighten: kill\n{NARROW}"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "1");
    assert!(!session.record().expect("a record")["problems"].as_array().expect("list").is_empty());
}

#[test]
fn a_change_while_no_daemon_ran_is_noticed_too() {
    let mut session = Session1::new(WIDE);
    session.world.restart();
    session.policy(2, NARROW);
    assert_eq!(session.listed().len(), 1);
}

#[test]
fn a_tightening_that_a_daemon_did_not_finish_is_finished_by_the_next() {
    let mut session = Session1::new(WIDE);
    let kill = session.cgroup.join("cgroup.kill");
    fs::write(&kill, "").expect("file");
    session.policy(2, &format!("on_tighten: kill\n{NARROW}"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "1");
    fs::write(&kill, "").expect("file");
    // The second look, for what was being opened during the first, has not come yet.
    session.world.restart();
    session.policy(2, &format!("on_tighten: kill\n{NARROW}"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "1", "the same policy again");
    session.world.core.look_at_open_again(false);
    fs::write(&kill, "").expect("file");
    session.world.restart();
    session.policy(2, &format!("on_tighten: kill\n{NARROW}"));
    assert_eq!(fs::read_to_string(&kill).expect("read"), "", "that has been done");
}
