//! The moments in which a session begins, and very many of them.

use super::{Attack, refused};
use crate::{
    agent::ROOT,
    cases, ensure,
    harness::{Outcome, Test, outside},
    promise,
};
use std::fs;

cases!(attack_launches: processes_without_number_stay_governed);

/// The group's limit ends the bomb; every process that it made is governed.
fn processes_without_number_stay_governed(t: &mut Test) -> Outcome {
    let number = if t.full { 2_000 } else { 250 };
    for name in ["open/f1", "shut/f1"] {
        t.file(name)?;
    }
    let (open, shut, go) = (t.at("open/f1"), t.at("shut/f1"), t.at("go"));
    promise::marker(t)?;
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+pids")?;
    let agent = t.agent(t.policy().allow("read", &open))?;
    let acts = [
        "say ready".to_owned(),
        format!("wait-for {go}"),
        format!("fork-bomb {shut} {number}"),
        format!("read {open}"),
        format!("read {shut}"),
    ];
    let mut live = agent.start(&acts)?;
    live.expect(&["ready", "ok"])?;
    fs::write(live.cgroup()?.join("pids.max"), (number * 4 / 5).to_string())?;
    t.file("go")?;
    live.expect(&["ok", "ok", "ok", "EPERM"])?;
    live.finish()?;
    // And those who come after are what they always were.
    ensure!(outside(&format!("read {shut}"))? == "ok", "an outsider is refused");
    let session = agent.probe(&[format!("read {open}"), format!("read {shut}")])?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    Ok(())
}

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("L01", "attacking with the very first system call, launch after launch, several at a time", "bprm_check_security arms before it", "sessions::the_first_system_call_of_a_launch_is_governed", "attack"),
    refused("L02", "an agent that starts another agent", "unix_stream_connect", "sessions::an_agent_cannot_start_another", "enforcer exec"),
    refused("L03", "a session whose command is a program that may prepare sessions", "bprm_check_security", "sessions::an_executor_as_the_command_of_a_session_is_governed", "/usr/bin/enforcer"),
    refused("L04", "more processes than there may be, each of which attacks", "task_alloc, file_open", "attack_launches::processes_without_number_stay_governed", "fork-bomb"),
    refused("L05", "a service in the slice that no policy names", "every hook: no session, no rights", "units::a_unit_that_no_policy_names_has_no_rights", "probe-unknown"),
    refused("L06", "an outsider that is moved into a session", "every hook: it is governed at once", "sessions::an_outsider_moved_into_a_session_is_governed", "newcomer"),
    refused("L07", "a service that starts as an agent, by its first act", "every hook", "units::a_unit_in_the_slice_starts_as_its_agent", "probe-unit"),
    refused("L08", "a service that outlives a restart of the daemon", "every hook", "units::an_instance_of_the_template_is_its_agent_and_outlives_a_restart_of_the_daemon", "template-bot"),
    refused("L09", "launching while the kernel has no BPF LSM", "the daemon does not start", "refusals::without_the_bpf_lsm_the_daemon_ends_with_its_reason", "daemon"),
    refused("L10", "launching while no daemon runs", "the launch", "refusals::without_a_daemon_nothing_is_started", "exec"),
    super::open("L11", "a cgroup made by hand below the slice before the daemon has attached for the first time", "Cgroups that somebody makes by hand below"),
    super::open("L12", "a terminal whose other side somebody else holds", "A caller can hand a session a pseudo terminal"),
    refused("L13", "a service in the slice on a kernel that cannot enforce", "the slice, which asserts that the tables are pinned", "refusals::no_unit_starts_in_the_slice", "agents.slice"),
];
