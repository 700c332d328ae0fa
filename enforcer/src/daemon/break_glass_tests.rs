//! Break-glass on a kernel side in memory: the order of effects, restarts, who may.

use super::*;
use crate::{
    break_glass::{
        book::{Ask, Refused},
        terminal::Terminal,
    },
    control::peer::Peer,
};
use serde_json::json;

fn ask(id: &str, agents: &[&str], seconds: u64) -> Ask {
    let agents = agents.iter().map(|name| (*name).to_owned()).collect();
    Ask { agents, seconds, reason: "disk full".to_owned(), by: json!({"uid": 0}), id: id.to_owned() }
}

fn peer(uid: u32, terminal: bool) -> Peer {
    let terminal = terminal.then(|| Terminal { name: "/dev/tty1".to_owned() });
    Peer { pid: 1, uid, gid: 0, groups: Vec::new(), terminal }
}

fn with_agents() -> World {
    let mut world = World::new();
    world.write("a.yaml", &policy("a", 1, "/agents.slice/a/*"));
    world.write("b.yaml", &policy("b", 1, "/agents.slice/b/*"));
    world.core.reload();
    world
}

fn lifted(world: &World) -> Vec<u32> {
    world.told().lifted.keys().map(|slot| slot.0).collect()
}

fn last(world: &World, kind: &str) -> Value {
    let records = world.log.0.borrow();
    records.iter().rev().find(|record| record["kind"] == kind).cloned().unwrap_or_default()
}

#[test]
fn only_root_at_a_terminal_begins_it_and_that_it_was_tried_is_recorded() {
    let mut world = with_agents();
    for refused in [peer(0, false), peer(1000, true)] {
        let failure = world.core.begin_break_glass(&[], 60, "disk full", &refused).expect_err("refused");
        assert_eq!(failure.exit, crate::cli::exit::Exit::Permission);
        assert_eq!(last(&world, "break-glass-refused")["by"]["uid"], refused.uid);
    }
    assert!(lifted(&world).is_empty());
    world.core.begin_break_glass(&["a".to_owned()], 60, "disk full", &peer(0, true)).expect("begins");
    let begun = last(&world, "break-glass-begun");
    assert_eq!((&begun["because"], &begun["by"]["terminal"]), (&json!("disk full"), &json!("/dev/tty1")));
    assert_eq!(begun["agents"], json!(["a"]));
    let slot = world.core.agent("a").expect("agent").slot.0;
    assert_eq!(lifted(&world), [slot]);
    let status = world.core.status();
    assert!(
        status.problems.iter().any(|problem| problem.starts_with("BREAK-GLASS")),
        "{:?}",
        status.problems
    );
    assert!(world.core.metrics().contains("enforcer_break_glass_agents 1\n"));
}

#[test]
fn what_cannot_be_kept_does_not_begin() {
    let mut world = with_agents();
    // Where the file should be there is a directory.
    fs::create_dir_all(world.dir.path().join("state/break-glass.json")).expect("dir");
    assert!(matches!(world.core.lift(ask("1", &["a"], 60)), Err(Refused::Unrecorded(_))));
    assert!(lifted(&world).is_empty() && world.core.break_glass_list().is_empty());
    assert_eq!(last(&world, "break-glass-ended")["break_glass"], "1");
}

#[test]
fn records_of_its_time_name_it_and_others_do_not() {
    let mut world = with_agents();
    world.core.lift(ask("1f", &["a"], 60)).expect("begins");
    for agent in ["a", "b"] {
        world.core.record("launched", json!({"agent": agent}));
        assert_eq!(
            last(&world, "launched")["break_glass"],
            if agent == "a" { json!("1f") } else { json!(null) }
        );
    }
    let slots = ["a", "b"].map(|name| world.core.agent(name).expect("agent").slot.0);
    for slot in slots {
        let bytes = record(b"", b"/bin/true", |header| {
            (header.kind, header.agent) = (kind::EXECUTED, slot);
            header.time = u64::try_from(boot_time()).expect("time");
        });
        world.told().records.push(bytes);
    }
    world.core.drain();
    let records = world.log.0.borrow();
    let executed: Vec<&Value> = records.iter().filter(|record| record["kind"] == "executed").collect();
    let ids: Vec<&Value> = executed.iter().map(|record| &record["break_glass"]).collect();
    assert_eq!(ids, [&json!("1f"), &json!(null)]);
}

