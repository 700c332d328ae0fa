//! What happens while the log cannot be written.

use super::*;
use crate::settings::OnFailure;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A world with a session of an agent that is trusted, on a cgroup that can be frozen.
fn world(action: OnFailure) -> (World, PathBuf) {
    let mut world = World::new();
    let mut settings = (*world.core.settings).clone();
    settings.audit.on_failure = action;
    world.core.settings = Rc::new(settings);
    world.write("probe.yaml", &policy("probe", 1, "/agents.slice/session-a-*"));
    world.core.reload();
    let path = world.dir.path().join("cgroups/agents.slice/session-a-1");
    fs::create_dir_all(&path).expect("cgroup");
    fs::write(path.join("cgroup.freeze"), "0").expect("file");
    let id = fs::metadata(&path).expect("cgroup").ino();
    let agent = world.core.agent("probe").expect("agent").clone();
    let tiers = world.core.tiers(&agent);
    world.core.bind(id, [7, 1], agent.slot, tiers).expect("bound");
    (world, path)
}

fn tiers(world: &World) -> ([u16; 3], [u16; 3]) {
    let told = world.told();
    let session = told.sessions.values().next().expect("a session");
    (session.tiers.allow, session.tiers.hold)
}

fn fail(world: &mut World) {
    *world.log.1.borrow_mut() = Some("no space");
    world.core.flush();
    world.core.look_at_log();
}

fn recover(world: &mut World) {
    *world.log.1.borrow_mut() = None;
    world.core.flush();
    world.core.look_at_log();
}

fn frozen(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.freeze")).expect("file") == "1"
}

const ALL: u16 = u16::MAX;

#[test]
fn nothing_changes_for_agents_that_may_go_on() {
    let (mut world, path) = world(OnFailure::Continue);
    let before = tiers(&world);
    fail(&mut world);
    assert_eq!((tiers(&world), world.core.unrecorded(), frozen(&path)), (before, None, false));
    assert!(world.kinds().contains(&"log-failed".to_owned()));
}

#[test]
fn what_is_privileged_is_refused_and_as_before_afterwards() {
    let (mut world, path) = world(OnFailure::default());
    let before = tiers(&world);
    assert_eq!(before, ([ALL, 0, 0], [0, ALL, ALL]));
    fail(&mut world);
    assert_eq!(tiers(&world), ([ALL, 0, 0], [0, 0, 0]));
    assert_eq!((world.core.unrecorded(), frozen(&path)), (Some("no space"), false));
    let status = world.core.status();
    let said = status.problems.iter().any(|p| p.contains("no space; meanwhile what tiers medium and high"));
    assert!(said, "{:?}", status.problems);
    // A session that the kernel has bound since, by what it had in store.
    world.told().sessions.values_mut().for_each(|session| session.tiers.allow = [ALL; 3]);
    world.core.look_at_log();
    assert_eq!(tiers(&world).0, [ALL, 0, 0]);
    recover(&mut world);
    assert_eq!((tiers(&world), world.core.unrecorded()), (before, None));
    let kinds = world.kinds();
    assert!(kinds.ends_with(&["log-failed".to_owned(), "log-recovered".to_owned()]), "{kinds:?}");
}

#[test]
fn sessions_are_frozen_and_go_on_afterwards_and_what_a_person_has_frozen_does_not() {
    let (mut world, path) = world(OnFailure::Freeze);
    let other = world.dir.path().join("cgroups/agents.slice/by-hand");
    fs::create_dir_all(&other).expect("cgroup");
    fs::write(other.join("cgroup.freeze"), "1").expect("file");
    fail(&mut world);
    assert!(frozen(&path) && world.core.unrecorded().is_some());
    recover(&mut world);
    assert!(!frozen(&path) && frozen(&other));
}