#[test]
fn it_is_ended_by_hand_whoever_asks_and_by_time() {
    let mut world = with_agents();
    world.core.lift(ask("1", &[], 60)).expect("begins");
    assert_eq!(lifted(&world).len(), 2);
    assert!(world.core.end_break_glass(Some("2"), &peer(0, false)).is_err());
    world.core.end_break_glass(None, &peer(0, false)).expect("ended");
    assert!(lifted(&world).is_empty());
    assert_eq!(last(&world, "break-glass-ended")["because"], "a person has ended it");

    world.core.lift(ask("3", &["a"], 600)).expect("begins");
    world.core.end_overdue_break_glass();
    assert_eq!(last(&world, "break-glass-ended")["break_glass"], "1", "not yet");
    world.core.lift(ask("4", &["b"], 1)).expect("begins");
    std::thread::sleep(std::time::Duration::from_millis(1001));
    world.core.end_overdue_break_glass();
    assert_eq!(last(&world, "break-glass-ended")["break_glass"], "4");
    assert_eq!((lifted(&world).len(), world.core.break_glass_list().len()), (1, 1), "the other goes on");
    world.core.end_break_glass(Some("3"), &peer(0, false)).expect("ended");
    assert!(lifted(&world).is_empty() && world.core.break_glass_list().is_empty());
}

#[test]
fn the_next_daemon_keeps_the_deadline_and_ends_what_it_cannot_account_for() {
    let mut world = with_agents();
    world.core.lift(ask("1", &["a"], 60)).expect("begins");
    let until = world.told().lifted.clone();
    world.restart();
    world.core.adopt_break_glass();
    world.core.reload();
    assert_eq!(world.told().lifted, until, "neither longer nor shorter");
    assert_eq!(world.core.break_glass_list().len(), 1);

    fs::write(world.dir.path().join("state/break-glass.json"), "damaged").expect("write");
    world.restart();
    world.core.adopt_break_glass();
    assert!(lifted(&world).is_empty() && world.core.break_glass_list().is_empty());
    let ended = last(&world, "break-glass-ended");
    assert_eq!(ended["agents"], json!(["a"]));
    assert!(ended["because"].as_str().is_some_and(|why| why.contains("damaged")), "{ended}");
}

#[test]
fn times_of_another_boot_mean_nothing() {
    let mut world = with_agents();
    world.core.lift(ask("1", &["a"], 60)).expect("begins");
    let file = world.dir.path().join("state/break-glass.json");
    let text = fs::read_to_string(&file).expect("read");
    let (_, json) = text.split_once('\n').expect("sealed");
    let other = json.replace(&crate::audit::boot(), "another-boot");
    assert_ne!(other, json);
    fs::write(&file, crate::approvals::sealed::sealed(other.as_bytes())).expect("write");
    // The kernel's tables went with that boot.
    world.told().lifted.clear();
    world.restart();
    world.core.adopt_break_glass();
    let ended = last(&world, "break-glass-ended");
    assert_eq!(
        (&ended["break_glass"], &ended["because"]),
        (&json!("1"), &json!("the host was started anew"))
    );
    world.core.record("launched", json!({"agent": "a"}));
    assert!(last(&world, "launched")["break_glass"].is_null());
    let count = world.kinds().iter().filter(|kind| *kind == "break-glass-ended").count();
    world.restart();
    world.core.adopt_break_glass();
    assert_eq!(world.kinds().iter().filter(|kind| *kind == "break-glass-ended").count(), count, "said once");
}
